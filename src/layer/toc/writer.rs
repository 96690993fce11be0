//! Writes the table of contents while the frames of a layer are written. It is compressed as it grows: for a million
//! entries it has about 60 MB, and at no time are all of them in memory.

use super::chunk::Chunk;
use super::json::JsonEntry;
use super::{FRAME_HEADER, SKIPPABLE, Toc};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::stream::HashingWriter;
use crate::tree::{Entry, EntryKind};
use std::io::{self, Write};
use std::ops::Range;

/// The size of the text that is collected before it is compressed, in bytes.
const BUFFER: usize = 64 << 10;
/// The level of compression. Half of the compressed bytes are digests, which do not compress: level 3 takes longer and
/// gives 7 % more bytes.
const LEVEL: i32 = 1;

/// A part of an entry that is recorded for a frame.
pub enum TocEvent {
    /// A whole entry. The content of a file that is not empty has its position in the frame and its digest.
    Entry { entry: Entry, content: Option<(u64, Digest)> },
    /// The header of a large file. Its chunks follow.
    FileStart(Entry),
    /// The next chunk of that file, which is the whole frame.
    Chunk { digest: Digest, zeros: bool },
    /// The end of that file.
    FileEnd,
}

/// The table of contents of a layer that is being written.
pub struct TocWriter {
    text: Vec<u8>,
    compressor: HashingWriter<zstd::stream::write::Encoder<'static, HashingWriter<Vec<u8>>>>,
    is_first: bool,
    /// The large file that is being recorded, with its chunks.
    large: Option<(Entry, Vec<Chunk>)>,
}

impl TocWriter {
    /// Creates a table of contents without entries.
    pub fn new() -> io::Result<Self> {
        let compressor = zstd::stream::write::Encoder::new(HashingWriter::new(Vec::new()), LEVEL)?;
        Ok(Self {
            text: b"{\"entries\":[".to_vec(),
            compressor: HashingWriter::new(compressor),
            is_first: true,
            large: None,
        })
    }

    /// Records the items of one frame. `frame` is its range in the layer, `plain_size` the size of its content.
    pub fn add(&mut self, events: Vec<TocEvent>, frame: &Range<u64>, plain_size: usize) -> io::Result<()> {
        for event in events {
            match event {
                TocEvent::Entry { entry, content } => self.entry(&entry, frame, content)?,
                TocEvent::FileStart(entry) => self.large = Some((entry, Vec::new())),
                TocEvent::Chunk { digest, zeros } => self.chunk(frame, plain_size, digest, zeros)?,
                TocEvent::FileEnd => self.end_large()?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, frame: &Range<u64>, content: Option<(u64, Digest)>) -> io::Result<()> {
        let mut json = JsonEntry::of(entry);
        if let (EntryKind::File { size }, Some((inner, digest))) = (&entry.kind, content) {
            json = json.with_chunk(&Chunk {
                frame: frame.clone(),
                inner,
                offset: 0,
                size: *size,
                digest,
                zeros: false,
            });
            // The chunk is the whole file, so its size and its digest are those of the file.
            json.chunk_size = 0;
        }
        self.object(&json)
    }

    fn chunk(&mut self, frame: &Range<u64>, size: usize, digest: Digest, zeros: bool) -> io::Result<()> {
        let Some((_, chunks)) = &mut self.large else {
            return Err(io::Error::other("a chunk without a file; this is a bug in volio"));
        };
        let offset = chunks.last().map_or(0, |last| last.offset + last.size);
        chunks.push(Chunk { frame: frame.clone(), inner: 0, offset, size: size as u64, digest, zeros });
        Ok(())
    }

    fn end_large(&mut self) -> io::Result<()> {
        let Some((entry, chunks)) = self.large.take() else {
            return Err(io::Error::other("the end of no file; this is a bug in volio"));
        };
        for (number, chunk) in chunks.iter().enumerate() {
            let mut json = JsonEntry::of(&entry);
            if number > 0 {
                json = json.into_further_chunk();
            }
            self.object(&json.with_chunk(chunk))?;
        }
        Ok(())
    }

    fn object(&mut self, entry: &JsonEntry<'_>) -> io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, entry)?;
        if self.text.len() >= BUFFER { self.compress() } else { Ok(()) }
    }

    fn compress(&mut self) -> io::Result<()> {
        self.compressor.write_all(&self.text)?;
        self.text.clear();
        Ok(())
    }

    /// Ends the table of contents, which begins at `offset`, where the frames of the archive end. Returns its
    /// description, and the bytes that follow the frames: a frame header, the table of contents, and the footer.
    ///
    /// # Errors
    /// Fails if there are more entries than a table of contents can hold: about 70 million.
    pub fn finish(mut self, offset: u64) -> Result<(Toc, [Vec<u8>; 3])> {
        let cannot_write = |error: io::Error| Error::io("cannot write the table of contents", error);
        self.text.extend_from_slice(b"],\"version\":1}");
        self.compress().map_err(cannot_write)?;
        let (compressor, plain) = self.compressor.finish();
        let (bytes, compressed) = compressor.finish().map_err(cannot_write)?.finish();
        let size = u32::try_from(bytes.len()).map_err(|_| {
            Error::failed("a layer cannot have so many entries")
                .with_hint("make layers smaller with --layer-size")
        })?;
        let toc = Toc {
            offset: offset + FRAME_HEADER,
            size: compressed.size,
            plain_size: plain.size,
            digest: compressed.digest,
            plain_digest: Some(plain.digest),
        };
        let header = [SKIPPABLE, size.to_le_bytes()].concat();
        let footer = toc.footer();
        Ok((toc, [header, bytes, footer]))
    }
}
