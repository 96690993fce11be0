//! podman pulls, mounts and runs images that volio packed.

mod image;
mod pods;
mod unshare;
mod volumes;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::fixture::Directory;
use super::program::{finish, tool, volio};
use super::services::repository;
use super::survey::Survey;

/// Packs and pushes an image with busybox as its entrypoint.
fn push_busybox(name: &str, extra: &[&str]) -> String {
    let source = Directory::empty();
    let path: PathBuf = std::env::split_paths(&std::env::var_os("PATH").expect("PATH"))
        .map(|directory| directory.join("busybox"))
        .find(|program| program.exists())
        .expect("busybox");
    fs::create_dir(source.path().join("bin")).expect("mkdir");
    fs::copy(path, source.path().join("bin/busybox")).expect("cp");
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let image = repository(name);
    let pack = ["pack", &image, source.text(), "--entrypoint", "/bin/busybox"];
    volio(&[&pack, extra].concat()).succeeded();
    image
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn podman_stores_an_identical_tree() {
    for compression in ["zstd", "gzip", "none"] {
        let source = Directory::filled();
        let image = repository(&format!("podman-pull:{compression}"));
        // Not at `/`: podman's root directory has other attributes than the layer's.
        let at = format!("{}:/srv/data", source.text());
        volio(&["pack", &image, &at, "--compression", compression]).succeeded();

        tool("podman", &["pull", "--quiet", &image]);
        let mounted = tool("podman", &["image", "mount", &image]);
        let stored = Survey::of(&Path::new(&mounted).join("srv/data"));
        tool("podman", &["image", "unmount", &image]);
        Survey::of(source.path()).assert_same(&stored);
    }
}

/// This uses the storage driver `vfs`, which copies directories. With overlayfs, the path in the upper layer creates a directory
/// that hides the link.
#[test]
#[ignore = "needs podman and root: run tests/run"]
fn podman_and_volio_follow_links_of_lower_layers_alike() {
    let (work, target) = (Directory::empty(), Directory::empty());
    let image = format!("oci:{}", super::fixture::image_with_merged_usr(&work));
    volio(&["unpack", "--platform", "linux/amd64", &image, target.text()]).succeeded();
    let podman = "podman --storage-driver vfs --root \"$PWD/root\" --runroot \"$PWD/run\"";
    let podman =
        |arguments: &str| tool("sh", &["-c", &format!("cd '{}' && {podman} {arguments}", work.text())]);
    let pulled = podman("pull --quiet oci:layout:tag");
    // podman does not restore the mtimes of directories that an upper layer changes.
    let seen =
        |root: &str| tool("sh", &["-c", &format!("cd '{root}' && find . -type f | sort | xargs grep -H .")]);
    let stored = seen(&podman(&format!("image mount {pulled}")));
    podman(&format!("image unmount {pulled}"));
    podman(&format!("rmi {pulled}"));
    assert_eq!(stored, "./top:4\n./usr/lib/a:1\n./usr/lib/x.so:2\n./usr/lib/y.so:3");
    assert_eq!(seen(target.text()), stored);
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn podman_runs_a_program_that_volio_packed() {
    let image = push_busybox(
        "podman-run:1",
        &["--env", "WORD=from the image", "--workdir", "/bin", "--user", "12:34"],
    );
    let script = "echo \"$WORD\"; pwd; id -u; id -g";
    let output = tool("podman", &["run", "--rm", "--network=none", &image, "sh", "-c", script]);
    assert_eq!(output, "from the image\n/bin\n12\n34");
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn a_container_reads_the_files_of_an_image_mounted_as_a_volume() {
    let source = Directory::filled();
    let data = repository("podman-volume:1");
    volio(&["pack", &data, source.text()]).succeeded();
    let program = push_busybox("podman-volume-reader:1", &[]);

    tool("podman", &["pull", "--quiet", &data]);
    let mount = format!("type=image,source={data},destination=/data");
    let run = |script: &str| {
        tool("podman", &["run", "--rm", "--network=none", "--mount", &mount, &program, "sh", "-c", script])
    };
    let sums = "busybox find . -type f -print0 | busybox sort -z | busybox xargs -0 busybox sha256sum";
    let outside = tool("sh", &["-c", &format!("cd '{}' && {sums}", source.text())]);
    assert!(outside.lines().count() > 10, "{outside}");
    assert_eq!(run(&format!("cd /data && {sums}")), outside);
    assert_eq!(
        run("busybox touch /data/new 2>/dev/null || echo refused"),
        "refused",
        "a volume from an image is read-only"
    );
}

/// Loads an archive. Returns the name of the image that podman prints.
fn podman_load(archive: &str) -> String {
    let output = tool("podman", &["load", "--input", archive]);
    let name = output.lines().filter_map(|line| line.split_once(": ")).next_back();
    name.unwrap_or_else(|| panic!("podman load: {output}")).1.to_owned()
}

fn assert_podman_has(image: &str, source: &Directory) {
    let mounted = tool("podman", &["image", "mount", image]);
    let stored = Survey::of(&Path::new(&mounted).join("srv/data"));
    tool("podman", &["image", "unmount", image]);
    Survey::of(source.path()).assert_same(&stored);
}

#[test]
#[ignore = "needs podman and root: run tests/run"]
fn podman_loads_archives_of_volio_and_volio_reads_archives_of_podman() {
    let (source, work) = (Directory::filled(), Directory::empty());
    // Not at `/`: podman's root directory has other attributes than the layer's.
    let at = format!("{}:/srv/data", source.text());
    for (scheme, name, formats) in [
        // podman cannot save layers compressed with zstd for docker.
        ("oci-archive", "host.example/podman-oci:v1", &["oci-archive"][..]),
        ("docker-archive", "host.example/podman:v1", &["oci-archive", "docker-archive"]),
    ] {
        let archive = work.join(&format!("{scheme}.tar"));
        // Tests share podman's storage: equal images would have the same ID and be removed together.
        volio(&["pack", "--label", "for=archives", &format!("{scheme}:{archive}:{name}"), &at]).succeeded();
        let image = podman_load(&archive);
        assert_eq!(image, name, "{scheme}");
        assert_podman_has(&image, &source);
        tool("podman", &["rmi", "--force", &image]);

        tool("podman", &["pull", "--quiet", &format!("{scheme}:{archive}")]);
        for format in formats {
            let saved = work.join(&format!("{scheme}-{format}.tar"));
            tool("podman", &["save", "--quiet", "--format", format, "--output", &saved, name]);
            let target = Directory::empty();
            volio(&["unpack", &format!("{format}:{saved}"), target.text()]).succeeded();
            Survey::of(source.path()).assert_same(&Survey::of(&target.path().join("srv/data")));
        }
        tool("podman", &["rmi", "--force", name]);
    }
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn podman_with_partial_images_pulls_an_indexed_layer() {
    let (source, work) = (Directory::filled(), Directory::empty());
    let image = repository("podman-partial:1");
    volio(&["pack", &image, &format!("{}:/srv/data", source.text())]).succeeded();
    let usual = std::env::var("CONTAINERS_STORAGE_CONF").expect("tests/run has written one");
    let usual = fs::read_to_string(usual).expect("storage.conf");
    let partial = format!("{usual}[storage.options]\npull_options = {{enable_partial_images = \"true\"}}\n");
    // Another storage, because podman does not pull layers that it has.
    let partial =
        partial.replace("/podman/root", "/podman/partial").replace("/podman/run", "/podman/partial-run");
    fs::write(work.path().join("storage.conf"), partial).expect("storage.conf");
    let podman = |arguments: &[&str]| {
        let mut podman = Command::new("podman");
        podman.args(arguments).env("CONTAINERS_STORAGE_CONF", work.join("storage.conf"));
        finish(&mut podman).succeeded()
    };
    podman(&["pull", "--quiet", &image]);
    let mounted = podman(&["image", "mount", &image]);
    let stored = Survey::of(&Path::new(&mounted).join("srv/data"));
    podman(&["image", "unmount", &image]);
    podman(&["rmi", "--force", &image]);
    Survey::of(source.path()).assert_same(&stored);
}

#[test]
#[ignore = "needs podman and root: run tests/run"]
fn podman_reads_and_writes_layouts() {
    let (source, work) = (Directory::filled(), Directory::empty());
    let at = format!("{}:/srv/data", source.text());
    let layout = format!("oci:{}", work.join("layout:v1"));
    volio(&["pack", "--label", "for=layouts", &layout, &at]).succeeded();
    // podman names the image after the path, which must be in lower case.
    let image = tool("sh", &["-c", &format!("cd '{}' && podman pull --quiet oci:layout:v1", work.text())]);
    assert_podman_has(&image, &source);

    let saved = work.join("saved");
    tool("podman", &["save", "--quiet", "--format", "oci-dir", "--output", &saved, &image]);
    tool("podman", &["rmi", "--force", &image]);
    let target = Directory::empty();
    volio(&["unpack", &format!("oci:{saved}"), target.text()]).succeeded();
    Survey::of(source.path()).assert_same(&Survey::of(&target.path().join("srv/data")));
}
