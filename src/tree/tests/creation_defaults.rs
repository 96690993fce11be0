//! Owners, modes and ACLs that the file system gives to new files.

use super::users::{NOBODY, needs_root};
use super::*;
use rustix::fs::{XattrFlags, setxattr};
use std::os::unix::fs::chown;

/// A default ACL that a mode cannot express.
pub(super) fn default_acl() -> Vec<u8> {
    let entry = |tag: u16, may: u16, id: u32| {
        [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let entries = [
        entry(1, 7, none),
        entry(2, 7, 12345),
        entry(4, 5, none),
        entry(0x10, 7, none),
        entry(0x20, 5, none),
    ];
    [2u32.to_le_bytes().to_vec(), entries.concat()].concat()
}

/// Sets a default ACL on a directory; returns `false` if the file system has no ACLs.
pub(super) fn set_default_acl(directory: &Path) -> bool {
    let given = setxattr(directory, "system.posix_acl_default", &default_acl(), XattrFlags::empty());
    if given.is_err() {
        skipped("default ACLs, because temporary files have none");
    }
    given.is_ok()
}

/// Returns the entries of a walk with these paths.
fn found(target: &Path, seen: &[Seen]) -> Vec<Seen> {
    let is_wanted = |found: &Seen| seen.iter().any(|(entry, _)| entry.path == found.0.path);
    walk(target).into_iter().filter(is_wanted).collect()
}

#[test]
fn defaults_of_one_directory_are_not_used_in_a_setgid_directory() {
    if !needs_root("setgid directories") {
        return;
    }
    let target = tempfile::tempdir().unwrap();
    let given = target.path().join("given");
    fs::create_dir(&given).unwrap();
    chown(&given, None, Some(NOBODY)).unwrap();
    fs::set_permissions(&given, fs::Permissions::from_mode(0o2755)).unwrap();
    let mut seen = vec![
        directory("a"),
        file("a/first", "1"),
        file("a/second", "2"),
        directory("given/sub"),
        directory("given/sub/empty"),
        file("given/sub/first", "1"),
        file("given/sub/second", "2"),
        directory("last"),
        file("last/first", "1"),
        file("last/of-somebody", "2"),
        file("last/private", "3"),
    ];
    seen[9].0.metadata.gid = NOBODY;
    seen[10].0.metadata.mode = 0o600;
    let done = extract(&seen, target.path()).unwrap();
    assert_eq!(done, Extracted { entries: 11, bytes: 7, ..Extracted::default() });
    assert_eq!(found(target.path(), &seen), seen);
}

#[test]
fn an_inherited_acl_is_removed_below_a_directory_with_a_default_acl() {
    let target = tempfile::tempdir().unwrap();
    let down = target.path().join("down");
    fs::create_dir(&down).unwrap();
    if !set_default_acl(&down) {
        return;
    }
    let seen = vec![
        directory("a"),
        file("a/file", "1"),
        directory("down/sub"),
        directory("down/sub/deep"),
        file("down/sub/deep/file", "2"),
        file("down/sub/file", "3"),
        directory("z"),
        file("z/file", "4"),
    ];
    extract(&seen, target.path()).unwrap();
    assert_eq!(found(target.path(), &seen), seen);
    extract(&[file("down/implied/deep/file", "5")], target.path()).unwrap();
    for (entry, _) in walk(&down.join("implied")) {
        assert!(entry.metadata.xattrs.is_empty(), "{}", entry.path);
    }
}

#[test]
fn of_two_directories_with_the_same_group_one_may_be_setgid() {
    if !needs_root("setgid directories") {
        return;
    }
    let target = tempfile::tempdir().unwrap();
    let mut extractor = Extractor::new(target.path(), quick()).unwrap();
    let seen = vec![
        directory("a"),
        file("a/first", "1"),
        file("a/second", "2"),
        directory("b"),
        file("b/first", "3"),
        file("b/second", "4"),
    ];
    for (name, mode) in [("a", 0o700), ("b", 0o2700)] {
        put(&mut extractor, &directory(name)).unwrap();
        let directory = target.path().join(name);
        chown(&directory, None, Some(NOBODY)).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
    }
    seen.iter().for_each(|seen| put(&mut extractor, seen).unwrap());
    extractor.finish().unwrap();
    assert_eq!(found(target.path(), &seen), seen);
}

#[test]
fn a_directory_that_another_user_put_in_place_of_a_new_one_passes_no_acl_on() {
    if !needs_root("a directory of another user") {
        return;
    }
    let target = tempfile::tempdir().unwrap();
    let (here, away) = (target.path().join("d"), target.path().join("away"));
    let mut extractor = Extractor::new(target.path(), quick()).unwrap();
    let seen = vec![directory("d"), directory("d/e"), file("d/file", "data")];
    put(&mut extractor, &seen[0]).unwrap();
    fs::rename(&here, away).unwrap();
    fs::create_dir(&here).unwrap();
    if !set_default_acl(&here) {
        return;
    }
    chown(&here, Some(NOBODY), Some(NOBODY)).unwrap();
    put(&mut extractor, &seen[1]).unwrap();
    put(&mut extractor, &seen[2]).unwrap();
    extractor.finish().unwrap();
    assert_eq!(found(target.path(), &seen), seen);
}
