//! `volio plugin` as a process, for container engines.

use super::program::{Finished, finish};
use super::services::docker_host;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest wait of a test.
/// A dockerd that was killed takes 20 seconds on an idle machine.
pub const SOON: Duration = Duration::from_secs(180);

/// A lock for tests with Docker, which can use only one plugin with a name.
static ONE: Mutex<()> = Mutex::new(());

/// A running plugin.
pub struct Plugin {
    place: TempDir,
    child: Option<Child>,
    sockets: PathBuf,
    arguments: Vec<String>,
    _one: Option<MutexGuard<'static, ()>>,
}

impl Plugin {
    /// A plugin in the directory where Docker looks for plugins.
    pub fn for_docker(arguments: &[&str]) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        Self::start_at("/run/docker/plugins".into(), Some(one), arguments)
    }

    /// A plugin with its sockets in this directory.
    pub fn beside(place: &Path, arguments: &[&str]) -> Self {
        Self::start_at(place.join("sockets"), None, arguments)
    }

    fn start_at(sockets: PathBuf, one: Option<MutexGuard<'static, ()>>, arguments: &[&str]) -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(place.path().join("storage")).expect("mkdir");
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut plugin = Self { place, child: None, sockets, arguments, _one: one };
        plugin.start();
        plugin
    }

    pub fn start(&mut self) {
        assert!(self.try_start(), "the plugin ended: {}", self.log());
    }

    /// Starts it. Returns `false` if it ended at once.
    pub fn try_start(&mut self) -> bool {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_volio"))
            .args(["plugin", "--storage"])
            .arg(self.path("storage"))
            .arg("--sockets")
            .arg(&self.sockets)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("volio plugin");
        let mut has_ended = false;
        wait_until("the plugin listens", || {
            has_ended = child.try_wait().expect("the plugin is known").is_some();
            has_ended || std::os::unix::net::UnixStream::connect(self.socket("volio")).is_ok()
        });
        self.child = (!has_ended).then_some(child);
        !has_ended
    }

    pub fn end(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            finish(Command::new("kill").args([signal, &child.id().to_string()])).succeeded();
            child.wait().expect("the plugin ends");
        }
    }

    pub fn socket(&self, driver: &str) -> PathBuf {
        self.sockets.join(format!("{driver}.sock"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    pub fn volume(&self, name: &str) -> PathBuf {
        self.path("storage").join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("the log")
    }

    /// Packs an image with these files into a layout beside the storage.
    pub fn pack(&self, tag: &str, files: &[(&str, &str)]) -> String {
        let tree = tempfile::tempdir().expect("a temporary directory");
        for (name, content) in files {
            fs::write(tree.path().join(name), content).expect("write");
        }
        let image = format!("oci:{}:{tag}", self.path("layout").display());
        super::program::volio(&["pack", &image, tree.path().to_str().expect("UTF-8")]).succeeded();
        image
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.end("-TERM");
        if thread::panicking() {
            eprintln!("log of the plugin:\n{}", self.log());
        }
    }
}

/// A dockerd.
pub struct Docker {
    pub host: String,
}

impl Docker {
    /// The dockerd that `tests/run` started.
    pub fn shared() -> Self {
        let docker = Self { host: docker_host() };
        docker.import_busybox();
        docker
    }

    pub fn run(&self, arguments: &[&str]) -> Finished {
        finish(Command::new("docker").env("DOCKER_HOST", &self.host).args(arguments))
    }

    /// Runs a script in a container.
    pub fn container(&self, options: &[&str], script: &str) -> Finished {
        let image = [IMAGE, "/bin/busybox", "sh", "-c", script];
        self.run(&[&["run", "--network=none"], options, &image].concat())
    }

    /// Imports an image with busybox.
    pub fn import_busybox(&self) {
        let root = busybox_tree();
        let archive = root.path().join("tar");
        let directory = root.path().join("root").display().to_string();
        let tar = ["--create", "--file", archive.to_str().expect("UTF-8"), "--directory", &directory, "."];
        finish(Command::new("tar").args(tar)).succeeded();
        self.run(&["import", archive.to_str().expect("UTF-8"), IMAGE]).succeeded();
    }

    /// Returns a part of the output of `docker volume inspect`.
    pub fn inspect(&self, volume: &str, format: &str) -> String {
        self.run(&["volume", "inspect", "--format", format, volume]).succeeded()
    }
}

pub const IMAGE: &str = "localhost/volume-tests:1";

/// A tree with a static busybox at `root/bin/busybox`.
pub fn busybox_tree() -> TempDir {
    let place = tempfile::tempdir().expect("a temporary directory");
    let program = std::env::split_paths(&std::env::var_os("PATH").expect("PATH"))
        .map(|directory| directory.join("busybox"))
        .find(|program| program.exists())
        .expect("busybox");
    fs::create_dir_all(place.path().join("root/bin")).expect("mkdir");
    fs::copy(program, place.path().join("root/bin/busybox")).expect("cp");
    place
}

/// A dockerd for one test, which may be killed.
pub struct OwnDocker {
    pub docker: Docker,
    place: TempDir,
    child: Option<Child>,
}

impl OwnDocker {
    pub fn start() -> Self {
        Self::start_with("{}")
    }

    /// Starts it with this content of `daemon.json`.
    pub fn start_with(configuration: &str) -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        fs::write(place.path().join("daemon.json"), configuration).expect("write");
        let docker = Docker { host: format!("unix://{}", place.path().join("sock").display()) };
        let mut own = Self { docker, place, child: None };
        own.run();
        own.docker.import_busybox();
        own
    }

    /// Starts it, and again if it ends: after it was killed, its containerd may still run, and it waits for a new one
    /// in vain. Debian's unit has `Restart=always` for the same reason.
    pub fn run(&mut self) {
        let mut child = self.spawn();
        wait_until("dockerd answers", || {
            if child.try_wait().expect("dockerd is known").is_some() {
                child = self.spawn();
            }
            let mut version = Command::new("docker");
            version.env("DOCKER_HOST", &self.docker.host).arg("version");
            version.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        });
        self.child = Some(child);
    }

    fn spawn(&self) -> Child {
        let at = |name: &str| self.place.path().join(name).display().to_string();
        let log = fs::OpenOptions::new().create(true).append(true).open(at("log")).expect("a log");
        Command::new("dockerd")
            .args([
                "--config-file",
                &at("daemon.json"),
                "--data-root",
                &at("root"),
                "--exec-root",
                &at("exec"),
            ])
            .args(["--pidfile", &at("pid"), "--host", &self.docker.host])
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dockerd")
    }

    pub fn end(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            finish(Command::new("kill").args([signal, &child.id().to_string()])).succeeded();
            child.wait().expect("dockerd ends");
        }
    }
}

impl Drop for OwnDocker {
    fn drop(&mut self) {
        if self.child.is_some() {
            // After a failed test, dockerd may not respond.
            let rm = "docker ps --all --quiet | xargs --no-run-if-empty docker rm --force";
            let _ = Command::new("sh").args(["-c", rm]).env("DOCKER_HOST", &self.docker.host).output();
            if thread::panicking() {
                let log = fs::read_to_string(self.place.path().join("log")).unwrap_or_default();
                eprintln!("log of dockerd:\n{log}");
            }
        }
        self.end("-TERM");
        // The containerd of a killed dockerd continues, and the next dockerd uses it without ever ending it.
        if let Ok(pid) = fs::read_to_string(self.place.path().join("exec/containerd/containerd.pid")) {
            let _ = Command::new("kill").arg(pid.trim()).stderr(Stdio::null()).status();
        }
        let place = self.place.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if mount.starts_with(&place) {
                let _ = Command::new("umount").args(["--lazy", mount]).status();
            }
        }
    }
}

/// Waits until the condition is true.
#[track_caller]
pub fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_true() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
