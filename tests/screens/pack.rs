//! `volio pack`.

use super::Place;
use snapbox::{assert_data_eq, str};
use std::fs;

#[test]
fn a_directory_becomes_an_image() {
    assert_data_eq!(Place::with_tree().screen("pack oci:layout:v1 tree"), str![]);
}

#[test]
fn the_result_as_json_is_one_document() {
    let place = Place::with_tree();
    assert_data_eq!(place.screen("pack --quiet --format json --normalize oci:layout:v1 tree"), str![]);
}

#[test]
fn the_same_tree_has_the_same_digest() {
    let place = Place::with_tree();
    let digest = |file: &str| fs::read_to_string(place.path().join(file)).unwrap();
    place.screen("pack --digestfile first oci:a tree");
    place.screen("pack --digestfile second oci:b tree");
    assert!(digest("first").starts_with("sha256:") && digest("first").len() == 71, "{}", digest("first"));
    assert_eq!(digest("first"), digest("second"));
}

#[test]
fn a_source_that_is_not_there() {
    assert_data_eq!(Place::new().screen("pack oci:layout:v1 nowhere"), str![]);
}

#[test]
fn sources_that_collide() {
    let place = Place::with_tree();
    fs::write(place.path().join("hello"), "another").unwrap();
    assert_data_eq!(place.screen("pack oci:layout:v1 tree hello"), str![]);
    assert!(!place.path().join("layout/index.json").exists(), "nothing is published");
}

#[test]
fn no_source() {
    assert_data_eq!(Place::new().screen("pack oci:layout:v1"), str![]);
}

#[test]
fn a_reference_that_does_not_parse() {
    assert_data_eq!(Place::with_tree().screen("pack localhost:5000/UPPER tree"), str![]);
}

#[test]
fn a_digest_is_no_name_to_write_to() {
    let digest = "a".repeat(64);
    let place = Place::with_tree();
    assert_data_eq!(place.screen(&format!("pack localhost:5000/data@sha256:{digest} tree")), str![]);
}

#[test]
fn a_transport_that_is_not_built() {
    assert_data_eq!(Place::with_tree().screen("pack docker-archive:image.tar tree"), str![]);
}

#[test]
fn a_path_that_leads_out_of_the_image() {
    assert_data_eq!(Place::with_tree().screen("pack oci:layout:v1 tree:/../etc"), str![]);
}

#[test]
fn a_platform_that_is_none() {
    assert_data_eq!(Place::with_tree().screen("pack --platform amd64 oci:layout:v1 tree"), str![]);
}

#[test]
fn a_compression_that_is_none() {
    assert_data_eq!(Place::with_tree().screen("pack --compression lz4 oci:layout:v1 tree"), str![]);
    assert_data_eq!(Place::with_tree().screen("pack --compression gzip:99 oci:layout:v1 tree"), str![]);
}

#[test]
fn a_label_without_a_value() {
    assert_data_eq!(Place::with_tree().screen("pack --label stage oci:layout:v1 tree"), str![]);
}

#[test]
fn an_entrypoint_that_is_half_an_array() {
    assert_data_eq!(Place::with_tree().screen("pack --entrypoint [\"/bin/sh\" oci:layout:v1 tree"), str![]);
}

#[test]
fn a_directory_to_start_in_that_is_relative() {
    assert_data_eq!(Place::with_tree().screen("pack --workdir data oci:layout:v1 tree"), str![]);
}

#[test]
fn a_source_date_epoch_that_is_no_number() {
    let place = Place::with_tree();
    let mut volio = place.volio("pack oci:layout:v1 tree");
    volio.env("SOURCE_DATE_EPOCH", "yesterday");
    assert_data_eq!(place.screen_of(volio), str![]);
}

#[test]
fn an_authfile_that_is_not_there() {
    let place = Place::with_tree();
    assert_data_eq!(place.screen("pack --authfile nowhere.json localhost:1/data:v1 tree"), str![]);
}

#[test]
fn a_registry_that_is_not_there() {
    assert_data_eq!(Place::with_tree().screen("pack localhost:1/data:v1 tree"), str![]);
}
