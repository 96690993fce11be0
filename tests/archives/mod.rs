//! Images in archives: packed, copied, unpacked, and written by several writers at once.

mod attachments;
mod bundles;
mod docker;
mod part;

use crate::contract::{TestTransport, publish};
use crate::snapshot::assert_same;
use std::fs;
use std::path::Path;
use volio::copy::{self, Copied, copy};
use volio::error::Kind;
use volio::oci::{Descriptor, media_type};
use volio::progress::Progress;
use volio::progress::Silent;
use volio::transport::oci_archive::{OciArchive, OciArchiveWriter};
use volio::transport::{Access, Destination, Location, Source};
use volio::tree::SourceSpec;
use volio::{pack, unpack};

fn location(text: &str) -> Location {
    text.parse().unwrap()
}

fn source(text: &str) -> Box<dyn Source> {
    location(text).source(&Access::default()).unwrap()
}

fn destination(text: &str) -> Box<dyn Destination> {
    location(text).destination(&Access::default()).unwrap()
}

fn copied(from: &dyn Source, to: &dyn Destination, progress: &dyn Progress) -> volio::Result<Copied> {
    copy(from, to, &copy::Options::default(), progress)
}

fn pack(to: &str, tree: &Path) -> volio::Result<pack::Packed> {
    pack::pack(&*destination(to), &[SourceSpec::new(tree)], &pack::Options::default(), &Silent)
}

fn assert_unpacks(from: &str, tree: &Path) {
    let target = tempfile::tempdir().unwrap();
    unpack::unpack(&*source(from), target.path(), &unpack::Options::default(), &Silent).unwrap();
    assert_same(tree, target.path());
}

/// Returns a tree with one file of this content.
fn tree(text: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), text).unwrap();
    directory
}

#[test]
fn several_images_in_an_archive_are_packed_copied_and_unpacked() {
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (tree("one"), tree("two"));
    let name = |rest: &str| format!("oci-archive:{}/{rest}", place.path().display());
    let first = pack(&name("a.tar:one"), one.path()).unwrap();
    let second = pack(&name("a.tar:two"), two.path()).unwrap();
    assert_unpacks(&name("a.tar:one"), one.path());
    assert_unpacks(&name("a.tar:two"), two.path());
    assert_unpacks(&name(&format!("a.tar@{}", first.digest)), one.path());

    let moved = copied(&*source(&name("a.tar:two")), &*destination(&name("b.tar:x")), &Silent).unwrap();
    assert_eq!((moved.digest, moved.blobs_copied), (second.digest, 3));
    assert_unpacks(&name("b.tar"), two.path());
    let again = copied(&*source(&name("a.tar:two")), &*destination(&name("b.tar:y")), &Silent).unwrap();
    assert_eq!((again.blobs_copied, again.blobs_present), (0, 3), "what is there is not written again");
    let tags = source_error(&name("b.tar:z"));
    assert_eq!((tags.kind(), tags.hint()), (Kind::NotFound, Some("its tags are x, y")));
}

/// Returns the names of all members that are blobs.
fn blobs(file: &Path) -> Vec<String> {
    let mut archive = tar::Archive::new(fs::File::open(file).unwrap());
    let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
    let mut blobs: Vec<_> =
        names.filter(|name| name.starts_with("blobs/") || name.contains("layer")).collect();
    blobs.sort();
    blobs
}

#[test]
fn moving_a_tag_removes_the_blobs_that_only_the_old_image_needed() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.tar");
    for (scheme, rest) in [("oci-archive", 5), ("docker-archive", 1)] {
        let _ = fs::remove_file(&file);
        let name = |tag: &str| format!("{scheme}:{}:{tag}", file.display());
        let (one, two) = (tree("one"), tree("two"));
        pack(&name("data:a"), one.path()).unwrap();
        let alone = blobs(&file);
        assert_eq!(alone.len(), rest + 1, "a layer, and documents: {alone:?}");
        // Another tag for the same image adds no blob.
        copied(&*source(&name("data:a")), &*destination(&name("data:b")), &Silent).unwrap();
        assert_eq!(blobs(&file), alone);
        // The old image still has a name.
        pack(&name("data:a"), two.path()).unwrap();
        assert!(blobs(&file).len() > alone.len());
        assert_unpacks(&name("data:b"), one.path());
        assert_unpacks(&name("data:a"), two.path());
        // Now it has none.
        copied(&*source(&name("data:a")), &*destination(&name("data:b")), &Silent).unwrap();
        assert_eq!(blobs(&file).len(), alone.len(), "{:?}", blobs(&file));
        assert_unpacks(&name("data:b"), two.path());
    }
}

#[test]
fn with_an_unknown_manifest_no_blob_is_removed() {
    let place = tempfile::tempdir().unwrap();
    let layout = place.path().join("layout");
    let at = |tag: &str| format!("oci:{}:{tag}", layout.display());
    pack(&at("a"), tree("one").path()).unwrap();
    // The blobs of a manifest of an unknown type cannot be known.
    let path = layout.join("index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let strange = serde_json::json!({"mediaType": "application/vnd.example.strange+json", "size": 2, "digest": volio::oci::Digest::of(b"{}")});
    index["manifests"].as_array_mut().unwrap().push(strange);
    fs::write(&path, index.to_string()).unwrap();
    let file = place.path().join("a.tar");
    let mut tar = tar::Builder::new(fs::File::create(&file).unwrap());
    tar.append_dir_all(".", &layout).unwrap();
    tar.finish().unwrap();
    let before = blobs(&file);
    let name = format!("oci-archive:{}:a", file.display());
    pack(&name, tree("two").path()).unwrap();
    let after = blobs(&file);
    assert!(before.iter().all(|blob| after.contains(blob)), "{before:?} {after:?}");
    // The same applies to the layout itself.
    let kept = location(&at("a")).removal(&Access::default()).unwrap().remove(false).unwrap();
    assert!(kept.blobs == 0 && kept.blobs_left.unwrap().contains("application/vnd.example.strange+json"));
}

fn source_error(name: &str) -> volio::Error {
    location(name).source(&Access::default()).and_then(|source| source.resolve()).unwrap_err()
}

#[test]
fn the_same_tree_makes_the_same_archive() {
    let place = tempfile::tempdir().unwrap();
    let tree = tree("same");
    for scheme in ["oci-archive", "docker-archive"] {
        let files = ["a", "b"].map(|name| place.path().join(format!("{scheme}-{name}")));
        for file in &files {
            pack(&format!("{scheme}:{}:v1", file.display()), tree.path()).unwrap();
        }
        assert!(fs::read(&files[0]).unwrap() == fs::read(&files[1]).unwrap());
    }
}

#[test]
fn concurrent_writers_do_not_lose_images_of_each_other() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a.tar");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let file = &file;
            scope.spawn(move || {
                let writer = OciArchiveWriter::create(file, Some(&format!("t{n}"))).unwrap();
                publish(&writer, &format!("image {n}"));
            });
        }
    });
    for n in 0..8 {
        let image = OciArchive::open(&file, Some(&format!("t{n}")), None).unwrap();
        volio::inspect::inspect(&image).unwrap();
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "nothing is left over");
}

#[test]
fn a_file_that_is_not_a_layout_is_neither_read_nor_overwritten() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("precious");
    let name = format!("oci-archive:{}:v1", file.display());
    fs::write(&file, "precious".repeat(200)).unwrap();
    let tree = tree("x");
    assert_eq!(source_error(&name).kind(), Kind::Integrity);
    let refused = location(&name).destination(&Access::default()).err().unwrap();
    assert_eq!(refused.kind(), Kind::Refused);
    assert_eq!(fs::read(&file).unwrap(), "precious".repeat(200).as_bytes());

    fs::remove_file(&file).unwrap();
    pack(&format!("docker-archive:{}:v1", file.display()), tree.path()).unwrap();
    let error = source_error(&name);
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint().unwrap().contains("docker-archive:"), "{error:?}");
    assert_eq!(location(&name).destination(&Access::default()).err().unwrap().kind(), Kind::Refused);
    let error = location("oci-archive:/nowhere/at/all.tar").destination(&Access::default()).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn a_changed_blob_in_an_archive_is_detected() {
    let place = crate::transports::TemporaryArchive::new();
    let document = publish(&*place.destination("t").unwrap(), "first");
    let mut bytes = fs::read(place.file()).unwrap();
    let at = bytes.windows(5).position(|window| window == b"first").unwrap();
    bytes[at] ^= 1;
    fs::write(place.file(), bytes).unwrap();
    let source = place.source("t").unwrap();
    assert_eq!(source.resolve().unwrap(), document);
    assert_eq!(volio::inspect::inspect(&*source).unwrap_err().kind(), Kind::Integrity);
    let absent = Descriptor::of(media_type::LAYER, b"absent");
    assert_eq!(source.open(&absent).err().unwrap().kind(), Kind::NotFound);
}

#[test]
fn a_document_that_is_not_an_image_is_not_copied() {
    let place = tempfile::tempdir().unwrap();
    let name = |rest: &str| format!("oci:{}/{rest}", place.path().display());
    let writer = destination(&name("a:strange"));
    let strange = volio::oci::Document::new("application/vnd.oci.artifact.manifest.v1+json", b"{}".to_vec());
    writer.put_manifest(&strange).unwrap();
    writer.commit(&strange).unwrap();
    let to = destination(&name("b:strange"));
    let error = copied(&*source(&name("a:strange")), &*to, &Silent).unwrap_err();
    assert!(error.to_string().contains("not an image that volio knows"), "{error}");
    assert_eq!(source_error(&name("b:strange")).kind(), Kind::NotFound);
}
