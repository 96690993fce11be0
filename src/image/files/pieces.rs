//! Files of layers that can only be read as a whole. Such a layer was streamed once for the tree, and verified. The digests
//! of the pieces of its files were noted, and verify the pieces when the layer is read again.

use super::buffer::ContentBuffer;
use crate::error::{Error, Result};
use crate::image::archive::LayerArchive;
use crate::image::merge::EntryPosition;
use crate::image::open::Image;
use crate::layer::{Budget, Item, LayerReader};
use crate::oci::Digest;
use crate::progress::Phase;
use crate::tree::Content;
use std::io::{self, Read};

/// The size of a piece in bytes: what is held in memory until it is verified.
const PIECE: usize = 1 << 20;

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many zeros that are not stored.
    Hole(u64),
    /// At most 1 MiB with this digest.
    Data(Digest),
}

/// Reads a file, and returns the pieces that it consists of.
pub(super) fn split(content: &mut dyn Content) -> io::Result<Vec<Piece>> {
    let (mut pieces, mut buffer) = (Vec::new(), Vec::new());
    while let Some(piece) = next_piece(content, &mut buffer)? {
        pieces.push(piece);
    }
    Ok(pieces)
}

/// Reads the next piece of a file, with its bytes in the buffer. Returns `None` at the end.
fn next_piece(content: &mut dyn Content, buffer: &mut Vec<u8>) -> io::Result<Option<Piece>> {
    buffer.clear();
    match content.skip_hole() {
        0 => {}
        hole => return Ok(Some(Piece::Hole(hole))),
    }
    // If a hole follows, its first zeros belong to this piece, in the second reading as in the first.
    content.take(PIECE as u64).read_to_end(buffer)?;
    Ok((!buffer.is_empty()).then(|| Piece::Data(Digest::of(buffer))))
}

/// Reads layers again. Several files of a layer, in the order of the archive, are one reading.
pub(super) struct LayerRereader<'i> {
    image: &'i Image<'i>,
    /// The layer that was read last, and the position of the entry that comes next in it.
    open: Option<(EntryPosition, LayerReader<LayerArchive>)>,
}

impl<'i> LayerRereader<'i> {
    pub fn new(image: &'i Image<'i>) -> Self {
        Self { image, open: None }
    }

    /// Calls `read` with the content of a file that must consist of these pieces.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if it consists of others; those of the layer and of `read`.
    pub fn read(
        &mut self,
        at: EntryPosition,
        pieces: &[Piece],
        read: impl FnOnce(&mut dyn Content) -> Result<()>,
    ) -> Result<()> {
        let (mut next, mut layer) = match self.open.take() {
            Some((next, layer)) if next.layer == at.layer && next.number <= at.number => (next, layer),
            _ => (EntryPosition { number: 0, ..at }, self.open_layer(at.layer)?),
        };
        while next.number <= at.number {
            match layer.next_item()? {
                Some(Item::Entry(_)) => next.number += 1,
                Some(Item::Whiteout(_)) => {}
                None => return Err(has_changed()),
            }
        }
        read(&mut PieceReader::new(layer.content(), pieces))?;
        self.open = Some((next, layer));
        Ok(())
    }

    fn open_layer(&self, number: usize) -> Result<LayerReader<LayerArchive>> {
        let layer = self.image.layers().nth(number).ok_or_else(has_changed)?;
        Ok(LayerReader::within(layer.archive(Phase::Reading)?, Budget::new(self.image.context().limits())))
    }
}

/// A reader of a file's content that verifies each piece before any byte of it is returned.
struct PieceReader<'p, C> {
    content: C,
    pieces: std::slice::Iter<'p, Piece>,
    /// The current piece.
    buffer: ContentBuffer,
    has_failed: bool,
}

impl<'p, C: Content> PieceReader<'p, C> {
    fn new(content: C, pieces: &'p [Piece]) -> Self {
        Self { content, pieces: pieces.iter(), buffer: ContentBuffer::default(), has_failed: false }
    }

    /// Verifies the next piece if the current one was read to its end.
    fn advance(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            return Ok(());
        }
        let piece = next_piece(&mut self.content, self.buffer.bytes_mut());
        let expected = self.pieces.next();
        self.has_failed |= !matches!(&piece, Ok(piece) if piece.as_ref() == expected);
        // It fails each time from then on, so that no byte is skipped, and no unverified one is returned.
        if self.has_failed {
            self.buffer.bytes_mut().clear();
            return Err(piece.err().unwrap_or_else(|| has_changed().into()));
        }
        if let Ok(Some(Piece::Hole(size))) = piece {
            self.buffer.set_zeros(size);
        }
        Ok(())
    }
}

impl<C: Content> Read for PieceReader<'_, C> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.advance()?;
        self.buffer.read(buffer)
    }
}

impl<C: Content> Content for PieceReader<'_, C> {
    fn skip_hole(&mut self) -> u64 {
        // Only what was verified as a hole is one; the next read verifies what follows.
        self.buffer.take_zeros()
    }
}

fn has_changed() -> Error {
    Error::integrity("a layer is another one than it was a moment ago")
        .with_hint("it was replaced or damaged where it is stored or on its way; nothing of it was used")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content that fails after some bytes.
    struct Failing(&'static [u8]);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("broken")),
                read => Ok(read),
            }
        }
    }

    impl Content for Failing {}

    #[test]
    fn no_byte_of_a_piece_is_returned_after_an_error() {
        let pieces = [Piece::Data(Digest::of(b"whole"))];
        let mut reader = PieceReader::new(Failing(b"who"), &pieces);
        for _ in 0..2 {
            assert!(reader.read(&mut [0; 8]).is_err());
        }
    }
}
