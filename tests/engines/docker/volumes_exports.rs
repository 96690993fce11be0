//! Exports of volumes that an engine mounts without a container, or long before one.

use crate::engines::program::{tool, volio};
use crate::engines::services::repository;
use crate::engines::volume_plugin::{Docker, Plugin, busybox_tree, wait_until};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

/// An image that has a directory where containers get a volume: dockerd mounts the volume when such a container is
/// made, in order to copy what the image has there into it, with the owner and the mode of the directory.
const WITH_DIRECTORY: &str = "localhost/volume-tests-directory:1";

fn import_with_directory(docker: &Docker, files: &[(&str, &str)]) {
    let place = busybox_tree();
    let root = place.path().join("root");
    fs::create_dir(root.join("data")).unwrap();
    chown(root.join("data"), Some(1000), Some(1000)).unwrap();
    fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o770)).unwrap();
    for (name, content) in files {
        fs::write(root.join("data").join(name), content).unwrap();
    }
    let archive = place.path().join("tar").display().to_string();
    tool("tar", &["--create", "--file", &archive, "--directory", root.to_str().unwrap(), "."]);
    docker.run(&["import", &archive, WITH_DIRECTORY]).succeeded();
}

/// The digest of an image in the registry, as another client sees it.
fn digest(image: &str) -> String {
    let image = format!("docker://{image}");
    tool("skopeo", &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &image])
}

fn pack(image: &str, files: &[(&str, &str)]) {
    let tree = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(tree.path().join(name), content).unwrap();
    }
    volio(&["pack", image, tree.path().to_str().unwrap()]).succeeded();
}

fn file(image: &str, name: &str) -> Option<String> {
    let target = tempfile::tempdir().unwrap();
    volio(&["unpack", image, target.path().to_str().unwrap()]).succeeded();
    fs::read_to_string(target.path().join(name)).ok()
}

#[test]
#[ignore = "needs docker-registry, dockerd, skopeo and root: run tests/run"]
fn docker_create_leaves_the_image_that_was_exported_yesterday_as_it_is() {
    let _plugin = Plugin::for_docker(&[]);
    let docker = Docker::shared();
    import_with_directory(&docker, &[]);
    let export = repository("volumes-yesterday:v1");
    pack(&export, &[("result", "of yesterday")]);
    let before = digest(&export);
    let name = format!("vol-yesterday-{}", std::process::id());
    docker.run(&["volume", "create", "-d", "volio", "-o", &format!("export={export}"), &name]).succeeded();
    let mount = format!("{name}:/data");
    let create = ["create", "--network=none", "--volume", &mount, WITH_DIRECTORY, "/bin/busybox", "true"];
    let container = docker.run(&create).succeeded();
    assert_eq!(digest(&export), before, "after docker create");
    // A container that writes nothing changes nothing either.
    docker.run(&["start", "--attach", &container]).succeeded();
    wait_until("it is unmounted", || docker.inspect(&name, "{{.Status.mounts}}") == "map[]");
    wait_until("nothing is due", || docker.inspect(&name, "{{.Status.exportDue}}") == "<no value>");
    docker.run(&["rm", &container]).succeeded();
    assert_eq!(digest(&export), before, "after docker rm");
    docker.run(&["volume", "rm", &name]).succeeded();
    assert_eq!(digest(&export), before, "after docker volume rm");
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn what_docker_create_copies_into_an_empty_volume_is_exported() {
    let _plugin = Plugin::for_docker(&[]);
    let docker = Docker::shared();
    import_with_directory(&docker, &[("copied", "from the container's image")]);
    let export = repository("volumes-copied-up:v1");
    pack(&export, &[("result", "of yesterday")]);
    let name = format!("vol-copied-up-{}", std::process::id());
    docker.run(&["volume", "create", "-d", "volio", "-o", &format!("export={export}"), &name]).succeeded();
    let mount = format!("{name}:/data");
    let create = ["create", "--network=none", "--volume", &mount, WITH_DIRECTORY, "/bin/busybox", "true"];
    let container = docker.run(&create).succeeded();
    wait_until("it is exported", || docker.inspect(&name, "{{.Status.lastExport}}").contains("sha256:"));
    assert_eq!(file(&export, "copied").as_deref(), Some("from the container's image"));
    docker.run(&["rm", &container]).succeeded();
    docker.run(&["volume", "rm", &name]).succeeded();
}

/// Takes 70 seconds: dockerd serves no other call while it waits for the container's other volume.
#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn what_a_container_writes_that_waited_for_its_other_volume_is_exported() {
    let plugin = Plugin::for_docker(&[]);
    let docker = Docker::shared();
    // dockerd mounts the volumes of a container in any order: the second one has to wait.
    let hook = plugin.path("hook");
    let text = format!("#!/bin/sh\nmkdir {} 2>/dev/null || sleep 67\n", plugin.path("first").display());
    fs::write(&hook, text).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let image = repository("volumes-gap:input");
    pack(&image, &[("input", "one")]);
    let names = ["one", "two"].map(|volume| format!("vol-gap-{volume}-{}", std::process::id()));
    let exports = ["one", "two"].map(|volume| repository(&format!("volumes-gap:{volume}")));
    for (name, export) in names.iter().zip(&exports) {
        let options = [
            format!("image={image}"),
            format!("export={export}"),
            format!("pre-mount={}", hook.display()),
            "pull=always".to_owned(),
            "policy=replace".to_owned(),
        ];
        let options: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
        docker.run(&[&["volume", "create", "-d", "volio"], &options[..], &[name]].concat()).succeeded();
    }
    let mounts = [format!("{}:/one", names[0]), format!("{}:/two", names[1])];
    let options = ["--rm", "--volume", &mounts[0], "--volume", &mounts[1]];
    docker.container(&options, "echo written >/one/result; echo written >/two/result").succeeded();
    for (name, export) in names.iter().zip(&exports) {
        wait_until("it is unmounted", || docker.inspect(name, "{{.Status.mounts}}") == "map[]");
        wait_until("nothing is due", || docker.inspect(name, "{{.Status.exportDue}}") == "<no value>");
        assert_eq!(docker.inspect(name, "{{.Status.lastExport.image}}"), *export);
        assert_eq!(file(export, "result").as_deref(), Some("written\n"));
        docker.run(&["volume", "rm", name]).succeeded();
    }
}
