//! Bundles, verified by openssl, by the verifier of Sigstore for JavaScript, and by cosign where it is installed.
//!
//! The bundles are found and read without volio's own code: the list of referrers in the tag of the specification, and plain HTTP.

use std::fs;
use std::process::Command;

use super::{OTHER, SIGNER, by_digest, manifests, pack, parse, public, sign};
use crate::engines::fixture::Directory;
use crate::engines::program::{Finished, finish, tool};
use crate::engines::services::{get, repository, sigstore_verify};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// The bundles of the document `REPOSITORY@DIGEST`.
///
/// Debian's registry has no list of referrers: they are in an index with the digest as its tag.
pub fn bundles(document: &str) -> Vec<Vec<u8>> {
    let (repository, digest) = document.split_once('@').expect("a digest");
    let index = get(repository, &format!("manifests/{}", digest.replace(':', "-")));
    let index = parse(&String::from_utf8(index).expect("UTF-8"));
    let entries = index["manifests"].as_array().unwrap_or_else(|| panic!("{index:#}"));
    let entries = entries.iter().filter(|entry| entry["artifactType"] == BUNDLE);
    let read = entries.map(|entry| {
        let manifest = get(repository, &format!("manifests/{}", entry["digest"].as_str().expect("a digest")));
        let manifest = parse(&String::from_utf8(manifest).expect("UTF-8"));
        assert_eq!(manifest["artifactType"], BUNDLE);
        assert_eq!(manifest["subject"]["digest"], digest);
        let layers = manifest["layers"].as_array().expect("layers");
        assert_eq!((layers.len(), &layers[0]["mediaType"]), (1, &BUNDLE.into()));
        let layer = layers[0]["digest"].as_str().expect("a digest");
        let blob = get(repository, &format!("blobs/{layer}"));
        let hash: String = Sha256::digest(&blob).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(format!("sha256:{hash}"), layer);
        blob
    });
    read.collect()
}

/// The index and the manifests of a new image, each as `REPOSITORY@DIGEST` with its digest in hexadecimal.
fn signed_documents(name: &str, key: &str) -> Vec<(String, String)> {
    let image = repository(name);
    let digest = pack(&image, name, &[]);
    sign(&image, key);
    let documents = manifests(&image).into_iter().chain([digest]);
    documents.map(|digest| (by_digest(&image, &digest), digest.replace("sha256:", ""))).collect()
}

/// Verifies the signature of an envelope with openssl, over the pre-authentication encoding of DSSE.
fn openssl(key: &str, kind: &str, payload: &[u8], signature: &[u8]) -> Finished {
    let work = Directory::empty();
    let mut encoded = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    encoded.extend(payload);
    fs::write(work.path().join("pae"), encoded).expect("write");
    fs::write(work.path().join("signature"), signature).expect("write");
    let (pae, signature) = (work.join("pae"), work.join("signature"));
    let verify = ["dgst", "-sha256", "-verify", key, "-signature", &signature, &pae];
    finish(Command::new("openssl").args(verify))
}

#[test]
#[ignore = "needs docker-registry and openssl: run tests/run"]
fn openssl_verifies_the_bundles_of_the_index_and_of_each_platform() {
    let documents = signed_documents("signed-openssl:v1", SIGNER);
    assert_eq!(documents.len(), 3);
    for (document, hex) in documents {
        let found = bundles(&document);
        assert_eq!(found.len(), 1, "{document}");
        let bundle = parse(&String::from_utf8(found[0].clone()).expect("UTF-8"));
        let envelope = &bundle["dsseEnvelope"];
        let kind = envelope["payloadType"].as_str().expect("a type");
        assert_eq!(kind, "application/vnd.in-toto+json");
        let decode = |value: &Value| BASE64_STANDARD.decode(value.as_str().expect("text")).expect("base64");
        let (payload, signature) = (decode(&envelope["payload"]), decode(&envelope["signatures"][0]["sig"]));
        let expected = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "digest": { "sha256": hex } }],
            "predicateType": "https://sigstore.dev/cosign/sign/v1",
            "predicate": {},
        });
        assert_eq!(serde_json::from_slice::<Value>(&payload).expect("JSON"), expected);

        let key = public(SIGNER);
        openssl(&key, kind, &payload, &signature).succeeded();
        openssl(&public(OTHER), kind, &payload, &signature).failed_with(1);
        openssl(&key, "text/plain", &payload, &signature).failed_with(1);
        let mut changed = payload.clone();
        changed[60] ^= 1;
        openssl(&key, kind, &changed, &signature).failed_with(1);

        // The hint names the key.
        let der = Directory::empty();
        let file = der.join("der");
        tool("openssl", &["pkey", "-pubin", "-in", &key, "-outform", "DER", "-out", &file]);
        let hint = BASE64_STANDARD.encode(Sha256::digest(fs::read(&file).expect("a key")));
        assert_eq!(bundle["verificationMaterial"]["publicKey"]["hint"], hint);
    }
}

#[test]
#[ignore = "needs docker-registry and @sigstore/verify: run tests/run"]
fn sigstore_verify_accepts_the_bundles() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines/signatures/verify_bundle.js");
    let work = Directory::empty();
    let verify = |bundle: &[u8], key: &str| {
        fs::write(work.path().join("bundle"), bundle).expect("write");
        let mut node = Command::new("node");
        finish(node.args([script, &work.join("bundle"), key]).env("NODE_PATH", sigstore_verify()))
    };
    for (document, hex) in signed_documents("signed-sigstore-verify:v1", SIGNER) {
        let found = bundles(&document);
        assert_eq!(verify(&found[0], &public(SIGNER)).succeeded(), hex);
        let shown = verify(&found[0], &public(OTHER)).failed_with(1);
        assert!(shown.contains("SIGNATURE_ERROR"), "{shown}");
        let mut changed = parse(&String::from_utf8(found[0].clone()).expect("UTF-8"));
        let payload = changed["dsseEnvelope"]["payload"].as_str().expect("text").replacen("eyJ", "eyI", 1);
        changed["dsseEnvelope"]["payload"] = payload.into();
        let shown = verify(changed.to_string().as_bytes(), &public(SIGNER)).failed_with(1);
        assert!(shown.contains("SIGNATURE_ERROR"), "{shown}");
    }
}

#[test]
#[ignore = "needs docker-registry and cosign: run tests/run"]
fn cosign_verifies_an_image() {
    let documents = signed_documents("signed-cosign:v1", SIGNER);
    let verify = |document: &str, key: &str| {
        let mut cosign = Command::new("cosign");
        // Without a transparency log, cosign asks for a flag that says so.
        cosign.args([
            "verify",
            "--insecure-ignore-tlog=true",
            "--allow-http-registry",
            "--key",
            key,
            document,
        ]);
        finish(&mut cosign)
    };
    for (document, _) in documents {
        verify(&document, &public(SIGNER)).succeeded();
        let refused = verify(&document, &public(OTHER));
        assert!(!refused.is_success(), "{refused}");
    }
}
