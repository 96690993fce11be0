//! Bytes from outside, which are verified while they are read.

use super::body::{Body, HINT, Reader, Reopen};
use crate::error::{Error, Result};
use crate::oci::Descriptor;
use std::io::Read;

/// The most memory that is allocated in advance for a size that is not verified, in bytes.
const MAX_PREALLOCATED: usize = 4 << 20;

/// Bytes from outside. They cannot be read before it is declared what they should be.
pub struct Unverified {
    bytes: Reader,
    reopen: Option<Reopen>,
}

impl Unverified {
    /// Wraps bytes from outside.
    pub fn new(bytes: impl Read + Send + 'static) -> Self {
        Self { bytes: Box::new(bytes), reopen: None }
    }

    /// Adds a function that opens the same bytes again, from an offset on.
    #[must_use]
    pub fn reopenable(self, open: impl Fn(u64) -> Result<Box<dyn Read + Send>> + Send + 'static) -> Self {
        Self { reopen: Some(Box::new(open)), ..self }
    }

    /// Reads the next `size` bytes into memory. They are **not verified**: the method is for frames of an indexed
    /// layer. The caller verifies their chunks by a table of contents before it uses them. The following bytes can be
    /// read afterwards.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if there are fewer bytes.
    pub fn take_unverified(&mut self, size: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(size.min(MAX_PREALLOCATED));
        (&mut self.bytes)
            .take(size as u64)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io("cannot read a part of a blob", error))?;
        if bytes.len() != size {
            return Err(Error::integrity(format!(
                "a part of a blob should have {size} bytes and has {}",
                bytes.len()
            ))
            .with_hint(HINT));
        }
        Ok(bytes)
    }

    /// Returns a reader that fails at its end unless the bytes have the digest and the size of the descriptor.
    pub fn verify(self, descriptor: &Descriptor) -> Body {
        Body::expecting(self.bytes, self.reopen, descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::io;

    #[test]
    fn unverified_bytes_have_the_requested_size_and_take_no_memory_before_they_come() {
        let mut part = Unverified::new(&b"some data"[..]);
        assert_eq!(part.take_unverified(4).unwrap(), b"some");
        assert_eq!(part.take_unverified(5).unwrap(), b" data");
        assert_eq!(part.take_unverified(0).unwrap(), b"");
        let mut short = Unverified::new(&b"some data"[..]);
        assert_eq!(short.take_unverified(usize::MAX).unwrap_err().kind(), Kind::Integrity);
        let mut endless = Unverified::new(io::repeat(7));
        assert_eq!(endless.take_unverified(3).unwrap(), [7, 7, 7]);
    }
}
