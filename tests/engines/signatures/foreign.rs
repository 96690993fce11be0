//! Signatures and keys that skopeo made.

use std::fs;
use std::process::Command;

use super::debian13::Debian13;
use super::{OTHER, SIGNER, manifests, pack, parse, public, sign, signed_by};
use crate::engines::program::{finish, volio};
use crate::engines::services::repository;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

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
            volio(&["verify", &image, "--key", &pair.public]).digest();
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
            let policy = programs.require(&signed_by(signer));
            programs.fetch_all(&image).succeeded();
            for required in [["--key", signer], ["--policy", &policy]] {
                volio(&[&["verify", &image], &required[..]].concat()).digest();
            }
        }
        let other = programs.key(&public(OTHER));
        let policy = programs.require(&signed_by(&other));
        for required in [["--key", &other], ["--policy", &policy]] {
            let shown = volio(&[&["verify", &image], &required[..]].concat()).failed_with(3);
            assert!(shown.contains("it was made by another key"), "{shown}");
        }
    }
}

/// The script in `docs/trust.md` that converts a key.
fn documented_conversion() -> String {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/trust.md")).expect("a page");
    let (_, section) = page.split_once("\n## Keys of cosign\n").expect("the section");
    let (_, script) = section.split_once("```sh\n").expect("a script");
    let (script, _) = script.split_once("```\n").expect("the end of the script");
    script.to_owned()
}

#[test]
#[ignore = "needs docker-registry, python3-nacl, Debian 13 and root: run tests/run"]
fn an_encrypted_key_of_cosign_is_refused_and_converted_by_the_script_of_the_documents() {
    let programs = Debian13::new();
    let pair = KeyPair::generate(&programs);
    let image = repository("signed-converted:v1");
    pack(&image, "a converted key", &[]);
    let shown = volio(&["sign", &image, "--key", &pair.private]).failed_with(2);
    assert!(shown.contains("\"Keys of cosign\""), "{shown}");

    fs::copy(&pair.private, programs.file("cosign.key")).expect("copy");
    let convert = |passphrase: &str| {
        let mut sh = Command::new("sh");
        // Debian's own Python, which has Debian's modules.
        sh.env("PATH", "/usr/bin:/bin").env("COSIGN_PASSWORD", passphrase);
        sh.args(["-euc", &format!("cd '{}'\n{}", programs.file(""), documented_conversion())]);
        finish(&mut sh)
    };
    let shown = convert("another").failed_with(1);
    assert!(!fs::exists(programs.file("release.pem")).expect("stat"), "nothing is written: {shown}");
    convert(PASSPHRASE).succeeded();
    let mode =
        std::os::unix::fs::MetadataExt::mode(&fs::metadata(programs.file("release.pem")).expect("a key"));
    assert_eq!(mode & 0o777, 0o600);
    sign(&image, &programs.file("release.pem"));
    programs.accept(&signed_by(&pair.public), &image, "amd64");
    let other = programs.key(&public(OTHER));
    programs.refuse(&signed_by(&other), &image, "amd64", "cryptographic signature verification failed");
    let encrypted = fs::read_to_string(&pair.private).expect("a key");
    let body: String = encrypted.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(BASE64_STANDARD.decode(body).expect("base64").starts_with(b"{\"kdf\""));
}
