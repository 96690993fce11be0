//! Manifests and indexes (image-spec, "Image Manifest" and "Image Index").

use super::members::{Members, Unknown};
use super::{ARTIFACT_TYPE, Descriptor, Document, media_type};
use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// An image for one platform: its configuration and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media_type::MANIFEST`] or Docker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The image configuration.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// Annotations of the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that volio does not know.
    #[serde(flatten)]
    pub extra: Unknown,
}

/// A list of manifests, one for each platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// [`media_type::INDEX`] or Docker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The manifests, or further indexes.
    pub manifests: Vec<Descriptor>,
    /// Annotations of the index.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that volio does not know.
    #[serde(flatten)]
    pub extra: Unknown,
}

impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut members = Members::deserialize(deserializer)?;
        Ok(Self {
            schema_version: members.required("schemaVersion")?,
            media_type: members.optional("mediaType")?,
            config: members.required("config")?,
            layers: members.or_default("layers")?,
            annotations: members.or_default("annotations")?,
            extra: members.rest()?,
        })
    }
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let mut members = Members::deserialize(deserializer)?;
        Ok(Self {
            schema_version: members.required("schemaVersion")?,
            media_type: members.optional("mediaType")?,
            manifests: members.or_default("manifests")?,
            annotations: members.or_default("annotations")?,
            extra: members.rest()?,
        })
    }
}

impl Manifest {
    /// Creates a manifest in the OCI format.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>, annotations: BTreeMap<String, String>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            config,
            layers,
            annotations,
            extra: Unknown::default(),
        }
    }

    /// Parses a manifest.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if the document is not a manifest, or is a manifest and an index at the
    /// same time, which tools would read differently (image-spec, "Security considerations" of the manifest).
    pub fn parse(document: &Document) -> Result<Self> {
        let manifest: Self = document.parse()?;
        check_type(document, manifest.media_type.as_deref(), media_type::is_manifest)?;
        if manifest.extra.contains_key("manifests") {
            return Err(document.malformed("it has both \"layers\" and \"manifests\""));
        }
        Ok(manifest)
    }

    /// Returns the type of the artifact; `None` for an image (image-spec, "Guidelines for Artifact Usage"). The
    /// configuration decides whether it is an image, as in engines.
    pub fn artifact_type(&self) -> Option<String> {
        let config = self.config.media_type.as_str();
        let claimed = self.extra.get(ARTIFACT_TYPE);
        let claimed = claimed.as_ref().and_then(Value::as_str).filter(|kind| !kind.is_empty());
        let claimed = claimed.map(str::to_owned);
        if media_type::is_config(config) {
            None
        } else if media_type::is_generic(config) {
            claimed
        } else {
            claimed.or_else(|| Some(config.to_owned()))
        }
    }
}

impl Index {
    /// Creates an index in the OCI format.
    pub fn new(manifests: Vec<Descriptor>, annotations: BTreeMap<String, String>) -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media_type::INDEX.to_owned()),
            manifests,
            annotations,
            extra: Unknown::default(),
        }
    }

    /// Parses an index.
    ///
    /// # Errors
    /// As [`Manifest::parse`].
    pub fn parse(document: &Document) -> Result<Self> {
        let index: Self = document.parse()?;
        check_type(document, index.media_type.as_deref(), media_type::is_index)?;
        if index.extra.contains_key("layers") || index.extra.contains_key("config") {
            return Err(document.malformed("it has both \"manifests\" and \"layers\" or \"config\""));
        }
        Ok(index)
    }
}

/// Checks the `mediaType` in a document against the type that its descriptor has.
fn check_type(document: &Document, claimed: Option<&str>, is_expected: fn(&str) -> bool) -> Result<()> {
    match claimed {
        Some(claimed) if !is_expected(claimed) && !media_type::is_generic(claimed) => {
            Err(Error::integrity(format!(
                "{} is announced as {} and calls itself {claimed:?}",
                document.descriptor().digest,
                document.descriptor().media_type
            )))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn document(media_type: &str, json: &str) -> Document {
        Document::new(media_type, json.as_bytes().to_vec())
    }

    #[test]
    fn a_document_that_is_a_manifest_and_an_index_at_once_is_refused() {
        let config = r#"{"mediaType":"c","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;
        let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
        let manifest = Manifest::parse(&document(media_type::MANIFEST, &both));
        let index = Index::parse(&document(media_type::INDEX, &both));
        assert_eq!(manifest.unwrap_err().kind(), Kind::Integrity);
        assert_eq!(index.unwrap_err().kind(), Kind::Integrity);
    }

    #[test]
    fn an_artifact_is_distinguished_from_an_image_by_its_configuration() {
        let helm = "application/vnd.cncf.helm.config.v1+json";
        let empty = "application/vnd.oci.empty.v1+json";
        for (config, claimed, kind) in [
            (media_type::CONFIG, "", None),
            (media_type::CONFIG, "application/x", None),
            (media_type::DOCKER_CONFIG, "", None),
            ("application/octet-stream", "", None),
            ("", "application/x", Some("application/x")),
            (helm, "", Some(helm)),
            (empty, "application/x", Some("application/x")),
        ] {
            let mut manifest = Manifest::new(Descriptor::of(config, b"{}"), Vec::new(), BTreeMap::new());
            manifest.extra.insert(ARTIFACT_TYPE, &claimed.into());
            assert_eq!(manifest.artifact_type().as_deref(), kind, "{config} {claimed}");
        }
    }

    #[test]
    fn null_lists_are_empty_lists() {
        let index = document(media_type::INDEX, r#"{"schemaVersion":2,"manifests":null,"annotations":null}"#);
        assert!(Index::parse(&index).unwrap().manifests.is_empty());
    }

    #[test]
    fn unknown_fields_are_kept() {
        let json = r#"{"manifests":[],"schemaVersion":2,"zzz":1}"#;
        let index = Index::parse(&document(media_type::INDEX, json)).unwrap();
        assert_eq!(Document::write(media_type::INDEX, &index).bytes(), json.as_bytes());
    }
}
