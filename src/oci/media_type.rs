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

/// The types of documents that a registry may return for the name of an image.
pub const DOCUMENTS: [&str; 4] = [INDEX, MANIFEST, DOCKER_MANIFEST_LIST, DOCKER_MANIFEST];

/// Returns whether the type says nothing about the content. Programs write such types if they do not know the right one;
/// object stores write the binary one.
pub fn is_generic(media_type: &str) -> bool {
    matches!(
        media_type,
        "" | "application/json" | "application/octet-stream" | "binary/octet-stream" | "text/plain"
    )
}

/// Returns whether this is the type of an index, which lists manifests.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_MANIFEST_LIST)
}

/// Returns whether this is the type of a manifest, which lists layers.
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}

/// Returns whether this is the type of an image's configuration. Those of artifacts have other types.
pub fn is_config(media_type: &str) -> bool {
    matches!(media_type, CONFIG | DOCKER_CONFIG)
}

/// Returns whether this is the type of a layer of an image, with any compression, and not that of an artifact's payload.
pub fn is_layer(media_type: &str) -> bool {
    let families = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
    families.iter().any(|family| media_type.starts_with(family)) && media_type.contains(".tar")
}

/// The relation of a layer's media type to the known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerType {
    /// A type of the specification or of Docker for a tar archive, plain or compressed with gzip or zstd.
    Specified,
    /// An unknown type with the ending of such an archive.
    Similar,
    /// Any other type: encrypted, with another compression, or not a layer.
    Other,
}

/// The layer types of the specification and of Docker, without the suffix for the compression.
const LAYER_TYPES: [&str; 4] = [
    LAYER,
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    DOCKER_LAYER,
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];

/// Returns the relation of a layer's media type to the known ones.
pub fn layer_type(media_type: &str) -> LayerType {
    let is_specified = |known: &&str| {
        matches!(media_type.strip_prefix(*known), Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd"))
    };
    if LAYER_TYPES.iter().any(is_specified) {
        LayerType::Specified
    } else if ["+gzip", "+zstd", ".tar"].iter().any(|end| media_type.ends_with(end)) {
        LayerType::Similar
    } else {
        LayerType::Other
    }
}

/// Returns the type that an OCI manifest has for a layer: that of the specification in place of Docker's, with the same
/// compression. Other types stay as they are.
pub fn oci_layer(media_type: &str) -> String {
    let [layer, nondistributable, docker, foreign] = LAYER_TYPES;
    for (docker, oci) in [(docker, layer), (foreign, nondistributable)] {
        let compression = match media_type.strip_prefix(docker) {
            Some("") => "",
            Some(".gzip" | "+gzip") => "+gzip",
            Some(".zstd" | "+zstd") => "+zstd",
            _ => continue,
        };
        return format!("{oci}{compression}");
    }
    media_type.to_owned()
}

/// Returns whether registries store this type as a manifest and not as a blob.
pub fn is_document(media_type: &str) -> bool {
    is_index(media_type) || is_manifest(media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_types_are_recognised_by_their_ending() {
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
    fn docker_layer_types_have_counterparts_with_the_same_compression() {
        let nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar";
        let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar";
        for (before, after) in [
            (DOCKER_LAYER.to_owned(), LAYER.to_owned()),
            (DOCKER_LAYER_GZIP.to_owned(), LAYER_GZIP.to_owned()),
            (format!("{DOCKER_LAYER}.zstd"), LAYER_ZSTD.to_owned()),
            (format!("{DOCKER_LAYER}+zstd"), LAYER_ZSTD.to_owned()),
            (foreign.to_owned(), nondistributable.to_owned()),
            (format!("{foreign}.gzip"), format!("{nondistributable}+gzip")),
        ] {
            assert_eq!(oci_layer(&before), after, "{before}");
            assert_eq!(oci_layer(&after), after, "{after}");
        }
        for other in ["application/vnd.example+gzip", "application/vnd.docker.image.rootfs.diff.tar.xz", ""] {
            assert_eq!(oci_layer(other), other);
        }
    }

    #[test]
    fn layers_are_distinguished_from_the_payload_of_artifacts() {
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
