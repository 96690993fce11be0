//! The number of layers, and their sizes, against the limits of engines and registries.

use super::{Documents, Finding, PlatformImage, Severity, layer_place};
use crate::transport::Location;

/// The options of a mount must fit into one page, so that each lower directory counts with its path.
const MOUNT_OPTIONS: &str =
    "mount(2): the data of a mount is limited to a page; containerd core/mount/mount_linux.go";
/// The limit of Docker's graph drivers.
const DOCKER_DEPTH: &str =
    "moby daemon/internal/layer/layer_store.go: maxLayerDepth = 125; image-spec has no limit";
/// The limit of containers/storage.
const PODMAN_DEPTH: &str = "containers/storage drivers/overlay/overlay.go: maxDepth = 500";

/// From this number on, the mount options of an overlay outside of a graph driver do not fit into a page.
const MOUNT_LIMIT: usize = 70;
const DOCKER_LIMIT: usize = 125;
const PODMAN_LIMIT: usize = 500;

/// The limit of a registry for one layer.
struct SizeLimit {
    registry: &'static str,
    /// Returns whether a host is one of the registry.
    is: fn(&str) -> bool,
    bytes: u64,
    source: &'static str,
}

const SIZE_LIMITS: [SizeLimit; 3] = [
    SizeLimit {
        registry: "GitHub's registry (ghcr.io)",
        is: |host| host == "ghcr.io",
        bytes: 10_000_000_000,
        source: "https://docs.github.com/en/packages/working-with-a-github-packages-registry/working-with-the-container-registry (10 GB a layer)",
    },
    SizeLimit {
        registry: "Amazon ECR Public",
        is: |host| host == "public.ecr.aws",
        bytes: 10_000 << 20,
        source: "https://docs.aws.amazon.com/AmazonECR/latest/public/public-service-quotas.html (10,000 MiB a layer)",
    },
    SizeLimit {
        registry: "Amazon ECR",
        is: |host| host.contains(".dkr.ecr.") && host.contains(".amazonaws.com"),
        bytes: 52_000 << 20,
        source: "https://docs.aws.amazon.com/AmazonECR/latest/userguide/service-quotas.html (52,000 MiB a layer)",
    },
];

pub(super) fn check(documents: &Documents, location: &Location) -> Vec<Finding> {
    let host = match location {
        Location::Registry(reference) => reference.registry(),
        _ => "",
    };
    let Some(most) = documents.images.iter().max_by_key(|image| image.manifest.layers.len()) else {
        return Vec::new();
    };
    let mut findings = vec![count(most)];
    findings.extend(sizes(documents, host));
    findings
}

fn count(image: &PlatformImage) -> Finding {
    let count = image.manifest.layers.len();
    let (severity, what, source) = match count {
        _ if count > PODMAN_LIMIT => {
            (Severity::Error, "podman and docker refuse more than 500 and 125", PODMAN_DEPTH)
        }
        _ if count > DOCKER_LIMIT => (Severity::Error, "docker refuses more than 125", DOCKER_DEPTH),
        _ if count > MOUNT_LIMIT => (
            Severity::Warning,
            "from about 70 on, an overlay that is mounted outside of a graph driver may fail, because its options \
             must fit into one page",
            MOUNT_OPTIONS,
        ),
        _ => (Severity::Ok, "within the limits of docker (125) and podman (500)", DOCKER_DEPTH),
    };
    let finding =
        Finding::new(severity, "layer-count", image.name(), format!("it has {count} layer(s): {what}"))
            .by(source);
    match severity {
        Severity::Ok => finding,
        _ => finding.advise("pack it again in full, or with a lower --max-layers"),
    }
}

fn sizes(documents: &Documents, host: &str) -> Vec<Finding> {
    let layers = documents.images.iter().flat_map(|image| {
        image.manifest.layers.iter().enumerate().map(move |(number, layer)| (number, layer, image))
    });
    let Some((number, largest, image)) = layers.max_by_key(|(_, layer, _)| layer.size) else {
        return Vec::new();
    };
    let (place, size) = (layer_place(number, image), largest.size);
    let exceeded: Vec<_> = SIZE_LIMITS.iter().filter(|limit| size > limit.bytes).collect();
    if exceeded.is_empty() {
        let source = SIZE_LIMITS[0].source;
        return vec![
            Finding::ok(
                "layer-size",
                place,
                format!("the largest layer has {size} bytes: below the limits of ghcr.io, ECR Public and ECR; those of other registries are not known"),
            )
            .by(source),
        ];
    }
    let advice = "pack it again with a lower --layer-size; one file is always in one layer";
    exceeded
        .into_iter()
        .map(|limit| {
            let severity = if (limit.is)(host) { Severity::Error } else { Severity::Warning };
            let what = format!(
                "it has {size} bytes, and {} takes at most {} of a layer",
                limit.registry, limit.bytes
            );
            Finding::new(severity, "layer-size", place.clone(), what).by(limit.source).advise(advice)
        })
        .collect()
}
