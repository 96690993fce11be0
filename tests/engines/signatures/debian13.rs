//! skopeo and podman of Debian 13, run by `chroot` in the tree that `tests/run` has made.

use std::fs;
use std::process::Command;

use crate::engines::fixture::Directory;
use crate::engines::program::{Finished, finish};
use crate::engines::services::debian13;
use serde_json::{Value, json};

/// The programs, with a home directory that has their configuration and their storage. It is at the same path inside the tree.
pub struct Debian13 {
    home: Directory,
}

impl Debian13 {
    /// Creates a configuration that reads signatures and writes them, and accepts any image.
    pub fn new() -> Self {
        let home = Directory::empty();
        let configuration = home.path().join(".config/containers");
        fs::create_dir_all(configuration.join("registries.d")).expect("mkdir");
        let attachments = "default-docker:\n  use-sigstore-attachments: true\n";
        fs::write(configuration.join("registries.d/all.yaml"), attachments).expect("write");
        let storage = "[storage]\ndriver = \"vfs\"\n";
        fs::write(home.path().join("storage.conf"), storage).expect("write");
        // Locks in files rather than in shared memory, which other podmans have too.
        let tmp = home.join("tmp");
        let engine =
            format!("[engine]\nlock_type = \"file\"\nevents_logger = \"none\"\ntmp_dir = \"{tmp}\"\n");
        fs::write(home.path().join("containers.conf"), engine).expect("write");
        let programs = Self { home };
        programs.require(&json!({ "type": "insecureAcceptAnything" }));
        programs
    }

    /// A path for a file that the programs read or write.
    pub fn file(&self, name: &str) -> String {
        self.home.join(name)
    }

    /// Copies a public key to where the programs find it. Returns its path.
    pub fn key(&self, public: &str) -> String {
        let (_, name) = public.rsplit_once('/').expect("an absolute path");
        fs::copy(public, self.file(name)).expect("copy");
        self.file(name)
    }

    /// Writes the policy that has one requirement for all registries. Returns its path.
    pub fn require(&self, requirement: &Value) -> String {
        let policy = json!({
            "default": [{ "type": "reject" }],
            "transports": {
                "docker": { "": [requirement] },
                "dir": { "": [{ "type": "insecureAcceptAnything" }] },
                "oci": { "": [{ "type": "insecureAcceptAnything" }] },
            },
        });
        let path = self.file(".config/containers/policy.json");
        fs::write(&path, policy.to_string()).expect("write");
        path
    }

    /// Runs `skopeo ARGUMENTS…`.
    pub fn skopeo(&self, arguments: &[&str]) -> Finished {
        self.run("skopeo", arguments)
    }

    /// Copies an image between registries with skopeo.
    pub fn copy(&self, options: &[&str], from: &str, to: &str) -> Finished {
        let (from, to) = (format!("docker://{from}"), format!("docker://{to}"));
        let plain = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        self.skopeo(&[&plain, options, &[&from, &to]].concat())
    }

    /// Copies a whole image with `skopeo copy --all` and drops it.
    pub fn fetch_all(&self, image: &str) -> Finished {
        let to = Directory::empty();
        let (from, to) = (format!("docker://{image}"), format!("dir:{}", to.text()));
        self.skopeo(&["copy", "--all", "--src-tls-verify=false", &from, &to])
    }

    /// Fetches the image for one architecture with skopeo, and pulls it with podman.
    fn fetch(&self, image: &str, architecture: &str) -> [Finished; 2] {
        let to = Directory::empty();
        let (from, to) = (format!("docker://{image}"), format!("dir:{}", to.text()));
        let wanted = ["--override-os=linux", "--override-arch", architecture];
        let copied = self.skopeo(&[&wanted[..], &["copy", "--src-tls-verify=false", &from, &to]].concat());
        let (root, run) = (self.file("root"), self.file("run"));
        let storage = ["--root", &root, "--runroot", &run];
        let pull = ["pull", "--quiet", "--tls-verify=false", "--os=linux", "--arch", architecture, image];
        [copied, self.run("podman", &[&storage[..], &pull].concat())]
    }

    /// Expects that both programs accept an image for this architecture.
    pub fn accept(&self, requirement: &Value, image: &str, architecture: &str) {
        self.require(requirement);
        for finished in self.fetch(image, architecture) {
            finished.succeeded();
        }
    }

    /// Expects that both programs refuse an image for this architecture, and give this reason.
    pub fn refuse(&self, requirement: &Value, image: &str, architecture: &str, reason: &str) {
        self.require(requirement);
        let [skopeo, podman] = self.fetch(image, architecture);
        for shown in [skopeo.failed_with(1), podman.failed_with(125)] {
            assert!(shown.contains("Source image rejected") && shown.contains(reason), "{reason}: {shown}");
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Finished {
        let mut command = Command::new("chroot");
        command.arg(debian13()).arg(program).args(arguments).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.home.path());
        for (name, file) in
            [("CONTAINERS_STORAGE_CONF", "storage.conf"), ("CONTAINERS_CONF", "containers.conf")]
        {
            command.env(name, self.file(file));
        }
        finish(&mut command)
    }
}
