//! Images of changes in other programs, and images of other programs as bases.
//!
//! Random trees ([`crate::incremental`]) are packed over each other, and each engine must show the last one exactly, as far as it
//! keeps attributes. The name of a test begins with its engine, so that `tests/run` can skip it.

use std::fs;
use std::path::Path;

use super::docker::{docker, docker_gives_out};
use super::fixture::Directory;
use super::program::{tool, volio};
use super::services::{containerd, repository};
use super::survey::Survey;
use crate::incremental::changes::{CHANGES, Change};
use crate::incremental::judge::assert_identical;
use crate::incremental::random::with_seeds;
use crate::incremental::tree::RandomTree;

/// A random tree below `/srv/data` of images `NAME:0`, `NAME:1` and so on, each the changes since the one before it.
struct Pushed {
    work: Directory,
    tree: RandomTree,
    images: Vec<String>,
}

impl Pushed {
    fn new(seed: u64) -> Self {
        let work = Directory::empty();
        let tree = RandomTree::make(&work.path().join("tree"), seed, 25, 1);
        Self { work, tree, images: Vec::new() }
    }

    /// Packs the tree in full for the first image, and as changes for the others.
    fn push(&mut self, image: String, options: &[&str]) {
        let source = self.work.join("tree:/srv/data");
        let mut arguments = vec!["pack"];
        arguments.extend(options);
        if let Some(base) = self.images.last() {
            arguments.extend(["--allow-shrink", "--max-dead", "100", "--base", base]);
        }
        arguments.extend([image.as_str(), &source]);
        volio(&arguments).succeeded();
        self.images.push(image);
    }

    fn last(&self) -> &str {
        self.images.last().expect("an image")
    }

    fn survey(&self) -> Survey {
        Survey::of(self.tree.root())
    }
}

/// Pushes images of changes, and has the engine show each of them.
fn in_registry(name: &str, options: &[&str], show: impl Fn(&str, &Survey)) {
    with_seeds(2, |seed| {
        let mut pushed = Pushed::new(seed);
        for step in 0..4 {
            pushed.push(repository(&format!("incremental-{name}-{seed}:{step}")), options);
            show(pushed.last(), &pushed.survey());
            pushed.tree.step(8);
        }
    });
}

fn podman_shows(image: &str, expected: &Survey) {
    tool("podman", &["pull", "--quiet", image]);
    let mounted = tool("podman", &["image", "mount", image]);
    let stored = Survey::of(&Path::new(&mounted).join("srv/data"));
    tool("podman", &["image", "unmount", image]);
    expected.clone().not_before_1970().assert_same(&stored);
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn podman_shows_the_tree_of_an_image_of_changes() {
    for compression in ["zstd", "gzip", "none"] {
        in_registry(&format!("podman-{compression}"), &["--compression", compression], podman_shows);
    }
}

#[test]
#[ignore = "needs docker-registry, podman and root: run tests/run"]
fn podman_shows_the_tree_of_an_image_of_changes_in_several_layers() {
    in_registry("podman-layers", &["--layer-size", "1M"], podman_shows);
}

#[test]
#[ignore = "needs docker-registry, buildah and root: run tests/run"]
fn buildah_shows_the_tree_of_an_image_of_changes() {
    in_registry("buildah", &[], |image, expected| {
        let container = tool("buildah", &["from", "--tls-verify=false", &format!("docker://{image}")]);
        let mounted = tool("buildah", &["mount", &container]);
        let stored = Survey::of(&Path::new(&mounted).join("srv/data"));
        tool("buildah", &["rm", &container]);
        expected.clone().not_before_1970().assert_same(&stored);
    });
}

#[test]
#[ignore = "needs docker-registry, dockerd and root: run tests/run"]
fn docker_shows_the_tree_of_an_image_of_changes() {
    in_registry("docker", &["--compression", "gzip"], |image, expected| {
        docker(&["pull", image]).succeeded();
        let given = docker_gives_out(image);
        // The archive that `docker cp` writes has whole seconds and, of the xattrs, only capabilities.
        let kept = |survey: Survey| {
            ["user.", "trusted.", "system."]
                .iter()
                .fold(survey.whole_seconds(), |it, name| it.without_xattrs(name))
        };
        kept(expected.clone().not_before_1970()).assert_same(&kept(Survey::of(&given.path().join("data"))));
    });
}

#[test]
#[ignore = "needs docker-registry, containerd and root: run tests/run"]
fn containerd_shows_the_tree_of_an_image_of_changes() {
    let ctr = |arguments: &[&str]| {
        tool("ctr", &[&["--address", &containerd(), "--namespace", "volio"], arguments].concat())
    };
    for compression in ["zstd", "gzip"] {
        in_registry(&format!("ctr-{compression}"), &["--compression", compression], |image, expected| {
            let work = Directory::empty();
            ctr(&["images", "pull", "--plain-http", "--snapshotter", "native", image]);
            ctr(&["images", "mount", "--snapshotter", "native", image, work.text()]);
            let stored = Survey::of(&work.path().join("srv/data"));
            ctr(&["images", "unmount", "--rm", work.text()]);
            // Its plain directories are copies, and special files lose their attributes there.
            let (expected, stored) =
                (expected.clone().without_xattrs("trusted."), stored.without_xattrs("trusted."));
            expected.not_before_1970().assert_same(&stored);
        });
    }
}

#[test]
#[ignore = "needs docker-registry and crane: run tests/run"]
fn crane_exports_the_tree_of_an_image_of_changes() {
    if std::process::Command::new("crane").arg("version").output().is_err() {
        eprintln!("SKIPPED: crane is missing");
        return;
    }
    in_registry("crane", &["--compression", "gzip"], |image, expected| {
        let work = Directory::empty();
        let archive = work.join("a.tar");
        tool("crane", &["export", "--insecure", "--platform", "linux/amd64", image, &archive]);
        let extract = ["--xattrs", "--xattrs-include=*", "--same-owner", "--same-permissions"];
        tool("tar", &[&["--extract", "--file", &archive, "--directory", work.text()], &extract[..]].concat());
        expected.assert_same(&Survey::of(&work.path().join("srv/data")));
    });
}

#[test]
#[ignore = "needs umoci and root: run tests/run"]
fn umoci_shows_the_tree_of_an_image_of_changes() {
    with_seeds(3, |seed| {
        let mut pushed = Pushed::new(seed);
        for step in 0..4 {
            let image = pushed.work.join(&format!("layout:{step}"));
            let options = ["--compression", "gzip", "--platform", "linux/amd64"];
            pushed.push(format!("oci:{image}"), &options);
            let bundle = pushed.work.join(&format!("bundle-{step}"));
            tool("umoci", &["unpack", "--image", &image, &bundle]);
            let stored = Survey::of(&Path::new(&bundle).join("rootfs/srv/data"));
            pushed.survey().assert_same(&stored);
            pushed.tree.step(8);
        }
    });
}

/// The digests of the layers of an image.
fn layers(image: &str) -> Vec<serde_json::Value> {
    let document = volio(&["inspect", "--format", "json", image]).succeeded();
    let document: serde_json::Value = serde_json::from_str(&document).expect("a document");
    let layers = document["images"][0]["layers"].as_array().expect("layers");
    layers.iter().map(|layer| layer["digest"].clone()).collect()
}

/// Packs changes over an image of another program, whose times may be whole seconds, and follows both with a directory.
fn assert_is_a_base(base: &str, made: &str, seed: u64) {
    let work = Directory::empty();
    let (source, fresh, target) = (work.join("source"), work.join("fresh"), work.join("target"));
    volio(&["unpack", base, &source]).succeeded();
    volio(&["unpack", "--sync", base, &target]).succeeded();
    let same = |expected: &str, actual: &str| {
        // Not every program has an entry for the root.
        let seen = |path| Survey::of(Path::new(path)).below_the_root();
        seen(expected).assert_same(&seen(actual));
    };
    same(&source, &target);

    volio(&["pack", "--max-dead", "100", "--base", base, made, &source]).succeeded();
    // Nothing has changed but the root, which not every program has an entry for.
    assert!(layers(made).starts_with(&layers(base)));

    let visible: Vec<Change> = CHANGES.iter().copied().filter(|(name, _)| !name.contains("same")).collect();
    let mut tree = RandomTree::over(Path::new(&source), seed, 500_000);
    tree.step_of(&visible, 10);
    volio(&["pack", "--allow-shrink", "--max-dead", "100", "--base", base, made, &source]).succeeded();
    volio(&["unpack", made, &fresh]).succeeded();
    assert_identical(Path::new(&source), Path::new(&fresh));
    volio(&["unpack", "--sync", made, &target]).succeeded();
    assert_identical(Path::new(&source), Path::new(&target));
    volio(&["unpack", "--sync", base, &target]).succeeded();
    let again = work.join("again");
    volio(&["unpack", base, &again]).succeeded();
    same(&again, &target);
}

/// Commits two layers with buildah, the second with a deleted file, a replaced (opaque) directory and a changed file.
fn commit_two_layers(image: &str) {
    let source = Directory::filled();
    let container = tool("buildah", &["from", "scratch"]);
    let mounted = tool("buildah", &["mount", &container]);
    tool("cp", &["--archive", &source.join("."), &mounted]);
    let base = tool("buildah", &["commit", "--quiet", &container]);
    tool("buildah", &["rm", &container]);
    let container = tool("buildah", &["from", &base]);
    let root = tool("buildah", &["mount", &container]);
    let root = Path::new(&root);
    fs::remove_file(root.join("setuid")).expect("rm");
    fs::remove_dir_all(root.join("directory")).expect("rm -r");
    fs::create_dir(root.join("directory")).expect("mkdir");
    fs::write(root.join("directory/new"), "new\n").expect("write");
    fs::write(root.join("file"), "changed\n").expect("write");
    let to = format!("docker://{image}");
    tool("buildah", &["commit", "--quiet", "--tls-verify=false", &container, &to]);
    tool("buildah", &["rm", &container]);
}

#[test]
#[ignore = "needs docker-registry, buildah and root: run tests/run"]
fn buildah_commits_images_that_are_bases() {
    let base = repository("incremental-of-buildah:1");
    commit_two_layers(&base);
    with_seeds(2, |seed| {
        assert_is_a_base(&base, &repository(&format!("incremental-of-buildah:made-{seed}")), seed)
    });
}

#[test]
#[ignore = "needs umoci and root: run tests/run"]
fn umoci_repacks_images_that_are_bases() {
    with_seeds(2, |seed| {
        let work = Directory::empty();
        let image = work.join("layout:tag");
        tool("umoci", &["init", "--layout", &work.join("layout")]);
        tool("umoci", &["new", "--image", &image]);
        let bundle = work.join("bundle");
        tool("umoci", &["unpack", "--image", &image, &bundle]);
        let rootfs = Path::new(&bundle).join("rootfs");
        fs::remove_dir(&rootfs).expect("an empty rootfs");
        let mut tree = RandomTree::make(&rootfs, seed, 20, 1);
        for _ in 0..2 {
            tool("umoci", &["repack", "--refresh-bundle", "--image", &image, &bundle]);
            tree.step(8);
        }
        assert_is_a_base(&format!("oci:{image}"), &format!("oci:{}", work.join("made:tag")), seed);
    });
}

#[test]
#[ignore = "needs dockerd and root: run tests/run"]
fn docker_saves_images_that_are_bases() {
    let work = Directory::filled();
    let (plain, saved) = (Directory::empty(), Directory::empty());
    let (archive, saved) = (plain.join("plain.tar"), saved.join("saved.tar"));
    tool("tar", &["--create", "--xattrs", "--file", &archive, "--directory", work.text(), "."]);
    let name = "host.example/incremental-docker:1";
    docker(&["import", &archive, name]).succeeded();
    docker(&["save", "--output", &saved, name]).succeeded();
    with_seeds(2, |seed| {
        let made = Directory::empty();
        assert_is_a_base(&format!("docker-archive:{saved}"), &format!("oci:{}", made.join("made:tag")), seed);
    });
}

#[test]
#[ignore = "needs docker-registry, buildah, podman and root: run tests/run"]
fn podman_pushes_chunks_of_zstd_that_are_a_base() {
    let (base, local) = (repository("incremental-of-chunks:1"), "localhost/incremental-chunks:1");
    let source = Directory::filled();
    let archive = Directory::empty();
    let archive = archive.join("a.tar");
    // podman 4.3 leaves out the padding of an archive after it has computed the diff_id.
    let create = ["--create", "--blocking-factor=1", "--file", &archive, "--directory", source.text(), "."];
    tool("tar", &create);
    tool("podman", &["import", "--quiet", &archive, local]);
    tool("podman", &["push", "--quiet", "--compression-format", "zstd:chunked", local, &base]);
    with_seeds(2, |seed| {
        assert_is_a_base(&base, &repository(&format!("incremental-of-chunks:made-{seed}")), seed)
    });
}
