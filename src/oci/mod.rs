//! The words of the OCI image specification, and nothing that does I/O.
//!
//! These are our own types and not those of the crate `oci-spec`: its maps are hash maps, so that the same
//! manifest has another digest in every run; it drops fields that it does not know; and its `Platform` loses
//! `os.version` and `os.features`. The tests read what we write with `oci-spec` as an independent judge.

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

pub use config::{Config, Execution, History, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Hasher};
pub use document::{DOCUMENT_LIMIT, Document};
pub use manifest::{Index, Manifest};
pub(crate) use members::Members;
pub use members::Unknown;
pub use platform::{Fit, Platform};
pub use reference::Reference;
pub use referrer::{ARTIFACT_TYPE, attachment_tags, is_attachment_tag, referrers_tag};

/// The annotation under which an image layout names an image (image-spec, "Image Layout", `index.json`).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation under which containerd and Docker write the full name of an image into a layout.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// The annotation by which oras names the file that a layer of an artifact holds (image-spec, "Annotations").
pub const TITLE: &str = "org.opencontainers.image.title";
/// The annotation by which the index of a layout says that it lacks blobs of an image, and which images have them.
pub const SINCE: &str = "io.volio.since";
