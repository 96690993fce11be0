//! dockerd 20.10, the oldest Docker in wide use: it knows no zstd, so its users pack with gzip.

use std::process::{Command, Stdio};

use super::fixture::Directory;
use super::program::{Finished, finish, volio};
use super::services::{docker_host, repository};
use super::survey::Survey;

fn docker(arguments: &[&str]) -> Finished {
    finish(Command::new("docker").env("DOCKER_HOST", docker_host()).args(arguments))
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn docker_pulls_a_gzip_image_and_gives_its_tree_out_again() {
    let (source, target) = (Directory::filled(), Directory::empty());
    let image = repository("docker-pull:1");
    let at = format!("{}:/srv/data", source.text());
    let digest = volio(&["pack", &image, &at, "--compression", "gzip"]).digest();

    assert!(
        docker(&["pull", &image]).succeeded().contains(&digest),
        "docker must see the digest that volio printed"
    );
    // No command is given, so the image has to bring one.
    let container = docker(&["create", &image]).succeeded();
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
