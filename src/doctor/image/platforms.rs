//! The platforms that an image has.

use super::{Documents, Finding, PlatformImage};
use crate::oci::Platform;

/// The platforms of most clusters.
const USUAL: [&str; 2] = ["linux/amd64", "linux/arm64"];
/// What happens to a node of another platform, with an index.
const NO_MATCH: &str = "https://github.com/cri-o/cri-o/issues/8781";
/// What happens to a node of another platform, with a single manifest.
const SINGLE: &str = "https://github.com/Azure/AgentBaker/pull/8815; containerd core/unpack/unpacker.go: \"unpacker does not support platform, only fetching layers\"";

pub(super) fn check(documents: &Documents) -> Vec<Finding> {
    let platforms: Vec<&Platform> = documents.images.iter().map(|image| &image.platform).collect();
    let listed = documents.images.iter().take(16).map(PlatformImage::name).collect::<Vec<_>>().join(", ");
    let missing = USUAL.iter().filter(|usual| {
        let wanted = usual.parse::<Platform>();
        wanted.is_ok_and(|wanted| !platforms.iter().any(|offered| wanted.accepts(offered)))
    });
    let missing = missing.copied().collect::<Vec<_>>().join(" and ");
    if missing.is_empty() {
        return vec![Finding::ok("platforms", "image", format!("there is an image for {listed}"))];
    }
    let has_entrypoint = documents
        .images
        .iter()
        .any(|image| image.config.config.as_ref().is_some_and(|execution| !execution.entrypoint.is_empty()));
    let advice = if has_entrypoint {
        "a program has one platform: build it for the others too, and put all into an index"
    } else {
        "data has no platform: pack it with --platform linux/amd64,linux/arm64; the layers are stored once"
    };
    let (what, source) = if documents.is_index() {
        ("a node of another platform finds no image in the index", NO_MATCH)
    } else {
        (
            "containerd may fetch it on a node of another platform without unpacking it, and says nothing",
            SINGLE,
        )
    };
    vec![
        Finding::warning(
            "platforms",
            "image",
            format!("there is an image for {listed} only, and none for {missing}: {what}"),
        )
        .by(source)
        .advise(advice),
    ]
}
