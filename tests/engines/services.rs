//! Where the services are that `tests/run` started.

use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The value that `tests/run` has set.
fn given(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: this test needs what tests/run starts"))
}

/// A repository of its own for one test, in the registry that asks nobody's name.
pub fn repository(test: &str) -> String {
    format!("{}/{test}", given("VOLIO_TEST_REGISTRY"))
}

/// The same in the registry that wants a user and a password.
pub fn closed_repository(test: &str) -> String {
    format!("{}/{test}", given("VOLIO_TEST_REGISTRY_AUTH"))
}

/// The same in the registry that is only to be had encrypted, and wants them too.
pub fn encrypted_repository(test: &str) -> String {
    format!("{}/{test}", given("VOLIO_TEST_REGISTRY_TLS"))
}

/// The certificate of the authority that vouches for it.
pub fn authority() -> String {
    given("VOLIO_TEST_REGISTRY_CA")
}

/// The same in the registries whose certificates are unusual, each with the certificate to name for it: one that has
/// signed itself, and one of P-521 keys with critical policies.
pub fn unusually_encrypted_repositories(test: &str) -> [(String, String); 2] {
    ["SELF_SIGNED", "P521"].map(|name| {
        let variable = format!("VOLIO_TEST_REGISTRY_{name}");
        (format!("{}/{test}", given(&variable)), given(&format!("{variable}_CA")))
    })
}

/// The same in the open registry behind an nginx that takes bodies of 1 MiB only.
pub fn small_body_repository(test: &str) -> String {
    format!("{}/{test}", given("VOLIO_TEST_REGISTRY_SMALL_BODY"))
}

/// User and password for it.
pub fn credentials() -> (String, String) {
    (given("VOLIO_TEST_REGISTRY_USER"), given("VOLIO_TEST_REGISTRY_PASSWORD"))
}

/// The socket of dockerd, as `DOCKER_HOST` wants it.
pub fn docker_host() -> String {
    given("VOLIO_TEST_DOCKER_HOST")
}

/// The socket of containerd, as `ctr --address` wants it.
pub fn containerd() -> String {
    given("VOLIO_TEST_CONTAINERD")
}

/// The directory in which the open registry keeps everything.
pub fn registry_storage() -> PathBuf {
    PathBuf::from(given("VOLIO_TEST_REGISTRY_STORAGE"))
}

/// Where the open registry keeps the bytes of a blob.
pub fn stored_blob(digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
    let blobs = registry_storage().join("docker/registry/v2/blobs/sha256");
    blobs.join(&hex[..2]).join(hex).join("data")
}

/// The lines of the open registry's access log that ask for something below `path`, up to now.
///
/// A request is logged only after it was answered, so a request of our own goes behind all others, and once that one
/// is in the log the others are.
pub fn requests_below(path: &str) -> Vec<String> {
    let address = given("VOLIO_TEST_REGISTRY");
    let marker = format!("/v2/marker-{:?}-{}/tags/list", Instant::now(), std::process::id())
        .replace([' ', '{', '}', ':', ','], "");
    let mut stream = TcpStream::connect(&address).expect("the registry listens");
    write!(stream, "GET {marker} HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("the registry reads");
    stream.read_to_end(&mut Vec::new()).expect("the registry answers");

    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let log = std::fs::read_to_string(given("VOLIO_TEST_REGISTRY_LOG")).expect("the registry's log");
        // The access log, not the structured one: `127.0.0.1 - - [date] "METHOD PATH HTTP/1.1" STATUS …`.
        let access: Vec<&str> = log.lines().filter(|line| line.starts_with("127.0.0.1 ")).collect();
        if access.iter().any(|line| line.contains(&marker)) {
            let wanted = format!(" {path}");
            return access
                .iter()
                .filter(|line| line.contains(&wanted))
                .map(|line| (*line).to_owned())
                .collect();
        }
        assert!(Instant::now() < deadline, "the registry does not log our request {marker}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
