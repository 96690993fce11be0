//! The chunks of the files that are read. Those of files with few chunks are kept; those of others are read again from the
//! table of contents.

use crate::error::{Error, Result};
use crate::image::merge::EntryPosition;
use crate::image::open::Image;
use crate::layer::{Budget, Chunk, Item, TocBytes, TocReader};
use std::collections::{BTreeMap, BTreeSet};
use std::slice;

/// The largest number of chunks of a file that are kept, for a file of about 1 GiB. Reading a table of contents once more
/// costs little beside reading a larger file.
const MAX_KEPT: usize = 1024;
/// The largest number of chunks of all files that are kept: some 8 MiB with the lists that they are in.
const MAX_KEPT_IN_ALL: usize = 50_000;
/// The limit on what is read of tables of contents for the files whose chunks are not kept, in bytes of JSON.
/// Tables of contents have the order of paths, in which files are read, and then each is read once. Another order can make
/// it necessary to begin again for each file.
const MAX_REREAD: u64 = 4 << 30;

/// The chunks of the files that are read from indexed layers. Keeping those of all files from the first time that the
/// tables of contents are read would take more memory than reading them twice.
pub struct FileChunks<'i> {
    image: &'i Image<'i>,
    /// Without spare capacity: most files are a single chunk.
    kept: BTreeMap<EntryPosition, Box<[Chunk]>>,
    /// The reader for files that are not kept.
    cursor: Option<Cursor>,
    /// The bytes of tables of contents that may still be read for them.
    reread: u64,
}

/// A reader of the table of contents of one layer.
struct Cursor {
    layer: usize,
    entries: TocReader<TocBytes>,
    /// The number of the entry that is read next.
    next: u64,
}

/// The chunks of one file, one by one.
pub enum ChunkIterator<'a> {
    Kept(slice::Iter<'a, Chunk>),
    /// A reader that stands at the entry of the file.
    Reader(&'a mut TocReader<TocBytes>),
}

impl<'i> FileChunks<'i> {
    /// Finds the chunks of these files in the tables of contents.
    ///
    /// # Errors
    /// Those of the tables of contents.
    pub fn find(image: &'i Image<'i>, files: impl Iterator<Item = EntryPosition>) -> Result<Self> {
        let mut wanted: Vec<EntryPosition> = files.collect();
        wanted.sort_unstable();
        wanted.dedup();
        let layers: BTreeSet<usize> = wanted.iter().map(|at| at.layer).collect();
        let (mut kept, mut free) = (BTreeMap::new(), MAX_KEPT_IN_ALL);
        for layer in layers {
            let Some(mut cursor) = Cursor::open(image, layer)? else { continue };
            for at in wanted.iter().filter(|at| at.layer == layer) {
                cursor.advance_to(at.number)?;
                if let Some(chunks) = cursor.few_chunks(MAX_KEPT.min(free))? {
                    free -= chunks.len();
                    kept.insert(*at, chunks);
                }
            }
        }
        Ok(Self { image, kept, cursor: None, reread: MAX_REREAD })
    }

    /// Returns the chunks of one of the files.
    ///
    /// # Errors
    /// Those of the table of contents; [`Integrity`](crate::error::Kind::Integrity) if its order makes it necessary to read
    /// it too often.
    pub fn of(&mut self, file: EntryPosition) -> Result<ChunkIterator<'_>> {
        if self.kept.contains_key(&file) {
            return Ok(ChunkIterator::Kept(self.kept[&file].iter()));
        }
        let is_ahead = |cursor: &Cursor| cursor.layer == file.layer && cursor.next <= file.number;
        if !self.cursor.as_ref().is_some_and(is_ahead) {
            self.count_reread(file.layer)?;
            self.cursor = Cursor::open(self.image, file.layer)?;
        }
        let Some(cursor) = &mut self.cursor else { return Ok(ChunkIterator::Kept([].iter())) };
        cursor.advance_to(file.number)?;
        Ok(ChunkIterator::Reader(&mut cursor.entries))
    }

    fn count_reread(&mut self, layer: usize) -> Result<()> {
        let size = self.image.fetched_toc(layer).map_or(0, |toc| toc.plain_size());
        self.reread = self.reread.checked_sub(size).ok_or_else(|| {
            Error::integrity(
                "the order of the image's tables of contents makes it necessary to read them too often",
            )
            .with_hint("unpack the image into a directory instead")
        })?;
        Ok(())
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

impl Cursor {
    fn open(image: &Image<'_>, layer: usize) -> Result<Option<Self>> {
        let Some(toc) = image.fetched_toc(layer) else { return Ok(None) };
        let entries = toc.entries(Budget::new(image.context().limits()))?;
        Ok(Some(Self { layer, entries, next: 0 }))
    }

    /// Reads up to the entry with this number. Whiteouts have none.
    fn advance_to(&mut self, number: u64) -> Result<()> {
        while self.next <= number {
            match self.entries.next_entry()? {
                Some(entry) if matches!(entry.item, Item::Entry(_)) => self.next += 1,
                Some(_) => {}
                None => break,
            }
        }
        Ok(())
    }

    /// Returns all chunks of the current entry; `None` if there are more than this.
    fn few_chunks(&mut self, max: usize) -> Result<Option<Box<[Chunk]>>> {
        let mut chunks = Vec::new();
        while let Some(chunk) = self.entries.next_chunk()? {
            if chunks.len() == max {
                return Ok(None);
            }
            chunks.push(chunk);
        }
        Ok(Some(chunks.into_boxed_slice()))
    }
}
