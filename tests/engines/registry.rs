//! Debian's docker-registry (CNCF distribution), which many private registries use.

use std::fs;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::fixture::{self, Directory};
use super::program::{Finished, finish, volio};
use super::services::{closed_repository, credentials, repository, requests_below, stored_blob};
use super::survey::Survey;

/// Packs the full fixture to `image` and unpacks it again. The tree must be identical.
fn assert_restored_identically(image: &str, options: &[&str]) {
    let (source, target) = (Directory::filled(), Directory::empty());
    volio(&[&["pack", image, source.text()], options].concat()).succeeded();
    unpack(image, &target).succeeded();
    Survey::of(source.path()).assert_same(&Survey::of(target.path()));
}

fn pack(image: &str, source: &Directory) -> Finished {
    volio(&["pack", image, source.text()])
}

fn unpack(image: &str, target: &Directory) -> Finished {
    volio(&["unpack", image, target.text()])
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn a_tree_is_restored_identically() {
    assert_restored_identically(&format!("{}:latest", repository("identical")), &[]);
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn a_tree_is_restored_identically_with_every_compression() {
    for compression in ["zstd", "gzip", "none", "zstd:19", "gzip:1"] {
        let image =
            format!("docker://{}", repository(&format!("compression:{}", compression.replace(':', "-"))));
        assert_restored_identically(&image, &["--compression", compression]);
    }
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn a_tree_is_restored_identically_from_a_manifest_without_an_index() {
    assert_restored_identically(&repository("plain:1"), &["--platform", "linux/amd64"]);
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn packing_twice_gives_the_same_digest() {
    let source = Directory::filled();
    let first = pack(&repository("once:a"), &source).digest();
    assert_eq!(pack(&repository("once:b"), &source).digest(), first, "another tag");
    assert_eq!(pack(&repository("twice:a"), &source).digest(), first, "another repository");

    fixture::set_mtime(&source.path().join("file"), fixture::SECONDS, 1);
    assert_ne!(pack(&repository("once:c"), &source).digest(), first, "another nanosecond");
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn an_image_can_be_unpacked_by_its_digest_alone() {
    let (source, target) = (Directory::filled(), Directory::empty());
    let image = repository("by-digest");
    let digest = pack(&format!("{image}:moves"), &source).digest();
    fs::write(source.path().join("file"), "other content").expect("write");
    pack(&format!("{image}:moves"), &source).succeeded();
    fs::write(source.path().join("file"), "a small file\n").expect("write");
    fixture::set_mtime(&source.path().join("file"), fixture::SECONDS, fixture::NANOSECONDS);

    unpack(&format!("{image}@{digest}"), &target).succeeded();
    Survey::of(source.path()).assert_same(&Survey::of(target.path()));
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn copying_again_uploads_nothing() {
    let (source, work) = (Directory::filled(), Directory::empty());
    let layout = format!("oci:{}", work.join("layout:tag"));
    let packed = pack(&layout, &source).digest();

    let uploads = || requests_below("/v2/again/blobs/uploads").len();
    assert_eq!(volio(&["copy", &layout, &repository("again:first")]).digest(), packed);
    let after_first = uploads();
    assert!(after_first > 0, "the first copy must have uploaded something, or this test sees nothing");
    assert_eq!(volio(&["copy", &layout, &repository("again:second")]).digest(), packed);
    assert_eq!(uploads(), after_first, "every blob was there already");
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn a_blob_that_was_damaged_in_the_registry_is_not_unpacked() {
    let (source, target) = (Directory::filled(), Directory::empty());
    // A unique blob, because the registry stores one copy for all repositories.
    fs::write(source.path().join("unlike the others"), "rotten\n").expect("write");
    let image = repository("rotten:1");
    let index = pack(&image, &source).digest();
    let manifest = stored_json(&index)["manifests"][0]["digest"].clone();
    let layer = stored_json(manifest.as_str().expect("a manifest"))["layers"][0]["digest"].clone();
    let rotten = stored_blob(layer.as_str().expect("a layer"));
    let mut content = fs::read(&rotten).expect("the layer as the registry keeps it");
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&rotten, content).expect("the registry's storage");

    unpack(&image, &target).failed_with(3);
    assert!(!Survey::of(target.path()).has("file"), "content of an unproven layer was published");
}

fn stored_json(digest: &str) -> serde_json::Value {
    serde_json::from_slice(&fs::read(stored_blob(digest)).expect("a blob")).expect("JSON")
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn a_missing_image_is_exit_4() {
    let target = Directory::empty();
    unpack(&repository("never-pushed:1"), &target).failed_with(4);
    assert_eq!(fs::read_dir(target.path()).expect("readdir").count(), 0, "nothing may appear in the target");
}

/// Packs or unpacks against the closed registry, with a `config.json` that holds these credentials.
fn with_credentials(credentials: Option<(&str, &str)>, arguments: &[&str]) -> Finished {
    let home = Directory::empty();
    let auths = credentials.map_or_else(String::new, |(user, password)| {
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        let registry = closed_repository("").trim_end_matches('/').to_owned();
        format!(r#""{registry}": {{"auth": "{encoded}"}}"#)
    });
    fs::write(home.path().join("config.json"), format!(r#"{{"auths": {{{auths}}}}}"#)).expect("write");
    finish(Command::new(env!("CARGO_BIN_EXE_volio")).env("DOCKER_CONFIG", home.path()).args(arguments))
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn credentials_from_docker_config_are_used() {
    let (source, target) = (Directory::filled(), Directory::empty());
    let (user, password) = credentials();
    let right = Some((user.as_str(), password.as_str()));
    let image = closed_repository("opened:1");

    with_credentials(right, &["pack", &image, source.text()]).succeeded();
    with_credentials(right, &["unpack", &image, target.text()]).succeeded();
    Survey::of(source.path()).assert_same(&Survey::of(target.path()));
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn wrong_or_missing_credentials_are_exit_5_and_the_password_is_not_shown() {
    let source = Directory::filled();
    let image = closed_repository("refused:1");
    let (user, _) = credentials();
    let secret = "not-the-pass-word";

    for arguments in [["pack", &image, source.text()], ["unpack", &image, "/nonexistent/target"]] {
        with_credentials(None, &arguments).failed_with(5);
        let shown = with_credentials(Some((&user, secret)), &arguments).failed_with(5);
        assert!(!shown.contains(secret), "the password is in the output: {shown}");
        let encoded = STANDARD.encode(format!("{user}:{secret}"));
        assert!(!shown.contains(&encoded), "the encoded password is in the output: {shown}");
    }
}
