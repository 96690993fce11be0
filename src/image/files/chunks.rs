//! The chunks of the files that are read. Those of files with few chunks are kept; those of others are read again from the
//! table of contents.

use super::{FileLocation, WantedFile};
use crate::error::Result;
use crate::image::merge::EntryPosition;
use crate::image::open::Image;
use crate::layer::{Budget, Chunk, Item, TocBytes, TocReader};
use std::collections::{BTreeMap, BTreeSet};
use std::slice;

/// The largest number of chunks of a file that are kept: some 80 KiB, for a file of about 1 GiB. Reading a table of contents
/// once more costs little beside reading a larger file.
const MAX_KEPT: usize = 1024;

/// The chunks of the files that are read from indexed layers. Keeping those of all files from the first time that the
/// tables of contents are read would take more memory than reading them twice.
pub(super) struct FileChunks<'i> {
    image: &'i Image<'i>,
    kept: BTreeMap<EntryPosition, Vec<Chunk>>,
}

/// The chunks of one file, one by one.
pub(super) enum ChunkIterator<'a> {
    Kept(slice::Iter<'a, Chunk>),
    /// A reader that stands at the entry of the file.
    Reader(Box<TocReader<TocBytes>>),
}

impl<'i> FileChunks<'i> {
    /// Finds the chunks of these files in the tables of contents.
    ///
    /// # Errors
    /// Those of the tables of contents.
    pub fn find(image: &'i Image<'i>, files: &[WantedFile]) -> Result<Self> {
        let indexed = |(file, _): &WantedFile| match file {
            FileLocation::Indexed(at) => Some(*at),
            _ => None,
        };
        let wanted: BTreeSet<EntryPosition> = files.iter().filter_map(indexed).collect();
        let layers: BTreeSet<usize> = wanted.iter().map(|at| at.layer).collect();
        let mut kept = BTreeMap::new();
        for layer in layers {
            let Some(mut entries) = entries(image, layer)? else { continue };
            let mut next = 0;
            for at in wanted.iter().filter(|at| at.layer == layer) {
                advance_to(&mut entries, &mut next, at.number)?;
                kept.extend(few_chunks(&mut entries)?.map(|chunks| (*at, chunks)));
            }
        }
        Ok(Self { image, kept })
    }

    /// Returns the chunks of one of the files.
    ///
    /// # Errors
    /// Those of the table of contents.
    pub fn of(&self, file: EntryPosition) -> Result<ChunkIterator<'_>> {
        if let Some(chunks) = self.kept.get(&file) {
            return Ok(ChunkIterator::Kept(chunks.iter()));
        }
        let Some(mut entries) = entries(self.image, file.layer)? else {
            return Ok(ChunkIterator::Kept([].iter()));
        };
        advance_to(&mut entries, &mut 0, file.number)?;
        Ok(ChunkIterator::Reader(Box::new(entries)))
    }
}

impl ChunkIterator<'_> {
    /// Returns the next chunk; `None` after the last.
    ///
    /// # Errors
    /// Those of the table of contents.
    pub fn next(&mut self) -> Result<Option<Chunk>> {
        match self {
            Self::Kept(chunks) => Ok(chunks.next().cloned()),
            Self::Reader(entries) => entries.next_chunk(),
        }
    }
}

fn entries(image: &Image<'_>, layer: usize) -> Result<Option<TocReader<TocBytes>>> {
    let toc = image.fetched_toc(layer);
    toc.map(|toc| toc.entries(Budget::new(image.context().limits()))).transpose()
}

/// Reads up to the entry with this number. `next` is the number of the entry that is read next; whiteouts have none.
fn advance_to(entries: &mut TocReader<TocBytes>, next: &mut u64, number: u64) -> Result<()> {
    while *next <= number {
        match entries.next_entry()? {
            Some(entry) if matches!(entry.item, Item::Entry(_)) => *next += 1,
            Some(_) => {}
            None => break,
        }
    }
    Ok(())
}

/// Returns all chunks of the current entry; `None` if there are more than are kept.
fn few_chunks(entries: &mut TocReader<TocBytes>) -> Result<Option<Vec<Chunk>>> {
    let mut chunks = Vec::new();
    while let Some(chunk) = entries.next_chunk()? {
        if chunks.len() == MAX_KEPT {
            return Ok(None);
        }
        chunks.push(chunk);
    }
    Ok(Some(chunks))
}
