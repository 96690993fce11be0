//! `volio prune`.

use super::{Workspace, assert_screen};
use snapbox::str;

/// Creates a workspace with three images of different days in a layout, one of them with two tags, and one without a time.
fn with_images() -> Workspace {
    let created = "--normalize --annotation org.opencontainers.image.created=2026-03";
    Workspace::with_tree()
        .and(&format!("pack {created}-01T10:00:00Z oci:layout:first tree"))
        .and(&format!("pack {created}-02T10:00:00Z oci:layout:second tree"))
        .and(&format!("pack {created}-02T12:00:00+01:00 oci:layout:third tree"))
        .and("copy oci:layout:third oci:layout:latest")
        .and("pack --normalize oci:layout:undated tree")
}

#[test]
fn a_reason_for_each_tag() {
    let place = with_images();
    assert_screen(
        place.screen("prune --dry-run --keep-daily 1 --keep-tag golden oci:layout"),
        str![[r#"
remove  first    2026-03-01T10:00:00+00:00  no rule keeps it
keep    latest   2026-03-02T12:00:00+01:00  daily
remove  second   2026-03-02T10:00:00+00:00  no rule keeps it
keep    third    2026-03-02T12:00:00+01:00  daily
keep    undated  -                          its image has no time
-- stderr
warning: --keep-tag golden: oci:layout has no such tag
dry run: would have removed 2 tags, kept 3; deleted 6 blobs, 5.0 KiB
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("prune --keep-daily 1 oci:layout"),
        str![[r#"
remove  first    2026-03-01T10:00:00+00:00  no rule keeps it
keep    latest   2026-03-02T12:00:00+01:00  daily
remove  second   2026-03-02T10:00:00+00:00  no rule keeps it
keep    third    2026-03-02T12:00:00+01:00  daily
keep    undated  -                          its image has no time
-- stderr
removed 2 tags, kept 3; deleted 6 blobs, 5.0 KiB
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("prune -q --format json --keep-last unlimited oci:layout"),
        str![[r#"
{
  "place": "oci:layout",
  "dryRun": false,
  "tags": [
    {
      "tag": "latest",
      "digest": "sha256:[DIGEST]",
      "time": "2026-03-02T12:00:00+01:00",
      "action": "keep",
      "reasons": [
        "last"
      ]
    },
    {
      "tag": "third",
      "digest": "sha256:[DIGEST]",
      "time": "2026-03-02T12:00:00+01:00",
      "action": "keep",
      "reasons": [
        "last"
      ]
    },
    {
      "tag": "undated",
      "digest": "sha256:[DIGEST]",
      "action": "keep",
      "reasons": [
        "its image has no time"
      ]
    }
  ],
  "blobs": 0,
  "bytes": 0
}
-- exit 0

"#]],
    );
}

#[test]
fn a_date_in_the_tag() {
    let place = with_images()
        .and("copy oci:layout:first oci:layout:nightly-20260401")
        .and("copy oci:layout:second oci:layout:nightly-20260402");
    let command = "prune --keep-last 1 --tag-template nightly-{date:%Y%m%d} oci:layout";
    assert_screen(
        place.screen(command),
        str![[r#"
keep    first             -                          does not match the template
keep    latest            -                          does not match the template
remove  nightly-20260401  2026-04-01T00:00:00+00:00  no rule keeps it
keep    nightly-20260402  2026-04-02T00:00:00+00:00  last
keep    second            -                          does not match the template
keep    third             -                          does not match the template
keep    undated           -                          does not match the template
-- stderr
removed 1 tag, kept 6
-- exit 0

"#]],
    );
}

#[test]
fn rules_that_keep_nothing() {
    let place = with_images();
    assert_screen(
        place.screen("prune --keep-tag lastest oci:layout"),
        str![[r#"
-- stderr
error: the rules keep none of 3 images, and all would be removed
hint: check the rules; --allow-remove-all with --tag-template removes all images of that template
-- exit 6

"#]],
    );
    assert_screen(
        place.screen("prune oci:layout"),
        str![[r#"
-- stderr
error: no rule keeps anything
hint: give rules such as --keep-daily 7
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("prune --keep-last 0 oci:layout"),
        str![[r#"
-- stderr
error: no rule keeps anything
hint: give rules such as --keep-daily 7
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("prune --allow-remove-all oci:layout"),
        str![[r#"
-- stderr
error: the following required arguments were not provided:
  --tag-template <TEMPLATE>

Usage: volio prune --tag-template <TEMPLATE> --allow-remove-all <PLACE>

For more information, try '--help'.
-- exit 2

"#]],
    );
}

#[test]
fn wrong_arguments() {
    let place = with_images();
    assert_screen(
        place.screen("prune --keep-daily 1 --tag-template {day} oci:layout"),
        str![[r#"
-- stderr
error: --tag-template <TEMPLATE>: "{day}" is not a template for tags: there is no field {day}
hint: its fields are {date}, {time}, {date:%Y-%m-%d}, {digest} and {digest:.8}, as in '{date}-{digest:.8}'
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("prune --keep-daily many oci:layout"),
        str![[r#"
-- stderr
error: --keep-daily <N>: "many" is not a number of images
hint: write a number, or unlimited
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("prune --keep-within 1w oci:layout"),
        str![[r#"
-- stderr
error: --keep-within <SPAN>: "1w" is not a span of time: its units are y, m, d and h
hint: write years, months, days and hours, such as 1y6m, 14d or 36h; m stands for months, and a week is 7d
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("prune --keep-daily 1 oci:layout:first"),
        str![[r#"
-- stderr
error: oci:layout:first is one image, and volio prune looks at all of a repository
hint: write volio prune oci:layout
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("prune --keep-daily 1 oci-archive:a.tar"),
        str![[r#"
-- stderr
error: cannot remove anything from oci-archive:a.tar: archives are only added to
hint: copy the images that shall stay into another archive
-- exit 2

"#]],
    );
}

#[test]
fn further_tags_and_retention_of_a_pack() {
    let place = Workspace::with_tree();
    let pack = |tag: &str| {
        format!(
            "pack --normalize --tag {tag} --tag-template t-{{digest:.4}} --keep-tag {tag} oci:layout:latest tree"
        )
    };
    assert_screen(
        place.screen(&pack("one")),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
packed 4 entries, 26 B into 1 layer of 462 B in [TIME]
removed 0 tags, kept 3
-- exit 0

"#]],
    );
    std::fs::write(place.path().join("tree/hello"), "changed\n").unwrap();
    assert_screen(
        place.screen(&pack("two")),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
packed 4 entries, 28 B into 1 layer of 469 B in [TIME]
removed 0 tags, kept 5
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("tags oci:layout"),
        str![[r#"
latest
one
t-0932
t-72e3
two
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("pack --tag a/b --normalize registry.example/data:v1 tree"),
        str![[r#"
-- stderr
error: "a/b" cannot be a tag in registry.example/data
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("pack --tag v2 --normalize oci-archive:a.tar:v1 tree"),
        str![[r#"
-- stderr
error: oci-archive:a.tar:v1 gets one tag, and nothing is removed from it
hint: --tag, --tag-template and the --keep options need a registry or a layout
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("pack --tag-template {when} --normalize oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: --tag-template <TEMPLATE>: "{when}" is not a template for tags: there is no field {when}
hint: its fields are {date}, {time}, {date:%Y-%m-%d}, {digest} and {digest:.8}, as in '{date}-{digest:.8}'
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("pack --keep-last 0 --normalize oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: no rule keeps anything
hint: give rules such as --keep-daily 7
-- exit 2

"#]],
    );
}
