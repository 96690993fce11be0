//! `volio inspect` of chains of exports, signed images, images by other programs, and damaged ones.

use super::{Workspace, assert_screen};
use serde_json::{Value, json};
use snapbox::str;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};
use volio::oci::{Digest, media_type::MANIFEST};

/// A chain of two exports over a full one, each at another time, all of the owner 0.
fn chain() -> Workspace {
    let place = Workspace::with_tree();
    let at = |name: &str| place.path().join("tree").join(name);
    let touch = |name: &str, seconds| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::open(at(name)).unwrap().set_modified(time).unwrap();
    };
    let pack = |arguments: &str, time: &str| {
        let mut pack = place.volio(&format!("pack --chown 0:0 {arguments} tree"));
        let packed = place.run(pack.env("SOURCE_DATE_EPOCH", time));
        assert!(packed.status.success(), "{packed:?}");
    };
    ["etc/hosts", "hello", "etc", ""].iter().for_each(|name| touch(name, 900_000_000));
    pack("oci:layout:1", "1000000000");
    fs::write(at("etc/hosts"), "::1 localhost\n").unwrap();
    touch("etc/hosts", 1_100_000_000);
    pack("--max-dead 90 --base oci:layout:1 oci:layout:2", "1100000000");
    fs::remove_file(at("hello")).unwrap();
    fs::write(at("new"), [b'n'; 5000]).unwrap();
    pack("--max-dead 90 --base oci:layout:2 oci:layout:3", "1200000000");
    place
}

#[test]
fn a_chain_of_incremental_exports() {
    assert_screen(
        chain().screen("inspect oci:layout:3"),
        str![[r#"
image       oci:layout:3
digest      sha256:[DIGEST]
media type  application/vnd.oci.image.index.v1+json
created     2008-01-10T21:20:00Z
platforms   linux/amd64, linux/arm64
size        1.3 KiB stored in 3 layers, 4.9 KiB of content in 9 entries
base        sha256:[DIGEST]
signatures  none

linux/amd64
  digest      sha256:[DIGEST]
  cmd         ["/volio-data"]
  size        1.3 KiB stored in 3 layers, 4.9 KiB of content in 9 entries
  layer  digest               stored  content  entries  type
      1  sha256:[SHORT-HASH]   490 B     26 B       +4  tar+zstd  indexed, of the base
      2  sha256:[SHORT-HASH]   406 B     14 B       +3  tar+zstd  indexed, delta, of the base
      3  sha256:[SHORT-HASH]   408 B  4.9 KiB    +2 -1  tar+zstd  indexed, delta over the base

  layers  created               by
  1       2001-09-09T01:46:40Z  volio pack
  2       2004-11-09T11:33:20Z  volio pack
  3       2008-01-10T21:20:00Z  volio pack

linux/arm64
  digest      sha256:[DIGEST]
  cmd         ["/volio-data"]
  size        1.3 KiB stored in 3 layers, 4.9 KiB of content in 9 entries
  layers      the same as those of linux/amd64

oci:layout@sha256:[DIGEST]
-- exit 0

"#]],
    );
}

#[test]
fn exports_at_the_same_time_cannot_be_told_apart() {
    let place = Workspace::with_image();
    fs::write(place.path().join("tree/new"), "new").unwrap();
    let place = place.and("pack --normalize --base oci:layout:v1 oci:layout:v2 tree");
    assert_screen(
        place.screen("inspect oci:layout:v2"),
        str![[r#"
image       oci:layout:v2
digest      sha256:[DIGEST]
media type  application/vnd.oci.image.index.v1+json
created     1970-01-01T00:00:00Z
platforms   linux/amd64, linux/arm64
size        807 B stored in 2 layers, 29 B of content in 6 entries
base        sha256:[DIGEST]
signatures  none

linux/amd64
  digest      sha256:[DIGEST]
  cmd         ["/volio-data"]
  size        807 B stored in 2 layers, 29 B of content in 6 entries
  layer  digest               stored  content  entries  type
      1  sha256:[SHORT-HASH]   462 B     26 B       +4  tar+zstd  indexed
      2  sha256:[SHORT-HASH]   345 B      3 B       +2  tar+zstd  indexed, delta over the base

linux/arm64
  digest      sha256:[DIGEST]
  cmd         ["/volio-data"]
  size        807 B stored in 2 layers, 29 B of content in 6 entries
  layers      the same as those of linux/amd64

oci:layout@sha256:[DIGEST]
-- exit 0

"#]],
    );
}

#[test]
fn the_signatures_of_an_image() {
    let place = Workspace::with_image();
    for name in ["signer.pem", "other.pem"] {
        let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/keys").join(name);
        fs::copy(key, place.path().join(name)).unwrap();
    }
    let place = place.and("sign --key signer.pem --sign-identity registry.example/data:v1 oci:layout:v1");
    let place = place.and("sign --key other.pem oci:layout:v1");
    assert_screen(
        place.screen("inspect oci:layout:v1"),
        str![[r#"
image       oci:layout:v1
digest      sha256:[DIGEST]
media type  application/vnd.oci.image.index.v1+json
created     1970-01-01T00:00:00Z
platforms   linux/amd64, linux/arm64
size        462 B stored in 1 layer, 26 B of content in 4 entries
signatures  signature in the .sig tag for the name registry.example/data:v1: index, linux/amd64, linux/arm64
            sigstore bundle with the key hint IaH5toDHBJtZRfJa1J/mFaESAUx6rGmuE7Z7dSxlzcA=: index, linux/amd64, linux/arm64
            sigstore bundle with the key hint t3xTvqRTFBLbS1BEJgI19nle6pvMBTxqVxuPSU6bkJM=: index, linux/amd64, linux/arm64
            not verified here: volio verify --key does that

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
    let json = place.screen("inspect --format json oci:layout:v1");
    assert!(!json.contains("ignature"), "{json}");
}

/// Adds an image with other programs' documents to the layout under the tag `other`: each layer is a media type and its
/// bytes, each step of the history the command and whether it has made no layer.
fn foreign(
    place: &Workspace,
    architecture: &str,
    layers: &[(&str, &[u8])],
    history: &[(&str, bool)],
) -> Value {
    let history: Vec<Value> = history
        .iter()
        .map(|(by, is_empty)| json!({"created": "2024-01-02T03:04:05.678Z", "created_by": by, "empty_layer": is_empty}))
        .collect();
    let diff_ids: Vec<String> = layers.iter().map(|(_, bytes)| Digest::of(bytes).to_string()).collect();
    let config = json!({"os": "linux", "architecture": architecture, "created": "2024-01-02T03:04:05.678Z",
        "config": {"Env": ["PATH=/bin\u{1b}"], "Cmd": ["sh"]}, "history": history,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = place.blob("application/vnd.docker.container.image.v1+json", config.to_string().as_bytes());
    let layers: Vec<Value> = layers.iter().map(|(kind, bytes)| place.blob(kind, bytes)).collect();
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
    place.blob(kind, manifest.to_string().as_bytes())
}

fn tagged(place: Workspace, mut root: Value) -> Workspace {
    root["annotations"] = json!({"org.opencontainers.image.ref.name": "other"});
    place.with_index(|index| index["manifests"].as_array_mut().unwrap().push(root))
}

const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

#[test]
fn an_image_that_docker_has_built() {
    let place = Workspace::with_image();
    let history = [
        ("/bin/sh -c #(nop) ADD file:0123456789abcdef0123456789abcdef0123456789abcdef in / ", false),
        ("/bin/sh -c #(nop)  CMD [\"bash\"]", true),
        ("COPY \u{1b}[31m /app # buildkit", false),
    ];
    let root = foreign(&place, "amd64", &[(DOCKER, b"lower"), (DOCKER, b"upper")], &history);
    assert_screen(
        tagged(place, root).screen("inspect oci:layout:other"),
        str![[r#"
image       oci:layout:other
digest      sha256:[DIGEST]
media type  application/vnd.docker.distribution.manifest.v2+json
created     2024-01-02T03:04:05.678Z
platforms   linux/amd64
size        10 B stored in 2 layers
signatures  none

linux/amd64
  cmd         ["sh"]
  env         PATH=/bin\u{1b}
  layer  digest               stored  type
      1  sha256:[SHORT-HASH]     5 B  docker tar.gzip
      2  sha256:[SHORT-HASH]     5 B  docker tar.gzip

  layers  created                   by
  1       2024-01-02T03:04:05.678Z  /bin/sh -c #(nop) ADD file:0123456789abcdef0123456789abcdef0…
  2       2024-01-02T03:04:05.678Z  COPY \u{1b}[31m /app # buildkit

oci:layout@sha256:[DIGEST]
-- exit 0

"#]],
    );
}

#[test]
fn an_index_of_images_with_a_common_layer_and_an_artifact() {
    let place = Workspace::with_image();
    let strange = "application/vnd.example\u{1b}.layer";
    let amd64 = foreign(&place, "amd64", &[(DOCKER, b"lower"), (DOCKER, b"amd64")], &[("RUN a", false)]);
    let arm64 =
        foreign(&place, "arm64", &[(DOCKER, b"lower"), (strange, b"arm64")], &[("a", false), ("b", false)]);
    let same = foreign(&place, "riscv64", &[(DOCKER, b"lower"), (DOCKER, b"amd64")], &[]);
    let empty = foreign(&place, "s390x", &[], &[]);
    let config = place.blob("application/vnd.cncf.helm.config.v1+json", b"{}");
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
    let chart = place.blob(MANIFEST, manifest.to_string().as_bytes());
    let kind = "application/vnd.oci.image.index.v1+json";
    let index =
        json!({"schemaVersion": 2, "mediaType": kind, "manifests": [amd64, arm64, same, empty, chart]});
    let root = place.blob(kind, index.to_string().as_bytes());
    assert_screen(
        tagged(place, root).screen("inspect oci:layout:other"),
        str![[r#"
image       oci:layout:other
digest      sha256:[DIGEST]
media type  application/vnd.oci.image.index.v1+json
created     2024-01-02T03:04:05.678Z
platforms   linux/amd64, linux/arm64, linux/riscv64, linux/s390x
size        15 B stored in 3 layers
signatures  none

linux/amd64
  digest      sha256:[DIGEST]
  cmd         ["sh"]
  env         PATH=/bin\u{1b}
  size        10 B stored in 2 layers
  layer  digest               stored  type
      1  sha256:[SHORT-HASH]     5 B  docker tar.gzip
      2  sha256:[SHORT-HASH]     5 B  docker tar.gzip

linux/arm64
  digest      sha256:[DIGEST]
  cmd         ["sh"]
  env         PATH=/bin\u{1b}
  size        10 B stored in 2 layers
  layer  digest               stored  type
      1  sha256:[SHORT-HASH]     5 B  docker tar.gzip                      shared with linux/amd64
      2  sha256:[SHORT-HASH]     5 B  application/vnd.example\u{1b}.layer

  layers  created                   by
  1       2024-01-02T03:04:05.678Z  a
  2       2024-01-02T03:04:05.678Z  b

linux/riscv64
  digest      sha256:[DIGEST]
  cmd         ["sh"]
  env         PATH=/bin\u{1b}
  size        10 B stored in 2 layers
  layers      the same as those of linux/amd64

linux/s390x
  digest      sha256:[DIGEST]
  cmd         ["sh"]
  env         PATH=/bin\u{1b}
  size        0 B stored in 0 layers
  layers      none

artifact of type application/vnd.cncf.helm.config.v1+json
  digest      sha256:[DIGEST]
  size        0 B
  config      sha256:[DIGEST]         2 B  application/vnd.cncf.helm.config.v1+json

oci:layout@sha256:[DIGEST]
-- exit 0

"#]],
    );
}

#[test]
fn a_damaged_table_of_contents_is_a_warning() {
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
        place.screen("inspect oci:layout:v1"),
        str![[r#"
image       oci:layout:v1
digest      sha256:[DIGEST]
media type  application/vnd.oci.image.index.v1+json
created     1970-01-01T00:00:00Z
platforms   linux/amd64, linux/arm64
size        462 B stored in 1 layer
signatures  none

linux/amd64
  digest      sha256:[DIGEST]
  cmd         ["/volio-data"]
  size        462 B stored in 1 layer
  layer  digest               stored  type
      1  sha256:[SHORT-HASH]   462 B  tar+zstd  indexed

linux/arm64
  digest      sha256:[DIGEST]
  cmd         ["/volio-data"]
  size        462 B stored in 1 layer
  layers      the same as those of linux/amd64

oci:layout@sha256:[DIGEST]
-- stderr
warning: the contents of the layer sha256:[DIGEST] are not shown: blob sha256:[DIGEST] has the digest sha256:[DIGEST]
-- exit 0

"#]],
    );
}
