//! Archives for `docker load`, and as old and new `docker save` write them.
//!
//! They have a separate contract: what they cannot hold is refused, and what they hold has the same digest when it is written
//! and when it is read.

use super::{assert_unpacks, copied, destination, location, pack, source, tree};
use serde_json::{Value, json};
use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Mutex;
use volio::error::Kind;
use volio::layer::LayerWriter;
use volio::oci::{Digest, Document, Manifest, media_type};
use volio::progress::{Progress, Silent, Task, TaskInfo};
use volio::stream::Body;
use volio::transport::{Access, Destination, fetch};
use volio::unpack;

/// A `Progress` that collects warnings.
#[derive(Default)]
struct Warned(Mutex<Vec<String>>);

impl Progress for Warned {
    fn begin(&self, _info: &TaskInfo) -> Box<dyn Task> {
        Box::new(Silent)
    }

    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

fn list(file: &Path) -> Value {
    let mut archive = tar::Archive::new(fs::File::open(file).unwrap());
    let list = archive
        .entries()
        .unwrap()
        .map(Result::unwrap)
        .find(|entry| entry.path().unwrap() == Path::new("manifest.json"));
    serde_json::from_reader(list.unwrap()).unwrap()
}

#[test]
fn packing_copying_and_reading_agree_on_the_digest() {
    let place = tempfile::tempdir().unwrap();
    let tree = tree("content");
    let at = |name: &str| format!("{}/{name}", place.path().display());
    let packed = pack(&format!("docker-archive:{}:data:v1", at("packed.tar")), tree.path()).unwrap();
    assert_unpacks(&format!("docker-archive:{}", at("packed.tar")), tree.path());
    assert_unpacks(&packed.address, tree.path());

    // From a layout with two platforms and zstd layers to the same bytes.
    let layout = format!("oci:{}:v1", at("layout"));
    let whole = pack(&layout, tree.path()).unwrap();
    let warned = Warned::default();
    let to = format!("docker-archive:{}:data:v1", at("copied.tar"));
    let converted = copied(&*source(&layout), &*destination(&to), &warned).unwrap();
    assert_eq!(converted.digest, packed.digest);
    assert_ne!(converted.digest, whole.digest);
    assert_eq!(warned.0.lock().unwrap().len(), 1, "it is said aloud that the image changes");
    assert!(fs::read(at("packed.tar")).unwrap() == fs::read(at("copied.tar")).unwrap());

    // Copied out again, to any transport, no byte changes.
    let again = format!("oci-archive:{}:v1", at("again.tar"));
    let warned = Warned::default();
    let out = copied(&*source(&to), &*destination(&again), &warned).unwrap();
    let back =
        copied(&*source(&again), &*destination(&format!("docker-archive:{}", at("back.tar"))), &warned);
    assert_eq!((out.digest, back.unwrap().digest), (packed.digest.clone(), packed.digest));
    assert!(warned.0.lock().unwrap().is_empty());
    assert_eq!(list(Path::new(&at("back.tar")))[0]["RepoTags"], json!([]));
}

#[test]
fn a_part_of_a_layer_is_read_by_its_range() {
    let place = tempfile::tempdir().unwrap();
    let name = format!("docker-archive:{}/a.tar:data:v1", place.path().display());
    pack(&name, tree("content").path()).unwrap();
    let source = source(&name);
    let root = source.resolve().unwrap();
    let layer = Manifest::parse(&root).unwrap().layers.remove(0);
    let mut all = source.open_range(&layer, 0..layer.size).unwrap().unwrap();
    let all = all.take_unverified(layer.size as usize).unwrap();
    assert_eq!(Digest::of(&all), layer.digest);
    let mut part = source.open_range(&layer, 500..1500).unwrap().unwrap();
    assert_eq!(part.take_unverified(1000).unwrap(), all[500..1500]);
    assert_eq!(source.open_range(&layer, 500..layer.size + 1).err().unwrap().kind(), Kind::Integrity);
    // The manifest is built again from the whole list.
    assert!(source.open_range(root.descriptor(), 0..1).unwrap().is_none());
}

#[test]
fn a_name_moves_from_image_to_image() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.tar");
    let name = |reference: &str| format!("docker-archive:{}:{reference}", file.display());
    let (one, two) = (tree("one"), tree("two"));
    pack(&name("data:1"), one.path()).unwrap();
    pack(&name("host.io/data:2"), one.path()).unwrap();
    assert_eq!(list(&file).as_array().unwrap().len(), 1, "one image with two names: {}", list(&file));
    pack(&name("data:1"), two.path()).unwrap();
    assert_unpacks(&name("docker.io/library/data:1"), two.path());
    assert_unpacks(&name("host.io/data:2"), one.path());
    let error = location(&name("data:3")).source(&Access::default()).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(error.hint(), Some("its images are host.io/data:2, docker.io/library/data:1"));
    let several = source(&format!("docker-archive:{}", file.display()));
    assert_eq!(several.resolve().unwrap_err().kind(), Kind::Usage);
    pack(&name("host.io/data:2"), two.path()).unwrap();
    assert_eq!(
        list(&file).as_array().unwrap().len(),
        1,
        "an image without a name is not listed: {}",
        list(&file)
    );
}

#[test]
fn what_an_archive_cannot_hold_is_refused_before_anything_is_written() {
    let place = tempfile::tempdir().unwrap();
    let name = format!("docker-archive:{}/a.tar", place.path().display());
    let tree = tree("x");
    let packed = |image: volio::image::Description| {
        let options = volio::pack::Options { image, ..volio::pack::Options::default() };
        let sources = [volio::tree::SourceSpec::new(tree.path())];
        volio::pack::pack(&*destination(&name), &sources, &options, &Silent).unwrap_err().kind()
    };
    let platforms = ["linux/amd64", "linux/arm64"].map(|text| text.parse().unwrap()).to_vec();
    assert_eq!(packed(volio::image::Description { platforms, ..Default::default() }), Kind::Usage);
    let annotations = [("a".to_owned(), "b".to_owned())].into();
    assert_eq!(packed(volio::image::Description { annotations, ..Default::default() }), Kind::Usage);

    let layout = format!("oci:{}/layout", place.path().display());
    pack(&layout, tree.path()).unwrap();
    let index = source(&layout).resolve().unwrap();
    let compressed = fetch(&*source(&layout), &first_manifest(&index)).unwrap();
    // Plain, but with an annotation that the archive cannot hold.
    let mut manifest = Manifest::parse(&compressed).unwrap();
    manifest.layers.clear();
    manifest.annotations.insert("a".to_owned(), "b".to_owned());
    for document in [&index, &compressed, &Document::write(media_type::MANIFEST, &manifest)] {
        assert_eq!(destination(&name).put_manifest(document).unwrap_err().kind(), Kind::Usage);
        assert_eq!(destination(&name).commit(document).unwrap_err().kind(), Kind::Usage);
    }
    assert!(!place.path().join("a.tar").exists());
}

fn first_manifest(index: &Document) -> volio::oci::Descriptor {
    volio::oci::Index::parse(index).unwrap().manifests[0].clone()
}

/// Returns a layer with one file, as a plain tar archive.
fn layer(tree: &Path) -> Vec<u8> {
    let mut layer = LayerWriter::new(Vec::new());
    let sources = [volio::tree::SourceSpec::new(tree)];
    for found in volio::tree::Walk::new(&sources, &Default::default()).unwrap() {
        let found = found.unwrap();
        match found.file {
            Some(file) => layer.append(&found.entry, file, |_| {}).unwrap(),
            None => layer.append(&found.entry, std::io::empty(), |_| {}).unwrap(),
        }
    }
    layer.finish().unwrap().0
}

fn config(diff_ids: &[Digest]) -> Vec<u8> {
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    serde_json::to_vec(&config).unwrap()
}

/// Writes an archive of files and symbolic links.
fn write(path: &Path, files: &[(&str, &[u8])], links: &[(&str, &str)]) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, name, target).unwrap();
    }
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.finish().unwrap();
}

#[test]
fn an_archive_of_an_old_docker_save_is_read_although_its_layers_are_links() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.tar");
    let tree = tree("old");
    let layer = layer(tree.path());
    let diff_id = Digest::of(&layer);
    let config = config(&[diff_id.clone(), diff_id.clone()]);
    let entries =
        json!([{"Config": "c.json", "RepoTags": null, "Layers": ["one/layer.tar", "two/layer.tar"]}]);
    let entries = serde_json::to_vec(&entries).unwrap();
    write(
        &file,
        &[
            ("c.json", &config),
            ("one/layer.tar", &layer),
            ("manifest.json", &entries),
            ("repositories", b"{}"),
        ],
        &[("two/layer.tar", "../one/layer.tar")],
    );
    let name = format!("docker-archive:{}", file.display());
    assert_unpacks(&name, tree.path());
    let manifest = Manifest::parse(&source(&name).resolve().unwrap()).unwrap();
    assert!(
        manifest.layers.iter().all(|layer| layer.digest == diff_id && layer.media_type == media_type::LAYER)
    );

    // A further image does not change it.
    let other = super::tree("new");
    pack(&format!("{name}:new:1"), other.path()).unwrap();
    assert_unpacks(&format!("{name}:new:1"), other.path());
    let digest = Document::write(media_type::MANIFEST, &manifest).descriptor().digest.clone();
    assert_unpacks(&format!("{name}@{digest}"), tree.path());
}

#[test]
fn a_layer_stays_while_a_link_of_another_image_points_to_it() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.tar");
    let tree = tree("old");
    let layer = layer(tree.path());
    let diff_id = Digest::of(&layer);
    let (one, two) = (config(std::slice::from_ref(&diff_id)), config(&[diff_id.clone(), diff_id]));
    let entries = json!([
        {"Config": "one.json", "RepoTags": ["data:one"], "Layers": ["one/layer.tar"]},
        {"Config": "two.json", "RepoTags": ["data:two"], "Layers": ["two/layer.tar", "three/layer.tar"]},
    ]);
    write(
        &file,
        &[
            ("one.json", &one),
            ("two.json", &two),
            ("one/layer.tar", &layer),
            ("manifest.json", &serde_json::to_vec(&entries).unwrap()),
        ],
        &[("two/layer.tar", "../three/layer.tar"), ("three/layer.tar", "../one/layer.tar")],
    );
    let name = |tag: &str| format!("docker-archive:{}:data:{tag}", file.display());
    let new = super::tree("new");
    pack(&name("one"), new.path()).unwrap();
    assert_unpacks(&name("one"), new.path());
    assert_unpacks(&name("two"), tree.path());
    pack(&name("two"), new.path()).unwrap();
    assert_unpacks(&name("two"), new.path());
    assert_eq!(
        super::blobs(&file).len(),
        2,
        "one image under two names, and nothing of the old: {:?}",
        super::blobs(&file)
    );
}

#[test]
fn compressed_layers_of_other_tools_are_read() {
    let place = tempfile::tempdir().unwrap();
    let (file, tree) = (place.path().join("a.tar"), tree("compressed"));
    let layer = layer(tree.path());
    let compressed = zstd::bulk::compress(&layer, 3).unwrap();
    let config = config(&[Digest::of(&layer)]);
    let entries = br#"[{"Config": "c", "Layers": ["./l"]}]"#;
    write(&file, &[("c", &config), ("l", &compressed), ("manifest.json", entries)], &[]);
    assert_unpacks(&format!("docker-archive:{}", file.display()), tree.path());
}

#[test]
fn invalid_lists_are_errors() {
    let place = tempfile::tempdir().unwrap();
    let (file, tree) = (place.path().join("a.tar"), tree("x"));
    let (layer, outside) = (layer(tree.path()), place.path().join("outside"));
    fs::write(&outside, &layer).unwrap();
    let config = config(&[Digest::of(&layer)]);
    let absolute = format!(r#"[{{"Config": "c", "Layers": [{:?}]}}]"#, outside.to_str().unwrap());
    for entries in [
        "[",
        "{}",
        r#"[{"Layers": ["l"]}]"#,
        r#"[{"Config": "absent", "Layers": ["l"]}]"#,
        r#"[{"Config": "../c", "Layers": ["l"]}]"#,
        r#"[{"Config": "l", "Layers": ["l"]}]"#,
        r#"[{"Config": "c", "Layers": []}]"#,
        r#"[{"Config": "c", "Layers": ["l", "l"]}]"#,
        r#"[{"Config": "c", "Layers": ["../outside"]}]"#,
        r#"[{"Config": "c", "Layers": ["link"]}]"#,
        &absolute,
    ] {
        let files = [("c", &config[..]), ("l", &layer), ("manifest.json", entries.as_bytes())];
        write(&file, &files, &[("link", outside.to_str().unwrap())]);
        let error = location(&format!("docker-archive:{}", file.display())).source(&Access::default());
        assert_eq!(error.err().unwrap().kind(), Kind::Integrity, "{entries}");
    }
    // A layer with a wrong diff_id is detected when it is read.
    let mut damaged = layer.clone();
    damaged[0] ^= 1;
    let entries = br#"[{"Config": "c", "Layers": ["l"]}]"#;
    write(&file, &[("c", &config), ("l", &damaged), ("manifest.json", entries)], &[]);
    let from = source(&format!("docker-archive:{}", file.display()));
    let target = place.path().join("target");
    let error = unpack::unpack(&*from, &target, &unpack::Options::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity);
}

#[test]
fn a_damaged_layer_is_not_written_into_an_archive() {
    let place = tempfile::tempdir().unwrap();
    let tree = tree("x");
    let layout = place.path().join("layout");
    let from = format!("oci:{}:v1", layout.display());
    let packed = pack(&from, tree.path()).unwrap();
    let blob = layout.join("blobs/sha256").join(packed.layers[0].digest.hex());
    let whole = fs::read(&blob).unwrap();
    for at in [0, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(&blob, damaged).unwrap();
        let to = format!("docker-archive:{}/a.tar:v1", place.path().display());
        let error = copied(&*source(&from), &*destination(&to), &Silent).unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity, "{error}");
        assert!(error.to_string().contains("has the digest"), "the blob's own verdict comes first: {error}");
        assert_eq!(error.side(), Some(volio::error::Side::Source));
        assert!(!place.path().join("a.tar").exists());
    }
}

#[test]
fn an_image_with_a_wrong_diff_id_is_not_written_into_an_archive() {
    let place = tempfile::tempdir().unwrap();
    let from = volio::transport::memory::Memory::default().named("lies");
    let upload = |bytes: Vec<u8>| from.upload(Body::new(Cursor::new(bytes))).unwrap();
    let compressed = zstd::bulk::compress(&layer(tree("content").path()), 3).unwrap();
    let (config, layer) = (config(&[Digest::of(b"other content")]), compressed);
    upload(config.clone());
    upload(layer.clone());
    let of = volio::oci::Descriptor::of;
    let layers = vec![of(media_type::LAYER_ZSTD, &layer)];
    let manifest = Manifest::new(of(media_type::CONFIG, &config), layers, Default::default());
    from.commit(&Document::write(media_type::MANIFEST, &manifest)).unwrap();
    let to = format!("docker-archive:{}/a.tar:v1", place.path().display());
    let error = copied(&from, &*destination(&to), &Silent).unwrap_err();
    assert_eq!((error.kind(), error.side()), (Kind::Integrity, Some(volio::error::Side::Source)));
    assert!(!place.path().join("a.tar").exists());
}

#[test]
fn blobs_are_there_after_their_upload() {
    let place = tempfile::tempdir().unwrap();
    let to = destination(&format!("docker-archive:{}/a.tar", place.path().display()));
    let descriptor = volio::oci::Descriptor::of(media_type::LAYER, b"layer");
    assert!(!to.contains(&descriptor).unwrap());
    to.upload(Body::new(Cursor::new(b"layer"))).unwrap();
    assert!(to.contains(&descriptor).unwrap());
}

/// Replaces the list of images in an archive.
fn relist(file: &Path, edit: impl FnOnce(&mut Value)) {
    let mut edited = list(file);
    edit(&mut edited);
    let edited = edited.to_string();
    let mut old = tar::Archive::new(fs::File::open(file).unwrap());
    let mut new = tar::Builder::new(Vec::new());
    for entry in old.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut header = entry.header().clone();
        if entry.path().unwrap() == Path::new("manifest.json") {
            header.set_size(edited.len() as u64);
            header.set_cksum();
            new.append(&header, edited.as_bytes()).unwrap();
        } else {
            new.append(&header, &mut entry).unwrap();
        }
    }
    fs::write(file, new.into_inner().unwrap()).unwrap();
}

#[test]
fn images_that_share_a_name_or_have_none_are_named_by_their_digests() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.tar");
    let name = |rest: &str| format!("docker-archive:{}{rest}", file.display());
    let trees = ["1", "2"].map(|tag| (tag, tree(tag)));
    let packed =
        trees.each_ref().map(|(tag, tree)| pack(&name(&format!(":data:{tag}")), tree.path()).unwrap());
    let digests = packed.map(|packed| packed.digest).to_vec();
    let names_all = |error: &volio::Error| {
        digests.iter().all(|digest| error.hint().unwrap().contains(&format!("@{digest}")))
    };

    relist(&file, |list| list[1]["RepoTags"] = json!(["data:1"]));
    let error = location(&name(":data:1")).source(&Access::default()).err().unwrap();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(names_all(&error), "{error:?}");
    assert_unpacks(&name(&format!("@{}", digests[1])), trees[1].1.path());

    relist(&file, |list| {
        for image in list.as_array_mut().unwrap() {
            image["RepoTags"] = Value::Null;
        }
    });
    let nameless = source(&name(""));
    assert!(nameless.tags().unwrap().is_empty());
    assert_eq!(nameless.untagged().unwrap(), digests);
    assert!(names_all(&nameless.resolve().unwrap_err()));
}
