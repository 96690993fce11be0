//! Streams of bytes that are hashed and verified while they are read.

use crate::error::{Error, Result};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher};
use std::io::{self, Read};

type Bytes = Box<dyn Read + Send>;
/// A function that opens the same bytes again, from an offset on.
type Reopen = Box<dyn Fn(u64) -> Result<Bytes> + Send>;
/// A function that returns the digest of the bytes, once they were read to their end.
type SourceDigest = Box<dyn Fn() -> Option<Digest> + Send>;

/// The distance between checkpoints of the hash, in bytes. A rewind reads at most as much again.
const CHECKPOINT: u64 = 4 << 20;
/// The most memory that is allocated in advance for a size that is not verified, in bytes.
const MAX_PREALLOCATED: usize = 4 << 20;

/// Bytes from outside. They cannot be read before it is declared what they should be.
pub struct Unverified {
    bytes: Bytes,
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
        Body {
            reopen: self.reopen,
            expected: Some(Written { digest: descriptor.digest.clone(), size: descriptor.size }),
            ..Body::over(self.bytes, descriptor.digest.algorithm())
        }
    }
}

/// The digest and the size of bytes that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The digest of the bytes.
    pub digest: Digest,
    /// The number of bytes.
    pub size: u64,
}

/// A byte stream that knows its digest once it was read to its end.
///
/// A destination reads a body to its end and calls [`finish`](Body::finish) before it publishes anything. A body with an
/// expected digest fails at its end if the digest differs.
pub struct Body {
    bytes: Bytes,
    reopen: Option<Reopen>,
    /// `None` if the body computes the digest.
    source_digest: Option<SourceDigest>,
    hasher: Hasher,
    /// The state of the hash at every multiple of [`CHECKPOINT`], beginning with zero.
    checkpoints: Vec<Hasher>,
    /// The number of bytes that were read and hashed.
    size: u64,
    /// The largest number of bytes that were read before any rewind.
    max_size: u64,
    on_read: Vec<Box<dyn Fn(u64) + Send>>,
    expected: Option<Written>,
    /// The digest and the size, once the end was read.
    result: Option<Written>,
}

impl Body {
    /// Creates a body of bytes without an expected digest.
    pub fn new(bytes: impl Read + Send + 'static) -> Self {
        Self::over(Box::new(bytes), Algorithm::Sha256)
    }

    /// Creates a body of bytes whose source computes their digest. `digest` returns that after the bytes were read to
    /// their end.
    pub fn with_digest(
        bytes: impl Read + Send + 'static,
        digest: impl Fn() -> Option<Digest> + Send + 'static,
    ) -> Self {
        Self { source_digest: Some(Box::new(digest)), ..Self::new(bytes) }
    }

    fn over(bytes: Bytes, algorithm: Algorithm) -> Self {
        Self {
            bytes,
            reopen: None,
            source_digest: None,
            hasher: Hasher::new(algorithm),
            checkpoints: vec![Hasher::new(algorithm)],
            size: 0,
            max_size: 0,
            on_read: Vec::new(),
            expected: None,
            result: None,
        }
    }

    /// Returns the expected digest and size, if there are any.
    pub fn expected(&self) -> Option<&Written> {
        self.expected.as_ref()
    }

    /// Adds a function that is called with the number of bytes of each read. Bytes that are read again are not counted.
    #[must_use]
    pub fn on_read(mut self, on_read: impl Fn(u64) + Send + 'static) -> Self {
        self.on_read.push(Box::new(on_read));
        self
    }

    /// Returns whether the body can be rewound, or begin in the middle.
    pub fn can_rewind(&self) -> bool {
        self.reopen.is_some()
    }

    /// Returns the number of bytes that were read.
    pub fn position(&self) -> u64 {
        self.size
    }

    /// Goes back to an offset that was read before. Returns `false` if the bytes cannot be opened again. The bytes after the
    /// offset are hashed again, because they may be different ones.
    ///
    /// # Errors
    /// Fails if the bytes cannot be opened or read.
    pub fn rewind(&mut self, offset: u64) -> Result<bool> {
        let Some(reopen) = &self.reopen else { return Ok(false) };
        let checkpoint =
            usize::try_from(offset / CHECKPOINT).unwrap_or(usize::MAX).min(self.checkpoints.len() - 1);
        let start = checkpoint as u64 * CHECKPOINT;
        self.bytes = reopen(start)?;
        self.hasher = self.checkpoints[checkpoint].clone();
        self.checkpoints.truncate(checkpoint + 1);
        (self.size, self.result) = (start, None);
        self.hash_until(offset)?;
        Ok(true)
    }

    /// Reads and hashes the bytes up to an offset and drops them, because the destination has them already.
    ///
    /// # Errors
    /// Those of reading; fails if the bytes end before the offset.
    pub fn hash_until(&mut self, offset: u64) -> Result<()> {
        let left = offset - self.size;
        let skipped = io::copy(&mut self.by_ref().take(left), &mut io::sink())
            .map_err(|error| Error::io("cannot read the data again", error))?;
        if skipped < left {
            return Err(Error::failed("the data is shorter than it was"));
        }
        Ok(())
    }

    /// Hashes the first bytes of the blob from `part`, where an interrupted transfer has left them, so that only the rest is
    /// read from the source. Returns the number of bytes; zero if the source cannot be opened in the middle.
    ///
    /// # Errors
    /// Fails if either cannot be read.
    pub fn prefill(&mut self, mut part: impl Read) -> Result<u64> {
        let (Some(reopen), 0) = (&self.reopen, self.size) else { return Ok(0) };
        let limit = self.expected.as_ref().map_or(0, |expected| expected.size);
        let mut buffer = vec![0; 128 << 10];
        let (mut hasher, mut size, mut checkpoints) = (self.hasher.clone(), 0, self.checkpoints.clone());
        while size < limit {
            let read =
                part.read(&mut buffer).map_err(|error| Error::io("cannot read what came before", error))?;
            if read == 0 {
                break;
            }
            let read = read.min(usize::try_from(limit - size).unwrap_or(usize::MAX));
            hash(&mut hasher, &mut size, &mut checkpoints, &buffer[..read]);
        }
        self.bytes = reopen(size)?;
        (self.hasher, self.size, self.checkpoints, self.max_size) = (hasher, size, checkpoints, size);
        self.on_read.iter().for_each(|on_read| on_read(size));
        Ok(size)
    }

    /// Returns the digest and the size, and keeps the body.
    ///
    /// # Errors
    /// Fails if the body was not read to its end.
    pub fn written(&self) -> Result<Written> {
        self.result.clone().ok_or_else(|| Error::failed("the data was not read to its end"))
    }

    /// Returns the digest and the size.
    ///
    /// # Errors
    /// Fails if the body was not read to its end, so that half a blob is not published.
    pub fn finish(self) -> Result<Written> {
        self.result.ok_or_else(|| Error::failed("the data was not read to its end"))
    }

    /// Reads the rest of the body.
    ///
    /// # Errors
    /// Those of reading; [`Integrity`](crate::error::Kind::Integrity) if the digest or the size is not the expected one.
    pub fn drain(mut self) -> Result<Written> {
        io::copy(&mut self, &mut io::sink()).map_err(|error| Error::io("cannot read the data", error))?;
        self.finish()
    }

    /// Checks the digest and the size at the end of the bytes.
    fn seal(&mut self) -> io::Result<()> {
        let digest = match &self.source_digest {
            Some(digest) => digest()
                .ok_or_else(|| Error::failed("data has ended without a digest; this is a bug in volio"))?,
            // The hasher is cloned, so that a further read after a failure gives the same failure.
            None => self.hasher.clone().finish(),
        };
        let written = Written { digest, size: self.size };
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
        if self.source_digest.is_some() {
            self.size += read as u64;
        } else {
            hash(&mut self.hasher, &mut self.size, &mut self.checkpoints, &buffer[..read]);
        }
        if let Some(new) = self.size.checked_sub(self.max_size).filter(|new| *new > 0) {
            self.max_size = self.size;
            self.on_read.iter().for_each(|on_read| on_read(new));
        }
        match &self.expected {
            // More bytes than expected are wrong already, and the body may be endless.
            Some(expected) if self.size > expected.size => {
                return Err(Error::integrity(format!(
                    "blob {} is longer than the {} bytes its descriptor promises",
                    expected.digest, expected.size
                ))
                .with_hint(HINT)
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
    let what = if expected.size == written.size {
        format!("blob {} has the digest {}", expected.digest, written.digest)
    } else {
        format!("blob {} should have {} bytes and has {}", expected.digest, expected.size, written.size)
    };
    Error::integrity(what).with_hint(HINT)
}

/// Hashes bytes, and keeps the state of the hash at each checkpoint.
fn hash(hasher: &mut Hasher, size: &mut u64, checkpoints: &mut Vec<Hasher>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let room = usize::try_from(CHECKPOINT - *size % CHECKPOINT).unwrap_or(usize::MAX);
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        hasher.update(now);
        *size += now.len() as u64;
        if size.is_multiple_of(CHECKPOINT) {
            checkpoints.push(hasher.clone());
        }
        bytes = later;
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
    fn the_right_bytes_pass_and_their_digest_is_known() {
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
    fn a_failure_is_repeated_by_every_further_read() {
        let claim = Descriptor { size: 4, ..Descriptor::of("x", b"") };
        let mut body = Unverified::new(&b"data"[..]).verify(&claim);
        for _ in 0..3 {
            assert!(body.read_to_end(&mut Vec::new()).is_err());
        }
        assert!(body.finish().is_err());
    }

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

    #[test]
    fn a_body_takes_the_digest_from_its_source_at_the_end_and_fails_without_one() {
        let digest = Digest::of(b"of the source");
        let known = digest.clone();
        let written = Body::with_digest(&b"data"[..], move || Some(known.clone())).drain().unwrap();
        assert_eq!(written, Written { digest, size: 4 });
        assert!(Body::with_digest(&b"data"[..], || None).drain().is_err());
    }

    #[test]
    fn half_a_body_has_no_digest() {
        let mut body = Body::new(&b"data"[..]);
        body.read_exact(&mut [0; 4]).unwrap();
        assert!(body.finish().is_err());
    }

    /// Bytes over several checkpoints, and a body of them that can be rewound.
    fn long() -> (Vec<u8>, Body) {
        let bytes: Vec<u8> = (0..3 * CHECKPOINT + 7).map(|n| (n % 251) as u8).collect();
        let descriptor = Descriptor::of("x", &bytes);
        let open = {
            let bytes = bytes.clone();
            move |offset: u64| -> Result<Box<dyn Read + Send>> {
                Ok(Box::new(io::Cursor::new(bytes[offset as usize..].to_vec())))
            }
        };
        let body = Unverified::new(io::Cursor::new(bytes.clone())).reopenable(open).verify(&descriptor);
        (bytes, body)
    }

    #[test]
    fn a_rewound_body_still_has_the_right_digest() {
        for (read, back) in [
            (10, 3),
            (CHECKPOINT, CHECKPOINT),
            (CHECKPOINT + 1, CHECKPOINT - 1),
            (3 * CHECKPOINT + 7, 0),
            (3 * CHECKPOINT, 2 * CHECKPOINT + 5),
        ] {
            let (bytes, mut body) = long();
            body.hash_until(read).unwrap();
            assert!(body.rewind(back).unwrap());
            assert_eq!(body.position(), back);
            let mut rest = Vec::new();
            body.read_to_end(&mut rest).unwrap();
            assert!(rest == bytes[back as usize..], "{read} {back}");
            assert_eq!(body.finish().unwrap().digest, Digest::of(&bytes));
        }
    }

    #[test]
    fn bytes_that_are_read_again_are_not_counted_again() {
        let (bytes, body) = long();
        let counted = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counter = std::sync::Arc::clone(&counted);
        let mut body = body.on_read(move |n| _ = counter.fetch_add(n, std::sync::atomic::Ordering::Relaxed));
        body.hash_until(CHECKPOINT * 2).unwrap();
        body.rewind(5).unwrap();
        body.drain().unwrap();
        assert_eq!(counted.load(std::sync::atomic::Ordering::Relaxed), bytes.len() as u64);
    }

    #[test]
    fn a_prefilled_part_is_verified_with_the_rest() {
        let (bytes, mut body) = long();
        assert_eq!(body.prefill(&bytes[..CHECKPOINT as usize + 1]).unwrap(), CHECKPOINT + 1);
        assert!(body.drain().is_ok());
        let (bytes, mut body) = long();
        let mut wrong = bytes[..100].to_vec();
        wrong[50] ^= 1;
        assert_eq!(body.prefill(&wrong[..]).unwrap(), 100);
        assert_eq!(body.drain().unwrap_err().kind(), Kind::Integrity);
        let mut once = Unverified::new(&b"data"[..]).verify(&Descriptor::of("x", b"data"));
        assert_eq!(once.prefill(&b"da"[..]).unwrap(), 0);
        assert!(!once.rewind(0).unwrap());
        assert!(once.drain().is_ok());
    }
}
