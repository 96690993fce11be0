//! skopeo. podman, buildah and CRI-O use the same library, containers/image.

use std::fs;

use super::fixture::Directory;
use super::program::{tool, volio};
use super::services::repository;
use super::survey::Survey;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn skopeo_copy(arguments: &[&str]) {
    tool("skopeo", &[&["copy", "--src-tls-verify=false", "--dest-tls-verify=false"], arguments].concat());
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
#[ignore = "needs docker-registry and skopeo: run tests/run"]
fn skopeo_copies_every_platform_into_a_layout_and_volio_unpacks_it() {
    let (source, work, target) = (Directory::filled(), Directory::empty(), Directory::empty());
    let image = repository("skopeo-copy:1");
    let digest = volio(&["pack", &image, source.text()]).digest();

    let layout = work.path().join("layout");
    let (from, to) = (format!("docker://{image}"), format!("oci:{}", work.join("layout:copied")));
    skopeo_copy(&["--all", "--preserve-digests", &from, &to]);

    // The layout has the index with the bytes that volio pushed, so skopeo did not have to convert it.
    let index = json(&fs::read_to_string(layout.join("index.json")).expect("index.json"));
    assert_eq!(index["manifests"][0]["digest"], digest.as_str());
    let image_index =
        json(&fs::read_to_string(layout.join("blobs").join(digest.replace(':', "/"))).expect("blob"));
    assert_eq!(
        image_index["manifests"].as_array().map(Vec::len),
        Some(2),
        "two platforms by default: {image_index}"
    );
    for blob in fs::read_dir(layout.join("blobs/sha256")).expect("readdir") {
        let blob = blob.expect("an entry");
        let content = fs::read(blob.path()).expect("read");
        let sha256: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(blob.file_name().to_string_lossy(), sha256);
    }

    volio(&["unpack", &to, target.text()]).succeeded();
    Survey::of(source.path()).assert_same(&Survey::of(target.path()));
}

#[test]
#[ignore = "needs docker-registry and skopeo: run tests/run"]
fn skopeo_inspects_both_platforms_with_their_labels() {
    let source = Directory::filled();
    let image = repository("skopeo-inspect:1");
    let digest = volio(&["pack", &image, source.text(), "--label", "made.by=a test"]).digest();

    let from = format!("docker://{image}");
    let mut layers = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let choice = format!("--override-arch={architecture}");
        let seen = json(&tool("skopeo", &[choice.as_str(), "inspect", "--tls-verify=false", &from]));
        assert_eq!(seen["Digest"], digest.as_str());
        assert_eq!(seen["Architecture"], architecture);
        assert_eq!(seen["Os"], "linux");
        assert_eq!(seen["Labels"]["made.by"], "a test");
        layers.push(seen["Layers"].clone());
    }
    assert!(layers[0].as_array().is_some_and(|layers| !layers.is_empty()), "no layers: {layers:?}");
    assert_eq!(layers[0], layers[1], "the platforms share their layers");
}

#[test]
#[ignore = "needs docker-registry and skopeo: run tests/run"]
fn a_layout_of_volio_is_pushed_by_skopeo_and_unpacked_from_the_registry() {
    let (source, work, target) = (Directory::filled(), Directory::empty(), Directory::empty());
    let layout = format!("oci:{}", work.join("layout:packed"));
    let digest = volio(&["pack", &layout, source.text()]).digest();

    let image = repository("skopeo-push:1");
    let to = format!("docker://{image}");
    skopeo_copy(&["--all", &layout, &to]);
    assert_eq!(json(&tool("skopeo", &["inspect", "--tls-verify=false", &to]))["Digest"], digest.as_str());
    volio(&["unpack", &image, target.text()]).succeeded();
    Survey::of(source.path()).assert_same(&Survey::of(target.path()));
}

#[test]
#[ignore = "needs docker-registry and skopeo: run tests/run"]
fn volio_unpacks_an_image_that_skopeo_converted_to_docker_media_types() {
    let (source, target) = (Directory::filled(), Directory::empty());
    let (from, to) = (repository("skopeo-oci:1"), repository("skopeo-v2s2:1"));
    volio(&["pack", &from, source.text(), "--compression", "gzip", "--platform", "linux/amd64"]).succeeded();

    let (from, into) = (format!("docker://{from}"), format!("docker://{to}"));
    skopeo_copy(&["--format=v2s2", &from, &into]);
    let raw = json(&tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &into]));
    assert_eq!(raw["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    volio(&["unpack", &to, target.text()]).succeeded();
    Survey::of(source.path()).assert_same(&Survey::of(target.path()));
}

fn assert_unpacks(from: &str, source: &Directory) {
    let target = Directory::empty();
    volio(&["unpack", from, target.text()]).succeeded();
    Survey::of(source.path()).assert_same(&Survey::of(target.path()));
}

#[test]
#[ignore = "needs skopeo: run tests/run"]
fn skopeo_reads_and_writes_archives_of_layouts() {
    let (source, work) = (Directory::filled(), Directory::empty());
    let ours = format!("oci-archive:{}:tag", work.join("ours.tar"));
    let theirs = format!("oci-archive:{}:other", work.join("theirs.tar"));
    let other = format!("oci-archive:{}:gzip", work.join("ours.tar"));
    let digest = volio(&["pack", &ours, source.text()]).digest();
    volio(&["pack", &other, source.text(), "--compression", "gzip"]).succeeded();

    skopeo_copy(&["--all", "--preserve-digests", &ours, &theirs]);
    assert_unpacks(&theirs, &source);
    let out = format!("oci:{}:tag", work.join("layout"));
    assert_eq!(volio(&["copy", &theirs, &out]).digest(), digest, "no byte has changed on the way");
    // The second image in the archive, also after the first was replaced.
    let portable = Directory::filled_portable();
    volio(&["pack", &ours, portable.text()]).succeeded();
    for (from, tag, tree) in [(&other, "gzip", &source), (&ours, "replaced", &portable)] {
        let layout = format!("oci:{}:{tag}", work.join("layout"));
        skopeo_copy(&[from, &layout]);
        assert_unpacks(&layout, tree);
    }
}

#[test]
#[ignore = "needs skopeo: run tests/run"]
fn skopeo_reads_and_writes_archives_for_docker() {
    let (source, work) = (Directory::filled(), Directory::empty());
    let ours = format!("docker-archive:{}:host.example/data:v1", work.join("ours.tar"));
    let theirs = format!("docker-archive:{}:host.example/data:v2", work.join("theirs.tar"));
    let digest = volio(&["pack", &ours, source.text()]).digest();
    let beside = format!("docker-archive:{}:host.example/data:v3", work.join("ours.tar"));
    volio(&["pack", &beside, Directory::filled_portable().text()]).succeeded();

    skopeo_copy(&[&ours, &theirs]);
    assert_unpacks(&theirs, &source);
    // The config and the layers are the same, and so is the manifest that volio makes of them.
    let again = format!("docker-archive:{}:x:1", work.join("again.tar"));
    assert_eq!(volio(&["copy", &theirs, &again]).digest(), digest);
    let layout = format!("oci:{}:tag", work.join("layout"));
    skopeo_copy(&[&again, &layout]);
    assert_unpacks(&layout, &source);
}
