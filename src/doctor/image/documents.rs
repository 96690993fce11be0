//! The documents: complete, and those of an image.

use super::{Documents, Finding, LAYERS_LIMIT, PlatformImage, layer_place};
use crate::oci::media_type::{self, LayerType};

/// containerd mounts images only.
const ARTIFACTS: &str = "https://github.com/containerd/containerd/issues/11907";
/// `rootfs.diff_ids` has one diff_id for each layer.
const DIFF_IDS: &str = "image-spec, config.md, \"Properties\": rootfs.diff_ids; containerd core/unpack/unpacker.go compares the numbers";
/// `os` and `architecture` are required.
const PLATFORM: &str = "image-spec, config.md, \"Properties\": architecture and os are REQUIRED; https://github.com/GoogleContainerTools/kaniko/issues/997";
/// Layers that are unpacked.
const LAYER_TYPES: &str = "image-spec, manifest.md, \"Image Manifest Property Descriptions\": layers; containerd core/images/mediatypes.go";

/// A layer with both kinds of annotations is not pulled.
const TWO_TABLES: &str =
    "containers/storage pkg/chunked/toc/toc.go: \"both zstd:chunked and eStargz TOC found\"";

pub(super) fn check(documents: &Documents) -> Vec<Finding> {
    let mut findings = Vec::new();
    if documents.images.is_empty() {
        findings.push(no_image(documents));
        return findings;
    }
    for image in &documents.images {
        findings.extend(diff_ids(image));
        findings.extend(platform(image));
        findings.extend(media_types(image));
        findings.extend(two_tables(image));
    }
    if findings.is_empty() {
        let count = documents.images.len();
        findings.push(Finding::ok(
            "documents",
            "image",
            format!(
                "the manifests and configurations of {count} platform(s) are complete, and have their digests"
            ),
        ));
    }
    findings
}

fn no_image(documents: &Documents) -> Finding {
    let what = match documents.artifacts.first() {
        Some(kind) => {
            format!("it is an artifact of type {kind:?}, and engines mount images only")
        }
        None => "it lists no image".to_owned(),
    };
    Finding::error("artifact", "image", what).by(ARTIFACTS).advise(
        "pack the files as an image with volio pack; volio unpack --artifact writes those of an artifact",
    )
}

fn diff_ids(image: &PlatformImage) -> Option<Finding> {
    let (layers, diff_ids) = (image.manifest.layers.len(), image.config.rootfs.diff_ids.len());
    (layers != diff_ids).then(|| {
        Finding::error(
            "diff-ids",
            image.name(),
            format!("the manifest has {layers} layers and the configuration {diff_ids} diff_ids"),
        )
        .by(DIFF_IDS)
        .advise("build or pack the image again; no engine can unpack it")
    })
}

fn platform(image: &PlatformImage) -> Option<Finding> {
    (!image.config.platform.is_complete()).then(|| {
        Finding::warning(
            "config-platform",
            image.document.descriptor().digest.to_string(),
            "its configuration names no operating system or no architecture: podman and docker complain or do not pull it",
        )
        .by(PLATFORM)
        .advise("build or pack the image again, with a platform")
    })
}

fn media_types(image: &PlatformImage) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, layer) in image.manifest.layers.iter().enumerate().take(LAYERS_LIMIT) {
        let place = layer_place(number, image);
        let shown: String = layer.media_type.chars().take(200).collect();
        let finding = match media_type::layer_type(&layer.media_type) {
            LayerType::Specified => continue,
            LayerType::Similar => Finding::warning(
                "media-type",
                place,
                format!("its media type {shown:?} is not in any specification: engines may not unpack it"),
            ),
            LayerType::Other => Finding::error(
                "media-type",
                place,
                format!("its media type {shown:?} is not that of an archive: engines do not unpack it"),
            ),
        };
        findings.push(finding.by(LAYER_TYPES).advise("pack the content again with volio pack"));
    }
    findings
}

fn two_tables(image: &PlatformImage) -> Option<Finding> {
    let both =
        ["io.github.containers.zstd-chunked.manifest-checksum", "containerd.io/snapshot/stargz/toc.digest"];
    let mut layers = image.manifest.layers.iter();
    let number = layers.position(|layer| both.iter().all(|name| layer.annotations.contains_key(*name)))?;
    let what =
        "it has the annotations of zstd:chunked and of eStargz: podman fails if partial pulls are enabled";
    Some(
        Finding::error("annotations", layer_place(number, image), what)
            .by(TWO_TABLES)
            .advise("remove one kind: pack the content again, or convert it once only"),
    )
}
