//! Bytes on their way from one place to another, hashed as they pass.

use crate::error::{Error, Result};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher};
use std::io::{self, Read};

type Bytes = Box<dyn Read + Send>;
/// Opens the same bytes once more, from an offset on.
type Again = Box<dyn Fn(u64) -> Result<Bytes> + Send>;

/// How far apart the places are whose hash is remembered: going back costs reading at most as much again.
const MARK: u64 = 4 << 20;
/// How much memory is taken at once because somebody says that so many bytes will come.
const TRUSTED: usize = 4 << 20;

/// Bytes that somebody sent: they cannot be read before it is said what they should be.
pub struct Unverified {
    bytes: Bytes,
    again: Option<Again>,
}

impl Unverified {
    /// What came from outside.
    pub fn new(bytes: impl Read + Send + 'static) -> Self {
        Self { bytes: Box::new(bytes), again: None }
    }

    /// The same bytes, which can be opened again, from an offset on: who sends them can go back.
    #[must_use]
    pub fn reopenable(self, open: impl Fn(u64) -> Result<Box<dyn Read + Send>> + Send + 'static) -> Self {
        Self { again: Some(Box::new(open)), ..self }
    }

    /// The next `size` bytes, in memory, and **not proved**: for the frames of an indexed layer, whose chunks a table of
    /// contents names. They must be proved before anything of them is used. The rest can be taken afterwards.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when there are fewer.
    pub fn take_unproved(&mut self, size: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(size.min(TRUSTED));
        (&mut self.bytes)
            .take(size as u64)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io("cannot read a part of a blob", error))?;
        match bytes.len() == size {
            true => Ok(bytes),
            false => Err(Error::integrity(format!(
                "a part of a blob should have {size} bytes and has {}",
                bytes.len()
            ))
            .with_hint(HINT)),
        }
    }

    /// A reader that fails at its end unless these bytes are what the descriptor says.
    pub fn verify(self, descriptor: &Descriptor) -> Body {
        Body {
            again: self.again,
            expected: Some(Written { digest: descriptor.digest.clone(), size: descriptor.size }),
            ..Body::over(self.bytes, descriptor.digest.algorithm())
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
    bytes: Bytes,
    again: Option<Again>,
    hasher: Hasher,
    /// The hash at every [`MARK`], beginning with that of nothing.
    marks: Vec<Hasher>,
    /// How many bytes were read and hashed.
    size: u64,
    /// The most that were ever read.
    seen: u64,
    passed: Vec<Box<dyn Fn(u64) + Send>>,
    expected: Option<Written>,
    /// What the bytes were, once their end was seen.
    result: Option<Written>,
}

impl Body {
    /// Bytes of our own making, whose digest is known when they have passed.
    pub fn new(bytes: impl Read + Send + 'static) -> Self {
        Self::over(Box::new(bytes), Algorithm::Sha256)
    }

    fn over(bytes: Bytes, algorithm: Algorithm) -> Self {
        Self {
            bytes,
            again: None,
            hasher: Hasher::new(algorithm),
            marks: vec![Hasher::new(algorithm)],
            size: 0,
            seen: 0,
            passed: Vec::new(),
            expected: None,
            result: None,
        }
    }

    /// What the bytes will be, where that is known beforehand.
    pub fn expected(&self) -> Option<&Written> {
        self.expected.as_ref()
    }

    /// The same body, with `passed` called for the number of bytes of each read; those that are read again do not
    /// count.
    #[must_use]
    pub fn observed(mut self, passed: impl Fn(u64) + Send + 'static) -> Self {
        self.passed.push(Box::new(passed));
        self
    }

    /// Whether it can go back, or begin in the middle.
    pub fn comes_again(&self) -> bool {
        self.again.is_some()
    }

    /// How many bytes were read.
    pub fn position(&self) -> u64 {
        self.size
    }

    /// Goes back to a place that was read already, so that it is read again from there; `false` where the bytes
    /// come only once. What was read is not believed to be the same again: it is hashed as it comes.
    ///
    /// # Errors
    /// When the bytes cannot be opened or read any more.
    pub fn rewind(&mut self, offset: u64) -> Result<bool> {
        let Some(again) = &self.again else { return Ok(false) };
        let mark = usize::try_from(offset / MARK).unwrap_or(usize::MAX).min(self.marks.len() - 1);
        let start = mark as u64 * MARK;
        self.bytes = again(start)?;
        self.hasher = self.marks[mark].clone();
        self.marks.truncate(mark + 1);
        (self.size, self.result) = (start, None);
        self.skip_to(offset)?;
        Ok(true)
    }

    /// Reads on to a place and only hashes what comes before it: somebody has it already.
    ///
    /// # Errors
    /// Those of reading; also when the bytes end before.
    pub fn skip_to(&mut self, offset: u64) -> Result<()> {
        let left = offset - self.size;
        let skipped = io::copy(&mut self.by_ref().take(left), &mut io::sink())
            .map_err(|error| Error::io("cannot read the data again", error))?;
        match skipped == left {
            true => Ok(()),
            false => Err(Error::failed("the data is shorter than it was")),
        }
    }

    /// Takes the first bytes from where they are already, a part of the same blob that came before, and only the
    /// others from where they come from. Says how many were taken: none where these cannot be opened in the middle.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn begin_with(&mut self, mut part: impl Read) -> Result<u64> {
        let (Some(again), 0) = (&self.again, self.size) else { return Ok(0) };
        let limit = self.expected.as_ref().map_or(0, |expected| expected.size);
        let mut buffer = vec![0; 128 << 10];
        let (mut hasher, mut size, mut marks) = (self.hasher.clone(), 0, self.marks.clone());
        while size < limit {
            let read =
                part.read(&mut buffer).map_err(|error| Error::io("cannot read what came before", error))?;
            if read == 0 {
                break;
            }
            let read = read.min(usize::try_from(limit - size).unwrap_or(usize::MAX));
            hash(&mut hasher, &mut size, &mut marks, &buffer[..read]);
        }
        self.bytes = again(size)?;
        (self.hasher, self.size, self.marks, self.seen) = (hasher, size, marks, size);
        self.passed.iter().for_each(|passed| passed(size));
        Ok(size)
    }

    /// What the bytes were, for somebody who still needs the body.
    ///
    /// # Errors
    /// When they were not read to their end.
    pub fn written(&self) -> Result<Written> {
        self.result.clone().ok_or_else(|| Error::failed("the data was not read to its end"))
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
        hash(&mut self.hasher, &mut self.size, &mut self.marks, &buffer[..read]);
        if let Some(new) = self.size.checked_sub(self.seen).filter(|new| *new > 0) {
            self.seen = self.size;
            self.passed.iter().for_each(|passed| passed(new));
        }
        match &self.expected {
            // More than was promised is wrong already; an endless body must not be read to its end.
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
    match expected.size == written.size {
        false => Error::integrity(format!(
            "blob {} should have {} bytes and has {}",
            expected.digest, expected.size, written.size
        )),
        true => Error::integrity(format!("blob {} has the digest {}", expected.digest, written.digest)),
    }
    .with_hint(HINT)
}

/// Hashes bytes, and remembers the hash wherever a mark is passed.
fn hash(hasher: &mut Hasher, size: &mut u64, marks: &mut Vec<Hasher>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let room = usize::try_from(MARK - *size % MARK).unwrap_or(usize::MAX);
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        hasher.update(now);
        *size += now.len() as u64;
        if size.is_multiple_of(MARK) {
            marks.push(hasher.clone());
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
    fn unproved_bytes_are_as_many_as_were_asked_for_and_take_no_memory_before_they_come() {
        let mut part = Unverified::new(&b"some data"[..]);
        assert_eq!(part.take_unproved(4).unwrap(), b"some");
        assert_eq!(part.take_unproved(5).unwrap(), b" data");
        assert_eq!(part.take_unproved(0).unwrap(), b"");
        let mut short = Unverified::new(&b"some data"[..]);
        assert_eq!(short.take_unproved(usize::MAX).unwrap_err().kind(), Kind::Integrity);
        let mut endless = Unverified::new(io::repeat(7));
        assert_eq!(endless.take_unproved(3).unwrap(), [7, 7, 7]);
    }

    #[test]
    fn half_a_body_has_no_digest() {
        let mut body = Body::new(&b"data"[..]);
        body.read_exact(&mut [0; 4]).unwrap();
        assert!(body.finish().is_err());
    }

    /// Bytes of a few marks, and a body of them that can go back.
    fn long() -> (Vec<u8>, Body) {
        let bytes: Vec<u8> = (0..3 * MARK + 7).map(|n| (n % 251) as u8).collect();
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
    fn a_body_goes_back_and_still_knows_what_it_was() {
        for (read, back) in
            [(10, 3), (MARK, MARK), (MARK + 1, MARK - 1), (3 * MARK + 7, 0), (3 * MARK, 2 * MARK + 5)]
        {
            let (bytes, mut body) = long();
            body.skip_to(read).unwrap();
            assert!(body.rewind(back).unwrap());
            assert_eq!(body.position(), back);
            let mut rest = Vec::new();
            body.read_to_end(&mut rest).unwrap();
            assert!(rest == bytes[back as usize..], "{read} {back}");
            assert_eq!(body.finish().unwrap().digest, Digest::of(&bytes));
        }
    }

    #[test]
    fn what_is_read_again_is_not_counted_again() {
        let (bytes, body) = long();
        let counted = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counter = std::sync::Arc::clone(&counted);
        let mut body = body.observed(move |n| _ = counter.fetch_add(n, std::sync::atomic::Ordering::Relaxed));
        body.skip_to(MARK * 2).unwrap();
        body.rewind(5).unwrap();
        body.drain().unwrap();
        assert_eq!(counted.load(std::sync::atomic::Ordering::Relaxed), bytes.len() as u64);
    }

    #[test]
    fn a_part_that_came_before_counts_only_if_it_is_right() {
        let (bytes, mut body) = long();
        assert_eq!(body.begin_with(&bytes[..MARK as usize + 1]).unwrap(), MARK + 1);
        assert!(body.drain().is_ok());
        let (bytes, mut body) = long();
        let mut wrong = bytes[..100].to_vec();
        wrong[50] ^= 1;
        assert_eq!(body.begin_with(&wrong[..]).unwrap(), 100);
        assert_eq!(body.drain().unwrap_err().kind(), Kind::Integrity);
        let mut once = Unverified::new(&b"data"[..]).verify(&Descriptor::of("x", b"data"));
        assert_eq!(once.begin_with(&b"da"[..]).unwrap(), 0);
        assert!(!once.rewind(0).unwrap());
        assert!(once.drain().is_ok());
    }
}
