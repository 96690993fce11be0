//! `volio inspect`.

use super::{Place, assert_screen};
use snapbox::str;

/// An image that says all about itself that an image can say.
fn described() -> Place {
    let place = Place::with_tree();
    let mut pack =
        place.volio("pack --normalize --platform linux/amd64 --label stage=test --annotation a=\x1b[31m");
    pack.args(["--entrypoint", r#"["/bin/app", "a word"]"#, "--cmd", "--help"]);
    pack.args(["--env", "A=1", "--env", "B=2"]);
    pack.args(["--user", "1000:1000", "--workdir", "/data", "oci:layout:v1", "tree"]);
    let packed = place.run(pack);
    assert!(packed.status.success(), "{packed:?}");
    place
}

#[test]
fn an_image_for_people() {
    assert_screen(
        described().screen("inspect oci:layout:v1"),
        str![[r#"
digest      sha256:[DIGEST]
media type  application/vnd.oci.image.manifest.v1+json
annotation  a=\u{1b}[31m

linux/amd64
  digest      sha256:[DIGEST]
  created     1970-01-01T00:00:00Z
  annotation  a=\u{1b}[31m
  label       stage=test
  entrypoint  ["/bin/app","a word"]
  cmd         ["--help"]
  env         A=1
  env         B=2
  user        1000:1000
  workdir     /data
  size        462 B
  layer       sha256:[DIGEST]       462 B  application/vnd.oci.image.layer.v1.tar+zstd

oci:layout@sha256:[DIGEST]
-- exit 0

"#]],
    );
}

#[test]
fn an_image_as_json() {
    assert_screen(
        described().screen("inspect --format json oci:layout:v1"),
        str![[r#"
{
  "address": "oci:layout@sha256:[DIGEST]",
  "digest": "sha256:[DIGEST]",
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "size": 885,
  "annotations": {
    "a": "\u001b[31m"
  },
  "images": [
    {
      "digest": "sha256:[DIGEST]",
      "platform": {
        "architecture": "amd64",
        "os": "linux"
      },
      "created": "1970-01-01T00:00:00Z",
      "size": 462,
      "labels": {
        "stage": "test"
      },
      "annotations": {
        "a": "\u001b[31m"
      },
      "execution": {
        "User": "1000:1000",
        "Env": [
          "A=1",
          "B=2"
        ],
        "Entrypoint": [
          "/bin/app",
          "a word"
        ],
        "Cmd": [
          "--help"
        ],
        "WorkingDir": "/data",
        "Labels": {
          "stage": "test"
        }
      },
      "layers": [
        {
          "digest": "sha256:[DIGEST]",
          "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
          "size": 462,
          "diffId": "sha256:[DIGEST]",
          "annotations": {
            "containerd.io/snapshot/stargz/toc.digest": "sha256:[DIGEST]",
            "io.containers.zstd-chunked.manifest-checksum": "sha256:[DIGEST]",
            "io.containers.zstd-chunked.manifest-position": "163:251:454:1",
            "io.volio.toc.digest": "sha256:[DIGEST]",
            "io.volio.toc.position": "163:251:454"
          }
        }
      ]
    }
  ]
}
-- exit 0

"#]],
    );
}

#[test]
fn an_image_that_is_not_there() {
    assert_screen(
        Place::with_image().screen("inspect oci:layout:v2"),
        str![[r#"
-- stderr
error: there is no image with the tag "v2" in the layout layout
hint: its tags are v1
-- exit 4

"#]],
    );
}

#[test]
fn a_reference_that_does_not_parse() {
    assert_screen(
        Place::new().screen("inspect oci:"),
        str![[r#"
-- stderr
error: <IMAGE>: "oci:" is not the name of an image: it has no path
hint: write oci:DIRECTORY[:TAG]
-- exit 2

"#]],
    );
}
