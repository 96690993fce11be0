//! Signatures that skopeo made.

use std::fs;

use super::debian13::Debian13;
use super::{SIGNER, manifests, pack, parse, public, sign, signed_by};
use crate::engines::program::volio;
use crate::engines::services::repository;

const PASSPHRASE: &str = "correct horse";

/// A key pair of skopeo, whose private key is encrypted in the form of cosign.
struct KeyPair {
    private: String,
    public: String,
    passphrase: String,
}

impl KeyPair {
    fn generate(programs: &Debian13) -> Self {
        let (prefix, passphrase) = (programs.file("skopeo"), programs.file("passphrase"));
        fs::write(&passphrase, PASSPHRASE).expect("write");
        let to = ["--output-prefix", &prefix, "--passphrase-file", &passphrase];
        programs.skopeo(&[&["generate-sigstore-key"], &to[..]].concat()).succeeded();
        Self { private: format!("{prefix}.private"), public: format!("{prefix}.pub"), passphrase }
    }

    /// Copies an image with skopeo and signs the copy. skopeo does not change what the destination has already.
    fn copy(&self, programs: &Debian13, from: &str, to: &str) {
        programs.require(&serde_json::json!({ "type": "insecureAcceptAnything" }));
        let key =
            ["--sign-by-sigstore-private-key", &self.private, "--sign-passphrase-file", &self.passphrase];
        programs.copy(&[&["--all"], &key[..]].concat(), from, to).succeeded();
    }
}

/// The number of simple signatures of each document of an image.
fn signature_counts(programs: &Debian13, image: &str, digest: &str) -> Vec<usize> {
    let (repository, _) = image.rsplit_once(':').expect("a tag");
    let documents = manifests(image).into_iter().chain([digest.to_owned()]);
    let layers = documents.map(|document| {
        let tag = format!("docker://{repository}:{}.sig", document.replace(':', "-"));
        let raw = parse(&programs.skopeo(&["inspect", "--raw", "--tls-verify=false", &tag]).succeeded());
        raw["layers"].as_array().map_or(0, Vec::len)
    });
    layers.collect()
}

#[test]
#[ignore = "needs docker-registry, Debian 13 and root: run tests/run"]
fn signatures_of_skopeo_and_of_volio_are_valid_beside_each_other_in_both_orders() {
    let programs = Debian13::new();
    let (pair, key) = (KeyPair::generate(&programs), programs.key(&public(SIGNER)));
    let unsigned = repository("signed-foreign/unsigned:v1");
    let digest = pack(&unsigned, "signed by two programs", &[]);
    for order in ["skopeo-first", "volio-first"] {
        let image = repository(&format!("signed-foreign/{order}:v1"));
        if order == "skopeo-first" {
            pair.copy(&programs, &unsigned, &image);
            assert_eq!(signature_counts(&programs, &image, &digest), [1, 1, 1]);
            sign(&image, SIGNER);
        } else {
            assert_eq!(volio(&["copy", &unsigned, &image]).digest(), digest);
            sign(&image, SIGNER);
            pair.copy(&programs, &unsigned, &image);
        }
        assert_eq!(signature_counts(&programs, &image, &digest), [2, 2, 2], "{order}");
        for signer in [&pair.public, &key] {
            programs.accept(&signed_by(signer), &image, "amd64");
            programs.accept(&signed_by(signer), &image, "arm64");
            programs.require(&signed_by(signer));
            programs.fetch_all(&image).succeeded();
        }
    }
}
