//! `volio pack --incremental` and `--base`.

use super::{Workspace, assert_screen};
use snapbox::str;
use std::fs;

/// A tree with content that a small change is small beside.
fn workspace() -> Workspace {
    let place = Workspace::with_tree();
    fs::write(place.path().join("tree/data"), "x".repeat(100_000)).unwrap();
    place
}

const PACK: &str = "pack --incremental --normalize oci:layout:v1 tree";

#[test]
fn the_first_pack_has_no_base_and_the_second_says_which_it_has_and_what_it_saved() {
    let place = workspace();
    assert_screen(
        place.screen(PACK),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
packed 5 entries, 97.7 KiB into 1 layer of 560 B in [TIME]
no base: oci:layout:v1 does not exist yet: packed in full
-- exit 0

"#]],
    );
    fs::write(place.path().join("tree/hello"), "hello again\n").unwrap();
    fs::remove_file(place.path().join("tree/etc/hosts")).unwrap();
    assert_screen(
        place.screen(&format!("{PACK} --dry-run")),
        str![[r#"
-- stderr
dry run: packed 1 of 4 entries into 1 layer of 401 B in [TIME]
dry run: base: oci:layout@sha256:[DIGEST] (the image that oci:layout:v1 names); 0 added, 1 changed, 1 removed; read 97.7 KiB, sent 5.0 KiB (a full pack would have sent about 5.6 KiB)
-- exit 0

"#]],
    );
    assert_screen(
        place.screen(PACK),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
packed 1 of 4 entries into 1 layer of 401 B in [TIME]
base: oci:layout@sha256:[DIGEST] (the image that oci:layout:v1 names); 0 added, 1 changed, 1 removed; read 97.7 KiB, sent 5.0 KiB (a full pack would have sent about 5.6 KiB)
-- exit 0

"#]],
    );
    assert_screen(
        place.screen(PACK),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
nothing changed since oci:layout@sha256:[DIGEST]: no new image
-- exit 0

"#]],
    );
}

#[test]
fn the_comparison_is_in_the_json_document() {
    let place = workspace().and(PACK);
    fs::write(place.path().join("tree/hello"), "hello again\n").unwrap();
    assert_screen(
        place.screen(&format!("{PACK} --quiet --dry-run --format json")),
        str![[r#"
{
  "address": "oci:layout@sha256:[DIGEST]",
  "digest": "sha256:[DIGEST]",
  "platforms": [
    {
      "architecture": "amd64",
      "os": "linux"
    },
    {
      "architecture": "arm64",
      "os": "linux"
    }
  ],
  "layers": [
    {
      "digest": "sha256:[DIGEST]",
      "diffId": "sha256:[DIGEST]",
      "size": 353,
      "uncompressedSize": 2560,
      "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"
    }
  ],
  "entries": 5,
  "bytes": 100032,
  "socketsSkipped": 0,
  "excluded": 0,
  "attributesSkipped": {},
  "bookkeepingSkipped": 0,
  "mountsSkipped": 0,
  "unreadableSkipped": 0,
  "changedSkipped": 0,
  "skipped": [],
  "incremental": {
    "base": "oci:layout@sha256:[DIGEST]",
    "full": false,
    "reason": null,
    "added": 0,
    "changed": 1,
    "removed": 0,
    "unchanged": 4,
    "contentCompared": 2,
    "bytesRead": 100032,
    "bytesSent": 5123,
    "fullBytes": 5677,
    "layersReused": 1,
    "layersAdded": 1
  },
  "dryRun": true
}
-- exit 0

"#]],
    );
}

#[test]
fn a_full_pack_says_why() {
    let place = workspace().and(PACK);
    fs::write(place.path().join("tree/hello"), "hello again\n").unwrap();
    assert_screen(
        place.screen(&format!("{PACK} --max-layers 1")),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
packed 5 entries, 97.7 KiB into 1 layer of 566 B in [TIME]
packed in full: the image would have 2 layers (--max-layers 1)
-- exit 0

"#]],
    );
    fs::write(place.path().join("tree/data"), "y".repeat(100_000)).unwrap();
    assert_screen(
        place.screen(&format!("{PACK} --max-dead 10")),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
packed 5 entries, 97.7 KiB into 1 layer of 568 B in [TIME]
packed in full: more than 10 % of its bytes would be dead (--max-dead 10)
-- exit 0

"#]],
    );
}

#[test]
fn a_source_without_files_is_refused() {
    let place = workspace().and(PACK);
    fs::create_dir(place.path().join("empty")).unwrap();
    assert_screen(
        place.screen("pack --incremental oci:layout:v1 empty"),
        str![[r#"
-- stderr
error: the source has no files
hint: look whether its disk is mounted; --allow-shrink packs it nevertheless
-- exit 6

"#]],
    );
    assert_screen(
        place.screen("pack --incremental oci:layout:v1 tree/etc"),
        str![[r#"
-- stderr
error: the base has 100026 bytes of files and the source has 20: it lost more than 90 %
hint: --allow-shrink packs it nevertheless; --max-shrink sets the limit
-- exit 6

"#]],
    );
    assert_screen(
        place.screen("pack --incremental --allow-shrink --normalize oci:layout:v1 empty"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
packed 1 entry, 0 B into 1 layer of 193 B in [TIME]
packed in full: more than 50 % of its bytes would be dead (--max-dead 50)
-- exit 0

"#]],
    );
    // An explicit base is one that a person chose.
    assert_screen(
        place.screen("pack --base oci:layout:v1 oci:layout:v2 tree/etc --normalize"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
packed 1 of 2 entries into 1 layer of 361 B in [TIME]
base: oci:layout@sha256:[DIGEST] (the image that oci:layout:v1 names); 1 added, 0 changed, 0 removed; read 20 B, sent 5.0 KiB (a full pack would have sent about 5.0 KiB)
-- exit 0

"#]],
    );
}

#[test]
fn an_empty_source_is_refused_over_an_explicit_base() {
    let place = workspace().and(PACK);
    fs::create_dir_all(place.path().join("mount/point")).unwrap();
    assert_screen(
        place.screen("pack --base oci:layout:v1 oci:layout:v2 mount"),
        str![[r#"
-- stderr
error: the source has no files
hint: look whether its disk is mounted; --allow-shrink packs it nevertheless
-- exit 6

"#]],
    );
    assert_screen(
        place.screen("pack --quiet --allow-shrink --base oci:layout:v1 oci:layout:v2 mount"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- exit 0

"#]],
    );
}

#[test]
fn the_limits_on_a_base_can_be_raised() {
    let place = workspace().and(PACK);
    assert_screen(
        place.screen("pack --quiet --max-depth 1 --base oci:layout:v1 oci:layout:v2 tree"),
        str![[r#"
-- stderr
error: cannot read the base: the layer's entry /etc/hosts is in more directories than are allowed, and at most 1
hint: raise the limit with --max-depth if you trust this image
-- exit 3

"#]],
    );
    assert_screen(
        place.screen("pack --quiet --max-depth 2 --normalize --base oci:layout:v1 oci:layout:v2 tree"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- exit 0

"#]],
    );
}

#[test]
fn options_that_cannot_work_are_usage_errors() {
    let place = workspace().and(PACK);
    assert_screen(
        place.screen("pack --incremental --base oci:layout:v1 oci:layout:v2 tree"),
        str![[r#"
-- stderr
error: the argument '--incremental' cannot be used with '--base <IMAGE>'

Usage: volio pack --incremental <IMAGE> <SOURCE[:PATH]>...

For more information, try '--help'.
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("pack --dry-run oci:layout:v2 tree"),
        str![[r#"
-- stderr
error: the following required arguments were not provided:
  <--incremental|--base <IMAGE>>

Usage: volio pack --dry-run <--incremental|--base <IMAGE>> <IMAGE> <SOURCE[:PATH]>...

For more information, try '--help'.
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("pack --incremental --format data-io oci:layout:v2 tree"),
        str![[r#"
-- stderr
error: an image as data-io made them is one archive, to which nothing can be added
hint: leave out --format data-io, or --incremental, --base and the variable INCREMENTAL
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("pack --incremental docker-archive:a.tar:a:b tree"),
        str![[r#"
-- stderr
error: --incremental and --base cannot be used with docker-archive: it holds images with plain layers, so that no layer of a base can be reused
hint: pack into a registry, a layout or an oci-archive
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("pack --base oci:layout:v9 oci:layout:v2 tree"),
        str![[r#"
-- stderr
error: cannot open the base: there is no image with the tag "v9" in the layout layout
hint: its tags are v1
-- exit 4

"#]],
    );
}
