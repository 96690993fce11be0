//! Storage for the tables of contents of an image, which are fetched, verified, and kept until they have been read.

use crate::error::{Error, Result};
use crate::layer::{Limits, Toc, VerifiedToc};
use crate::oci::Descriptor;
use crate::stream::Unverified;
use crate::transport::Source;
use crate::tree::SpoolDirectory;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// A table of contents up to this size, in bytes, stays in memory.
const SMALL: u64 = 1 << 20;
/// The limit on all tables of contents of an image that stay in memory, in bytes.
const IN_MEMORY: u64 = 8 << 20;
/// The same limit if no file can be made.
const WITHOUT_FILE: u64 = 64 << 20;

/// Keeps tables of contents, compressed: small ones in memory, all others in one unnamed file.
pub struct TocStore {
    place: Option<Arc<SpoolDirectory>>,
    limits: Limits,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    /// The number of bytes in memory.
    in_memory: u64,
    file: Option<Arc<File>>,
    /// The number of bytes of the file that are taken.
    in_file: u64,
}

/// The storage for one table of contents.
enum Slot {
    Memory,
    /// A file, and an offset in it.
    File(Arc<File>, u64),
}

impl TocStore {
    /// Creates an empty store. Its file is made at `place`; without one, everything stays in memory.
    pub fn new(place: Option<Arc<SpoolDirectory>>, limits: Limits) -> Self {
        Self { place, limits, used: Mutex::default() }
    }

    /// Fetches the table of contents of a layer by its range. Returns `None` if the layer has none, or the source serves
    /// only whole blobs.
    ///
    /// # Errors
    /// Those of the source; [`Integrity`](crate::error::Kind::Integrity) if it is not what the descriptor says, or all
    /// of them together exceed the limits.
    pub fn fetch(&self, source: &dyn Source, layer: &Descriptor) -> Result<Option<VerifiedToc>> {
        let Some(toc) = Toc::of(layer)? else { return Ok(None) };
        toc.ensure_within(&self.limits)?;
        let Some(part) = source.open_range(layer, toc.range())? else { return Ok(None) };
        self.store(toc, part).map(Some)
    }

    /// Fetches the table of contents from a source that serves only whole blobs: everything before it is read, too.
    ///
    /// # Errors
    /// Those of [`fetch`](Self::fetch).
    pub fn fetch_from_whole(&self, source: &dyn Source, layer: &Descriptor) -> Result<Option<VerifiedToc>> {
        let Some(toc) = Toc::of(layer)? else { return Ok(None) };
        toc.ensure_within(&self.limits)?;
        let range = toc.range();
        let mut whole = source.open(layer)?.verify(layer);
        io::copy(&mut whole.by_ref().take(range.start), &mut io::sink())
            .map_err(|error| Error::io("cannot read the layer's table of contents", error))?;
        self.store(toc, Unverified::new(whole.take(range.end - range.start))).map(Some)
    }

    fn store(&self, toc: Toc, part: Unverified) -> Result<VerifiedToc> {
        match self.slot(toc.descriptor().size)? {
            Slot::Memory => VerifiedToc::verify(toc, part, &self.limits),
            Slot::File(file, offset) => VerifiedToc::verify_into(file, offset, toc, part, &self.limits),
        }
    }

    /// Reserves storage for this many bytes.
    fn slot(&self, size: u64) -> Result<Slot> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = if self.place.is_some() { IN_MEMORY } else { WITHOUT_FILE };
        let in_memory = used.in_memory.saturating_add(size);
        match &self.place {
            Some(place) if size > SMALL || in_memory > limit => {
                let offset = used.in_file;
                used.in_file = offset.saturating_add(size);
                if used.in_file > self.limits.max_tocs() {
                    return Err(too_large(self.limits.max_tocs()));
                }
                let file = match &used.file {
                    Some(file) => Arc::clone(file),
                    None => {
                        let file = place.file().map_err(|error| {
                            Error::io("cannot make a file for a table of contents", error)
                        })?;
                        Arc::clone(used.file.insert(Arc::new(file)))
                    }
                };
                Ok(Slot::File(file, offset))
            }
            None if in_memory > limit => Err(too_large(limit)),
            _ => {
                used.in_memory = in_memory;
                Ok(Slot::Memory)
            }
        }
    }
}

fn too_large(limit: u64) -> Error {
    Error::integrity(format!("the tables of contents of the image have more than {limit} bytes"))
        .with_hint("an image with some million files may honestly have that; --max-names allows more")
}
