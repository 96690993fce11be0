//! Signatures of volio, judged by other programs, and signatures of other programs, judged by volio.
//!
//! skopeo and podman are those of Debian 13, because Debian 12 builds them without sigstore.

mod bundle;
mod carried;
mod debian13;
mod foreign;
mod policy;

use std::fs;

use super::fixture::Directory;
use super::program::volio;
use serde_json::{Value, json};

/// The path of the private key that signs. The public key has the same name and ends in `.pub`.
const SIGNER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/keys/signer.pem");
/// The path of another private key.
const OTHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/keys/other.pem");

/// The public key of a private one.
fn public(key: &str) -> String {
    key.replace(".pem", ".pub")
}

/// Packs an image for two platforms. Returns its digest.
///
/// The layers are compressed with gzip: where they are compressed with zstd, skopeo 1.18 adds an annotation to the index in
/// `copy --all`, and so cannot keep the digest.
fn pack(image: &str, content: &str, options: &[&str]) -> String {
    let source = Directory::empty();
    fs::write(source.path().join("file"), content).expect("write");
    volio(&[&["pack", "--compression", "gzip", image, source.text()], options].concat()).digest()
}

/// Signs an image.
fn sign(image: &str, key: &str) {
    volio(&["sign", image, "--key", key]).succeeded();
}

/// A requirement of a signature by this key, for the name by which the image is read.
fn signed_by(key: &str) -> Value {
    json!({ "type": "sigstoreSigned", "keyPath": key })
}

/// A requirement of a signature by this key, for a name that this rule accepts.
fn signed_as(key: &str, identity: Value) -> Value {
    json!({ "type": "sigstoreSigned", "keyPath": key, "signedIdentity": identity })
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The digests of the manifests of an image: those of its platforms.
fn manifests(image: &str) -> Vec<String> {
    let shown = parse(&volio(&["inspect", "--format", "json", image]).succeeded());
    let images = shown["images"].as_array().unwrap_or_else(|| panic!("{shown:#}"));
    images.iter().map(|image| image["digest"].as_str().expect("a digest").to_owned()).collect()
}

/// The name of an image by this digest.
fn by_digest(image: &str, digest: &str) -> String {
    let (repository, _) = image.rsplit_once(':').expect("a tag");
    format!("{repository}@{digest}")
}
