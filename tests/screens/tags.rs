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

/// A layout with an image that has a signature, and a signature of an image that is not there.
pub fn with_signatures() -> Workspace {
    let place = Workspace::with_image().and("copy oci:layout:v1 oci:layout:latest").with_artifact("a/b", &[]);
    place.with_index(|index| {
        let name = "org.opencontainers.image.ref.name";
        let entries = index["manifests"].as_array_mut().unwrap();
        let image = entries[0]["digest"].as_str().unwrap().replace(':', "-");
        let signature = entries.iter_mut().find(|entry| entry["annotations"][name] == "chart").unwrap();
        let mut other = signature.clone();
        signature["annotations"][name] = format!("{image}.sig").into();
        other["annotations"][name] = format!("sha256-{}.att", "0".repeat(64)).into();
        entries.push(other);
    })
}

#[test]
fn signatures_are_not_images_and_are_listed_with_the_images_that_they_belong_to() {
    let place = with_signatures();
    assert_screen(
        place.screen("tags oci:layout"),
        str![[r#"
latest
v1
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("tags --attachments oci:layout"),
        str![[r#"
latest
  sha256-09328ce22b8e57180d56f8b270a61246e1b628708cdcd16f82a48298c5e5941b.sig
v1
  sha256-09328ce22b8e57180d56f8b270a61246e1b628708cdcd16f82a48298c5e5941b.sig
@sha256:[DIGEST]
  sha256-0000000000000000000000000000000000000000000000000000000000000000.att
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("tags --attachments --format json oci:layout"),
        str![[r#"
{
  "place": "oci:layout",
  "tags": [
    "latest",
    "v1"
  ],
  "attachments": [
    {
      "tag": "sha256-0000000000000000000000000000000000000000000000000000000000000000.att",
      "subject": "sha256:[DIGEST]",
      "images": []
    },
    {
      "tag": "sha256-09328ce22b8e57180d56f8b270a61246e1b628708cdcd16f82a48298c5e5941b.sig",
      "subject": "sha256:[DIGEST]",
      "images": [
        "latest",
        "v1"
      ]
    }
  ]
}
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("copy --all-tags oci:layout oci:copy"),
        str![[r#"
oci:copy@sha256:[DIGEST]
oci:copy@sha256:[DIGEST]
-- stderr
warning: signatures and other attachments are not copied without --referrers, such as sha256-0000000000000000000000000000000000000000000000000000000000000000.att (2 in all)
copied 3 blobs, 1.0 KiB in [TIME]
-- exit 0

"#]],
    );
}
