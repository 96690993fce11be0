//! The record of a target: whose it is, and what it allows a sync to remove.

use super::mounts::Mounted;
use super::{CHECKSUM, FORCE, Fixture, SyncOptions, quick, synced};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use volio::error::Kind;
use volio::progress::{Phase, Progress, Silent, Task, TaskInfo};
use volio::unpack::{IfPresent, Options, WriteMode, unpack};

const ATTRIBUTE: &str = "user.volio.image";
const NOBODY: u32 = 65534;

const TRUSTED: &str = "trusted.volio.image";

/// Returns the name of the attribute that has the record of a directory, and the record.
fn named_record(directory: &Path) -> (&'static str, Value) {
    let mut text = vec![0; 64 << 10];
    let found = [ATTRIBUTE, TRUSTED]
        .into_iter()
        .find_map(|name| Some((name, rustix::fs::getxattr(directory, name, &mut text[..]).ok()?)));
    let (name, length) = found.expect("a record");
    (name, serde_json::from_slice(&text[..length]).unwrap())
}

fn record(directory: &Path) -> Value {
    named_record(directory).1
}

/// Writes a record into an attribute of a directory.
fn set(directory: &Path, name: &str, record: &Value) {
    let text = serde_json::to_vec(record).unwrap();
    rustix::fs::setxattr(directory, name, &text, rustix::fs::XattrFlags::empty()).unwrap();
}

fn set_record(directory: &Path, record: &Value) {
    set(directory, ATTRIBUTE, record);
}

/// Syncs, which must be refused and remove nothing.
#[track_caller]
fn refused(fixture: &Fixture, how: SyncOptions) -> String {
    let error = synced(&fixture.image, &fixture.target(), how).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    error.to_string()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_record_that_another_user_may_have_written_lets_nothing_be_removed() {
    if !is_root() {
        return;
    }
    for is_syncing in [false, true] {
        let fixture = Fixture::new(&[("a", b"one")]);
        let target = fixture.target();
        fs::write(target.join("precious"), "precious").unwrap();
        let mut forged = record(&target);
        if is_syncing {
            forged["complete"] = false.into();
            forged["content"]["syncing"] = true.into();
        }
        // As everybody may do it in a directory for temporary files.
        mode(&target, 0o1777);
        rustix::fs::removexattr(&target, ATTRIBUTE).unwrap();
        let file = target.join(".volio.json");
        fs::write(&file, serde_json::to_vec(&forged).unwrap()).unwrap();
        chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
        assert!(refused(&fixture, SyncOptions::default()).contains("another user"));
        // As everybody may do it in a directory that is open to all, and as its owner may do it.
        fs::remove_file(&file).unwrap();
        set_record(&target, &forged);
        mode(&target, 0o777);
        refused(&fixture, SyncOptions::default());
        mode(&target, 0o755);
        chown(&target, Some(NOBODY), None).unwrap();
        refused(&fixture, SyncOptions::default());
        assert!(target.join("precious").exists());
        // It belongs to root.
        chown(&target, Some(0), None).unwrap();
        fixture.update();
    }
}

#[test]
fn directories_that_others_may_write_are_synced_when_their_records_belong_to_the_user() {
    for (bits, owner) in [(0o775, 0), (0o1777, 0), (0o755, 70)] {
        if !is_root() {
            return;
        }
        let fixture = Fixture::new(&[("a", b"one"), ("gone", b"x")]);
        fs::remove_dir_all(fixture.target()).unwrap();
        mode(&fixture.tree(), bits);
        if owner != 0 {
            chown(fixture.tree(), Some(owner), None).unwrap();
        }
        fixture.pack();
        fixture.unpack();
        fs::remove_file(fixture.tree().join("gone")).unwrap();
        fixture.write("a", b"changed");
        fixture.pack();
        assert_eq!(fixture.sync().removed, 1, "{bits:o}");
        // With a record as an interrupted run leaves it.
        fixture.write("a", b"changed again");
        fixture.pack();
        let (name, mut interrupted) = named_record(&fixture.target());
        assert_eq!(
            name == ATTRIBUTE,
            bits == 0o1777,
            "only the owner may write attributes of a sticky directory"
        );
        interrupted["complete"] = false.into();
        interrupted["content"]["syncing"] = true.into();
        set(&fixture.target(), name, &interrupted);
        fixture.sync();
        assert_eq!(fs::read(fixture.target().join("a")).unwrap(), b"changed again");
    }
}

#[test]
fn a_copy_of_the_root_of_a_file_system_is_not_the_target() {
    let fixture = Fixture::new(&[("a", b"one")]);
    let (original, copy) = (fixture.at("original"), fixture.target());
    fs::remove_dir_all(&copy).unwrap();
    let Some(_first) = Mounted::at(&original, None) else { return };
    let Some(_second) = Mounted::at(&copy, None) else { return };
    unpack(&fixture.image, &original, &quick(WriteMode::InPlace), &Silent).unwrap();
    fs::create_dir(copy.join("docs")).unwrap();
    fs::write(copy.join("docs/thesis"), "mine").unwrap();
    let copied = Command::new("cp").arg("-a").arg(original.join(".")).arg(&copy).status();
    assert!(copied.unwrap().success());
    refused(&fixture, SyncOptions::default());
    assert!(copy.join("docs/thesis").exists());
    // The original is the target, also when it is mounted elsewhere.
    let moved = Command::new("umount").arg(&copy).status().unwrap();
    assert!(moved.success());
    let Some(_moved) = Mounted::at(&copy, Some(&original)) else { return };
    fixture.write("a", b"changed");
    fixture.update();
}

/// An image with a directory, and a target with a file system mounted there that has a file of the user.
fn with_foreign_mount() -> Option<(Fixture, Mounted)> {
    let fixture = Fixture::new(&[("a", b"one"), ("data/f", b"x")]);
    let mount = fixture.target().join("data");
    let mounted = Mounted::at(&mount, None)?;
    fs::write(mount.join("mine"), "precious").unwrap();
    fixture.write("data/f", b"changed");
    fixture.pack();
    Some((fixture, mounted))
}

#[test]
fn contents_of_a_mount_point_stay_also_in_runs_after_one_with_force() {
    let Some((fixture, _mounted)) = with_foreign_mount() else { return };
    let mount = fixture.target().join("data");
    synced(&fixture.image, &fixture.target(), FORCE).unwrap();
    fixture.write("data/f", b"changed again");
    fixture.pack();
    let stays = |how: Option<SyncOptions>| {
        refused(&fixture, SyncOptions::default());
        if let Some(how) = how {
            synced(&fixture.image, &fixture.target(), how).unwrap();
        }
        assert!(mount.join("mine").exists());
    };
    stays(Some(FORCE));
    // An interrupted run leaves such a record.
    let mut interrupted = record(&mount);
    interrupted["complete"] = false.into();
    set_record(&mount, &interrupted);
    stays(None);
    interrupted["content"]["syncing"] = true.into();
    set_record(&mount, &interrupted);
    stays(Some(FORCE));
}

#[test]
fn contents_of_a_mount_point_stay_after_an_interrupted_merge() {
    let Some((fixture, _mounted)) = with_foreign_mount() else { return };
    let mount = fixture.target().join("data");
    let merge = quick(WriteMode::Merge { replace_directories: false });
    unpack(&fixture.image, &fixture.target(), &merge, &Silent).unwrap();
    let mut interrupted = record(&mount);
    interrupted["complete"] = false.into();
    set_record(&mount, &interrupted);
    fixture.write("a", b"another");
    fixture.pack();
    refused(&fixture, SyncOptions::default());
    let done = synced(&fixture.image, &fixture.target(), FORCE).unwrap();
    assert_eq!(done.kept_mounts, [super::path("data")]);
    assert!(mount.join("mine").exists());
}

#[test]
fn contents_of_a_mount_point_stay_after_another_one_below_it() {
    let fixture = Fixture::new(&[("data/below/f", b"x")]);
    let mount = fixture.target().join("data");
    let Some(_mounted) = Mounted::at(&mount, None) else { return };
    let Some(_below) = Mounted::at(&mount.join("below"), None) else { return };
    fs::write(mount.join("below/mine"), "precious").unwrap();
    fs::write(mount.join("zzz"), "precious").unwrap();
    synced(&fixture.image, &fixture.target(), FORCE).unwrap();
    assert!(mount.join("zzz").exists() && mount.join("below/mine").exists());
}

/// Calls a function once, when contents begin to be compared: the tree was compared by then.
struct AfterComparison<'a>(Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>);

struct Nothing;

impl Task for Nothing {
    fn advance(&self, _: u64) {}

    fn skip(&self) {}
}

impl Progress for AfterComparison<'_> {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        if info.phase == Phase::ComparingContents
            && let Some(act) = self.0.lock().unwrap().take()
        {
            act();
        }
        Box::new(Nothing)
    }

    fn warn(&self, _: &str) {}
}

#[test]
fn nothing_is_removed_from_what_was_mounted_after_the_comparison() {
    let fixture = Fixture::new(&[("a", b"one"), ("d/x", b"x"), ("d/y", b"y")]);
    let volume = fixture.at("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("x"), "precious").unwrap();
    fs::remove_file(fixture.tree().join("d/x")).unwrap();
    fixture.pack();
    for from in [Some(volume.as_path()), None] {
        let mounted = Mutex::new(None);
        let at = fixture.target().join("d");
        let mount = || {
            *mounted.lock().unwrap() = Mounted::at(&at, from);
            if from.is_none() && mounted.lock().unwrap().is_some() {
                fs::write(at.join("x"), "precious").unwrap();
            }
        };
        let progress = AfterComparison(Mutex::new(Some(Box::new(mount))));
        let how = quick(WriteMode::Sync(SyncOptions::default()));
        let done = unpack(&fixture.image, &fixture.target(), &how, &progress);
        drop(progress);
        if mounted.lock().unwrap().is_none() {
            return;
        }
        assert_eq!(fs::read(at.join("x")).unwrap(), b"precious");
        assert_eq!(done.unwrap_err().kind(), Kind::Refused);
        mounted.lock().unwrap().take();
    }
    fixture.update();
}

#[test]
fn nothing_is_removed_from_below_what_was_unmounted_after_the_comparison() {
    let fixture = Fixture::new(&[("a", b"one"), ("d/x", b"x"), ("d/y", b"y")]);
    fs::remove_dir_all(fixture.target()).unwrap();
    let at = fixture.target().join("d");
    fs::create_dir_all(&at).unwrap();
    let Some(mounted) = Mounted::at(&at, None) else { return };
    fixture.unpack();
    fs::remove_file(fixture.tree().join("d/x")).unwrap();
    fixture.pack();
    let mounted = Mutex::new(Some(mounted));
    let unmount = || {
        mounted.lock().unwrap().take();
        fs::write(at.join("x"), "precious").unwrap();
    };
    let progress = AfterComparison(Mutex::new(Some(Box::new(unmount))));
    let how = quick(WriteMode::Sync(SyncOptions::default()));
    let error = unpack(&fixture.image, &fixture.target(), &how, &progress).unwrap_err();
    drop(progress);
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert!(at.join("x").exists());
}

#[test]
fn a_target_is_synced_after_its_image_was_unpacked_again() {
    let fixture = Fixture::new(&[("a", b"one"), ("gone", b"x")]);
    let again = Options { if_present: IfPresent::Rewrite, ..quick(WriteMode::InPlace) };
    unpack(&fixture.image, &fixture.target(), &again, &Silent).unwrap();
    fs::remove_file(fixture.tree().join("gone")).unwrap();
    assert_eq!(fixture.update().removed, 1);
    let done = synced(&fixture.image, &fixture.target(), CHECKSUM).unwrap();
    assert_eq!(done.written, 0, "{done:?}");
}

#[test]
fn files_are_not_read_again_because_of_the_sync_that_changed_them() {
    let fixture = Fixture::new(&[("a", b"one"), ("b", b"two")]);
    mode(&fixture.target().join("a"), 0o600);
    assert_eq!(fixture.sync().attributes, 1);
    let file = fs::symlink_metadata(fixture.target().join("a")).unwrap();
    let settled = record(&fixture.target())["settled"].clone();
    let changed = (file.ctime(), file.ctime_nsec());
    assert!((settled[0].as_i64().unwrap(), settled[1].as_i64().unwrap()) >= changed, "{settled} {changed:?}");
}

/// A copy of the program that every user can run, and an image that every user can read.
fn for_everybody(fixture: &Fixture) -> (PathBuf, String) {
    mode(fixture.place.path(), 0o755);
    let volio = fixture.at("volio");
    fs::copy(env!("CARGO_BIN_EXE_volio"), &volio).unwrap();
    mode(&volio, 0o755);
    let image = format!("oci:{}:1", fixture.at("layout").display());
    let packed = Command::new(&volio).args(["pack", &image]).arg(fixture.tree()).output().unwrap();
    assert!(packed.status.success());
    let opened = Command::new("chmod").args(["-R", "a+rX"]).arg(fixture.at("layout")).status();
    assert!(opened.unwrap().success());
    (volio, image)
}

/// Runs a command as a user without rights. Returns the exit code and what was said.
fn as_nobody(volio: &Path, arguments: &[&str], target: &Path) -> (Option<i32>, String) {
    let done = Command::new(volio).args(arguments).arg(target).uid(NOBODY).output().unwrap();
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn the_record_in_a_directory_that_others_may_write_is_a_file_of_the_user() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(&[("a", b"one")]);
    mode(&fixture.tree(), 0o777);
    let (volio, image) = for_everybody(&fixture);
    let target = fixture.at("shared");
    fs::create_dir(&target).unwrap();
    mode(&target, 0o777);
    let sync = || as_nobody(&volio, &["unpack", "--sync", &image], &target);
    assert_eq!(sync().0, Some(0));
    fs::write(target.join("extra"), "").unwrap();
    let (code, said) = sync();
    assert_eq!(code, Some(0), "{said}");
    assert!(!target.join("extra").exists());
    // Somebody else has put his own file there.
    fs::write(target.join("extra"), "").unwrap();
    chown(target.join(".volio.json"), Some(70), None).unwrap();
    assert_eq!(sync().0, Some(6));
    assert!(target.join("extra").exists());
}

#[test]
fn a_record_that_cannot_be_replaced_is_an_error_before_anything_is_changed() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(&[("a", b"one"), ("sub/f", b"x")]);
    fixture.write("sub/f", b"changed");
    let (volio, image) = for_everybody(&fixture);
    let target = fixture.target();
    chown(target.join("sub"), Some(NOBODY), None).unwrap();
    chown(target.join("sub/f"), Some(NOBODY), None).unwrap();
    let before = record(&target);
    let (code, said) = as_nobody(&volio, &["unpack", "--sync", &image], &target);
    assert_eq!(code, Some(6), "{said}");
    assert!(said.contains("record"), "{said}");
    assert_eq!(fs::read(target.join("sub/f")).unwrap(), b"x");
    assert_eq!(record(&target), before);
}
