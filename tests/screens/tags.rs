//! `volio tags`.

use super::{Workspace, assert_screen};
use snapbox::str;

/// A layout with two images, one of them without a tag.
fn with_untagged() -> Workspace {
    Workspace::with_image().and("pack --compression none oci:layout:other tree").with_index(|index| {
        index["manifests"][1].as_object_mut().unwrap().remove("annotations");
    })
}

fn place() -> Workspace {
    Workspace::with_image().and("copy oci:layout:v1 oci:layout:older").and("copy oci:layout:v1 oci:layout:V2")
}

#[test]
fn tags_for_people() {
    assert_screen(
        place().screen("tags oci:layout"),
        str![[r#"
V2
older
v1
-- exit 0

"#]],
    );
}

#[test]
fn tags_as_json() {
    assert_screen(
        place().screen("tags --format json oci:layout"),
        str![[r#"
{
  "place": "oci:layout",
  "tags": [
    "V2",
    "older",
    "v1"
  ]
}
-- exit 0

"#]],
    );
}

#[test]
fn an_image_instead_of_a_place() {
    assert_screen(
        Workspace::new().screen("tags oci:layout:v1"),
        str![[r#"
-- stderr
error: oci:layout:v1 is one image, and volio tags lists a repository
hint: write volio tags oci:layout
-- exit 2

"#]],
    );
    assert_screen(
        Workspace::new().screen("tags registry.example/data:v1"),
        str![[r#"
-- stderr
error: registry.example/data:v1 is one image, and volio tags lists a repository
hint: write volio tags registry.example/data
-- exit 2

"#]],
    );
}

#[test]
fn a_layout_that_is_not_there() {
    assert_screen(
        Workspace::new().screen("tags oci:layout"),
        str![[r#"
-- stderr
error: layout is not an image layout: there is no such directory
hint: write oci:DIRECTORY[:TAG] with a directory that volio, skopeo or buildah wrote
-- exit 4

"#]],
    );
}

#[test]
fn images_without_a_tag_are_listed_by_their_digests() {
    assert_screen(
        with_untagged().screen("tags oci:layout"),
        str![[r#"
v1
-- stderr
1 image without a tag: @sha256:[DIGEST]
-- exit 0

"#]],
    );
    assert_screen(
        with_untagged().screen("tags --format json oci:layout"),
        str![[r#"
{
  "place": "oci:layout",
  "tags": [
    "v1"
  ],
  "untagged": [
    "sha256:[DIGEST]"
  ]
}
-- exit 0

"#]],
    );
}
