//! Tables of contents of the layers of an image, fetched and held until they were read.

use crate::error::{Error, Result};
use crate::layer::{Limits, Toc, VerifiedToc};
use crate::oci::Descriptor;
use crate::stream::Unverified;
use crate::transport::Source;
use crate::tree::SpoolDirectory;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

/// A table of contents of so many bytes is not worth a file.
const SMALL: u64 = 1 << 20;
/// The most that is held in memory of all small ones of an image, in bytes.
const IN_MEMORY: u64 = 8 << 20;
/// The same where there is no place for a file.
const WITHOUT_FILE: u64 = 64 << 20;

/// Holds tables of contents: small ones in memory, all others in one file without a name.
pub struct Listings<'a> {
    place: Option<&'a SpoolDirectory>,
    limits: &'a Limits,
    held: Mutex<Holding>,
}

#[derive(Default)]
struct Holding {
    /// How many bytes are in memory.
    in_memory: u64,
    /// The file, and how many bytes of it are taken.
    file: Option<Arc<File>>,
    filed: u64,
}

/// Where the next one is held.
enum Room {
    Memory,
    File(Arc<File>, u64),
}

impl<'a> Listings<'a> {
    /// Holds nothing yet. Files are made at `place`, where there is one.
    pub fn new(place: Option<&'a SpoolDirectory>, limits: &'a Limits) -> Self {
        Self { place, limits, held: Mutex::default() }
    }

    /// Fetches the table of contents of a layer, and nothing else of it; `None` where it has none, and where the place
    /// gives only whole blobs.
    ///
    /// # Errors
    /// Those of the source; [`Integrity`](crate::error::Kind::Integrity) when it is not what the descriptor says, or all
    /// of them together are more than an image may have.
    pub fn fetch(&self, source: &dyn Source, layer: &Descriptor) -> Result<Option<VerifiedToc>> {
        let Some(toc) = Toc::of(layer)? else { return Ok(None) };
        toc.ensure_within(self.limits)?;
        let Some(part) = source.open_range(layer, toc.range())? else { return Ok(None) };
        self.hold(toc, part).map(Some)
    }

    /// The same where the place gives only whole blobs: all that stands before it is read.
    ///
    /// # Errors
    /// Those of [`fetch`](Self::fetch).
    pub fn fetch_from_whole(&self, source: &dyn Source, layer: &Descriptor) -> Result<Option<VerifiedToc>> {
        let Some(toc) = Toc::of(layer)? else { return Ok(None) };
        toc.ensure_within(self.limits)?;
        let range = toc.range();
        let mut whole = source.open(layer)?.verify(layer);
        io::copy(&mut whole.by_ref().take(range.start), &mut io::sink())
            .map_err(|error| Error::io("cannot read the layer's table of contents", error))?;
        self.hold(toc, Unverified::new(whole.take(range.end - range.start))).map(Some)
    }

    fn hold(&self, toc: Toc, part: Unverified) -> Result<VerifiedToc> {
        match self.room(toc.descriptor().size)? {
            Room::Memory => VerifiedToc::verify(toc, part, self.limits),
            Room::File(file, offset) => VerifiedToc::verify_into(file, offset, toc, part, self.limits),
        }
    }

    fn room(&self, size: u64) -> Result<Room> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let most = if self.place.is_some() { IN_MEMORY } else { WITHOUT_FILE };
        let in_memory = held.in_memory.saturating_add(size);
        match self.place {
            Some(place) if size > SMALL || in_memory > most => {
                let offset = held.filed;
                held.filed = offset.saturating_add(size);
                if held.filed > self.limits.max_tocs() {
                    return Err(too_much(self.limits.max_tocs()));
                }
                let file = match &held.file {
                    Some(file) => Arc::clone(file),
                    None => {
                        let file = place.file();
                        let file = file.map_err(|error| {
                            Error::io("cannot make a file for a table of contents", error)
                        })?;
                        Arc::clone(held.file.insert(Arc::new(file)))
                    }
                };
                Ok(Room::File(file, offset))
            }
            None if in_memory > most => Err(too_much(most)),
            _ => {
                held.in_memory = in_memory;
                Ok(Room::Memory)
            }
        }
    }
}

fn too_much(most: u64) -> Error {
    Error::integrity(format!("the tables of contents of the image have more than {most} bytes"))
        .with_hint("an image with some million files may honestly have that; --max-names allows more")
}
