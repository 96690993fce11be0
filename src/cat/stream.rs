//! Files out of layers that can only be read whole. Such a layer was read once to know the tree, and proved; what its
//! files are made of was noted by the way, and is what they must be made of when it is read again.

use super::{At, cannot_write};
use crate::error::{Error, Result};
use crate::layer::{Budget, Item, LayerReader, Meter, Metered, PlainArchive, decompress};
use crate::oci::Digest;
use crate::partial::Reading;
use crate::tree::Content;
use std::io::{self, Read, Write};

/// How much is proved at once: what is held in memory until it was.
const PIECE: usize = 1 << 20;
/// What a hole is written from.
static NOTHING: [u8; 64 << 10] = [0; 64 << 10];

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// So many zeros that nobody has stored.
    Hole(u64),
    /// At most [`PIECE`] bytes with this digest.
    Data(Digest),
}

/// What a file is made of.
pub(super) fn pieces(content: &mut dyn Content) -> io::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut buffer = Vec::new();
    while let Some(piece) = next(content, &mut buffer)? {
        pieces.push(piece);
    }
    Ok(pieces)
}

/// The next piece of a file, with its bytes in the buffer; `None` at the end.
fn next(content: &mut dyn Content, buffer: &mut Vec<u8>) -> io::Result<Option<Piece>> {
    match content.skip_hole() {
        0 => {}
        hole => return Ok(Some(Piece::Hole(hole))),
    }
    buffer.clear();
    // Where a hole follows, its zeros count as bytes, the second time as the first.
    content.take(PIECE as u64).read_to_end(buffer)?;
    Ok((!buffer.is_empty()).then(|| Piece::Data(Digest::of(buffer))))
}

/// Layers that are read once more.
pub(super) struct Streams<'a> {
    reading: &'a Reading<'a>,
    meter: &'a Meter,
    /// The one that was read last, and which entry comes next in it: several files in a row are one reading.
    open: Option<(At, LayerReader<Metered<PlainArchive<'static>>>)>,
}

impl<'a> Streams<'a> {
    pub fn new(reading: &'a Reading<'a>, meter: &'a Meter) -> Self {
        Self { reading, meter, open: None }
    }

    /// Writes a file that must be made of these pieces, and says how large it was.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when it is made of others; those of the layer and of `out`.
    pub fn write(&mut self, at: At, pieces: &[Piece], out: &mut dyn Write) -> Result<u64> {
        let cannot_read = |error| Error::io("cannot read the layer again", error);
        let (mut next_at, mut layer) = match self.open.take() {
            Some((next, layer)) if next.layer == at.layer && next.number <= at.number => (next, layer),
            _ => (At { number: 0, ..at }, self.begin(at.layer)?),
        };
        while next_at.number <= at.number {
            match layer.next_item()? {
                Some(Item::Entry(_)) => next_at.number += 1,
                Some(Item::Whiteout(_)) => {}
                None => return Err(another()),
            }
        }
        let mut content = layer.content();
        let (mut buffer, mut written) = (Vec::new(), 0);
        for piece in pieces {
            if next(&mut content, &mut buffer).map_err(cannot_read)?.as_ref() != Some(piece) {
                return Err(another());
            }
            written += match piece {
                Piece::Hole(size) => write_zeros(*size, out)?,
                Piece::Data(_) => {
                    out.write_all(&buffer).map_err(cannot_write)?;
                    buffer.len() as u64
                }
            };
        }
        drop(content);
        self.open = Some((next_at, layer));
        Ok(written)
    }

    fn begin(&self, number: usize) -> Result<LayerReader<Metered<PlainArchive<'static>>>> {
        let layer = self.reading.layers.get(number).ok_or_else(another)?;
        let task =
            self.reading.progress.begin(&format!("reading {} again", layer.digest.short()), Some(layer.size));
        let body = self.reading.source.open(layer)?.verify(layer);
        let body = body.on_read(move |bytes| task.advance(bytes)).on_read(self.meter.stored());
        let plain = decompress(body).map_err(|error| Error::io("cannot read the layer again", error))?;
        Ok(LayerReader::within(self.meter.bound(plain), Budget::new(*self.reading.limits)))
    }
}

fn write_zeros(size: u64, out: &mut dyn Write) -> Result<u64> {
    let mut left = size;
    while left > 0 {
        let now = usize::try_from(left).map_or(NOTHING.len(), |left| left.min(NOTHING.len()));
        out.write_all(&NOTHING[..now]).map_err(cannot_write)?;
        left -= now as u64;
    }
    Ok(size)
}

fn another() -> Error {
    Error::integrity("a layer is another one than it was a moment ago")
        .with_hint("it was replaced or damaged where it is stored or on its way; nothing of it was used")
}
