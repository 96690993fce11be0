//! The content of a file on its way into a tree.

use std::io::{self, Read};

/// Bytes, and runs of zeros that nobody need read.
pub trait Content: Read {
    /// Passes over the zeros that come next, if it is known without reading that zeros come next. Returns how many there were;
    /// 0 says that bytes have to be read, or that this is the end.
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
