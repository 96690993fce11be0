//! data-io's behaviour, without a Docker socket: by the rows of what is known about data-io 1.1.6.
//!
//! | what data-io does | proved by |
//! |---|---|
//! | secrets are variables; what broke on directories and odd names | `secrets_…`, and `data_io::secrets` in the program |
//! | neither tag nor bucket, no command: it says so | `screens::data_io::without_a_word_anywhere…` |
//! | a tag wins over a bucket; S3's pipelines | `screens::data_io::a_tag_wins…`, `…a_bucket_is_answered…` |
//! | `REGISTRY/DATA_TAG`, or `DATA_TAG` alone | both Compose files below, `data_io::tests::an_image_is_named…` |
//! | pack, push, NO_PUSH; unpack, pull, NO_PULL | `compose_…`, `the_compose_file_of_data_ios_readme…` |
//! | NO_PULL with nothing here | `compose_finds_nothing…` |
//! | half a login | `screens::data_io::half_a_login…` |
//! | a new version ends the run once; the first pull never | `compose_…`, `screens::data_io::a_new_version…` |
//! | schema 2, a base below, `/data.tar.gz` on top | `volio_unpacks_what_data_io_packed…` |
//! | busybox' archive: hard links, fifos, long names, owners | `volio_unpacks_what_data_io_packed…` |
//! | extraction merges | `volio_unpacks_what_data_io_packed…` |
//! | docker create, docker cp, tar | `data_ios_own_steps_unpack_what_volio_packed_for_it` |
//! | no colours but on a terminal | all screens |

use super::super::fixture::Directory;
use super::super::program::{Finished, finish, tool, volio};
use super::super::services::{closed_repository, credentials, docker_host, repository, requests_below};
use super::super::survey::Survey;
use super::super::volio_image::NAME;
use super::super::volume_plugin::{Docker, IMAGE as BUSYBOX};
use super::docker;
use super::image::{load, open_directory};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs a script with busybox in a container that has these volumes.
fn in_volumes(mounts: &[&str], script: &str) -> String {
    Docker::shared();
    let mut arguments = vec!["run", "--rm", "--network=none"];
    arguments.extend(mounts.iter().flat_map(|mount| ["-v", mount]));
    arguments.extend([BUSYBOX, "/bin/busybox", "sh", "-ec", script]);
    docker(&arguments).succeeded()
}

/// A Compose project with the volumes that it makes.
struct Project {
    name: &'static str,
    place: Directory,
    files: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

impl Project {
    /// Writes the file, and a second one with settings for a dockerd without a network for containers.
    fn new(name: &'static str, file: &str, version: &str) -> Self {
        load();
        let place = Directory::empty();
        let network = if version == "1" { "{net: host}" } else { "{network_mode: host}" };
        let beside = format!("data: {network}\ndata-import: {network}\ndata-export: {network}\n");
        let beside = match version {
            "1" => beside,
            _ => format!("services:\n  {}", beside.trim_end().replace('\n', "\n  ")),
        };
        fs::write(place.path().join("network.yml"), beside).expect("write");
        let files = vec![file.to_owned(), place.join("network.yml")];
        Self { name, place, files, variables: Vec::new() }
    }

    fn with(mut self, variables: &[(&'static str, String)]) -> Self {
        self.variables = variables.to_vec();
        self
    }

    /// Runs a service once.
    fn run(&self, service: &str, more: &[(&str, &str)]) -> Finished {
        let mut compose = Command::new("docker-compose");
        compose.env("DOCKER_HOST", docker_host()).env("VOLIO_IMAGE", NAME).current_dir(self.place.path());
        compose.envs(self.variables.iter().map(|(name, value)| (name, value.as_str())));
        compose.envs(more.iter().copied());
        compose.args(["--project-name", self.name]).args(self.files.iter().flat_map(|file| ["--file", file]));
        finish(compose.args(["run", "--rm", "-T", service]))
    }

    fn volume(&self, name: &str, place: &str) -> String {
        format!("{}_{name}:{place}", self.name)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let volumes = ["named-volume", "mysql-data", "store"].map(|name| format!("{}_{name}", self.name));
        let mut remove = Command::new("docker");
        remove.env("DOCKER_HOST", docker_host()).args(["volume", "rm", "--force"]).args(volumes);
        let _ = remove.output();
    }
}

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/compose/docker-compose.yml");

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn compose_moves_volumes_through_a_registry_that_wants_a_login() {
    let (user, password) = credentials();
    let image = closed_repository("compose:1");
    let (registry, tag) = image.split_once('/').expect("a registry");
    let variables = [
        ("REGISTRY", registry.to_owned()),
        ("DATA_TAG", tag.to_owned()),
        ("REGISTRY_USERNAME", user),
        ("REGISTRY_PASSWORD", password.clone()),
    ];
    let project = |name| Project::new(name, EXAMPLE, "3").with(&variables);
    let (here, there) = (project("volio-here"), project("volio-there"));
    let volumes =
        |project: &Project| [project.volume("named-volume", "/a"), project.volume("mysql-data", "/b")];
    let within = |project: &Project, script: &str| {
        let volumes = volumes(project);
        in_volumes(&volumes.each_ref().map(String::as_str), script)
    };
    within(
        &here,
        "B=/bin/busybox; echo one > /a/file; $B mkdir -p /b/db; echo rows > /b/db/t; $B chown -R 999:999 /b",
    );

    let told = here.run("data-export", &[]).succeeded();
    assert!(told.contains(&format!("{registry}/compose@sha256:")), "{told}");
    // The first import never stops, also into volumes that hold data.
    within(&there, "echo mine > /a/mine");
    there.run("data-import", &[]).succeeded();
    let state = "B=/bin/busybox; $B cat /a/* /b/db/t; $B stat -c '%u:%g %a' /b /b/db/t";
    assert_eq!(within(&there, state), "one\nmine\nrows\n999:999 755\n999:999 644");
    // The same once more, over what was changed since.
    within(&there, "echo changed > /a/file");
    there.run("data-import", &[]).succeeded();
    assert_eq!(within(&there, "/bin/busybox cat /a/file"), "one");

    // A new version ends the first run and not the second, which is another container.
    within(&here, "echo two > /a/file");
    here.run("data-export", &[]).succeeded();
    let told = there.run("data-import", &[]).failed_with(6);
    assert!(told.contains("there is a new version"), "{told}");
    assert_eq!(within(&there, "/bin/busybox cat /a/file"), "one");
    there.run("data-import", &[]).succeeded();
    assert_eq!(within(&there, "/bin/busybox cat /a/file"), "two");

    let told = there.run("data-import", &[("REGISTRY_PASSWORD", "wrong-horse")]).failed_with(5);
    assert!(!told.contains("wrong-horse") && !told.contains(&password), "{told}");
    assert_eq!(within(&there, "/bin/busybox cat /a/file"), "two");
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn compose_moves_volumes_through_the_store_without_any_registry() {
    // No registry listens there.
    let variables = [("REGISTRY", "127.0.0.1:1".to_owned()), ("NO_PUSH", "0".to_owned())];
    let project = Project::new("volio-store", EXAMPLE, "3").with(&variables);
    let volume = project.volume("named-volume", "/a");
    in_volumes(&[&volume], "echo stored > /a/file");
    let told = project.run("data-export", &[]).succeeded();
    assert!(told.contains("oci:/var/lib/volio/store@sha256:"), "{told}");
    in_volumes(&[&volume], "/bin/busybox rm /a/file");
    project.run("data-import", &[("NO_PULL", "no")]).succeeded();
    assert_eq!(in_volumes(&[&volume], "/bin/busybox cat /a/file"), "stored");
    project.run("data-import", &[]).failed_with(1);
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn compose_finds_nothing_in_an_empty_store_and_does_not_pull() {
    let project = Project::new("volio-empty", EXAMPLE, "3");
    let told = project.run("data-import", &[("NO_PULL", "1")]).failed_with(4);
    assert!(told.contains("NO_PULL is set"), "{told}");
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn the_compose_file_of_data_ios_readme_works_with_another_image_and_without_the_socket() {
    let image = repository("compose-readme:latest");
    // The format of that time, without `services`. Compose accepts no two keys of one name, so the first of its two
    // DATA_TAGs counts.
    let file = Directory::empty();
    let readme = format!(
        "data:\n  image: {NAME}\n  environment:\n    DATA_TAG: {image}\n\
         data-import:\n  extends:\n    service: data\n  command: unpack\n  volumes:\n    \
         - named-volume:/path/to/target\n    - mysql-data:/var/lib/mysql\n\
         data-export:\n  extends:\n    service: data\n  command: pack\n  volumes:\n    \
         - named-volume:/source/path/to/target:ro\n    - mysql-data:/source/var/lib/mysql:ro\n"
    );
    fs::write(file.path().join("docker-compose.yml"), readme).expect("write");
    let project = Project::new("volio-readme", &file.join("docker-compose.yml"), "1");
    // That format gives volumes no prefix.
    let mounts = ["named-volume:/a", "mysql-data:/b"];
    in_volumes(&mounts, "echo one > /a/file; echo two > /b/file");
    project.run("data-export", &[]).succeeded();
    in_volumes(&mounts, "/bin/busybox rm /a/file /b/file");
    project.run("data-import", &[]).succeeded();
    assert_eq!(in_volumes(&mounts, "/bin/busybox cat /a/file /b/file"), "one\ntwo");
    docker(&["volume", "rm", "named-volume", "mysql-data"]).succeeded();
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn secrets_of_docker_and_kubernetes_log_in_for_a_user_without_rights() {
    load();
    let (user, password) = credentials();
    let (secrets, source, target) = (open_directory(), open_directory(), open_directory());
    fs::create_dir_all(secrets.path().join("kubernetes.io/serviceaccount")).expect("mkdir");
    fs::create_dir(secrets.path().join("..data")).expect("mkdir");
    fs::write(secrets.path().join("..data/REGISTRY_PASSWORD"), format!("{password}\n")).expect("write");
    std::os::unix::fs::symlink("..data/REGISTRY_PASSWORD", secrets.path().join("REGISTRY_PASSWORD"))
        .expect("symlink");
    fs::write(secrets.path().join("my-secret"), "x").expect("write");
    fs::write(source.path().join("file"), "data\n").expect("write");
    let mount =
        |directory: &tempfile::TempDir, place: &str| format!("{}:{place}", directory.path().display());
    let mounts = [
        mount(&secrets, "/run/secrets:ro"),
        mount(&source, "/source/srv/data:ro"),
        mount(&target, "/srv/data"),
    ];
    let (tag, user) =
        (format!("DATA_TAG={}", closed_repository("secrets:1")), format!("REGISTRY_USERNAME={user}"));
    let run = |command: &str| {
        let mut arguments = vec!["run", "--rm", "--network=host", "--read-only", "--cap-drop=ALL"];
        arguments.extend(["--user=54321:0", "-e", &tag, "-e", &user, "-e", "REGISTRY_PASSWORD=wrong"]);
        arguments.extend(mounts.iter().flat_map(|mount| ["-v", mount.as_str()]));
        arguments.extend([NAME, command]);
        docker(&arguments)
    };
    run("pack").succeeded();
    run("unpack").succeeded();
    assert_eq!(fs::read_to_string(target.path().join("file")).expect("read"), "data\n");
    fs::write(source.path().join("file"), "other\n").expect("write");
    run("pack").succeeded();
    run("unpack").failed_with(6);
    run("unpack").succeeded();
    assert_eq!(fs::read_to_string(target.path().join("file")).expect("read"), "other\n");
}

/// Makes a tree as `tar` of busybox can archive it: with hard links, a fifo, owners and long names.
fn fill_as_data_io(root: &Path) {
    super::super::fixture::fill_portable(root);
    finish(Command::new("mkfifo").arg(root.join("fifo"))).succeeded();
    finish(Command::new("chown").arg("--recursive").arg("999:999").arg(root.join("directory"))).succeeded();
    super::super::fixture::settle(root);
}

/// The base of data-io's images, as far as it matters: a shell, and the command of alpine's.
fn base() -> &'static str {
    let name = "localhost/data-io-base:1";
    Docker::shared();
    let container = docker(&["create", BUSYBOX, "/bin/busybox"]).succeeded();
    docker(&["commit", "--change", "CMD [\"/bin/sh\"]", &container, name]).succeeded();
    docker(&["rm", &container]).succeeded();
    name
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn volio_unpacks_what_data_io_packed_and_fetches_the_last_layer_only() {
    let (source, place, target) = (Directory::empty(), Directory::empty(), Directory::empty());
    fill_as_data_io(source.path());
    // data-io's pack, step by step.
    let archive = place.join("data.tar.gz");
    tool("busybox", &["tar", "-zcf", &archive, "-C", source.text(), "."]);
    let container = docker(&["create", base()]).succeeded();
    docker(&["cp", &archive, &format!("{container}:/data.tar.gz")]).succeeded();
    let image = repository("made-by-data-io:1");
    docker(&["commit", &container, &image]).succeeded();
    docker(&["rm", &container]).succeeded();
    docker(&["push", &image]).succeeded();

    fs::write(target.path().join("mine"), "mine\n").expect("write");
    fs::write(target.path().join("file"), "old\n").expect("write");
    let manifest = "made-by-data-io/blobs/sha256:";
    let fetched = |line: &String| line.contains("GET") && line.contains(manifest) && line.contains("volio/");
    let before = requests_below("/v2/made-by-data-io/").into_iter().filter(fetched).count();
    let told = volio(&["unpack", "--merge", &image, target.text()]).succeeded();
    assert!(told.contains("@sha256:"));
    let after = requests_below("/v2/made-by-data-io/").into_iter().filter(fetched).count();
    assert_eq!(after - before, 2, "the configuration and the last layer, and not the base");
    assert_eq!(fs::read_to_string(target.path().join("mine")).expect("read"), "mine\n");
    fs::remove_file(target.path().join("mine")).expect("rm");
    super::super::fixture::set_mtime(target.path(), super::super::fixture::SECONDS, 0);
    Survey::of(source.path()).whole_seconds().assert_same(&Survey::of(target.path()).whole_seconds());
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn data_ios_own_steps_unpack_what_volio_packed_for_it() {
    let (source, place, target) = (Directory::empty(), Directory::empty(), Directory::empty());
    fill_as_data_io(source.path());
    let image = repository("made-for-data-io:1");
    volio(&["pack", "--format", "data-io", &image, source.text()]).succeeded();
    // data-io's unpack, step by step.
    docker(&["pull", &image]).succeeded();
    let container = docker(&["create", &image]).succeeded();
    let archive = place.join("data.tar.gz");
    docker(&["cp", &format!("{container}:/data.tar.gz"), &archive]).succeeded();
    docker(&["rm", &container]).succeeded();
    tool("busybox", &["tar", "-xzf", &archive, "-C", target.text()]);
    // busybox does not restore the times of links, and sets the times of directories before their contents.
    let clean = |root: &Path| {
        super::super::fixture::settle(root);
        Survey::of(root).whole_seconds()
    };
    clean(source.path()).assert_same(&clean(target.path()));
}
