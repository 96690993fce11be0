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
    assert_screen(with_keys().screen("sign --key signer.pem oci:layout:v1"), str![]);
}

#[test]
fn signing_for_a_name_as_json() {
    let arguments =
        "sign --key signer.pem --sign-identity registry.example/data:v1 --format json oci:layout:v1";
    assert_screen(with_keys().screen(arguments), str![]);
}

#[test]
fn signing_twice() {
    let arguments = "sign --key signer.pem --sign-identity registry.example/data:v1 oci:layout:v1";
    assert_screen(signed().screen(arguments), str![]);
}

#[test]
fn signing_without_a_key() {
    assert_screen(with_keys().screen("sign oci:layout:v1"), str![]);
}

#[test]
fn signing_with_a_public_key() {
    assert_screen(with_keys().screen("sign --key signer.pub oci:layout:v1"), str![]);
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
    assert_screen(place.screen("sign --key cosign.key oci:layout:v1"), str![]);
}

#[test]
fn signing_for_something_that_is_not_a_name() {
    assert_screen(
        with_keys().screen("sign --key signer.pem --sign-identity UPPER/case oci:layout:v1"),
        str![],
    );
}

#[test]
fn signing_in_a_docker_archive() {
    assert_screen(with_keys().screen("sign --key signer.pem docker-archive:a.tar"), str![]);
}

#[test]
fn packing_and_signing() {
    let arguments = "pack --sign-key signer.pem --sign-identity registry.example/data:v1 oci:layout:v2 tree";
    assert_screen(with_keys().screen(arguments), str![]);
}

#[test]
fn verifying_a_signed_image() {
    assert_screen(signed().screen("verify --key other.pub --key signer.pub oci:layout:v1"), str![]);
}

#[test]
fn verifying_an_image_that_another_key_has_signed() {
    assert_screen(signed().screen("verify --key other.pub oci:layout:v1"), str![]);
}

#[test]
fn unpacking_an_unsigned_image_where_a_variable_requires_a_signature() {
    let place = with_keys();
    let mut command = place.volio("unpack oci:layout:v1 target");
    command.env("VOLIO_VERIFY_KEY", "signer.pub");
    assert_screen(place.screen_of(command), str![]);
    assert!(!place.path().join("target").exists());
}

#[test]
fn reading_an_image_by_a_policy_that_rejects_it() {
    let place = signed();
    fs::write(place.path().join("policy.json"), r#"{"default":[{"type":"reject"}]}"#).unwrap();
    assert_screen(place.screen("ls --policy policy.json oci:layout:v1"), str![]);
}

#[test]
fn a_policy_and_a_key_at_once() {
    assert_screen(
        signed().screen("cat --policy policy.json --verify-key signer.pub oci:layout:v1 /file"),
        str![],
    );
}

#[test]
fn the_standard_input_as_key_and_as_archive_at_once() {
    assert_screen(with_keys().screen("pack --sign-key - oci:layout:v2 -"), str![]);
}
