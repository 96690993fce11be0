//! The pods of `examples/kubernetes`, run by podman: as unknown users, without capabilities, on read-only roots.
//! volio packs the images that they run.

use super::push_busybox;
use crate::engines::fixture::Directory;
use crate::engines::own_image::push_volio;
use crate::engines::program::{Finished, finish, volio};
use crate::engines::services::{closed_repository, credentials, repository, requests_below};
use crate::kubernetes::{Object, containers, read};
use k8s_openapi::api::core::v1::Container;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::Command;

/// A podman with a separate storage.
struct Podman {
    work: Directory,
}

impl Podman {
    fn start() -> Self {
        let work = Directory::empty();
        let podman = Self { work };
        let given = |variable: &str| {
            let file =
                std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run tests/run"));
            fs::read_to_string(file).expect("its file")
        };
        let engine = format!("[engine]\ninfra_image = \"{PAUSE}\"");
        let tmp = format!("tmp_dir = \"{}", podman.work.join("state"));
        let configuration = given("CONTAINERS_CONF").replace("[engine]", &engine);
        let configuration: Vec<String> = configuration
            .lines()
            .map(|line| if line.starts_with("tmp_dir") { format!("{tmp}/tmp\"") } else { line.to_owned() })
            .collect();
        fs::write(podman.work.path().join("containers.conf"), configuration.join("\n")).expect("write");
        let storage = given("CONTAINERS_STORAGE_CONF");
        let storage: Vec<String> = storage
            .lines()
            .map(|line| match line.split_once(" = ") {
                Some((root @ ("graphroot" | "runroot"), _)) => {
                    format!("{root} = \"{}\"", podman.work.join(root))
                }
                _ => line.to_owned(),
            })
            .collect();
        fs::write(podman.work.path().join("storage.conf"), storage.join("\n")).expect("write");
        // The infra container of pods, which only holds their namespaces.
        let root = crate::engines::volume_plugin::busybox_tree();
        let (root, tar) = (root.path().join("root").display().to_string(), podman.work.join("pause.tar"));
        finish(Command::new("tar").args(["--create", "--file", &tar, "--directory", &root, "."])).succeeded();
        let entrypoint = r#"ENTRYPOINT ["/bin/busybox","sleep","100000"]"#;
        podman.run(&["import", "--quiet", "--change", entrypoint, &tar, PAUSE]).succeeded();
        podman
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        let mut podman = Command::new("podman");
        podman.env("CONTAINERS_CONF", self.work.join("containers.conf"));
        podman.env("CONTAINERS_STORAGE_CONF", self.work.join("storage.conf")).args(arguments);
        finish(&mut podman)
    }

    /// Creates the secret `registry-credentials` of the examples, with the credentials of the registry that requires them.
    fn store_pull_secret(&self) {
        let (user, password) = credentials();
        let registry = closed_repository("").trim_end_matches('/').to_owned();
        let login = json!({"auths": {registry: {"username": user, "password": password}}}).to_string();
        // podman 4.3 stores secrets as manifests, and does not decode base64.
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "registry"},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": login},
        });
        let file = self.work.join("secret.yaml");
        fs::write(&file, secret.to_string()).expect("write");
        self.run(&["secret", "create", "registry-credentials", &file]).succeeded();
    }

    /// Runs an example to its end, with this script as its application. Returns the application's output.
    fn play(&self, example: &str, images: &[(&str, &str)], script: &str) -> String {
        let mut manifest = example_of(example, images);
        // An existing claim is an error in podman, but not in a cluster.
        if let Some((_, pod)) = manifest.split_once("---\n")
            && !self.run(&["volume", "ls", "--quiet"]).succeeded().is_empty()
        {
            manifest = pod.to_owned();
        }
        // podman 4.3 needs this field for secrets, and restarts containers by default.
        manifest = manifest.replace(
            "secretName: registry-credentials",
            "{secretName: registry-credentials, optional: false}",
        );
        manifest = manifest.replace("secret:\n        {", "secret: {");
        manifest = manifest
            .replace("spec:\n  securityContext:", "spec:\n  restartPolicy: Never\n  securityContext:");
        let (before, application) = manifest.split_once("\n  containers:\n").expect("containers");
        let command =
            format!("      command: [/bin/busybox, sh, -c, {}]\n      securityContext: *", json!(script));
        let application = application.replacen("      securityContext: *", &command, 1);
        let file = self.work.join("pod.yaml");
        fs::write(&file, format!("{before}\n  containers:\n{application}")).expect("write");
        self.run(&["kube", "play", "--network=host", &file]).succeeded();
        let names = self.run(&["ps", "--all", "--format", "{{.Names}}"]).succeeded();
        let name = names.lines().find(|name| !name.ends_with("-infra")).unwrap_or_else(|| panic!("{names}"));
        self.run(&["wait", name]).succeeded();
        let output = self.run(&["logs", name]).succeeded();
        self.run(&["kube", "down", &file]).succeeded();
        output
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.run(&["pod", "rm", "--all", "--force", "--time", "0"]);
        self.run(&["rm", "--all", "--force", "--time", "0"]);
        let _ = Command::new("umount").args(["--lazy", &self.work.join("graphroot/overlay")]).output();
    }
}

const PAUSE: &str = "localhost/pause:1";

/// The options of podman that correspond to the restricted policy of Kubernetes.
const RESTRICTED: [&str; 4] =
    ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"];

/// Reads an example and replaces the names of images.
fn example_of(example: &str, images: &[(&str, &str)]) -> String {
    let manifest = fs::read_to_string(format!("examples/kubernetes/{example}")).expect("the example");
    images.iter().fold(manifest, |manifest, (old, new)| {
        assert!(manifest.contains(old), "{example} has no {old}");
        manifest.replace(old, new)
    })
}

/// Returns a container of an example.
fn container_of(manifest: &str, name: &str) -> Container {
    let objects = read(manifest).expect("a manifest");
    let pods = objects.iter().filter_map(Object::pod);
    let container = pods.flat_map(containers).find(|container| container.name == name);
    container.unwrap_or_else(|| panic!("no container {name}")).clone()
}

/// A directory with a private file and a subdirectory.
fn data() -> Directory {
    let data = Directory::empty();
    fs::create_dir(data.path().join("directory")).expect("mkdir");
    fs::write(data.path().join("directory/file"), "from the image\n").expect("write");
    fs::set_permissions(data.path().join("directory/file"), fs::Permissions::from_mode(0o600))
        .expect("chmod");
    data
}

/// Packs into the registry that requires a password.
fn pack_closed(image: &str, tree: &Directory) {
    let (user, password) = credentials();
    let mut pack = Command::new(env!("CARGO_BIN_EXE_volio"));
    let registry = image.split('/').next().expect("a host");
    let login = json!({"auths": {registry: {"username": user, "password": password}}}).to_string();
    finish(pack.env("DOCKER_AUTH_CONFIG", login).args(["pack", image, tree.text()])).succeeded();
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn kubernetes_init_container_fills_a_volume_for_an_unknown_user() {
    let podman = Podman::start();
    podman.store_pull_secret();
    let (program, web) = (push_volio("pods-init-volio:1", &[]), push_busybox("pods-init-web:1", &[]));
    let image = closed_repository("pods-init-data:1");
    pack_closed(&image, &data());
    let images = [
        ("registry.example/volio:v1", program.as_str()),
        ("registry.example/data:v1", &image),
        ("registry.example/web:v1", &web),
    ];
    let script = "cd /srv && id -u && cat directory/file && busybox stat -c '%u:%g %a' directory directory/file && \
        echo x > directory/mine && echo written; busybox touch /x 2>/dev/null || echo a root that cannot be written; \
        busybox grep CapEff /proc/self/status; busybox grep -c 10001 /etc/passwd 2>/dev/null || echo unknown";
    let output = podman.play("init-container.yaml", &images, script);
    let lines: Vec<&str> = output.lines().map(str::trim).collect();
    let expected = [
        "10001",
        "from the image",
        "10001:10001 2775",
        "10001:10001 660",
        "written",
        "a root that cannot be written",
        "CapEff:\t0000000000000000",
    ];
    assert_eq!(lines[..expected.len()], expected, "{output}");
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn kubernetes_init_container_keeps_a_filled_volume_without_any_request() {
    let podman = Podman::start();
    podman.store_pull_secret();
    let program = push_volio("pods-keep-volio:1", &[]);
    let database = push_busybox("pods-keep-database:1", &[]);
    let image = repository("pods-keep-dump:1");
    volio(&["pack", &image, data().text()]).succeeded();
    let images = [
        ("registry.example/volio:v1", program.as_str()),
        ("registry.example/dump:v1", &image),
        ("registry.example/database:v1", &database),
    ];
    let script = "cd /var/lib/database/dump && cat directory/file && echo changed > directory/file";
    assert_eq!(podman.play("persistent-volume.yaml", &images, script), "from the image");
    // The tag means another image now, and the pod is started again.
    let other = data();
    fs::write(other.path().join("directory/file"), "a newer image\n").expect("write");
    volio(&["pack", &image, other.text()]).succeeded();
    let asked = requests_below("/v2/pods-keep-dump/").len();
    assert_eq!(podman.play("persistent-volume.yaml", &images, script), "changed");
    assert_eq!(requests_below("/v2/pods-keep-dump/").len(), asked);
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn kubernetes_sidecar_exports_on_sigterm_with_the_rights_of_the_example() {
    let podman = Podman::start();
    let (program, image) = (push_volio("pods-sidecar-volio:1", &[]), repository("pods-sidecar-reports:pod"));
    let manifest = example_of("sidecar.yaml", &[]);
    let sidecar = container_of(&manifest, "export");
    assert_eq!(sidecar.restart_policy.as_deref(), Some("Always"), "or it is none");
    let arguments: Vec<String> = sidecar.args.into_iter().flatten().collect();
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|argument| if argument.starts_with("registry.example/") { image.as_str() } else { argument })
        .collect();
    let results = Directory::empty();
    chown(results.path(), Some(10001), Some(10001)).expect("chown");
    let volume = format!("{}:/results:ro", results.text());
    let options = ["run", "--detach", "--network=host", "--user=10001:10001", "--volume", &volume];
    let id = podman.run(&[&options[..], &RESTRICTED, &[&program], &arguments].concat()).succeeded();
    crate::engines::volume_plugin::wait_until("it waits", || {
        // It writes to stderr, and `podman logs` copies that to its own stderr.
        let logs = Command::new("podman")
            .env("CONTAINERS_CONF", podman.work.join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", podman.work.join("storage.conf"))
            .args(["logs", &id])
            .output()
            .expect("podman logs");
        String::from_utf8_lossy(&logs.stderr).contains("waiting for SIGTERM")
    });
    fs::write(results.path().join("report"), "the end").expect("write");
    podman.run(&["stop", "--time", "60", &id]).succeeded();
    assert_eq!(podman.run(&["inspect", "--format", "{{.State.ExitCode}}", &id]).succeeded(), "0");
    let target = Directory::empty();
    volio(&["unpack", &image, target.text()]).succeeded();
    assert_eq!(fs::read_to_string(target.path().join("report")).expect("the report"), "the end");
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn kubernetes_fs_group_volume_is_filled_by_a_random_user_and_writable_by_its_group() {
    let podman = Podman::start();
    let (program, image) = (push_volio("pods-group-volio:1", &[]), repository("pods-group-data:1"));
    volio(&["pack", &image, data().text()]).succeeded();
    // The kubelet's effect of fsGroup: 2000, which podman 4.3 does not support.
    let volume = Directory::empty();
    chown(volume.path(), Some(0), Some(2000)).expect("chown");
    fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o2775)).expect("chmod");
    let mount = format!("{}:/data", volume.text());
    // OpenShift runs containers as a random user with the group 0.
    let user = ["--user=1000680000:0", "--group-add=2000", "--volume", &mount];
    let run = |arguments: &[&str]| {
        let options = [&["run", "--rm", "--network=host"][..], &user, &RESTRICTED].concat();
        podman.run(&[&options[..], &[&program], arguments].concat())
    };
    run(&["unpack", "--keep", "--group-access", &image, "/data"]).succeeded();
    let found = fs::metadata(volume.path().join("directory/file")).expect("the file");
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (1_000_680_000, 2000, 0o660));
    let found = fs::metadata(volume.path().join("directory")).expect("the directory");
    assert_eq!((found.gid(), found.mode() & 0o7777), (2000, 0o2775));
    // A second container has nothing to do.
    run(&["unpack", "--keep", "--group-access", &image, "/data"]).succeeded();
    run(&["pack", &repository("pods-group-copy:1"), "/data"]).succeeded();
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn kubernetes_image_volume_has_the_files_of_a_data_image_and_is_read_only() {
    let podman = Podman::start();
    let server = push_busybox("pods-image-server:1", &[]);
    let image = repository("pods-image-data:1");
    let data = data();
    fs::set_permissions(data.path().join("directory/file"), fs::Permissions::from_mode(0o644))
        .expect("chmod");
    volio(&["pack", &image, data.text()]).succeeded();
    let manifest = example_of("image-volume.yaml", &[("registry.example/data:v1", &image)]);
    let objects = read(&manifest).expect("a manifest");
    let volumes = objects[0].pod().expect("a pod").volumes.iter().flatten();
    let source = volumes.filter_map(|volume| volume.image.as_ref()).next().expect("an image volume");
    let reference = source.reference.as_deref().expect("a reference");
    podman.run(&["pull", "--quiet", reference]).succeeded();
    let mount = format!("type=image,source={reference},destination=/data");
    let script = "cat /data/directory/file; echo x 2>/dev/null > /data/directory/file || echo refused";
    let options =
        [&["run", "--rm", "--network=none", "--user=10001:10001", "--mount", &mount][..], &RESTRICTED];
    let output = podman.run(&[&options.concat()[..], &[&server, "sh", "-c", script]].concat()).succeeded();
    assert_eq!(output, "from the image\nrefused");
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn kubernetes_nightly_export_sends_what_changed_with_the_rights_of_the_example() {
    let podman = Podman::start();
    let (program, image) = (push_volio("pods-nightly-volio:1", &[]), repository("pods-nightly:nightly"));
    let export = container_of(&example_of("nightly-export.yaml", &[]), "export");
    let arguments: Vec<String> = export.args.into_iter().flatten().collect();
    assert!(arguments.contains(&"registry.example/volume:nightly".to_owned()), "{arguments:?}");
    let arguments: Vec<&str> = arguments
        .iter()
        .map(|argument| if argument.starts_with("registry.example/") { image.as_str() } else { argument })
        .collect();
    let volume = Directory::empty();
    let write = |name: &str, content: &str| {
        fs::write(volume.path().join(name), content).expect("write");
        chown(volume.path().join(name), Some(10001), Some(10001)).expect("chown");
    };
    chown(volume.path(), Some(10001), Some(10001)).expect("chown");
    // Most of the image does not change, so that later nights are not packed in full.
    write(
        "kept",
        &(0..50_000_u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect::<String>(),
    );
    write("changed", "monday");
    let mount = format!("{}:/data:ro", volume.text());
    let options = ["run", "--rm", "--network=host", "--user=10001:10001", "--volume", &mount];
    let night = || {
        let output = podman.run(&[&options[..], &RESTRICTED, &[&program], &arguments].concat()).succeeded();
        let (_, digest) = output.rsplit_once('@').unwrap_or_else(|| panic!("{output}"));
        digest.trim().to_owned()
    };
    let layers = |digest: &str| {
        let name = format!("{}@{digest}", image.trim_end_matches(":nightly"));
        let inspected = volio(&["inspect", "--format", "json", &name]).succeeded();
        let inspected: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
        inspected["images"][0]["layers"].as_array().unwrap_or_else(|| panic!("{inspected:#}")).len()
    };
    let monday = night();
    assert_eq!(night(), monday, "nothing changed, so there is no new image");
    write("changed", "tuesday");
    write("new", "new");
    let tuesday = night();
    assert_eq!((layers(&monday), layers(&tuesday)), (1, 2));

    let target = Directory::empty();
    for (digest, content) in [(&monday, "monday"), (&tuesday, "tuesday"), (&monday, "monday")] {
        let name = format!("{}@{digest}", image.trim_end_matches(":nightly"));
        volio(&["unpack", "--sync", &name, target.text()]).succeeded();
        assert_eq!(fs::read_to_string(target.path().join("changed")).expect("a file"), content);
        assert_eq!(target.path().join("new").exists(), content == "tuesday");
    }
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn kubernetes_deployment_follows_a_tag_with_the_rights_of_the_example() {
    let podman = Podman::start();
    let program = push_volio("pods-follow-volio:1", &[]);
    for (example, site) in [("follow-by-link.yaml", "current"), ("follow-in-place.yaml", "site")] {
        let image = repository(&format!("pods-{}:stable", example.trim_end_matches(".yaml")));
        let follow = container_of(&example_of(example, &[]), "follow");
        assert_eq!(follow.restart_policy.as_deref(), Some("Always"), "or it is no sidecar");
        let arguments = follow.args.into_iter().flatten().map(|argument| match argument.as_str() {
            "registry.example/site:stable" => image.clone(),
            "--watch=30s" => "--watch=1s".to_owned(),
            _ => argument,
        });
        let arguments: Vec<String> = arguments.collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        // An emptyDir.
        let volume = Directory::empty();
        fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        let mount = format!("{}:/data", volume.text());
        let options = ["run", "--detach", "--user=10001:10001", "--network=host", "--volume", &mount];
        let tree = data();
        let push = |content: &str| {
            fs::write(tree.path().join("directory/file"), content).expect("write");
            volio(&["pack", &image, tree.text()]).succeeded();
        };
        push("first");
        let file = volume.path().join(site).join("directory/file");
        let published = |content: &str| {
            let is_there = || fs::read_to_string(&file).is_ok_and(|found| found == content);
            crate::engines::volume_plugin::wait_until("it is published", is_there);
        };
        let run = || podman.run(&[&options[..], &RESTRICTED, &[&program], &arguments].concat()).succeeded();
        let stop = |id: &str| {
            podman.run(&["stop", "--time", "60", id]).succeeded();
            let code = podman.run(&["inspect", "--format", "{{.State.ExitCode}}", id]).succeeded();
            assert_eq!(code, "0", "{example}");
        };
        let id = run();
        published("first");
        push("second");
        published("second");
        stop(&id);
        // Another container of the pod goes on where this one has ended.
        push("third");
        let id = run();
        published("third");
        stop(&id);
    }
}
