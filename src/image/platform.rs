//! Which of the images under one name is the one for this machine.

use crate::error::{Error, Result};
use crate::oci::{Config, Descriptor, Document, Index, Manifest, Platform, media_type};

/// How deep indexes may be nested: one in another occurs, more than a few is an attack.
pub const DEPTH_LIMIT: usize = 4;

/// The image that was chosen.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The manifest, as it is stored.
    pub document: Document,
    /// The manifest.
    pub manifest: Manifest,
    /// The configuration.
    pub config: Config,
}

/// Chooses the image for a platform from the index or the manifest that a name stands for.
///
/// Without a wish it is the host's platform; an index that offers only one image offers it to everyone, for data
/// has no architecture. `fetch` gets the documents below the root.
///
/// # Errors
/// [`NotFound`](crate::error::Kind::NotFound) when there is no image for the platform, naming those that there are.
pub fn select(
    root: &Document,
    wanted: Option<&Platform>,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
) -> Result<Selected> {
    let offers = images(root, &fetch)?;
    let fits = |offer: &&(Option<Platform>, Document)| match &offer.0 {
        Some(offered) => wanted.unwrap_or(&Platform::host()).accepts(offered),
        None => true,
    };
    let document = match (offers.iter().find(fits), offers.as_slice(), wanted) {
        (Some((_, document)), ..) | (None, [(_, document)], None) => document.clone(),
        _ => return Err(no_match(wanted, &offers)),
    };
    let manifest = Manifest::parse(&document)?;
    let config: Config = fetch(&manifest.config)?.parse()?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(document.malformed(&format!(
            "it has {} layers and its configuration {} diff_ids",
            manifest.layers.len(),
            config.rootfs.diff_ids.len()
        )));
    }
    Ok(Selected { document, manifest, config })
}

/// All images under a root, with their platforms where an index names them. Attestations, which buildkit lists as
/// images for the platform `unknown/unknown`, are none.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when a document is not what it says.
pub fn images(
    root: &Document,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
) -> Result<Vec<(Option<Platform>, Document)>> {
    let mut images = Vec::new();
    let mut open = vec![(0, None, root.clone())];
    while let Some((depth, platform, document)) = open.pop() {
        match document.descriptor().media_type.as_str() {
            kind if media_type::is_manifest(kind) => images.push((platform, document)),
            kind if media_type::is_index(kind) && depth < DEPTH_LIMIT => {
                // Pushed in reverse, so that they are popped in the order in which they stand there.
                for entry in Index::parse(&document)?.manifests.iter().rev().filter(|entry| is_image(entry)) {
                    open.push((depth + 1, entry.platform.clone(), fetch(entry)?));
                }
            }
            kind if media_type::is_index(kind) => {
                return Err(document.malformed(&format!("indexes are nested more than {DEPTH_LIMIT} deep")));
            }
            other => {
                return Err(Error::failed(format!(
                    "{} is no image: its media type is {other:?}",
                    document.descriptor().digest
                )));
            }
        }
    }
    Ok(images)
}

fn is_image(entry: &Descriptor) -> bool {
    media_type::is_document(&entry.media_type)
        && entry.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
}

fn no_match(wanted: Option<&Platform>, offers: &[(Option<Platform>, Document)]) -> Error {
    let wanted = wanted.cloned().unwrap_or_else(Platform::host);
    let names: Vec<String> =
        offers.iter().filter_map(|(platform, _)| Some(platform.as_ref()?.to_string())).collect();
    Error::not_found(format!("there is no image for {wanted} under this name")).hint(match names.as_slice() {
        [] => "it holds no image at all".to_owned(),
        names => format!("choose one with --platform: {}", names.join(", ")),
    })
}
