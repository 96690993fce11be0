//! Splits the archive of a layer into the units that are compressed by themselves.
//!
//! Small files and their headers are collected in groups. A larger file is split into chunks by its content, and each
//! chunk is a frame. A long run of zeros in it gets separate frames. All frames together are the archive, without a gap.

use super::archive_hash::{ArchiveHash, ItemHashing};
use super::chunker::MAX_SIZE;
use super::content_chunker::{ContentChunker, ContentPart};
use super::item::FrameItem;
use crate::error::{Error, Result};
use crate::layer::format::{BLOCK, FRAME, READ};
use crate::layer::tar::ArchiveSink;
use crate::layer::toc::TocEvent;
use crate::stream::{PipeWriter, Written};
use crate::tree::{Entry, EntryKind};
use bytes::Bytes;
use std::io;
use std::mem;
use std::sync::mpsc::Receiver;

/// The initial capacity for the content of a large file, in bytes: a chunk and a read beyond it.
const CONTENT: usize = MAX_SIZE + READ;

/// The content of a frame before it is compressed.
pub struct FrameContent {
    /// A part of the archive.
    pub plain: Bytes,
    /// The items to hash after the frame was compressed; `None` if another thread hashes them.
    pub items: Option<ItemHashing>,
    /// The receiver of what the table of contents records about the items.
    pub events: Receiver<Vec<TocEvent>>,
}

/// A compressed frame with what the table of contents records about it.
pub struct CompressedFrame {
    /// The parts of the frame, in order.
    pub parts: Vec<Bytes>,
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
    /// The buffer for content that is split into frames of a fixed size.
    buffer: Vec<u8>,
    /// The zeros of which frames outside of chunks are parts, once there is such a frame.
    zeros: Option<Bytes>,
    hash: ArchiveHash,
    pipe: PipeWriter<FrameContent, CompressedFrame>,
}

/// A large file, which gets separate frames for its content.
#[derive(Default)]
struct LargeFile {
    chunker: ContentChunker,
    /// The content that was not sent: the beginning of the current chunk, zeros of which the chunker has yet to decide
    /// whether they belong to that, and at the end the bytes that are being read.
    content: Vec<u8>,
    /// The number of bytes in the current chunk.
    chunk: usize,
    /// The number of bytes that are being read: the size of the buffer at the end.
    reading: usize,
}

/// A part of the content that is complete. It begins at the beginning of the content that was not sent.
enum Cut {
    /// A chunk of this size.
    Chunk(usize),
    /// This number of zeros outside of chunks.
    Zeros(usize),
}

impl LargeFile {
    /// Returns a buffer at the end of the content.
    fn buffer(&mut self, size: usize) -> &mut [u8] {
        if self.content.capacity() == 0 {
            self.content = Vec::with_capacity(CONTENT);
        }
        let start = self.content.len();
        self.content.resize(start + size, 0);
        self.reading = size;
        &mut self.content[start..]
    }

    /// Passes the bytes in the buffer to the chunker. Returns the parts that are complete.
    fn cut(&mut self) -> io::Result<Vec<Cut>> {
        let read = &self.content[self.content.len() - mem::take(&mut self.reading)..];
        let mut cuts = Vec::new();
        self.chunker.push(read, &mut |part| collect(part, &mut self.chunk, &mut cuts))?;
        Ok(cuts)
    }

    /// Ends the file. Returns the last parts.
    fn finish(&mut self) -> io::Result<Vec<Cut>> {
        let mut cuts = Vec::new();
        self.chunker.finish(&mut |part| collect(part, &mut self.chunk, &mut cuts))?;
        Ok(cuts)
    }

    /// Takes a chunk from the beginning of the content.
    fn take_chunk(&mut self, size: usize) -> Vec<u8> {
        let rest = &self.content[size..];
        if rest.len() > READ {
            // Most of the rest is zeros, whose memory would be held while the chunk is sent.
            let chunk = self.content[..size].to_vec();
            self.content.drain(..size);
            return chunk;
        }
        let mut next = Vec::with_capacity(CONTENT);
        next.extend_from_slice(rest);
        self.content.truncate(size);
        mem::replace(&mut self.content, next)
    }

    /// Takes zeros from the beginning of the content.
    fn take_zeros(&mut self, count: usize) {
        self.content.drain(..count);
        if self.content.is_empty() {
            self.content = Vec::new();
        }
    }
}

/// Counts a part of the content that belongs to the current chunk, or adds a complete part to the cuts.
fn collect(part: ContentPart<'_>, chunk: &mut usize, cuts: &mut Vec<Cut>) -> io::Result<()> {
    match part {
        ContentPart::Data(bytes) => *chunk += bytes.len(),
        ContentPart::EndOfChunk => cuts.push(Cut::Chunk(mem::take(chunk))),
        // The zeros are in memory, so their number fits.
        ContentPart::Zeros(zeros) => cuts.push(Cut::Zeros(zeros as usize)),
    }
    Ok(())
}

impl Framer {
    /// Creates a framer that sends its frames into this pipe, and to the thread that hashes the archive.
    pub fn new(rule: FrameRule, hash: ArchiveHash, pipe: PipeWriter<FrameContent, CompressedFrame>) -> Self {
        Self {
            rule,
            group: Vec::new(),
            items: Vec::new(),
            large: None,
            buffer: Vec::new(),
            zeros: None,
            hash,
            pipe,
        }
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

    fn send(&mut self, plain: Bytes, items: Vec<FrameItem>) -> io::Result<()> {
        let (items, events) = ItemHashing::new(items);
        let (with_archive, items) =
            if self.hash.hashes_items() { (Some(items), None) } else { (None, Some(items)) };
        self.pipe.send(FrameContent { plain: plain.clone(), items, events })?;
        self.hash.update(plain, with_archive)
    }

    /// Sends a chunk of the large file.
    fn send_chunk(&mut self, plain: Bytes, zeros: bool) -> io::Result<()> {
        // The group holds what precedes the chunk in the archive.
        self.end_group()?;
        let mut items = mem::take(&mut self.items);
        items.push(FrameItem::Chunk { zeros });
        self.send(plain, items)
    }

    /// Sends the complete parts of the large file.
    fn send_cuts(&mut self, large: &mut LargeFile, cuts: Vec<Cut>) -> io::Result<()> {
        for cut in cuts {
            match cut {
                Cut::Chunk(size) => self.send_chunk(large.take_chunk(size).into(), false)?,
                Cut::Zeros(mut left) => {
                    large.take_zeros(left);
                    while left > 0 {
                        let size = left.min(FRAME);
                        let zeros = self.zeros.get_or_insert_with(|| vec![0; FRAME].into());
                        let zeros = zeros.slice(..size);
                        self.send_chunk(zeros, true)?;
                        left -= size;
                    }
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

    fn buffer(&mut self, size: usize) -> &mut [u8] {
        if let Some(large) = &mut self.large {
            return large.buffer(size);
        }
        match self.rule {
            FrameRule::ByContent => {
                let start = self.group.len();
                self.group.resize(start + size, 0);
                &mut self.group[start..]
            }
            FrameRule::Fixed(_) => {
                self.buffer.resize(size, 0);
                &mut self.buffer
            }
        }
    }

    fn content(&mut self) -> io::Result<()> {
        let Some(mut large) = self.large.take() else {
            let buffer = mem::take(&mut self.buffer);
            self.push(&buffer)?;
            self.buffer = buffer;
            return Ok(());
        };
        let cuts = large.cut()?;
        let sent = self.send_cuts(&mut large, cuts);
        self.large = Some(large);
        sent
    }

    fn end(&mut self, padding: &[u8]) -> io::Result<()> {
        if let Some(mut large) = self.large.take() {
            let cuts = large.finish()?;
            self.send_cuts(&mut large, cuts)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::format::PIECE;
    use crate::testing::noise;
    use proptest::prelude::*;

    /// Returns the chunks of a file, and zeros in place of the frames of zeros, in order.
    fn cut(content: &[u8]) -> Vec<Vec<u8>> {
        let (mut large, mut parts) = (LargeFile::default(), Vec::new());
        let mut take = |large: &mut LargeFile, cuts: Vec<Cut>| {
            for cut in cuts {
                parts.push(match cut {
                    Cut::Chunk(size) => large.take_chunk(size),
                    Cut::Zeros(count) => {
                        large.take_zeros(count);
                        vec![0; count]
                    }
                });
            }
        };
        for read in content.chunks(READ) {
            large.buffer(read.len()).copy_from_slice(read);
            let cuts = large.cut().unwrap();
            take(&mut large, cuts);
        }
        let cuts = large.finish().unwrap();
        take(&mut large, cuts);
        assert!(large.content.is_empty());
        parts
    }

    #[test]
    fn a_chunk_before_many_zeros_does_not_hold_their_memory() {
        let content = [noise(1, 5 * PIECE), vec![0; 6 << 20], noise(2, PIECE)].concat();
        let parts = cut(&content);
        assert_eq!(parts.concat(), content);
        assert_eq!((parts[0].len(), parts[0].capacity()), (5 * PIECE, 5 * PIECE));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn the_parts_of_a_large_file_are_its_content(
            runs in prop::collection::vec((any::<bool>(), 1..1_500_000usize), 1..10),
        ) {
            let run = |(is_zero, size): &(bool, usize)| if *is_zero { vec![0; *size] } else { noise(*size as u64, *size) };
            let content = runs.iter().map(run).collect::<Vec<_>>().concat();
            prop_assert!(cut(&content).concat() == content);
        }
    }
}
