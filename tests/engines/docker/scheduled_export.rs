//! `examples/compose/scheduled-export.yml`: a container that exports a volume by a schedule.

use super::super::fixture::Directory;
use super::super::own_image::push_volio;
use super::super::program::{Finished, finish};
use super::super::services::{closed_repository, credentials, docker_host};
use super::super::volume_plugin::{Docker, wait_until};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const PROJECT: &str = "scheduled-export";
/// The tag of an image of an earlier day.
const OLD: &str = "2020-01-01-0123abcd";

struct Example {
    place: Directory,
    program: String,
    image: String,
}

impl Example {
    fn new() -> Self {
        // Docker 20.10 knows no zstd.
        let program = push_volio("scheduled-export-volio:1", &["--compression", "gzip"]);
        let (place, image) = (Directory::empty(), closed_repository("scheduled-export:latest"));
        let (user, password) = credentials();
        let registry = image.split('/').next().expect("a host");
        let login = json!({"auths": {registry: {"username": user, "password": password}}});
        fs::write(place.path().join("auth.json"), login.to_string()).expect("write");
        // The containers of this dockerd have a network only where they have the host's.
        fs::write(place.path().join("network.yml"), "services:\n  export: {network_mode: host}\n")
            .expect("write");
        Self { place, program, image }
    }

    fn compose(&self, arguments: &[&str]) -> Finished {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/compose/scheduled-export.yml");
        let mut compose = Command::new("docker-compose");
        compose.env("DOCKER_HOST", docker_host()).env("AUTHFILE", self.place.join("auth.json"));
        compose.env("VOLIO_IMAGE", &self.program).env("IMAGE", &self.image).env("SCHEDULE", "* * * * * *");
        // The example delays each run by up to ten minutes.
        compose.env("JITTER", "0");
        compose.env("KEEP_DAILY", "1").env("KEEP_WEEKLY", "0").env("KEEP_MONTHLY", "0");
        compose.args(["--project-name", PROJECT, "--file", example, "--file"]);
        finish(compose.arg(self.place.path().join("network.yml")).args(arguments))
    }

    /// Packs an image of an earlier day, as the example tags it.
    fn plant_old(&self) {
        let tree = Directory::empty();
        fs::write(tree.path().join("old"), "old").expect("write");
        let mut pack = Command::new(env!("CARGO_BIN_EXE_volio"));
        pack.args(["pack", "--authfile", &self.place.join("auth.json"), &self.tagged(OLD), &tree.join("")]);
        finish(&mut pack).succeeded();
    }

    fn tagged(&self, tag: &str) -> String {
        let (repository, _) = self.image.rsplit_once(':').expect("a tag");
        format!("{repository}:{tag}")
    }

    fn tags(&self) -> String {
        let (repository, _) = self.image.rsplit_once(':').expect("a tag");
        let mut tags = Command::new(env!("CARGO_BIN_EXE_volio"));
        finish(tags.args(["tags", "--authfile", &self.place.join("auth.json"), repository])).succeeded()
    }

    fn has(&self, file: &str) -> bool {
        let mut list = Command::new(env!("CARGO_BIN_EXE_volio"));
        list.args(["ls", "--authfile", &self.place.join("auth.json"), &self.image]);
        String::from_utf8_lossy(&list.output().expect("volio").stdout).contains(file)
    }
}

#[test]
#[ignore = "needs docker-registry, dockerd, docker-compose and root: run tests/run"]
fn compose_exports_a_volume_by_a_schedule_and_once_more_at_the_end_and_removes_old_images() {
    let docker = Docker::shared();
    let example = Example::new();
    example.plant_old();
    example.compose(&["up", "--detach"]).succeeded();
    let volume = PathBuf::from(docker.inspect(&format!("{PROJECT}_data"), "{{.Mountpoint}}"));
    fs::write(volume.join("first"), "1").expect("write");
    wait_until("the volume is exported", || example.has("first"));
    fs::write(volume.join("second"), "2").expect("write");
    example.compose(&["stop"]).succeeded();
    let log = example.compose(&["logs", "--timestamps"]).succeeded();
    assert!(example.has("second"), "{log}");
    let tags = example.tags();
    assert!(tags.contains("latest") && !tags.contains(OLD), "{tags}{log}");
    assert!(tags.lines().any(|tag| tag != "latest"), "the dated tag: {tags}{log}");
    example.compose(&["down", "--volumes"]).succeeded();
}
