//! `volio ls`.

use super::Place;
use snapbox::{assert_data_eq, str};
use std::fs;
use std::os::unix::fs::symlink;

#[test]
fn everything_in_an_image() {
    assert_data_eq!(Place::with_image().screen("ls oci:layout:v1"), str![]);
}

#[test]
fn everything_below_a_path_with_its_metadata() {
    assert_data_eq!(Place::with_image().screen("ls -l oci:layout:v1 etc"), str![]);
}

#[test]
fn the_listing_as_json_is_one_document() {
    assert_data_eq!(Place::with_image().screen("ls --format json oci:layout:v1 /etc/hosts"), str![]);
}

#[test]
fn names_that_a_terminal_would_obey() {
    let place = Place::with_tree();
    fs::write(place.path().join("tree/etc/\x1b[31mred\n"), "").unwrap();
    symlink("\x1b[2J", place.path().join("tree/link")).unwrap();
    place.screen("pack --normalize oci:layout:v1 tree");
    assert_data_eq!(place.screen("ls -l oci:layout:v1"), str![]);
}

#[test]
fn a_path_that_is_not_in_the_image() {
    assert_data_eq!(Place::with_image().screen("ls oci:layout:v1 /var"), str![]);
}

#[test]
fn a_path_that_leads_out() {
    assert_data_eq!(Place::with_image().screen("ls oci:layout:v1 /../etc"), str![]);
}
