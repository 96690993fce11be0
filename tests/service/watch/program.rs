//! The program: killed, ended, and with wrong arguments.

use crate::incremental::killed::kills;
use crate::incremental::random::Random;
use crate::service::eventually;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The number of files of the tree, besides a large one.
const FILES: usize = 200;

/// A layout with a tag, and a directory that follows it.
pub(super) struct Place(tempfile::TempDir);

impl Place {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir_in("/var/tmp").unwrap())
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn volio(&self, arguments: &[&str]) -> Command {
        let mut volio = Command::new(env!("CARGO_BIN_EXE_volio"));
        volio.args(arguments).current_dir(self.0.path()).env_clear();
        volio.env("PATH", std::env::var_os("PATH").unwrap()).env("XDG_STATE_HOME", self.at("state"));
        volio
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.volio(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Packs a version: each file has its number.
    pub(super) fn push(&self, version: u32) {
        let tree = self.at("tree");
        fs::create_dir_all(tree.join("d")).unwrap();
        let write = |path: &Path, content: &str| {
            fs::write(path, content).unwrap();
            let time =
                std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000 + u64::from(version));
            fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        };
        for number in 0..FILES {
            write(&tree.join(format!("d/file{number}")), &format!("{version}"));
        }
        write(&tree.join("large"), &format!("{version}\n").repeat(400_000));
        let packed = self.run(&["pack", "oci:layout:v1", "tree"]);
        assert!(packed.status.success(), "{packed:?}");
    }

    /// Returns the version in a tree, which must be whole.
    pub(super) fn version(tree: &Path) -> String {
        let version = fs::read_to_string(tree.join("d/file0")).unwrap();
        for number in 0..FILES {
            assert_eq!(fs::read_to_string(tree.join(format!("d/file{number}"))).unwrap(), version);
        }
        let large = fs::read_to_string(tree.join("large")).unwrap();
        assert!(large == format!("{version}\n").repeat(400_000), "{version}");
        version
    }

    pub(super) fn watch(&self, more: &[&str]) -> Child {
        let watch = [&["unpack", "--no-sync", "--watch", "1s"], more, &["oci:layout:v1", "target"]].concat();
        let mut watch = self.volio(&watch);
        watch.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// Ends a process and returns its exit code and its stderr.
pub(super) fn end(mut child: Child, signal: Signal) -> (Option<i32>, String) {
    kill_process(Pid::from_child(&child), signal).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (child.wait().unwrap().code(), said)
}

/// git-sync#411 and git-sync#414
#[test]
fn a_link_names_a_whole_tree_whenever_the_program_is_killed() {
    let place = Place::new();
    // A version that no hook rejects, since it may still be there when the first of the others is killed.
    let (mut random, mut last) = (Random::new(3), "1000000".to_owned());
    place.push(1_000_000);
    let mut published = 0;
    // A busy machine takes longer to publish, and the kills are to be before and after that.
    let begun = Instant::now();
    let child = place.watch(&["--link", "current"]);
    eventually("the first version", || place.at("target/current").symlink_metadata().is_ok());
    let publication = begun.elapsed().as_millis() as usize;
    end(child, Signal::KILL);
    for version in 1..=kills() as u32 * 2 {
        place.push(version);
        let hook = format!("test $(cat d/file0) != {}", version / 5 * 5);
        let child = place.watch(&["--link", "current", "--keep-previous", "0", "--before-publish", &hook]);
        thread::sleep(Duration::from_millis(random.below(publication * 2) as u64));
        end(child, Signal::KILL);
        let link = place.at("target/current");
        if link.symlink_metadata().is_ok() {
            let found = Place::version(&link);
            assert_ne!(found, (version / 5 * 5).to_string(), "it was rejected");
            published += u32::from(found != last);
            last = found;
        }
    }
    assert!(published > 1, "{published}");
    // What they have left is gone after one run that succeeds.
    place.push(1_000_001);
    let child = place.watch(&["--link", "current", "--keep-previous", "0"]);
    let names = |path: &str| fs::read_dir(place.at(path)).map_or(0, Iterator::count);
    eventually("one version", || {
        fs::read_to_string(place.at("target/current/large")).is_ok_and(|text| text.starts_with("1000001"))
            && (names("target"), names("target/.volio.watch")) == (3, 1)
    });
    end(child, Signal::TERM);
    assert_eq!(Place::version(&place.at("target/current")), "1000001");
}

#[test]
fn a_watch_in_place_that_is_killed_is_completed_by_the_next() {
    let place = Place::new();
    let mut random = Random::new(4);
    for version in 1..=kills() as u32 {
        place.push(version);
        let child = place.watch(&["--sync"]);
        thread::sleep(Duration::from_millis(random.below(400) as u64));
        end(child, Signal::KILL);
    }
    place.push(1_000_001);
    let child = place.watch(&["--sync"]);
    eventually("the last version", || {
        let state =
            place.run(&["unpack", "--sync", "--dry-run", "--format", "json", "oci:layout:v1", "target"]);
        String::from_utf8_lossy(&state.stdout).contains(r#""written": 0"#)
    });
    end(child, Signal::TERM);
    assert_eq!(Place::version(&place.at("target")), "1000001");
}

/// k8s-sidecar#621 and k8s-sidecar#85: alive by its own account, and dead.
#[test]
fn a_watch_is_ready_after_the_first_version_and_ends_at_a_signal() {
    let place = Place::new();
    let listen = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let get = |path: &str| {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect(&listen) {
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    };
    let child = place.watch(&["--link", "current", "--listen", &listen, "--log", "json"]);
    eventually("an answer", || get("/readyz").contains("503"));
    place.push(1);
    eventually("ready", || get("/readyz").contains("200 OK"));
    assert!(get("/healthz").contains("200 OK"));
    assert_eq!(Place::version(&place.at("target/current")), "1");
    let begun = Instant::now();
    let (code, said) = end(child, Signal::TERM);
    assert!(begun.elapsed() < Duration::from_secs(5) && code == Some(0), "{code:?} {said}");
    let lines: Vec<serde_json::Value> =
        said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().any(|line| line.to_string().contains("published sha256:")), "{said}");

    // With data, it is ready although there is no image any more.
    fs::remove_dir_all(place.at("layout")).unwrap();
    let child = place.watch(&["--link", "current", "--listen", &listen]);
    eventually("ready", || get("/readyz").contains("200 OK"));
    end(child, Signal::TERM);
}

#[test]
fn options_that_contradict_a_watch_are_refused() {
    let place = Place::new();
    place.push(1);
    let refused = |arguments: &[&str], code: i32, part: &str| {
        let arguments = [&["unpack"], arguments, &["oci:layout:v1", "target"]].concat();
        let output = place.run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(part), "{arguments:?}: {said}");
        assert!(!place.at("target/d").exists());
    };
    refused(&["--watch", "10s"], 2, "--link NAME");
    refused(&["--watch", "0", "--sync"], 2, "shorter than a second");
    refused(&["--watch", "10", "--sync"], 2, "is not a duration");
    refused(&["--watch", "10s", "--sync", "--link", "x"], 2, "cannot be used with");
    refused(&["--watch", "10s", "--sync", "--before-publish", "true"], 2, "--link");
    refused(&["--watch", "10s", "--sync", "--keep"], 2, "cannot be used with");
    refused(&["--link", "x"], 2, "--watch");
    refused(&["--watch", "10s", "--link", "a/b"], 2, "a/b");
    fs::create_dir_all(place.at("target/occupied")).unwrap();
    refused(&["--watch", "10s", "--link", "occupied"], 6, "target/occupied is a directory");
}

#[test]
fn a_single_unpack_has_hooks_too() {
    let place = Place::new();
    place.push(1);
    let note = "echo $VOLIO_EVENT $VOLIO_RESULT $VOLIO_DIGEST >>diary";
    let hooks = ["unpack", "--before", note, "--after", note, "--on-error", note, "oci:layout:v1"];
    let output = place.run(&[&hooks[..], &["target"]].concat());
    let digest = String::from_utf8_lossy(&output.stdout).trim().rsplit('@').next().unwrap().to_owned();
    assert_eq!(fs::read_to_string(place.at("diary")).unwrap(), format!("before\nafter success {digest}\n"));
    fs::create_dir_all(place.at("full/x")).unwrap();
    assert_eq!(place.run(&[&hooks[..], &["full"]].concat()).status.code(), Some(6));
    assert!(
        fs::read_to_string(place.at("diary")).unwrap().ends_with("before\non-error failed\nafter failed\n")
    );
}

/// flux-operator#751
#[test]
fn a_version_without_the_required_signature_is_not_published() {
    let place = Place::new();
    let key = |name: &str| format!("{}/fixtures/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    place.push(1);
    let signed = place.run(&["sign", "--key", &key("signer.pem"), "oci:layout:v1"]);
    assert!(signed.status.success(), "{signed:?}");
    for how in [&["--sync"][..], &["--link", "current"]] {
        let other = key("other.pub");
        let verified = [how, &["--verify-key", &other, "--init-failures", "1"]].concat();
        let mut child = place.watch(&verified);
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert!(!place.at("target/large").exists() && !place.at("target/current").exists());
    }
    let child =
        place.watch(&["--link", "current", "--verify-key", &key("signer.pub"), "--max-failures", "1"]);
    eventually("published", || place.at("target/current/large").exists());
    // The next version is not signed.
    place.push(2);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), Place::version(&place.at("target/current")).as_str()), (Some(3), "1"));
}
