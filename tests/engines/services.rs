//! The addresses of the services that `tests/run` started.

use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Returns the value of a variable of `tests/run`.
fn given(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: this test needs what tests/run starts"))
}

/// A repository for one test, in the registry without authentication.
pub fn repository(test: &str) -> String {
    format!("{}/{test}", given("VOLIO_TEST_REGISTRY"))
}

/// A repository in a second registry without authentication.
pub fn second_repository(test: &str) -> String {
    format!("{}/{test}", given("VOLIO_TEST_REGISTRY_SECOND"))
}

/// The tree with the programs of Debian 13, for `chroot`. The temporary directories of tests are in it too.
pub fn debian13() -> String {
    given("VOLIO_TEST_DEBIAN13")
}

/// The modules of `@sigstore/verify`, for `NODE_PATH`.
pub fn sigstore_verify() -> String {
    given("VOLIO_TEST_SIGSTORE_VERIFY")
}

/// Fetches `/v2/NAME/PATH` from the registry of a repository, with plain HTTP and nothing of volio.
pub fn get(repository: &str, path: &str) -> Vec<u8> {
    let (address, name) = repository.split_once('/').expect("a repository with a host");
    let mut stream = TcpStream::connect(address).expect("the registry listens");
    let accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, */*";
    write!(stream, "GET /v2/{name}/{path} HTTP/1.0\r\nHost: {address}\r\nAccept: {accept}\r\n\r\n")
        .expect("the registry reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the registry answers");
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("the end of the header");
    let body = answer.split_off(end + 4);
    let header = String::from_utf8_lossy(&answer);
    assert!(header.split_whitespace().nth(1) == Some("200"), "{repository} {path}: {header}");
    body
}

/// A repository in the registry that requires a user and a password.
pub fn closed_repository(test: &str) -> String {
    format!("{}/{test}", given("VOLIO_TEST_REGISTRY_AUTH"))
}

/// A repository in the registry with TLS, which requires a user and a password too.
pub fn encrypted_repository(test: &str) -> String {
    format!("{}/{test}", given("VOLIO_TEST_REGISTRY_TLS"))
}

/// The certificate of the authority of that registry.
pub fn authority() -> String {
    given("VOLIO_TEST_REGISTRY_CA")
}

/// Repositories in the registries with unusual certificates, each with the certificate to trust: a self-signed one,
/// and one with P-521 keys and critical policies.
pub fn unusually_encrypted_repositories(test: &str) -> [(String, String); 2] {
    ["SELF_SIGNED", "P521"].map(|name| {
        let variable = format!("VOLIO_TEST_REGISTRY_{name}");
        (format!("{}/{test}", given(&variable)), given(&format!("{variable}_CA")))
    })
}

/// A repository in the registry without authentication, through an nginx with a body limit of 1 MiB.
pub fn small_body_repository(test: &str) -> String {
    format!("{}/{test}", given("VOLIO_TEST_REGISTRY_SMALL_BODY"))
}

/// The user and the password of the registries that require them.
pub fn credentials() -> (String, String) {
    (given("VOLIO_TEST_REGISTRY_USER"), given("VOLIO_TEST_REGISTRY_PASSWORD"))
}

/// The socket of dockerd, for `DOCKER_HOST`.
pub fn docker_host() -> String {
    given("VOLIO_TEST_DOCKER_HOST")
}

/// The socket of containerd, for `ctr --address`.
pub fn containerd() -> String {
    given("VOLIO_TEST_CONTAINERD")
}

/// The storage directory of the registry without authentication.
pub fn registry_storage() -> PathBuf {
    PathBuf::from(given("VOLIO_TEST_REGISTRY_STORAGE"))
}

/// The file in which that registry stores a blob.
pub fn stored_blob(digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").expect("a sha256 digest");
    let blobs = registry_storage().join("docker/registry/v2/blobs/sha256");
    blobs.join(&hex[..2]).join(hex).join("data")
}

/// The requests for URLs below `path` up to now, as lines of the access log of the registry without authentication.
///
/// A request is logged after its response. So another request is made, and when the log has that one, it has all earlier
/// ones.
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
