//! The documents of the OCI image specification. Nothing here does I/O.
//!
//! The types of the crate `oci-spec` are not used, because they drop fields that they do not know, and their `Platform`
//! loses
//! `os.version` and `os.features`. The tests read volio's documents with `oci-spec` as an independent judge.

mod config;
mod descriptor;
mod digest;
mod document;
mod manifest;
pub mod media_type;
mod members;
mod platform;
mod reference;
mod referrer;
mod sha256;
mod tag_template;

pub use config::{ContainerConfig, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher};
pub use document::{DOCUMENT_LIMIT, Document};
pub use manifest::{Index, Manifest};
pub use members::Unknown;
pub(crate) use members::{Members, null_is_default};
pub use platform::{Fit, Platform};
pub use reference::Reference;
pub(crate) use reference::is_tag;
pub use referrer::{
    ARTIFACT_TYPE, SUBJECT, attachment_subject, attachment_tags, is_attachment_tag, referrers_tag, tags_about,
};
pub use sha256::PairedSha256;
pub use tag_template::{TagMatch, TagTemplate};

/// The annotation with the name of an image in an image layout (image-spec, "Image Layout", `index.json`).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with the full name of an image in a layout of containerd or Docker.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The annotation with the name of the file in a layer of an artifact, as written by oras (image-spec, "Annotations").
pub const TITLE: &str = "org.opencontainers.image.title";
/// The annotation of a layout's index that lacks blobs of an image. It names the images that have them.
pub const SINCE: &str = "io.volio.since";
