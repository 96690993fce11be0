//! A real registry with TLS and a certificate made by openssl.

use std::fs;
use std::process::Command;

use super::fixture::Directory;
use super::program::{Finished, finish};
use super::services::{authority, credentials, encrypted_repository, unusually_encrypted_repositories};
use super::survey::Survey;

/// Runs volio with the registry's password and another home directory.
fn volio(home: &Directory, arguments: &[&str]) -> Finished {
    let host = encrypted_repository("");
    let (user, password) = credentials();
    let entry = format!(r#""username": "{user}", "password": "{password}""#);
    let text = format!(r#"{{"auths": {{"{}": {{{entry}}}}}}}"#, host.trim_end_matches('/'));
    finish(
        Command::new(env!("CARGO_BIN_EXE_volio"))
            .args(arguments)
            .env("HOME", home.path())
            .env("DOCKER_AUTH_CONFIG", text),
    )
}

#[test]
#[ignore = "needs docker-registry and openssl: run tests/run"]
fn a_tree_is_restored_from_a_registry_with_tls_and_a_named_authority() {
    let (home, source, target) = (Directory::empty(), Directory::filled(), Directory::empty());
    let (image, ca) = (encrypted_repository("tree:1"), authority());
    volio(&home, &["pack", "--ca-file", &ca, &image, source.text()]).succeeded();
    volio(&home, &["unpack", "--ca-file", &ca, &image, target.text()]).succeeded();
    Survey::of(source.path()).assert_same(&Survey::of(target.path()));
}

#[test]
#[ignore = "needs docker-registry and openssl: run tests/run"]
fn an_authority_in_certs_d_is_trusted_and_no_other() {
    let (home, source) = (Directory::empty(), Directory::filled());
    let image = encrypted_repository("certs-d:1");
    let output = volio(&home, &["pack", "--tls-verify", &image, source.text()]).failed_with(1);
    assert!(output.contains("is not trusted"), "{output}");
    // Without an option, plain HTTP is used on the loopback interface, and the registry rejects it.
    let output = volio(&home, &["pack", &image, source.text()]).failed_with(1);
    assert!(output.contains("--tls-verify"), "{output}");

    let own =
        home.path().join(".config/containers/certs.d").join(encrypted_repository("").trim_end_matches('/'));
    fs::create_dir_all(&own).expect("mkdir");
    fs::copy(authority(), own.join("ca.crt")).expect("cp");
    volio(&home, &["pack", &image, source.text()]).succeeded();
}

#[test]
#[ignore = "needs docker-registry and openssl: run tests/run"]
fn certificates_that_openssl_and_go_accept_are_accepted() {
    let (home, source) = (Directory::empty(), Directory::filled());
    for (image, ca) in unusually_encrypted_repositories("certificates:1") {
        let target = Directory::empty();
        volio(&home, &["pack", "--ca-file", &ca, &image, source.text()]).succeeded();
        volio(&home, &["unpack", "--ca-file", &ca, &image, target.text()]).succeeded();
        Survey::of(source.path()).assert_same(&Survey::of(target.path()));
        let output = volio(&home, &["ls", "--tls-verify", &image]).failed_with(1);
        assert!(output.contains("is not trusted on this machine"), "{output}");
    }
}
