//! A pack that waits for a signal, as in the sidecar of a pod.

use crate::plugin::Gate;
use crate::registry::{Login, Registry};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use volio::error::Kind;
use volio::transport::Access;

/// A process of `volio pack --wait-for-signal` and its stderr.
struct Sidecar {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Sidecar {
    fn start(image: &str, tree: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_volio"))
            .args(["pack", "--wait-for-signal", "--retry", "0", image])
            .arg(tree)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line
    }

    /// Starts a pack and returns when it waits.
    fn waiting(image: &str, tree: &Path) -> Self {
        let mut sidecar = Self::start(image, tree);
        assert_eq!(sidecar.line(), "waiting for SIGTERM\n");
        sidecar
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end. Returns the exit status and the output.
    fn end(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }
}

#[test]
fn kubernetes_sidecar_packs_at_its_signal_and_succeeds() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let image = format!("oci:{}:v1", place.path().join("layout").display());
        let sidecar = Sidecar::waiting(&image, &tree);
        fs::write(tree.join("result"), "made while it waited").unwrap();
        assert!(!place.path().join("layout").exists(), "nothing is made before");
        sidecar.signal(signal);
        let (status, said) = sidecar.end();
        assert!(status.success() && said.contains("packed 2 entries"), "{status} {said}");
        let source = image.parse::<volio::transport::Location>().unwrap().source(&Access::default()).unwrap();
        let target = place.path().join("target");
        let options = volio::unpack::Options::default();
        volio::unpack::unpack(source.as_ref(), &target, &options, &volio::progress::Silent).unwrap();
        assert_eq!(fs::read_to_string(target.join("result")).unwrap(), "made while it waited");
    }
}

#[test]
fn kubernetes_sidecar_that_cannot_pack_fails_at_once_and_not_when_the_pod_ends() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.login = Login::Basic { user: "me:secret" });
    let place = tempfile::tempdir().unwrap();
    let denied = format!("{}/team/data:v1", registry.host());
    let (status, said) = Sidecar::start(&denied, place.path()).end();
    assert_eq!(status.code(), Some(5), "{said}");
    let image = format!("oci:{}:v1", place.path().join("layout").display());
    let (status, said) = Sidecar::start(&image, &place.path().join("nowhere")).end();
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(said.contains("nowhere") && !said.contains("waiting"), "{said}");
    // A registry that is down may be up again when the signal arrives.
    let down = "127.0.0.1:1/team/data:v1";
    let sidecar = Sidecar::waiting(down, place.path());
    sidecar.signal(Signal::TERM);
    let (status, said) = sidecar.end();
    assert_eq!(status.code(), Some(1), "{said}");
}

#[test]
fn kubernetes_sidecar_with_a_second_signal_is_interrupted_and_names_no_image() {
    let registry = Registry::start();
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "data").unwrap();
    let gate = Gate::shut(registry.host());
    gate.open();
    let sidecar = Sidecar::waiting(&format!("{}/team/data:v1", gate.host()), place.path());
    gate.shut_again();
    sidecar.signal(Signal::TERM);
    gate.wait_for_somebody();
    sidecar.signal(Signal::TERM);
    let (status, said) = sidecar.end();
    assert_eq!(status.code(), Some(143), "{said}");
    let resolved = registry.location("team/data", "v1").source(&Access::default()).unwrap().resolve();
    assert_eq!(resolved.unwrap_err().kind(), Kind::NotFound);
}
