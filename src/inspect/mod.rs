//! Summarises an image from its documents. No layer is read.

mod contents;
mod signatures;

pub use contents::{LayerContents, contents};
pub use signatures::{Attached, AttachedKind, attached};

use crate::error::Result;
use crate::image::{self, BASE_DIGEST, BASE_NAME};
use crate::layer::Toc;
use crate::oci::{
    ContainerConfig, Descriptor, Digest, Document, History, ImageConfig, Index, Manifest, Platform,
    media_type,
};
use crate::transport::{self, Source};
use std::collections::BTreeMap;

/// A summary of an image.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    /// The artifacts, such as a chart, a module or a signature.
    pub artifacts: Vec<ArtifactSummary>,
}

/// The image for one platform.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImageSummary {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The platform.
    pub platform: Platform,
    /// The time at which it was created, RFC 3339.
    pub created: Option<String>,
    /// The size of its layers as stored, in bytes.
    pub size: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// The defaults for a container.
    pub execution: Option<ContainerConfig>,
    /// The image that it was made from, as its annotations name it.
    pub base: Option<BaseSummary>,
    /// The layers, lowest first.
    pub layers: Vec<LayerSummary>,
}

/// The image that another one was made from. Nothing of it was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BaseSummary {
    /// Its digest.
    pub digest: Option<String>,
    /// Its name.
    pub name: Option<String>,
}

/// An artifact: a manifest with a config that is not that of an image.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ArtifactSummary {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The type of the artifact.
    pub artifact_type: String,
    /// The digest of the manifest that it refers to.
    pub subject: Option<Digest>,
    /// The size of its layers as stored, in bytes.
    pub size: u64,
    /// The annotations of its manifest.
    pub annotations: BTreeMap<String, String>,
    /// Its config.
    pub config: LayerSummary,
    /// The layers in the order of the manifest.
    pub layers: Vec<LayerSummary>,
}

/// One layer of an image or an artifact.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerSummary {
    /// The digest of the blob.
    pub digest: Digest,
    /// The media type of the blob.
    pub media_type: String,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The digest of the plain tar archive.
    pub diff_id: Option<Digest>,
    /// The layer has a table of contents in volio's form, so that parts of it can be read.
    pub is_indexed: bool,
    /// The time at which it was created, RFC 3339, if the history of the image has it.
    pub created: Option<String>,
    /// The command that created it, if the history of the image has it.
    pub created_by: Option<String>,
    /// The annotations of the layer.
    pub annotations: BTreeMap<String, String>,
}

/// Reads the documents of an image.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) if one of them is not what it should be; those of the source.
///
/// ```
/// use volio::{Memory, SourceSpec, inspect, pack, progress::Silent};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("file"), "text").unwrap();
/// # let image = Memory::default();
/// # pack::pack(&image, &[SourceSpec::new(directory.path())], &pack::Options::default(), &Silent)?;
/// let inspected = inspect::inspect(&image)?;
/// let platforms: Vec<_> = inspected.images.iter().map(|image| image.platform.to_string()).collect();
/// assert_eq!(platforms, ["linux/amd64", "linux/arm64"]);
/// # Ok::<(), volio::Error>(())
/// ```
pub fn inspect(source: &dyn Source) -> Result<Inspected> {
    let root = source.resolve()?;
    let (mut images, mut artifacts, mut configs) = (Vec::new(), Vec::new(), 0u64);
    for (platform, document) in image::manifests(&root, source)? {
        let manifest = Manifest::parse(&document)?;
        if let Some(kind) = manifest.artifact_type() {
            artifacts.push(ArtifactSummary::new(&document, &manifest, &kind));
            continue;
        }
        configs = configs.saturating_add(manifest.config.size);
        if configs > image::DOCUMENTS_LIMIT {
            return Err(root.malformed("its images have too large configurations"));
        }
        let mut config: ImageConfig = transport::fetch(source, &manifest.config)?.parse()?;
        // The index may have the platform that the config leaves out.
        if let Some(platform) = platform.filter(|_| !config.platform.is_complete()) {
            config.platform = platform;
        }
        images.push(ImageSummary::new(&document, &manifest, config));
    }
    let annotations = if media_type::is_index(&root.descriptor().media_type) {
        Index::parse(&root)?.annotations
    } else {
        Manifest::parse(&root)?.annotations
    };
    let Descriptor { digest, media_type, size, .. } = root.descriptor().clone();
    Ok(Inspected { digest, media_type, size, annotations, images, artifacts })
}

impl ArtifactSummary {
    fn new(document: &Document, manifest: &Manifest, kind: &str) -> Self {
        Self {
            digest: document.descriptor().digest.clone(),
            artifact_type: kind.to_owned(),
            subject: document.as_referrer().map(|(subject, _)| subject),
            size: size(manifest),
            annotations: manifest.annotations.clone(),
            config: LayerSummary::new(&manifest.config, None),
            layers: manifest.layers.iter().map(|layer| LayerSummary::new(layer, None)).collect(),
        }
    }
}

impl LayerSummary {
    fn new(blob: &Descriptor, diff_id: Option<Digest>) -> Self {
        Self {
            digest: blob.digest.clone(),
            media_type: blob.media_type.clone(),
            size: blob.size,
            diff_id,
            is_indexed: matches!(Toc::of(blob), Ok(Some(_))),
            created: None,
            created_by: None,
            annotations: blob.annotations.clone(),
        }
    }
}

/// Returns the size of all layers together, in bytes.
fn size(manifest: &Manifest) -> u64 {
    manifest.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add)
}

impl BaseSummary {
    fn of(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let base =
            Self { digest: annotations.get(BASE_DIGEST).cloned(), name: annotations.get(BASE_NAME).cloned() };
        (base.digest.is_some() || base.name.is_some()).then_some(base)
    }
}

/// Returns the entries of the history that have created a layer, if there is one for each layer.
fn history(config: &mut ImageConfig, layers: usize) -> Vec<History> {
    let mut history = std::mem::take(&mut config.history);
    history.retain(|entry| !entry.empty_layer);
    if history.len() == layers { history } else { Vec::new() }
}

impl ImageSummary {
    fn new(document: &Document, manifest: &Manifest, mut config: ImageConfig) -> Self {
        let history = history(&mut config, manifest.layers.len()).into_iter().map(Some);
        let history = history.chain(std::iter::repeat(None));
        let diff_ids = config.rootfs.diff_ids.into_iter().map(Some).chain(std::iter::repeat(None));
        let labels = config.config.as_ref().map(|execution| execution.labels.clone()).unwrap_or_default();
        Self {
            digest: document.descriptor().digest.clone(),
            platform: config.platform,
            created: config.created,
            size: size(manifest),
            labels,
            base: BaseSummary::of(&manifest.annotations),
            annotations: manifest.annotations.clone(),
            execution: config.config,
            layers: manifest
                .layers
                .iter()
                .zip(diff_ids.zip(history))
                .map(|(layer, (diff_id, history))| {
                    let History { created, created_by, .. } = history.unwrap_or_default();
                    LayerSummary { created, created_by, ..LayerSummary::new(layer, diff_id) }
                })
                .collect(),
        }
    }
}
