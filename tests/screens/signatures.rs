//! `volio sign`, and the options that require signatures.

use super::{Workspace, assert_screen};
use snapbox::str;
use std::fs;
use std::path::Path;

/// An image, and copies of the keys `signer` and `other`.
fn with_keys() -> Workspace {
    let place = Workspace::with_image();
    for name in ["signer.pem", "signer.pub", "other.pem", "other.pub"] {
        let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/keys").join(name);
        fs::copy(key, place.path().join(name)).unwrap();
    }
    place
}

fn signed() -> Workspace {
    with_keys().and("sign --key signer.pem --sign-identity registry.example/data:v1 oci:layout:v1")
}

#[test]
fn signing_an_image_in_a_layout() {
    assert_screen(
        with_keys().screen("sign --key signer.pem oci:layout:v1"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
warning: it is signed by bundles only: the signatures that podman and skopeo read need the name that the image has in a registry, which --sign-identity gives
signed 3 manifests and indexes: 3 signatures added
-- exit 0

"#]],
    );
}

#[test]
fn signing_for_a_name_as_json() {
    let arguments =
        "sign --key signer.pem --sign-identity registry.example/data:v1 --format json oci:layout:v1";
    assert_screen(
        with_keys().screen(arguments),
        str![[r#"
{
  "address": "oci:layout@sha256:[DIGEST]",
  "digest": "sha256:[DIGEST]",
  "signatures": {
    "documents": 3,
    "added": 6,
    "present": 0
  },
  "keyHint": "IaH5toDHBJtZRfJa1J/mFaESAUx6rGmuE7Z7dSxlzcA="
}
-- stderr
signed 3 manifests and indexes: 6 signatures added
-- exit 0

"#]],
    );
}

#[test]
fn signing_twice() {
    let arguments = "sign --key signer.pem --sign-identity registry.example/data:v1 oci:layout:v1";
    assert_screen(
        signed().screen(arguments),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
signed 3 manifests and indexes: 0 signatures added; 6 by this key were there already
-- exit 0

"#]],
    );
}

#[test]
fn signing_without_a_key() {
    assert_screen(
        with_keys().screen("sign oci:layout:v1"),
        str![[r#"
-- stderr
error: a key is needed
hint: give --key FILE, or set VOLIO_SIGN_KEY
-- exit 2

"#]],
    );
}

#[test]
fn signing_with_a_public_key() {
    assert_screen(
        with_keys().screen("sign --key signer.pub oci:layout:v1"),
        str![[r#"
-- stderr
error: cannot use the key signer.pub: this is a public key, which cannot sign
hint: give the private key
-- exit 2

"#]],
    );
}

#[test]
fn signing_with_an_encrypted_key_of_cosign() {
    let place = with_keys();
    let label = "ENCRYPTED SIGSTORE PRIVATE KEY";
    fs::write(
        place.path().join("cosign.key"),
        format!("-----BEGIN {label}-----\ne30=\n-----END {label}-----\n"),
    )
    .unwrap();
    assert_screen(
        place.screen("sign --key cosign.key oci:layout:v1"),
        str![[r#"
-- stderr
error: cannot use the key cosign.key: the key is encrypted in the form of cosign, which volio does not read
hint: docs/trust.md, "Keys of cosign", has the line that converts it to PKCS#8; cosign import-key-pair --key KEY.pem goes the other way
-- exit 2

"#]],
    );
}

#[test]
fn signing_for_something_that_is_not_a_name() {
    assert_screen(
        with_keys().screen("sign --key signer.pem --sign-identity UPPER/case oci:layout:v1"),
        str![[r#"
-- stderr
error: "UPPER/case" is not a reference to an image: a repository is words of lower-case letters and digits, joined by '/', '.', '_', '__' or '-'
hint: write HOST[:PORT]/REPOSITORY[:TAG][@DIGEST], or oci:DIRECTORY[:TAG]
-- exit 2

"#]],
    );
}

#[test]
fn signing_in_a_docker_archive() {
    assert_screen(
        with_keys().screen("sign --key signer.pem docker-archive:a.tar"),
        str![[r#"
-- stderr
error: docker-archive:a.tar cannot be signed: such an archive holds no signatures
hint: use an oci-archive, a layout or a registry
-- exit 2

"#]],
    );
}

#[test]
fn packing_and_signing() {
    let arguments =
        "pack --normalize --sign-key signer.pem --sign-identity registry.example/data:v1 oci:layout:v2 tree";
    assert_screen(
        with_keys().screen(arguments),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
packed 4 entries, 26 B into 1 layer of 462 B in [TIME]
signed 3 manifests and indexes: 6 signatures added
-- exit 0

"#]],
    );
}

#[test]
fn verifying_a_signed_image() {
    assert_screen(
        signed().screen("verify --key other.pub --key signer.pub oci:layout:v1"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
verified 6 blobs, 3.3 KiB of 2 images in [TIME]
its signatures satisfy what was required
-- exit 0

"#]],
    );
}

#[test]
fn verifying_an_image_that_another_key_has_signed() {
    assert_screen(
        signed().screen("verify --key other.pub oci:layout:v1"),
        str![[r#"
-- stderr
error: oci:layout:v1 is not signed as required: sha256:[DIGEST] has no signature that counts: signature in the .sig tag: it was made by another key; bundle with the key hint "IaH5toDHBJtZRfJa1J/mFaESAUx6rGmuE7Z7dSxlzcA=": it was made by another key
hint: the key hint of what is trusted: t3xTvqRTFBLbS1BEJgI19nle6pvMBTxqVxuPSU6bkJM=
-- exit 3

"#]],
    );
}

#[test]
fn unpacking_an_unsigned_image_where_a_variable_requires_a_signature() {
    let place = with_keys();
    let mut command = place.volio("unpack oci:layout:v1 target");
    command.env("VOLIO_VERIFY_KEY", "signer.pub");
    assert_screen(
        place.screen_of(command),
        str![[r#"
-- stderr
error: neither the index nor the manifest for the platform is signed as required: oci:layout:v1 is not signed: sha256:[DIGEST] has neither a .sig tag nor a bundle among its referrers
hint: volio sign adds signatures; volio copy --referrers carries them with an image
-- exit 3

"#]],
    );
    assert!(!place.path().join("target").exists());
}

#[test]
fn reading_an_image_by_a_policy_that_rejects_it() {
    let place = signed();
    fs::write(place.path().join("policy.json"), r#"{"default":[{"type":"reject"}]}"#).unwrap();
    assert_screen(
        place.screen("ls --policy policy.json oci:layout:v1"),
        str![[r#"
-- stderr
error: neither the index nor the manifest for the platform is signed as required: the policy rejects oci:layout:v1
-- exit 3

"#]],
    );
}

#[test]
fn a_policy_and_a_key_at_once() {
    assert_screen(
        signed().screen("cat --policy policy.json --verify-key signer.pub oci:layout:v1 /file"),
        str![[r#"
-- stderr
error: the argument '--policy <FILE>' cannot be used with '--verify-key <FILE>'

Usage: volio cat --policy <FILE> <IMAGE> <PATH>...

For more information, try '--help'.
-- exit 2

"#]],
    );
}

#[test]
fn the_standard_input_as_key_and_as_archive_at_once() {
    assert_screen(
        with_keys().screen("pack --sign-key - oci:layout:v2 -"),
        str![[r#"
-- stderr
error: standard input cannot be a source and the key at the same time
hint: give --sign-key a file
-- exit 2

"#]],
    );
}

#[test]
fn a_private_key_in_a_variable_is_not_printed() {
    let place = with_keys();
    let mut command = place.volio("pack oci:layout:v2 tree");
    command.env("VOLIO_SIGN_KEY", fs::read_to_string(place.path().join("signer.pem")).unwrap());
    assert_screen(
        place.screen_of(command),
        str![[r#"
-- stderr
error: a key was given, and the name of a file with it is needed
hint: write the key to a file that only you can read, and give its name
-- exit 2

"#]],
    );
}

#[test]
fn a_variable_for_the_file_of_a_key_is_the_same_as_the_one_for_the_key() {
    let place = with_keys();
    for command in ["verify oci:layout:v1", "ls oci:layout:v1"] {
        let mut command = place.volio(command);
        command.env("VOLIO_VERIFY_KEY_FILE", "signer.pub");
        assert_eq!(command.output().unwrap().status.code(), Some(3));
    }
    let mut command = place.volio("sign --sign-identity registry.example/data:v1 oci:layout:v1");
    command.env("VOLIO_SIGN_KEY_FILE", "signer.pem");
    assert_eq!(command.output().unwrap().status.code(), Some(0));
    let mut command = place.volio("verify oci:layout:v1");
    command.env("VOLIO_VERIFY_KEY_FILE", "signer.pub");
    assert_eq!(command.output().unwrap().status.code(), Some(0));
}
