//! Comparison of the documents of a base with those that a pack would make over it.

use crate::error::Result;
use crate::image::{BASE_DIGEST, BASE_NAME, BaseImage, Description, manifests};
use crate::oci::{Document, ImageConfig, Index, Manifest, Platform, media_type};
use crate::transport::{self, Source};
use std::collections::BTreeMap;

/// Returns whether the base is what the description describes: platforms, annotations, labels and execution. The times at
/// which images were created are not compared, nor are the annotations that name a base unless the description has them.
///
/// # Errors
/// Those of reading the documents of the base.
pub fn is_described(
    source: &dyn Source,
    root: &Document,
    description: &Description,
    base: &BaseImage,
) -> Result<bool> {
    let platforms = description.platforms()?;
    let is_index = media_type::is_index(&root.descriptor().media_type);
    if is_index {
        let index = Index::parse(root)?;
        let listed = index.manifests.iter().map(|entry| entry.platform.as_ref());
        if !listed.eq(platforms.iter().map(Some)) || !has_annotations(&index.annotations, description) {
            return Ok(false);
        }
    }
    if is_index != (platforms.len() > 1) {
        return Ok(false);
    }
    let images = manifests(root, source)?;
    for ((_, manifest), platform) in images.iter().zip(&platforms) {
        if !is_image(source, manifest, platform, description, base)? {
            return Ok(false);
        }
    }
    Ok(images.len() == platforms.len())
}

fn is_image(
    source: &dyn Source,
    document: &Document,
    platform: &Platform,
    description: &Description,
    base: &BaseImage,
) -> Result<bool> {
    let manifest = Manifest::parse(document)?;
    let own = Manifest::new(manifest.config.clone(), base.oci_layers(), manifest.annotations.clone());
    if manifest != own
        || document.descriptor().media_type != media_type::MANIFEST
        || manifest.config.media_type != media_type::CONFIG
        || !has_annotations(&manifest.annotations, description)
    {
        return Ok(false);
    }
    let config: ImageConfig = transport::fetch(source, &manifest.config)?.parse()?;
    Ok(config.platform == *platform
        && config.config == Some(description.container_config())
        && config.rootfs.diff_ids == base.diff_ids)
}

fn has_annotations(annotations: &BTreeMap<String, String>, description: &Description) -> bool {
    let wanted = &description.annotations;
    let names_base = |key: &str| [BASE_DIGEST, BASE_NAME].contains(&key) && !wanted.contains_key(key);
    annotations.iter().filter(|(key, _)| !names_base(key)).eq(wanted)
}
