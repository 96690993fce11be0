//! Copies an image from one location to another, byte for byte. Blobs that the destination has are not sent again.
//!
//! By default the whole image is copied. [`Options`] select some of its platforms ([`platforms`]), leave out the layers of
//! other images ([`since`]), or add referrers such as signatures ([`referrers`]). [`copy_tags`] copies several tags.
//!
//! If the destination cannot store the image, it is converted, with a warning: one platform is selected, and its layers are
//! decompressed ([`plain`]).

mod blobs;
mod plain;
mod platforms;
mod referrers;
mod since;
mod tags;

use self::blobs::BlobToCopy;
pub use since::Base;
pub use tags::{TagCopied, copy_tags};

use crate::error::{Error, Result, Side};
use crate::image::DEPTH_LIMIT;
use crate::oci::{Descriptor, Digest, Document, Index, Manifest, Platform, media_type};
use crate::progress::Progress;
use crate::transport::{self, ClientOptions, Destination, ImageSupport, Source};
use std::collections::HashSet;

/// Options of a copy.
#[derive(Clone, Debug)]
pub struct Options {
    /// The platforms to copy; all platforms if it is empty.
    pub platforms: Vec<Platform>,
    /// Copy the referrers of the image too, and their referrers.
    pub referrers: bool,
    /// Leave out the layers of these images, which the final destination of the copy has already.
    pub since: Vec<Base>,
    /// The number of blobs that are copied at the same time.
    pub concurrency: usize,
}

impl Default for Options {
    fn default() -> Self {
        let concurrency = ClientOptions::default().concurrency;
        Self { platforms: Vec::new(), referrers: false, since: Vec::new(), concurrency }
    }
}

/// The result of a copy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Copied {
    /// The location of the copy, with its digest: `repo@sha256:…`.
    pub address: String,
    /// The digest of the index or the manifest.
    pub digest: Digest,
    /// The digest at the source, if it differs because only some platforms were copied.
    pub source_digest: Option<Digest>,
    /// The number of blobs that were transferred.
    pub blobs_copied: u64,
    /// The number of blobs that the destination had.
    pub blobs_present: u64,
    /// The number of blobs that were mounted from another repository.
    pub blobs_mounted: u64,
    /// The number of blobs that were left out.
    pub blobs_omitted: u64,
    /// The number of foreign layers that the source does not have and that were left out.
    pub blobs_foreign: u64,
    /// The number of bytes that were transferred.
    pub bytes_copied: u64,
    /// The number of referrers and attachments that were copied.
    pub referrers: u64,
}

/// Copies the image, and gives it its name at the destination.
///
/// # Errors
/// Those of the source and the destination, with the side that failed. The name means the same image as before then.
///
/// ```
/// use volio::{Memory, SourceSpec, copy, pack, progress::Silent};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("file"), "text").unwrap();
/// # let image = Memory::default();
/// # pack::pack(&image, &[SourceSpec::new(directory.path())], &pack::Options::default(), &Silent)?;
/// let mirror = Memory::default();
/// let copied = copy::copy(&image, &mirror, &copy::Options::default(), &Silent)?;
/// assert_eq!(copied.blobs_present, 0);
/// # Ok::<(), volio::Error>(())
/// ```
pub fn copy(
    from: &dyn Source,
    to: &dyn Destination,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Copied> {
    copy_image(from, to, options, progress, &mut Known::default())
}

/// The state that the copies of several tags share.
#[derive(Default)]
struct Known {
    /// The blobs and documents that the destination is known to have. Platforms and tags share layers.
    present: HashSet<Digest>,
    /// The documents whose referrers and attachments were copied.
    followed: HashSet<Digest>,
}

/// Copies the image.
fn copy_image(
    from: &dyn Source,
    to: &dyn Destination,
    options: &Options,
    progress: &dyn Progress,
    known: &mut Known,
) -> Result<Copied> {
    let whole = from.resolve().map_err(|error| error.on(Side::Source))?;
    if to.image_support() == ImageSupport::PlainOnly {
        return plain::copy(&whole, from, to, options, progress);
    }
    let root = platforms::choose(&whole, &options.platforms, from).map_err(|error| error.on(Side::Source))?;
    let report = Copied::new(to, &root, &whole);
    let mut copy = Copy { from, to, options, progress, known, documents: Vec::new(), report };
    copy.copy_document(&root, 0)?;
    if options.referrers {
        copy.copy_referrers()?;
    }
    let report = copy.report;
    let root = if report.blobs_omitted > 0 { since::mark(root, &options.since) } else { root };
    to.commit(&root).map_err(|error| error.on(Side::Destination))?;
    Ok(report)
}

/// A copy in progress.
struct Copy<'a> {
    from: &'a dyn Source,
    to: &'a dyn Destination,
    options: &'a Options,
    progress: &'a dyn Progress,
    known: &'a mut Known,
    /// The manifests and indexes of this image.
    documents: Vec<Digest>,
    report: Copied,
}

impl Copy<'_> {
    /// Copies a manifest or an index, after everything that it refers to.
    fn copy_document(&mut self, document: &Document, depth: usize) -> Result<()> {
        let Descriptor { digest, media_type, .. } = document.descriptor();
        if media_type::is_index(media_type) {
            if depth == DEPTH_LIMIT {
                let why = format!("indexes are nested more than {DEPTH_LIMIT} deep");
                return Err(document.malformed(&why).on(Side::Source));
            }
            for entry in Index::parse(document).map_err(|error| error.on(Side::Source))?.manifests {
                self.copy_entry(&entry, depth + 1)?;
            }
        } else if media_type::is_manifest(media_type) {
            let manifest = Manifest::parse(document).map_err(|error| error.on(Side::Source))?;
            let is_in_base =
                |layer: &Descriptor| self.options.since.iter().any(|base| base.has(&layer.digest));
            let layers = manifest
                .layers
                .iter()
                .map(|layer| BlobToCopy { descriptor: layer, is_in_base: is_in_base(layer) });
            // The config is always copied, so that a copy without its layers can be inspected.
            let config = BlobToCopy { descriptor: &manifest.config, is_in_base: false };
            let blobs: Vec<_> = layers.chain([config]).collect();
            self.copy_blobs(blobs)?;
        } else {
            // Without the blobs that it may refer to, the copy would be incomplete.
            let why = format!("{digest} is a {media_type}, which is not an image that volio knows");
            return Err(Error::failed(why).on(Side::Source));
        }
        self.to.put_manifest(document).map_err(|error| error.on(Side::Destination))?;
        self.known.present.insert(digest.clone());
        self.documents.push(digest.clone());
        Ok(())
    }

    /// Copies an entry of an index.
    fn copy_entry(&mut self, entry: &Descriptor, depth: usize) -> Result<()> {
        if !media_type::is_document(&entry.media_type) {
            return self.copy_blobs([BlobToCopy { descriptor: entry, is_in_base: false }]);
        }
        if self.known.present.contains(&entry.digest) {
            self.documents.push(entry.digest.clone());
            return Ok(());
        }
        let document = transport::fetch(self.from, entry).map_err(|error| error.on(Side::Source))?;
        self.copy_document(&document, depth)
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
