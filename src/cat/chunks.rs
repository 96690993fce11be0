//! What the files are made of that are read: kept for those that have few chunks, told anew for those that have many.

use super::{At, Place};
use crate::error::Result;
use crate::layer::{Budget, Chunk, Limits, TocBytes, TocReader, VerifiedToc};
use std::collections::{BTreeMap, BTreeSet};
use std::slice;

/// The most chunks of one file that are kept: some 80 KiB of them, for a file of about 1 GiB. To read a table of contents
/// once more is nothing next to reading a larger one.
const KEPT: usize = 1024;

/// The chunks of the files that are listed. To remember those of all files while the tables of contents are read for the
/// first time would take more memory than to read them twice.
pub(super) struct Chunks {
    listings: BTreeMap<usize, VerifiedToc>,
    limits: Limits,
    kept: BTreeMap<At, Vec<Chunk>>,
}

/// The chunks of one file, one by one.
pub(super) enum Told<'a> {
    Kept(slice::Iter<'a, Chunk>),
    /// A reader that has come to the file.
    Again(Box<TocReader<TocBytes>>),
}

impl Chunks {
    /// Finds those of these files in the tables of contents.
    ///
    /// # Errors
    /// Those of the tables of contents.
    pub fn find(listings: BTreeMap<usize, VerifiedToc>, files: &[Place], limits: &Limits) -> Result<Self> {
        let listed = |file: &Place| match file {
            Place::Listed(at) => Some(*at),
            _ => None,
        };
        let wanted: BTreeSet<At> = files.iter().filter_map(listed).collect();
        let mut kept = BTreeMap::new();
        for (layer, listing) in &listings {
            let mut entries = listing.entries(Budget::new(*limits))?;
            let mut next = 0;
            for at in wanted.iter().filter(|at| at.layer == *layer) {
                pass_to(&mut entries, &mut next, at.number)?;
                kept.extend(few(&mut entries)?.map(|chunks| (*at, chunks)));
            }
        }
        Ok(Self { listings, limits: *limits, kept })
    }

    /// Those of one of the files.
    ///
    /// # Errors
    /// Those of the table of contents.
    pub fn of(&self, file: At) -> Result<Told<'_>> {
        if let Some(chunks) = self.kept.get(&file) {
            return Ok(Told::Kept(chunks.iter()));
        }
        let Some(listing) = self.listings.get(&file.layer) else { return Ok(Told::Kept([].iter())) };
        let mut entries = listing.entries(Budget::new(self.limits))?;
        pass_to(&mut entries, &mut 0, file.number)?;
        Ok(Told::Again(Box::new(entries)))
    }
}

impl Told<'_> {
    /// The next one; `None` behind the last.
    ///
    /// # Errors
    /// Those of the table of contents.
    pub fn next(&mut self) -> Result<Option<Chunk>> {
        match self {
            Self::Kept(chunks) => Ok(chunks.next().cloned()),
            Self::Again(entries) => entries.next_chunk(),
        }
    }
}

/// Has a reader, whose next entry is the `next`th, read the `number`th.
fn pass_to(entries: &mut TocReader<TocBytes>, next: &mut u64, number: u64) -> Result<()> {
    while *next <= number && entries.next_entry()?.is_some() {
        *next += 1;
    }
    Ok(())
}

/// All chunks of the current entry; `None` where they are more than are kept.
fn few(entries: &mut TocReader<TocBytes>) -> Result<Option<Vec<Chunk>>> {
    let mut chunks = Vec::new();
    while let Some(chunk) = entries.next_chunk()? {
        if chunks.len() == KEPT {
            return Ok(None);
        }
        chunks.push(chunk);
    }
    Ok(Some(chunks))
}
