//! The bytes of a frame, and the items in them.

use crate::tree::Entry;
use std::sync::Arc;

/// Bytes that two threads read at once: one hashes what the other one compresses or sends.
#[derive(Clone)]
pub struct SharedBytes(Arc<Vec<u8>>);

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }
}

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
