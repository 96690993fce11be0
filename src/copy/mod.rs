//! An image from one place to another: no byte is changed, and what is there already is not sent again.
//!
//! The whole image goes unless less is asked for ([`Options`]): some of its platforms ([`platforms`]), or only what
//! another place lacks ([`since`]). More goes on request too: what refers to it ([`referrers`]), and all other tags
//! ([`copy_tags`]).
//!
//! Where the destination cannot hold the image as it is, the nearest image that it can hold is made of it, aloud
//! ([`plain`]).

mod blobs;
mod plain;
mod platforms;
mod referrers;
mod since;
mod tags;

pub use since::Base;
pub use tags::{TagCopied, copy_tags};

use crate::error::{Error, Result, Side};
use crate::image::DEPTH_LIMIT;
use crate::oci::{Descriptor, Digest, Document, Index, Manifest, Platform, media_type};
use crate::progress::Progress;
use crate::transport::{self, ClientOptions, Destination, ImageSupport, Source};
use std::collections::HashSet;

/// What may be chosen when an image is copied.
#[derive(Clone, Debug)]
pub struct Options {
    /// Copy only the images for these platforms; otherwise all that there are.
    pub platforms: Vec<Platform>,
    /// Copy what refers to the image too, and what refers to that.
    pub referrers: bool,
    /// Leave out layers that these images have: wherever the copy goes from there, they are there already.
    pub since: Vec<Base>,
    /// How many blobs travel side by side.
    pub concurrency: usize,
}

impl Default for Options {
    fn default() -> Self {
        let concurrency = ClientOptions::default().concurrency;
        Self { platforms: Vec::new(), referrers: false, since: Vec::new(), concurrency }
    }
}

/// What was copied.
#[derive(Clone, Debug)]
pub struct Copied {
    /// Where the image is now, by its digest: `repo@sha256:…`.
    pub address: String,
    /// The digest of the index or the manifest.
    pub digest: Digest,
    /// The digest at the source, where only some platforms were copied and it is another.
    pub source_digest: Option<Digest>,
    /// How many blobs were sent.
    pub blobs_copied: u64,
    /// How many blobs were there already.
    pub blobs_present: u64,
    /// How many blobs the destination took over from a neighbour.
    pub blobs_mounted: u64,
    /// How many blobs were left out.
    pub blobs_omitted: u64,
    /// How many foreign layers were left where they are, outside of the source.
    pub blobs_foreign: u64,
    /// How many bytes were sent.
    pub bytes_copied: u64,
    /// How many manifests that refer to the image, or are attached to it, were copied with it.
    pub referrers: u64,
}

/// Copies the image, and gives it its name at the destination.
///
/// # Errors
/// Those of both places, with the side that failed; the name then means what it meant before.
pub fn copy(
    from: &dyn Source,
    to: &dyn Destination,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Copied> {
    copy_one(from, to, options, progress, &mut HashSet::new())
}

/// The same; `seen` holds what the destination is known to have.
fn copy_one(
    from: &dyn Source,
    to: &dyn Destination,
    options: &Options,
    progress: &dyn Progress,
    seen: &mut HashSet<Digest>,
) -> Result<Copied> {
    let whole = from.resolve().map_err(|error| error.on(Side::Source))?;
    if to.image_support() == ImageSupport::PlainOnly {
        return plain::copy(&whole, from, to, options, progress);
    }
    let root = platforms::choose(&whole, &options.platforms, |entry| transport::fetch(from, entry))
        .map_err(|error| error.on(Side::Source))?;
    let done = Copied::new(to, &root, &whole);
    let mut copy = Copy { from, to, options, progress, seen, documents: Vec::new(), done };
    copy.document(&root, 0)?;
    if options.referrers {
        copy.referrers()?;
    }
    let done = copy.done;
    let root = if done.blobs_omitted > 0 { since::mark(root, &options.since) } else { root };
    to.commit(&root).map_err(|error| error.on(Side::Destination))?;
    Ok(done)
}

struct Copy<'a> {
    from: &'a dyn Source,
    to: &'a dyn Destination,
    options: &'a Options,
    progress: &'a dyn Progress,
    /// What need not be looked at again: platforms and tags share their layers.
    seen: &'a mut HashSet<Digest>,
    /// The manifests and indexes of this image.
    documents: Vec<Digest>,
    done: Copied,
}

impl Copy<'_> {
    /// Copies a manifest or an index, with all that it refers to before itself.
    fn document(&mut self, document: &Document, depth: usize) -> Result<()> {
        let Descriptor { digest, media_type, .. } = document.descriptor();
        if media_type::is_index(media_type) {
            if depth == DEPTH_LIMIT {
                let why = format!("indexes are nested more than {DEPTH_LIMIT} deep");
                return Err(document.malformed(&why).on(Side::Source));
            }
            for entry in Index::parse(document).map_err(|error| error.on(Side::Source))?.manifests {
                self.child(&entry, depth + 1)?;
            }
        } else if media_type::is_manifest(media_type) {
            let manifest = Manifest::parse(document).map_err(|error| error.on(Side::Source))?;
            let is_elsewhere =
                |layer: &Descriptor| self.options.since.iter().any(|base| base.has(&layer.digest));
            let layers = manifest.layers.iter().map(|layer| (layer, is_elsewhere(layer)));
            // The configuration always, so that a copy without its layers can still be inspected.
            let blobs: Vec<_> = layers.chain([(&manifest.config, false)]).collect();
            self.blobs(blobs)?;
        } else {
            // Copied alone, without what belongs to it, it would look whole.
            let why = format!("{digest} is a {media_type}, which is no image that volio knows");
            return Err(Error::failed(why).on(Side::Source));
        }
        self.to.put_manifest(document).map_err(|error| error.on(Side::Destination))?;
        self.seen.insert(digest.clone());
        self.documents.push(digest.clone());
        Ok(())
    }

    fn child(&mut self, entry: &Descriptor, depth: usize) -> Result<()> {
        if !media_type::is_document(&entry.media_type) {
            return self.blobs([(entry, false)]);
        }
        if self.seen.contains(&entry.digest) {
            self.documents.push(entry.digest.clone());
            return Ok(());
        }
        let document = transport::fetch(self.from, entry).map_err(|error| error.on(Side::Source))?;
        self.document(&document, depth)
    }
}

impl Copied {
    fn new(to: &dyn Destination, root: &Document, whole: &Document) -> Self {
        let (digest, source) = (root.descriptor().digest.clone(), whole.descriptor().digest.clone());
        Self {
            address: to.address(&digest),
            source_digest: (source != digest).then_some(source),
            digest,
            blobs_copied: 0,
            blobs_present: 0,
            blobs_mounted: 0,
            blobs_omitted: 0,
            blobs_foreign: 0,
            bytes_copied: 0,
            referrers: 0,
        }
    }
}
