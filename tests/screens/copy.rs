//! `volio copy`, `volio push` and `volio pull`.

use super::Place;
use snapbox::{assert_data_eq, str};

#[test]
fn an_image_goes_from_layout_to_layout() {
    let place = Place::with_image();
    assert_data_eq!(place.screen("copy oci:layout:v1 oci:copy:v1"), str![]);
    assert_data_eq!(place.screen("copy oci:layout:v1 oci:copy:v2"), str![]);
}

#[test]
fn the_result_as_json_is_one_document() {
    assert_data_eq!(
        Place::with_image().screen("copy --quiet --format json oci:layout:v1 oci:copy:v1"),
        str![]
    );
}

#[test]
fn an_image_that_is_not_there() {
    assert_data_eq!(Place::with_image().screen("copy oci:layout:v2 oci:copy:v2"), str![]);
}

#[test]
fn a_push_goes_to_a_registry() {
    assert_data_eq!(Place::with_image().screen("push oci:layout:v1 oci:copy:v1"), str![]);
}

#[test]
fn a_pull_comes_from_a_registry() {
    assert_data_eq!(Place::with_image().screen("pull oci:layout:v1 oci:copy:v1"), str![]);
}

#[test]
fn a_registry_that_is_not_there() {
    assert_data_eq!(Place::with_image().screen("push oci:layout:v1 localhost:1/data:v1"), str![]);
    assert_data_eq!(Place::with_image().screen("pull localhost:1/data:v1 oci:copy:v1"), str![]);
}
