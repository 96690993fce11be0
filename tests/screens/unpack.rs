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
  "outcome": "unpacked",
  "digest": "sha256:[DIGEST]",
  "platform": {
    "architecture": "amd64",
    "os": "linux"
  },
  "layers": 1,
  "dataIo": false,
  "removed": 0,
  "entries": 4,
  "bytes": 26,
  "ownershipNotRestored": 0,
  "attributesNotRestored": 0,
  "xattrsNotRestored": 0,
  "devicesSkipped": 0,
  "hardlinksCopied": 0
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
hint: choose another directory, empty this one, or extract over it with --merge
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

/// Runs these one after the other, and compares the screen of the last one.
#[track_caller]
fn in_turn(place: &Place, commands: &[&str], expected: impl snapbox::IntoData) {
    let mut screen = String::new();
    for command in commands {
        screen = place.screen(command);
    }
    assert_screen(screen, expected);
}

#[test]
fn an_image_that_is_there() {
    let place = Place::with_own_image();
    in_turn(
        &place,
        &["unpack oci:layout:v1 restored", "unpack oci:layout:v1 restored"],
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
nothing to do: restored holds this image
-- exit 0

"#]],
    );
    in_turn(
        &place,
        &["unpack --keep oci:layout:nowhere restored"],
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
nothing to do: restored keeps the image that it holds
-- exit 0

"#]],
    );
    std::fs::write(place.path().join("restored/hello"), "changed").unwrap();
    in_turn(
        &place,
        &["unpack --checksum --no-sync oci:layout:v1 restored"],
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
fn a_target_that_holds_another_image() {
    let place =
        Place::with_own_image().and("pack oci:layout:v2 tree/etc").and("unpack oci:layout:v2 restored");
    in_turn(
        &place,
        &["unpack oci:layout:v1 restored"],
        str![[r#"
-- stderr
error: restored holds the image sha256:[DIGEST] already, or another part of it
hint: choose another directory; --keep is content with what is there, --merge extracts over it
-- exit 6

"#]],
    );
}

#[test]
fn a_target_that_is_extracted_over() {
    let place = Place::with_own_image();
    fs::create_dir_all(place.path().join("restored/hello/mine")).unwrap();
    in_turn(
        &place,
        &["unpack --merge oci:layout:v1 restored"],
        str![[r#"
-- stderr
error: restored/hello is a directory with something in it
hint: the image has something else there; move the directory away, or use --force
-- exit 6

"#]],
    );
    in_turn(
        &place,
        &["unpack --merge --force oci:layout:v1 restored"],
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
unpacked 4 entries, 26 B from 1 layer in [TIME]
-- exit 0

"#]],
    );
    assert!(place.path().join("restored/hello").is_file());
}

#[test]
fn a_target_that_appears_at_once() {
    let place = Place::with_own_image();
    fs::create_dir(place.path().join("restored")).unwrap();
    fs::write(place.path().join("restored/mine"), "").unwrap();
    in_turn(
        &place,
        &["unpack --atomic oci:layout:v1 restored"],
        str![[r#"
-- stderr
error: restored is not empty: it holds /mine
hint: choose another directory, empty this one, or replace all of it with --force
-- exit 6

"#]],
    );
    in_turn(
        &place,
        &["unpack --atomic --force oci:layout:v1 restored"],
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
unpacked 4 entries, 26 B from 1 layer in [TIME]
-- exit 0

"#]],
    );
    in_turn(
        &place,
        &["unpack --atomic --force oci:layout:v1 /proc"],
        str![[r#"
-- stderr
error: /proc is a mount point, and nothing can take its place at once
hint: unpack into a directory in it, and let a symbolic link lead there: /proc/current
-- exit 6

"#]],
    );
}

#[test]
fn a_part_of_an_image() {
    let place = Place::with_own_image();
    in_turn(
        &place,
        &["unpack --subpath /etc oci:layout:v1 directory"],
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
unpacked 2 entries, 20 B from 1 layer in [TIME]
-- exit 0

"#]],
    );
    in_turn(
        &place,
        &["unpack --subpath etc/hosts oci:layout:v1 file"],
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
unpacked 1 entry, 20 B from 1 layer in [TIME]
-- exit 0

"#]],
    );
    in_turn(
        &place,
        &["unpack --strip 1 oci:layout:v1 stripped"],
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
unpacked 1 entry, 20 B from 1 layer in [TIME]
-- exit 0

"#]],
    );
    for name in ["directory", "file", "stripped"] {
        assert!(place.path().join(name).join("hosts").is_file(), "{name}");
    }
    in_turn(
        &place,
        &["unpack --subpath /nowhere oci:layout:v1 nothing"],
        str![[r#"
-- stderr
error: the image has no /nowhere
hint: `volio ls` shows what it has; links in a path are not followed
-- exit 4

"#]],
    );
    assert!(!place.path().join("nothing").exists());
}

#[test]
fn options_that_make_no_sense() {
    let place = Place::with_own_image();
    for (options, expected) in [
        (
            "--force",
            str![[r#"
-- stderr
error: --force says what --merge or --atomic may replace
hint: give one of them too
-- exit 2

"#]],
        ),
        (
            "--merge --atomic",
            str![[r#"
-- stderr
error: the argument '--merge' cannot be used with '--atomic'

Usage: volio unpack --merge <IMAGE> <DIR>

For more information, try '--help'.
-- exit 2

"#]],
        ),
        (
            "--keep --checksum",
            str![[r#"
-- stderr
error: the argument '--keep' cannot be used with '--checksum'

Usage: volio unpack --keep <IMAGE> <DIR>

For more information, try '--help'.
-- exit 2

"#]],
        ),
        (
            "--subpath a --strip 1",
            str![[r#"
-- stderr
error: the argument '--subpath <PATH>' cannot be used with '--strip <N>'

Usage: volio unpack --subpath <PATH> <IMAGE> <DIR>

For more information, try '--help'.
-- exit 2

"#]],
        ),
        (
            "--subpath a/../..",
            str![[r#"
-- stderr
error: --subpath <PATH>: "a/../.." leads out of the image
hint: write a path without `..`
-- exit 2

"#]],
        ),
        (
            "--owner root:root",
            str![[r#"
-- stderr
error: --owner <UID:GID>: "root:root" is not an owner
hint: write UID:GID with numbers up to 4294967294, for example 1000:1000
-- exit 2

"#]],
        ),
        (
            "--owner 0:0 --uid-map 0:1:1",
            str![[r#"
-- stderr
error: the argument '--owner <UID:GID>' cannot be used with '--uid-map <IMAGE:HOST[:SIZE]>'

Usage: volio unpack --owner <UID:GID> <IMAGE> <DIR>

For more information, try '--help'.
-- exit 2

"#]],
        ),
        (
            "--uid-map 0:1:0",
            str![[r#"
-- stderr
error: --uid-map <IMAGE:HOST[:SIZE]>: "0:1:0" is not a range of a map
hint: write CONTAINER:HOST:SIZE, for example 0:100000:65536
-- exit 2

"#]],
        ),
        (
            "--uid-map 0:1:2,1:5:1",
            str![[r#"
-- stderr
error: the ranges 0:1:2 and 1:5:1 of a map overlap
hint: give every number one meaning
-- exit 2

"#]],
        ),
        (
            "--sparse sometimes",
            str![[r#"
-- stderr
error: invalid value 'sometimes' for '--sparse <WHEN>'
  [possible values: auto, always, never]

For more information, try '--help'.
-- exit 2

"#]],
        ),
    ] {
        assert_screen(place.screen(&format!("unpack {options} oci:layout:v1 restored")), expected);
    }
}

#[test]
fn owners_groups_devices_and_holes_as_they_are_wanted() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let place = Place::with_own_image();
    let mine = fs::metadata(place.path()).unwrap();
    let (uid, gid) = (mine.uid(), mine.gid());
    for (name, options) in [
        ("owner", format!("--owner {uid}:{gid}")),
        ("map", format!("--uid-map {uid}:{uid} --gid-map {gid}:{gid}:2")),
        ("other", "--group-access --no-devices --sparse never".to_owned()),
        ("blocks", "--sparse always".to_owned()),
    ] {
        in_turn(
            &place,
            &[&format!("unpack {options} oci:layout:v1 {name}")],
            str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
unpacked 4 entries, 26 B from 1 layer in [TIME]
-- exit 0

"#]],
        );
        assert_eq!(fs::metadata(place.path().join(name).join("hello")).unwrap().uid(), uid);
    }
    let mode = fs::metadata(place.path().join("other/etc")).unwrap().permissions().mode();
    assert_eq!(mode & 0o2070, 0o2070);
    let nobody = format!("unpack --uid-map {}:0:1 oci:layout:v1 unmapped", uid + 1);
    assert_screen(
        place.screen(&nobody).replace(&format!("user {uid} "), "user [UID] "),
        str![[r#"
-- stderr
error: /etc/hosts of the image cannot be extracted: the user [UID] is in no range of the map
hint: add a range to --uid-map or --gid-map, or give everything one owner with --owner
-- exit 2

"#]],
    );
}

#[test]
fn a_part_of_a_layer_without_a_table_of_contents() {
    let place = Place::with_tree().and("pack --compression gzip oci:layout:v1 tree");
    assert_screen(
        place.screen("unpack --subpath etc oci:layout:v1 out"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
warning: the layer has no table of contents to read in part: all is read
unpacked 2 entries, 20 B from 1 layer in [TIME]
-- exit 0

"#]],
    );
}
