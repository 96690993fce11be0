//! `volio verify`.

use super::{Workspace, assert_screen};
use snapbox::str;
use std::fs;

/// An image with a damaged layer and a damaged configuration.
fn damaged() -> Workspace {
    let place = Workspace::with_image();
    for blob in place.blobs() {
        let content = fs::read(&blob).unwrap();
        let is_layer = content.starts_with(&[0x28, 0xb5]);
        let is_config = String::from_utf8_lossy(&content).contains(r#""architecture":"arm64","config""#);
        if is_layer || is_config {
            fs::write(&blob, &content[1..]).unwrap();
        }
    }
    place
}

#[test]
fn a_sound_image() {
    assert_screen(
        Workspace::with_image().screen("verify oci:layout:v1"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
verified 6 blobs, 3.3 KiB of 2 images in [TIME]
-- exit 0

"#]],
    );
}

#[test]
fn a_sound_image_as_json() {
    assert_screen(
        Workspace::with_image().screen("verify --quiet --format json oci:layout:v1"),
        str![[r#"
{
  "address": "oci:layout@sha256:[DIGEST]",
  "digest": "sha256:[DIGEST]",
  "images": 2,
  "blobs": 6,
  "bytes": 3363,
  "damage": []
}
-- exit 0

"#]],
    );
}

#[test]
fn all_damage_is_named_and_the_address_is_not_printed() {
    assert_screen(
        damaged().screen("verify oci:layout:v1"),
        str![[r#"
-- stderr
error: configuration of linux/arm64: blob sha256:[DIGEST] should have 290 bytes and has 289
error: layer 1 of linux/amd64, layer 1 of linux/arm64: blob sha256:[DIGEST] should have 462 bytes and has 461
error: 2 of 6 blobs in oci:layout@sha256:[DIGEST] are not what they should be
hint: copy the image again from a place where it is sound
-- exit 3

"#]],
    );
}

#[test]
fn damage_as_json() {
    assert_screen(
        damaged().screen("verify --format json oci:layout:v1"),
        str![[r#"
{
  "address": "oci:layout@sha256:[DIGEST]",
  "digest": "sha256:[DIGEST]",
  "images": 2,
  "blobs": 6,
  "bytes": 3363,
  "damage": [
    {
      "role": "configuration of linux/arm64",
      "digest": "sha256:[DIGEST]",
      "why": "blob sha256:[DIGEST] should have 290 bytes and has 289"
    },
    {
      "role": "layer 1 of linux/amd64, layer 1 of linux/arm64",
      "digest": "sha256:[DIGEST]",
      "why": "blob sha256:[DIGEST] should have 462 bytes and has 461"
    }
  ]
}
-- stderr
error: configuration of linux/arm64: blob sha256:[DIGEST] should have 290 bytes and has 289
error: layer 1 of linux/amd64, layer 1 of linux/arm64: blob sha256:[DIGEST] should have 462 bytes and has 461
error: 2 of 6 blobs in oci:layout@sha256:[DIGEST] are not what they should be
hint: copy the image again from a place where it is sound
-- exit 3

"#]],
    );
}

#[test]
fn a_platform_that_the_image_has_not() {
    assert_screen(
        Workspace::with_image().screen("verify --platform linux/s390x oci:layout:v1"),
        str![[r#"
-- stderr
error: there is no image for linux/s390x under this name
hint: volio inspect shows which there are
-- exit 4

"#]],
    );
}
