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
base: oci:/place/store@sha256:[DIGEST] (the image that oci:/place/store:registry.example/data:1 names); 1 added, 0 changed, 0 removed; read 30 B, sent 4.9 KiB (a full pack would have sent about 576 B)
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
