//! Tests of removal where it could do harm: across mounts, through links, and in trees that exhaust resources.

use super::remove::{RemovalError, RemovalRules, Removed, contents, entry};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment variable with the directory of a test that was started again.
const AGAIN: &str = "VOLIO_TEST_AGAIN";

/// Runs a test again in another process, prepared by `prepare`, with a directory to work in. The name includes the modules.
///
/// Returns the directory in that process, and `None` in the first one, after the other has succeeded.
pub(crate) fn again(name: &str, prepare: impl FnOnce(&Path, Command) -> Command) -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os(AGAIN) {
        return Some(directory.into());
    }
    let directory = tempfile::tempdir().unwrap();
    // An ordinary user may not be allowed to enter the directory that the tests were built in.
    let beside = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
    let (built, program) = (std::env::current_exe().unwrap(), beside.path().join("test"));
    fs::hard_link(&built, &program).or_else(|_| fs::copy(&built, &program).map(drop)).unwrap();
    let mut command = prepare(directory.path(), Command::new(program));
    command.args(["--exact", name, "--nocapture"]).env(AGAIN, directory.path());
    let output = command.output().unwrap();
    // The standard library needs a descriptor for each level to remove it, and the test may have made many.
    Command::new("rm").arg("-rf").arg(directory.path()).status().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
    None
}

/// Runs a test again in a mount namespace; `None` also if mounting is not possible.
pub(crate) fn again_with_mounts(name: &str) -> Option<PathBuf> {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private"]);
        unshare
    };
    let is_possible = || unshare().arg("true").output().is_ok_and(|output| output.status.success());
    if std::env::var_os(AGAIN).is_none() && !(geteuid().is_root() && is_possible()) {
        skipped(&format!("{name}, because nothing can be mounted here"));
        return None;
    }
    again(name, |_, test| {
        let mut unshare = unshare();
        unshare.arg(test.get_program());
        unshare
    })
}

/// Reports that something was not tested. `eprintln!` is captured by the test harness.
pub(crate) fn skipped(what: &str) {
    use std::io::Write;
    writeln!(std::io::stderr(), "SKIPPED: {what}").unwrap();
}

fn open(path: &Path) -> OwnedFd {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Removes `name` in a directory, with its contents.
fn remove(above: &Path, name: &std::ffi::CStr) -> Result<Removed, RemovalError> {
    entry(open(above).as_fd(), name, &RemovalRules::EVERYTHING)
}

/// A directory in memory, if possible, so that many files are fast.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn gone(entries: u64) -> Result<Removed, RemovalError> {
    Ok(Removed { entries, mounted: None })
}

fn mount(arguments: &[&str], directory: &Path) {
    assert!(Command::new("mount").args(arguments).arg(directory).status().unwrap().success());
}

/// Creates nested directories, with a file in each tenth, and returns the number of entries.
fn nest(root: &Path, name: &str, depth: u64) -> u64 {
    let mut here = open(root);
    for level in 0..depth {
        mkdirat(&here, name, Mode::RWXU).unwrap();
        here =
            openat(&here, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        if level % 10 == 0 {
            openat(&here, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RWXU).unwrap();
        }
    }
    depth + depth.div_ceil(10)
}

#[test]
fn a_tree_of_any_depth_is_removed_with_few_descriptors_and_a_small_stack() {
    let with_few_descriptors = |_: &Path, test: Command| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 60 && exec \"$@\"", "sh"]).arg(test.get_program());
        shell
    };
    let name = "disk::tests::a_tree_of_any_depth_is_removed_with_few_descriptors_and_a_small_stack";
    if again(name, with_few_descriptors).is_none() {
        return;
    }
    let dir = in_memory();
    let made = nest(dir.path(), "directory", 20_000);
    let work = move || assert_eq!(remove(dir.path(), c"directory"), gone(made));
    std::thread::Builder::new().stack_size(128 << 10).spawn(work).unwrap().join().unwrap();
}

#[test]
fn a_directory_with_more_names_than_one_call_lists_is_removed_completely() {
    let dir = in_memory();
    // Deep as well, so that the listing is closed and continued later.
    for number in 0..3000 {
        fs::write(dir.path().join(format!("file with a name of some length {number}")), "").unwrap();
    }
    for number in 0..5 {
        let branch = dir.path().join(format!("branch{number}"));
        fs::create_dir(&branch).unwrap();
        nest(&branch, "d", 100);
    }
    assert_eq!(contents(open(dir.path()).as_fd(), &RemovalRules::EVERYTHING), gone(3000 + 5 * (1 + 110)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn links_are_removed_and_not_their_targets() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "data").unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    symlink(outside.path(), dir.path().join("d/link")).unwrap();
    symlink(outside.path(), dir.path().join("link")).unwrap();
    assert_eq!(remove(dir.path(), c"d"), gone(2));
    assert_eq!(remove(dir.path(), c"link"), gone(1));
    assert_eq!(remove(dir.path(), c"nothing"), gone(0));
    assert!(outside.path().join("precious").exists());
}

#[test]
fn a_directory_that_is_closed_to_its_owner_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    for closed in ["a/b", "a"] {
        fs::set_permissions(dir.path().join(closed), fs::Permissions::from_mode(0o000)).unwrap();
    }
    assert_eq!(remove(dir.path(), c"a"), gone(2));
}

#[test]
fn mount_points_stay_and_everything_beside_them_is_removed() {
    let name = "disk::tests::mount_points_stay_and_everything_beside_them_is_removed";
    let Some(dir) = again_with_mounts(name) else { return };
    // Of the same file system, so that the device number is the same.
    let outside = dir.join("outside");
    fs::create_dir_all(outside.join("below")).unwrap();
    fs::write(outside.join("below/precious"), "data").unwrap();
    fs::write(outside.join("file"), "data").unwrap();
    let bound = dir.join("tree/a/bound");
    fs::create_dir_all(&bound).unwrap();
    fs::create_dir_all(dir.join("tree/b/disk")).unwrap();
    fs::write(dir.join("tree/c"), "").unwrap();
    fs::write(dir.join("tree/d"), "").unwrap();
    mount(&["--bind", outside.to_str().unwrap()], &bound);
    mount(&["--bind", outside.join("file").to_str().unwrap()], &dir.join("tree/c"));
    mount(&["-t", "tmpfs", "none"], &dir.join("tree/b/disk"));
    fs::write(dir.join("tree/b/disk/precious"), "data").unwrap();
    fs::write(dir.join("tree/a/beside"), "").unwrap();
    let removed = remove(&dir, c"tree").unwrap();
    assert_eq!(removed.entries, 2, "what is beside the mounts");
    assert!(removed.mounted.is_some_and(|path| path.starts_with(b"tree/")));
    for precious in ["outside/below/precious", "outside/file", "tree/c", "tree/b/disk/precious"] {
        assert_eq!(fs::read_to_string(dir.join(precious)).unwrap(), "data", "{precious}");
    }
    assert_eq!(fs::read_dir(dir.join("tree/a")).unwrap().count(), 1);
    // A mount point is not removed by its name either.
    let above = dir.join("tree/a");
    assert_eq!(remove(&above, c"bound").unwrap(), Removed { entries: 0, mounted: Some(b"bound".to_vec()) });
    assert!(bound.join("below/precious").exists());
}

#[test]
fn a_mount_that_may_be_entered_is_emptied_and_stays() {
    let name = "disk::tests::a_mount_that_may_be_entered_is_emptied_and_stays";
    let Some(dir) = again_with_mounts(name) else { return };
    let disk = dir.join("disk");
    fs::create_dir(&disk).unwrap();
    mount(&["-t", "tmpfs", "none"], &disk);
    fs::create_dir_all(disk.join("a/b")).unwrap();
    fs::write(disk.join("spared"), "").unwrap();
    let what = RemovalRules { crosses: &|_| true, spares: &|_, name| name == c"spared" };
    let removed = contents(open(&dir).as_fd(), &what).unwrap();
    assert_eq!(removed.entries, 2);
    assert_eq!(fs::read_dir(&disk).unwrap().count(), 1);
}

#[test]
fn an_entry_that_cannot_be_removed_does_not_keep_the_others() {
    if geteuid().is_root() {
        let is_possible = |flag: &str, path: &Path| {
            Command::new("chattr").arg(flag).arg(path).output().is_ok_and(|output| output.status.success())
        };
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("d/a")).unwrap();
        for name in ["d/a/file", "d/file", "d/fixed"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        if !is_possible("+i", &dir.path().join("d/fixed")) {
            return skipped("what cannot be removed, because no file can be made immutable here");
        }
        let outcome = remove(dir.path(), c"d");
        let left = fs::read_dir(dir.path().join("d")).unwrap().count();
        assert!(is_possible("-i", &dir.path().join("d/fixed")));
        assert_eq!(outcome, Err(RemovalError { path: b"d/fixed".to_vec(), errno: Errno::PERM }));
        assert_eq!(left, 1);
    }
}

#[test]
fn a_directory_that_is_moved_away_meanwhile_does_not_lead_outside() {
    let name = "disk::tests::a_directory_that_is_moved_away_meanwhile_does_not_lead_outside";
    let Some(dir) = again_with_mounts(name) else { return };
    fs::create_dir_all(dir.join("outside")).unwrap();
    fs::write(dir.join("outside/precious"), "").unwrap();
    nest(&dir, "d", 200);
    let at =
        |depth: usize| -> PathBuf { std::iter::once(dir.clone()).chain(vec!["d".into(); depth]).collect() };
    mount(&["-t", "tmpfs", "none"], &at(200));
    // By now the directories at the top are closed, and the way up is by `..`.
    let moves = |_: BorrowedFd<'_>| {
        let _ = fs::rename(at(100), dir.join("outside/moved"));
        false
    };
    let what = RemovalRules { crosses: &moves, ..RemovalRules::EVERYTHING };
    let failure = entry(open(&dir).as_fd(), c"d", &what).unwrap_err();
    assert_eq!(failure.errno, Errno::STALE);
    for there in [dir.join("outside/precious"), dir.join("outside/moved/d"), at(99)] {
        assert!(there.exists(), "{}", there.display());
    }
}
