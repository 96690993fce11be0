//! Selects the image for a platform among those under one name.

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::oci::{
    ARTIFACT_TYPE, Descriptor, Document, Fit, ImageConfig, Index, Manifest, Platform, media_type,
};
use crate::transport::{self, Source};
use serde_json::Value;

/// The limit on the depth of nested indexes. One in another occurs; more than a few are an attack.
pub const DEPTH_LIMIT: usize = 4;
/// The limit on manifests and indexes under one name. A dozen is usual. Without a limit, an index that lists the same
/// document a thousand times would fill the memory.
const DOCUMENT_COUNT_LIMIT: usize = 128;
/// The limit on the documents that are read of one image, in bytes. Their parsed forms take up to twenty times as much
/// memory.
pub const DOCUMENTS_LIMIT: u64 = 16 << 20;

/// The selected image.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The manifest, with its bytes as stored.
    pub document: Document,
    /// The manifest.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
}

/// An image in an index, or the one that a name stands for: its platform, if the index names one, and the descriptor of
/// its manifest.
pub type Offer = (Option<Platform>, Descriptor);

/// The fitness of an offer for a platform, as far as the index says it. The least is the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The index names the platform.
    Named(Fit),
    /// The index does not name a platform. The config may.
    Unnamed,
}

/// Returns the offers that may serve a platform, the best first. Equal ones are in the order of the index.
pub fn ranked<'a>(offers: &'a [Offer], platform: &Platform) -> Vec<(Rank, &'a Offer)> {
    let rank = |offer: &'a Offer| match &offer.0 {
        Some(offered) => Some((Rank::Named(platform.fit(offered)?), offer)),
        None => Some((Rank::Unnamed, offer)),
    };
    let mut ranked: Vec<_> = offers.iter().filter_map(rank).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked
}

/// Selects the image for a platform from the index or the manifest that a name stands for: one for exactly this platform
/// before one for a variant of it, and that before one for which the index names no platform. Artifacts and attestations
/// beside images are skipped.
///
/// Without a requested platform, it is the host's; a single image is then selected for any platform, because data has no
/// architecture. Only the documents that lead to the selected image are fetched: mirrors often omit the images for other
/// platforms.
///
/// # Errors
/// [`NotFound`](crate::error::Kind::NotFound) if there is no image for the platform, with a list of those that there are;
/// [`Usage`](crate::error::Kind::Usage) if the name stands for an artifact.
pub fn select(root: &Document, wanted: Option<&Platform>, source: &dyn Source) -> Result<Selected> {
    let offers = offers(root, source)?;
    let platform = wanted.cloned().unwrap_or_else(Platform::host);
    let candidates = match offers.as_slice() {
        [only] if wanted.is_none() => vec![(Rank::Unnamed, only)],
        offers => ranked(offers, &platform),
    };
    let (mut artifact, mut passed_over) = (None, Vec::new());
    for (rank, (chosen, descriptor)) in candidates {
        let left_out = |error| left_out(error, chosen.as_ref(), &offers);
        let document = document(root, descriptor, source).map_err(left_out)?;
        let manifest = Manifest::parse(&document)?;
        if let Some(kind) = manifest.artifact_type() {
            artifact.get_or_insert_with(|| not_an_image(&document, &kind));
            continue;
        }
        let config: ImageConfig = transport::fetch(source, &manifest.config).map_err(left_out)?.parse()?;
        let is_named = rank != Rank::Unnamed;
        // The config decides if it has a platform, and the index otherwise.
        let fits = if config.platform.is_complete() {
            platform.accepts(&config.platform) || (wanted.is_none() && (is_named || offers.len() == 1))
        } else {
            is_named || wanted.is_none()
        };
        if fits {
            return whole(Selected { document, manifest, config });
        }
        passed_over.push((Some(config.platform), descriptor.clone()));
    }
    passed_over.extend(offers.into_iter().filter(|(offered, _)| offered.is_some()));
    match artifact {
        Some(artifact) if passed_over.is_empty() => Err(artifact),
        _ => Err(no_match(wanted, &passed_over)),
    }
}

/// Returns the image if its config has a diff_id for each layer.
fn whole(image: Selected) -> Result<Selected> {
    let (layers, diff_ids) = (image.manifest.layers.len(), image.config.rootfs.diff_ids.len());
    if layers == diff_ids {
        return Ok(image);
    }
    let why = format!("it has {layers} layers and its configuration {diff_ids} diff_ids");
    Err(image.document.malformed(&why))
}

/// Returns the error for an artifact where an image is needed.
fn not_an_image(document: &Document, kind: &str) -> Error {
    let digest = &document.descriptor().digest;
    Error::usage(format!("{digest} is an artifact of type {kind} and not an image"))
        .with_hint("volio inspect shows what it holds; volio unpack --artifact writes its files")
}

/// Returns the manifests of all images and artifacts under a root, with their platforms if an index names them.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) if a document is not what it should be.
pub fn manifests(root: &Document, source: &dyn Source) -> Result<Vec<(Option<Platform>, Document)>> {
    let listed = listed(root, source, |entry| !is_attestation(entry))?;
    let bytes = listed.iter().map(|(_, descriptor)| descriptor.size).fold(0, u64::saturating_add);
    if bytes > DOCUMENTS_LIMIT {
        return Err(root.malformed(&format!("it lists more than {DOCUMENTS_LIMIT} bytes of manifests")));
    }
    let listed = listed.into_iter();
    listed.map(|(platform, descriptor)| Ok((platform, document(root, &descriptor, source)?))).collect()
}

/// Returns the descriptors of all images under a root. Only indexes are fetched. Attestations, and entries that the index
/// calls artifacts, are omitted.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) if an index is not what it should be, or lists too much.
pub fn offers(root: &Document, source: &dyn Source) -> Result<Vec<Offer>> {
    listed(root, source, |entry| !is_attestation(entry) && !is_artifact(entry))
}

/// Returns the descriptors of all manifests under a root, except for unwanted entries of indexes.
fn listed(
    root: &Document,
    source: &dyn Source,
    is_wanted: impl Fn(&Descriptor) -> bool,
) -> Result<Vec<Offer>> {
    let mut offers = Vec::new();
    let mut open = vec![(0, None, root.descriptor().clone())];
    for _ in 0..=DOCUMENT_COUNT_LIMIT {
        let Some((depth, platform, descriptor)) = open.pop() else { return Ok(offers) };
        match descriptor.media_type.as_str() {
            kind if media_type::is_manifest(kind) => offers.push((platform, descriptor)),
            kind if media_type::is_index(kind) && depth < DEPTH_LIMIT => {
                let index = Index::parse(&document(root, &descriptor, source)?)?;
                let entries = index
                    .manifests
                    .into_iter()
                    .filter(|entry| media_type::is_document(&entry.media_type) && is_wanted(entry));
                // Pushed in reverse, so that they are popped in the order of the index.
                open.extend(
                    entries.rev().map(|entry| {
                        (depth + 1, entry.platform.clone().filter(Platform::is_complete), entry)
                    }),
                );
            }
            kind if media_type::is_index(kind) => {
                return Err(root.malformed(&format!("indexes are nested more than {DEPTH_LIMIT} deep")));
            }
            other => {
                let digest = &descriptor.digest;
                return Err(Error::failed(format!("{digest} is not an image: its media type is {other:?}")));
            }
        }
    }
    Err(root.malformed(&format!("it lists more than {DOCUMENT_COUNT_LIMIT} manifests")))
}

/// Returns the document of a descriptor. All but the root are fetched.
fn document(root: &Document, descriptor: &Descriptor, source: &dyn Source) -> Result<Document> {
    if descriptor == root.descriptor() { Ok(root.clone()) } else { transport::fetch(source, descriptor) }
}

/// Returns `true` for an attestation of buildkit, which it lists as an image for the platform `unknown/unknown`.
fn is_attestation(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
}

/// Returns `true` if the index says that an entry is an artifact: images that refer to another one have the type of
/// their configuration there.
fn is_artifact(entry: &Descriptor) -> bool {
    let kind = entry.extra.get(ARTIFACT_TYPE);
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or_default();
    !kind.is_empty() && !media_type::is_config(kind)
}

fn no_match(wanted: Option<&Platform>, offers: &[Offer]) -> Error {
    let wanted = wanted.cloned().unwrap_or_else(Platform::host);
    let mut names: Vec<String> =
        offers.iter().filter_map(|(platform, _)| Some(platform.as_ref()?.to_string())).collect();
    names.dedup();
    Error::not_found(format!("there is no image for {wanted} under this name")).with_hint(
        match names.as_slice() {
            [] => "it holds no image at all".to_owned(),
            names => format!("choose one with --platform: {}", names.join(", ")),
        },
    )
}

/// Returns the error for an image that an index lists and the source does not have: `docker save` and mirrors omit what
/// they do not have.
fn left_out(error: Error, chosen: Option<&Platform>, offers: &[(Option<Platform>, Descriptor)]) -> Error {
    let Some(chosen) = chosen.filter(|_| error.kind() == ErrorKind::NotFound) else { return error };
    let others = offers.iter().filter_map(|(platform, _)| platform.as_ref()).filter(|other| *other != chosen);
    let others: Vec<String> = others.map(Platform::to_string).collect();
    if others.is_empty() {
        return error;
    }
    error.with_hint(format!(
        "the image for {chosen} is listed here and was left out when it was saved or copied; choose another one with \
         --platform: {}",
        others.join(", ")
    ))
}

#[cfg(test)]
mod tests;
