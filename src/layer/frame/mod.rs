//! Frames, the parts of a compressed layer that can be decompressed by themselves.

mod archive_hash;
mod blob;
mod blob_hash;
mod chunker;
mod compression;
mod content_chunker;
mod decompression;
mod framer;
mod gzip;
mod item;
mod reader;

pub use blob::{LayerBlob, PendingToc};
pub use compression::Compression;
pub use content_chunker::{ContentChunker, ContentPart};
pub use decompression::{PlainArchive, decompress};
pub use framer::Framer;
pub(super) use reader::{Frame, FrameFormat, FrameReader};
