//! Mount points in targets. Only root may mount.

use super::{DRY, FORCE, Fixture, SyncOptions, synced};
use crate::snapshot::assert_same;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use volio::error::Kind;

pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts a directory of the same file system, which has the same device number, or a new file system.
    pub fn at(directory: &Path, from: Option<&Path>) -> Option<Self> {
        fs::create_dir_all(directory).unwrap();
        let mut mount = Command::new("mount");
        match from {
            Some(from) => mount.arg("--bind").arg(from),
            None => mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]),
        };
        let mounted = mount.arg(directory).output().is_ok_and(|done| done.status.success());
        mounted.then(|| Self(directory.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_file_system_that_does_not_say_its_size_is_not_full() {
    let fixture = Fixture::new(&[("a", b"one")]);
    fs::remove_dir_all(fixture.target()).unwrap();
    fs::create_dir(fixture.at("mount")).unwrap();
    let mount = Command::new("mount").args(["-t", "ramfs", "ramfs"]).arg(fixture.at("mount")).output();
    if !mount.is_ok_and(|done| done.status.success()) {
        return;
    }
    let _mounted = Mounted(fixture.at("mount"));
    let target = fixture.at("mount").join("target");
    synced(&fixture.image, &target, SyncOptions::default()).unwrap();
    fixture.write("a", b"one, changed");
    fixture.pack();
    synced(&fixture.image, &target, SyncOptions::default()).unwrap();
    assert_eq!(fs::read(target.join("a")).unwrap(), b"one, changed");
}

// Reported of other programs: deletion crosses or removes mount points.
#[test]
fn a_mount_point_that_the_image_does_not_have_stays_with_what_leads_to_it() {
    let fixture = Fixture::new(&[("a", b"one"), ("gone/x/file", b"x")]);
    let data = fixture.at("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("precious"), "precious").unwrap();
    for from in [Some(data.as_path()), None] {
        let Some(_mounted) = Mounted::at(&fixture.target().join("gone/x/mount"), from) else { return };
        fs::write(fixture.target().join("gone/x/mount/more"), "precious").unwrap();
        let _ = fs::remove_dir_all(fixture.tree().join("gone"));
        fixture.write("a", b"one, changed");
        fixture.pack();
        let planned = synced(&fixture.image, &fixture.target(), DRY).unwrap();
        let done = fixture.sync();
        assert_eq!(planned.removed, done.removed);
        assert_eq!(done.kept_mounts, [super::path("gone/x/mount")]);
        assert!(fixture.target().join("gone/x/mount/more").exists());
        assert!(!fixture.target().join("gone/x/file").exists());
        assert_eq!(fs::read(fixture.target().join("a")).unwrap(), b"one, changed", "the rest is done");
    }
    assert!(data.join("precious").exists());
    fixture.update();
}

#[test]
fn a_directory_that_leads_to_a_mount_point_does_not_become_a_file() {
    let fixture = Fixture::new(&[("a", b"one"), ("dir/file", b"x")]);
    let Some(_mounted) = Mounted::at(&fixture.target().join("dir/below/mount"), None) else { return };
    fs::remove_dir_all(fixture.tree().join("dir")).unwrap();
    fixture.write("dir", b"a file now");
    fixture.write("a", b"changed");
    fixture.pack();
    let refused = synced(&fixture.image, &fixture.target(), SyncOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");
    assert_eq!(fs::read(fixture.target().join("a")).unwrap(), b"one", "nothing was changed");
    assert!(fixture.target().join("dir/file").exists());
}

#[test]
fn contents_of_a_mount_point_are_synced_if_volio_wrote_them_and_never_removed_otherwise() {
    let fixture = Fixture::new(&[("a", b"one"), ("dir/file", b"x"), ("dir/gone", b"x")]);
    fs::remove_dir_all(fixture.target()).unwrap();
    let mount = fixture.target().join("dir");
    let Some(mounted) = Mounted::at(&mount, None) else { return };
    fixture.unpack();
    fs::remove_file(fixture.tree().join("dir/gone")).unwrap();
    fixture.write("dir/file", b"changed");
    let done = fixture.update();
    assert_eq!((done.removed, done.kept_mounts.len()), (1, 0), "{done:?}");
    drop(mounted);
    // Another file system, with files of somebody else.
    let Some(_mounted) = Mounted::at(&mount, None) else { return };
    fs::write(mount.join("theirs"), "precious").unwrap();
    let refused = synced(&fixture.image, &fixture.target(), SyncOptions::default()).unwrap_err();
    assert_eq!(refused.kind(), Kind::Refused, "{refused}");
    let done = synced(&fixture.image, &fixture.target(), FORCE).unwrap();
    assert_eq!(done.kept_mounts, [super::path("dir")]);
    assert!(mount.join("theirs").exists() && mount.join("file").exists());
}

// Reported of other programs: sparse files are expanded.
#[test]
fn too_little_space_is_found_before_anything_is_changed() {
    let fixture = Fixture::new(&[("a", b"one")]);
    fs::remove_dir_all(fixture.target()).unwrap();
    let Some(_mounted) = Mounted::at(&fixture.target(), None) else { return };
    fixture.unpack();
    fixture.write("large", &super::noise(1, 2 << 20));
    fixture.write("a", b"changed");
    fixture.pack();
    let full = synced(&fixture.image, &fixture.target(), SyncOptions::default()).unwrap_err();
    assert!(full.to_string().contains("No space left"), "{full}");
    assert_eq!(fs::read(fixture.target().join("a")).unwrap(), b"one");
    // A hole takes no space.
    fs::remove_file(fixture.tree().join("large")).unwrap();
    let sparse = fs::File::create(fixture.tree().join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    drop(sparse);
    super::set_mtime(&fixture.tree().join("sparse"), 5);
    fixture.pack();
    fixture.sync();
    assert_same(&fixture.tree(), &fixture.target());
}

#[test]
fn a_dry_run_says_that_a_mount_point_would_stay() {
    let fixture = Fixture::new(&[("a", b"one")]);
    let volio = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_volio")).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let layout = format!("oci:{}:v", fixture.at("layout").display());
    let (tree, target) = (fixture.tree().display().to_string(), fixture.at("synced").display().to_string());
    volio(&["pack", &layout, &tree]);
    volio(&["unpack", &layout, &target]);
    let Some(_mounted) = Mounted::at(&fixture.at("synced/mount"), None) else { return };
    let dry = volio(&["unpack", "--sync", "--dry-run", &layout, &target]);
    assert!(dry.contains(": it would stay\n"), "{dry}");
    assert!(dry.contains("everything else would be done"), "{dry}");
    let done = volio(&["unpack", "--sync", &layout, &target]);
    assert!(done.contains(": it stays\n") && done.contains("everything else is done"), "{done}");
}
