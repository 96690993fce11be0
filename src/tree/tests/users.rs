//! What root can do, and what is left for everybody else.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;

/// Nobody's number on every system that has one.
const NOBODY: u32 = 65534;

/// Runs a test as an ordinary user, whoever runs the tests.
fn as_ordinary_user(name: &str) -> Option<PathBuf> {
    again(&format!("users::{name}"), |directory, mut test| {
        if is_root() {
            std::os::unix::fs::chown(directory, Some(NOBODY), Some(NOBODY)).unwrap();
            test.uid(NOBODY).gid(NOBODY);
        }
        test
    })
}

fn needs_root(what: &str) -> bool {
    if !is_root() {
        skipped(&format!("{what}, because that takes root"));
    }
    is_root()
}

#[test]
fn root_restores_owners_devices_and_capabilities() {
    if !needs_root("owners, devices and capabilities come back") {
        return;
    }
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let target = tempfile::tempdir().unwrap();
    let mut seen = vec![
        directory(""),
        entry("block", Kind::BlockDevice { major: 259, minor: 1_000_000 }),
        entry("char", Kind::CharDevice { major: 1, minor: 3 }),
        directory("directory"),
        entry("fifo", Kind::Fifo),
        file("file", "data"),
        symlink("link", "nowhere"),
    ];
    for (n, (entry, _)) in seen.iter_mut().enumerate() {
        entry.metadata.uid = u32::MAX - 1 - n as u32;
        entry.metadata.gid = 3_000_000_000;
        entry.metadata.xattrs.insert(b"trusted.test".to_vec(), vec![0, 10, 255]);
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            entry.metadata.mode = 0o6751;
        }
        if matches!(entry.kind, Kind::File { .. }) {
            entry.metadata.xattrs.insert(b"security.capability".to_vec(), capability.to_vec());
        }
    }
    let done = extract(&seen, target.path()).unwrap();
    assert_eq!(done, Extracted { entries: 7, bytes: 4, ..Extracted::default() });
    assert_eq!(walk(target.path()), seen);
}

#[test]
fn an_ordinary_user_restores_everything_but_owners_and_devices() {
    let name = "an_ordinary_user_restores_everything_but_owners_and_devices";
    let Some(dir) = as_ordinary_user(name) else { return };
    let mut seen =
        vec![directory("d"), file("d/file", "data"), symlink("d/link", "x"), entry("d/fifo", Kind::Fifo)];
    for (entry, _) in &mut seen {
        entry.metadata.uid = 0;
        entry.metadata.mode |= 0o6000;
    }
    seen.push(entry("device", Kind::CharDevice { major: 0, minor: 0 }));
    let (mut own, _) = file("own", "");
    own.metadata.mode = 0o4755;
    own.metadata.xattrs.insert(b"trusted.test".to_vec(), b"1".to_vec());
    own.metadata.xattrs.insert(b"user.test".to_vec(), b"2".to_vec());
    seen.push((own, vec![]));
    let done = extract(&seen, &dir).unwrap();
    let expected = Extracted {
        entries: 6,
        bytes: 4,
        ownership_not_restored: 4,
        devices_skipped: 1,
        xattrs_not_restored: 1,
        ..Extracted::default()
    };
    assert_eq!(done, expected);
    let mode = |name: &str| fs::symlink_metadata(dir.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("d"), mode("d/file"), mode("d/fifo")), (0o6755, 0o644, 0o644));
    assert_eq!(mode("own"), 0o4755, "who owns a file may have it setuid");
}

#[test]
fn an_ordinary_user_fills_read_only_directories_even_a_second_time() {
    let Some(dir) = as_ordinary_user("an_ordinary_user_fills_read_only_directories_even_a_second_time")
    else {
        return;
    };
    let mut seen = vec![directory(""), directory("d"), directory("d/e"), file("d/e/file", "data")];
    for (entry, _) in &mut seen {
        entry.metadata.mode &= 0o555;
    }
    seen[3].0.metadata.xattrs.insert(b"user.test".to_vec(), b"1".to_vec());
    for _ in 0..2 {
        extract(&seen, &dir).unwrap();
        assert_eq!(walk(&dir), seen);
    }
    fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o0)).unwrap();
    extract(&seen, &dir).unwrap();
    assert_eq!(walk(&dir), seen);
    for name in ["", "d", "d/e"] {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_directory_that_its_owner_may_not_enter_is_completed_after_what_is_in_it() {
    let Some(dir) =
        as_ordinary_user("a_directory_that_its_owner_may_not_enter_is_completed_after_what_is_in_it")
    else {
        return;
    };
    let mut seen = vec![directory("d"), directory("d/e"), directory("d/e/f")];
    for (entry, _) in &mut seen {
        entry.metadata.mode = 0;
    }
    extract(&seen, &dir).unwrap();
    for name in ["d", "d/e", "d/e/f"] {
        let mode = fs::metadata(dir.join(name)).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0, "{name}");
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn what_cannot_be_read_is_an_error_that_names_it() {
    let Some(dir) = as_ordinary_user("what_cannot_be_read_is_an_error_that_names_it") else { return };
    for seen in [file("secret", "data"), directory("secret")] {
        let target = tempfile::tempdir_in(&dir).unwrap();
        let (mut secret, content) = seen;
        secret.metadata.mode = 0;
        extract(&[(secret, content)], target.path()).unwrap();
        let error = walk_with(&[SourceSpec::new(target.path())], &WalkOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains(target.path().join("secret").to_str().unwrap()), "{error}");
        assert!(error.advice().is_some());
        let without = WalkOptions { exclude: vec!["secret".to_owned()], ..WalkOptions::default() };
        assert_eq!(walk_with(&[SourceSpec::new(target.path())], &without).unwrap().1.excluded, 1);
    }
}

#[test]
fn a_root_that_belongs_to_somebody_else_is_no_failure() {
    let Some(dir) = as_ordinary_user("a_root_that_belongs_to_somebody_else_is_no_failure") else { return };
    // Like a volume whose root is root's and open to a group: here to everybody.
    let shared = dir.parent().unwrap();
    if fs::metadata(shared).is_ok_and(|shared| shared.uid() == geteuid().as_raw() || shared.mode() & 0o2 == 0)
    {
        skipped("a foreign root, because temporary files are not made in one that is open to everybody");
        return;
    }
    let name = dir.file_name().unwrap().to_str().unwrap();
    let done = extract(&[directory(""), file(format!("{name}/file"), "data")], shared).unwrap();
    assert_eq!(done.attributes_not_restored + done.ownership_not_restored, 1);
    assert!(dir.join("file").exists());
}

#[test]
fn what_cannot_be_read_is_left_out_and_named_where_that_is_wanted() {
    let Some(dir) = as_ordinary_user("what_cannot_be_read_is_left_out_and_named_where_that_is_wanted") else {
        return;
    };
    let mut seen = vec![file("a", "secret"), directory("d"), directory("d/e"), file("z", "open")];
    seen[0].0.metadata.mode = 0;
    seen[1].0.metadata.mode = 0o311;
    extract(&seen, &dir).unwrap();
    let options = WalkOptions { skip_unreadable: true, ..WalkOptions::default() };
    let (found, summary) = walk_with(&[SourceSpec::new(&dir)], &options).unwrap();
    assert_eq!(names(&found), ["/d", "/z"], "a directory is there with its attributes");
    assert_eq!(found[1].0, seen[1].0);
    let left: Vec<_> = summary.left_out.iter().map(|left| (left.path.to_string(), left.reason)).collect();
    assert_eq!(left, [("/a".to_owned(), Reason::Unreadable), ("/d".to_owned(), Reason::Unreadable)]);
    assert_eq!((summary.unreadable, summary.changed), (2, 0));
    fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
}
