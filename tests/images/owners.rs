//! Owners of files, in an image and on disk.

use super::{memory, pack_with};
use rustix::process::{getegid, geteuid};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use volio::list::list;
use volio::pack::Options;
use volio::progress::Silent;
use volio::tree::{IdMaps, IdRange, Owner, WalkOptions};

/// The owners in the image of a tree that was packed in this way.
fn owners(tree: &Path, options: WalkOptions) -> volio::Result<BTreeSet<(u32, u32)>> {
    let image = memory();
    pack_with(&image, tree, &Options { tree: options, ..Options::default() })?;
    let listed = list(&image, &volio::image::ReadOptions::default(), &Silent)?;
    Ok(listed.entries().map(|entry| (entry.metadata.uid, entry.metadata.gid)).collect())
}

fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("dir")).unwrap();
    fs::write(tree.path().join("dir/file"), "x").unwrap();
    std::os::unix::fs::symlink("x", tree.path().join("link")).unwrap();
    tree
}

#[test]
fn everything_can_be_given_one_owner() {
    let chown = Some(Owner { uid: 1234, gid: u32::MAX - 1 });
    for normalize in [None, Some(Default::default())] {
        let options = WalkOptions { chown, normalize, ..WalkOptions::default() };
        assert_eq!(owners(tree().path(), options).unwrap(), [(1234, u32::MAX - 1)].into());
    }
}

#[test]
fn owners_are_translated_and_one_that_is_in_no_range_is_an_error_that_names_the_file() {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let range = |container, host| vec![IdRange { container, host, size: 10 }];
    let id_maps = IdMaps::new(range(7000, uid), range(9000, gid)).unwrap();
    let options = WalkOptions { id_maps, ..WalkOptions::default() };
    assert_eq!(owners(tree().path(), options).unwrap(), [(7000, 9000)].into());
    let id_maps = IdMaps::new(range(0, uid + 1), vec![]).unwrap();
    let error = owners(tree().path(), WalkOptions { id_maps, ..WalkOptions::default() }).unwrap_err();
    assert_eq!(error.kind(), volio::error::Kind::Usage);
    assert!(error.to_string().contains(&format!("the user {uid} is in no range of the map")), "{error}");
}
