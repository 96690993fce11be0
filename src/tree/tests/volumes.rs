//! Targets with several file systems, and file systems with limited abilities.

use super::*;
use crate::tree::target_state;
use rustix::fd::AsFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde_json::json;
use std::os::unix::fs::MetadataExt;

fn mount(arguments: &[&str], directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    assert!(Command::new("mount").args(arguments).arg(directory).status().unwrap().success());
}

fn state_of(directory: &Path) -> Option<TargetState> {
    let fd = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    target_state::read(fd.as_fd())
}

fn fill(target: &Path, content: &serde_json::Value, seen: &[Seen]) -> Extracted {
    let mut extractor = Extractor::new(target, ExtractOptions::default()).unwrap();
    extractor.begin_state(content.clone()).unwrap();
    extractor.spool().unwrap().file().unwrap();
    seen.iter().for_each(|seen| put(&mut extractor, seen).unwrap());
    extractor.finish().unwrap()
}

#[test]
fn two_volumes_below_a_root_that_cannot_be_written() {
    let name = "volumes::two_volumes_below_a_root_that_cannot_be_written";
    let Some(dir) = again_with_mounts(name) else { return };
    let (a, b) = (dir.join("data/a"), dir.join("data/b c"));
    mount(&["-t", "tmpfs", "none"], &dir);
    fs::create_dir_all(&a).unwrap();
    fs::create_dir_all(&b).unwrap();
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&dir).status().unwrap().success());
    assert!(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", "mode=755", "none"])
            .arg(&a)
            .status()
            .unwrap()
            .success()
    );
    assert!(Command::new("mount").args(["-t", "ramfs", "none"]).arg(&b).status().unwrap().success());
    let target = || Target::open(&dir).unwrap().unwrap();
    assert_eq!(target().foreign_entry().unwrap(), None, "directories for mounts do not count");
    assert_eq!(target().state(), None);

    let implied = Entry::implied_directory(path("data"));
    let seen = [(implied, vec![]), directory("data/a"), file("data/a/1", "1"), file("data/b c/2", "2")];
    let mut extractor = Extractor::new(&dir, quick()).unwrap();
    extractor.begin_state(json!(1)).unwrap();
    extractor.spool().unwrap().file().unwrap();
    seen.iter().for_each(|seen| put(&mut extractor, seen).unwrap());
    assert!(target_is_incomplete(&dir, extractor));
    assert!(b.join(".volio.json").exists(), "a ramfs has no attributes");
    assert_eq!(target().remove_interrupted().unwrap(), 2, "both were empty");
    assert_eq!(target().foreign_entry().unwrap(), None);

    fill(&dir, &json!(2), &seen);
    let record = target().state().unwrap();
    assert!(record.complete && record.content == json!(2));
    assert_eq!(record.volumes, ["data/a", "data/b c"]);
    // Another volume is mounted in place of one that was filled.
    assert!(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", "mode=755", "none"])
            .arg(&a)
            .status()
            .unwrap()
            .success()
    );
    assert!(!target().state().unwrap().complete);
    assert!(Command::new("umount").arg(&a).status().unwrap().success());
    assert!(target().state().unwrap().complete);
    // A single volume is another target, and has a part of the image at most.
    assert!(!Target::open(&a).unwrap().unwrap().state().unwrap().complete);
}

/// Interrupts an extraction, and returns whether the state of its target says so.
fn target_is_incomplete(target: &Path, extractor: Extractor) -> bool {
    drop(extractor);
    let record = Target::open(target).unwrap().unwrap().state().unwrap();
    !record.complete && record.was_empty
}

#[test]
fn every_file_system_in_a_target_has_a_separate_state_and_keeps_it() {
    let name = "volumes::every_file_system_in_a_target_has_a_separate_state_and_keeps_it";
    let Some(dir) = again_with_mounts(name) else { return };
    let volume = dir.join("volume");
    mount(&["-t", "tmpfs", "none"], &volume);
    let seen = [directory(""), directory("volume"), file("volume/file", "data")];
    fill(&dir, &json!(1), &seen);
    assert_eq!(state_of(&volume).unwrap().at, "volume");
    assert_eq!(walk(&dir), seen);
    // An interrupted run, and then another volume: the contents of that volume must stay.
    let mut extractor = Extractor::new(&dir, quick()).unwrap();
    extractor.begin_state(json!(2)).unwrap();
    drop(extractor);
    mount(&["-t", "tmpfs", "none"], &volume);
    fs::write(volume.join("precious"), "data").unwrap();
    Target::open(&dir).unwrap().unwrap().remove_interrupted().unwrap();
    assert!(volume.join("precious").exists());
}

#[test]
fn a_hard_link_to_another_file_system_is_a_copy() {
    let Some(dir) = again_with_mounts("volumes::a_hard_link_to_another_file_system_is_a_copy") else {
        return;
    };
    mount(&["-t", "tmpfs", "none"], &dir.join("volume"));
    let (mut large, _) = entry("file", EntryKind::File { size: 1 << 20 });
    large.metadata.xattrs.insert(b"trusted.test".to_vec(), b"1".to_vec());
    large.metadata.mode = 0o4751;
    let content = [vec![0; 1 << 19], vec![1; 1 << 19]].concat();
    let mut seen = vec![
        (large.clone(), content.clone()),
        symlink("link", "x"),
        entry("fifo", EntryKind::Fifo),
        hardlink("volume/file", "file"),
        hardlink("volume/file2", "volume/file"),
        hardlink("volume/link", "link"),
        hardlink("volume/fifo", "fifo"),
    ];
    let done = fill(&dir, &json!(1), &seen);
    assert_eq!((done.hardlinks_copied, done.entries), (3, 7));
    seen = walk(&dir.join("volume"));
    assert_eq!(names(&seen), ["/fifo", "/file", "/file2", "/link"]);
    assert_eq!(seen[2], (Entry { path: path("file"), ..large }, content));
    assert_eq!(seen[3].0.kind, EntryKind::Hardlink { target: path("file") });
    assert_eq!((&seen[4].0.kind, &seen[1].0.kind), (&symlink("", "x").0.kind, &EntryKind::Fifo));
}

#[test]
fn the_state_is_a_file_where_there_are_no_attributes_and_is_not_packed() {
    let name = "volumes::the_state_is_a_file_where_there_are_no_attributes_and_is_not_packed";
    let Some(dir) = again_with_mounts(name) else { return };
    mount(&["-t", "ramfs", "none"], &dir);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "data").unwrap();
    let seen = [directory(""), file("file", "data")];
    fill(&dir, &json!(1), &seen);
    assert!(dir.join(".volio.json").exists() && !dir.join(".volio.json.new").exists());
    assert_eq!(walk(&dir), seen, "the mtime of the directory is unchanged");
    assert!(Target::open(&dir).unwrap().unwrap().state().unwrap().complete);

    // Links under its name and under its temporary name are not followed.
    fs::remove_file(dir.join(".volio.json")).unwrap();
    let plant =
        |name: &str| std::os::unix::fs::symlink(outside.path().join("precious"), dir.join(name)).unwrap();
    plant(".volio.json.new");
    fill(&dir, &json!(2), &seen);
    plant(".volio.spool");
    fs::remove_file(dir.join(".volio.json")).unwrap();
    plant(".volio.json");
    let mut extractor = Extractor::new(&dir, quick()).unwrap();
    assert_eq!(extractor.begin_state(json!(3)).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(fs::read_to_string(outside.path().join("precious")).unwrap(), "data");
}

#[test]
fn without_proc_everything_but_the_modes_of_devices_is_restored() {
    let name = "volumes::without_proc_everything_but_the_modes_of_devices_is_restored";
    let Some(dir) = again_with_mounts(name) else { return };
    mount(&["-t", "tmpfs", "none"], Path::new("/proc"));
    let mut seen = vec![
        entry("device", EntryKind::CharDevice { major: 1, minor: 3 }),
        directory("directory"),
        entry("fifo", EntryKind::Fifo),
        file("file", "data"),
        symlink("link", "x"),
    ];
    for (entry, _) in &mut seen {
        entry.metadata.uid = 1000;
    }
    let target = dir.join("target");
    let done = fill(&target, &json!(1), &seen);
    assert_eq!((done.attributes_not_restored, done.xattrs_not_restored), (1, 0));
    seen[0].0.metadata.mode = 0o600;
    assert_eq!(walk(&target)[1..], seen);
    assert_eq!(fs::metadata(target.join("file")).unwrap().uid(), 1000);
}

#[test]
fn nothing_is_removed_from_a_mount_in_a_directory_that_is_to_be_replaced() {
    let name = "volumes::nothing_is_removed_from_a_mount_in_a_directory_that_is_to_be_replaced";
    let Some(dir) = again_with_mounts(name) else { return };
    let volume = dir.join("d/volume");
    mount(&["-t", "tmpfs", "none"], &volume);
    fs::write(volume.join("precious"), "data").unwrap();
    for name in ["d", "d/volume"] {
        let options = ExtractOptions { force: true, ..quick() };
        let mut extractor = Extractor::new(&dir, options).unwrap();
        assert!(put(&mut extractor, &file(name, "")).is_err());
        assert!(volume.join("precious").exists());
    }
}

#[test]
fn an_acl_that_cannot_be_set_does_not_widen_the_permissions_of_the_group() {
    let name = "volumes::an_acl_that_cannot_be_set_does_not_widen_the_permissions_of_the_group";
    let Some(directory) = again_with_mounts(name) else { return };
    // A ramfs has modes and no extended attributes.
    assert!(Command::new("mount").args(["-t", "ramfs", "none"]).arg(&directory).status().unwrap().success());
    let target = directory.join("target");
    let mut seen = [file("file", "data"), super::directory("d"), super::entry("fifo", EntryKind::Fifo)];
    // The owning group may read and enter. The mask, which is in the mode, gives the named user all permissions.
    for (entry, _) in &mut seen {
        entry.metadata.mode = 0o770;
        entry
            .metadata
            .xattrs
            .insert(b"system.posix_acl_access".to_vec(), super::creation_defaults::default_acl());
    }
    let done = extract(&seen, &target).unwrap();
    assert_eq!(done.xattrs_not_restored, 3);
    let modes = |target: &Path| {
        let mode = |(entry, _): &Seen| entry.metadata.mode;
        walk(target)[1..].iter().map(mode).collect::<Vec<_>>()
    };
    assert_eq!(modes(&target), [0o750; 3]);
    // With `group_access`, the group gets the permissions of the owner.
    let mut extractor =
        Extractor::new(&directory.join("group"), ExtractOptions { group_access: true, ..quick() }).unwrap();
    put(&mut extractor, &seen[0]).unwrap();
    extractor.finish().unwrap();
    assert_eq!(modes(&directory.join("group")), [0o770]);
}
