//! data-io's interface: `volio pack` and `volio unpack` without arguments, by the environment and by secrets.

use super::{Place, assert_screen};
use crate::registry::{Login, Registry};
use snapbox::str;
use std::fs;

/// The screen after a command with these variables, and with a source, a target, a store and secrets of its own.
fn screen(place: &Place, command: &str, variables: &[(&str, &str)]) -> String {
    let mut volio = place.volio(command);
    let own = [("SOURCE", "tree"), ("TARGET", "target"), ("STORE", "store"), ("SECRETS", "secrets")];
    volio.envs(own.map(|(name, path)| (format!("VOLIO_{name}"), place.path().join(path))));
    place.screen_of({
        volio.envs(variables.iter().copied());
        volio
    })
}

fn secret(place: &Place, name: &str, content: &str) {
    fs::create_dir_all(place.path().join("secrets")).unwrap();
    fs::write(place.path().join("secrets").join(name), content).unwrap();
}

/// A registry that lets in `me` with `hunter2`, and none else.
fn guarded() -> Registry {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.login = Login::Basic { user: "me:hunter2" });
    registry
}

fn read(place: &Place, file: &str) -> String {
    fs::read_to_string(place.path().join(file)).unwrap()
}

#[test]
fn without_a_word_anywhere_it_is_said_how_to_name_an_image() {
    assert_screen(screen(&Place::with_tree(), "pack", &[]), str![[r#""#]]);
    assert_screen(screen(&Place::with_tree(), "unpack", &[("DATA_TAG", "")]), str![[r#""#]]);
}

#[test]
fn an_image_without_a_source_or_a_target_is_not_data_ios_interface() {
    let tag = [("DATA_TAG", "h.example/a:1"), ("NO_PUSH", "1"), ("NO_PULL", "1")];
    assert_screen(screen(&Place::with_tree(), "unpack oci:layout:v1", &tag), str![[r#""#]]);
}

#[test]
fn a_bucket_is_answered_with_the_pipeline_to_use_instead() {
    let bucket = [("DATA_S3_DST", "s3://bucket/path/file.tar.gz")];
    assert_screen(screen(&Place::with_tree(), "pack", &bucket), str![[r#""#]]);
    assert_screen(screen(&Place::with_tree(), "unpack", &bucket), str![[r#""#]]);
}

#[test]
fn a_tag_wins_over_a_bucket_and_any_value_keeps_it_here() {
    let place = Place::with_tree();
    let variables = [
        ("DATA_S3_DST", "s3://bucket/file.tar.gz"),
        ("DATA_TAG", "data:1"),
        ("REGISTRY", "registry.example"),
        ("NO_PUSH", "0"),
        ("NO_PULL", "no"),
        // Half a login matters only where there is somebody to log in to.
        ("REGISTRY_USERNAME", "me"),
    ];
    let packed = screen(&place, "pack --normalize", &variables);
    assert_screen(packed, str![[r#""#]]);
    assert_screen(screen(&place, "unpack", &variables), str![[r#""#]]);
    assert_eq!(read(&place, "target/etc/hosts"), "127.0.0.1 localhost\n");
    // Other programs find it there by its name.
    assert!(place.screen("inspect oci:store:registry.example/data:1").ends_with("-- exit 0\n"));
}

#[test]
fn what_is_not_in_the_store_is_not_fetched_with_no_pull() {
    let place = Place::with_tree();
    let variables = [("DATA_TAG", "registry.example/data:1"), ("NO_PULL", "1"), ("NO_PUSH", "1")];
    assert_screen(screen(&place, "unpack", &variables), str![[r#""#]]);
    let other = [("DATA_TAG", "registry.example/other:1"), variables[2]];
    assert!(screen(&place, "pack", &other).ends_with("-- exit 0\n"));
    assert_screen(screen(&place, "unpack", &variables), str![[r#""#]]);
}

#[test]
fn half_a_login_is_a_usage_error_that_names_the_other_half() {
    let tag = ("DATA_TAG", "registry.example/data:1");
    let place = Place::with_tree();
    assert_screen(screen(&place, "pack", &[tag, ("REGISTRY_USERNAME", "me")]), str![[r#""#]]);
    secret(&place, "REGISTRY_PASSWORD", "hunter2\n");
    assert_screen(screen(&place, "unpack", &[tag]), str![[r#""#]]);
    // An empty secret hides the variable.
    secret(&place, "REGISTRY_USERNAME", "\n");
    assert_screen(screen(&place, "unpack", &[tag, ("REGISTRY_USERNAME", "me")]), str![[r#""#]]);
}

#[test]
fn names_that_are_no_images_are_refused_and_an_address_with_a_password_is_not_shown() {
    let place = Place::with_tree();
    assert_screen(
        screen(&place, "pack", &[("DATA_TAG", "UPPER:1"), ("REGISTRY", "h.example")]),
        str![[r#""#]],
    );
    let address = [("DATA_TAG", "a:1"), ("REGISTRY", "https://me:hunter2@h.example")];
    assert_screen(screen(&place, "pack", &address), str![[r#""#]]);
}

#[test]
fn no_source_is_an_error_that_says_where_volumes_belong() {
    let place = Place::new();
    assert_screen(screen(&place, "pack", &[("DATA_TAG", "a:1"), ("NO_PUSH", "1")]), str![[r#""#]]);
}

#[test]
fn secrets_log_in_and_count_before_the_environment() {
    let (place, registry) = (Place::with_tree(), guarded());
    secret(&place, "REGISTRY_PASSWORD", "hunter2\n");
    secret(&place, "REGISTRY_USERNAME", "me");
    secret(&place, "my-secret", "x");
    fs::create_dir_all(place.path().join("secrets/kubernetes.io/serviceaccount")).unwrap();
    let variables =
        [("REGISTRY", registry.host()), ("DATA_TAG", "data:1"), ("REGISTRY_PASSWORD", "a wrong one")];
    let shown = |command| screen(&place, command, &variables).replace(registry.host(), "HOST");
    assert_screen(shown("pack --normalize"), str![[r#""#]]);
    assert_screen(shown("unpack"), str![[r#""#]]);
}

#[test]
fn a_registry_that_refuses_is_an_error_without_the_password() {
    let (place, registry) = (Place::with_tree(), guarded());
    let tag = format!("{}/data:1", registry.host());
    let shown = |command, login: &[(&str, &str)]| {
        let variables = [&[("DATA_TAG", tag.as_str())], login].concat();
        screen(&place, command, &variables).replace(registry.host(), "HOST")
    };
    let wrong = [("REGISTRY_USERNAME", "me"), ("REGISTRY_PASSWORD", "hunter3")];
    assert_screen(shown("pack", &wrong), str![[r#""#]]);
    assert_screen(shown("unpack", &wrong), str![[r#""#]]);
    assert_screen(shown("unpack", &[]), str![[r#""#]]);
    assert!(!place.path().join("target").exists(), "nothing was made for nothing");
}

#[test]
fn a_new_version_is_refused_once_where_the_target_holds_data() {
    let (place, registry) = (Place::with_tree(), Registry::start());
    let tag = [("DATA_TAG", format!("{}/data:1", registry.host()))];
    let tag = tag.each_ref().map(|(name, value)| (*name, value.as_str()));
    let run = |command| screen(&place, command, &tag).replace(registry.host(), "HOST");
    assert!(run("pack").ends_with("-- exit 0\n"));
    // The first import, and the same image again: data is as it was packed.
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
    assert_screen(run("unpack"), str![[r#""#]]);
    assert_eq!(read(&place, "target/hello"), "hello\n", "data is as it was");
    assert!(run("unpack").ends_with("-- exit 0\n"));
    assert_eq!(read(&place, "target/hello"), "hello again\n");

    // A further version is another one; whoever wants none of this says so; and what is empty holds no data.
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
    let place = Place::with_tree();
    fs::create_dir_all(place.path().join("target/etc")).unwrap();
    fs::write(place.path().join("target/etc/other"), "other\n").unwrap();
    let variables = [("DATA_TAG", "data:1"), ("NO_PUSH", "1"), ("NO_PULL", "1")];
    assert!(screen(&place, "pack", &variables).ends_with("-- exit 0\n"));
    assert!(screen(&place, "unpack", &variables).ends_with("-- exit 0\n"));
    assert_eq!(read(&place, "target/etc/other"), "other\n");
    fs::write(place.path().join("target/hello"), "changed\n").unwrap();
    assert_screen(screen(&place, "unpack --keep", &variables), str![[r#""#]]);
    assert_eq!(read(&place, "target/hello"), "changed\n");
    // A directory does not give way to a file.
    fs::remove_file(place.path().join("target/hello")).unwrap();
    fs::create_dir(place.path().join("target/hello")).unwrap();
    fs::write(place.path().join("target/hello/there"), "there\n").unwrap();
    assert_screen(screen(&place, "unpack", &variables), str![[r#""#]]);
    assert_eq!(read(&place, "target/hello/there"), "there\n");
}

#[test]
fn an_image_for_data_io_is_packed_and_unpacked() {
    let place = Place::with_tree();
    assert_screen(place.screen("pack --normalize --format data-io oci:layout:v1 tree"), str![[r#""#]]);
    assert_screen(place.screen("unpack oci:layout:v1 target"), str![[r#""#]]);
    assert_eq!(read(&place, "target/hello"), "hello\n");
    assert_screen(place.screen("unpack --as-is oci:layout:v1 as-is"), str![[r#""#]]);
    assert!(place.path().join("as-is/data.tar.gz").exists());
    assert_screen(
        place.screen("pack --normalize --quiet --format data-io --format json docker-archive:a.tar:a:1 tree"),
        str![[r#""#]],
    );
    assert_screen(place.screen("unpack docker-archive:a.tar:a:1 loaded"), str![[r#""#]]);
    assert_screen(place.screen("pack --format data-io --annotation a=b oci:layout:v2 tree"), str![[r#""#]]);
    let mut elsewhere = place.volio("pack --format data-io oci:layout:v2 tree");
    elsewhere.env("TMPDIR", "/nowhere");
    assert_screen(place.screen_of(elsewhere), str![[r#""#]]);
}
