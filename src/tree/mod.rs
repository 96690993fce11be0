//! A directory on disk: what is in it, and how it comes into being again. It does not know that it will be an image.

mod entry;
mod path;
mod pending;

pub use entry::{Entry, Kind, Metadata, Time};
pub use path::TreePath;
pub use pending::{Extracted, Extractor, Found, SourceSpec, Summary, Walk, WalkOptions};
