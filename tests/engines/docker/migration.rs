//! The section "From `docker run … tar`" of `docs/migration.md`: every line that it recommends is run as it is written.

use crate::engines::fixture::Directory;
use crate::engines::own_image::push_volio;
use crate::engines::program::finish;
use crate::engines::services::repository;
use crate::engines::survey::Survey;
use crate::engines::volume_plugin::Docker;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the commands in the second column of the section's table.
fn new_lines() -> Vec<String> {
    let page = fs::read_to_string("docs/migration.md").expect("the page");
    let (_, section) = page.split_once("## From `docker run … tar`").expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| ") && line.ends_with("` |"));
    let second =
        |row: &str| row.rsplit_once(" | `").expect("two columns").1.trim_end_matches("` |").to_owned();
    rows.map(second).collect()
}

/// Returns the directory of a volume.
fn volume(docker: &Docker, name: &str) -> PathBuf {
    docker.inspect(name, "{{.Mountpoint}}").into()
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn migration_from_docker_run_tar_works_as_it_is_written() {
    let docker = Docker::shared();
    // Docker 20.10 knows no zstd.
    push_volio("volio:v1", &["--compression", "gzip"]);
    let (source, place) = (Directory::filled(), Directory::empty());
    let volumes = ["photos", "restored", "arrived"];
    docker.run(&["volume", "create", "photos"]).succeeded();
    let photos = volume(&docker, "photos");
    finish(Command::new("cp").arg("-a").arg(source.path().join(".")).arg(&photos)).succeeded();
    fs::create_dir(photos.join("summer")).expect("mkdir");
    fs::write(photos.join("summer/lake"), "blue").expect("write");

    // The containers of this dockerd have a network only where they have the host's.
    let bin = place.path().join("bin");
    fs::create_dir(&bin).expect("mkdir");
    let script = "#!/bin/sh\nPATH=${PATH#*:}\n[ \"$1\" != run ] || { shift; set -- run --network=host \"$@\"; }\nexec docker \"$@\"\n";
    fs::write(bin.join("docker"), script).expect("write");
    fs::set_permissions(bin.join("docker"), fs::Permissions::from_mode(0o755)).expect("chmod");
    symlink(env!("CARGO_BIN_EXE_volio"), bin.join("volio")).expect("symlink");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("PATH"));
    let lines = new_lines();
    assert_eq!(lines.len(), 9, "{lines:#?}");
    let registry = repository("").trim_end_matches('/').to_owned();
    for line in &lines {
        let mut shell = Command::new("sh");
        shell.args(["-ec", &line.replace("registry.example", &registry)]).current_dir(place.path());
        let said = finish(shell.env("PATH", &path).env("DOCKER_HOST", &docker.host)).succeeded();
        match line {
            line if line.starts_with("volio ls") => assert!(said.contains("/summer/lake"), "{said}"),
            line if line.contains(" pack ") => assert!(said.contains("@sha256:"), "{said}"),
            _ => {}
        }
    }
    let expected = Survey::of(&photos);
    for copy in ["restored", "arrived"] {
        // The state that volio keeps on its target does not belong to the tree.
        let copy = volume(&docker, copy);
        let _ = rustix::fs::removexattr(&copy, "user.volio.image");
        expected.assert_same(&Survey::of(&copy));
    }
    assert_eq!(read(&place.path().join("summer/lake")), "blue");
    docker.run(&[&["volume", "rm"][..], &volumes].concat()).succeeded();
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a file")
}
