//! The same tree and options give the same digests, on any machine.

use super::{make_tree, memory, pack, pack_with};
use std::fs;
use std::path::Path;
use volio::layer::Compression;
use volio::oci::Descriptor;
use volio::pack::Options;
use volio::transport::{Destination, Source, layout::Layout};
use volio::tree::WalkOptions;

/// Owners differ from machine to machine; normalised they do not.
fn normalised(compression: Compression) -> Options {
    let tree = WalkOptions { normalize: Some(volio::tree::Time::default()), ..WalkOptions::default() };
    Options { compression, tree, ..Options::default() }
}

/// To change these bytes is a decision: write it into CHANGELOG.md, and take the new ones from the failed test.
#[test]
fn a_fixed_tree_has_the_golden_digests() {
    let tree = tempfile::tempdir().unwrap();
    make_tree(tree.path());
    let mut digests = String::new();
    for compression in ["zstd:3", "gzip:6", "none"] {
        let packed = pack_with(&memory(), tree.path(), &normalised(compression.parse().unwrap())).unwrap();
        let layer = &packed.layers[0];
        digests += &format!(
            "{compression}\n  image   {}\n  layer   {}\n  diff_id {}\n",
            packed.digest, layer.digest, layer.diff_id
        );
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden/digests.txt");
    assert_eq!(
        fs::read_to_string(golden).unwrap_or_default(),
        digests,
        "the bytes of images have changed:\n{digests}"
    );
}

/// The documents of the golden image, to be read by people and compared as text.
#[test]
fn a_fixed_tree_has_the_golden_documents() {
    let tree = tempfile::tempdir().unwrap();
    make_tree(tree.path());
    let image = memory();
    pack_with(&image, tree.path(), &normalised(Compression::default())).unwrap();
    let root = image.resolve().unwrap();
    let mut documents = vec![String::from_utf8(root.bytes().to_vec()).unwrap()];
    for manifest in volio::oci::Index::parse(&root).unwrap().manifests {
        let manifest = volio::transport::fetch(&image, &manifest).unwrap();
        documents.push(String::from_utf8(manifest.bytes().to_vec()).unwrap());
        let config = volio::oci::Manifest::parse(&manifest).unwrap().config;
        let config = volio::transport::fetch(&image, &config).unwrap();
        documents.push(String::from_utf8(config.bytes().to_vec()).unwrap());
    }
    let documents = documents.join("\n") + "\n";
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden/documents.jsonl");
    assert_eq!(
        fs::read_to_string(golden).unwrap_or_default(),
        documents,
        "the documents have changed:\n{documents}"
    );
}

#[test]
fn packing_twice_sends_the_same_and_a_copy_of_the_tree_does_too() {
    let (tree, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_tree(tree.path());
    let status = std::process::Command::new("cp")
        .args(["-a", "--no-target-directory"])
        .args([tree.path(), copy.path()])
        .status()
        .unwrap();
    assert!(status.success());
    let digest = pack(&memory(), tree.path()).digest;
    assert_eq!(pack(&memory(), tree.path()).digest, digest);
    assert_eq!(pack(&memory(), copy.path()).digest, digest);
}

#[test]
fn one_file_more_changes_the_layer_that_holds_it_and_nothing_below_other_names() {
    let (tree, layout) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_tree(tree.path());
    let before = pack(&Layout::create(layout.path(), Some("before")).unwrap(), tree.path());
    fs::write(tree.path().join("more"), "more").unwrap();
    let after = pack(&Layout::create(layout.path(), Some("after")).unwrap(), tree.path());
    assert_ne!(before.layers[0].diff_id, after.layers[0].diff_id);
    let named = |tag| {
        Layout::open(layout.path(), Some(tag), None).unwrap().resolve().unwrap().descriptor().digest.clone()
    };
    assert_eq!((named("before"), named("after")), (before.digest, after.digest));
}

#[test]
fn the_epoch_clamps_what_is_newer_and_leaves_what_is_older() {
    let tree = tempfile::tempdir().unwrap();
    make_tree(tree.path());
    let packed = |seconds| {
        let clamp_mtime = Some(volio::tree::Time { seconds, nanoseconds: 0 });
        let tree_options = WalkOptions { clamp_mtime, ..WalkOptions::default() };
        let image = memory();
        pack_with(&image, tree.path(), &Options { tree: tree_options, ..Options::default() }).unwrap();
        volio::list::list(&image, &volio::image::ReadOptions::default(), &volio::progress::Silent).unwrap()
    };
    // `make_tree` dates a path by the length of its name: between 1600000000 and 1600000300.
    let clamped = packed(1_600_000_004);
    let time = |name: &str| {
        clamped.get(&volio::tree::TreePath::parse(name).unwrap()).unwrap().0.metadata.mtime.seconds
    };
    assert_eq!((time("dir"), time("file"), time("empty")), (1_600_000_003, 1_600_000_004, 1_600_000_004));
}

#[test]
fn a_name_means_the_new_image_only_when_all_of_it_is_there() {
    let (tree, image) = (tempfile::tempdir().unwrap(), memory());
    make_tree(tree.path());
    let first = pack(&image, tree.path());
    fs::write(tree.path().join("dir/.wh.x"), "").unwrap();
    let error = pack_with(&image, tree.path(), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("/dir/.wh.x"), "{error}");
    assert_eq!(image.resolve().unwrap().descriptor().digest, first.digest);
    let lost = Descriptor::of("x", b"not there");
    assert!(!Destination::contains(&image, &lost).unwrap());
}

#[test]
fn an_image_is_not_packed_into_itself_unless_its_place_is_left_out() {
    let tree = tempfile::tempdir().unwrap();
    make_tree(tree.path());
    fs::create_dir(tree.path().join("backups")).unwrap();
    let destination = Layout::create(&tree.path().join("backups/layout"), None).unwrap();
    let error = pack_with(&destination, tree.path(), &Options::default()).unwrap_err();
    assert_eq!(error.kind(), volio::error::Kind::Usage, "{error}");
    assert!(!tree.path().join("backups/layout").exists());

    let without = WalkOptions { exclude: vec!["backups".into()], ..WalkOptions::default() };
    let options = Options { tree: without, ..Options::default() };
    let first = pack_with(&destination, tree.path(), &options).unwrap();
    assert_eq!(pack_with(&destination, tree.path(), &options).unwrap().digest, first.digest);
}
