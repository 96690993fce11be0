//! A chunk of a file in an indexed layer: its position, and how it is extracted from its frame and verified.

use crate::error::{Error, Result};
use crate::layer::format::FRAME;
use crate::oci::{Digest, Hasher};
use std::ops::Range;
use std::sync::OnceLock;
use zstd::zstd_safe;

/// A part of the content of a file. It lies in a single frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The range of the frame in the layer.
    pub frame: Range<u64>,
    /// The offset of the chunk in the decompressed frame.
    pub inner: u64,
    /// Its offset in the file.
    pub offset: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub digest: Digest,
    /// True if it is said to be all zeros. Such a chunk need not be fetched; [`verify_zeros`](Self::verify_zeros)
    /// verifies it.
    pub zeros: bool,
}

/// The largest content of a frame, in bytes. Frames of volio have at most 4 MiB; the limit allows for those of other
/// programs.
pub(super) const FRAME_LIMIT: u64 = 16 << 20;
/// The allowance for a frame with incompressible content, in bytes.
const OVERHEAD: u64 = 64 << 10;

impl Chunk {
    /// Returns whether the frame has a possible size and can hold the chunk. No reader needs more memory for it than
    /// [`FRAME_LIMIT`].
    pub(super) fn is_possible(&self) -> bool {
        let size = self.frame.end.saturating_sub(self.frame.start);
        let end = self.inner.checked_add(self.size);
        self.size > 0
            && end.is_some_and(|end| end <= FRAME_LIMIT)
            && size > 0
            && size <= FRAME_LIMIT + OVERHEAD
    }

    /// Verifies a chunk that is said to be zeros, without its frame.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if it is not such a chunk, or if its digest is not that of zeros.
    pub fn verify_zeros(&self) -> Result<()> {
        if !(self.zeros && self.is_possible()) {
            return Err(self.missing("it cannot be zeros"));
        }
        self.ensure_digest(zeros(self.size))
    }

    /// Verifies bytes that may be this chunk, wherever they are from.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if they have another size or digest.
    pub fn verify(&self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != self.size {
            return Err(self.missing("there are fewer bytes"));
        }
        self.ensure_digest(Digest::of(bytes))
    }

    /// Verifies the chunk in its decompressed frame.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if the frame does not hold it.
    pub(in crate::layer) fn verify_in(&self, plain: &[u8]) -> Result<()> {
        let part = || {
            let (start, size) = (usize::try_from(self.inner).ok()?, usize::try_from(self.size).ok()?);
            plain.get(start..start.checked_add(size)?)
        };
        let part = part().ok_or_else(|| self.missing("its frame is too short"))?;
        self.ensure_digest(Digest::of(part))
    }

    fn ensure_digest(&self, found: Digest) -> Result<()> {
        if found != self.digest {
            return Err(self.missing(format!("there is {found} instead")));
        }
        Ok(())
    }

    fn missing(&self, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::integrity(format!(
            "the layer does not hold the chunk {} at {}, as its table of contents says",
            self.digest, self.frame.start
        ))
        .with_source(why)
        .with_hint("it was damaged or replaced where it is stored or on its way; nothing of it was used")
    }
}

/// Returns the digest of `size` zeros. That of the largest frame is kept, because sparse files have it by the million.
fn zeros(size: u64) -> Digest {
    static LARGEST: OnceLock<Digest> = OnceLock::new();
    let hash = || {
        let mut hasher = Hasher::default();
        let nothing = [0; 64 << 10];
        let mut left = size;
        while left > 0 {
            let now = left.min(nothing.len() as u64);
            hasher.update(&nothing[..now as usize]);
            left -= now;
        }
        hasher.finish()
    };
    if size == FRAME as u64 { LARGEST.get_or_init(hash).clone() } else { hash() }
}

/// A decompressed frame. Its content is not verified, so only its chunks can be read.
pub struct PlainFrame {
    /// The range of the frame in the layer.
    at: Range<u64>,
    plain: Vec<u8>,
}

impl PlainFrame {
    /// Decompresses the frame in a range of a layer.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if the bytes are not exactly one frame that declares its size, or if it
    /// exceeds [`FRAME_LIMIT`].
    pub fn new(at: Range<u64>, bytes: &[u8]) -> Result<Self> {
        let invalid = |why: &str| {
            Error::integrity(format!("the layer has no frame at {}: {why}", at.start)).with_hint(
                "it was damaged or replaced where it is stored or on its way; nothing of it was used",
            )
        };
        if zstd_safe::find_frame_compressed_size(bytes).ok() != Some(bytes.len())
            || bytes.len() as u64 != at.end.saturating_sub(at.start)
        {
            return Err(invalid("what is there has another length"));
        }
        let size = zstd_safe::get_frame_content_size(bytes).ok().flatten();
        let size =
            size.filter(|size| *size <= FRAME_LIMIT).ok_or_else(|| invalid("it has no size that can be"))?;
        let plain =
            zstd::bulk::decompress(bytes, size as usize).map_err(|error| invalid(&error.to_string()))?;
        Ok(Self { at, plain })
    }

    /// Returns whether this is the frame in that range.
    pub fn is_at(&self, at: &Range<u64>) -> bool {
        self.at == *at
    }

    /// Returns the verified bytes of a chunk.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if the chunk is not in this frame.
    pub fn chunk(&self, chunk: &Chunk) -> Result<&[u8]> {
        let end = chunk.inner.saturating_add(chunk.size);
        let range = usize::try_from(chunk.inner).ok().zip(usize::try_from(end).ok());
        let bytes = range
            .filter(|_| self.is_at(&chunk.frame))
            .and_then(|(start, end)| self.plain.get(start..end))
            .ok_or_else(|| chunk.missing("its frame has less"))?;
        chunk.ensure_digest(Digest::of(bytes)).map(|()| bytes)
    }
}
