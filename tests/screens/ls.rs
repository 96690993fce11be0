//! `volio ls`.

use super::{Workspace, assert_screen};
use snapbox::str;
use std::fs;
use std::os::unix::fs::symlink;

#[test]
fn everything_in_an_image() {
    assert_screen(
        Workspace::with_image().screen("ls -R oci:layout:v1"),
        str![[r#"
/
/etc
/etc/hosts
/hello
-- exit 0

"#]],
    );
}

#[test]
fn the_children_of_a_directory() {
    assert_screen(
        Workspace::with_image().screen("ls oci:layout:v1"),
        str![[r#"
/etc
/hello
-- exit 0

"#]],
    );
}

#[test]
fn a_file_itself() {
    assert_screen(
        Workspace::with_image().screen("ls -l oci:layout:v1 /hello"),
        str![[r#"
-rw-r--r-- 0:0 6 1970-01-01T00:00:00Z /hello
-- exit 0

"#]],
    );
}

#[test]
fn a_layer_without_a_table_of_contents() {
    let place = Workspace::with_tree().and("pack --normalize --compression gzip oci:layout:v1 tree");
    assert_screen(
        place.screen("ls oci:layout:v1 etc"),
        str![[r#"
/etc/hosts
-- stderr
warning: the layer has no table of contents to read in part: all is read
-- exit 0

"#]],
    );
}

#[test]
fn a_table_of_contents_that_was_changed() {
    let place = Workspace::with_image();
    for blob in place.blobs() {
        let mut bytes = fs::read(&blob).unwrap();
        if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            // Before the footer, which has 48 bytes.
            let at = bytes.len() - 60;
            bytes[at] ^= 1;
            fs::write(&blob, bytes).unwrap();
        }
    }
    assert_screen(
        place.screen("ls oci:layout:v1"),
        str![[r#"
-- stderr
error: blob sha256:[DIGEST] has the digest sha256:[DIGEST]
hint: it was damaged or replaced where it is stored or on its way; nothing of it was used
-- exit 3

"#]],
    );
}

#[test]
fn everything_below_a_path_with_its_metadata() {
    assert_screen(
        Workspace::with_image().screen("ls -lR oci:layout:v1 etc"),
        str![[r#"
drwxr-xr-x 0:0  - 1970-01-01T00:00:00Z /etc
-rw-r--r-- 0:0 20 1970-01-01T00:00:00Z /etc/hosts
-- exit 0

"#]],
    );
}

#[test]
fn the_listing_as_json_is_one_document() {
    assert_screen(
        Workspace::with_image().screen("ls --format json oci:layout:v1 /etc/hosts"),
        str![[r#"
{
  "entries": [
    {
      "path": "/etc/hosts",
      "type": "file",
      "mode": "0644",
      "uid": 0,
      "gid": 0,
      "mtime": "1970-01-01T00:00:00.000000000Z",
      "size": 20
    }
  ]
}
-- exit 0

"#]],
    );
}

#[test]
fn names_that_a_terminal_would_obey() {
    let place = Workspace::with_tree();
    fs::write(place.path().join("tree/etc/\x1b[31mred\n"), "").unwrap();
    symlink("\x1b[2J", place.path().join("tree/link")).unwrap();
    place.screen("pack --normalize oci:layout:v1 tree");
    assert_screen(
        place.screen("ls -lR oci:layout:v1"),
        str![[r#"
drwxr-xr-x 0:0  - 1970-01-01T00:00:00Z /
drwxr-xr-x 0:0  - 1970-01-01T00:00:00Z /etc
-rw-r--r-- 0:0  0 1970-01-01T00:00:00Z /etc/\u{1b}[31mred\n
-rw-r--r-- 0:0 20 1970-01-01T00:00:00Z /etc/hosts
-rw-r--r-- 0:0  6 1970-01-01T00:00:00Z /hello
lrwxrwxrwx 0:0  - 1970-01-01T00:00:00Z /link -> \u{1b}[2J
-- exit 0

"#]],
    );
}

/// A layout with directories inside of directories, both kinds of links, and names that a terminal would obey.
fn with_deep_tree() -> Workspace {
    let place = Workspace::with_tree();
    let at = |name: &str| place.path().join("tree").join(name);
    fs::create_dir_all(at("srv/a/b")).unwrap();
    fs::create_dir(at("srv/empty")).unwrap();
    fs::write(at("srv/a/b/\x1b[31mred\n"), "red").unwrap();
    fs::write(at("srv/a/data"), [0; 2000]).unwrap();
    fs::hard_link(at("srv/a/data"), at("srv/z")).unwrap();
    symlink("\x1b[2J", at("srv/a/link")).unwrap();
    place.and("pack --normalize oci:layout:v1 tree")
}

#[test]
fn a_tree_is_drawn_with_its_totals() {
    assert_screen(
        with_deep_tree().screen("ls --tree oci:layout:v1"),
        str![[r#"
/
├── etc
│   └── hosts
├── hello
└── srv
    ├── a
    │   ├── b
    │   │   └── \u{1b}[31mred\n
    │   ├── data
    │   └── link -> \u{1b}[2J
    ├── empty
    └── z link to /srv/a/data

5 directories, 5 files, 1 symbolic link, 2.0 KiB
-- exit 0

"#]],
    );
}

#[test]
fn a_tree_of_a_directory_with_the_columns_of_a_long_list() {
    assert_screen(
        with_deep_tree().screen("ls -l --tree oci:layout:v1 /srv"),
        str![[r#"
drwxr-xr-x 0:0    - 1970-01-01T00:00:00Z /srv
drwxr-xr-x 0:0    - 1970-01-01T00:00:00Z ├── a
drwxr-xr-x 0:0    - 1970-01-01T00:00:00Z │   ├── b
-rw-r--r-- 0:0    3 1970-01-01T00:00:00Z │   │   └── \u{1b}[31mred\n
-rw-r--r-- 0:0 2000 1970-01-01T00:00:00Z │   ├── data
lrwxrwxrwx 0:0    - 1970-01-01T00:00:00Z │   └── link -> \u{1b}[2J
drwxr-xr-x 0:0    - 1970-01-01T00:00:00Z ├── empty
hrw-r--r-- 0:0    - 1970-01-01T00:00:00Z └── z link to /srv/a/data

3 directories, 3 files, 1 symbolic link, 2.0 KiB
-- exit 0

"#]],
    );
}

#[test]
fn a_tree_down_to_some_level_counts_what_is_below_it_too() {
    let place = with_deep_tree();
    assert_screen(
        place.screen("ls --tree --depth 1 oci:layout:v1 srv"),
        str![[r#"
/srv
├── a
├── empty
└── z link to /srv/a/data

3 directories, 3 files, 1 symbolic link, 2.0 KiB
-- exit 0

"#]],
    );
    assert_screen(
        place.screen("ls -R --depth 1 oci:layout:v1 srv"),
        str![[r#"
/srv
/srv/a
/srv/empty
/srv/z
-- exit 0

"#]],
    );
}

#[test]
fn a_tree_of_a_file_is_one_line() {
    assert_screen(
        Workspace::with_image().screen("ls --tree oci:layout:v1 hello"),
        str![[r#"
/hello

0 directories, 1 file, 6 B
-- exit 0

"#]],
    );
}

#[test]
fn a_tree_has_no_form_in_json_and_a_depth_needs_levels() {
    let place = Workspace::with_image();
    assert_screen(
        place.screen("ls --tree --format json oci:layout:v1"),
        str![[r#"
-- stderr
error: --tree is a drawing, and has no form in JSON
hint: -R --format json lists the same entries
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("ls --depth 2 oci:layout:v1"),
        str![[r#"
-- stderr
error: --depth is for -R and --tree: without them, only one level is listed
hint: add -R or --tree
-- exit 2

"#]],
    );
    assert_screen(
        place.screen("ls --tree --depth 0 oci:layout:v1"),
        str![[r#"
-- stderr
error: --depth <N>: "0" is not a number of levels
hint: write 1 or more
-- exit 2

"#]],
    );
}

#[test]
fn a_path_that_is_not_in_the_image() {
    assert_screen(
        Workspace::with_image().screen("ls oci:layout:v1 /var"),
        str![[r#"
-- stderr
error: /var is not in oci:layout:v1
hint: volio ls -R lists all that is there; links in a path are not followed
-- exit 4

"#]],
    );
}

#[test]
fn a_path_that_leads_out() {
    assert_screen(
        Workspace::with_image().screen("ls oci:layout:v1 /../etc"),
        str![[r#"
-- stderr
error: [PATH]: "/../etc" leads out of the image
hint: write a path without `..`
-- exit 2

"#]],
    );
}
