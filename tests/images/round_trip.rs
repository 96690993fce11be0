//! Trees are packed and unpacked again, and must be equal.

use super::{make_tree, memory, pack, pack_with, unpack};
use crate::snapshot::{assert_same, snapshot};
use proptest::prelude::*;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use volio::layer::Compression;
use volio::pack::Options;
use volio::progress::Silent;
use volio::transport::layout::Layout;

#[test]
fn a_tree_comes_back_as_it_was_in_every_compression() {
    let tree = tempfile::tempdir().unwrap();
    make_tree(tree.path());
    for compression in [Compression::default(), Compression::Gzip { level: 6 }, Compression::None] {
        let (image, target) = (memory(), tempfile::tempdir().unwrap());
        pack_with(&image, tree.path(), &Options { compression, ..Options::default() }).unwrap();
        let unpacked = unpack(&image, target.path()).unwrap();
        assert_eq!(unpacked.layers, 1);
        assert_same(tree.path(), target.path());
    }
}

#[test]
fn a_tree_comes_back_through_a_layout_and_a_copy() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, layout, target) =
        (directory.path().join("t"), directory.path().join("l"), directory.path().join("u"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let packed = pack(&Layout::create(&layout, Some("v1")).unwrap(), &tree);
    let image = memory();
    let copied = volio::copy::copy(
        &Layout::open(&layout, Some("v1"), None).unwrap(),
        &image,
        &Default::default(),
        &Silent,
    )
    .unwrap();
    assert_eq!(copied.digest, packed.digest);
    assert_eq!(copied.blobs_copied, 3, "one layer and a configuration for each of two platforms");
    let again =
        volio::copy::copy(&Layout::open(&layout, None, None).unwrap(), &image, &Default::default(), &Silent)
            .unwrap();
    assert_eq!((again.blobs_copied, again.blobs_present), (0, 3));
    unpack(&image, &target).unwrap();
    assert_same(&tree, &target);
}

#[test]
fn packing_what_was_unpacked_gives_the_same_digest() {
    let tree = tempfile::tempdir().unwrap();
    make_tree(tree.path());
    let (first, target) = (memory(), tempfile::tempdir().unwrap());
    let digest = pack(&first, tree.path()).digest;
    unpack(&first, target.path()).unwrap();
    assert_eq!(pack(&memory(), target.path()).digest, digest);
}

#[test]
fn an_empty_directory_is_an_image_too() {
    let (tree, target, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), memory());
    assert_eq!(pack(&image, tree.path()).entries, 1, "the root");
    unpack(&image, target.path()).unwrap();
    assert_eq!(snapshot(target.path()).len(), 1);
}

#[test]
fn a_listing_names_what_unpacking_makes() {
    let (tree, image) = (tempfile::tempdir().unwrap(), memory());
    make_tree(tree.path());
    pack(&image, tree.path());
    let listed = volio::list::list(&image, &volio::image::ReadOptions::default(), &Silent).unwrap();
    let listed: Vec<_> = listed.entries().map(|entry| entry.path.as_path().to_owned()).collect();
    let mut expected: Vec<_> = snapshot(tree.path()).into_keys().collect();
    expected.sort_by(|a, b| a.components().cmp(b.components()));
    assert_eq!(listed, expected);
}

/// An entry of a generated tree: a path, and a file with this content or a directory.
type Plan = Vec<(Vec<Vec<u8>>, Option<Vec<u8>>, u32)>;

fn any_plan() -> impl Strategy<Value = Plan> {
    let name =
        prop::collection::vec((1..=255u8).prop_filter("a slash is no part of a name", |b| *b != b'/'), 1..12)
            .prop_filter("a name of its own", |name| {
                name != b"." && name != b".." && !name.starts_with(b".wh.")
            });
    let content = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..5000));
    prop::collection::vec((prop::collection::vec(name, 1..4), content, 0..0o1000u32), 0..12)
}

fn build(root: &Path, plan: &Plan) {
    for (names, content, mode) in plan {
        let path =
            names.iter().fold(root.to_owned(), |path, name| path.join(std::ffi::OsStr::from_bytes(name)));
        // A later path may be below an earlier file, or the same: then there is nothing to make.
        if path.exists() || fs::create_dir_all(path.parent().unwrap()).is_err() {
            continue;
        }
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::create_dir(&path).unwrap(),
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o700)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_tree_comes_back_as_it_was(plan in any_plan()) {
        let (tree, target, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), memory());
        build(tree.path(), &plan);
        let digest = pack(&image, tree.path()).digest;
        unpack(&image, target.path()).unwrap();
        assert_same(tree.path(), target.path());
        prop_assert_eq!(pack(&memory(), target.path()).digest, digest);
    }
}
