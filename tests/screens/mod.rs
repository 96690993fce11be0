//! The program as users see it: a command line, and the whole screen after it in one literal.
//!
//! These tests check the messages, hints and exit codes of errors, and that results go to stdout and everything else to
//! stderr. The work of the verbs is tested elsewhere. `SNAPSHOTS=overwrite cargo test screens`
//! rewrites the literals.

mod cat;
mod copy;
mod data_io;
mod diff;
mod doctor;
mod help;
mod help_of_commands;
mod hosts;
mod incremental;
mod inspect;
mod inspect_images;
mod login;
mod ls;
mod pack;
mod plugin;
mod progress;
mod prune;
mod registries;
mod rm;
mod signatures;
mod streams;
mod suggestions;
mod tags;
mod unpack;
mod verify;

use serde_json::{Value, json};
use snapbox::assert::DEFAULT_ACTION_ENV;
use snapbox::{Assert, IntoData};
use std::borrow::BorrowMut;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;
use volio::oci::{Digest, media_type::MANIFEST};

/// A temporary working directory, and an environment without the program's variables.
struct Workspace(TempDir);

impl Workspace {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Creates a workspace with a small tree in `tree`.
    fn with_tree() -> Self {
        let place = Self::new();
        fs::create_dir_all(place.path().join("tree/etc")).unwrap();
        fs::write(place.path().join("tree/etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::write(place.path().join("tree/hello"), "hello\n").unwrap();
        place
    }

    /// Creates one with that tree in the image `oci:layout:v1`, the same image for every user.
    fn with_image() -> Self {
        Self::with_tree().and("pack --normalize oci:layout:v1 tree")
    }

    /// Creates one with that tree in the image `oci:layout:v1` with the user's own owner, so that it can be restored.
    fn with_own_image() -> Self {
        Self::with_tree().and("pack oci:layout:v1 tree")
    }

    /// Runs a command that must succeed.
    fn and(self, arguments: &str) -> Self {
        let output = self.run(self.volio(arguments));
        assert!(output.status.success(), "{output:?}");
        self
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Edits the index of that layout.
    fn with_index(self, edit: impl FnOnce(&mut Value)) -> Self {
        let path = self.path().join("layout/index.json");
        let mut index = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut index);
        fs::write(&path, index.to_string()).unwrap();
        self
    }

    /// Writes a blob into that layout, and returns its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.path().join("layout/blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    /// Adds an artifact to that layout under the tag `chart`. Each layer is a media type, a title and its bytes.
    fn with_artifact(self, kind: &str, layers: &[(&str, Option<&str>, &[u8])]) -> Self {
        let config = self.blob(kind, b"{}");
        let layers: Vec<Value> = layers
            .iter()
            .map(|(media_type, title, bytes)| {
                let mut layer = self.blob(media_type, bytes);
                if let Some(title) = title {
                    layer["annotations"] = json!({"org.opencontainers.image.title": title});
                }
                layer
            })
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut entry = self.blob(MANIFEST, manifest.to_string().as_bytes());
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": "chart"});
        self.with_index(|index| index["manifests"].as_array_mut().unwrap().push(entry))
    }

    /// Returns the files of the blobs of that layout.
    fn blobs(&self) -> Vec<PathBuf> {
        fs::read_dir(self.path().join("layout/blobs/sha256"))
            .unwrap()
            .map(|blob| blob.unwrap().path())
            .collect()
    }

    /// Returns a command that runs here; arguments are separated by spaces.
    fn volio(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
        command
            .args(arguments.split_whitespace())
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .env("COLUMNS", "100")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, mut command: impl BorrowMut<Command>) -> Output {
        command.borrow_mut().output().unwrap()
    }

    /// Runs a command line and returns its screen.
    fn screen(&self, arguments: &str) -> String {
        self.screen_of(self.volio(arguments))
    }

    /// Runs a command and returns its screen: stdout, stderr and the exit code, with placeholders for this directory, digests
    /// and times.
    fn screen_of(&self, command: Command) -> String {
        let output = self.run(command);
        let mut screen = String::from_utf8(output.stdout).unwrap();
        if !output.stderr.is_empty() {
            screen.push_str("-- stderr\n");
            screen.push_str(&String::from_utf8(output.stderr).unwrap());
        }
        screen.push_str(&format!("-- exit {}\n", output.status.code().unwrap()));
        without_times(&without_digests(&screen.replace(self.path().to_str().unwrap(), "/place")))
    }
}

/// Fails unless the screen is the expected one. Unlike snapbox's own macro, it takes no backslash for a slash.
#[track_caller]
fn assert_screen(screen: String, expected: impl IntoData) {
    Assert::new().action_env(DEFAULT_ACTION_ENV).normalize_paths(false).eq(screen, expected);
}

/// Replaces the time and the rate in the summary line.
fn without_times(text: &str) -> String {
    let sums_up = |line: &str| {
        let verbs = ["packed ", "dry run: packed ", "unpacked ", "copied ", "verified "];
        verbs.iter().any(|verb| line.starts_with(verb)) && !line.starts_with("packed in full")
    };
    text.split_inclusive('\n')
        .map(|line| match line.split_once(" in ").filter(|_| sums_up(line)) {
            Some((what, rest)) => {
                let rest = rest.find([';', '\n']).map_or("", |end| &rest[end..]);
                format!("{what} in [TIME]{rest}")
            }
            None => line.to_owned(),
        })
        .collect()
}

/// Replaces each digest. Digests change with the format, and are tested elsewhere.
fn without_digests(text: &str) -> String {
    let mut parts = text.split("sha256:");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_hexdigit).count();
        clean.push_str("sha256:");
        clean.push_str(match digits {
            64 => "[DIGEST]",
            12 => "[SHORT-HASH]",
            _ => &part[..digits],
        });
        clean.push_str(&part[digits..]);
    }
    clean
}
