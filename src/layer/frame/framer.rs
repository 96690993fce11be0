//! Splits the archive of a layer into the units that are compressed by themselves.
//!
//! Small files and their headers are collected in groups. A larger file is split into chunks by its content, and each
//! chunk is a frame. A long run of zeros in it gets separate frames. All frames together are the archive, without a gap.

use super::chunker::{Chunker, MAX_SIZE};
use crate::error::{Error, Result};
use crate::layer::format::{BLOCK, FRAME, PIECE};
use crate::layer::tar::ArchiveSink;
use crate::layer::toc::TocEvent;
use crate::oci::{Algorithm, Digest};
use crate::stream::{HashingThread, PipeWriter, Written};
use crate::tree::{Entry, EntryKind};
use std::io;
use std::mem;
use std::sync::Arc;

/// The shortest run of zeros that gets separate frames, in bytes. Shorter runs would cost more in frames than they save.
const ZERO_RUN: usize = 256 << 10;

/// Bytes that are compressed and hashed on two threads at once.
#[derive(Clone)]
pub struct SharedBytes(Arc<Vec<u8>>);

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }
}

/// The content of a frame before it is compressed.
pub struct FrameContent {
    /// A part of the archive.
    pub plain: SharedBytes,
    /// The items of the archive that begin, continue or end in it.
    pub items: Vec<FrameItem>,
}

/// A part of an entry in one frame.
pub enum FrameItem {
    /// A whole entry. Its content, if it has any, begins at `inner`.
    Entry { entry: Entry, inner: usize },
    /// The header of a large file. Its content follows in separate frames.
    FileStart(Entry),
    /// The next chunk of that file, which is the whole frame.
    Chunk { zeros: bool },
    /// The end of that file.
    FileEnd,
}

/// Hashes the content of the items, which is what the table of contents records about them.
pub fn hash_items(items: Vec<FrameItem>, plain: &[u8]) -> Vec<TocEvent> {
    let hash = |item| match item {
        FrameItem::Entry { entry, inner } => {
            let content = match entry.kind {
                EntryKind::File { size: size @ 1.. } => content_at(plain, inner, size),
                _ => None,
            };
            let content = content.map(|content| (inner as u64, Digest::of(content)));
            TocEvent::Entry { entry, content }
        }
        FrameItem::FileStart(entry) => TocEvent::FileStart(entry),
        FrameItem::Chunk { zeros } => TocEvent::Chunk { digest: Digest::of(plain), zeros },
        FrameItem::FileEnd => TocEvent::FileEnd,
    };
    items.into_iter().map(hash).collect()
}

fn content_at(plain: &[u8], inner: usize, size: u64) -> Option<&[u8]> {
    plain.get(inner..)?.get(..usize::try_from(size).ok()?)
}

/// A compressed frame with what the table of contents records about it.
pub struct CompressedFrame {
    /// The frame.
    pub bytes: Vec<u8>,
    /// The size of its content, in bytes.
    pub plain_size: usize,
    /// The items in it.
    pub events: Vec<TocEvent>,
}

/// The rule by which the archive is split into frames.
#[derive(Clone, Copy)]
pub enum FrameRule {
    /// Between small files and within large ones, for a table of contents.
    ByContent,
    /// After every so many bytes.
    Fixed(usize),
}

/// Splits the archive of a layer into frames while it is written.
pub struct Framer {
    rule: FrameRule,
    /// The frame that is being filled.
    group: Vec<u8>,
    items: Vec<FrameItem>,
    /// The large file that is being written.
    large: Option<LargeFile>,
    hash: HashingThread<SharedBytes>,
    pipe: PipeWriter<FrameContent, CompressedFrame>,
}

/// A large file, which gets separate frames for its content.
struct LargeFile {
    chunk: Vec<u8>,
    chunker: Chunker,
    /// The number of zeros read last that are in no frame yet.
    zeros: usize,
}

impl Framer {
    /// Creates a framer that sends its frames into this pipe.
    ///
    /// # Errors
    /// Fails if the system cannot start another thread.
    pub fn new(rule: FrameRule, pipe: PipeWriter<FrameContent, CompressedFrame>) -> Result<Self> {
        let hash = HashingThread::start(Algorithm::Sha256)?;
        Ok(Self { rule, group: Vec::new(), items: Vec::new(), large: None, hash, pipe })
    }

    /// Adds bytes to the group. They may fill several frames of a fixed size.
    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let size = match self.rule {
            FrameRule::ByContent => usize::MAX,
            FrameRule::Fixed(size) => size,
        };
        while !bytes.is_empty() {
            if self.group.capacity() == 0 {
                self.group.reserve_exact(size.min(FRAME));
            }
            let taken = bytes.len().min(size - self.group.len());
            self.group.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.group.len() == size {
                self.end_group()?;
            }
        }
        Ok(())
    }

    /// Sends the group, if it is not empty.
    fn end_group(&mut self) -> io::Result<()> {
        if self.group.is_empty() {
            return Ok(());
        }
        let (group, items) = (mem::take(&mut self.group), mem::take(&mut self.items));
        self.send(group.into(), items)
    }

    fn send(&mut self, plain: SharedBytes, items: Vec<FrameItem>) -> io::Result<()> {
        self.pipe.send(FrameContent { plain: plain.clone(), items })?;
        self.hash.update(plain)
    }

    /// Sends a chunk of the large file.
    fn send_chunk(&mut self, plain: SharedBytes, zeros: bool) -> io::Result<()> {
        // The group holds what precedes the chunk in the archive.
        self.end_group()?;
        let mut items = mem::take(&mut self.items);
        items.push(FrameItem::Chunk { zeros });
        self.send(plain, items)
    }

    fn write_large(&mut self, large: &mut LargeFile, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            if piece == &ZEROS[..piece.len()] {
                large.zeros += piece.len();
                if large.zeros >= FRAME {
                    self.end_chunk(large)?;
                    self.send_chunk(zeros(FRAME), true)?;
                    large.zeros -= FRAME;
                }
            } else {
                self.write_zeros(large)?;
                self.write_data(large, piece)?;
            }
        }
        Ok(())
    }

    /// Writes the zeros that were held back, now that their run has ended: as a separate frame if the run is long enough,
    /// otherwise as data.
    fn write_zeros(&mut self, large: &mut LargeFile) -> io::Result<()> {
        let mut left = mem::take(&mut large.zeros);
        if left >= ZERO_RUN {
            self.end_chunk(large)?;
            return self.send_chunk(zeros(left), true);
        }
        while left > 0 {
            let piece = left.min(PIECE);
            self.write_data(large, &ZEROS[..piece])?;
            left -= piece;
        }
        Ok(())
    }

    fn write_data(&mut self, large: &mut LargeFile, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if large.chunk.capacity() == 0 {
                large.chunk.reserve_exact(MAX_SIZE);
            }
            let (taken, ends) = large.chunker.take(bytes);
            large.chunk.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if ends {
                self.end_chunk(large)?;
            }
        }
        Ok(())
    }

    /// Sends the chunk that is being filled, if it is not empty.
    fn end_chunk(&mut self, large: &mut LargeFile) -> io::Result<()> {
        large.chunker = Chunker::default();
        let chunk = mem::take(&mut large.chunk);
        if chunk.is_empty() { Ok(()) } else { self.send_chunk(chunk.into(), false) }
    }
}

impl ArchiveSink for Framer {
    type Out = ();

    fn header(&mut self, entry: &Entry, header: &[u8]) -> io::Result<()> {
        if let FrameRule::Fixed(_) = self.rule {
            return self.push(header);
        }
        let size = match entry.kind {
            EntryKind::File { size } => size,
            _ => 0,
        };
        let whole = size
            .checked_next_multiple_of(BLOCK as u64)
            .and_then(|size| usize::try_from(size).ok())
            .and_then(|size| size.checked_add(header.len()))
            .filter(|whole| *whole <= FRAME);
        if self.group.len() + whole.unwrap_or(header.len()) > FRAME {
            self.end_group()?;
        }
        self.push(header)?;
        if whole.is_some() {
            self.items.push(FrameItem::Entry { entry: entry.clone(), inner: self.group.len() });
            return Ok(());
        }
        self.items.push(FrameItem::FileStart(entry.clone()));
        self.large = Some(LargeFile { chunk: Vec::new(), chunker: Chunker::default(), zeros: 0 });
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.large.take() {
            None => self.push(bytes),
            Some(mut large) => {
                let outcome = self.write_large(&mut large, bytes);
                self.large = Some(large);
                outcome
            }
        }
    }

    fn end(&mut self, padding: &[u8]) -> io::Result<()> {
        if let Some(mut large) = self.large.take() {
            self.write_zeros(&mut large)?;
            self.end_chunk(&mut large)?;
            self.items.push(FrameItem::FileEnd);
        }
        self.push(padding)
    }

    fn finish(mut self) -> Result<((), Written)> {
        let cannot_write = |error: io::Error| Error::io("cannot write the layer", error);
        self.end_group().map_err(cannot_write)?;
        self.pipe.finish().map_err(cannot_write)?;
        Ok(((), self.hash.join()?))
    }
}

/// Zeros to compare with and to copy from.
static ZEROS: [u8; PIECE] = [0; PIECE];

/// Returns at most [`FRAME`] zeros. Nothing writes to them, so the kernel keeps a single page for all of them.
fn zeros(length: usize) -> SharedBytes {
    vec![0; length].into()
}
