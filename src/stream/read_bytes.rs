//! Reading without copying.

use bytes::Bytes;
use std::io;

/// A source that returns bytes without a copy where it has them in memory.
pub trait ReadBytes {
    /// Returns the next bytes, at most `limit`, and none at the end. They share the memory of the source where that is
    /// possible.
    ///
    /// # Errors
    /// Those of reading.
    fn read_bytes(&mut self, limit: usize) -> io::Result<Bytes>;
}
