//! Images that engines cannot pull or mount.

use super::{Workspace, assert_named, assert_screen};
use crate::registry::{Login, Registry};
use serde_json::{Value, json};
use snapbox::str;
use std::fs;
use std::process::Command;
use volio::oci::{Digest, media_type};

/// Adds an image for linux/amd64 with these layers, descriptors with their diff_ids, under the tag `made`.
fn with_image_of(place: Workspace, layers: &[(Value, String)]) -> Workspace {
    let diff_ids: Vec<_> = layers.iter().map(|(_, diff_id)| diff_id).collect();
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = place.blob(media_type::CONFIG, config.to_string().as_bytes());
    let layers: Vec<_> = layers.iter().map(|(layer, _)| layer).collect();
    let manifest =
        json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": layers});
    let mut entry = place.blob(media_type::MANIFEST, manifest.to_string().as_bytes());
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "made"});
    place.with_index(|index| index["manifests"].as_array_mut().unwrap().push(entry))
}

/// Returns the only layer of `oci:layout:v1`: its descriptor.
fn layer(place: &Workspace) -> Value {
    let output = place.run(place.volio("inspect --format json oci:layout:v1"));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    json["images"][0]["layers"][0].clone()
}

fn blob_file(place: &Workspace, digest: &Value) -> std::path::PathBuf {
    let digest: Digest = digest.as_str().unwrap().parse().unwrap();
    place.path().join("layout/blobs/sha256").join(digest.hex())
}

#[test]
fn an_image_that_is_fine_but_not_signed() {
    assert_screen(
        Workspace::with_image().screen("doctor oci:layout:v1"),
        str![[r#"
warning  signatures: image: it is not signed: engines with a policy that requires signatures refuse it
         do: volio sign writes both forms, for the index and every platform: docs/trust.md
oci:layout@sha256:[DIGEST]
-- stderr
0 errors, 1 warning; 17 checks passed
-- exit 0

"#]],
    );
}

#[test]
fn an_image_in_full_with_sources() {
    assert_screen(
        Workspace::with_image().screen("doctor --verbose --engine docker=20.10.24 oci:layout:v1"),
        str![[r#"
ok       documents: image: the manifests and configurations of 2 platform(s) are complete, and have their digests
ok       platforms: image: there is an image for linux/amd64, linux/arm64
error    compression: docker 20.10.24: it cannot unpack layers of zstd: "archive/tar: invalid tar header"; 23.0 does
         do: upgrade it, or pack with --compression gzip
         source: https://github.com/moby/moby/issues/41759; https://github.com/aws/amazon-ecs-agent/issues/4179
warning  mount: docker 20.10.24: it has no --mount type=image; 28.0 does
         do: use the volume plugin, docs/volumes.md, or volio unpack into a directory
         source: https://docs.docker.com/engine/storage/image-mounts
ok       layer-count: linux/arm64: it has 1 layer(s): within the limits of docker (125) and podman (500)
         source: moby daemon/internal/layer/layer_store.go: maxLayerDepth = 125; image-spec has no limit
ok       layer-size: layer 1 of linux/arm64: the largest layer has 462 bytes: below the limits of ghcr.io, ECR Public and ECR; those of other registries are not known
         source: https://docs.github.com/en/packages/working-with-a-github-packages-registry/working-with-the-container-registry (10 GB a layer)
ok       contents: image: 1 of 1 layer(s) have a table of contents: 4 entries, 0 whiteouts. --deep reads all layers, and volio verify proves all content
warning  signatures: image: it is not signed: engines with a policy that requires signatures refuse it
         do: volio sign writes both forms, for the index and every platform: docs/trust.md
         source: containers-policy.json(5), sigstoreSigned
oci:layout@sha256:[DIGEST]
-- stderr
1 error, 2 warnings; 5 checks passed
-- exit 1

"#]],
    );
}

#[test]
fn an_image_as_json() {
    assert_screen(
        Workspace::with_image().screen("doctor --format json --quiet --engine podman=5.0 oci:layout:v1"),
        str![[r#"
{
  "subject": "oci:layout@sha256:[DIGEST]",
  "errors": 0,
  "warnings": 1,
  "findings": [
    {
      "severity": "ok",
      "check": "documents",
      "place": "image",
      "what": "the manifests and configurations of 2 platform(s) are complete, and have their digests"
    },
    {
      "severity": "ok",
      "check": "platforms",
      "place": "image",
      "what": "there is an image for linux/amd64, linux/arm64"
    },
    {
      "severity": "ok",
      "check": "engine",
      "place": "podman 5.0",
      "what": "it has all that the image needs, as far as volio knows"
    },
    {
      "severity": "ok",
      "check": "layer-count",
      "place": "linux/arm64",
      "what": "it has 1 layer(s): within the limits of docker (125) and podman (500)",
      "source": "moby daemon/internal/layer/layer_store.go: maxLayerDepth = 125; image-spec has no limit"
    },
    {
      "severity": "ok",
      "check": "layer-size",
      "place": "layer 1 of linux/arm64",
      "what": "the largest layer has 462 bytes: below the limits of ghcr.io, ECR Public and ECR; those of other registries are not known",
      "source": "https://docs.github.com/en/packages/working-with-a-github-packages-registry/working-with-the-container-registry (10 GB a layer)"
    },
    {
      "severity": "ok",
      "check": "contents",
      "place": "image",
      "what": "1 of 1 layer(s) have a table of contents: 4 entries, 0 whiteouts. --deep reads all layers, and volio verify proves all content"
    },
    {
      "severity": "warning",
      "check": "signatures",
      "place": "image",
      "what": "it is not signed: engines with a policy that requires signatures refuse it",
      "source": "containers-policy.json(5), sigstoreSigned",
      "advice": "volio sign writes both forms, for the index and every platform: docs/trust.md"
    }
  ]
}
-- exit 0

"#]],
    );
}

#[test]
fn wrong_arguments() {
    assert_screen(
        Workspace::new().screen("doctor --engine rkt=1 oci:layout:v1"),
        str![[r#"
-- stderr
error: --engine <NAME=VERSION>: "rkt=1" is not an engine with its version
hint: write NAME=VERSION, such as docker=20.10; the names are kubernetes, containerd, cri-o, docker, podman, composefs-rs
-- exit 2

"#]],
    );
    assert_screen(
        Workspace::with_image().screen("doctor --write-test oci:layout:v1"),
        str![[r#"
-- stderr
error: --write-test is for a registry
hint: name a repository without a tag: HOST/REPOSITORY
-- exit 2

"#]],
    );
}

#[test]
fn zstd_is_named_for_engines_that_do_not_unpack_it() {
    let place = Workspace::with_image().and("pack --compression gzip oci:layout:gzip tree");
    for (engine, check, told) in [
        ("docker=20.10", "compression", "invalid tar header"),
        ("containerd=1.4", "compression", "cannot unpack layers of zstd"),
        ("composefs-rs=0.9.1", "frames", "stops after the first frame"),
    ] {
        let command = place.volio(&format!("doctor --engine {engine} oci:layout:v1"));
        let text = assert_named(&place, command, "error", check, told);
        assert!(text.contains("--compression"), "{text}");
        let gzip = place.run(place.volio(&format!("doctor --engine {engine} --format json oci:layout:gzip")));
        assert!(!String::from_utf8_lossy(&gzip.stdout).contains(told), "{gzip:?}");
    }
}

#[test]
fn engines_without_image_volumes_are_named() {
    let place = Workspace::with_image();
    for (engine, severity, check, told) in [
        ("kubernetes=1.30", "error", "mount", "has no image volumes"),
        ("kubernetes=1.32", "warning", "mount", "in alpha only"),
        ("kubernetes=1.35", "warning", "mount", "in beta only"),
        ("kubernetes=1.36", "ok", "engine", "it has all that the image needs"),
        ("containerd=2.0", "error", "mount", "cannot mount images"),
        ("containerd=2.1", "warning", "sub-path", "ignores subPath of image volumes silently"),
        ("containerd=2.2", "ok", "engine", "it has all that the image needs"),
        ("cri-o=1.32", "warning", "sub-path", "has no subPath"),
        ("docker=27.5", "warning", "mount", "has no --mount type=image"),
        ("podman=4.3.1", "ok", "engine", "it has all that the image needs"),
    ] {
        let command = place.volio(&format!("doctor --engine {engine} oci:layout:v1"));
        assert_named(&place, command, severity, check, told);
    }
}

#[test]
fn a_single_platform_is_a_warning() {
    let place = Workspace::with_tree().and("pack --platform linux/amd64 oci:layout:v1 tree");
    let told = "for linux/amd64 only, and none for linux/arm64: containerd may fetch it";
    assert_named(&place, place.volio("doctor oci:layout:v1"), "warning", "platforms", told);
}

#[test]
fn too_many_layers_are_counted() {
    let place = Workspace::with_image();
    let layer = layer(&place);
    let diff_id = layer["diffId"].as_str().unwrap().to_owned();
    let descriptor =
        json!({"mediaType": layer["mediaType"], "digest": layer["digest"], "size": layer["size"]});
    for (count, severity, told) in [
        (70, "ok", "70 layer(s)"),
        (71, "warning", "71 layer(s): from about 70 on"),
        (126, "error", "126 layer(s): docker refuses"),
        (501, "error", "501 layer(s): podman and docker refuse"),
    ] {
        let place =
            with_image_of(Workspace::with_image(), &vec![(descriptor.clone(), diff_id.clone()); count]);
        assert_named(&place, place.volio("doctor oci:layout:made"), severity, "layer-count", told);
    }
}

#[test]
fn a_layer_that_is_too_large_for_registries_is_named_with_them() {
    let digest = Digest::of(b"large").to_string();
    let size = 60_000_u64 << 20;
    let large = json!({"mediaType": media_type::LAYER, "digest": digest, "size": size});
    let place = with_image_of(Workspace::with_image(), &[(large, digest)]);
    for registry in ["GitHub's registry (ghcr.io)", "Amazon ECR", "Amazon ECR Public"] {
        let told = format!("62914560000 bytes, and {registry} takes at most");
        assert_named(&place, place.volio("doctor oci:layout:made"), "warning", "layer-size", &told);
    }
}

#[test]
fn an_entry_without_its_directory_is_named() {
    let place = Workspace::with_image();
    let mut tar = Command::new("tar");
    tar.args(["--format=pax", "-cf", "part.tar", "tree/etc/hosts"]).current_dir(place.path());
    assert!(tar.status().unwrap().success());
    let bytes = fs::read(place.path().join("part.tar")).unwrap();
    let layer = place.blob(media_type::LAYER, &bytes);
    let place = with_image_of(place, &[(layer, Digest::of(&bytes).to_string())]);
    let told = "1 entries have no entry for their directory in the layer, the first is /tree/etc/hosts";
    let command = place.volio("doctor --deep oci:layout:made");
    assert_named(&place, command, "warning", "parent-directories", told);
}

#[test]
fn whiteouts_in_the_lowest_layer_are_named() {
    let place = Workspace::with_image();
    fs::create_dir(place.path().join("delta")).unwrap();
    fs::write(place.path().join("delta/.wh.gone"), "").unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--format=pax", "-C", "delta", "-cf", "part.tar", ".wh.gone"]).current_dir(place.path());
    assert!(tar.status().unwrap().success());
    let bytes = fs::read(place.path().join("part.tar")).unwrap();
    let layer = place.blob(media_type::LAYER, &bytes);
    let place = with_image_of(place, &[(layer, Digest::of(&bytes).to_string())]);
    let command = place.volio("doctor --deep oci:layout:made");
    assert_named(&place, command, "warning", "whiteouts", "the lowest layer has 1 whiteouts");
}

#[test]
fn a_damaged_table_of_contents_is_found_without_reading_the_layer() {
    let place = Workspace::with_image();
    let layer = layer(&place);
    let position = layer["annotations"]["io.volio.toc.position"].as_str().unwrap();
    let offset: usize = position.split(':').next().unwrap().parse().unwrap();
    let file = blob_file(&place, &layer["digest"]);
    let mut bytes = fs::read(&file).unwrap();
    bytes[offset + 9] ^= 1;
    fs::write(&file, bytes).unwrap();
    let told = "has the digest";
    assert_named(&place, place.volio("doctor oci:layout:v1"), "error", "damage", told);
}

#[test]
fn a_truncated_blob_and_a_missing_one_are_found() {
    let place = Workspace::with_image();
    let file = blob_file(&place, &layer(&place)["digest"]);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    assert_named(&place, place.volio("doctor oci:layout:v1"), "error", "damage", "");
    fs::remove_file(&file).unwrap();
    assert_named(&place, place.volio("doctor oci:layout:v1"), "error", "blob", "");
}

#[test]
fn damaged_content_is_found_by_a_deep_look() {
    let place = Workspace::with_image();
    let file = blob_file(&place, &layer(&place)["digest"]);
    let mut bytes = fs::read(&file).unwrap();
    bytes[20] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_named(&place, place.volio("doctor oci:layout:v1"), "ok", "contents", "--deep reads all layers");
    assert_named(&place, place.volio("doctor --deep oci:layout:v1"), "error", "damage", "");
}

#[test]
fn signatures_for_some_tools_only_are_named_with_the_others() {
    let signed = || {
        let place = Workspace::with_image();
        let keys = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem";
        let made = Command::new("sh").args(["-c", keys]).current_dir(place.path()).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        place.and("sign --key key.pem --sign-identity r.example/a:v1 oci:layout:v1")
    };
    let place = Workspace::with_image();
    assert_named(&place, place.volio("doctor oci:layout:v1"), "warning", "signatures", "it is not signed");
    let place = signed();
    let told = "for podman, skopeo, CRI-O and bootc (.sig tag) and for cosign";
    assert_named(&place, place.volio("doctor oci:layout:v1"), "ok", "signatures", told);
    let is_simple = |entry: &Value| {
        entry["annotations"]["org.opencontainers.image.ref.name"]
            .as_str()
            .is_some_and(|name| name.ends_with(".sig"))
    };
    let has_tag = |entry: &Value| entry["annotations"]["org.opencontainers.image.ref.name"].is_string();
    let place = signed()
        .with_index(|index| index["manifests"].as_array_mut().unwrap().retain(|entry| !is_simple(entry)));
    assert_named(
        &place,
        place.volio("doctor oci:layout:v1"),
        "warning",
        "signatures",
        "as bundles only, for cosign",
    );
    let place = signed().with_index(|index| {
        index["manifests"].as_array_mut().unwrap().retain(|entry| {
            has_tag(entry)
                && (is_simple(entry) || entry["annotations"]["org.opencontainers.image.ref.name"] == "v1")
        });
    });
    assert_named(
        &place,
        place.volio("doctor oci:layout:v1"),
        "warning",
        "signatures",
        "in the .sig tag only",
    );
}

#[test]
fn an_artifact_is_not_an_image() {
    let layers = [("text/plain", None, &b"notes"[..])];
    let place = Workspace::with_image().with_artifact("application/vnd.cncf.helm.config.v1+json", &layers);
    let told = "it is an artifact of type \"application/vnd.cncf.helm.config.v1+json\"";
    assert_named(&place, place.volio("doctor oci:layout:chart"), "error", "artifact", told);
}

#[test]
fn a_configuration_for_another_number_of_layers_is_an_error() {
    let place = Workspace::with_image();
    let found = layer(&place);
    let descriptor =
        json!({"mediaType": found["mediaType"], "digest": found["digest"], "size": found["size"]});
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
    let config = place.blob(media_type::CONFIG, config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": [descriptor]});
    let mut entry = place.blob(media_type::MANIFEST, manifest.to_string().as_bytes());
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": "made"});
    let place = place.with_index(|index| index["manifests"].as_array_mut().unwrap().push(entry));
    let told = "the manifest has 1 layers and the configuration 0 diff_ids";
    assert_named(&place, place.volio("doctor oci:layout:made"), "error", "diff-ids", told);
}

#[test]
fn an_encrypted_layer_is_named() {
    let place = Workspace::with_image();
    let layer = place.blob("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", b"secret");
    let place = with_image_of(place, &[(layer, Digest::of(b"plain").to_string())]);
    let told = "is not that of an archive";
    assert_named(&place, place.volio("doctor oci:layout:made"), "error", "media-type", told);
}

#[test]
fn a_layer_with_the_annotations_of_two_tables_of_contents_is_named() {
    let place = Workspace::with_image();
    let found = layer(&place);
    let mut descriptor =
        json!({"mediaType": found["mediaType"], "digest": found["digest"], "size": found["size"]});
    descriptor["annotations"] = json!({
        "io.github.containers.zstd-chunked.manifest-checksum": found["digest"],
        "containerd.io/snapshot/stargz/toc.digest": found["digest"],
    });
    let place = with_image_of(place, &[(descriptor, found["diffId"].as_str().unwrap().to_owned())]);
    let told = "the annotations of zstd:chunked and of eStargz";
    assert_named(&place, place.volio("doctor oci:layout:made"), "error", "annotations", told);
}

#[test]
fn an_image_that_everybody_can_read_is_a_warning() {
    for (anonymous_pull, severity, told) in [
        (true, "warning", "everybody who can reach the registry"),
        (false, "ok", "it cannot be read without credentials"),
    ] {
        let (place, registry) = (Workspace::with_image(), Registry::start());
        registry.behave(|behaviour| {
            behaviour.login = Login::Token { user: "me:hunter2", anonymous_pull, expires_in: 300 };
        });
        let host = registry.host();
        let auths = format!(r#"{{"auths":{{"{host}":{{"username":"me","password":"hunter2"}}}}}}"#);
        let with = |arguments: &str| {
            let mut command = place.volio(arguments);
            command.env("DOCKER_AUTH_CONFIG", &auths);
            command
        };
        assert!(place.run(with(&format!("push --quiet oci:layout:v1 {host}/a:v1"))).status.success());
        assert_named(&place, with(&format!("doctor {host}/a:v1")), severity, "public", told);
    }
}

#[test]
fn an_image_that_is_not_there() {
    let place = Workspace::with_image();
    let text =
        assert_named(&place, place.volio("doctor oci:layout:v2"), "error", "find", "no image with the tag");
    assert!(text.contains("its tags are v1"), "{text}");
}
