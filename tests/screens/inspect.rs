//! `volio inspect`.

use super::Place;
use snapbox::{assert_data_eq, str};

/// An image that says all about itself that an image can say.
fn described() -> Place {
    let place = Place::with_tree();
    let mut pack =
        place.volio("pack --normalize --platform linux/amd64 --label stage=test --annotation a=\x1b[31m");
    pack.args([
        "--entrypoint",
        r#"["/bin/app", "a word"]"#,
        "--cmd",
        "--help",
        "--env",
        "A=1",
        "--env",
        "B=2",
    ]);
    pack.args(["--user", "1000:1000", "--workdir", "/data", "oci:layout:v1", "tree"]);
    let packed = place.run(pack);
    assert!(packed.status.success(), "{packed:?}");
    place
}

#[test]
fn an_image_for_people() {
    assert_data_eq!(described().screen("inspect oci:layout:v1"), str![]);
}

#[test]
fn an_image_as_json() {
    assert_data_eq!(described().screen("inspect --format json oci:layout:v1"), str![]);
}

#[test]
fn an_image_that_is_not_there() {
    assert_data_eq!(Place::with_image().screen("inspect oci:layout:v2"), str![]);
}

#[test]
fn a_reference_that_does_not_parse() {
    assert_data_eq!(Place::new().screen("inspect oci:"), str![]);
}
