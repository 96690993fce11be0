//! Reads the entries of a layer from its plain tar archive, however hostile that is.

use super::block::{Block, Dialect, field, until_nul};
use super::decode::{Decoded, Extensions, decode};
use super::format::BLOCK;
use super::limits::Budget;
use super::pax;
use super::sparse::{Content, Form, MapReader, Region, of_block};
use super::whiteout::{self, Meaning, Whiteout};
use crate::error::{Error, Result};
use crate::tree::{self, Entry, EntryKind};
use std::io::{self, Read};

/// What a layer says about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// It is this.
    Entry(Entry),
    /// What lower layers have there is gone.
    Whiteout(Whiteout),
}

/// A layer being read: one item after the other, each with its content.
pub struct LayerReader<R> {
    archive: R,
    budget: Budget,
    /// The content of the current entry that was not read.
    content: Content,
    ended: bool,
    has_end_marker: bool,
    /// Whether `.wh.` at the beginning of a name means something.
    whiteouts: bool,
}

impl<R: Read> LayerReader<R> {
    /// A reader of the plain tar archive of a layer, within the usual limits.
    pub fn new(archive: R) -> Self {
        Self::within(archive, Budget::default())
    }

    /// The same within what other layers of the image have left.
    pub fn within(archive: R, budget: Budget) -> Self {
        Self {
            archive,
            budget,
            content: Content::default(),
            ended: false,
            has_end_marker: false,
            whiteouts: true,
        }
    }

    /// The same for an archive that is no layer: every name in it is a name.
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

    /// What is left for the layers to come.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The next item, or `None` at the end of the archive. What was not read of the last content is skipped.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the archive is malformed, truncated, or would leave the tree.
    pub fn next_item(&mut self) -> Result<Option<Item>> {
        while let Some(entry) = self.next_entry()? {
            let meaning = match self.whiteouts {
                true => whiteout::parse(&entry.path),
                false => Ok(Meaning::Entry),
            };
            match meaning {
                Ok(Meaning::Entry) => {
                    self.budget.admit(&entry)?;
                    return Ok(Some(Item::Entry(entry)));
                }
                Ok(Meaning::Whiteout(whiteout)) => {
                    self.budget.pass(&entry.path)?;
                    return Ok(Some(Item::Whiteout(whiteout)));
                }
                Ok(Meaning::Nothing) => self.budget.pass(&entry.path)?,
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

    /// The content of the entry that [`next_item`](Self::next_item) returned last.
    pub fn content(&mut self) -> impl tree::Content + '_ {
        ContentReader(self)
    }

    /// Reads whatever stands behind the end of the archive, so that the digest of the whole can be told.
    ///
    /// # Errors
    /// Those of reading.
    pub fn drain(mut self) -> Result<()> {
        io::copy(&mut self.archive, &mut io::sink()).map_err(cannot_read)?;
        Ok(())
    }

    /// The archive; what was not read of it is still to be read.
    pub fn into_archive(self) -> R {
        self.archive
    }

    /// The next entry with all that stands before it; `None` at the end.
    fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_content()?;
        let mut extensions = Extensions::default();
        let mut spent = 0;
        while let Some(block) = self.next_header()? {
            spent += BLOCK as u64;
            let is_extension = block.dialect() != Dialect::V7;
            let place = match block.0[field::TYPE] {
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
            if place.replace(data).is_some() {
                return Err(malformed("an entry has the same extension twice"));
            }
        }
        match extensions.is_empty() {
            true => Ok(None),
            false => Err(malformed("it ends behind an extension that belongs to nothing")),
        }
    }

    /// The next header; `None` at the end. An archive may end without its closing blocks, but not within an entry.
    fn next_header(&mut self) -> Result<Option<Block>> {
        if self.ended {
            return Ok(None);
        }
        let block = self.read_block()?;
        self.has_end_marker = block.as_ref().is_some_and(Block::is_zero);
        let Some(block) = block.filter(|block| !block.is_zero()) else {
            // Programs differ about a single block of zeros: to some it is the end, to others it is nothing.
            if self.read_block()?.is_some_and(|block| !block.is_zero()) {
                return Err(malformed("it has a lone block of zeros"));
            }
            self.ended = true;
            return Ok(None);
        };
        match block.is_intact() {
            true => Ok(Some(block)),
            false => Err(malformed("the checksum of a header is wrong")),
        }
    }

    fn read_block(&mut self) -> Result<Option<Block>> {
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
        Ok(Some(Block(block)))
    }

    /// The data behind a header that describes the next one.
    fn metadata(&mut self, block: &Block, spent: &mut u64) -> Result<Vec<u8>> {
        let size = block.number(field::SIZE).and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| malformed("an extension has a size that cannot be"))?;
        self.spend(spent, size)?;
        let mut data = Vec::new();
        self.archive.by_ref().take(size).read_to_end(&mut data).map_err(cannot_read)?;
        if data.len() as u64 != size {
            return Err(truncated());
        }
        self.content = Content::plain(size);
        self.content.stored = 0;
        self.skip_content()?;
        Ok(data)
    }

    /// Counts bytes that have to be remembered for one entry.
    fn spend(&self, spent: &mut u64, bytes: u64) -> Result<()> {
        *spent = spent.saturating_add(bytes);
        let most = self.budget.limits().metadata;
        match *spent > most.saturating_add(4 * BLOCK as u64) {
            true => Err(malformed(&format!("an entry has more than {most} bytes of metadata"))
                .with_hint("no honest image has that; --max-metadata allows more")),
            false => Ok(()),
        }
    }

    fn entry(&mut self, block: &Block, extensions: Extensions, mut spent: u64) -> Result<Entry> {
        let Decoded { mut entry, stored, sparse } = decode(block, extensions)?;
        let invalid = |why: &str| Error::integrity(format!("the layer's entry {} {why}", entry.path));
        let (regions, stored, real_size) = match sparse {
            None => {
                self.content = Content::plain(stored);
                return Ok(entry);
            }
            Some(Form::Known { regions, real_size }) => (regions, stored, real_size),
            Some(Form::MapInContent { real_size }) => {
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
            Some(Form::Blocks { mut regions, mut more, real_size }) => {
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
        self.content = Content::sparse(stored, regions, real_size).map_err(invalid)?;
        entry.kind = EntryKind::File { size: real_size };
        Ok(entry)
    }

    fn skip_content(&mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.content);
        // A size that no archive can have: the sum would begin at zero again.
        let left = rest.stored.checked_add(rest.padding).ok_or_else(truncated)?;
        let skipped =
            io::copy(&mut self.archive.by_ref().take(left), &mut io::sink()).map_err(cannot_read)?;
        match skipped == left {
            true => Ok(()),
            false => Err(truncated()),
        }
    }

    /// Reads bytes of the current entry as they stand in the archive.
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

/// The content of an entry, with the zeros between the regions of a sparse file.
struct ContentReader<'a, R>(&'a mut LayerReader<R>);

impl<R: Read> Read for ContentReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (run, stored) = self.0.content.next_run();
        let most = usize::try_from(run).map_or(buffer.len(), |run| run.min(buffer.len()));
        let buffer = &mut buffer[..most];
        let read = match stored {
            true => self.0.read_stored(buffer)?,
            false => {
                buffer.fill(0);
                buffer.len()
            }
        };
        self.0.content.position += read as u64;
        Ok(read)
    }
}

impl<R: Read> tree::Content for ContentReader<'_, R> {
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

/// Records for all entries to come are written by git archive for its comment, and by nobody for layers; engines pass
/// over them, and so do we, where that makes no difference.
fn check_global(records: &[u8]) -> Result<()> {
    match pax::would_differ(records) {
        Ok(false) => Ok(()),
        Ok(true) => Err(malformed("it gives names or sizes to all entries at once")),
        Err(why) => Err(malformed(&format!("its global header {why}"))),
    }
}

fn cannot_read(error: io::Error) -> Error {
    match error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        true => Error::io("", error),
        // The bytes came through a decompressor: what it cannot read is damaged.
        false if error.raw_os_error().is_none() => {
            Error::integrity("the layer cannot be decompressed").with_source(error)
        }
        false => Error::io("cannot read the layer", error),
    }
}

fn malformed(why: &str) -> Error {
    Error::integrity(format!("the layer is not a valid tar archive: {why}"))
}

fn truncated() -> Error {
    Error::integrity("the layer ends in the middle of an entry")
}
