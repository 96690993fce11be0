//! What an image is: its documents, read and set out, without a byte of its layers.

use crate::error::Result;
use crate::image;
use crate::oci::{Config, Descriptor, Digest, Document, Execution, Index, Manifest, Platform, media_type};
use crate::transport::{self, Source};
use serde::Serialize;
use std::collections::BTreeMap;

/// All that the documents of an image say.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspected {
    /// The digest of the index or the manifest that the name stands for.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The images, one for each platform.
    pub images: Vec<ImageSummary>,
}

/// The image for one platform.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSummary {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The platform.
    pub platform: Platform,
    /// When it was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The size of its layers as they are stored, in bytes.
    pub size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// How a container is started from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<Execution>,
    /// The layers, lowest first.
    pub layers: Vec<LayerSummary>,
}

/// One layer of an image.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerSummary {
    /// The digest of the blob.
    pub digest: Digest,
    /// The media type of the blob.
    pub media_type: String,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The digest of the plain tar archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<Digest>,
    /// The annotations of the layer.
    pub annotations: BTreeMap<String, String>,
}

/// Reads the documents of an image.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when one of them is not what it says.
pub fn inspect(source: &dyn Source) -> Result<Inspected> {
    let root = source.resolve()?;
    let fetch = |descriptor: &Descriptor| transport::fetch(source, descriptor);
    let images = image::images(&root, fetch)?
        .iter()
        .map(|(_, document)| {
            let manifest = Manifest::parse(document)?;
            let config = fetch(&manifest.config)?.parse()?;
            Ok(ImageSummary::new(document, &manifest, config))
        })
        .collect::<Result<_>>()?;
    let annotations = match media_type::is_index(&root.descriptor().media_type) {
        true => Index::parse(&root)?.annotations,
        false => Manifest::parse(&root)?.annotations,
    };
    let Descriptor { digest, media_type, size, .. } = root.descriptor().clone();
    Ok(Inspected { digest, media_type, size, annotations, images })
}

impl ImageSummary {
    fn new(document: &Document, manifest: &Manifest, config: Config) -> Self {
        let diff_ids = config.rootfs.diff_ids.into_iter().map(Some).chain(std::iter::repeat(None));
        let layer = |(layer, diff_id): (&Descriptor, Option<Digest>)| LayerSummary {
            digest: layer.digest.clone(),
            media_type: layer.media_type.clone(),
            size: layer.size,
            diff_id,
            annotations: layer.annotations.clone(),
        };
        let labels = config.config.as_ref().map(|execution| execution.labels.clone()).unwrap_or_default();
        Self {
            digest: document.descriptor().digest.clone(),
            platform: config.platform,
            created: config.created,
            size: manifest.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add),
            labels,
            annotations: manifest.annotations.clone(),
            execution: config.config,
            layers: manifest.layers.iter().zip(diff_ids).map(layer).collect(),
        }
    }
}
