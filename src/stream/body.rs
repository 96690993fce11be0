//! Bytes on their way from one place to another, hashed as they pass.

use crate::error::{Error, Result};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher};
use std::io::{self, Read};

/// Bytes that somebody sent: they cannot be read before it is said what they should be.
pub struct Unverified(Box<dyn Read + Send>);

impl Unverified {
    /// What came from outside.
    pub fn new(bytes: impl Read + Send + 'static) -> Self {
        Self(Box::new(bytes))
    }

    /// A reader that fails at its end unless these bytes are what the descriptor says.
    pub fn verify(self, descriptor: &Descriptor) -> Body {
        Body {
            bytes: self.0,
            hasher: Hasher::new(descriptor.digest.algorithm()),
            size: 0,
            expected: Some(Written { digest: descriptor.digest.clone(), size: descriptor.size }),
            result: None,
        }
    }
}

/// What a place has stored: the second half of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The digest of the bytes.
    pub digest: Digest,
    /// How many they were.
    pub size: u64,
}

/// Bytes that know at their end what they were.
///
/// A place reads a body to its end, asks it by [`finish`](Body::finish) what it was, and publishes nothing
/// before it has the answer. A body that should be a certain blob fails instead of ending when it is another.
pub struct Body {
    bytes: Box<dyn Read + Send>,
    hasher: Hasher,
    size: u64,
    expected: Option<Written>,
    /// What the bytes were, once their end was seen.
    result: Option<Written>,
}

impl Body {
    /// Bytes of our own making, whose digest is known when they have passed.
    pub fn new(bytes: impl Read + Send + 'static) -> Self {
        Self {
            bytes: Box::new(bytes),
            hasher: Hasher::new(Algorithm::Sha256),
            size: 0,
            expected: None,
            result: None,
        }
    }

    /// What the bytes will be, where that is known beforehand.
    pub fn expected(&self) -> Option<&Written> {
        self.expected.as_ref()
    }

    /// The same body, with `passed` called for the number of bytes of each read.
    #[must_use]
    pub fn observed(self, passed: impl Fn(u64) + Send + 'static) -> Self {
        Self { bytes: Box::new(Observed { bytes: self.bytes, passed }), ..self }
    }

    /// What the bytes were.
    ///
    /// # Errors
    /// When they were not read to their end: nobody may publish half of them.
    pub fn finish(self) -> Result<Written> {
        self.result.ok_or_else(|| Error::failed("the data was not read to its end"))
    }

    /// Reads all that is left.
    ///
    /// # Errors
    /// Those of reading; [`Integrity`](crate::error::Kind::Integrity) when the bytes are not what they should be.
    pub fn drain(mut self) -> Result<Written> {
        io::copy(&mut self, &mut io::sink()).map_err(|error| Error::io("cannot read the data", error))?;
        self.finish()
    }

    /// Called at the end of the bytes: the moment of truth.
    fn seal(&mut self) -> io::Result<()> {
        // A copy: whoever reads on after a failure must get the same failure, and not a verdict about nothing.
        let written = Written { digest: self.hasher.clone().finish(), size: self.size };
        if let Some(expected) = &self.expected
            && *expected != written
        {
            return Err(mismatch(expected, &written).into());
        }
        self.result = Some(written);
        Ok(())
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.result.is_some() || buffer.is_empty() {
            return Ok(0);
        }
        let read = self.bytes.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        match &self.expected {
            // More than was promised is wrong already; an endless body must not be read to its end.
            Some(expected) if self.size > expected.size => {
                return Err(Error::integrity(format!(
                    "blob {} is longer than the {} bytes its descriptor promises",
                    expected.digest, expected.size
                ))
                .hint(HINT)
                .into());
            }
            _ if read == 0 => self.seal()?,
            _ => {}
        }
        Ok(read)
    }
}

const HINT: &str = "it was damaged or replaced where it is stored or on its way; nothing of it was used";

fn mismatch(expected: &Written, written: &Written) -> Error {
    match expected.size == written.size {
        false => Error::integrity(format!(
            "blob {} should have {} bytes and has {}",
            expected.digest, expected.size, written.size
        )),
        true => Error::integrity(format!("blob {} has the digest {}", expected.digest, written.digest)),
    }
    .hint(HINT)
}

struct Observed<F> {
    bytes: Box<dyn Read + Send>,
    passed: F,
}

impl<F: Fn(u64) + Send> Read for Observed<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        (self.passed)(read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn verify(bytes: &'static [u8], promised: &[u8]) -> Result<Written> {
        Unverified::new(bytes).verify(&Descriptor::of("x", promised)).drain()
    }

    #[test]
    fn the_right_bytes_pass_and_say_what_they_were() {
        let written = verify(b"data", b"data").unwrap();
        assert_eq!(written, Written { digest: Digest::of(b"data"), size: 4 });
    }

    #[test]
    fn a_flipped_a_missing_and_an_additional_byte_are_integrity_errors() {
        for bytes in [&b"dada"[..], b"dat", b"data2", b""] {
            assert_eq!(verify(bytes, b"data").unwrap_err().kind(), Kind::Integrity, "{bytes:?}");
        }
    }

    #[test]
    fn an_endless_body_is_not_read_to_its_end() {
        let endless = Unverified::new(io::repeat(0)).verify(&Descriptor::of("x", b"data"));
        assert_eq!(endless.drain().unwrap_err().kind(), Kind::Integrity);
    }

    #[test]
    fn a_failure_stays_one_however_often_it_is_asked() {
        let claim = Descriptor { size: 4, ..Descriptor::of("x", b"") };
        let mut body = Unverified::new(&b"data"[..]).verify(&claim);
        for _ in 0..3 {
            assert!(body.read_to_end(&mut Vec::new()).is_err());
        }
        assert!(body.finish().is_err());
    }

    #[test]
    fn half_a_body_has_no_digest() {
        let mut body = Body::new(&b"data"[..]);
        body.read_exact(&mut [0; 4]).unwrap();
        assert!(body.finish().is_err());
    }
}
