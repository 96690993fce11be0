//! `volio cat`.

use super::{Workspace, assert_screen};
use snapbox::str;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

#[test]
fn several_files_in_order() {
    assert_screen(
        Workspace::with_image().screen("cat oci:layout:v1 /hello etc/hosts /hello"),
        str![[r#"
hello
127.0.0.1 localhost
hello
-- exit 0

"#]],
    );
}

#[test]
fn a_link_is_followed_inside_of_the_image() {
    let place = Workspace::with_tree();
    symlink("../../etc/hosts", place.path().join("tree/etc/link")).unwrap();
    symlink("/etc/link", place.path().join("tree/again")).unwrap();
    fs::hard_link(place.path().join("tree/hello"), place.path().join("tree/second")).unwrap();
    assert_screen(
        place.and("pack --normalize oci:layout:v1 tree").screen("cat oci:layout:v1 /again second"),
        str![[r#"
127.0.0.1 localhost
hello
-- exit 0

"#]],
    );
}

#[test]
fn a_path_that_is_not_in_the_image() {
    assert_screen(
        Workspace::with_image().screen("cat oci:layout:v1 hello var/log"),
        str![[r#"
-- stderr
error: /var/log is not in the image: there is no /var
hint: `volio ls -R` shows what it has
-- exit 4

"#]],
    );
}

#[test]
fn a_link_that_leads_nowhere_and_one_that_leads_in_a_circle() {
    let place = Workspace::with_tree();
    symlink("/nowhere", place.path().join("tree/dangling")).unwrap();
    symlink("circle", place.path().join("tree/circle")).unwrap();
    let place = place.and("pack --normalize oci:layout:v1 tree");
    assert_screen(
        place.screen("cat oci:layout:v1 dangling"),
        str![[r#"
-- stderr
error: /dangling is not in the image: there is no /nowhere
hint: `volio ls -R` shows what it has
-- exit 4

"#]],
    );
    assert_screen(
        place.screen("cat oci:layout:v1 circle"),
        str![[r#"
-- stderr
error: the symbolic links at /circle are too many or lead in a circle
-- exit 4

"#]],
    );
}

#[test]
fn a_directory() {
    assert_screen(
        Workspace::with_image().screen("cat oci:layout:v1 /etc"),
        str![[r#"
-- stderr
error: /etc is a directory, which has no content to show
hint: `volio ls` lists it; `volio unpack --subpath` unpacks it
-- exit 2

"#]],
    );
}

#[test]
fn no_path_and_one_that_leads_out() {
    assert_screen(
        Workspace::with_image().screen("cat oci:layout:v1"),
        str![[r#"
-- stderr
error: the following required arguments were not provided:
  <PATH>...

Usage: volio cat <IMAGE> <PATH>...

For more information, try '--help'.
-- exit 2

"#]],
    );
    assert_screen(
        Workspace::with_image().screen("cat oci:layout:v1 a/../../b"),
        str![[r#"
-- stderr
error: <PATH>...: "a/../../b" leads out of the image
hint: write a path without `..`
-- exit 2

"#]],
    );
}

#[test]
fn a_layer_without_a_table_of_contents() {
    let place = Workspace::with_tree().and("pack --normalize --compression gzip oci:layout:v1 tree");
    assert_screen(
        place.screen("cat oci:layout:v1 hello"),
        str![[r#"
hello
-- stderr
warning: the layer has no table of contents to read in part: all is read
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("cat -q oci:layout:v1 hello"),
        str![[r#"
hello
-- exit 0

"#]],
    );
}

#[test]
fn content_that_was_changed() {
    let place = Workspace::with_image();
    for blob in place.blobs() {
        let mut bytes = fs::read(&blob).unwrap();
        if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            bytes[30] ^= 1;
            fs::write(&blob, bytes).unwrap();
        }
    }
    assert_screen(
        place.screen("cat oci:layout:v1 hello"),
        str![[r#"
-- stderr
error: the layer has no frame at 0: Data corruption detected
hint: it was damaged or replaced where it is stored or on its way; nothing of it was used
-- exit 3

"#]],
    );
}

#[test]
fn bytes_are_not_text_and_a_reader_that_has_seen_enough_is_no_failure() {
    let place = Workspace::with_tree();
    let content: Vec<u8> =
        (0..2_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    fs::write(place.path().join("tree/large"), &content).unwrap();
    let place = place.and("pack oci:layout:v1 tree");
    let output = place.run(place.volio("cat oci:layout:v1 large"));
    assert!(output.stdout == content && output.stderr.is_empty());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut volio = place.volio("cat oci:layout:v1 large");
    let output = volio.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
    let mut volio = place.volio("cat oci:layout:v1 large");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = volio.stdout(full).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
