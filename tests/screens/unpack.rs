//! `volio unpack`.

use super::{Workspace, assert_screen};
use snapbox::str;
use std::fs;

/// The screen of an unpack that succeeded.
fn unpacked(what: &str) -> String {
    format!("oci:layout@sha256:[DIGEST]\n-- stderr\nunpacked {what} from 1 layer in [TIME]\n-- exit 0\n")
}

/// The screen of an unpack that had nothing to do.
fn nothing_to_do(why: &str) -> String {
    format!("oci:layout@sha256:[DIGEST]\n-- stderr\nnothing to do: {why}\n-- exit 0\n")
}

/// The screen of an unpack that failed.
fn failed(error: &str, hint: &str, exit: u8) -> String {
    format!("-- stderr\nerror: {error}\nhint: {hint}\n-- exit {exit}\n")
}

/// The screen of arguments that clap rejects because they exclude each other.
fn conflict(first: &str, second: &str) -> String {
    format!(
        "-- stderr\nerror: the argument '{first}' cannot be used with '{second}'\n\n\
         Usage: volio unpack {first} <IMAGE> <DIR>\n\nFor more information, try '--help'.\n-- exit 2\n"
    )
}

/// Runs commands in this order and compares the screen of each.
#[track_caller]
fn assert_screens(place: &Workspace, commands: &[(&str, String)]) {
    for (command, expected) in commands {
        assert_screen(place.screen(command), expected);
    }
}

#[test]
fn an_image_becomes_a_directory() {
    let place = Workspace::with_own_image();
    assert_screens(&place, &[("unpack oci:layout:v1 restored", unpacked("4 entries, 26 B"))]);
    assert_eq!(fs::read_to_string(place.path().join("restored/hello")).unwrap(), "hello\n");
}

#[test]
fn the_result_as_json_is_one_document() {
    let place = Workspace::with_own_image();
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
  "symlinksSkipped": 0,
  "fifosSkipped": 0,
  "hardlinksCopied": 0
}
-- exit 0

"#]],
    );
}

#[test]
fn an_image_or_a_target_that_cannot_be_used() {
    let place = Workspace::with_own_image();
    assert_screens(
        &place,
        &[
            (
                "unpack oci:layout:v1 tree",
                failed(
                    "tree is not empty: it holds etc",
                    "choose another directory, empty this one, or extract over it with --merge",
                    6,
                ),
            ),
            (
                "unpack oci:nowhere:v1 restored",
                failed(
                    "nowhere is not an image layout: there is no such directory",
                    "write oci:DIRECTORY[:TAG] with a directory that volio, skopeo or buildah wrote",
                    4,
                ),
            ),
            (
                "unpack oci:layout:v2 restored",
                failed("there is no image with the tag \"v2\" in the layout layout", "its tags are v1", 4),
            ),
            (
                "unpack --platform linux/s390x oci:layout:v1 restored",
                failed(
                    "there is no image for linux/s390x under this name",
                    "choose one with --platform: linux/amd64, linux/arm64",
                    4,
                ),
            ),
            (
                "unpack localhost:1/data:v1 restored",
                failed(
                    "cannot reach the registry localhost:1: localhost:1: Connection refused (os error 111)",
                    "is the registry running at localhost:1?",
                    1,
                ),
            ),
        ],
    );
}

#[test]
fn a_layer_with_a_wrong_digest() {
    let place = Workspace::with_own_image();
    let is_document = |blob: &std::path::PathBuf| fs::read(blob).unwrap().starts_with(b"{");
    let layer = place.blobs().into_iter().find(|blob| !is_document(blob)).unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let expected = failed(
        "blob sha256:[DIGEST] has the digest sha256:[DIGEST]",
        "it was damaged or replaced where it is stored or on its way; nothing of it was used",
        3,
    );
    assert_screens(&place, &[("unpack oci:layout:v1 restored", expected)]);
}

#[test]
fn an_image_that_was_unpacked_before() {
    let place = Workspace::with_own_image().and("unpack oci:layout:v1 restored");
    let commands = [
        ("unpack oci:layout:v1 restored", nothing_to_do("restored holds this image")),
        (
            "unpack --keep oci:layout:nowhere restored",
            nothing_to_do("restored keeps the image that it holds").replace("oci:layout@", ""),
        ),
    ];
    assert_screens(&place, &commands);
    fs::write(place.path().join("restored/hello"), "changed").unwrap();
    let command = "unpack --checksum --no-sync oci:layout:v1 restored";
    assert_screens(&place, &[(command, unpacked("4 entries, 26 B"))]);
    assert_eq!(fs::read_to_string(place.path().join("restored/hello")).unwrap(), "hello\n");
}

#[test]
fn a_target_that_holds_another_image() {
    let place =
        Workspace::with_own_image().and("pack oci:layout:v2 tree/etc").and("unpack oci:layout:v2 restored");
    let expected = failed(
        "restored holds the image sha256:[DIGEST] already, or another part of it",
        "choose another directory; --keep is content with what is there, --merge extracts over it",
        6,
    );
    assert_screens(&place, &[("unpack oci:layout:v1 restored", expected)]);
}

#[test]
fn a_target_that_is_extracted_over() {
    let place = Workspace::with_own_image();
    fs::create_dir_all(place.path().join("restored/hello/mine")).unwrap();
    let refused = failed(
        "restored/hello is a directory with something in it",
        "the image has something else there; move the directory away, or use --force",
        6,
    );
    assert_screens(
        &place,
        &[
            ("unpack --merge oci:layout:v1 restored", refused),
            ("unpack --merge --force oci:layout:v1 restored", unpacked("4 entries, 26 B")),
        ],
    );
    assert!(place.path().join("restored/hello").is_file());
}

#[test]
fn a_target_that_is_replaced_at_once() {
    let place = Workspace::with_own_image();
    fs::create_dir(place.path().join("restored")).unwrap();
    fs::write(place.path().join("restored/mine"), "").unwrap();
    let refused = failed(
        "restored is not empty: it holds mine",
        "choose another directory, empty this one, or replace all of it with --force",
        6,
    );
    let mount_point = failed(
        "/proc is a mount point, and nothing can take its place at once",
        "unpack into a directory in it, and let a symbolic link lead there: /proc/current",
        6,
    );
    assert_screens(
        &place,
        &[
            ("unpack --atomic oci:layout:v1 restored", refused),
            ("unpack --atomic --force oci:layout:v1 restored", unpacked("4 entries, 26 B")),
            ("unpack --atomic --force oci:layout:v1 /proc", mount_point),
        ],
    );
}

#[test]
fn a_part_of_an_image() {
    let place = Workspace::with_own_image();
    let missing = failed(
        "the image has no /nowhere",
        "`volio ls` shows what it has; links in a path are not followed",
        4,
    );
    assert_screens(
        &place,
        &[
            ("unpack --subpath /etc oci:layout:v1 directory", unpacked("2 entries, 20 B")),
            ("unpack --subpath etc/hosts oci:layout:v1 file", unpacked("1 entry, 20 B")),
            ("unpack --strip 1 oci:layout:v1 stripped", unpacked("1 entry, 20 B")),
            ("unpack --subpath /nowhere oci:layout:v1 nothing", missing),
        ],
    );
    for name in ["directory", "file", "stripped"] {
        assert!(place.path().join(name).join("hosts").is_file(), "{name}");
    }
    assert!(!place.path().join("nothing").exists());
}

#[test]
fn options_that_contradict_each_other_or_cannot_be_parsed() {
    let place = Workspace::with_own_image();
    for (options, expected) in [
        (
            "--force",
            failed("--force says what --merge, --atomic or --sync may replace", "give one of them too", 2),
        ),
        ("--merge --atomic", conflict("--merge", "--atomic")),
        ("--keep --checksum", conflict("--keep", "--checksum")),
        ("--subpath a --strip 1", conflict("--subpath <PATH>", "--strip <N>")),
        ("--owner 0:0 --uid-map 0:1:1", conflict("--owner <UID:GID>", "--uid-map <IMAGE:HOST[:SIZE]>")),
        (
            "--subpath a/../..",
            failed("--subpath <PATH>: \"a/../..\" leads out of the image", "write a path without `..`", 2),
        ),
        (
            "--owner root:root",
            failed(
                "--owner <UID:GID>: \"root:root\" is not an owner",
                "write UID:GID with numbers up to 4294967294, for example 1000:1000",
                2,
            ),
        ),
        (
            "--uid-map 0:1:0",
            failed(
                "--uid-map <IMAGE:HOST[:SIZE]>: \"0:1:0\" is not a range of a map",
                "write CONTAINER:HOST:SIZE, for example 0:100000:65536",
                2,
            ),
        ),
        (
            "--uid-map 0:1:2,1:5:1",
            failed("the ranges 0:1:2 and 1:5:1 of a map overlap", "give every number one meaning", 2),
        ),
        (
            "--sparse sometimes",
            "-- stderr\nerror: invalid value 'sometimes' for '--sparse <WHEN>'\n  \
             [possible values: auto, always, never]\n\nFor more information, try '--help'.\n-- exit 2\n"
                .to_owned(),
        ),
    ] {
        assert_screen(place.screen(&format!("unpack {options} oci:layout:v1 restored")), expected);
    }
}

#[test]
fn options_for_owners_groups_devices_and_holes() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let place = Workspace::with_own_image();
    let mine = fs::metadata(place.path()).unwrap();
    let (uid, gid) = (mine.uid(), mine.gid());
    for (name, options) in [
        ("owner", format!("--owner {uid}:{gid}")),
        ("map", format!("--uid-map {uid}:{uid} --gid-map {gid}:{gid}:2")),
        ("other", "--group-access --no-devices --sparse never".to_owned()),
        ("blocks", "--sparse always".to_owned()),
    ] {
        let command = format!("unpack {options} oci:layout:v1 {name}");
        assert_screens(&place, &[(&command, unpacked("4 entries, 26 B"))]);
        assert_eq!(fs::metadata(place.path().join(name).join("hello")).unwrap().uid(), uid);
    }
    let mode = fs::metadata(place.path().join("other/etc")).unwrap().permissions().mode();
    assert_eq!(mode & 0o2070, 0o2070);
    let unmapped = format!("unpack --uid-map {}:0:1 oci:layout:v1 unmapped", uid + 1);
    assert_screen(
        place.screen(&unmapped).replace(&format!("user {uid} "), "user [UID] "),
        failed(
            "/etc/hosts of the image cannot be extracted: the user [UID] is in no range of the map",
            "add a range to --uid-map or --gid-map, or give everything one owner with --owner",
            2,
        ),
    );
}

#[test]
fn a_part_of_a_layer_without_a_table_of_contents() {
    let place = Workspace::with_tree().and("pack --compression gzip oci:layout:v1 tree");
    let warning = "-- stderr\nwarning: the layer has no table of contents to read in part: all is read\n";
    let expected = unpacked("2 entries, 20 B").replace("-- stderr\n", warning);
    assert_screens(&place, &[("unpack --subpath etc oci:layout:v1 out", expected)]);
}

#[test]
fn content_that_later_layers_replace_is_left_out() {
    let place = Workspace::with_tree();
    fs::write(place.path().join("tree/large"), crate::registry::noise(9_000_000)).unwrap();
    let place = place.and("pack oci:layout:v1 tree");
    fs::write(place.path().join("tree/large"), "small").unwrap();
    let place = place.and("pack --incremental --allow-shrink --max-dead 100 oci:layout:v1 tree");
    let screen = place.screen("unpack --no-sync oci:layout:v1 restored");
    assert!(screen.contains("unpacked 5 entries, 31 B from 2 layers in "), "{screen}");
    // How well times are compressed depends on them.
    assert!(
        screen.contains("; fetched 1.")
            && screen.contains(" KiB of 8.6 MiB: later layers replace the rest\n"),
        "{screen}"
    );
    let json = place.screen("unpack --format json --quiet oci:layout:v1 again");
    assert!(json.contains("\"bytesFetched\": ") && json.contains("\"bytesOfLayers\": 900"), "{json}");
}
