//! An image from one place to another: no byte is changed, and what is there already is not sent again.

use crate::error::{Result, Side};
use crate::image;
use crate::oci::{Descriptor, Digest, Document, Index, Manifest, media_type};
use crate::progress::Progress;
use crate::transport::{self, Destination, Source};
use serde::Serialize;
use std::collections::HashSet;

/// What was copied.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Copied {
    /// Where the image is now, by its digest: `repo@sha256:…`.
    pub address: String,
    /// The digest of the index or the manifest.
    pub digest: Digest,
    /// How many blobs were sent.
    pub blobs_copied: u64,
    /// How many blobs were there already.
    pub blobs_present: u64,
    /// How many blobs the destination took over from a neighbour.
    pub blobs_mounted: u64,
    /// How many bytes were sent.
    pub bytes_copied: u64,
}

/// Copies the image with all its platforms, and gives it its name at the destination.
///
/// # Errors
/// Those of both places, with the side that failed; the name then means what it meant before.
pub fn copy(from: &dyn Source, to: &dyn Destination, progress: &dyn Progress) -> Result<Copied> {
    let root = from.resolve().map_err(|error| error.on(Side::Source))?;
    let digest = root.descriptor().digest.clone();
    let mut copy =
        Copy { from, to, progress, seen: HashSet::new(), done: Copied::new(to.address(&digest), digest) };
    copy.document(&root, 0)?;
    to.commit(&root).map_err(|error| error.on(Side::Destination))?;
    Ok(copy.done)
}

struct Copy<'a> {
    from: &'a dyn Source,
    to: &'a dyn Destination,
    progress: &'a dyn Progress,
    /// Platforms share their layers: each blob is looked at once.
    seen: HashSet<Digest>,
    done: Copied,
}

impl Copy<'_> {
    /// Copies a manifest or an index, with all that it refers to before itself.
    fn document(&mut self, document: &Document, depth: usize) -> Result<()> {
        let kind = document.descriptor().media_type.as_str();
        if media_type::is_index(kind) {
            if depth == image::DEPTH_LIMIT {
                return Err(document.malformed("indexes are nested too deep").on(Side::Source));
            }
            for entry in Index::parse(document).map_err(|error| error.on(Side::Source))?.manifests {
                self.child(&entry, depth + 1)?;
            }
        } else if media_type::is_manifest(kind) {
            let manifest = Manifest::parse(document).map_err(|error| error.on(Side::Source))?;
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                self.blob(blob)?;
            }
        }
        self.to.put_manifest(document).map_err(|error| error.on(Side::Destination))
    }

    fn child(&mut self, entry: &Descriptor, depth: usize) -> Result<()> {
        match self.seen.insert(entry.digest.clone()) {
            true if media_type::is_document(&entry.media_type) => {
                let document = transport::fetch(self.from, entry).map_err(|error| error.on(Side::Source))?;
                self.document(&document, depth)
            }
            true => self.blob(entry),
            false => Ok(()),
        }
    }

    fn blob(&mut self, blob: &Descriptor) -> Result<()> {
        if !self.seen.insert(blob.digest.clone()) {
            return Ok(());
        }
        let task = self.progress.begin(&format!("copying {}", blob.digest.short()), Some(blob.size));
        if self.to.contains(blob).map_err(|error| error.on(Side::Destination))? {
            task.skip();
            self.done.blobs_present += 1;
            return Ok(());
        }
        if let Some(origin) = self.from.origin()
            && self.to.mount(blob, &origin).map_err(|error| error.on(Side::Destination))?
        {
            task.skip();
            self.done.blobs_mounted += 1;
            return Ok(());
        }
        let body = self.from.open(blob).map_err(|error| error.on(Side::Source))?.verify(blob);
        self.to
            .upload(body.observed(move |bytes| task.advance(bytes)))
            .map_err(|error| error.on(Side::Destination))?;
        self.done.blobs_copied += 1;
        self.done.bytes_copied += blob.size;
        Ok(())
    }
}

impl Copied {
    fn new(address: String, digest: Digest) -> Self {
        Self { address, digest, blobs_copied: 0, blobs_present: 0, blobs_mounted: 0, bytes_copied: 0 }
    }
}
