//! `volio unpack`.

use super::Place;
use snapbox::{assert_data_eq, str};
use std::fs;

#[test]
fn an_image_becomes_a_directory() {
    let place = Place::with_image();
    assert_data_eq!(place.screen("unpack oci:layout:v1 restored"), str![]);
    assert_eq!(fs::read_to_string(place.path().join("restored/hello")).unwrap(), "hello\n");
}

#[test]
fn the_result_as_json_is_one_document() {
    let place = Place::with_image();
    assert_data_eq!(
        place.screen("unpack --platform linux/amd64 --format json --quiet oci:layout:v1 restored"),
        str![]
    );
}

#[test]
fn a_target_that_holds_something() {
    let place = Place::with_image();
    assert_data_eq!(place.screen("unpack oci:layout:v1 tree"), str![]);
}

#[test]
fn a_layout_that_is_not_there() {
    assert_data_eq!(Place::new().screen("unpack oci:nowhere:v1 restored"), str![]);
}

#[test]
fn a_tag_that_is_not_there() {
    assert_data_eq!(Place::with_image().screen("unpack oci:layout:v2 restored"), str![]);
}

#[test]
fn a_platform_that_the_image_is_not_for() {
    let place = Place::with_image();
    assert_data_eq!(place.screen("unpack --platform linux/s390x oci:layout:v1 restored"), str![]);
}

#[test]
fn a_layer_that_is_not_what_its_digest_says() {
    let place = Place::with_image();
    let largest = place.blobs().into_iter().max_by_key(|blob| blob.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    assert_data_eq!(place.screen("unpack oci:layout:v1 restored"), str![]);
}

#[test]
fn a_registry_that_is_not_there() {
    assert_data_eq!(Place::new().screen("unpack localhost:1/data:v1 restored"), str![]);
}
