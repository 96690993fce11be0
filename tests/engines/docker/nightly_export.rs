//! `examples/compose/nightly-export.yml`: a volume that is exported each night and restored from a night.

use super::super::fixture::Directory;
use super::super::own_image::push_volio;
use super::super::program::{Finished, finish};
use super::super::services::{closed_repository, credentials, docker_host};
use super::super::volume_plugin::Docker;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const VOLUME: &str = "nightly-export-data";

/// The example, with the credentials of the registry that requires them.
struct Example {
    place: Directory,
    program: String,
    image: String,
}

impl Example {
    fn new() -> Self {
        // Docker 20.10 knows no zstd.
        let program = push_volio("nightly-export-volio:1", &["--compression", "gzip"]);
        let (place, image) = (Directory::empty(), closed_repository("nightly-export:nightly"));
        let (user, password) = credentials();
        let registry = image.split('/').next().expect("a host");
        let login = json!({"auths": {registry: {"username": user, "password": password}}});
        fs::create_dir(place.path().join(".docker")).expect("mkdir");
        fs::write(place.path().join(".docker/config.json"), login.to_string()).expect("write");
        // The containers of this dockerd have a network only where they have the host's.
        let network = "services:\n  export: {network_mode: host}\n  restore: {network_mode: host}\n";
        fs::write(place.path().join("network.yml"), network).expect("write");
        Self { place, program, image }
    }

    fn run(&self, service: &str, image: &str) -> Finished {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/compose/nightly-export.yml");
        let mut compose = Command::new("docker-compose");
        compose.env("DOCKER_HOST", docker_host()).env("HOME", self.place.text());
        compose.env("VOLIO_IMAGE", &self.program).env("IMAGE", image).env("VOLUME", VOLUME);
        compose.args(["--project-name", "nightly-export", "--file", example, "--file"]);
        finish(compose.arg(self.place.path().join("network.yml")).args(["run", "--rm", "-T", service]))
    }

    /// Exports the volume. Returns the image with its digest.
    fn night(&self) -> String {
        let output = self.run("export", &self.image).succeeded();
        output.lines().last().expect("the image").to_owned()
    }

    fn layers(&self, image: &str) -> usize {
        let mut inspect = Command::new(env!("CARGO_BIN_EXE_volio"));
        inspect.env("DOCKER_CONFIG", self.place.join(".docker")).args(["inspect", "--format", "json", image]);
        let inspected: Value = serde_json::from_str(&finish(&mut inspect).succeeded()).expect("JSON");
        inspected["images"][0]["layers"].as_array().unwrap_or_else(|| panic!("{inspected:#}")).len()
    }
}

#[test]
#[ignore = "needs docker-registry, dockerd, docker-compose and root: run tests/run"]
fn compose_exports_what_changed_each_night_and_restores_a_night() {
    let docker = Docker::shared();
    let example = Example::new();
    docker.run(&["volume", "create", VOLUME]).succeeded();
    let volume = PathBuf::from(docker.inspect(VOLUME, "{{.Mountpoint}}"));
    let noise: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(volume.join("kept"), noise).expect("write");
    fs::write(volume.join("changed"), "monday").expect("write");

    let monday = example.night();
    assert_eq!(example.night(), monday, "nothing changed, so there is no new image");
    fs::write(volume.join("changed"), "tuesday").expect("write");
    fs::write(volume.join("new"), "new").expect("write");
    let tuesday = example.night();
    assert_eq!((example.layers(&monday), example.layers(&tuesday)), (1, 2));

    fs::remove_file(volume.join("kept")).expect("rm");
    for (image, content) in [(example.image.as_str(), "tuesday"), (&monday, "monday"), (&tuesday, "tuesday")]
    {
        example.run("restore", image).succeeded();
        assert_eq!(fs::read_to_string(volume.join("changed")).expect("a file"), content, "{image}");
        assert_eq!(volume.join("new").exists(), content == "tuesday", "{image}");
        assert_eq!(fs::metadata(volume.join("kept")).expect("the file").len(), 1_000_000);
    }
    // A volume that was emptied is not exported over the last night.
    for name in ["kept", "changed", "new"] {
        fs::remove_file(volume.join(name)).expect("rm");
    }
    let told = example.run("export", &example.image).failed_with(6);
    assert!(told.contains("--allow-shrink"), "{told}");
    docker.run(&["volume", "rm", VOLUME]).succeeded();
}
