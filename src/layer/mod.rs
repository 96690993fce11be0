//! A tree as one blob: the entries become a tar archive, the archive is split into frames, and the frames are compressed.
//!
//! - [`tar`] has the headers, the reader and the writer of archives.
//! - [`frame`] splits an archive into frames, compresses them, and decompresses layers.
//! - [`toc`] has the table of contents of an indexed layer.
//! - [`indexed`] reads an indexed layer and verifies each chunk before its content can be read.

mod format;
mod frame;
mod gnu;
mod indexed;
mod limits;
mod meter;
mod tar;
#[cfg(test)]
mod tests;
mod toc;
mod whiteout;

pub use frame::{
    Compression, ContentChunker, ContentPart, Framer, LayerBlob, PendingToc, PlainArchive, decompress,
};
pub use indexed::{FrameVerifier, VerifiedArchive};
pub use limits::{Budget, Limits};
pub use meter::{Meter, Metered};
pub use tar::{Contents, Item, LayerReader, LayerWriter, PlainSink};
pub use toc::{
    Chunk, FramePosition, PlainFrame, Toc, TocBytes, TocChecker, TocEntry, TocReader, VerifiedToc,
};
pub use whiteout::Whiteout;

use crate::oci::{Descriptor, Digest};
use crate::stream::Written;

/// A finished layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The descriptor of the blob.
    pub descriptor: Descriptor,
    /// The digest of the plain tar archive.
    pub diff_id: Digest,
}

impl Layer {
    /// Joins what the archive decides, and what the compressed blob decides: its digest, its size and its table of contents.
    pub fn new(compression: Compression, contents: &Contents, blob: Written, toc: Option<&Toc>) -> Self {
        let descriptor = Descriptor::new(compression.media_type(), blob.digest, blob.size);
        let annotations = toc.map(Toc::annotations).unwrap_or_default();
        Self { descriptor: Descriptor { annotations, ..descriptor }, diff_id: contents.diff_id.clone() }
    }
}
