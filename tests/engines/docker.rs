//! dockerd 20.10, the oldest Docker in wide use: it knows no zstd, so its users pack with gzip.

mod data_io;
mod image;
mod migration;
mod nightly_export;
mod scheduled_export;
mod soak;
mod volumes;
mod volumes_exports;
mod volumes_restart;
mod volumes_volmex;

use std::process::{Command, Stdio};

use super::fixture::Directory;
use super::program::{Finished, finish, volio};
use super::services::{docker_host, repository};
use super::survey::Survey;

pub fn docker(arguments: &[&str]) -> Finished {
    finish(Command::new("docker").env("DOCKER_HOST", docker_host()).args(arguments))
}

/// The tree at `/srv/data` of an image, in `data`.
pub fn docker_gives_out(image: &str) -> Directory {
    let target = Directory::empty();
    let container = docker(&["create", image]).succeeded();
    let mut archive = Command::new("docker")
        .env("DOCKER_HOST", docker_host())
        .args(["cp", &format!("{container}:/srv/data"), "-"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("docker cp");
    let stream = archive.stdout.take().expect("a pipe");
    let extract =
        ["--extract", "--xattrs", "--xattrs-include=*", "--same-owner", "--same-permissions", "--directory"];
    finish(Command::new("tar").args(extract).arg(target.path()).stdin(stream)).succeeded();
    assert!(archive.wait().expect("docker cp").success());
    docker(&["rm", &container]).succeeded();
    target
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn docker_pulls_a_gzip_image_and_gives_its_tree_out_again() {
    let source = Directory::filled();
    let image = repository("docker-pull:1");
    let at = format!("{}:/srv/data", source.text());
    let digest = volio(&["pack", &image, &at, "--compression", "gzip"]).digest();

    assert!(
        docker(&["pull", &image]).succeeded().contains(&digest),
        "docker must see the digest that volio printed"
    );
    // No command is given, so the image has to bring one.
    let target = docker_gives_out(&image);

    // The archive that `docker cp` writes has whole seconds and, of the xattrs, only capabilities.
    let expected = Survey::of(source.path()).whole_seconds().without_xattrs("user.");
    expected.assert_same(&Survey::of(&target.path().join("data")).whole_seconds());
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn docker_shows_the_labels_and_platform_of_an_image() {
    let source = Directory::filled();
    let image = repository("docker-inspect:1");
    volio(&["pack", &image, source.text(), "--compression", "gzip", "--label", "made.by=a test"]).succeeded();

    docker(&["pull", &image]).succeeded();
    let format = r#"{{.Os}}/{{.Architecture}} {{index .Config.Labels "made.by"}}"#;
    assert_eq!(docker(&["image", "inspect", "--format", format, &image]).succeeded(), "linux/amd64 a test");
}

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn docker_loads_several_images_from_an_archive_and_volio_reads_what_docker_saves() {
    let (source, place) = (Directory::filled(), Directory::empty());
    let archive = place.join("a.tar");
    let name = |tag: &str| format!("docker-archive:{archive}:host.example/docker-load:{tag}");
    // Packed, and converted from an image that docker 20.10 could not pull: zstd, for two platforms.
    let packed = volio(&["pack", &name("packed"), &format!("{}:/srv/data", source.text())]).digest();
    let layout = format!("oci:{}:v1", place.join("layout"));
    volio(&["pack", &layout, &format!("{}:/srv/data", source.text()), "--label", "a=b"]).succeeded();
    volio(&["copy", &layout, &name("copied")]).succeeded();

    docker(&["load", "--input", &archive]).succeeded();
    for tag in ["packed", "copied"] {
        let image = format!("host.example/docker-load:{tag}");
        let given = docker_gives_out(&image);
        let expected = Survey::of(source.path()).whole_seconds().without_xattrs("user.");
        expected.assert_same(&Survey::of(&given.path().join("data")).whole_seconds());

        let saved = place.join(&format!("{tag}.tar"));
        docker(&["save", "--output", &saved, &image]).succeeded();
        let target = Directory::empty();
        volio(&["unpack", &format!("docker-archive:{saved}:{image}"), target.text()]).succeeded();
        // docker stores the files, and writes the same archive of a layer again.
        Survey::of(source.path()).assert_same(&Survey::of(&target.path().join("srv/data")));
    }
    let again = format!("docker-archive:{}", place.join("again.tar"));
    let saved = format!("docker-archive:{}", place.join("packed.tar"));
    assert_eq!(
        volio(&["copy", &saved, &again]).digest(),
        packed,
        "the image is the same, and so is its digest"
    );
}
