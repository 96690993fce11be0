//! One piece of a file in an indexed layer: where it is, and how it is taken out and proved.

use crate::error::{Error, Result};
use crate::oci::Digest;
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;

/// A SHA-256 digest in 32 bytes: a large file has one for each mebibyte.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Reads it as documents have it: `sha256:` and 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64)?.as_bytes();
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(digest))
    }
}

impl From<sha2::Sha256> for Sha256 {
    fn from(hash: sha2::Sha256) -> Self {
        use sha2::Digest as _;
        Self(hash.finalize().into())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PartialEq<Digest> for Sha256 {
    fn eq(&self, other: &Digest) -> bool {
        other.to_string() == self.to_string()
    }
}

/// A piece of a file, all of it in one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where the frame stands in the layer.
    pub frame: Range<u64>,
    /// Where the chunk begins in the frame, once that is decompressed.
    pub inner: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
    /// The digest of these bytes.
    pub digest: Sha256,
    /// Whether they are said to be zeros, which need not be fetched; [`extract`](Self::extract) proves it.
    pub zeros: bool,
}

/// The most that a frame may hold up to the end of a chunk. Those that volio writes have 4 MiB at the most; this much
/// memory is spent on what others write.
pub(super) const FRAME_LIMIT: u64 = 16 << 20;

impl Chunk {
    /// Takes the chunk out of its frame, and proves it. `frame` has the bytes of that range, and is not read at all
    /// where the chunk is zeros.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the frame does not hold it; those of reading.
    pub fn extract(&self, frame: impl Read) -> Result<Vec<u8>> {
        let size = usize::try_from(self.size).map_err(|_| self.is_not_there("it is too large"))?;
        let bytes = match self.zeros {
            true => vec![0; size],
            false => self.decompress(frame, size).map_err(|error| {
                match error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
                    true => Error::io("", error),
                    false if error.raw_os_error().is_none() => self.is_not_there(error),
                    false => Error::io("cannot read the layer", error),
                }
            })?,
        };
        match Sha256::of(&bytes) {
            digest if digest == self.digest => Ok(bytes),
            digest => Err(self.is_not_there(format!("there is {digest} instead"))),
        }
    }

    /// Insists that a frame, decompressed, holds it.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when it does not.
    pub(in crate::layer) fn prove(&self, plain: &[u8]) -> Result<()> {
        let part = || {
            let (start, size) = (usize::try_from(self.inner).ok()?, usize::try_from(self.size).ok()?);
            plain.get(start..start.checked_add(size)?)
        };
        let part = part().ok_or_else(|| self.is_not_there("its frame is too short"))?;
        match Sha256::of(part) {
            digest if digest == self.digest => Ok(()),
            digest => Err(self.is_not_there(format!("there is {digest} instead"))),
        }
    }

    fn decompress(&self, frame: impl Read, size: usize) -> io::Result<Vec<u8>> {
        let frame = frame.take(self.frame.end - self.frame.start);
        let mut plain = zstd::stream::read::Decoder::new(frame)?;
        // The window is never more than the frame, and no frame is larger than this.
        plain.window_log_max(FRAME_LIMIT.ilog2())?;
        io::copy(&mut plain.by_ref().take(self.inner), &mut io::sink())?;
        let mut bytes = vec![0; size];
        plain.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn is_not_there(&self, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::integrity(format!(
            "the layer does not hold the chunk {} at {}, as its table of contents says",
            self.digest, self.frame.start
        ))
        .because(why)
    }
}
