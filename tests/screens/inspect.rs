//! `volio inspect`.

use super::{Workspace, assert_screen};
use snapbox::str;

/// An image with every optional field.
fn described() -> Workspace {
    let place = Workspace::with_tree();
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
image       oci:layout:v1
digest      sha256:[DIGEST]
media type  application/vnd.oci.image.manifest.v1+json
created     1970-01-01T00:00:00Z
platforms   linux/amd64
size        462 B stored in 1 layer, 26 B of content in 4 entries
signatures  none
annotation  a=\u{1b}[31m

linux/amd64
  label       stage=test
  entrypoint  ["/bin/app","a word"]
  cmd         ["--help"]
  env         A=1
  env         B=2
  user        1000:1000
  workdir     /data
  layer  digest               stored  content  entries  type
      1  sha256:[SHORT-HASH]   462 B     26 B       +4  tar+zstd  indexed

oci:layout@sha256:[DIGEST]
-- exit 0

"#]],
    );
}

#[test]
fn layers_that_images_share_are_listed_once() {
    let place = Workspace::with_tree();
    let packed = place.run(place.volio("pack --normalize oci:layout:v1 tree"));
    assert!(packed.status.success(), "{packed:?}");
    assert_screen(
        place.screen("inspect oci:layout:v1"),
        str![[r#"
image       oci:layout:v1
digest      sha256:[DIGEST]
media type  application/vnd.oci.image.index.v1+json
created     1970-01-01T00:00:00Z
platforms   linux/amd64, linux/arm64
size        462 B stored in 1 layer, 26 B of content in 4 entries
signatures  none

linux/amd64
  digest      sha256:[DIGEST]
  cmd         ["/volio-data"]
  size        462 B stored in 1 layer, 26 B of content in 4 entries
  layer  digest               stored  content  entries  type
      1  sha256:[SHORT-HASH]   462 B     26 B       +4  tar+zstd  indexed

linux/arm64
  digest      sha256:[DIGEST]
  cmd         ["/volio-data"]
  size        462 B stored in 1 layer, 26 B of content in 4 entries
  layers      the same as those of linux/amd64

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
        Workspace::with_image().screen("inspect oci:layout:v2"),
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
        Workspace::new().screen("inspect oci:"),
        str![[r#"
-- stderr
error: <IMAGE>: "oci:" is not the name of an image: it has no path
hint: write oci:DIRECTORY[:TAG]
-- exit 2

"#]],
    );
}

/// A layout with two artifacts: a Helm chart, and a file as oras pushes it.
fn with_artifact() -> Workspace {
    let chart = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    let layers = [(chart, None, &b"chart"[..]), ("text/plain", Some("notes\x1b.txt"), b"notes")];
    Workspace::with_image().with_artifact("application/vnd.cncf.helm.config.v1+json", &layers)
}

#[test]
fn an_artifact_for_people() {
    assert_screen(
        with_artifact().screen("inspect oci:layout:chart"),
        str![[r#"
image       oci:layout:chart
digest      sha256:[DIGEST]
media type  application/vnd.oci.image.manifest.v1+json
signatures  none

artifact of type application/vnd.cncf.helm.config.v1+json
  size        10 B
  config      sha256:[DIGEST]         2 B  application/vnd.cncf.helm.config.v1+json
  layer       sha256:[DIGEST]         5 B  application/vnd.cncf.helm.chart.content.v1.tar+gzip
  layer       sha256:[DIGEST]         5 B  text/plain  notes\u{1b}.txt

oci:layout@sha256:[DIGEST]
-- exit 0

"#]],
    );
}

#[test]
fn an_artifact_as_json() {
    assert_screen(
        with_artifact().screen("inspect --format json oci:layout:chart"),
        str![[r#"
{
  "address": "oci:layout@sha256:[DIGEST]",
  "digest": "sha256:[DIGEST]",
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "size": 591,
  "annotations": {},
  "images": [],
  "artifacts": [
    {
      "digest": "sha256:[DIGEST]",
      "artifactType": "application/vnd.cncf.helm.config.v1+json",
      "size": 10,
      "annotations": {},
      "config": {
        "digest": "sha256:[DIGEST]",
        "mediaType": "application/vnd.cncf.helm.config.v1+json",
        "size": 2,
        "annotations": {}
      },
      "layers": [
        {
          "digest": "sha256:[DIGEST]",
          "mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
          "size": 5,
          "annotations": {}
        },
        {
          "digest": "sha256:[DIGEST]",
          "mediaType": "text/plain",
          "size": 5,
          "annotations": {
            "org.opencontainers.image.title": "notes\u001b.txt"
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
fn an_artifact_where_an_image_is_needed() {
    assert_screen(
        with_artifact().screen("ls oci:layout:chart"),
        str![[r#"
-- stderr
error: sha256:[DIGEST] is an artifact of type application/vnd.cncf.helm.config.v1+json and not an image
hint: volio inspect shows what it holds; volio unpack --artifact writes its files
-- exit 2

"#]],
    );
    assert_screen(
        with_artifact().screen("unpack oci:layout:chart there"),
        str![[r#"
-- stderr
error: sha256:[DIGEST] is an artifact of type application/vnd.cncf.helm.config.v1+json and not an image
hint: volio inspect shows what it holds; volio unpack --artifact writes its files
-- exit 2

"#]],
    );
}
