//! Descriptors of blobs (image-spec, "Content Descriptors").

use super::members::{Members, Unknown};
use super::{Digest, Platform};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The media type, the digest and the size of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the blob; see [`media_type`](super::media_type). Empty if a program has omitted it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The digest of the stored blob.
    pub digest: Digest,
    /// The size of the stored blob, in bytes.
    pub size: u64,
    /// The platform of the image, in an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Annotations of the blob.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that volio does not know.
    #[serde(flatten)]
    pub extra: Unknown,
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut members = Members::deserialize(deserializer)?;
        Ok(Self {
            media_type: members.or_default("mediaType")?,
            digest: members.required("digest")?,
            size: members.required("size")?,
            platform: members.optional("platform")?,
            annotations: members.or_default("annotations")?,
            extra: members.rest()?,
        })
    }
}

impl Descriptor {
    /// Creates a descriptor without platform and annotations. `size` is in bytes.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
            extra: Unknown::default(),
        }
    }

    /// Returns the URLs outside of the registry that have the blob (image-spec, "Content Descriptors", `urls`).
    pub fn urls(&self) -> Vec<String> {
        self.extra.get("urls").and_then(|urls| serde_json::from_value(urls).ok()).unwrap_or_default()
    }

    /// Returns the descriptor of these bytes.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}
