//! The content of a file, read from the frames that hold its chunks.

use super::buffer::ContentBuffer;
use crate::error::Result;
use crate::image::ranges::FetchedFrames;
use crate::layer::Chunk;
use crate::tree::Content;
use std::io::{self, Read};

/// A place that has the chunks of a content.
pub trait ChunkSource {
    /// Returns a chunk that is not zeros, verified by its digest.
    ///
    /// # Errors
    /// Those of reading; [`Integrity`](crate::error::Kind::Integrity) if what is there has another digest.
    fn chunk(&mut self, chunk: &Chunk) -> Result<&[u8]>;
}

/// The chunks in the frames of a layer that are fetched.
pub struct FrameChunks<'f, 'a> {
    /// The frames.
    pub frames: &'f mut FetchedFrames<'a>,
    /// The number of the layer.
    pub layer: usize,
}

impl ChunkSource for FrameChunks<'_, '_> {
    fn chunk(&mut self, chunk: &Chunk) -> Result<&[u8]> {
        self.frames.chunk(self.layer, chunk)
    }
}

/// A reader of a file's content, chunk by chunk. Each chunk is verified by its digest before any byte of it is returned.
pub struct ChunkReader<S, C> {
    source: S,
    /// Returns the chunks of the file, one by one.
    chunks: C,
    /// The next chunk, if it was looked at already.
    next: Option<Result<Chunk>>,
    /// The current chunk.
    buffer: ContentBuffer,
}

impl<'f, 'a, C: FnMut() -> Result<Option<Chunk>>> ChunkReader<FrameChunks<'f, 'a>, C> {
    /// Creates a reader for these chunks of a layer. `chunks` is not called again after it has returned `None`.
    pub fn new(frames: &'f mut FetchedFrames<'a>, layer: usize, chunks: C) -> Self {
        Self::of(FrameChunks { frames, layer }, chunks)
    }
}

impl<S: ChunkSource, C: FnMut() -> Result<Option<Chunk>>> ChunkReader<S, C> {
    /// Creates a reader for these chunks of a source. `chunks` is not called again after it has returned `None`.
    pub fn of(source: S, chunks: C) -> Self {
        Self { source, chunks, next: None, buffer: ContentBuffer::default() }
    }

    fn peek(&mut self) -> Option<&Result<Chunk>> {
        if self.next.is_none() {
            self.next = (self.chunks)().transpose();
        }
        self.next.as_ref()
    }

    /// Moves to the next chunk if the current one was read to its end. Returns `false` at the end of the file. After a
    /// failure it fails again, so that no byte is skipped.
    fn advance(&mut self) -> Result<bool> {
        while self.buffer.is_empty() {
            let chunk = match self.peek() {
                None => return Ok(false),
                Some(Ok(chunk)) => chunk.clone(),
                Some(Err(_)) => return self.next.take().transpose().map(|_| false),
            };
            if chunk.zeros {
                chunk.verify_zeros()?;
                self.buffer.set_zeros(chunk.size);
            } else {
                let chunk = self.source.chunk(&chunk)?;
                let bytes = self.buffer.bytes_mut();
                bytes.clear();
                bytes.extend_from_slice(chunk);
            }
            self.next = None;
        }
        Ok(true)
    }
}

impl<S: ChunkSource, C: FnMut() -> Result<Option<Chunk>>> Read for ChunkReader<S, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.advance()? {
            return Ok(0);
        }
        self.buffer.read(buffer)
    }
}

impl<S: ChunkSource, C: FnMut() -> Result<Option<Chunk>>> Content for ChunkReader<S, C> {
    fn skip_hole(&mut self) -> u64 {
        let is_hole = self.buffer.is_empty() && matches!(self.peek(), Some(Ok(next)) if next.zeros);
        // An error here occurs again in the next read, which returns it.
        if is_hole && self.advance().is_err() {
            return 0;
        }
        self.buffer.take_zeros()
    }
}
