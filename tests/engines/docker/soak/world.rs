//! The resources that all threads of the soak test share: the journal, the engine, the registry, and the network before
//! it.

use super::network::Network;
use super::tree::{self, Tree};
use crate::engines::program::{tool, volio};
use crate::engines::services::{registry_storage, repository};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The number of journal lines in a report.
const LINES: usize = 30;

pub struct World {
    pub docker_host: String,
    pub network: Network,
    /// The storage of the plugin.
    pub storage: PathBuf,
    /// The journals of containers, hooks, and other files that must not be on a full disk.
    pub place: PathBuf,
    pub plugin_log: PathBuf,
    /// The beginning of the names of all images.
    pub repository: String,
    /// The beginning of the names of all containers.
    pub prefix: String,
    begun: Instant,
    stop: AtomicBool,
    containers: AtomicU64,
    lines: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<String, u64>>,
    findings: Mutex<Vec<String>>,
    trees: Mutex<HashMap<String, Tree>>,
}

impl World {
    pub fn new(docker_host: String, storage: PathBuf, place: PathBuf, plugin_log: PathBuf) -> Self {
        let prefix = format!("soak-{}", std::process::id());
        let direct = repository("");
        Self {
            docker_host,
            network: Network::to(direct.trim_end_matches('/')),
            storage,
            place,
            plugin_log,
            repository: prefix.clone(),
            prefix,
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            containers: AtomicU64::new(0),
            lines: Mutex::default(),
            counts: Mutex::default(),
            findings: Mutex::default(),
            trees: Mutex::default(),
        }
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Sleeps, but not past the end of the test.
    pub fn pause(&self, milliseconds: u64) {
        let until = Instant::now() + Duration::from_millis(milliseconds);
        while Instant::now() < until && !self.is_over() {
            thread::sleep(Duration::from_millis(milliseconds.min(50)));
        }
    }

    /// A name for a container.
    pub fn container(&self) -> String {
        format!("{}-{}", self.prefix, self.containers.fetch_add(1, Ordering::Relaxed))
    }

    // ------------------------------------------------------------------------------------------------ the journal

    pub fn note(&self, who: &str, what: &str) {
        let line = format!("{:8.2} {who}: {what}", self.begun.elapsed().as_secs_f64());
        self.lines.lock().unwrap().push(line);
    }

    pub fn count(&self, what: &str) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    pub fn counts(&self) -> String {
        let counts = self.counts.lock().unwrap();
        let lines: Vec<String> = counts.iter().map(|(what, count)| format!("{count:6} {what}")).collect();
        lines.join("\n")
    }

    /// Records an error, with the events before it.
    pub fn finding(&self, who: &str, what: &str, wrong: &[String]) {
        self.note(who, &format!("FINDING: {what}"));
        let lines = self.lines.lock().unwrap();
        // Lines about other volumes are included, but not all.
        let all: Vec<&str> = lines.iter().map(String::as_str).collect();
        let own: Vec<&str> = all.iter().copied().filter(|line| line.contains(&format!(" {who}: "))).collect();
        let log = fs::read_to_string(&self.plugin_log).unwrap_or_default();
        let (said, others): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| line.starts_with(who));
        let others: Vec<&str> = others.into_iter().filter(|line| !line.starts_with("soak-")).collect();
        let text = format!(
            "{who}: {what}\n{}\n-- the same volume\n{}\n-- all\n{}\n-- the plugin of it\n{}\n-- the plugin\n{}\n-- status\n{}\n",
            wrong.join("\n"),
            last(&own).join("\n"),
            last(&all).join("\n"),
            last(&said).join("\n"),
            last(&others).join("\n"),
            self.status(who)
        );
        drop(lines);
        eprintln!("FINDING {text}");
        self.findings.lock().unwrap().push(text);
    }

    pub fn findings(&self) -> Vec<String> {
        self.findings.lock().unwrap().clone()
    }

    // ------------------------------------------------------------------------------------------------- the engine

    /// Runs docker. Returns if it succeeded, and its output.
    pub fn docker(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new("timeout")
            .args(["--kill-after=5", "200", "docker"])
            .args(arguments)
            .env("DOCKER_HOST", &self.docker_host)
            .stdin(Stdio::null())
            .output()
            .expect("timeout");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
    }

    /// Removes a container, with retries.
    pub fn remove(&self, container: &str) {
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            let (is_done, said) = self.docker(&["rm", "--force", container]);
            if is_done || said.contains("No such container") {
                return;
            }
            if Instant::now() > deadline {
                self.finding(container, "a container cannot be removed", &[said]);
                return;
            }
            thread::sleep(Duration::from_millis(300));
        }
    }

    pub fn status(&self, volume: &str) -> String {
        self.docker(&["volume", "inspect", "--format", "{{json .Status}}", volume]).1
    }

    // ----------------------------------------------------------------------------------------------- the registry

    /// Returns the name of the image for the plugin: through the network proxy.
    pub fn distant(&self, image: &str) -> String {
        format!("{}/{}/{image}", self.network.host, self.repository)
    }

    /// Puts an image into the registry.
    pub fn publish(&self, image: &str, files: &[(String, Vec<u8>)]) {
        let tree = tempfile::tempdir_in(&self.place).unwrap();
        for (path, content) in files {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let image = repository(&format!("{}/{image}", self.repository));
        volio(&["pack", &image, tree.path().to_str().unwrap()]).succeeded();
    }

    /// Returns the content of an image, if it exists.
    pub fn fetch(&self, image: &str) -> Option<Tree> {
        let (name, tag) = image.split_once(':').unwrap();
        let link = self.tags(name).join(tag).join("current/link");
        let digest = fs::read_to_string(link).ok()?;
        Some(self.fetch_digest(name, digest.trim()))
    }

    /// Returns every content that the name of an image has had.
    pub fn history(&self, image: &str) -> Vec<Tree> {
        let (name, tag) = image.split_once(':').unwrap();
        let index = self.tags(name).join(tag).join("index/sha256");
        let Ok(entries) = fs::read_dir(index) else { return vec![] };
        let digests = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        digests.map(|hex| self.fetch_digest(name, &format!("sha256:{hex}"))).collect()
    }

    /// Returns the directory in which the registry stores tags.
    fn tags(&self, name: &str) -> PathBuf {
        let repositories = registry_storage().join("docker/registry/v2/repositories");
        repositories.join(&self.repository).join(name).join("_manifests/tags")
    }

    /// Fetches with skopeo and extracts with tar.
    fn fetch_digest(&self, name: &str, digest: &str) -> Tree {
        if let Some(known) = self.trees.lock().unwrap().get(digest) {
            return known.clone();
        }
        let image = repository(&format!("{}/{name}@{digest}", self.repository));
        let place = tempfile::tempdir_in(&self.place).unwrap();
        let at = |name: &str| place.path().join(name).display().to_string();
        let to = format!("dir:{}", at("image"));
        let copy = ["copy", "--quiet", "--src-tls-verify=false", "--dest-decompress"];
        tool("skopeo", &[&copy[..], &[&format!("docker://{image}"), &to]].concat());
        let manifest = fs::read(place.path().join("image/manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        fs::create_dir(at("tree")).unwrap();
        for layer in manifest["layers"].as_array().unwrap() {
            let blob = layer["digest"].as_str().unwrap().trim_start_matches("sha256:");
            let blob = at(&format!("image/{blob}"));
            tool("tar", &["--extract", "--same-owner", "-p", "--file", &blob, "--directory", &at("tree")]);
        }
        let tree = tree::read(Path::new(&at("tree"))).unwrap();
        self.trees.lock().unwrap().insert(digest.to_owned(), tree.clone());
        tree
    }
}

fn last<'a, 'b>(lines: &'a [&'b str]) -> &'a [&'b str] {
    &lines[lines.len().saturating_sub(LINES)..]
}
