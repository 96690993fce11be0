//! Every part of an image, damaged in any way: named by its role, and none of them hidden by another.

use super::{layers, make_tree, memory, pack};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use volio::error::Kind;
use volio::layer::{Layer, Toc};
use volio::oci::{Descriptor, Digest, Index, Manifest};
use volio::progress::{Progress, Silent, Task, TaskInfo};
use volio::stream::Body;
use volio::transport::layout::Layout;
use volio::transport::{Destination, Source, fetch};
use volio::verify::{self, Verified};

/// An image for two platforms in a layout.
fn packed() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    pack(&Layout::create(&layout, Some("v1")).unwrap(), &tree);
    (directory, layout)
}

fn open(layout: &Path) -> Layout {
    Layout::open(layout, Some("v1"), None).unwrap()
}

fn verify(source: &dyn Source) -> Verified {
    verify::verify(source, &verify::Options::default(), &Silent).unwrap()
}

fn only(source: &dyn Source, platform: &str) -> volio::Result<Verified> {
    verify::verify(
        source,
        &verify::Options { platform: Some(platform.parse().unwrap()), ..Default::default() },
        &Silent,
    )
}

fn roles(verified: &Verified) -> Vec<&str> {
    verified.damage.iter().map(|damage| damage.role.as_str()).collect()
}

/// All blobs but the root, by their role.
fn parts(layout: &Path) -> Vec<(String, Descriptor)> {
    let source = open(layout);
    let index = Index::parse(&source.resolve().unwrap()).unwrap();
    let mut parts = Vec::new();
    for entry in index.manifests {
        let platform = entry.platform.clone().unwrap();
        let manifest = Manifest::parse(&fetch(&source, &entry).unwrap()).unwrap();
        parts.push((format!("manifest of {platform}"), entry));
        parts.push((format!("configuration of {platform}"), manifest.config));
        if platform.architecture == "amd64" {
            let both = "layer 1 of linux/amd64, layer 1 of linux/arm64".to_owned();
            parts.push((both, manifest.layers[0].clone()));
        }
    }
    parts
}

#[test]
fn a_sound_image_is_read_once_and_whole() {
    let (_directory, layout) = packed();
    let verified = verify(&open(&layout));
    assert_eq!(verified.damage, []);
    let size: u64 = fs::read_dir(layout.join("blobs/sha256"))
        .unwrap()
        .map(|blob| blob.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!((verified.images, verified.blobs, verified.bytes), (2, 6, size));
}

#[test]
fn every_damage_of_every_part_is_found_and_named() {
    let (_directory, layout) = packed();
    for (role, part) in parts(&layout) {
        let path = layout.join("blobs/sha256").join(part.digest.hex());
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        for bad in [flipped, good[1..].to_vec(), [&good[..], b"x"].concat(), Vec::new()] {
            fs::write(&path, bad).unwrap();
            let verified = verify(&open(&layout));
            // Below a manifest that cannot be trusted, nothing is known of the other platform's share.
            assert_eq!(roles(&verified)[0], role);
            assert_eq!(verified.damage[0].digest, part.digest);
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(roles(&verify(&open(&layout)))[0], role, "missing");
        fs::write(&path, good).unwrap();
    }
    assert_eq!(verify(&open(&layout)).damage, []);
}

#[test]
fn all_damage_is_reported_and_not_only_the_first() {
    let (_directory, layout) = packed();
    let broken: Vec<_> =
        parts(&layout).into_iter().filter(|(role, _)| !role.starts_with("manifest")).collect();
    for (_, part) in &broken {
        fs::write(layout.join("blobs/sha256").join(part.digest.hex()), "x").unwrap();
    }
    let verified = verify(&open(&layout));
    let mut expected = vec!["configuration of linux/amd64", "configuration of linux/arm64"];
    expected.push("layer 1 of linux/amd64, layer 1 of linux/arm64");
    // Without its configuration a layer has no diff_id that could be compared, and its digest is wrong all the same.
    assert_eq!(roles(&verified), expected);
}

#[test]
fn one_platform_is_verified_without_the_other() {
    let (_directory, layout) = packed();
    let arm = parts(&layout).into_iter().find(|(role, _)| role == "configuration of linux/arm64").unwrap().1;
    fs::write(layout.join("blobs/sha256").join(arm.digest.hex()), "x").unwrap();
    assert_eq!(only(&open(&layout), "linux/amd64").unwrap().damage, []);
    assert_eq!(roles(&only(&open(&layout), "linux/arm64").unwrap()), ["configuration of linux/arm64"]);
    assert_eq!(only(&open(&layout), "linux/s390x").unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_root_that_is_damaged_or_missing_is_an_error() {
    let (_directory, layout) = packed();
    let root = open(&layout).resolve().unwrap().descriptor().digest.clone();
    fs::write(layout.join("blobs/sha256").join(root.hex()), "x").unwrap();
    let verify = |tag| {
        let layout = Layout::open(&layout, Some(tag), None).unwrap();
        verify::verify(&layout, &verify::Options::default(), &Silent).unwrap_err().kind()
    };
    assert_eq!(verify("v1"), Kind::Integrity);
    assert_eq!(verify("absent"), Kind::NotFound);
}

#[test]
fn a_layer_with_another_content_than_the_config_says_is_found() {
    let image = memory();
    let layer = layers::layer(&image, &["a=1"]);
    layers::publish(&image, &[Layer { diff_id: Digest::of(b"something else"), ..layer }]);
    let verified = verify(&image);
    assert_eq!(roles(&verified), ["layer 1 of linux/amd64, layer 1 of linux/arm64"]);
    assert!(verified.damage[0].why.contains("the image says"), "{}", verified.damage[0].why);
}

#[test]
fn a_layer_that_is_no_archive_is_found() {
    let image = memory();
    let (sound, broken) = (layers::layer(&image, &["a=1"]), layers::blob(&image, &[b'x'; 2000]));
    layers::publish(&image, &[sound, broken]);
    assert_eq!(roles(&verify(&image)), ["layer 2 of linux/amd64, layer 2 of linux/arm64"]);
}

/// A layer with the frames of one tree and the table of contents of another, which its descriptor proves.
fn forged(image: &volio::transport::memory::Memory, honest: &Path, lie: &Path) -> Layer {
    let packed = |tree: &Path| {
        let source = memory();
        pack(&source, tree);
        let index = Index::parse(&source.resolve().unwrap()).unwrap();
        let manifest = Manifest::parse(&fetch(&source, &index.manifests[0]).unwrap()).unwrap();
        let config: volio::oci::ImageConfig = fetch(&source, &manifest.config).unwrap().parse().unwrap();
        let layer = manifest.layers[0].clone();
        let mut bytes = Vec::new();
        source.open(&layer).unwrap().verify(&layer).read_to_end(&mut bytes).unwrap();
        let range = Toc::of(&layer).unwrap().unwrap().range();
        (layer, bytes, range.start as usize..range.end as usize, config.rootfs.diff_ids[0].clone())
    };
    let (honest, lie) = (packed(honest), packed(lie));
    let toc = &lie.1[lie.2.clone()];
    let size = (toc.len() as u32).to_le_bytes();
    let bytes = [&honest.1[..honest.2.start - 4], size.as_slice(), toc].concat();
    let padding = [b"\x50\x2a\x4d\x18\x28\0\0\0".as_slice(), &[0; 40]].concat();
    let bytes = [bytes, padding].concat();
    let mut descriptor = Descriptor::of(honest.0.media_type, &bytes);
    descriptor.annotations = lie.0.annotations;
    let plain_size = descriptor.annotations["io.volio.toc.position"].rsplit(':').next().unwrap().to_owned();
    let position = format!("{}:{}:{plain_size}", honest.2.start, toc.len());
    descriptor.annotations.insert("io.volio.toc.position".to_owned(), position);
    image.upload(Body::new(std::io::Cursor::new(bytes))).unwrap();
    Layer { descriptor, diff_id: honest.3 }
}

#[test]
fn a_layer_whose_table_of_contents_is_of_another_tree_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let (honest, lie) = (directory.path().join("honest"), directory.path().join("lie"));
    for (tree, content) in [(&honest, "honest"), (&lie, "a lie!")] {
        fs::create_dir(tree).unwrap();
        make_tree(tree);
        fs::write(tree.join("file"), content).unwrap();
        super::set_times(tree);
    }
    let image = memory();
    layers::publish(&image, &[forged(&image, &honest, &honest)]);
    assert_eq!(verify(&image).damage, []);
    layers::publish(&image, &[forged(&image, &honest, &lie)]);
    let error = super::unpack(&image, &directory.path().join("target")).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    assert!(error.to_string().contains("table of contents"), "{error}");
    let damage = verify(&image).damage;
    assert_eq!(damage.len(), 1);
    assert!(
        damage[0].why.contains("/dir/again") && damage[0].why.contains("table of contents"),
        "{damage:?}"
    );
}

#[test]
fn a_foreign_layer_that_the_source_does_not_have_is_not_damage_and_is_named() {
    let image = memory();
    let mut foreign = layers::layer(&image, &["a=1"]);
    foreign.descriptor = Descriptor {
        media_type: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".to_owned(),
        ..Descriptor::of("", b"elsewhere")
    };
    foreign.descriptor.extra.insert("urls", &serde_json::json!(["https://example.com/layer.tar.gz"]));
    layers::publish(&image, &[layers::layer(&image, &["b=1"]), foreign]);
    let progress = Warnings::default();
    let verified = verify::verify(&image, &verify::Options::default(), &progress).unwrap();
    assert_eq!((verified.damage.as_slice(), verified.blobs_foreign), (&[][..], 1));
    let warnings = progress.0.into_inner().unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("https://example.com/layer.tar.gz"), "{warnings:?}");
}

#[test]
fn a_signature_is_verified_although_its_payload_is_not_an_archive() {
    let image = memory();
    let config = br#"{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000000"]}}"#;
    let payload = "application/vnd.dev.cosign.simplesigning.v1+json";
    let blobs = [(volio::oci::media_type::CONFIG, &config[..]), (payload, b"{}")];
    let [config, payload] = blobs.map(|(kind, bytes)| {
        image.upload(Body::new(std::io::Cursor::new(bytes.to_vec()))).unwrap();
        Descriptor::of(kind, bytes)
    });
    let manifest = Manifest::new(config, vec![payload], Default::default());
    let manifest = volio::oci::Document::write(volio::oci::media_type::MANIFEST, &manifest);
    image.put_manifest(&manifest).unwrap();
    image.commit(&manifest).unwrap();
    assert_eq!(verify(&image).damage, []);
}

/// The warnings of a run.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        Silent.begin(info)
    }

    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}
