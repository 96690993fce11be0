//! Reads the entries of a layer from its plain tar archive, however hostile that is.

use super::header::{self, BLOCK};
use super::whiteout::{self, Meaning, Whiteout};
use crate::error::{Error, Result};
use crate::tree::{Entry, Kind};
use std::io::{self, Read};
use tar_core::SparseEntry;
use tar_core::parse::{Limits, ParseEvent, Parser};

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
    parser: Parser,
    /// Bytes read and not yet used: never more than the headers of one entry.
    pending: Vec<u8>,
    /// The content of the current entry that was not read.
    content: Content,
    ended: bool,
}

/// What is left of the current entry.
#[derive(Default)]
struct Content {
    /// Bytes in the archive, without padding.
    stored: u64,
    /// Bytes behind them that fill the last block.
    padding: u64,
    /// For a sparse file: the regions that are stored, last first, and the length of the whole.
    regions: Option<Vec<SparseEntry>>,
    position: u64,
    size: u64,
}

impl<R: Read> LayerReader<R> {
    /// A reader of the plain tar archive of a layer.
    pub fn new(archive: R) -> Self {
        let mut parser = Parser::new(Limits::default());
        // `header::decode` reads strictly what the parser would refuse, such as times before 1970.
        parser.set_ignore_pax_errors(true);
        Self { archive, parser, pending: Vec::new(), content: Content::default(), ended: false }
    }

    /// The next item, or `None` at the end of the archive. What was not read of the last content is skipped.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the archive is malformed, truncated, or would leave the tree.
    pub fn next_item(&mut self) -> Result<Option<Item>> {
        while !self.ended {
            self.skip_content()?;
            if let Some(entry) = self.next_entry()? {
                return match whiteout::parse(&entry.path) {
                    Ok(Meaning::Entry) => Ok(Some(Item::Entry(entry))),
                    Ok(Meaning::Whiteout(whiteout)) => Ok(Some(Item::Whiteout(whiteout))),
                    Ok(Meaning::Nothing) => continue,
                    Err(why) => {
                        Err(Error::integrity(format!("the layer's entry {} is invalid: {why}", entry.path)))
                    }
                };
            }
        }
        Ok(None)
    }

    /// The content of the entry that [`next_item`](Self::next_item) returned last.
    pub fn content(&mut self) -> impl Read + '_ {
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

    /// One step of the parser. `None`: it has to be asked again, unless the archive has ended.
    fn next_entry(&mut self) -> Result<Option<Entry>> {
        let (consumed, entry) = match self.parser.parse(&self.pending).map_err(malformed)? {
            ParseEvent::NeedData { min_bytes } => {
                self.fill(min_bytes)?;
                return Ok(None);
            }
            ParseEvent::Entry { consumed, entry } => {
                self.content = Content::plain(entry.size);
                (consumed, Some(header::decode(&entry)?))
            }
            ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                self.content = Content::sparse(entry.size, sparse_map, real_size)?;
                let entry = header::decode(&entry)?;
                (consumed, Some(Entry { kind: Kind::File { size: real_size }, ..entry }))
            }
            // Defaults for all entries: written by git archive for its comment, and by nobody for layers.
            ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
            ParseEvent::End { consumed } => {
                self.ended = true;
                (consumed, None)
            }
        };
        self.pending.drain(..consumed);
        // What has no content has none, whatever its header says: engines disagree here, and so nobody writes it.
        match &entry {
            Some(Entry { kind: Kind::File { .. }, .. }) | None => Ok(entry),
            Some(entry) if self.content.stored > 0 && !matches!(entry.kind, Kind::Directory) => {
                Err(Error::integrity(format!("the layer's entry {} has content and is no file", entry.path)))
            }
            Some(_) => Ok(entry),
        }
    }

    /// Reads until `needed` bytes are pending. An archive may end without its closing blocks, but not within an entry.
    fn fill(&mut self, needed: usize) -> Result<()> {
        let missing = needed.saturating_sub(self.pending.len());
        let read =
            self.archive.by_ref().take(missing as u64).read_to_end(&mut self.pending).map_err(cannot_read)?;
        match (read == missing && missing > 0, self.pending.is_empty()) {
            (true, _) => Ok(()),
            (false, true) => {
                self.ended = true;
                Ok(())
            }
            (false, false) => Err(truncated()),
        }
    }

    fn skip_content(&mut self) -> Result<()> {
        let rest = std::mem::take(&mut self.content);
        // A size that no archive can have: the sum would begin at zero again.
        let left = rest.stored.checked_add(rest.padding).ok_or_else(truncated)?;
        let pending = usize::try_from(left).map_or(self.pending.len(), |left| left.min(self.pending.len()));
        self.pending.drain(..pending);
        let left = left - pending as u64;
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
        let buffer = &mut buffer[..most];
        let read = match self.pending.is_empty() {
            true => self.archive.read(buffer)?,
            false => {
                let read = buffer.len().min(self.pending.len());
                buffer[..read].copy_from_slice(&self.pending[..read]);
                self.pending.drain(..read);
                read
            }
        };
        if read == 0 && most > 0 {
            return Err(truncated().into());
        }
        self.content.stored -= read as u64;
        Ok(read)
    }
}

impl Content {
    fn plain(size: u64) -> Self {
        let padding = size.wrapping_neg() % BLOCK as u64;
        Self { stored: size, padding, regions: None, position: 0, size }
    }

    /// # Errors
    /// When the regions overlap, leave the file, or do not add up to what is stored.
    fn sparse(stored: u64, mut regions: Vec<SparseEntry>, size: u64) -> Result<Self> {
        let mut end = 0;
        let mut sum = 0u64;
        for region in &regions {
            let next =
                region.offset.checked_add(region.length).filter(|next| *next <= size && region.offset >= end);
            end = next.ok_or_else(|| {
                Error::integrity("a sparse file in the layer has regions that make no sense")
            })?;
            sum += region.length;
        }
        if sum != stored {
            return Err(Error::integrity(
                "a sparse file in the layer has more or less content than its regions",
            ));
        }
        regions.reverse();
        Ok(Self { regions: Some(regions), size, ..Self::plain(stored) })
    }

    /// How many bytes come next, and whether they are stored; (0, _) at the end.
    fn next_run(&mut self) -> (u64, bool) {
        let Some(regions) = &mut self.regions else { return (self.stored, true) };
        while regions.last().is_some_and(|region| region.offset + region.length <= self.position) {
            regions.pop();
        }
        match regions.last() {
            Some(region) if region.offset <= self.position => {
                (region.offset + region.length - self.position, true)
            }
            Some(region) => (region.offset - self.position, false),
            None => (self.size - self.position, false),
        }
    }
}

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

fn cannot_read(error: io::Error) -> Error {
    match error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        true => Error::io("", error),
        // The bytes came through a decompressor: what it cannot read is damaged.
        false if error.raw_os_error().is_none() => {
            Error::integrity("the layer cannot be decompressed").because(error)
        }
        false => Error::io("cannot read the layer", error),
    }
}

fn malformed(error: tar_core::parse::ParseError) -> Error {
    Error::integrity("the layer is not a valid tar archive").because(error.to_string())
}

fn truncated() -> Error {
    Error::integrity("the layer ends in the middle of an entry")
}
