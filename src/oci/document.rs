//! A JSON document together with its exact bytes.

use super::{Descriptor, media_type};
use crate::error::{Error, Result};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

/// The largest document that is read, in bytes: registries take no larger manifest (distribution-spec,
/// "Pushing Manifests": at least 4 MiB, which is also the limit of its reference implementation).
pub const DOCUMENT_LIMIT: u64 = 4 << 20;

/// A manifest, an index or a configuration with its exact bytes.
///
/// The bytes of a document from elsewhere are kept: another order of its keys would have another digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    descriptor: Descriptor,
    bytes: Vec<u8>,
}

impl Document {
    /// Creates a document with these bytes.
    pub fn new(media_type: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { descriptor: Descriptor::of(media_type, &bytes), bytes }
    }

    /// Writes a document as JSON without white space and with sorted keys, so that its digest depends on its content only.
    pub fn write(media_type: impl Into<String>, content: &impl Serialize) -> Self {
        // A map of serde_json sorts its keys; a struct would keep the order of its fields.
        let bytes = serde_json::to_value(content).and_then(|value| serde_json::to_vec(&value));
        Self::new(media_type, bytes.expect("our documents have string keys only, so they can be written"))
    }

    /// Adds an annotation to the descriptor, for the document that lists it. The bytes do not change.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: impl Into<String>) -> Self {
        self.descriptor.annotations.insert(key.to_owned(), value.into());
        self
    }

    /// Returns the media type, the digest and the size.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Returns the exact bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Creates a document. A media type that is generic or missing is replaced by that in the document, or derived from
    /// its members (image-spec, "Image Manifest", `mediaType`: an index has `manifests`, a manifest `config` and
    /// `layers`), if that is possible.
    pub fn identified(media_type: &str, bytes: Vec<u8>) -> Self {
        match media_type::is_generic(media_type).then(|| identify(&bytes)).flatten() {
            Some(found) => Self::new(found, bytes),
            None => Self::new(media_type, bytes),
        }
    }

    /// Parses the JSON.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if it does not have the expected form.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.bytes).map_err(|error| self.malformed(&error.to_string()))
    }

    /// Returns the error for a document that has the right digest and invalid content.
    pub fn malformed(&self, why: &str) -> Error {
        Error::integrity(format!(
            "{} is not a valid {}: {why}",
            self.descriptor.digest, self.descriptor.media_type
        ))
    }
}

/// Returns the media type of a manifest or an index, by its content.
fn identify(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Members {
        media_type: Option<String>,
        config: Option<IgnoredAny>,
        layers: Option<IgnoredAny>,
        manifests: Option<IgnoredAny>,
    }
    let members: Members = serde_json::from_slice(bytes).ok()?;
    let claimed = members.media_type.filter(|claimed| !media_type::is_generic(claimed));
    let by_members = match (members.config, members.layers, members.manifests) {
        (Some(_), Some(_), None) => Some(media_type::MANIFEST),
        (None, None, Some(_)) => Some(media_type::INDEX),
        _ => None,
    };
    claimed.or(by_members.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_without_a_media_type_is_known_by_its_members() {
        let manifest = r#"{"config":{},"layers":[]}"#;
        let own = r#"{"mediaType":"application/vnd.docker.distribution.manifest.v2+json"}"#;
        for (announced, json, found) in [
            ("", manifest, media_type::MANIFEST),
            ("application/json", manifest, media_type::MANIFEST),
            ("", r#"{"manifests":[]}"#, media_type::INDEX),
            ("application/octet-stream", own, media_type::DOCKER_MANIFEST),
            ("", r#"{"config":{},"layers":[],"manifests":[]}"#, ""),
            ("text/plain", r#"{"rootfs":{}}"#, "text/plain"),
            ("", "<html>", ""),
            (media_type::CONFIG, manifest, media_type::CONFIG),
        ] {
            let document = Document::identified(announced, json.as_bytes().to_vec());
            assert_eq!(document.descriptor().media_type, found, "{announced} {json}");
        }
    }
}
