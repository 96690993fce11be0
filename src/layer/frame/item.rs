//! The items in a frame.

use crate::tree::Entry;

/// A part of an entry in one frame.
pub enum FrameItem {
    /// A whole entry. Its content, if it has any, begins at `inner`.
    Entry { entry: Entry, inner: usize },
    /// The header of a large file. Its content follows in separate frames.
    FileStart(Entry),
    /// The next chunk of that file, which is the whole frame.
    Chunk { zeros: bool },
    /// The end of that file.
    FileEnd,
}
