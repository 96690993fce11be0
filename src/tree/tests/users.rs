//! Abilities of root and of ordinary users.

use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;

/// The id of the user `nobody`.
pub(super) const NOBODY: u32 = 65534;

/// Runs a test again as an ordinary user, also if root runs the tests.
pub(super) fn as_ordinary_user(name: &str) -> Option<PathBuf> {
    let name = if name.contains("::") { name.to_owned() } else { format!("users::{name}") };
    again(&name, |directory, mut test| {
        if is_root() {
            std::os::unix::fs::chown(directory, Some(NOBODY), Some(NOBODY)).unwrap();
            test.uid(NOBODY).gid(NOBODY);
        }
        test
    })
}

pub(super) fn needs_root(what: &str) -> bool {
    if !is_root() {
        skipped(&format!("{what}, because that takes root"));
    }
    is_root()
}

#[test]
fn root_restores_owners_devices_and_capabilities() {
    if !needs_root("owners, devices and capabilities") {
        return;
    }
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let target = tempfile::tempdir().unwrap();
    let mut seen = vec![
        directory(""),
        entry("block", EntryKind::BlockDevice { major: 259, minor: 1_000_000 }),
        entry("char", EntryKind::CharDevice { major: 1, minor: 3 }),
        directory("directory"),
        entry("fifo", EntryKind::Fifo),
        file("file", "data"),
        symlink("link", "nowhere"),
    ];
    for (n, (entry, _)) in seen.iter_mut().enumerate() {
        entry.metadata.uid = u32::MAX - 1 - n as u32;
        entry.metadata.gid = 3_000_000_000;
        entry.metadata.xattrs.insert(b"trusted.test".to_vec(), vec![0, 10, 255]);
        if !matches!(entry.kind, EntryKind::Symlink { .. }) {
            entry.metadata.mode = 0o6751;
        }
        if matches!(entry.kind, EntryKind::File { .. }) {
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
    let mut seen = vec![
        directory("d"),
        file("d/file", "data"),
        symlink("d/link", "x"),
        entry("d/fifo", EntryKind::Fifo),
    ];
    for (entry, _) in &mut seen {
        entry.metadata.uid = 0;
        entry.metadata.mode |= 0o6000;
    }
    seen.push(entry("device", EntryKind::CharDevice { major: 0, minor: 0 }));
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
    assert_eq!(mode("own"), 0o4755, "the owner may make a file setuid");
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
fn a_directory_that_its_owner_may_not_enter_is_completed_after_its_contents() {
    let Some(dir) =
        as_ordinary_user("a_directory_that_its_owner_may_not_enter_is_completed_after_its_contents")
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
fn an_unreadable_entry_is_an_error_that_names_it() {
    let Some(dir) = as_ordinary_user("an_unreadable_entry_is_an_error_that_names_it") else { return };
    for seen in [file("secret", "data"), directory("secret")] {
        let target = tempfile::tempdir_in(&dir).unwrap();
        let (mut secret, content) = seen;
        secret.metadata.mode = 0;
        extract(&[(secret, content)], target.path()).unwrap();
        let error = walk_with(&[SourceSpec::new(target.path())], &WalkOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains(target.path().join("secret").to_str().unwrap()), "{error}");
        assert!(error.hint().is_some());
        let without = WalkOptions { exclude: vec!["secret".into()], ..WalkOptions::default() };
        assert_eq!(walk_with(&[SourceSpec::new(target.path())], &without).unwrap().1.excluded, 1);
    }
}

#[test]
fn a_root_of_another_user_is_not_an_error() {
    let Some(dir) = as_ordinary_user("a_root_of_another_user_is_not_an_error") else { return };
    // Like a volume that belongs to root and that a group may write; here, every user may.
    let shared = dir.parent().unwrap();
    if fs::metadata(shared).is_ok_and(|shared| shared.uid() == geteuid().as_raw() || shared.mode() & 0o2 == 0)
    {
        skipped("a foreign root, because the directory for temporary files is not open to all users");
        return;
    }
    let name = dir.file_name().unwrap().to_str().unwrap();
    let done = extract(&[directory(""), file(format!("{name}/file"), "data")], shared).unwrap();
    assert_eq!(done.attributes_not_restored + done.ownership_not_restored, 1);
    assert!(dir.join("file").exists());
}

#[test]
fn files_that_get_another_owner_lose_setuid_bits_and_capabilities() {
    if !needs_root("changed owners") {
        return;
    }
    let target = tempfile::tempdir().unwrap();
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let mut seen = [file("a/b", ""), symlink("link", "x"), file("own", "")];
    for (entry, _) in &mut seen {
        entry.metadata.mode = 0o6755;
    }
    (seen[2].0.metadata.uid, seen[2].0.metadata.gid) = (1234, 5678);
    seen[0].0.metadata.xattrs.insert(b"security.capability".to_vec(), capability.to_vec());
    let mut extractor =
        Extractor::new(target.path(), ExtractOptions { uid: Some(1234), gid: Some(5678), ..quick() })
            .unwrap();
    seen.iter().for_each(|seen| put(&mut extractor, seen).unwrap());
    let done = extractor.finish().unwrap();
    assert_eq!((done.ownership_not_restored, done.xattrs_not_restored), (0, 1));
    let status = |name: &str| fs::symlink_metadata(target.path().join(name)).unwrap();
    for name in ["a", "a/b", "link", "own"] {
        assert_eq!((status(name).uid(), status(name).gid()), (1234, 5678), "{name}");
    }
    assert_eq!((status("a/b").mode() & 0o7777, status("own").mode() & 0o7777), (0o755, 0o6755));
}

#[test]
fn owners_are_mapped_and_an_unmapped_one_is_an_error_with_the_path() {
    if !needs_root("mapped owners") {
        return;
    }
    let maps = IdMaps::new(vec!["0:100000:10".parse().unwrap()], vec![]).unwrap();
    let target = tempfile::tempdir().unwrap();
    let options = ExtractOptions { maps, ..quick() };
    let mut extractor = Extractor::new(target.path(), options).unwrap();
    let (mut known, _) = file("known", "");
    (known.metadata.uid, known.metadata.gid, known.metadata.mode) = (3, 9, 0o4755);
    let (mut unknown, _) = file("unknown", "");
    unknown.metadata.gid = 10;
    put(&mut extractor, &(known, vec![])).unwrap();
    let status = fs::metadata(target.path().join("known")).unwrap();
    assert_eq!((status.uid(), status.gid(), status.mode() & 0o7777), (100_003, 100_009, 0o4755));
    let error = put(&mut extractor, &(unknown, vec![])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("/unknown") && error.to_string().contains("10"), "{error}");
}

#[test]
fn the_group_gets_the_permissions_of_the_owner() {
    let target = tempfile::tempdir().unwrap();
    let options = ExtractOptions { group_access: true, ..quick() };
    let mut extractor = Extractor::new(target.path(), options).unwrap();
    for (name, mode) in [("a", 0o640), ("b", 0o700), ("c", 0o504)] {
        let (mut entry, content) = file(format!("d/{name}"), "");
        entry.metadata.mode = mode;
        put(&mut extractor, &(entry, content)).unwrap();
    }
    let (mut e, _) = directory("d/e");
    e.metadata.mode = 0o700;
    put(&mut extractor, &(e, vec![])).unwrap();
    extractor.finish().unwrap();
    let mode = |name: &str| fs::metadata(target.path().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("d/a"), mode("d/b"), mode("d/c")), (0o660, 0o770, 0o554));
    assert_eq!((mode("d"), mode("d/e")), (0o2775, 0o2770), "new files there belong to the group");
}

#[test]
fn devices_are_created_only_if_the_options_allow_them() {
    if !needs_root("skipped devices") {
        return;
    }
    let target = tempfile::tempdir().unwrap();
    let options = ExtractOptions { devices: false, ..quick() };
    let mut extractor = Extractor::new(target.path(), options).unwrap();
    put(&mut extractor, &entry("null", EntryKind::CharDevice { major: 1, minor: 3 })).unwrap();
    assert_eq!(extractor.finish().unwrap().devices_skipped, 1);
    assert_eq!(names(&walk(target.path())), Vec::<String>::new());
}

#[test]
fn an_unreadable_entry_is_left_out_and_named_if_the_options_say_so() {
    let Some(dir) = as_ordinary_user("an_unreadable_entry_is_left_out_and_named_if_the_options_say_so")
    else {
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
    let denied = LeftOutReason::unreadable(rustix::io::Errno::ACCESS);
    assert_eq!(left, [("/a".to_owned(), denied), ("/d".to_owned(), denied)]);
    assert_eq!((summary.unreadable, summary.changed), (2, 0));
    fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_mode_of_a_file_that_was_swapped_stays_as_it_is() {
    let Some(dir) = as_ordinary_user("the_mode_of_a_file_that_was_swapped_stays_as_it_is") else { return };
    // Not even their owner may open them.
    for (name, content) in [("closed", "content"), ("other", "another")] {
        fs::write(dir.join(name), content).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let seen = FileState::of(&rustix::fs::stat(dir.join("closed")).unwrap()).unwrap();
    let change = || {
        let target = Target::open(&dir).unwrap().unwrap();
        let mut extractor = Extractor::for_sync(target, quick()).unwrap();
        let (mut wanted, _) = file("closed", "content");
        wanted.metadata.mode = 0o640;
        extractor.change_attributes(&wanted, &seen).unwrap()
    };
    let mode = || fs::symlink_metadata(dir.join("closed")).unwrap().permissions().mode() & 0o7777;
    // It may have another name, outside of the target.
    fs::rename(dir.join("closed"), dir.join("kept")).unwrap();
    fs::rename(dir.join("other"), dir.join("closed")).unwrap();
    assert!(!change());
    assert_eq!(mode(), 0);
}
