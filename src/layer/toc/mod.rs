//! The table of contents of an indexed layer: what is in it, where, and by which digests that is proved.
//!
//! It stands in a skippable frame behind the archive (RFC 8878, section 3.1.2) and is followed by a footer in another
//! one, as zstdchunked layers of stargz-snapshotter have them: to whoever does not look for them the layer is an
//! ordinary one. The annotations of the layer's descriptor say where it stands and what its digest is, so that the
//! manifest proves it; it in turn proves each chunk of content, so that a part of a layer can be believed without the
//! rest.

mod checker;
mod chunk;
mod listing;
mod reader;
#[cfg(test)]
mod tests;
mod wire;
mod writer;

pub use checker::TocChecker;
pub use chunk::{Chunk, PlainFrame};
pub use listing::{Listing, ListingBytes};
pub use reader::{TocEntry, TocReader};
pub(super) use writer::TocWriter;

use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

/// What a skippable frame begins with; its size follows in four bytes.
const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// The magic number and the size of a skippable frame.
const FRAME_HEADER: u64 = 8;
/// The content of the footer's frame.
const FOOTER: u64 = 40;
/// What the footer ends with.
const FOOTER_MAGIC: [u8; 8] = *b"GnUlInUx";
/// The only type of listing there is.
const CRFS: u64 = 1;

/// The digest of the listing as it stands in the layer, compressed.
const DIGEST: &str = "io.volio.toc.digest";
/// Where it stands: `OFFSET:SIZE:PLAIN`, its offset in the layer and its sizes, compressed and not.
const POSITION: &str = "io.volio.toc.position";
/// The same for stargz-snapshotter: the digest of the plain listing,
const STARGZ_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// that of the compressed one,
const STARGZ_CHECKSUM: &str = "io.containers.zstd-chunked.manifest-checksum";
/// and its place: `OFFSET:SIZE:PLAIN:TYPE`.
const STARGZ_POSITION: &str = "io.containers.zstd-chunked.manifest-position";

/// Where the table of contents of a layer stands, and what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toc {
    offset: u64,
    size: u64,
    plain_size: u64,
    digest: Digest,
    /// The digest of the plain listing; known where it was written, and of no use to a reader.
    plain_digest: Option<Digest>,
}

impl Toc {
    /// The table of contents that a layer's descriptor names; `None` when it names none.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when what it says makes no sense.
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

    /// Where it stands in the layer: fetch this, and give it to [`Listing::prove`].
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.size
    }

    /// What the bytes in its range should be.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new("application/vnd.volio.toc.v1+json+zstd", self.digest.clone(), self.size)
    }

    /// The size of the listing when it is decompressed, in bytes.
    pub fn plain_size(&self) -> u64 {
        self.plain_size
    }

    /// Where the frames of the layer end, and the table of contents begins with its own frame's header.
    fn frames_end(&self) -> u64 {
        self.offset - FRAME_HEADER
    }

    /// What the layer's descriptor says about it.
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

    /// The footer with its frame: what a reader finds who has the layer and no descriptor.
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
