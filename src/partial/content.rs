//! The content of a file out of the frames that hold it.

use super::Frames;
use crate::error::Result;
use crate::layer::Chunk;
use crate::tree::Content;
use std::io::{self, Read};
use std::vec;

/// The content of a file, chunk by chunk; each is proved before any of it can be read.
pub struct ChunkReader<'f, 'a> {
    frames: &'f mut Frames<'a>,
    layer: usize,
    chunks: vec::IntoIter<Chunk>,
    /// The current chunk, and how much of it was read.
    bytes: Vec<u8>,
    position: usize,
    /// How many zeros come next.
    zeros: u64,
}

impl<'f, 'a> ChunkReader<'f, 'a> {
    /// The content that these chunks of a layer are.
    pub fn new(frames: &'f mut Frames<'a>, layer: usize, chunks: Vec<Chunk>) -> Self {
        Self { frames, layer, chunks: chunks.into_iter(), bytes: Vec::new(), position: 0, zeros: 0 }
    }

    /// Goes on to the next chunk where the current one is over; `false` at the end. Who asks again after a failure gets it
    /// again, and not what is behind it.
    fn advance(&mut self) -> Result<bool> {
        while self.is_over() {
            let Some(chunk) = self.chunks.as_slice().first() else { return Ok(false) };
            match chunk.zeros {
                true => {
                    chunk.prove_zeros()?;
                    (self.zeros, self.position) = (chunk.size, 0);
                    self.bytes.clear();
                }
                false => {
                    let bytes = self.frames.chunk(self.layer, chunk)?;
                    self.position = 0;
                    self.bytes.clear();
                    self.bytes.extend_from_slice(bytes);
                }
            }
            self.chunks.next();
        }
        Ok(true)
    }

    fn is_over(&self) -> bool {
        self.zeros == 0 && self.position == self.bytes.len()
    }
}

impl Read for ChunkReader<'_, '_> {
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

impl Content for ChunkReader<'_, '_> {
    fn skip_hole(&mut self) -> u64 {
        let is_next = self.is_over() && self.chunks.as_slice().first().is_some_and(|next| next.zeros);
        match is_next {
            // What went wrong is met again by whoever reads on.
            true if self.advance().is_err() => 0,
            _ => std::mem::take(&mut self.zeros),
        }
    }
}
