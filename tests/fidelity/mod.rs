//! Restores a tree with every kind of entry and attribute of Linux. `tests/fidelity/compare` creates and compares the trees; it
//! shares no code with volio.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// The id of the user `nobody`.
const NOBODY: u32 = 65534;

/// A directory to work in, with the program, so that every user can run it.
struct Workspace(TempDir);

/// Reports that something was not tested. `eprintln!` is captured by the test harness.
fn skipped(what: &str) {
    let mut stderr = std::io::stderr();
    writeln!(stderr, "SKIPPED: {what}").unwrap();
}

impl Workspace {
    /// Creates the directory; `None` if `compare` cannot run.
    fn new() -> Option<Self> {
        if Command::new("python3").arg("--version").output().is_err() {
            skipped("fidelity: no python3");
            return None;
        }
        // Not in memory: a tmpfs does not have all attributes, and its holes have another size.
        let parent = Path::new("/var/tmp");
        let place = if parent.is_dir() { TempDir::new_in(parent) } else { TempDir::new() }.unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (built, program) = (env!("CARGO_BIN_EXE_volio"), place.path().join("volio"));
        // By another process: a file that this one has open for writing cannot be executed while a thread forks.
        assert!(Command::new("cp").arg(built).arg(program).status().unwrap().success());
        Some(Self(place))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn judge(&self, arguments: &[&str]) -> Output {
        let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fidelity/compare");
        Command::new("python3").arg(judge).args(arguments).current_dir(self.0.path()).output().unwrap()
    }

    #[track_caller]
    fn make(&self, arguments: &[&str]) {
        let made = self.judge(&[&["make"], arguments].concat());
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    #[track_caller]
    fn same(&self, left: &str, right: &str, but: &str) {
        let judged = self.judge(&["same", left, right, "--but", but]);
        let (said, trouble) =
            (String::from_utf8_lossy(&judged.stdout), String::from_utf8_lossy(&judged.stderr));
        assert!(judged.status.success(), "{left} and {right} differ:\n{said}{trouble}");
    }

    /// Runs volio, as this user or as the user of the tests, and returns the last line of its output.
    #[track_caller]
    fn volio(&self, arguments: &[&str], user: Option<u32>) -> String {
        let mut command = Command::new(self.path("volio"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().last().unwrap_or_default().to_owned()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // Its paths exceed `PATH_MAX`, so that the standard library cannot remove them.
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(self.0.path()).stderr(Stdio::null()).status();
        let _ = Command::new("rm").arg("-rf").arg(self.0.path()).status();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn digest(line: &str) -> &str {
    line.split_once('@').unwrap().1
}

#[test]
fn a_tree_with_everything_is_restored() {
    let Some(place) = Workspace::new() else { return };
    place.make(&["tree"]);
    place.volio(&["pack", "oci:layout:v1", "tree"], None);
    place.volio(&["unpack", "--max-path", "64K", "oci:layout:v1", "target"], None);
    place.same("tree", "target", "");
    // The restored tree gives the same image.
    let packed = ["tree", "target"].map(|tree| place.volio(&["pack", "oci:layout:v2", tree], None));
    assert_eq!(digest(&packed[0]), digest(&packed[1]));
}

#[test]
#[ignore = "takes minutes: run tests/run"]
fn a_file_above_8_gib_is_restored_with_its_holes() {
    let Some(place) = Workspace::new() else { return };
    place.make(&["tree", "large"]);
    place.volio(&["pack", "oci:layout:v1", "tree"], None);
    place.volio(&["unpack", "--max-path", "64K", "oci:layout:v1", "target"], None);
    place.same("tree", "target", "");
}

#[test]
fn short_holes_are_restored_if_the_options_say_so() {
    let Some(place) = Workspace::new() else { return };
    place.make(&["tree", "shallow", "holes"]);
    place.volio(&["pack", "oci:layout:v1", "tree"], None);
    place.volio(&["unpack", "--max-path", "64K", "--sparse", "always", "oci:layout:v1", "target"], None);
    place.same("tree", "target", "");
}

#[test]
fn an_ordinary_user_loses_only_owners_and_devices() {
    let Some(place) = Workspace::new() else { return };
    if !is_root() {
        return; // The test above has done that.
    }
    place.make(&["tree"]);
    place.volio(&["pack", "oci:layout:v1", "tree"], None);
    fs::create_dir(place.path("target")).unwrap();
    chown(place.path("target"), Some(NOBODY), Some(NOBODY)).unwrap();
    place.volio(&["unpack", "--max-path", "64K", "oci:layout:v1", "target"], Some(NOBODY));
    place.same("tree", "target", "owner,device,setid");
}

#[test]
fn packing_again_and_packing_a_copy_elsewhere_give_the_same_digest() {
    let Some(place) = Workspace::new() else { return };
    place.make(&["tree", "shallow"]);
    let first = place.volio(&["pack", "oci:layout:v1", "tree"], None);
    let second = place.volio(&["pack", "oci:other:v1", "tree"], None);
    assert_eq!(digest(&first), digest(&second));
    // A tmpfs has holes of another size, other inodes, and another order of names in a directory.
    let Ok(memory) = TempDir::new_in("/dev/shm") else { return };
    let copy = memory.path().join("tree");
    let copied = Command::new("cp").arg("-a").arg(place.path("tree")).arg(&copy).output().unwrap();
    let differ = place.judge(&["same", "tree", copy.to_str().unwrap()]);
    if !copied.status.success() || !differ.status.success() {
        let why = String::from_utf8_lossy(&copied.stderr) + String::from_utf8_lossy(&differ.stdout);
        writeln!(std::io::stderr(), "SKIPPED: a copy in memory, which is not the same tree here: {why}")
            .unwrap();
        return;
    }
    let third = place.volio(&["pack", "oci:third:v1", copy.to_str().unwrap()], None);
    assert_eq!(digest(&first), digest(&third));
}
