//! A tree as one blob: entries become a tar archive, the archive is compressed, and both sides are hashed.

mod acl;
mod blob;
mod block;
mod compression;
mod cuts;
mod decode;
mod decompression;
mod format;
mod frame_reader;
mod frames;
mod gnu;
mod gzip;
mod header;
mod limits;
mod meter;
mod overlay;
mod pax;
mod proved;
mod reader;
mod sparse;
#[cfg(test)]
mod tests;
mod toc;
mod whiteout;
mod writer;

pub use blob::Blob;
pub use compression::Compression;
pub use decompression::{Plain, decompress};
pub use frames::Framer;
pub use limits::{Budget, Limits};
pub use meter::{Meter, Metered};
pub use overlay::{lay_listing_over, lay_over};
pub use proved::{Place, Proved, Prover};
pub use reader::{Item, LayerReader};
pub use toc::{Chunk, Listing, ListingBytes, PlainFrame, Toc, TocChecker, TocEntry, TocReader};
pub use whiteout::Whiteout;
pub use writer::{Archive, Contents, LayerWriter};

use crate::oci::{Descriptor, Digest};
use crate::stream::Written;

/// A finished layer: what is in it and where it went, brought together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The blob as it is stored.
    pub descriptor: Descriptor,
    /// The digest of the plain tar archive.
    pub diff_id: Digest,
}

impl Layer {
    /// Brings together what the writer knows and what the place knows.
    pub fn new(compression: Compression, contents: &Contents, written: Written) -> Self {
        let descriptor = Descriptor::new(compression.media_type(), written.digest, written.size);
        let annotations = contents.toc.as_ref().map(Toc::annotations).unwrap_or_default();
        Self { descriptor: Descriptor { annotations, ..descriptor }, diff_id: contents.diff_id.clone() }
    }
}
