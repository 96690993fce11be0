//! One piece of a file in an indexed layer: where it is, and how it is taken out of its frame and proved.

use crate::error::{Error, Result};
use crate::layer::format::FRAME;
use crate::oci::{Digest, Hasher};
use std::ops::Range;
use std::sync::OnceLock;
use zstd::zstd_safe;

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
    pub digest: Digest,
    /// Whether they are said to be zeros, which need not be fetched; [`prove_zeros`](Self::prove_zeros) proves it.
    pub zeros: bool,
}

/// The most that a frame may hold. Those that volio writes have 4 MiB at the most; this much memory is spent on what
/// others write.
pub(super) const FRAME_LIMIT: u64 = 16 << 20;
/// What a frame may have beyond its content where that does not compress.
const OVERHEAD: u64 = 64 << 10;

impl Chunk {
    /// Whether a frame can stand there and hold it: no reader needs more memory for it than [`FRAME_LIMIT`].
    pub(super) fn is_possible(&self) -> bool {
        let size = self.frame.end.saturating_sub(self.frame.start);
        let end = self.inner.checked_add(self.size);
        self.size > 0
            && end.is_some_and(|end| end <= FRAME_LIMIT)
            && size > 0
            && size <= FRAME_LIMIT + OVERHEAD
    }

    /// Proves a chunk that is said to be zeros, without a frame.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when it is none, or its digest is not that of so many zeros.
    pub fn prove_zeros(&self) -> Result<()> {
        match self.zeros && self.is_possible() {
            true => self.insist(zeros(self.size)),
            false => Err(self.is_not_there("it cannot be zeros")),
        }
    }

    /// Insists that a frame, decompressed, holds it.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when it does not.
    pub(in crate::layer) fn prove_in(&self, plain: &[u8]) -> Result<()> {
        let part = || {
            let (start, size) = (usize::try_from(self.inner).ok()?, usize::try_from(self.size).ok()?);
            plain.get(start..start.checked_add(size)?)
        };
        let part = part().ok_or_else(|| self.is_not_there("its frame is too short"))?;
        self.insist(Digest::of(part))
    }

    fn insist(&self, found: Digest) -> Result<()> {
        match found == self.digest {
            true => Ok(()),
            false => Err(self.is_not_there(format!("there is {found} instead"))),
        }
    }

    fn is_not_there(&self, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::integrity(format!(
            "the layer does not hold the chunk {} at {}, as its table of contents says",
            self.digest, self.frame.start
        ))
        .with_source(why)
        .with_hint("it was damaged or replaced where it is stored or on its way; nothing of it was used")
    }
}

/// The digest of so many zeros. A sparse file has the largest ones by the million.
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

/// A frame that was decompressed. What is in it is not proved and cannot be read; only its chunks can.
pub struct PlainFrame {
    /// Where the frame stands in the layer.
    at: Range<u64>,
    plain: Vec<u8>,
}

impl PlainFrame {
    /// The frame that stands at a place of a layer, from the bytes there.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when they are not exactly one frame that tells its size, or one
    /// that is larger than a reader has memory for.
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

    /// Whether this is the frame that stands there.
    pub fn is_at(&self, at: &Range<u64>) -> bool {
        self.at == *at
    }

    /// One chunk of it, proved.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when it is not in this frame.
    pub fn chunk(&self, chunk: &Chunk) -> Result<&[u8]> {
        let end = chunk.inner.saturating_add(chunk.size);
        let range = usize::try_from(chunk.inner).ok().zip(usize::try_from(end).ok());
        let bytes = range
            .filter(|_| self.is_at(&chunk.frame))
            .and_then(|(start, end)| self.plain.get(start..end))
            .ok_or_else(|| chunk.is_not_there("its frame has less"))?;
        chunk.insist(Digest::of(bytes)).map(|()| bytes)
    }
}
