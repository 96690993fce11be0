//! The content of a file out of the frames that hold it.

use super::Frames;
use crate::error::Result;
use crate::layer::Chunk;
use crate::tree::Content;
use std::io::{self, Read};

/// The content of a file, chunk by chunk; each is proved before any of it can be read.
pub struct ChunkReader<'f, 'a, C> {
    frames: &'f mut Frames<'a>,
    layer: usize,
    /// Tells the chunks, one by one.
    chunks: C,
    /// The next one, or why there is none, once it was told.
    next: Option<Result<Chunk>>,
    /// The current chunk, and how much of it was read.
    bytes: Vec<u8>,
    position: usize,
    /// How many zeros come next.
    zeros: u64,
}

impl<'f, 'a, C: FnMut() -> Result<Option<Chunk>>> ChunkReader<'f, 'a, C> {
    /// The content that these chunks of a layer are; they are asked for one by one, and behind the last one never again.
    pub fn new(frames: &'f mut Frames<'a>, layer: usize, chunks: C) -> Self {
        Self { frames, layer, chunks, next: None, bytes: Vec::new(), position: 0, zeros: 0 }
    }

    fn peek(&mut self) -> Option<&Result<Chunk>> {
        if self.next.is_none() {
            self.next = (self.chunks)().transpose();
        }
        self.next.as_ref()
    }

    /// Goes on to the next chunk where the current one is over; `false` at the end. Who asks again after a failure gets it
    /// again, and not what is behind it.
    fn advance(&mut self) -> Result<bool> {
        while self.is_over() {
            let chunk = match self.peek() {
                None => return Ok(false),
                Some(Ok(chunk)) => chunk.clone(),
                Some(Err(_)) => return self.next.take().transpose().map(|_| false),
            };
            match chunk.zeros {
                true => {
                    chunk.verify_zeros()?;
                    (self.zeros, self.position) = (chunk.size, 0);
                    self.bytes.clear();
                }
                false => {
                    let bytes = self.frames.chunk(self.layer, &chunk)?;
                    self.position = 0;
                    self.bytes.clear();
                    self.bytes.extend_from_slice(bytes);
                }
            }
            self.next = None;
        }
        Ok(true)
    }

    fn is_over(&self) -> bool {
        self.zeros == 0 && self.position == self.bytes.len()
    }
}

impl<C: FnMut() -> Result<Option<Chunk>>> Read for ChunkReader<'_, '_, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.advance()? {
            return Ok(0);
        }
        if self.zeros > 0 {
            let now = usize::try_from(self.zeros).map_or(buffer.len(), |zeros| zeros.min(buffer.len()));
            buffer[..now].fill(0);
            self.zeros -= now as u64;
            return Ok(now);
        }
        let read = (&self.bytes[self.position..]).read(buffer)?;
        self.position += read;
        Ok(read)
    }
}

impl<C: FnMut() -> Result<Option<Chunk>>> Content for ChunkReader<'_, '_, C> {
    fn skip_hole(&mut self) -> u64 {
        let is_next = self.is_over() && matches!(self.peek(), Some(Ok(next)) if next.zeros);
        match is_next {
            // What went wrong is met again by whoever reads on.
            true if self.advance().is_err() => 0,
            _ => std::mem::take(&mut self.zeros),
        }
    }
}
