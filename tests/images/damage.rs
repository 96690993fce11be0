//! Every blob of an image, damaged in every way: noticed, and nothing of it reaches the target.

use super::{make_tree, pack, unpack};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use volio::error::Kind;
use volio::oci::Digest;
use volio::progress::Silent;
use volio::transport::layout::Layout;
use volio::transport::{Access, Location};

/// The blobs of a layout that an image for this machine's platform consists of.
fn blobs(layout: &Path) -> Vec<PathBuf> {
    fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn open(layout: &Path) -> Layout {
    Layout::open(layout, Some("v1"), None).unwrap()
}

#[test]
fn a_flipped_a_missing_and_an_additional_byte_are_noticed_in_every_blob() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    pack(&Layout::create(&layout, Some("v1")).unwrap(), &tree);
    let all = blobs(&layout);
    assert_eq!(all.len(), 6, "a layer, two configurations, two manifests, an index");

    let mut noticed = 0;
    for blob in all {
        let good = fs::read(&blob).unwrap();
        let damage = |bad: &[u8]| usize::from(damage(&layout, &tree, &blob, &good, bad));
        for position in [0, good.len() / 2, good.len() - 1] {
            let mut flipped = good.clone();
            flipped[position] ^= 1;
            noticed += damage(&flipped);
        }
        noticed += damage(&good[..good.len() - 1]);
        noticed += damage(b"");
        noticed += damage(&[good.as_slice(), b"\n"].concat());
    }
    // All but the manifest and the configuration of the other platform, which an unpack for this one does not read.
    assert_eq!(noticed, 4 * 6);
}

/// Returns `true` if unpacking notices this damage. It must be an integrity error then, with nothing in the target that is
/// not of the tree.
fn damage(layout: &Path, tree: &Path, blob: &Path, good: &[u8], bad: &[u8]) -> bool {
    let target = tempfile::tempdir().unwrap();
    fs::write(blob, bad).unwrap();
    let outcome = unpack(&open(layout), target.path());
    let copied =
        volio::copy::copy(&open(layout), &super::memory(), &volio::copy::Options::default(), &Silent);
    fs::write(blob, good).unwrap();
    assert_eq!(copied.unwrap_err().kind(), Kind::Integrity, "copying reads every blob: {}", blob.display());
    match outcome {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), Kind::Integrity, "{}: {error}", blob.display());
            let names = holds_only_what_is_in(tree, target.path());
            assert!(names.iter().all(|name| tree.join(name).symlink_metadata().is_ok()), "{names:?}");
            true
        }
    }
}

/// Insists that every file in a directory has the content that it has in the tree; the names of all that is there.
pub(super) fn holds_only_what_is_in(tree: &Path, directory: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    // The journal is not part of the tree.
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    for entry in entries.filter(|entry| entry.file_name() != ".volio.made") {
        let (path, original) = (entry.path(), tree.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        assert_eq!(kind, original.symlink_metadata().unwrap().file_type(), "{}", path.display());
        names.push(PathBuf::from(entry.file_name()));
        if kind.is_dir() {
            let below = holds_only_what_is_in(&original, &path);
            names.extend(below.into_iter().map(|name| Path::new(&entry.file_name()).join(name)));
        } else if kind.is_symlink() {
            assert_eq!(fs::read_link(&path).unwrap(), fs::read_link(&original).unwrap());
        } else {
            let (is, was) = (fs::read(&path).unwrap(), fs::read(&original).unwrap());
            // What was begun and not ended has holes and nothing else.
            assert!(is == was || is.is_empty() || was.starts_with(&is), "{}", path.display());
        }
    }
    names
}

#[test]
fn a_missing_blob_is_not_found_and_leaves_no_target_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let packed = pack(&Layout::create(&layout, Some("v1")).unwrap(), &tree);
    fs::remove_file(layout.join("blobs/sha256").join(packed.layers[0].digest.hex())).unwrap();
    let error = unpack(&open(&layout), &directory.path().join("target")).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert!(!directory.path().join("target").exists());
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_not_extracted() {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let image = super::memory();
    let packed = pack(&image, &tree);
    // The same layer under a configuration that promises something else.
    let layer = volio::layer::Layer {
        descriptor: volio::oci::Descriptor::new(
            packed.layers[0].media_type.clone(),
            packed.layers[0].digest.clone(),
            packed.layers[0].size,
        ),
        diff_id: volio::oci::Digest::of(b"something else"),
    };
    super::layers::publish(&image, &[layer]);
    let target = directory.path().join("target");
    let error = unpack(&image, &target).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    assert!(!target.exists());
}

#[test]
fn a_layout_whose_index_is_damaged_says_so_and_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, layout) = (directory.path().join("tree"), directory.path().join("layout"));
    fs::create_dir(&tree).unwrap();
    pack(&Layout::create(&layout, Some("v1")).unwrap(), &tree);
    OpenOptions::new().append(true).open(layout.join("index.json")).unwrap().write_all(b"}").unwrap();
    let damaged = fs::read(layout.join("index.json")).unwrap();
    assert_eq!(unpack(&open(&layout), &directory.path().join("u")).unwrap_err().kind(), Kind::Integrity);
    let again = super::pack_with(
        &Layout::create(&layout, Some("v2")).unwrap(),
        &tree,
        &volio::pack::Options::default(),
    );
    assert_eq!(again.unwrap_err().kind(), Kind::Integrity);
    assert_eq!(fs::read(layout.join("index.json")).unwrap(), damaged);
}

#[test]
fn a_blob_of_the_right_size_that_is_damaged_at_the_destination_is_sent_again() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, from) = (directory.path().join("tree"), directory.path().join("layout"));
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    pack(&Layout::create(&from, Some("v1")).unwrap(), &tree);
    let damaged =
        fs::read(blobs(&from).into_iter().max_by_key(|blob| fs::metadata(blob).unwrap().len()).unwrap());
    let layer = damaged.unwrap();
    let places = ["oci:copy:v1", "oci-archive:copy.tar:v1"].map(|name| {
        let (scheme, rest) = name.split_once(':').unwrap();
        format!("{scheme}:{}/{rest}", directory.path().display())
    });
    let files = [
        directory.path().join("copy/blobs/sha256").join(Digest::of(&layer).hex()),
        directory.path().join("copy.tar"),
    ];
    for (place, file) in places.iter().zip(files) {
        let place: Location = place.parse().unwrap();
        let copy = || {
            let to = place.destination(&Access::default()).unwrap();
            let copied =
                volio::copy::copy(&open(&from), &*to, &volio::copy::Options::default(), &Silent).unwrap();
            (copied.blobs_copied, copied.blobs_present)
        };
        assert_eq!(copy(), (3, 0));
        assert_eq!(copy(), (0, 3), "{place}");
        let mut bytes = fs::read(&file).unwrap();
        let at = bytes.windows(layer.len()).position(|window| window == layer).unwrap();
        bytes[at + layer.len() / 2] ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(copy(), (1, 2), "{place}");
        let source = place.source(&Access::default()).unwrap();
        let verified = volio::verify::verify(&*source, &volio::verify::Options::default(), &Silent).unwrap();
        assert!(verified.damage.is_empty(), "{place}");
    }
}
