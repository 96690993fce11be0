//! A file's content as it is read into or out of a tree.

use std::io::{self, Read};

/// A byte stream that can skip runs of zeros without reading them.
pub trait Content: Read {
    /// Skips the zeros at the current position, as far as they are known without reading. Returns their number; 0 means
    /// that bytes have to be read, or that this is the end.
    fn skip_hole(&mut self) -> u64 {
        0
    }
}

impl Content for &[u8] {}
impl Content for io::Empty {}
impl<C: Content + ?Sized> Content for &mut C {
    fn skip_hole(&mut self) -> u64 {
        (**self).skip_hole()
    }
}
