//! Writes the table of contents while the frames of a layer pass, compressed as it grows: a million entries are
//! some 60 MB of it and never a million entries in memory.

use super::chunk::Chunk;
use super::wire::Wire;
use super::{FRAME_HEADER, SKIPPABLE, Toc};
use crate::error::{Error, Result};
use crate::layer::frames::Note;
use crate::oci::Digest;
use crate::stream::HashingWriter;
use crate::tree::{Entry, EntryKind};
use std::io::{self, Write};
use std::ops::Range;

/// Text that was not compressed yet.
const BUFFER: usize = 64 << 10;
/// Half of what is left are digests, in which there is nothing to find: level 3 takes longer and is 7 % larger.
const LEVEL: i32 = 1;

/// The table of contents of a layer in the making.
pub struct TocWriter {
    text: Vec<u8>,
    compressor: HashingWriter<zstd::stream::write::Encoder<'static, HashingWriter<Vec<u8>>>>,
    is_first: bool,
    /// The file whose chunks are passing.
    open: Option<(Entry, Vec<Chunk>)>,
}

impl TocWriter {
    /// One that has no entries yet.
    pub fn new() -> io::Result<Self> {
        let compressor = zstd::stream::write::Encoder::new(HashingWriter::new(Vec::new()), LEVEL)?;
        Ok(Self {
            text: b"{\"entries\":[".to_vec(),
            compressor: HashingWriter::new(compressor),
            is_first: true,
            open: None,
        })
    }

    /// Takes down what is in a frame of so many bytes that stands there.
    pub fn add(&mut self, notes: Vec<Note>, frame: &Range<u64>, plain_size: usize) -> io::Result<()> {
        for note in notes {
            match note {
                Note::Whole { entry, inner, digest } => self.whole(&entry, frame, inner, digest)?,
                Note::Begin(entry) => self.open = Some((entry, Vec::new())),
                Note::Chunk { digest, zeros } => self.chunk(frame, plain_size, digest, zeros)?,
                Note::End => self.end()?,
            }
        }
        Ok(())
    }

    fn whole(
        &mut self,
        entry: &Entry,
        frame: &Range<u64>,
        inner: usize,
        digest: Option<Digest>,
    ) -> io::Result<()> {
        let mut wire = Wire::of(entry);
        if let (EntryKind::File { size }, Some(digest)) = (&entry.kind, digest) {
            let chunk = Chunk {
                frame: frame.clone(),
                inner: inner as u64,
                offset: 0,
                size: *size,
                digest,
                zeros: false,
            };
            wire = wire.with(&chunk);
            // The chunk is the whole file: its size is the file's, and so is its digest.
            wire.chunk_size = 0;
        }
        self.object(&wire)
    }

    fn chunk(
        &mut self,
        frame: &Range<u64>,
        size: usize,
        digest: Option<Digest>,
        zeros: bool,
    ) -> io::Result<()> {
        let (Some((_, chunks)), Some(digest)) = (&mut self.open, digest) else {
            return Err(io::Error::other("a chunk without a file; this is a bug in volio"));
        };
        let offset = chunks.last().map_or(0, |last| last.offset + last.size);
        chunks.push(Chunk { frame: frame.clone(), inner: 0, offset, size: size as u64, digest, zeros });
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        let Some((entry, chunks)) = self.open.take() else {
            return Err(io::Error::other("the end of no file; this is a bug in volio"));
        };
        for (number, chunk) in chunks.iter().enumerate() {
            let mut wire = Wire::of(&entry);
            if number > 0 {
                wire = wire.further();
            }
            self.object(&wire.with(chunk))?;
        }
        Ok(())
    }

    fn object(&mut self, wire: &Wire<'_>) -> io::Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, wire)?;
        match self.text.len() >= BUFFER {
            true => self.compress(),
            false => Ok(()),
        }
    }

    fn compress(&mut self) -> io::Result<()> {
        self.compressor.write_all(&self.text)?;
        self.text.clear();
        Ok(())
    }

    /// The table of contents of a layer whose frames end at `offset`: where it is, and the frames that hold it and
    /// the footer.
    ///
    /// # Errors
    /// When there are more entries than a layer can name: some 70 million.
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
