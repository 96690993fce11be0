//! The content of a file, read from the frames that hold its chunks.

use super::buffer::ContentBuffer;
use crate::error::Result;
use crate::image::ranges::FetchedFrames;
use crate::layer::Chunk;
use crate::tree::Content;
use std::io::{self, Read};

/// A reader of a file's content, chunk by chunk. Each chunk is verified by its digest before any byte of it is returned.
pub struct ChunkReader<'f, 'a, C> {
    frames: &'f mut FetchedFrames<'a>,
    /// The number of the layer.
    layer: usize,
    /// Returns the chunks of the file, one by one.
    chunks: C,
    /// The next chunk, if it was looked at already.
    next: Option<Result<Chunk>>,
    /// The current chunk.
    buffer: ContentBuffer,
}

impl<'f, 'a, C: FnMut() -> Result<Option<Chunk>>> ChunkReader<'f, 'a, C> {
    /// Creates a reader for these chunks of a layer. `chunks` is not called again after it has returned `None`.
    pub fn new(frames: &'f mut FetchedFrames<'a>, layer: usize, chunks: C) -> Self {
        Self { frames, layer, chunks, next: None, buffer: ContentBuffer::default() }
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
                let chunk = self.frames.chunk(self.layer, &chunk)?;
                let bytes = self.buffer.bytes_mut();
                bytes.clear();
                bytes.extend_from_slice(chunk);
            }
            self.next = None;
        }
        Ok(true)
    }
}

impl<C: FnMut() -> Result<Option<Chunk>>> Read for ChunkReader<'_, '_, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.advance()? {
            return Ok(0);
        }
        self.buffer.read(buffer)
    }
}

impl<C: FnMut() -> Result<Option<Chunk>>> Content for ChunkReader<'_, '_, C> {
    fn skip_hole(&mut self) -> u64 {
        let is_hole = self.buffer.is_empty() && matches!(self.peek(), Some(Ok(next)) if next.zeros);
        // An error here occurs again in the next read, which returns it.
        if is_hole && self.advance().is_err() {
            return 0;
        }
        self.buffer.take_zeros()
    }
}
