//! `volio copy`, `volio push` and `volio pull`.

use super::{Place, assert_screen};
use snapbox::str;

#[test]
fn an_image_goes_from_layout_to_layout() {
    let place = Place::with_image();
    assert_screen(
        place.screen("copy oci:layout:v1 oci:copy:v1"),
        str![[r#"
oci:copy@sha256:[DIGEST]
-- stderr
copied 3 blobs, 735 B in [TIME]
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("copy oci:layout:v1 oci:copy:v2"),
        str![[r#"
oci:copy@sha256:[DIGEST]
-- stderr
copied 0 blobs, 0 B in [TIME]; 3 there already
-- exit 0

"#]],
    );
}

#[test]
fn the_result_as_json_is_one_document() {
    assert_screen(
        Place::with_image().screen("copy --quiet --format json oci:layout:v1 oci:copy:v1"),
        str![[r#"
{
  "address": "oci:copy@sha256:[DIGEST]",
  "digest": "sha256:[DIGEST]",
  "blobsCopied": 3,
  "blobsPresent": 0,
  "blobsMounted": 0,
  "bytesCopied": 735
}
-- exit 0

"#]],
    );
}

#[test]
fn an_image_that_is_not_there() {
    assert_screen(
        Place::with_image().screen("copy oci:layout:v2 oci:copy:v2"),
        str![[r#"
-- stderr
error: source: there is no image with the tag "v2" in the layout layout
hint: its tags are v1
-- exit 4

"#]],
    );
}

#[test]
fn a_push_goes_to_a_registry() {
    assert_screen(
        Place::with_image().screen("push oci:layout:v1 oci:copy:v1"),
        str![[r#"
-- stderr
error: push: oci:copy:v1 is not in a registry
hint: write volio push FROM HOST/REPOSITORY:TAG, or use volio copy
-- exit 2

"#]],
    );
}

#[test]
fn a_pull_comes_from_a_registry() {
    assert_screen(
        Place::with_image().screen("pull oci:layout:v1 oci:copy:v1"),
        str![[r#"
-- stderr
error: pull: oci:layout:v1 is not in a registry
hint: write volio pull HOST/REPOSITORY:TAG TO, or use volio copy
-- exit 2

"#]],
    );
}

#[test]
fn a_registry_that_is_not_there() {
    assert_screen(
        Place::with_image().screen("push oci:layout:v1 localhost:1/data:v1"),
        str![[r#"
-- stderr
error: destination: cannot reach the registry localhost:1: localhost:1: Connection refused (os error 111)
hint: is the registry running at localhost:1?
-- exit 1

"#]],
    );
    assert_screen(
        Place::with_image().screen("pull localhost:1/data:v1 oci:copy:v1"),
        str![[r#"
-- stderr
error: source: cannot reach the registry localhost:1: localhost:1: Connection refused (os error 111)
hint: is the registry running at localhost:1?
-- exit 1

"#]],
    );
}
