//! A tree as one blob: entries become a tar archive, the archive is compressed, and both sides are hashed.

mod block;
mod compression;
mod decode;
mod header;
mod limits;
mod overlay;
mod pax;
mod reader;
mod sparse;
#[cfg(test)]
mod tests;
mod whiteout;
mod writer;

pub use compression::{Compression, decompress};
pub use limits::{Budget, Limits};
pub use overlay::Overlay;
pub use reader::{Item, LayerReader};
pub use whiteout::Whiteout;
pub use writer::{Contents, LayerWriter};

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
        Self {
            descriptor: Descriptor::new(compression.media_type(), written.digest, written.size),
            diff_id: contents.diff_id.clone(),
        }
    }
}
