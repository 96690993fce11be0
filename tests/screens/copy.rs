//! `volio copy`, `volio push` and `volio pull`.

use super::{Workspace, assert_screen};
use snapbox::str;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

#[test]
fn an_image_goes_from_layout_to_layout() {
    let place = Workspace::with_image();
    assert_screen(
        place.screen("copy oci:layout:v1 oci:copy:v1"),
        str![[r#"
oci:copy@sha256:[DIGEST]
-- stderr
copied 3 blobs, 1.0 KiB in [TIME]
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
fn an_archive_for_docker_load_gets_one_uncompressed_platform() {
    let place = Workspace::with_image();
    assert_screen(
        place.screen("copy oci:layout:v1 docker-archive:image.tar:data:v1"),
        str![[r#"
docker-archive:image.tar@sha256:[DIGEST]
-- stderr
warning: only the image for linux/amd64 was copied, with plain layers and a new digest: this place holds no other
copied 2 blobs, 752 B in [TIME]
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("copy docker-archive:image.tar docker-archive:again.tar:data:v1"),
        str![[r#"
docker-archive:again.tar@sha256:[DIGEST]
-- stderr
copied 2 blobs, 4.3 KiB in [TIME]
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("copy docker-archive:image.tar:data:v2 oci:copy:v2"),
        str![[r#"
-- stderr
error: there is no image docker.io/library/data:v2 in the archive image.tar
hint: its images are docker.io/library/data:v1
-- exit 4

"#]],
    );
    assert_screen(
        place.screen("copy oci-archive:image.tar oci:copy:v2"),
        str![[r#"
-- stderr
error: image.tar is not an archive of an image layout: it has no file oci-layout
hint: it is what docker save wrote: name it docker-archive:image.tar
-- exit 4

"#]],
    );
    assert_screen(
        place.screen("copy oci:layout:v1 oci-archive:image.tar"),
        str![[r#"
-- stderr
error: image.tar is not an archive of an image layout: it has no file oci-layout
hint: it is what docker save wrote: name it docker-archive:image.tar
-- exit 6

"#]],
    );
}

#[test]
fn the_result_as_json_is_one_document() {
    assert_screen(
        Workspace::with_image().screen("copy --quiet --format json oci:layout:v1 oci:copy:v1"),
        str![[r#"
{
  "address": "oci:copy@sha256:[DIGEST]",
  "digest": "sha256:[DIGEST]",
  "blobsCopied": 3,
  "blobsPresent": 0,
  "blobsMounted": 0,
  "blobsOmitted": 0,
  "bytesCopied": 1042,
  "referrers": 0
}
-- exit 0

"#]],
    );
}

#[test]
fn an_image_that_is_not_there() {
    assert_screen(
        Workspace::with_image().screen("copy oci:layout:v2 oci:copy:v2"),
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
        Workspace::with_image().screen("push oci:layout:v1 oci:copy:v1"),
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
        Workspace::with_image().screen("pull oci:layout:v1 oci:copy:v1"),
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
        Workspace::with_image().screen("push oci:layout:v1 localhost:1/data:v1"),
        str![[r#"
-- stderr
error: destination: cannot reach the registry localhost:1: localhost:1: Connection refused (os error 111)
hint: is the registry running at localhost:1?
-- exit 1

"#]],
    );
    assert_screen(
        Workspace::with_image().screen("pull localhost:1/data:v1 oci:copy:v1"),
        str![[r#"
-- stderr
error: source: cannot reach the registry localhost:1: localhost:1: Connection refused (os error 111)
hint: is the registry running at localhost:1?
-- exit 1

"#]],
    );
}

#[test]
fn one_platform_of_an_image() {
    assert_screen(
        Workspace::with_image().screen("copy --platform linux/arm64 oci:layout:v1 oci:copy:v1"),
        str![[r#"
oci:copy@sha256:[DIGEST]
-- stderr
copied 2 blobs, 752 B in [TIME]
only some platforms: the digest is not that of the source, sha256:[DIGEST]
-- exit 0

"#]],
    );
}

#[test]
fn all_tags_of_a_layout() {
    let place = Workspace::with_image().and("copy oci:layout:v1 oci:layout:v2");
    assert_screen(
        place.screen("copy --all-tags oci:layout oci:copy"),
        str![[r#"
oci:copy@sha256:[DIGEST]
oci:copy@sha256:[DIGEST]
-- stderr
copied 3 blobs, 1.0 KiB in [TIME]
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("copy --all-tags oci:layout:v1 oci:copy"),
        str![[r#"
-- stderr
error: --all-tags: oci:layout:v1 is one image
hint: write oci:layout
-- exit 2

"#]],
    );
}

#[test]
fn a_tag_that_cannot_be_copied_does_not_keep_the_others() {
    let place = Workspace::with_image().and("pack --normalize --label other=1 oci:layout:v2 tree");
    let index = std::fs::read_to_string(place.path().join("layout/index.json")).unwrap();
    let second = index.rsplit("sha256:").next().unwrap();
    std::fs::remove_file(place.path().join("layout/blobs/sha256").join(&second[..64])).unwrap();
    assert_screen(
        place.screen("copy --all-tags oci:layout oci:copy"),
        str![[r#"
oci:copy@sha256:[DIGEST]
-- stderr
copied 3 blobs, 1.0 KiB in [TIME]
error: the tag v2 was not copied: source: the layout layout has no blob sha256:[DIGEST]
error: 1 of 2 tags were not copied
-- exit 4

"#]],
    );
    assert_screen(
        place.screen("copy --all-tags --format json -q oci:layout oci:copy2"),
        str![[r#"
[
  {
    "tag": "v1",
    "address": "oci:copy2@sha256:[DIGEST]",
    "digest": "sha256:[DIGEST]",
    "blobsCopied": 3,
    "blobsPresent": 0,
    "blobsMounted": 0,
    "blobsOmitted": 0,
    "bytesCopied": 1042,
    "referrers": 0
  },
  {
    "tag": "v2",
    "error": "source: the layout layout has no blob sha256:[DIGEST]"
  }
]
-- stderr
error: the tag v2 was not copied: source: the layout layout has no blob sha256:[DIGEST]
error: 1 of 2 tags were not copied
-- exit 4

"#]],
    );
}

#[test]
fn layers_of_a_since_image_are_left_out_and_missed_in_other_registries() {
    let place = Workspace::with_image().and("pack --normalize --label other=1 oci:layout:v2 tree");
    assert_screen(
        place.screen("copy --since oci:layout:v1 oci:layout:v2 oci:stick:v2"),
        str![[r#"
oci:stick@sha256:[DIGEST]
-- stderr
copied 2 blobs, 626 B in [TIME]; 1 left out
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("copy oci:stick:v2 oci:elsewhere:v2"),
        str![[r#"
-- stderr
error: source: the layout stick has no blob sha256:[DIGEST]
hint: it holds only what oci:layout:v1@sha256:[DIGEST] lacks: copy that image first to where this one shall be
-- exit 4

"#]],
    );
    assert_screen(
        place.screen("copy oci:stick:v2 oci:layout:v3"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
copied 0 blobs, 0 B in [TIME]; 3 there already
-- exit 0

"#]],
    );
}

#[test]
fn a_registry_takes_whole_images_only() {
    let place = Workspace::with_image();
    assert_screen(
        place.screen("copy --since oci:layout:v1 oci:layout:v1 localhost:1/data:v1"),
        str![[r#"
-- stderr
error: --since: localhost:1/data:v1 is in a registry, which takes whole images only
hint: copy without --since: what is there already is not sent again
-- exit 2

"#]],
    );
}

#[test]
fn a_digestfile_that_cannot_be_written_is_noticed_before_any_work() {
    let place = Workspace::with_image();
    for command in [
        "copy --digestfile absent/file oci:layout:v1 oci:copy:v1",
        "pack --digestfile absent/file oci:copy:v1 tree",
    ] {
        assert_screen(
            place.screen(command),
            str![[r#"
-- stderr
error: --digestfile: cannot write to absent/file: No such file or directory (os error 2)
-- exit 4

"#]],
        );
        assert!(!place.path().join("copy").exists());
    }
    // The file would say that the image exists.
    place.screen("copy --digestfile file oci:layout:v2 oci:copy:v1");
    assert!(!place.path().join("file").exists());
}

#[test]
fn all_tags_of_a_layout_without_tags_are_not_nothing() {
    let place = Workspace::with_image().with_index(|index| {
        index["manifests"][0].as_object_mut().unwrap().remove("annotations");
    });
    assert_screen(
        place.screen("copy --all-tags oci:layout oci:copy"),
        str![[r#"
-- stderr
error: --all-tags: oci:layout has no tags
hint: it has 1 image without a tag: @sha256:[DIGEST]; copy each by its digest
-- exit 4

"#]],
    );
    let place = place.and("pack --compression none oci:layout:v2 tree");
    assert_screen(
        place.screen("copy --all-tags oci:layout oci:copy"),
        str![[r#"
oci:copy@sha256:[DIGEST]
-- stderr
warning: not copied: 1 image without a tag: @sha256:[DIGEST]
copied 3 blobs, 8.6 KiB in [TIME]
-- exit 0

"#]],
    );
}

#[test]
fn a_path_that_is_not_text_is_written_to_and_read_from() {
    let place = Workspace::with_image();
    for scheme in ["oci:", "oci-archive:"] {
        let name =
            OsString::from_vec([scheme.as_bytes(), b"d\xff", scheme.len().to_string().as_bytes()].concat());
        let mut there = place.volio("copy --quiet oci:layout:v1");
        let there = place.run(there.arg(&name));
        assert!(there.status.success(), "{there:?}");
        let mut back = place.volio("copy --quiet");
        let back = place.run(back.arg(&name).arg(format!("oci:back{}:v1", scheme.len())));
        assert!(back.status.success(), "{back:?}");
    }
    let names: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let odd = names.iter().filter(|name| name.as_bytes().starts_with(b"d\xff")).count();
    assert_eq!(odd, 2, "{names:?}");
}
