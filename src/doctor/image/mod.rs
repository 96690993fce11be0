//! The checks of an image.

mod contents;
mod documents;
mod engines;
mod layers;
mod platforms;
mod public;
mod signatures;

use super::engine::Engine;
use super::finding::{Diagnosis, Finding, Severity};
use crate::error::Result;
use crate::image;
use crate::layer::Limits;
use crate::oci::{Document, ImageConfig, Manifest, Platform, media_type};
use crate::progress::Progress;
use crate::transport::{self, Access, Location, Source};
use std::path::PathBuf;

/// The options of [`diagnose_image`].
#[derive(Clone, Debug, Default)]
pub struct ImageOptions {
    /// The engines that will use the image. Without any, the findings say which versions can.
    pub engines: Vec<Engine>,
    /// Read all layers, also those without a table of contents.
    pub deep: bool,
    /// The directory for unnamed files with large tables of contents; without one they stay in memory.
    pub temporary: Option<PathBuf>,
    /// The limits on what the image may make the program remember.
    pub limits: Limits,
}

/// The documents of an image.
struct Documents {
    root: Document,
    images: Vec<PlatformImage>,
    /// The types of the artifacts beside images.
    artifacts: Vec<String>,
}

/// The image for one platform.
struct PlatformImage {
    document: Document,
    manifest: Manifest,
    config: ImageConfig,
    /// The platform, of the config or of the index.
    platform: Platform,
}

impl Documents {
    fn is_index(&self) -> bool {
        media_type::is_index(&self.root.descriptor().media_type)
    }

    /// Reads all documents, and the configs of images.
    fn read(root: Document, source: &dyn Source) -> Result<Self> {
        let (mut images, mut artifacts, mut configs) = (Vec::new(), Vec::new(), 0_u64);
        for (named, document) in image::manifests(&root, source)? {
            let manifest = Manifest::parse(&document)?;
            if let Some(kind) = manifest.artifact_type() {
                artifacts.push(kind);
                continue;
            }
            configs = configs.saturating_add(manifest.config.size);
            if configs > image::DOCUMENTS_LIMIT {
                return Err(root.malformed("its images have too large configurations"));
            }
            let config: ImageConfig = transport::fetch(source, &manifest.config)?.parse()?;
            let platform = match named {
                Some(named) if !config.platform.is_complete() => named,
                _ => config.platform.clone(),
            };
            images.push(PlatformImage { document, manifest, config, platform });
        }
        Ok(Self { root, images, artifacts })
    }
}

/// Diagnoses an image: whether engines can pull and mount it. Only its documents, its tables of contents and one byte of each
/// layer are read; [`verify`](crate::verify::verify()) reads the content.
///
/// # Errors
/// When the location cannot be opened. An image that cannot be read is a finding.
pub fn diagnose_image(
    location: &Location,
    access: &Access,
    options: &ImageOptions,
    progress: &dyn Progress,
) -> Result<Diagnosis> {
    let source = location.source(access)?;
    let mut subject = location.to_string();
    let unreadable = |check, error| {
        let finding = Finding::failure(check, location.without_name(), &error);
        match location {
            Location::Registry(reference) if finding.advice.is_none() => {
                finding.advise(format!("volio doctor {} examines the registry", reference.name()))
            }
            _ => finding,
        }
    };
    let root = match source.resolve() {
        Ok(root) => root,
        Err(error) => return Ok(Diagnosis { subject, findings: vec![unreadable("find", error)] }),
    };
    subject = format!("{}@{}", location.without_name(), root.descriptor().digest);
    let documents = match Documents::read(root, source.as_ref()) {
        Ok(documents) => documents,
        Err(error) => return Ok(Diagnosis { subject, findings: vec![unreadable("documents", error)] }),
    };
    let mut findings = documents::check(&documents);
    if !documents.images.is_empty() {
        findings.extend(platforms::check(&documents));
        findings.extend(engines::check(&documents, &options.engines));
        findings.extend(layers::check(&documents, location));
        findings.extend(contents::check(&documents, source.as_ref(), options, progress));
    }
    findings.extend(signatures::check(&documents, source.as_ref()));
    findings.extend(public::check(location, access));
    Ok(Diagnosis { subject, findings })
}

/// The number of layers of one image that are looked at one by one. Each may take two requests.
const LAYERS_LIMIT: usize = 1000;
/// The number of characters of a platform that are shown. An image could name a very long one.
const PLATFORM_LIMIT: usize = 60;

impl PlatformImage {
    /// Returns the platform as text for findings.
    fn name(&self) -> String {
        self.platform.to_string().chars().take(PLATFORM_LIMIT).collect()
    }
}

/// Returns the place of a layer for findings.
fn layer_place(number: usize, image: &PlatformImage) -> String {
    format!("layer {} of {}", number + 1, image.name())
}
