//! Splits the archive of a layer into the units that are compressed by themselves.
//!
//! Small files and their headers are collected in groups. A larger file is split into chunks by its content, and each
//! chunk is a frame. A long run of zeros in it gets separate frames. All frames together are the archive, without a gap.

use super::archive_hash::{ArchiveHash, ItemHashing};
use super::chunker::MAX_SIZE;
use super::content_chunker::{ContentChunker, ContentPart};
use super::item::{FrameItem, SharedBytes};
use crate::error::{Error, Result};
use crate::layer::format::{BLOCK, FRAME};
use crate::layer::tar::ArchiveSink;
use crate::layer::toc::TocEvent;
use crate::stream::{PipeWriter, Written};
use crate::tree::{Entry, EntryKind};
use std::io;
use std::mem;
use std::sync::mpsc::Receiver;

/// The content of a frame before it is compressed.
pub struct FrameContent {
    /// A part of the archive.
    pub plain: SharedBytes,
    /// The items to hash after the frame was compressed; `None` if another thread hashes them.
    pub items: Option<ItemHashing>,
    /// The receiver of what the table of contents records about the items.
    pub events: Receiver<Vec<TocEvent>>,
}

/// A compressed frame with what the table of contents records about it.
pub struct CompressedFrame {
    /// The frame.
    pub bytes: SharedBytes,
    /// The size of its content, in bytes.
    pub plain_size: usize,
    /// The receiver of the items in it.
    pub events: Receiver<Vec<TocEvent>>,
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
    hash: ArchiveHash,
    pipe: PipeWriter<FrameContent, CompressedFrame>,
}

/// A large file, which gets separate frames for its content.
#[derive(Default)]
struct LargeFile {
    chunker: ContentChunker,
    /// The bytes of the current chunk.
    chunk: Vec<u8>,
}

impl Framer {
    /// Creates a framer that sends its frames into this pipe, and to the thread that hashes the archive.
    pub fn new(rule: FrameRule, hash: ArchiveHash, pipe: PipeWriter<FrameContent, CompressedFrame>) -> Self {
        Self { rule, group: Vec::new(), items: Vec::new(), large: None, hash, pipe }
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
        let (items, events) = ItemHashing::new(items);
        let (with_archive, items) =
            if self.hash.hashes_items() { (Some(items), None) } else { (None, Some(items)) };
        self.pipe.send(FrameContent { plain: plain.clone(), items, events })?;
        self.hash.update(plain, with_archive)
    }

    /// Sends a chunk of the large file.
    fn send_chunk(&mut self, plain: SharedBytes, zeros: bool) -> io::Result<()> {
        // The group holds what precedes the chunk in the archive.
        self.end_group()?;
        let mut items = mem::take(&mut self.items);
        items.push(FrameItem::Chunk { zeros });
        self.send(plain, items)
    }

    /// Sends a part of the large file, or adds it to the current chunk.
    fn send_part(&mut self, chunk: &mut Vec<u8>, part: ContentPart<'_>) -> io::Result<()> {
        match part {
            ContentPart::Data(bytes) => {
                if chunk.capacity() == 0 {
                    chunk.reserve_exact(MAX_SIZE);
                }
                chunk.extend_from_slice(bytes);
            }
            ContentPart::EndOfChunk => self.send_chunk(mem::take(chunk).into(), false)?,
            ContentPart::Zeros(mut left) => {
                while left > 0 {
                    let size = left.min(FRAME as u64);
                    // Nothing writes to these zeros, so the kernel keeps a single page for all of them.
                    self.send_chunk(vec![0; size as usize].into(), true)?;
                    left -= size;
                }
            }
        }
        Ok(())
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
        self.large = Some(LargeFile::default());
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(LargeFile { mut chunker, mut chunk }) = self.large.take() else { return self.push(bytes) };
        let outcome = chunker.push(bytes, &mut |part| self.send_part(&mut chunk, part));
        self.large = Some(LargeFile { chunker, chunk });
        outcome
    }

    fn end(&mut self, padding: &[u8]) -> io::Result<()> {
        if let Some(LargeFile { mut chunker, mut chunk }) = self.large.take() {
            chunker.finish(&mut |part| self.send_part(&mut chunk, part))?;
            self.items.push(FrameItem::FileEnd);
        }
        self.push(padding)
    }

    fn finish(mut self) -> Result<((), Written)> {
        let cannot_write = |error: io::Error| Error::io("cannot write the layer", error);
        self.end_group().map_err(cannot_write)?;
        self.pipe.finish().map_err(cannot_write)?;
        Ok(((), self.hash.finish()?))
    }
}
