//! data-io's interface: `volio pack` and `volio unpack` without arguments, by the environment and by secrets.

mod incremental;

use super::{Workspace, assert_screen};
use crate::registry::{Login, Registry};
use snapbox::str;
use std::fs;

/// The screen after a command with these variables, and with its own source, target, store and secrets.
fn screen(place: &Workspace, command: &str, variables: &[(&str, &str)]) -> String {
    let mut volio = place.volio(command);
    let own = [("SOURCE", "tree"), ("TARGET", "target"), ("STORE", "store"), ("SECRETS", "secrets")];
    volio.envs(own.map(|(name, path)| (format!("VOLIO_{name}"), place.path().join(path))));
    place.screen_of({
        volio.envs(variables.iter().copied());
        volio
    })
}

fn secret(place: &Workspace, name: &str, content: &str) {
    fs::create_dir_all(place.path().join("secrets")).unwrap();
    fs::write(place.path().join("secrets").join(name), content).unwrap();
}

/// A registry that accepts only `me` with `hunter2`.
fn guarded() -> Registry {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.login = Login::Basic { user: "me:hunter2" });
    registry
}

fn read(place: &Workspace, file: &str) -> String {
    fs::read_to_string(place.path().join(file)).unwrap()
}

#[test]
fn without_a_word_anywhere_it_is_said_how_to_name_an_image() {
    assert_screen(
        screen(&Workspace::with_tree(), "pack", &[]),
        str![[r#"
-- stderr
error: arguments are missing: volio pack IMAGE SOURCE
hint: without arguments, it needs data-io's variables: DATA_TAG=HOST/REPOSITORY:TAG volio pack
-- exit 2

"#]],
    );
    assert_screen(
        screen(&Workspace::with_tree(), "unpack", &[("DATA_TAG", "")]),
        str![[r#"
-- stderr
error: arguments are missing: volio unpack IMAGE DIR
hint: without arguments, it needs data-io's variables: DATA_TAG=HOST/REPOSITORY:TAG volio unpack
-- exit 2

"#]],
    );
}

#[test]
fn an_image_without_a_source_or_a_target_is_not_data_ios_interface() {
    let tag = [("DATA_TAG", "h.example/a:1"), ("NO_PUSH", "1"), ("NO_PULL", "1")];
    assert_screen(
        screen(&Workspace::with_tree(), "unpack oci:layout:v1", &tag),
        str![[r#"
-- stderr
error: the following required arguments were not provided:
  <DIR>

Usage: volio unpack <IMAGE> <DIR>

For more information, try '--help'.
-- exit 2

"#]],
    );
}

#[test]
fn a_bucket_is_answered_with_the_pipeline_to_use_instead() {
    let bucket = [("DATA_S3_DST", "s3://bucket/path/file.tar.gz")];
    assert_screen(
        screen(&Workspace::with_tree(), "pack", &bucket),
        str![[r#"
-- stderr
error: DATA_S3_DST is set and DATA_TAG is not: volio knows registries and no buckets
hint: use tar -cz -C /source . | aws s3 cp - "s3://bucket/path/file.tar.-$(date -u +%Y-%m-%d_%H-%M-%S).gz"
-- exit 2

"#]],
    );
    assert_screen(
        screen(&Workspace::with_tree(), "unpack", &bucket),
        str![[r#"
-- stderr
error: DATA_S3_DST is set and DATA_TAG is not: volio knows registries and no buckets
hint: use aws s3 cp s3://bucket/path/file.tar.gz - | tar -xz -C /
-- exit 2

"#]],
    );
}

#[test]
fn a_tag_wins_over_a_bucket_and_any_value_keeps_it_here() {
    let place = Workspace::with_tree();
    let variables = [
        ("DATA_S3_DST", "s3://bucket/file.tar.gz"),
        ("DATA_TAG", "data:1"),
        ("REGISTRY", "registry.example"),
        ("NO_PUSH", "0"),
        ("NO_PULL", "no"),
        // An incomplete login is an error only if the image is in a registry.
        ("REGISTRY_USERNAME", "me"),
    ];
    let packed = screen(&place, "pack --normalize", &variables);
    assert_screen(
        packed,
        str![[r#"
oci:/place/store@sha256:[DIGEST]
-- stderr
packed 4 entries, 26 B into 1 layer of 462 B in [TIME]
-- exit 0

"#]],
    );
    assert_screen(
        screen(&place, "unpack", &variables),
        str![[r#"
oci:/place/store@sha256:[DIGEST]
-- stderr
unpacked 4 entries, 26 B from 1 layer in [TIME]
-- exit 0

"#]],
    );
    assert_eq!(read(&place, "target/etc/hosts"), "127.0.0.1 localhost\n");
    // Other programs find it there by its name.
    assert!(place.screen("inspect oci:store:registry.example/data:1").ends_with("-- exit 0\n"));
}

#[test]
fn an_image_that_is_not_in_the_store_is_not_fetched_with_no_pull() {
    let place = Workspace::with_tree();
    let variables = [("DATA_TAG", "registry.example/data:1"), ("NO_PULL", "1"), ("NO_PUSH", "1")];
    assert_screen(
        screen(&place, "unpack", &variables),
        str![[r#"
-- stderr
error: NO_PULL is set, and /place/store has no registry.example/data:1
hint: pack it with NO_PUSH and the same volume there, or unset NO_PULL to fetch it
-- exit 4

"#]],
    );
    let other = [("DATA_TAG", "registry.example/other:1"), variables[2]];
    assert!(screen(&place, "pack", &other).ends_with("-- exit 0\n"));
    assert_screen(
        screen(&place, "unpack", &variables),
        str![[r#"
-- stderr
error: NO_PULL is set, and /place/store has no registry.example/data:1
hint: pack it with NO_PUSH and the same volume there, or unset NO_PULL to fetch it
-- exit 4

"#]],
    );
}

#[test]
fn half_a_login_is_a_usage_error_that_names_the_other_half() {
    let tag = ("DATA_TAG", "registry.example/data:1");
    let place = Workspace::with_tree();
    assert_screen(
        screen(&place, "pack", &[tag, ("REGISTRY_USERNAME", "me")]),
        str![[r#"
-- stderr
error: REGISTRY_USERNAME is set, and REGISTRY_PASSWORD is not
hint: set both, or neither for a registry without a login; a file in /run/secrets counts too
-- exit 2

"#]],
    );
    secret(&place, "REGISTRY_PASSWORD", "hunter2\n");
    assert_screen(
        screen(&place, "unpack", &[tag]),
        str![[r#"
-- stderr
error: REGISTRY_PASSWORD is set, and REGISTRY_USERNAME is not
hint: set both, or neither for a registry without a login; a file in /run/secrets counts too
-- exit 2

"#]],
    );
    // An empty secret hides the variable.
    secret(&place, "REGISTRY_USERNAME", "\n");
    assert_screen(
        screen(&place, "unpack", &[tag, ("REGISTRY_USERNAME", "me")]),
        str![[r#"
-- stderr
error: REGISTRY_PASSWORD is set, and REGISTRY_USERNAME is not
hint: set both, or neither for a registry without a login; a file in /run/secrets counts too
-- exit 2

"#]],
    );
}

#[test]
fn names_that_are_no_images_are_refused_and_an_address_with_a_password_is_not_shown() {
    let place = Workspace::with_tree();
    assert_screen(
        screen(&place, "pack", &[("DATA_TAG", "UPPER:1"), ("REGISTRY", "h.example")]),
        str![[r#"
-- stderr
error: DATA_TAG, after REGISTRY if that is set, is not an image: "h.example/UPPER:1" is not a reference to an image: a repository is words of lower-case letters and digits, joined by '/', '.', '_', '__' or '-'
hint: DATA_TAG=REPOSITORY:TAG with REGISTRY=HOST, or DATA_TAG=HOST/REPOSITORY:TAG
-- exit 2

"#]],
    );
    let address = [("DATA_TAG", "a:1"), ("REGISTRY", "https://me:hunter2@h.example")];
    assert_screen(
        screen(&place, "pack", &address),
        str![[r#"
-- stderr
error: REGISTRY is an address and not a host
hint: write HOST[:PORT]
-- exit 2

"#]],
    );
}

#[test]
fn no_source_is_an_error_that_says_where_volumes_belong() {
    let place = Workspace::new();
    assert_screen(
        screen(&place, "pack", &[("DATA_TAG", "a:1"), ("NO_PUSH", "1")]),
        str![[r#"
-- stderr
error: cannot pack /place/tree: No such file or directory (os error 2)
hint: mount the volumes below it: -v VOLUME:/source/var/lib/mysql:ro
-- exit 4

"#]],
    );
}

#[test]
fn secrets_log_in_and_count_before_the_environment() {
    let (place, registry) = (Workspace::with_tree(), guarded());
    secret(&place, "REGISTRY_PASSWORD", "hunter2\n");
    secret(&place, "REGISTRY_USERNAME", "me");
    secret(&place, "my-secret", "x");
    fs::create_dir_all(place.path().join("secrets/kubernetes.io/serviceaccount")).unwrap();
    let variables =
        [("REGISTRY", registry.host()), ("DATA_TAG", "data:1"), ("REGISTRY_PASSWORD", "a wrong one")];
    let shown = |command| screen(&place, command, &variables).replace(registry.host(), "HOST");
    assert_screen(
        shown("pack --normalize"),
        str![[r#"
HOST/data@sha256:[DIGEST]
-- stderr
warning: /place/secrets/my-secret is passed over: no variable can have that name
packed 4 entries, 26 B into 1 layer of 462 B in [TIME]
-- exit 0

"#]],
    );
    assert_screen(
        shown("unpack"),
        str![[r#"
HOST/data@sha256:[DIGEST]
-- stderr
warning: /place/secrets/my-secret is passed over: no variable can have that name
unpacked 4 entries, 26 B from 1 layer in [TIME]
-- exit 0

"#]],
    );
}

#[test]
fn a_registry_that_refuses_is_an_error_without_the_password() {
    let (place, registry) = (Workspace::with_tree(), guarded());
    let tag = format!("{}/data:1", registry.host());
    let shown = |command, login: &[(&str, &str)]| {
        let variables = [&[("DATA_TAG", tag.as_str())], login].concat();
        screen(&place, command, &variables).replace(registry.host(), "HOST")
    };
    let wrong = [("REGISTRY_USERNAME", "me"), ("REGISTRY_PASSWORD", "hunter3")];
    assert_screen(
        shown("pack", &wrong),
        str![[r#"
-- stderr
error: cannot upload a blob to HOST/data: HOST answers 401 Unauthorized: UNAUTHORIZED: who are you?
hint: REGISTRY_USERNAME and REGISTRY_PASSWORD log in
-- exit 5

"#]],
    );
    assert_screen(
        shown("unpack", &wrong),
        str![[r#"
-- stderr
error: cannot find HOST/data:1: HOST answers 401 Unauthorized: UNAUTHORIZED: who are you?
hint: REGISTRY_USERNAME and REGISTRY_PASSWORD log in
-- exit 5

"#]],
    );
    assert_screen(
        shown("unpack", &[]),
        str![[r#"
-- stderr
error: cannot find HOST/data:1: HOST answers 401 Unauthorized: UNAUTHORIZED: who are you?
hint: REGISTRY_USERNAME and REGISTRY_PASSWORD log in
-- exit 5

"#]],
    );
    assert!(!place.path().join("target").exists(), "nothing was made for nothing");
}

#[test]
fn a_new_version_is_refused_once_where_the_target_holds_data() {
    let (place, registry) = (Workspace::with_tree(), Registry::start());
    let tag = [("DATA_TAG", format!("{}/data:1", registry.host()))];
    let tag = tag.each_ref().map(|(name, value)| (*name, value.as_str()));
    let run = |command| screen(&place, command, &tag).replace(registry.host(), "HOST");
    assert!(run("pack").ends_with("-- exit 0\n"));
    // The first import, and the same image once more: the data is restored.
    assert!(run("unpack").ends_with("-- exit 0\n"));
    fs::write(place.path().join("target/hello"), "changed\n").unwrap();
    fs::write(place.path().join("target/own"), "own\n").unwrap();
    assert!(run("unpack").ends_with("-- exit 0\n"));
    assert_eq!(
        (read(&place, "target/hello"), read(&place, "target/own")),
        ("hello\n".into(), "own\n".into())
    );

    fs::write(place.path().join("tree/hello"), "hello again\n").unwrap();
    assert!(run("pack").ends_with("-- exit 0\n"));
    assert_screen(
        run("unpack"),
        str![[r#"
-- stderr
error: there is a new version: /place/target holds the image sha256:[DIGEST], and it is sha256:[DIGEST] now
hint: look at it if you like, and run the same again: the next run unpacks it
-- exit 6

"#]],
    );
    assert_eq!(read(&place, "target/hello"), "hello\n", "data is as it was");
    assert!(run("unpack").ends_with("-- exit 0\n"));
    assert_eq!(read(&place, "target/hello"), "hello again\n");

    // A third version is refused once too. NO_CHECK turns that off, and an empty directory holds no data.
    fs::write(place.path().join("tree/hello"), "three\n").unwrap();
    assert!(run("pack").ends_with("-- exit 0\n"));
    assert!(run("unpack").ends_with("-- exit 6\n"));
    let unchecked = screen(&place, "unpack", &[tag[0], ("NO_CHECK", "1")]);
    assert!(unchecked.ends_with("-- exit 0\n"), "{unchecked}");
    fs::write(place.path().join("tree/hello"), "four\n").unwrap();
    assert!(run("pack").ends_with("-- exit 0\n"));
    for entry in fs::read_dir(place.path().join("target")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    assert!(run("unpack").ends_with("-- exit 0\n"));
    assert_eq!(read(&place, "target/hello"), "four\n");
}

#[test]
fn a_target_that_holds_other_data_keeps_it_and_flags_still_count() {
    let place = Workspace::with_tree();
    fs::create_dir_all(place.path().join("target/etc")).unwrap();
    fs::write(place.path().join("target/etc/other"), "other\n").unwrap();
    let variables = [("DATA_TAG", "data:1"), ("NO_PUSH", "1"), ("NO_PULL", "1")];
    assert!(screen(&place, "pack", &variables).ends_with("-- exit 0\n"));
    assert!(screen(&place, "unpack", &variables).ends_with("-- exit 0\n"));
    assert_eq!(read(&place, "target/etc/other"), "other\n");
    fs::write(place.path().join("target/hello"), "changed\n").unwrap();
    assert_screen(
        screen(&place, "unpack --keep", &variables),
        str![[r#"
sha256:[DIGEST]
-- stderr
nothing to do: /place/target keeps the image that it holds
-- exit 0

"#]],
    );
    assert_eq!(read(&place, "target/hello"), "changed\n");
    // A directory is not replaced by a file.
    fs::remove_file(place.path().join("target/hello")).unwrap();
    fs::create_dir(place.path().join("target/hello")).unwrap();
    fs::write(place.path().join("target/hello/there"), "there\n").unwrap();
    assert_screen(
        screen(&place, "unpack", &variables),
        str![[r#"
-- stderr
error: /place/target/hello is a directory with something in it
hint: the image has something else there; move the directory away, or use --force
-- exit 6

"#]],
    );
    assert_eq!(read(&place, "target/hello/there"), "there\n");
}

#[test]
fn an_image_for_data_io_is_packed_and_unpacked() {
    let place = Workspace::with_tree();
    assert_screen(
        place.screen("pack --normalize --format data-io oci:layout:v1 tree"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
packed 4 entries, 26 B into 1 layer of 293 B in [TIME]
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("unpack oci:layout:v1 target"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
unpacked 4 entries, 26 B from 1 layer that data-io made in [TIME]
-- exit 0

"#]],
    );
    assert_eq!(read(&place, "target/hello"), "hello\n");
    assert_screen(
        place.screen("unpack --as-is oci:layout:v1 as-is"),
        str![[r#"
oci:layout@sha256:[DIGEST]
-- stderr
unpacked 1 entry, 175 B from 1 layer in [TIME]
-- exit 0

"#]],
    );
    assert!(place.path().join("as-is/data.tar.gz").exists());
    assert_screen(
        place.screen("pack --normalize --quiet --format data-io --format json docker-archive:a.tar:a:1 tree"),
        str![[r#"
{
  "address": "docker-archive:a.tar@sha256:[DIGEST]",
  "digest": "sha256:[DIGEST]",
  "platforms": [
    {
      "architecture": "amd64",
      "os": "linux"
    }
  ],
  "layers": [
    {
      "digest": "sha256:[DIGEST]",
      "diffId": "sha256:[DIGEST]",
      "size": 2048,
      "uncompressedSize": 2048,
      "mediaType": "application/vnd.oci.image.layer.v1.tar"
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
    assert_screen(
        place.screen("unpack docker-archive:a.tar:a:1 loaded"),
        str![[r#"
docker-archive:a.tar@sha256:[DIGEST]
-- stderr
unpacked 4 entries, 26 B from 1 layer that data-io made in [TIME]
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("pack --format data-io --annotation a=b oci:layout:v2 tree"),
        str![[r#"
-- stderr
error: an image as data-io made them has no annotations
hint: use labels
-- exit 2

"#]],
    );
    let mut elsewhere = place.volio("pack --format data-io oci:layout:v2 tree");
    elsewhere.env("TMPDIR", "/nowhere");
    assert_screen(
        place.screen_of(elsewhere),
        str![[r#"
-- stderr
error: cannot write the archive in /nowhere: No such file or directory (os error 2)
hint: it is kept there until its size is known: set TMPDIR to a directory with room for it
-- exit 4

"#]],
    );
}
