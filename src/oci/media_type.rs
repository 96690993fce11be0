//! Media types of the OCI image specification and of Docker's image format, schema 2.

/// An OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// An OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer that is a plain tar archive.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer compressed with gzip.
pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer compressed with zstd.
pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker's counterpart of the index.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's counterpart of the manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's counterpart of the configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's counterpart of a layer that is a plain tar archive.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker's counterpart of a layer compressed with gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// What a registry may answer when an image is asked for by name.
pub const DOCUMENTS: [&str; 4] = [INDEX, MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST];

/// Returns `true` for what programs write that do not know, or do not say, what something is; the binary one is that of
/// object stores.
pub fn is_generic(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/json" | "application/octet-stream" | "binary/octet-stream" | "text/plain"
    )
}

/// Whether this is an index: a document that lists manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_MANIFEST_LIST)
}

/// Whether this is a manifest: a document that lists layers.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}

/// Whether this is the configuration of an image: artifacts have one too, of a type of their own.
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, CONFIG | DOCKER_CONFIG)
}

/// Whether this is a layer of an image, a tar archive however it is compressed, and not the payload of an artifact.
pub fn is_layer(media_type: &str) -> bool {
    let families = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
    families.iter().any(|family| media_type.starts_with(family)) && media_type.contains(".tar")
}

/// What the media type of a layer says about reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerType {
    /// A tar archive, plain or compressed with gzip or zstd, by the specification or by Docker.
    Specified,
    /// Such an archive by the end of its type, which neither of them knows.
    Similar,
    /// Something else, or nothing that is known: encrypted, compressed otherwise, or not a layer.
    Other,
}

/// The layer types of the specification and of Docker, by what stands before the compression.
const LAYER_TYPES: [&str; 4] = [
    LAYER,
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    DOCKER_LAYER,
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];

/// Returns what the media type of a layer says about reading it.
pub fn layer_type(media_type: &str) -> LayerType {
    let is_specified = |known: &&str| {
        matches!(media_type.strip_prefix(*known), Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd"))
    };
    match LAYER_TYPES.iter().any(is_specified) {
        true => LayerType::Specified,
        false if ["+gzip", "+zstd", ".tar"].iter().any(|end| media_type.ends_with(end)) => LayerType::Similar,
        false => LayerType::Other,
    }
}

/// Whether registries keep this among their manifests and not among their blobs.
pub fn is_document(media_type: &str) -> bool {
    is_index(media_type) || is_manifest(media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_read_by_what_its_type_ends_in() {
        for known in [LAYER, LAYER_GZIP, LAYER_ZSTD, DOCKER_LAYER, DOCKER_LAYER_GZIP] {
            assert_eq!(layer_type(known), LayerType::Specified, "{known}");
        }
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
        assert_eq!(layer_type(foreign), LayerType::Specified);
        for similar in ["application/vnd.example+gzip", "application/x.layer.tar+zstd", "application/x.tar"] {
            assert_eq!(layer_type(similar), LayerType::Similar, "{similar}");
        }
        for other in [
            "application/vnd.oci.image.layer.v1.tar+xz",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            CONFIG,
            "application/x-tar",
            "",
        ] {
            assert_eq!(layer_type(other), LayerType::Other, "{other}");
        }
    }

    #[test]
    fn layers_are_told_from_the_payload_of_artifacts() {
        for layer in [
            LAYER,
            LAYER_GZIP,
            LAYER_ZSTD,
            DOCKER_LAYER,
            DOCKER_LAYER_GZIP,
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ] {
            assert!(is_layer(layer), "{layer}");
        }
        for other in
            [CONFIG, "application/vnd.in-toto+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"]
        {
            assert!(!is_layer(other), "{other}");
        }
    }
}
