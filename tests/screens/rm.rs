//! `volio rm`.

use super::tags::with_signatures;
use super::{Workspace, assert_screen};
use snapbox::str;

#[test]
fn a_tag_goes_and_the_image_stays_while_it_has_another() {
    let place = Workspace::with_image().and("copy oci:layout:v1 oci:layout:v2");
    assert_screen(
        place.screen("rm oci:layout:v1"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
removed the tag v1
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("rm --format json oci:layout:v2"),
        str![[r#"
{
  "address": "oci:layout@sha256:[DIGEST]",
  "digest": "sha256:[DIGEST]",
  "tags": [
    "v2"
  ],
  "blobs": 6,
  "bytes": 3363
}
-- stderr
removed the tag v2; deleted 6 blobs, 3.3 KiB
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("tags oci:layout"),
        str![[r#"
-- exit 0

"#]],
    );
}

#[test]
fn an_image_with_several_tags_is_not_removed_by_its_digest() {
    let place = Workspace::with_image().and("copy oci:layout:v1 oci:layout:v2");
    let packed = place.run(place.volio("inspect -q oci:layout:v1"));
    let address = String::from_utf8(packed.stdout).unwrap().lines().last().unwrap().to_owned();
    assert_screen(
        place.screen(&format!("rm {address}")),
        str![[r#"
-- stderr
error: sha256:[DIGEST] has several tags: v1, v2
hint: name one of the tags, or use --force if all of them shall go
-- exit 6

"#]],
    );
    assert_screen(
        place.screen(&format!("rm --force {address}")),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
removed the tags v1, v2; deleted 6 blobs, 3.3 KiB
-- exit 0

"#]],
    );
}

#[test]
fn an_image_that_is_not_there() {
    assert_screen(
        Workspace::with_image().screen("rm oci:layout:v2"),
        str![[r#"
-- stderr
error: there is no image with the tag "v2" in the layout layout
hint: its tags are v1
-- exit 4

"#]],
    );
}

#[test]
fn a_place_instead_of_an_image() {
    assert_screen(
        Workspace::new().screen("rm registry.example/data"),
        str![[r#"
-- stderr
error: rm: registry.example/data names no image
hint: write registry.example/data:TAG; volio tags registry.example/data lists them
-- exit 2

"#]],
    );
}

#[test]
fn the_last_tag_takes_the_signatures_with_it() {
    let place = with_signatures();
    assert_screen(
        place.screen("rm oci:layout:v1"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
removed the tag v1
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("rm --format json oci:layout:latest"),
        str![[r#"
{
  "address": "oci:layout@sha256:[DIGEST]",
  "digest": "sha256:[DIGEST]",
  "tags": [
    "latest"
  ],
  "attachments": [
    "sha256-09328ce22b8e57180d56f8b270a61246e1b628708cdcd16f82a48298c5e5941b.sig"
  ],
  "blobs": 6,
  "bytes": 3363
}
-- stderr
removed the tag latest and 1 attachment; deleted 6 blobs, 3.3 KiB
-- exit 0

"#]],
    );
}
