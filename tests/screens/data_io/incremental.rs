//! data-io's variables with `INCREMENTAL`.

use super::screen;
use crate::screens::{Workspace, assert_screen};
use snapbox::str;
use std::fs;

#[test]
fn with_any_value_of_incremental_only_what_changed_is_packed() {
    let place = Workspace::with_tree();
    let variables = [("DATA_TAG", "registry.example/data:1"), ("NO_PUSH", "1"), ("INCREMENTAL", "0")];
    assert_screen(
        screen(&place, "pack --normalize", &variables),
        str![[r#"
oci:/place/store@sha256:[DIGEST]
-- stderr
packed 4 entries, 26 B into 1 layer of 462 B in [TIME]
no base: oci:/place/store:registry.example/data:1 does not exist yet: packed in full
-- exit 0

"#]],
    );
    fs::write(place.path().join("tree/new"), "new\n").unwrap();
    assert_screen(
        screen(&place, "pack --normalize", &variables),
        str![[r#"
oci:/place/store@sha256:[DIGEST]
-- stderr
packed 1 of 5 entries into 1 layer of 350 B in [TIME]
base: oci:/place/store@sha256:[DIGEST] (the image that oci:/place/store:registry.example/data:1 names); 1 added, 0 changed, 0 removed; read 30 B, sent 5.0 KiB (a full pack would have sent about 5.3 KiB)
-- exit 0

"#]],
    );
    assert_screen(
        screen(&place, "pack --normalize", &variables),
        str![[r#"
oci:/place/store@sha256:[DIGEST]
-- stderr
nothing changed since oci:/place/store@sha256:[DIGEST]: no new image
-- exit 0

"#]],
    );
    assert_screen(
        screen(&place, "pack --format data-io", &variables),
        str![[r#"
-- stderr
error: an image as data-io made them is one archive, to which nothing can be added
hint: leave out --format data-io, or --incremental, --base and the variable INCREMENTAL
-- exit 2

"#]],
    );
}

/// Packs the tree into the store, with the user's own owner.
fn pack(place: &Workspace) {
    screen(place, "pack --quiet", &[("DATA_TAG", "registry.example/data:1"), ("NO_PUSH", "1")]);
}

#[test]
fn a_target_of_its_own_is_made_what_the_image_is() {
    let place = Workspace::with_tree();
    let variables = [("DATA_TAG", "registry.example/data:1"), ("NO_PULL", "1"), ("INCREMENTAL", "1")];
    pack(&place);
    screen(&place, "unpack --quiet", &variables);
    fs::write(place.path().join("target/extra"), "of a program").unwrap();
    fs::write(place.path().join("tree/new"), "new\n").unwrap();
    pack(&place);
    // How well times are compressed depends on them.
    let screen = screen(&place, "unpack", &variables);
    assert!(screen.contains(" ranges; reused 0 B of local files; wrote 1 entry, "), "{screen}");
    assert!(screen.contains(" removed 1; 4 entries unchanged\n-- exit 0"), "{screen}");
    assert!(place.path().join("target/new").exists());
    assert!(!place.path().join("target/extra").exists());
}

#[test]
fn a_target_that_held_other_files_keeps_them() {
    let place = Workspace::with_tree();
    let variables = [("DATA_TAG", "registry.example/data:1"), ("NO_PULL", "1"), ("INCREMENTAL", "1")];
    fs::create_dir(place.path().join("target")).unwrap();
    fs::write(place.path().join("target/mine"), "mine").unwrap();
    for _ in 0..2 {
        pack(&place);
        assert_screen(
            screen(&place, "unpack", &variables),
            str![[r#"
oci:/place/store@sha256:[DIGEST]
-- stderr
unpacked 4 entries, 26 B from 1 layer in [TIME]
-- exit 0

"#]],
        );
        fs::write(place.path().join("tree/etc/hosts"), "127.0.0.2 localhost\n").unwrap();
    }
    assert!(place.path().join("target/mine").exists());
}
