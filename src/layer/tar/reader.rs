//! Reads the entries of a layer from its plain tar archive, which may be hostile.

use super::block::{Dialect, TarBlock, field, until_nul};
use super::decode::{Decoded, Extensions, decode};
use super::pax;
use super::sparse::{ContentCursor, MapReader, Region, SparseFormat, of_block};
use crate::error::{Error, Result};
use crate::layer::format::BLOCK;
use crate::layer::limits::{Budget, raise_limit};
use crate::layer::whiteout::{self, PathMeaning, Whiteout};
use crate::tree::{self, Entry, EntryKind};
use std::borrow::BorrowMut;
use std::io::{self, Read};

/// An item of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An entry.
    Entry(Entry),
    /// The removal of what lower layers have at a path.
    Whiteout(Whiteout),
}

/// A reader of the items of a layer, in order, each with its content. It borrows the budget of an image with several layers.
pub struct LayerReader<R, B = Budget> {
    archive: R,
    budget: B,
    /// The rest of the current entry's content.
    content: ContentCursor,
    ended: bool,
    /// True if the archive has ended with blocks of zeros.
    has_end_marker: bool,
    /// True if names that begin with `.wh.` are whiteouts.
    whiteouts: bool,
}

impl<R: Read> LayerReader<R> {
    /// Creates a reader of the plain tar archive of a layer, with the default limits.
    pub fn new(archive: R) -> Self {
        Self::within(archive, Budget::default())
    }
}

impl<R: Read, B: BorrowMut<Budget>> LayerReader<R, B> {
    /// Creates a reader that counts its entries against this budget.
    pub fn within(archive: R, budget: B) -> Self {
        let content = ContentCursor::default();
        Self { archive, budget, content, ended: false, has_end_marker: false, whiteouts: true }
    }

    /// Makes the reader treat names that begin with `.wh.` as ordinary names, for an archive that is not a layer.
    #[must_use]
    pub fn without_whiteouts(self) -> Self {
        Self { whiteouts: false, ..self }
    }

    /// Returns whether the archive ended with blocks of zeros. If it did not, entries may be missing: a program that was
    /// killed between two entries leaves such an archive. Layers need not have the blocks, because a digest proves that they
    /// are complete.
    pub fn has_end_marker(&self) -> bool {
        self.has_end_marker
    }

    /// Returns the next item; `None` at the end of the archive. The rest of the last content is skipped.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if the archive is malformed or truncated, if an entry would leave the
    /// tree, or if a limit is exceeded.
    pub fn next_item(&mut self) -> Result<Option<Item>> {
        while let Some(entry) = self.next_entry()? {
            let meaning = if self.whiteouts { whiteout::parse(&entry.path) } else { Ok(PathMeaning::Entry) };
            match meaning {
                Ok(PathMeaning::Entry) => {
                    self.budget.borrow_mut().admit(&entry)?;
                    return Ok(Some(Item::Entry(entry)));
                }
                Ok(PathMeaning::Whiteout(whiteout)) => {
                    self.budget.borrow_mut().count_path(&entry.path)?;
                    return Ok(Some(Item::Whiteout(whiteout)));
                }
                Ok(PathMeaning::Ignored) => self.budget.borrow_mut().count_path(&entry.path)?,
                Err(why) => {
                    return Err(Error::integrity(format!(
                        "the layer's entry {} is invalid: {why}",
                        entry.path
                    )));
                }
            }
        }
        Ok(None)
    }

    /// Returns the content of the entry that [`next_item`](Self::next_item) returned last.
    pub fn content(&mut self) -> impl tree::Content + '_ {
        ContentReader(self)
    }

    /// Reads the bytes after the end of the archive, so that the digest of the whole can be computed.
    ///
    /// # Errors
    /// Those of reading.
    pub fn drain(mut self) -> Result<()> {
        io::copy(&mut self.archive, &mut io::sink()).map_err(cannot_read)?;
        Ok(())
    }

    /// Returns the archive, which may have bytes that were not read.
    pub fn into_archive(self) -> R {
        self.archive
    }

    /// Returns the next entry, with the extensions before it applied; `None` at the end.
    fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_content()?;
        let mut extensions = Extensions::default();
        let mut spent = 0;
        while let Some(block) = self.next_header()? {
            spent += BLOCK as u64;
            let is_extension = block.dialect() != Dialect::V7;
            let extension = match block.0[field::TYPE] {
                b'L' if is_extension => &mut extensions.gnu_path,
                b'K' if is_extension => &mut extensions.gnu_link,
                b'x' if is_extension => &mut extensions.pax,
                b'g' if extensions.is_empty() => {
                    let records = self.metadata(&block, &mut spent)?;
                    check_global(&records)?;
                    spent = 0;
                    continue;
                }
                _ => return self.entry(&block, extensions, spent).map(Some),
            };
            let is_text = block.0[field::TYPE] != b'x';
            let data = self.metadata(&block, &mut spent)?;
            let data = if is_text { until_nul(&data).to_vec() } else { data };
            if extension.replace(data).is_some() {
                return Err(malformed("an entry has the same extension twice"));
            }
        }
        if !extensions.is_empty() {
            return Err(malformed("it ends behind an extension that belongs to nothing"));
        }
        Ok(None)
    }

    /// Returns the next header; `None` at the end. An archive may end without its closing blocks, but not within an entry.
    fn next_header(&mut self) -> Result<Option<TarBlock>> {
        if self.ended {
            return Ok(None);
        }
        let block = self.read_block()?;
        self.has_end_marker = block.as_ref().is_some_and(TarBlock::is_zero);
        let Some(block) = block.filter(|block| !block.is_zero()) else {
            // To some programs, a single block of zeros is the end; others skip it.
            if self.read_block()?.is_some_and(|block| !block.is_zero()) {
                return Err(malformed("it has a lone block of zeros"));
            }
            self.ended = true;
            return Ok(None);
        };
        if !block.is_intact() {
            return Err(malformed("the checksum of a header is wrong"));
        }
        Ok(Some(block))
    }

    fn read_block(&mut self) -> Result<Option<TarBlock>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.archive.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(truncated()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(cannot_read(error)),
            }
        }
        Ok(Some(TarBlock(block)))
    }

    /// Reads the data of an extension.
    fn metadata(&mut self, block: &TarBlock, spent: &mut u64) -> Result<Vec<u8>> {
        let size = block.number(field::SIZE).and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| malformed("an extension has a size that cannot be"))?;
        self.spend(spent, size)?;
        let mut data = Vec::new();
        self.archive.by_ref().take(size).read_to_end(&mut data).map_err(cannot_read)?;
        if data.len() as u64 != size {
            return Err(truncated());
        }
        self.content = ContentCursor::plain(size);
        self.content.stored = 0;
        self.skip_content()?;
        Ok(data)
    }

    /// Counts bytes that are held in memory for one entry.
    fn spend(&self, spent: &mut u64, bytes: u64) -> Result<()> {
        *spent = spent.saturating_add(bytes);
        let max = self.budget.borrow().limits().max_metadata;
        if *spent > max.saturating_add(4 * BLOCK as u64) {
            return Err(malformed(&format!("an entry has more than {max} bytes of metadata"))
                .with_hint(raise_limit("--max-metadata")));
        }
        Ok(())
    }

    fn entry(&mut self, block: &TarBlock, extensions: Extensions, mut spent: u64) -> Result<Entry> {
        let Decoded { mut entry, stored, sparse } = decode(block, extensions)?;
        let invalid = |why: &str| Error::integrity(format!("the layer's entry {} {why}", entry.path));
        let (regions, stored, real_size) = match sparse {
            None => {
                self.content = ContentCursor::plain(stored);
                return Ok(entry);
            }
            Some(SparseFormat::Known { regions, real_size }) => (regions, stored, real_size),
            Some(SparseFormat::MapInContent { real_size }) => {
                let mut map = MapReader::default();
                let mut left = stored;
                loop {
                    self.spend(&mut spent, BLOCK as u64)?;
                    left = left.checked_sub(BLOCK as u64).ok_or_else(truncated)?;
                    let block = self.read_block()?.ok_or_else(truncated)?;
                    if let Some(regions) = map.take(&block.0).map_err(invalid)? {
                        break (regions, left, real_size);
                    }
                }
            }
            Some(SparseFormat::Blocks { mut regions, mut more, real_size }) => {
                while more {
                    self.spend(&mut spent, BLOCK as u64)?;
                    let block = self.read_block()?.ok_or_else(truncated)?;
                    let next: (Vec<Region>, bool) =
                        of_block(&block).ok_or_else(|| invalid("has sparse regions that make no sense"))?;
                    regions.extend(next.0);
                    more = next.1;
                }
                (regions, stored, real_size)
            }
        };
        self.content = ContentCursor::sparse(stored, regions, real_size).map_err(invalid)?;
        entry.kind = EntryKind::File { size: real_size };
        Ok(entry)
    }

    fn skip_content(&mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.content);
        // The sum of an impossible size overflows.
        let left = rest.stored.checked_add(rest.padding).ok_or_else(truncated)?;
        let skipped =
            io::copy(&mut self.archive.by_ref().take(left), &mut io::sink()).map_err(cannot_read)?;
        if skipped == left { Ok(()) } else { Err(truncated()) }
    }

    /// Reads bytes of the current entry from the archive.
    fn read_stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.content.stored).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = self.archive.read(&mut buffer[..most])?;
        if read == 0 && most > 0 {
            return Err(truncated().into());
        }
        self.content.stored -= read as u64;
        Ok(read)
    }
}

/// A reader of the content of an entry. It returns the zeros between the regions of a sparse file.
struct ContentReader<'a, R, B>(&'a mut LayerReader<R, B>);

impl<R: Read, B: BorrowMut<Budget>> Read for ContentReader<'_, R, B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (run, stored) = self.0.content.next_run();
        let most = usize::try_from(run).map_or(buffer.len(), |run| run.min(buffer.len()));
        let buffer = &mut buffer[..most];
        let read = if stored {
            self.0.read_stored(buffer)?
        } else {
            buffer.fill(0);
            buffer.len()
        };
        self.0.content.position += read as u64;
        Ok(read)
    }
}

impl<R: Read, B: BorrowMut<Budget>> tree::Content for ContentReader<'_, R, B> {
    fn skip_hole(&mut self) -> u64 {
        match self.0.content.next_run() {
            (_, true) => 0,
            (hole, false) => {
                self.0.content.position += hole;
                hole
            }
        }
    }
}

/// Checks global records. git archive writes one with a comment, and no engine writes any into layers. Engines ignore them,
/// which is only safe if they do not change the entries that follow.
fn check_global(records: &[u8]) -> Result<()> {
    match pax::would_differ(records) {
        Ok(false) => Ok(()),
        Ok(true) => Err(malformed("it gives names or sizes to all entries at once")),
        Err(why) => Err(malformed(&format!("its global header {why}"))),
    }
}

fn cannot_read(error: io::Error) -> Error {
    match Error::from_io(error) {
        Ok(error) => error,
        // The error is one of a decompressor, so the layer is damaged.
        Err(error) if error.raw_os_error().is_none() => {
            Error::integrity("the layer cannot be decompressed").with_source(error)
        }
        Err(error) => Error::io("cannot read the layer", error),
    }
}

fn malformed(why: &str) -> Error {
    Error::integrity(format!("the layer is not a valid tar archive: {why}"))
}

fn truncated() -> Error {
    Error::integrity("the layer ends in the middle of an entry")
}
