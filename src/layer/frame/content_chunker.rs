//! Splits the content of a large file into chunks by its content, and into long runs of zeros between them.

use super::chunker::Chunker;
use crate::layer::format::{FRAME, PIECE};
use std::io;

/// The shortest run of zeros that is not part of a chunk, in bytes. Shorter runs would cost more in frames than they save.
const ZERO_RUN: u64 = 256 << 10;
/// Zeros to compare with.
static ZEROS: [u8; PIECE] = [0; PIECE];

/// A part of the content. The parts are in order.
pub enum ContentPart<'a> {
    /// The next bytes of the current chunk.
    Data(&'a [u8]),
    /// The current chunk is complete.
    EndOfChunk,
    /// A run of zeros outside of chunks. Runs that follow each other are one.
    Zeros(u64),
}

/// A chunker of one file after another.
#[derive(Default)]
pub struct ContentChunker {
    chunker: Chunker,
    has_chunk: bool,
    /// The number of zeros at the end of the content so far. They may be part of a chunk or of a longer run.
    zeros: u64,
}

impl ContentChunker {
    /// Adds bytes that begin at a multiple of 64 KiB in the file.
    ///
    /// # Errors
    /// Those of `emit`.
    pub fn push(
        &mut self,
        bytes: &[u8],
        emit: &mut impl FnMut(ContentPart<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            if piece == &ZEROS[..piece.len()] {
                self.push_zeros(piece.len() as u64, emit)?;
            } else {
                self.end_zeros(emit)?;
                self.push_data(piece, emit)?;
            }
        }
        Ok(())
    }

    /// Adds zeros that begin at a multiple of 64 KiB in the file.
    ///
    /// # Errors
    /// Those of `emit`.
    pub fn push_zeros(
        &mut self,
        count: u64,
        emit: &mut impl FnMut(ContentPart<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.zeros += count;
        let whole_frames = self.zeros - self.zeros % FRAME as u64;
        if whole_frames > 0 {
            self.end_chunk(emit)?;
            emit(ContentPart::Zeros(whole_frames))?;
            self.zeros -= whole_frames;
        }
        Ok(())
    }

    /// Ends the file. The chunker is then ready for the next one.
    ///
    /// # Errors
    /// Those of `emit`.
    pub fn finish(&mut self, emit: &mut impl FnMut(ContentPart<'_>) -> io::Result<()>) -> io::Result<()> {
        self.end_zeros(emit)?;
        self.end_chunk(emit)
    }

    /// Ends a run of zeros. A long run is a separate part, and a short one belongs to a chunk.
    fn end_zeros(&mut self, emit: &mut impl FnMut(ContentPart<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut left = std::mem::take(&mut self.zeros);
        if left >= ZERO_RUN {
            self.end_chunk(emit)?;
            return emit(ContentPart::Zeros(left));
        }
        while left > 0 {
            let count = left.min(PIECE as u64);
            self.push_data(&ZEROS[..count as usize], emit)?;
            left -= count;
        }
        Ok(())
    }

    fn push_data(
        &mut self,
        mut bytes: &[u8],
        emit: &mut impl FnMut(ContentPart<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let (taken, ends) = self.chunker.take(bytes);
            emit(ContentPart::Data(&bytes[..taken]))?;
            self.has_chunk = true;
            bytes = &bytes[taken..];
            if ends {
                self.end_chunk(emit)?;
            }
        }
        Ok(())
    }

    /// Ends the current chunk, if there is one.
    fn end_chunk(&mut self, emit: &mut impl FnMut(ContentPart<'_>) -> io::Result<()>) -> io::Result<()> {
        self.chunker = Chunker::default();
        if std::mem::take(&mut self.has_chunk) { emit(ContentPart::EndOfChunk) } else { Ok(()) }
    }
}
