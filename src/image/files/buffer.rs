//! Verified content that was not returned to the reader yet.

use std::io::{self, Read};

/// A verified part of a file: bytes, or the zeros of a hole.
#[derive(Default)]
pub(super) struct ContentBuffer {
    bytes: Vec<u8>,
    /// The number of bytes that were read.
    position: usize,
    /// The number of zeros that come next. There are no bytes then.
    zeros: u64,
}

impl ContentBuffer {
    /// Returns whether it was read to its end.
    pub fn is_empty(&self) -> bool {
        self.zeros == 0 && self.position == self.bytes.len()
    }

    /// Replaces the content with this number of zeros.
    pub fn set_zeros(&mut self, count: u64) {
        self.bytes_mut().clear();
        self.zeros = count;
    }

    /// Returns the bytes, to be replaced by the next ones.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.position = 0;
        &mut self.bytes
    }

    /// Returns the number of zeros that come next, and skips them.
    pub fn take_zeros(&mut self) -> u64 {
        std::mem::take(&mut self.zeros)
    }
}

impl Read for ContentBuffer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.zeros > 0 {
            let count = usize::try_from(self.zeros).map_or(buffer.len(), |zeros| zeros.min(buffer.len()));
            buffer[..count].fill(0);
            self.zeros -= count as u64;
            return Ok(count);
        }
        let read = (&self.bytes[self.position..]).read(buffer)?;
        self.position += read;
        Ok(read)
    }
}
