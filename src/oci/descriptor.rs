//! A descriptor: what a blob is, before it is fetched (image-spec, "Content Descriptors").

use super::members::{Members, Unknown};
use super::{Digest, Platform};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The media type, the digest and the size of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is; see [`media_type`](super::media_type). Empty where a program left it out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The digest of the blob as it is stored.
    pub digest: Digest,
    /// The size of the blob as it is stored, in bytes.
    pub size: u64,
    /// The platform of the image behind it, in an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free words about the blob.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Whatever else stood there.
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
    /// A descriptor without platform and annotations; `size` in bytes.
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

    /// The addresses outside of the registry that have the blob (image-spec, "Content Descriptors", `urls`).
    pub fn urls(&self) -> Vec<String> {
        self.extra.get("urls").and_then(|urls| serde_json::from_value(urls).ok()).unwrap_or_default()
    }

    /// The descriptor of these bytes.
    pub fn of(media_type: impl Into<String>, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

/// Reads `null` as nothing: Go programs write it for an empty list or map.
pub(super) fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
