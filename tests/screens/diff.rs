//! `volio diff`.

use super::{Workspace, assert_screen};
use snapbox::str;
use std::fs;
use std::os::unix::fs::PermissionsExt;

#[test]
fn nothing_differs() {
    let place = Workspace::with_own_image().and("unpack oci:layout:v1 there");
    assert_screen(
        place.screen("diff oci:layout:v1 there"),
        str![[r#"
-- stderr
compared 4 paths: nothing differs
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("diff oci:layout:v1 oci:layout:v1 --quiet"),
        str![[r#"
-- exit 0

"#]],
    );
}

/// The same image, and a directory with one difference of each kind.
fn changed() -> Workspace {
    let place = Workspace::with_own_image().and("unpack oci:layout:v1 there");
    let there = place.path().join("there");
    let mtime = fs::metadata(there.join("hello")).unwrap().modified().unwrap();
    fs::write(there.join("hello"), "Hello\n").unwrap();
    fs::File::open(there.join("hello")).unwrap().set_modified(mtime).unwrap();
    fs::set_permissions(there.join("hello"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(there.join("etc/hosts")).unwrap();
    fs::write(there.join("etc/more"), "").unwrap();
    place
}

#[test]
fn each_difference_is_one_line() {
    assert_screen(
        changed().screen("diff --ignore mtime oci:layout:v1 there"),
        str![[r#"
- /etc/hosts
+ /etc/more
~ /hello content sha256:[DIGEST] sha256:[DIGEST]
~ /hello mode 0644 0600
-- stderr
compared 5 paths: 3 differ
-- exit 7

"#]],
    );
}

#[test]
fn the_same_as_json() {
    assert_screen(
        changed().screen("diff --ignore mtime --quiet --format json oci:layout:v1 there"),
        str![[r#"
{
  "differences": [
    {
      "path": "/etc/hosts",
      "change": "removed"
    },
    {
      "path": "/etc/more",
      "change": "added"
    },
    {
      "path": "/hello",
      "change": "changed",
      "attribute": "content",
      "first": "sha256:[DIGEST]",
      "second": "sha256:[DIGEST]"
    },
    {
      "path": "/hello",
      "change": "changed",
      "attribute": "mode",
      "first": "0644",
      "second": "0600"
    }
  ]
}
-- exit 7

"#]],
    );
}

#[test]
fn a_directory_that_is_not_there() {
    assert_screen(
        Workspace::with_image().screen("diff oci:layout:v1 ./nowhere"),
        str![[r#"
-- stderr
error: there is no directory ./nowhere
-- exit 4

"#]],
    );
}

#[test]
fn something_that_is_neither_an_image_nor_a_directory() {
    assert_screen(
        Workspace::with_image().screen("diff oci:layout:v1 NOWHERE"),
        str![[r#"
-- stderr
error: there is no directory NOWHERE
hint: if an image is meant, write its registry or its tag: docker.io/library/NOWHERE:latest, oci:NOWHERE
-- exit 4

"#]],
    );
}

#[test]
fn a_directory_that_is_misspelt_is_not_looked_for_in_a_registry() {
    for place in ["nodir", "some/nodir"] {
        let screen = Workspace::with_image().screen(&format!("diff oci:layout:v1 {place}"));
        assert!(screen.contains(&format!("error: there is no directory {place}\n")), "{screen}");
        assert!(screen.contains(&format!("docker.io/library/{place}:latest")), "{screen}");
        assert!(screen.ends_with("-- exit 4\n"), "{screen}");
    }
}

#[test]
fn an_attribute_that_is_none() {
    assert_screen(
        Workspace::with_image().screen("diff --ignore time oci:layout:v1 oci:layout:v1"),
        str![[r#"
-- stderr
error: invalid value 'time' for '--ignore <ATTRIBUTE>'
  [possible values: content, mode, owner, mtime, hardlink, xattr]

  tip: a similar value exists: 'mtime'

For more information, try '--help'.
-- exit 2

"#]],
    );
}

#[test]
fn a_quick_comparison_does_not_read_a_file_whose_size_and_mtime_are_equal() {
    assert_screen(
        changed().screen("diff --quick --ignore mtime oci:layout:v1 there"),
        str![[r#"
- /etc/hosts
+ /etc/more
~ /hello mode 0644 0600
-- stderr
compared 5 paths: 3 differ
-- exit 7

"#]],
    );
    assert_screen(
        changed().screen("diff --quick oci:layout:v1 oci:layout:v1"),
        str![[r#"
-- stderr
error: only a directory and an image are compared by metadata first
hint: compare without --quick
-- exit 2

"#]],
    );
}
