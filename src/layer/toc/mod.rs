//! The table of contents of an indexed layer: its entries, the frames that hold their content, and the digests that verify
//! it.
//!
//! It is in a skippable frame after the archive (RFC 8878, section 3.1.2) and is followed by a footer in another one, as
//! in zstdchunked layers of stargz-snapshotter. Other programs ignore these frames and see an ordinary layer. The
//! annotations of the layer's descriptor have its position and its digest, so it is verified by the manifest. It has a
//! digest of each chunk of content, so a part of a layer can be verified without the rest.

mod checker;
mod chunk;
mod json;
mod reader;
#[cfg(test)]
mod tests;
mod verified;
mod writer;

pub use checker::{FramePosition, TocChecker};
pub use chunk::{Chunk, PlainFrame};
pub use reader::{TocEntry, TocReader};
pub use verified::{TocBytes, VerifiedToc};
pub(super) use writer::{TocEvent, TocWriter};

use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

/// The magic number of a skippable frame. Its size follows in four bytes.
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// The length of the magic number and the size of a skippable frame, in bytes.
const FRAME_HEADER: u64 = 8;
/// The length of the footer, in bytes, without the header of its frame.
const FOOTER: u64 = 40;
/// The last bytes of the footer.
const FOOTER_MAGIC: [u8; 8] = *b"GnUlInUx";
/// The only type of table of contents.
const CRFS: u64 = 1;

/// The annotation with the digest of the compressed table of contents.
const DIGEST: &str = "io.volio.toc.digest";
/// The annotation with its position, `OFFSET:SIZE:PLAIN`: its offset in the layer, and its sizes, compressed and plain.
const POSITION: &str = "io.volio.toc.position";
/// The annotation of stargz-snapshotter with the digest of the plain table of contents.
const STARGZ_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// The annotation of Podman with the digest of the compressed one.
const STARGZ_CHECKSUM: &str = "io.containers.zstd-chunked.manifest-checksum";
/// The annotation of Podman with its position, `OFFSET:SIZE:PLAIN:TYPE`.
const STARGZ_POSITION: &str = "io.containers.zstd-chunked.manifest-position";

/// The position and the digest of the table of contents of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toc {
    offset: u64,
    size: u64,
    plain_size: u64,
    digest: Digest,
    /// The digest of the plain table of contents, known only when it was written. Readers do not need it.
    plain_digest: Option<Digest>,
}

impl Toc {
    /// Returns the table of contents that the descriptor of a layer names; `None` if it names none.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if the annotations are invalid.
    pub fn of(layer: &Descriptor) -> Result<Option<Self>> {
        let (digest, position) = match (layer.annotations.get(DIGEST), layer.annotations.get(POSITION)) {
            (Some(digest), Some(position)) => (digest, position),
            _ => return Ok(None),
        };
        let parse = || {
            let mut numbers = position.split(':').map(|number| u64::from_str(number).ok());
            let (offset, size, plain_size) = (numbers.next()??, numbers.next()??, numbers.next()??);
            let end = offset.checked_add(size)?.checked_add(FRAME_HEADER + FOOTER)?;
            let digest = digest.parse().ok()?;
            let fits = offset >= FRAME_HEADER && size > 0 && end <= layer.size && numbers.next().is_none();
            fits.then_some(Self { offset, size, plain_size, digest, plain_digest: None })
        };
        let invalid = || {
            Error::integrity(format!(
                "the annotations of the layer {} name a table of contents that cannot be there",
                layer.digest
            ))
        };
        parse().map(Some).ok_or_else(invalid)
    }

    /// Returns its range in the layer, to be fetched and passed to [`VerifiedToc::verify`].
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.size
    }

    /// Returns the descriptor of the bytes in its range.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new("application/vnd.volio.toc.v1+json+zstd", self.digest.clone(), self.size)
    }

    /// Returns its size when it is decompressed, in bytes.
    pub fn plain_size(&self) -> u64 {
        self.plain_size
    }

    /// Returns the end of the frames of the archive, which is the beginning of its own frame.
    fn frames_end(&self) -> u64 {
        self.offset - FRAME_HEADER
    }

    /// Returns the annotations of the layer's descriptor.
    pub(super) fn annotations(&self) -> BTreeMap<String, String> {
        let position = format!("{}:{}:{}", self.offset, self.size, self.plain_size);
        let mut annotations = BTreeMap::new();
        let mut annotate =
            |key: &str, value: &dyn Display| annotations.insert(key.to_owned(), value.to_string());
        annotate(DIGEST, &self.digest);
        annotate(STARGZ_CHECKSUM, &self.digest);
        annotate(STARGZ_POSITION, &format_args!("{position}:{CRFS}"));
        annotate(POSITION, &position);
        if let Some(digest) = &self.plain_digest {
            annotate(STARGZ_DIGEST, digest);
        }
        annotations
    }

    /// Returns the footer with its frame, for readers that have the layer and not its descriptor.
    fn footer(&self) -> Vec<u8> {
        let mut frame = SKIPPABLE.to_vec();
        frame.extend_from_slice(&(FOOTER as u32).to_le_bytes());
        for number in [self.offset, self.size, self.plain_size, CRFS] {
            frame.extend_from_slice(&number.to_le_bytes());
        }
        frame.extend_from_slice(&FOOTER_MAGIC);
        frame
    }
}
