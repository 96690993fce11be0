//! Tar archives of layers: headers, reader and writer.

mod acl;
mod block;
mod decode;
pub(super) mod header;
pub(super) mod pax;
mod reader;
mod sparse;
mod writer;

pub use reader::{Item, LayerReader};
pub use writer::{ArchiveSink, Contents, LayerWriter, PlainSink};
