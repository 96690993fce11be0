//! `volio doctor` with Debian's docker-registry (CNCF distribution).

use super::fixture::Directory;
use super::program::{finish, volio};
use super::services::{authority, closed_repository, encrypted_repository, repository};
use serde_json::Value;
use std::process::Command;

/// Returns the severity and the text of each finding, by its check.
fn findings(json: &str) -> impl Fn(&str) -> (String, String) {
    let json: Value = serde_json::from_str(json).expect("JSON");
    move |check| {
        let found =
            json["findings"].as_array().expect("findings").iter().find(|finding| finding["check"] == check);
        let found = found.unwrap_or_else(|| panic!("no {check}: {json}"));
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        (text("severity"), text("what"))
    }
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn the_abilities_of_the_registry_are_found_and_nothing_is_left() {
    let source = Directory::filled();
    let name = repository("doctor");
    let digest = volio(&["pack", &format!("{name}:v1"), source.text()]).digest();
    let examined = volio(&["doctor", "--write-test", "--format", "json", "--quiet", &name]).succeeded();
    let of = findings(&examined);
    for check in [
        "protocol",
        "clock",
        "login",
        "tags",
        "ranges",
        "push",
        "chunks",
        "whole-blobs",
        "mount-blob",
        "delete",
    ] {
        assert_eq!(of(check).0, "ok", "{examined}");
    }
    assert_eq!(of("referrers").0, "warning", "{examined}");
    assert!(!examined.contains("\"cancel\""), "{examined}");
    assert_eq!(volio(&["tags", &name]).succeeded().trim(), "v1");
    assert_eq!(volio(&["verify", &format!("{name}:v1")]).digest(), digest);
    let image = volio(&["doctor", "--format", "json", "--quiet", &format!("{name}:v1")]).succeeded();
    assert_eq!(findings(&image)("public").0, "warning", "{image}");
}

#[test]
#[ignore = "needs docker-registry: run tests/run"]
fn a_wrong_password_is_named() {
    let name = closed_repository("doctor");
    let host = name.split('/').next().expect("a host");
    let text = format!(r#"{{"auths":{{"{host}":{{"username":"me","password":"hunter2"}}}}}}"#);
    let output = finish(
        Command::new(env!("CARGO_BIN_EXE_volio")).args(["doctor", host]).env("DOCKER_AUTH_CONFIG", text),
    )
    .failed_with(1);
    assert!(output.contains("it rejects the credentials in DOCKER_AUTH_CONFIG: 401"), "{output}");
    assert!(!output.contains("hunter2"), "{output}");
}

#[test]
#[ignore = "needs docker-registry and openssl: run tests/run"]
fn an_authority_that_is_not_known_and_plain_http_are_named() {
    let name = encrypted_repository("doctor");
    let host = name.split('/').next().expect("a host");
    let unknown = volio(&["doctor", "--tls-verify", host]).failed_with(1);
    assert!(unknown.contains("tls: ") && unknown.contains("is not trusted on this machine"), "{unknown}");
    let plain = volio(&["doctor", host]).failed_with(1);
    assert!(plain.contains("it speaks TLS, and was contacted with plain HTTP"), "{plain}");
    let known = volio(&["doctor", "--ca-file", &authority(), "--verbose", host]).succeeded();
    assert!(known.contains("its certificate is trusted"), "{known}");
}
