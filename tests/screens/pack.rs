//! `volio pack`.

use super::{Workspace, assert_screen};
use snapbox::str;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn a_directory_becomes_an_image() {
    assert_screen(
        Workspace::with_tree().screen("pack --normalize oci:layout:v1 tree"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
packed 4 entries, 26 B into 1 layer of 462 B in [TIME]
-- exit 0

"#]],
    );
}

#[test]
fn the_result_as_json_is_one_document() {
    let place = Workspace::with_tree();
    assert_screen(
        place.screen("pack --quiet --format json --normalize oci:layout:v1 tree"),
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
      "size": 462,
      "uncompressedSize": 4096,
      "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd"
    }
  ],
  "entries": 4,
  "bytes": 26,
  "socketsSkipped": 0,
  "excluded": 0,
  "attributesSkipped": {},
  "bookkeepingSkipped": 0,
  "mountsSkipped": 0,
  "unreadableSkipped": 0,
  "changedSkipped": 0,
  "skipped": []
}
-- exit 0

"#]],
    );
}

#[test]
fn the_same_tree_has_the_same_digest() {
    let place = Workspace::with_tree();
    let digest = |file: &str| fs::read_to_string(place.path().join(file)).unwrap();
    place.screen("pack --digestfile first oci:a tree");
    place.screen("pack --digestfile second oci:b tree");
    assert!(digest("first").starts_with("sha256:") && digest("first").len() == 71, "{}", digest("first"));
    assert_eq!(digest("first"), digest("second"));
}

#[test]
fn a_digestfile_of_an_earlier_run_does_not_survive_a_run_that_fails() {
    let place = Workspace::with_tree();
    let digest = place.path().join("digest");
    for command in
        ["pack --digestfile digest oci:layout:v1 nowhere", "copy --digestfile digest oci:nowhere:v1 oci:b:v1"]
    {
        fs::write(&digest, "sha256:0123").unwrap();
        place.screen(command);
        assert!(!digest.exists(), "{command}");
    }
    fs::write(place.path().join("target"), "sha256:0123").unwrap();
    std::os::unix::fs::symlink("target", &digest).unwrap();
    place.screen("pack --digestfile digest oci:layout:v1 nowhere");
    assert_eq!(fs::read(&digest).unwrap(), b"", "what a link leads to is emptied");
    place.screen("pack --digestfile digest oci:layout:v1 tree");
    assert!(fs::read_to_string(place.path().join("target")).unwrap().starts_with("sha256:"));
}

#[test]
fn entries_that_are_left_out_are_counted_by_kind() {
    let place = Workspace::with_tree();
    let tree = place.path().join("tree");
    let attribute = |name: &str| rustix::fs::setxattr(&tree, name, b"x", rustix::fs::XattrFlags::empty());
    attribute("user.overlay.origin").unwrap();
    attribute("user.fuseoverlayfs.origin").unwrap();
    fs::write(tree.join(".volio.json"), r#"{"complete":true,"content":null,"alone":true,"inode":1}"#)
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    let screen = place.screen("pack --format json oci:layout:v1 tree");
    for expected in [
        "; 1 socket, 2 attributes of this host, 1 record or lost+found skipped",
        "\"attributesSkipped\": {\n    \"user.fuseoverlayfs.\": 1,\n    \"user.overlay.\": 1\n  }",
        "\"bookkeepingSkipped\": 1",
    ] {
        assert!(screen.contains(expected), "{screen}");
    }
}

#[test]
fn patterns_may_stand_in_a_file_and_caches_are_left_out() {
    let place = Workspace::with_tree();
    fs::write(place.path().join("patterns"), "# comment\nhello\n").unwrap();
    let cache = place.path().join("tree/cache");
    fs::create_dir(&cache).unwrap();
    fs::write(cache.join("CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55").unwrap();
    fs::write(cache.join("made"), "").unwrap();
    place.screen("pack --exclude-caches --exclude-from patterns oci:layout:v1 tree");
    assert_screen(
        place.screen("ls -R oci:layout:v1"),
        str![[r#"
/
/cache
/cache/CACHEDIR.TAG
/etc
/etc/hosts
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("pack --exclude-from nowhere oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: --exclude-from: cannot read nowhere: No such file or directory (os error 2)
-- exit 4

"#]],
    );
}

#[test]
fn a_layout_is_as_private_as_the_umask_says() {
    let place = Workspace::with_tree();
    let pack = ["-c", "umask 077; exec \"$0\" pack oci:layout:v1 tree", env!("CARGO_BIN_EXE_volio")];
    let mut command = Command::new("sh");
    command.args(pack).current_dir(place.path());
    assert!(place.run(command).status.success());
    let files = place.blobs().into_iter().chain([place.path().join("layout/index.json")]);
    for file in files {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn a_source_that_is_not_there() {
    assert_screen(
        Workspace::new().screen("pack oci:layout:v1 nowhere"),
        str![[r#"
-- stderr
error: there is no nowhere
hint: SOURCE is a directory or a file; `SOURCE:/PATH` says where it lands in the image
-- exit 4

"#]],
    );
}

#[test]
fn sources_that_collide() {
    let place = Workspace::with_tree();
    fs::write(place.path().join("hello"), "another").unwrap();
    assert_screen(
        place.screen("pack oci:layout:v1 tree hello"),
        str![[r#"
-- stderr
error: both tree and hello have something at /hello
hint: give one of them another place with SOURCE:/PATH, or leave it out of one of them
-- exit 2

"#]],
    );
    assert!(!place.path().join("layout/index.json").exists(), "nothing is published");
}

#[test]
fn no_source() {
    assert_screen(
        Workspace::new().screen("pack oci:layout:v1"),
        str![[r#"
-- stderr
error: the following required arguments were not provided:
  <SOURCE[:PATH]>...

Usage: volio pack <IMAGE> <SOURCE[:PATH]>...

For more information, try '--help'.
-- exit 2

"#]],
    );
}

#[test]
fn a_reference_that_does_not_parse() {
    assert_screen(
        Workspace::with_tree().screen("pack localhost:5000/UPPER tree"),
        str![[r#"
-- stderr
error: [IMAGE]: "localhost:5000/UPPER" is not a reference to an image: a repository is words of lower-case letters and digits, joined by '/', '.', '_', '__' or '-'
hint: write HOST[:PORT]/REPOSITORY[:TAG][@DIGEST], or oci:DIRECTORY[:TAG]
-- exit 2

"#]],
    );
}

#[test]
fn a_digest_is_no_name_to_write_to() {
    let digest = "a".repeat(64);
    let place = Workspace::with_tree();
    assert_screen(
        place.screen(&format!("pack localhost:5000/data@sha256:{digest} tree")),
        str![[r#"
-- stderr
error: cannot write to localhost:5000/data@sha256:[DIGEST]: a digest is not a name to write to
hint: name a tag; the digest is printed when the image is there
-- exit 2

"#]],
    );
}

#[test]
fn a_transport_that_is_not_built() {
    assert_screen(
        Workspace::with_tree().screen("pack docker-daemon:image:v1 tree"),
        str![[r#"
-- stderr
error: [IMAGE]: "docker-daemon:image:v1": volio does not read or write docker-daemon:
hint: use a registry (HOST/REPOSITORY:TAG), a layout (oci:DIRECTORY:TAG) or an archive (oci-archive:FILE:TAG)
-- exit 2

"#]],
    );
}

#[test]
fn a_path_that_leads_out_of_the_image() {
    assert_screen(
        Workspace::with_tree().screen("pack oci:layout:v1 tree:/../etc"),
        str![[r#"
-- stderr
error: [SOURCE[:PATH]]...: "tree:/../etc" puts "tree" outside of the tree
hint: the path behind the colon is the one inside the image and has no `..`
-- exit 2

"#]],
    );
}

#[test]
fn a_platform_that_is_none() {
    assert_screen(
        Workspace::with_tree().screen("pack --platform amd64 oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: --platform <OS/ARCH>: "amd64" is not a platform
hint: write OS/ARCHITECTURE[/VARIANT], for example linux/amd64 or linux/arm/v7
-- exit 2

"#]],
    );
}

#[test]
fn a_compression_that_is_none() {
    assert_screen(
        Workspace::with_tree().screen("pack --compression lz4 oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: --compression <METHOD>: "lz4" is not a compression
hint: write zstd[:1-19], gzip[:1-9] or none; zstd:3 is the default
-- exit 2

"#]],
    );
    assert_screen(
        Workspace::with_tree().screen("pack --compression gzip:99 oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: --compression <METHOD>: "gzip:99" is not a compression
hint: write zstd[:1-19], gzip[:1-9] or none; zstd:3 is the default
-- exit 2

"#]],
    );
}

#[test]
fn a_label_without_a_value() {
    assert_screen(
        Workspace::with_tree().screen("pack --label stage oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: --label <KEY=VALUE>: "stage" is not KEY=VALUE
hint: write a name, an equals sign and a value, for example stage=test
-- exit 2

"#]],
    );
}

#[test]
fn an_entrypoint_that_is_half_an_array() {
    assert_screen(
        Workspace::with_tree().screen("pack --entrypoint [\"/bin/sh\" oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: --entrypoint <WORDS>: "[\"/bin/sh\"" is not a JSON array of words: EOF while parsing a list at line 1 column 10
hint: write one word, or an array such as '["/bin/app", "--serve"]'
-- exit 2

"#]],
    );
}

#[test]
fn a_directory_to_start_in_that_is_relative() {
    assert_screen(
        Workspace::with_tree().screen("pack --workdir data oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: --workdir <DIR>: "data" does not begin with /
hint: a container starts in a directory named from the root, for example /data
-- exit 2

"#]],
    );
}

#[test]
fn a_source_date_epoch_that_is_no_number() {
    let place = Workspace::with_tree();
    let mut volio = place.volio("pack oci:layout:v1 tree");
    volio.env("SOURCE_DATE_EPOCH", "yesterday");
    assert_screen(
        place.screen_of(volio),
        str![[r#"
-- stderr
error: SOURCE_DATE_EPOCH is "yesterday", which is not a time
hint: set it to seconds since 1970, for example $(git log -1 --format=%ct)
-- exit 2

"#]],
    );
}

#[test]
fn an_authfile_that_is_not_there() {
    let place = Workspace::with_tree();
    assert_screen(
        place.screen("pack --authfile nowhere.json localhost:1/data:v1 tree"),
        str![[r#"
-- stderr
error: nowhere.json is not there
hint: --authfile and REGISTRY_AUTH_FILE name a file like docker's config.json
-- exit 2

"#]],
    );
}

#[test]
fn a_registry_that_is_not_there() {
    assert_screen(
        Workspace::with_tree().screen("pack localhost:1/data:v1 tree"),
        str![[r#"
-- stderr
error: cannot reach the registry localhost:1: localhost:1: Connection refused (os error 111)
hint: is the registry running at localhost:1?
-- exit 1

"#]],
    );
}

#[test]
fn a_map_of_owners_that_is_none() {
    let place = Workspace::with_tree();
    assert_screen(
        place.screen("pack --uid-map 0:1:0 oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: --uid-map <CONTAINER:HOST:SIZE>: "0:1:0" is not a range of a map
hint: write CONTAINER:HOST:SIZE, for example 0:100000:65536
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("pack --uid-map 0:1:9 --uid-map 5:100:9 oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: the ranges 0:1:9 and 5:100:9 of a map overlap
hint: give every number one meaning
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("pack --uid-map 0:1:9 --chown 1:1 oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: the argument '--uid-map <CONTAINER:HOST:SIZE>' cannot be used with '--chown <UID:GID>'

Usage: volio pack --uid-map <CONTAINER:HOST:SIZE> <IMAGE> <SOURCE[:PATH]>...

For more information, try '--help'.
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("pack --chown root oci:layout:v1 tree"),
        str![[r#"
-- stderr
error: --chown <UID:GID>: "root" is not an owner
hint: write UID:GID with numbers up to 4294967294, for example 1000:1000
-- exit 2

"#]],
    );
}

#[test]
fn rules_in_a_source_count_only_where_the_source_was_typed() {
    let place = Workspace::with_tree();
    fs::write(place.path().join("tree/.volioignore"), "*\n").unwrap();
    let mut by_environment = place.volio("pack --normalize");
    by_environment.env("DATA_TAG", "h.example/data:1").env("NO_PUSH", "1");
    by_environment.env("VOLIO_STORE", "store").env("VOLIO_SOURCE", "tree");
    let screen = place.screen_of(by_environment);
    assert!(screen.contains("packed 5 entries") && !screen.contains("excluded"), "{screen}");
    let screen = place.screen("pack oci:layout:v1 tree");
    assert!(screen.contains("; 3 excluded"), "{screen}");
}
