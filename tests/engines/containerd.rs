//! containerd, which Kubernetes and Docker use. Images are pulled and imported with `ctr`.

use super::fixture::Directory;
use super::program::{tool, volio};
use super::services::{containerd, repository};
use super::survey::Survey;

/// Runs `ctr` with the containerd of the tests. Its snapshots are plain directories, because overlayfs may be unavailable.
fn ctr(arguments: &[&str]) -> String {
    tool("ctr", &[&["--address", &containerd(), "--namespace", "volio"], arguments].concat())
}

fn assert_containerd_has(image: &str, source: &Directory) {
    let work = Directory::empty();
    ctr(&["images", "mount", "--snapshotter", "native", image, work.text()]);
    let stored = Survey::of(&work.path().join("srv/data"));
    ctr(&["images", "unmount", "--rm", work.text()]);
    Survey::of(source.path()).assert_same(&stored);
    ctr(&["images", "rm", "--sync", image]);
}

#[test]
#[ignore = "needs docker-registry, containerd and root: run tests/run"]
fn containerd_pulls_the_identical_tree_in_every_compression_and_in_several_layers() {
    let source = Directory::filled();
    std::fs::write(source.path().join("large"), vec![7; 3 << 20]).expect("a file");
    super::fixture::settle(source.path());
    let at = format!("{}:/srv/data", source.text());
    for (name, options) in [
        ("zstd", &["--compression", "zstd"][..]),
        ("gzip", &["--compression", "gzip"]),
        ("none", &["--compression", "none"]),
        ("layers", &["--layer-size", "1M"]),
    ] {
        let image = repository(&format!("containerd-pull:{name}"));
        volio(&[&["pack", &image, &at], options].concat()).succeeded();
        ctr(&["images", "pull", "--plain-http", "--snapshotter", "native", &image]);
        assert_containerd_has(&image, &source);
    }
}

#[test]
#[ignore = "needs containerd and root: run tests/run"]
fn containerd_imports_an_archive_of_indexed_layers() {
    let (source, work) = (Directory::filled(), Directory::empty());
    let archive = work.join("image.tar");
    let name = "host.example/imported:v1";
    let at = format!("{}:/srv/data", source.text());
    volio(&["pack", &format!("oci-archive:{archive}:{name}"), &at]).succeeded();
    ctr(&["images", "import", "--snapshotter", "native", &archive]);
    assert_containerd_has(name, &source);
}
