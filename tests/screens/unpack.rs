//! `volio unpack`.

use super::{Place, assert_screen};
use snapbox::str;
use std::fs;

#[test]
fn an_image_becomes_a_directory() {
    let place = Place::with_own_image();
    assert_screen(
        place.screen("unpack oci:layout:v1 restored"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
unpacked 4 entries, 26 B from 1 layer in [TIME]
-- exit 0

"#]],
    );
    assert_eq!(fs::read_to_string(place.path().join("restored/hello")).unwrap(), "hello\n");
}

#[test]
fn the_result_as_json_is_one_document() {
    let place = Place::with_own_image();
    assert_screen(
        place.screen("unpack --platform linux/amd64 --format json --quiet oci:layout:v1 restored"),
        str![[r#"
{
  "address": "oci:layout@sha256:[DIGEST]",
  "digest": "sha256:[DIGEST]",
  "platform": {
    "architecture": "amd64",
    "os": "linux"
  },
  "layers": 1,
  "entries": 4,
  "bytes": 26,
  "ownershipNotRestored": 0,
  "attributesNotRestored": 0,
  "xattrsNotRestored": 0,
  "devicesSkipped": 0
}
-- exit 0

"#]],
    );
}

#[test]
fn a_target_that_holds_something() {
    let place = Place::with_own_image();
    assert_screen(
        place.screen("unpack oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: tree is not empty: it holds /etc
hint: choose another directory, or empty this one
-- exit 6

"#]],
    );
}

#[test]
fn a_layout_that_is_not_there() {
    assert_screen(
        Place::new().screen("unpack oci:nowhere:v1 restored"),
        str![[r#"
-- stderr
error: nowhere is not an image layout: there is no such directory
hint: write oci:DIRECTORY[:TAG] with a directory that volio, skopeo or buildah wrote
-- exit 4

"#]],
    );
}

#[test]
fn a_tag_that_is_not_there() {
    assert_screen(
        Place::with_own_image().screen("unpack oci:layout:v2 restored"),
        str![[r#"
-- stderr
error: there is no image with the tag "v2" in the layout layout
hint: its tags are v1
-- exit 4

"#]],
    );
}

#[test]
fn a_platform_that_the_image_is_not_for() {
    let place = Place::with_own_image();
    assert_screen(
        place.screen("unpack --platform linux/s390x oci:layout:v1 restored"),
        str![[r#"
-- stderr
error: there is no image for linux/s390x under this name
hint: choose one with --platform: linux/amd64, linux/arm64
-- exit 4

"#]],
    );
}

#[test]
fn a_layer_that_is_not_what_its_digest_says() {
    let place = Place::with_own_image();
    let is_document = |blob: &std::path::PathBuf| fs::read(blob).unwrap().starts_with(b"{");
    let layer = place.blobs().into_iter().find(|blob| !is_document(blob)).unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, bytes).unwrap();
    assert_screen(
        place.screen("unpack oci:layout:v1 restored"),
        str![[r#"
-- stderr
error: blob sha256:[DIGEST] has the digest sha256:[DIGEST]
hint: it was damaged or replaced where it is stored or on its way; nothing of it was used
-- exit 3

"#]],
    );
}

#[test]
fn a_registry_that_is_not_there() {
    assert_screen(
        Place::new().screen("unpack localhost:1/data:v1 restored"),
        str![[r#"
-- stderr
error: cannot reach the registry localhost:1: localhost:1: Connection refused (os error 111)
hint: is the registry running at localhost:1?
-- exit 1

"#]],
    );
}
