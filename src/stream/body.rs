//! Streams of bytes that are hashed and verified while they are read.

use super::read_bytes::ReadBytes;
use crate::error::{Error, Result};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher};
use bytes::Bytes;
use std::io::{self, Read};

pub(super) type Reader = Box<dyn Read + Send>;
/// A function that opens the same bytes again, from an offset on.
pub(super) type Reopen = Box<dyn Fn(u64) -> Result<Reader> + Send>;
/// A function that returns the digest of the bytes, once they were read to their end.
type SourceDigest = Box<dyn Fn() -> Option<Digest> + Send>;

/// The distance between checkpoints of the hash, in bytes. A rewind reads at most as much again.
const CHECKPOINT: u64 = 4 << 20;

/// The digest and the size of bytes that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The digest of the bytes.
    pub digest: Digest,
    /// The number of bytes.
    pub size: u64,
}

/// A reader that has its bytes in memory.
trait MemoryReader: Read + ReadBytes + Send {}

impl<T: Read + ReadBytes + Send> MemoryReader for T {}

/// The source of a body.
enum Source {
    Reader(Reader),
    Memory(Box<dyn MemoryReader>),
}

/// A byte stream that knows its digest once it was read to its end.
///
/// A destination reads a body to its end and calls [`finish`](Body::finish) before it publishes anything. A body with an
/// expected digest fails at its end if the digest differs.
pub struct Body {
    source: Source,
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
        Self::over(Source::Reader(Box::new(bytes)), Algorithm::Sha256)
    }

    /// Creates a body of bytes that their source has in memory.
    pub fn of_memory(bytes: impl Read + ReadBytes + Send + 'static) -> Self {
        Self::over(Source::Memory(Box::new(bytes)), Algorithm::Sha256)
    }

    /// Takes the digest from the source of the bytes instead of computing it. `digest` returns it after the bytes were read
    /// to their end.
    #[must_use]
    pub fn with_digest(self, digest: impl Fn() -> Option<Digest> + Send + 'static) -> Self {
        Self { source_digest: Some(Box::new(digest)), ..self }
    }

    /// Creates a body that fails at its end unless the bytes have the digest and the size of the descriptor. `reopen` makes
    /// it possible to rewind it.
    pub(super) fn expecting(reader: Reader, reopen: Option<Reopen>, descriptor: &Descriptor) -> Self {
        let expected = Some(Written { digest: descriptor.digest.clone(), size: descriptor.size });
        let algorithm = descriptor.digest.algorithm();
        Self { reopen, expected, ..Self::over(Source::Reader(reader), algorithm) }
    }

    fn over(source: Source, algorithm: Algorithm) -> Self {
        Self {
            source,
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
        self.source = Source::Reader(reopen(start)?);
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
        self.source = Source::Reader(reopen(size)?);
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

    /// Counts and hashes the next bytes. None are the end of the body, which is verified then.
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.source_digest.is_some() {
            self.size += bytes.len() as u64;
        } else {
            hash(&mut self.hasher, &mut self.size, &mut self.checkpoints, bytes);
        }
        if let Some(new) = self.size.checked_sub(self.max_size).filter(|new| *new > 0) {
            self.max_size = self.size;
            self.on_read.iter().for_each(|on_read| on_read(new));
        }
        match &self.expected {
            // More bytes than expected are wrong already, and the body may be endless.
            Some(expected) if self.size > expected.size => Err(Error::integrity(format!(
                "blob {} is longer than the {} bytes its descriptor promises",
                expected.digest, expected.size
            ))
            .with_hint(HINT)
            .into()),
            _ if bytes.is_empty() => self.seal(),
            _ => Ok(()),
        }
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
        let read = match &mut self.source {
            Source::Reader(reader) => reader.read(buffer)?,
            Source::Memory(reader) => reader.read(buffer)?,
        };
        self.add(&buffer[..read])?;
        Ok(read)
    }
}

impl ReadBytes for Body {
    fn read_bytes(&mut self, limit: usize) -> io::Result<Bytes> {
        let Source::Memory(reader) = &mut self.source else {
            let mut bytes = Vec::with_capacity(limit);
            self.take(limit as u64).read_to_end(&mut bytes)?;
            return Ok(bytes.into());
        };
        if self.result.is_some() || limit == 0 {
            return Ok(Bytes::new());
        }
        let bytes = reader.read_bytes(limit)?;
        self.add(&bytes)?;
        Ok(bytes)
    }
}

pub(super) const HINT: &str =
    "it was damaged or replaced where it is stored or on its way; nothing of it was used";

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
    use crate::stream::Unverified;

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
    fn a_body_takes_the_digest_from_its_source_at_the_end_and_fails_without_one() {
        let digest = Digest::of(b"of the source");
        let known = digest.clone();
        let written = Body::new(&b"data"[..]).with_digest(move || Some(known.clone())).drain().unwrap();
        assert_eq!(written, Written { digest, size: 4 });
        assert!(Body::new(&b"data"[..]).with_digest(|| None).drain().is_err());
    }

    /// Bytes that are taken in parts of at most three.
    struct InMemory(Bytes);

    impl ReadBytes for InMemory {
        fn read_bytes(&mut self, limit: usize) -> io::Result<Bytes> {
            Ok(self.0.split_to(self.0.len().min(limit).min(3)))
        }
    }

    impl Read for InMemory {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let bytes = self.read_bytes(buffer.len())?;
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    #[test]
    fn bytes_that_are_taken_are_hashed_and_counted_as_those_that_are_read() {
        let text = b"taken without a copy";
        for mut body in [Body::of_memory(InMemory(Bytes::from_static(text))), Body::new(&text[..])] {
            assert!(body.read_bytes(0).unwrap().is_empty());
            let mut taken = body.read_bytes(4).unwrap().to_vec();
            let mut buffer = [0; 2];
            body.read_exact(&mut buffer).unwrap();
            taken.extend(buffer);
            assert_eq!(body.position(), taken.len() as u64);
            while let bytes = body.read_bytes(7).unwrap()
                && !bytes.is_empty()
            {
                taken.extend(bytes);
            }
            assert_eq!(taken, text);
            assert_eq!(body.finish().unwrap(), Written { digest: Digest::of(text), size: text.len() as u64 });
        }
    }

    #[test]
    fn taken_bytes_that_are_not_the_expected_ones_fail_before_the_end() {
        for promised in [&b"dada"[..], b"dat", b"data2"] {
            let expected = Some(Written { digest: Digest::of(promised), size: promised.len() as u64 });
            let mut body = Body { expected, ..Body::of_memory(InMemory(Bytes::from_static(b"data"))) };
            let failed = loop {
                match body.read_bytes(8) {
                    Ok(bytes) if bytes.is_empty() => break false,
                    Ok(_) => {}
                    Err(_) => break true,
                }
            };
            assert!(failed, "{promised:?}");
        }
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
