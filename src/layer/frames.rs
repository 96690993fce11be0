//! The archive of a layer as frames: what is compressed, found and proved as one.
//!
//! Small files with their headers join a group; a larger one is cut by content, and long runs of zeros in it make frames
//! of their own. All frames together are the archive, without a gap.

use super::cuts::{Cutter, LONGEST};
use super::format::{BLOCK, FRAME, PIECE};
use super::toc::Toc;
use super::writer::Archive;
use crate::error::{Error, Result};
use crate::oci::{Algorithm, Digest};
use crate::stream::{HashingThread, PipeWriter, Written};
use crate::tree::{Entry, EntryKind};
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// So many zeros get frames of their own. Shorter runs would make more frames than they save.
const ZERO_RUN: usize = 256 << 10;

/// Bytes that several threads look at.
#[derive(Clone)]
pub struct Block(Arc<Vec<u8>>);

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Block {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }
}

/// A frame before it is compressed.
pub struct Frame {
    /// What it holds.
    pub block: Block,
    /// What the table of contents shall say about it.
    pub notes: Vec<Note>,
}

/// What a frame has for the table of contents.
pub enum Note {
    /// An entry; its content, where it has any, is in this frame from `inner` on.
    Whole { entry: Entry, inner: usize, digest: Option<Digest> },
    /// A large file, whose content comes in frames of its own.
    Begin(Entry),
    /// The whole frame is the next chunk of that file.
    Chunk { digest: Option<Digest>, zeros: bool },
    /// The file has ended.
    End,
}

/// A frame when it is compressed.
pub struct Packed {
    /// The compressed frame.
    pub bytes: Vec<u8>,
    /// How many bytes it holds.
    pub plain_size: usize,
    /// What the table of contents shall say about it; all digests are known.
    pub notes: Vec<Note>,
}

/// How the archive is cut into frames.
#[derive(Clone, Copy)]
pub enum Cuts {
    /// Between small files and within large ones, for a table of contents.
    ByContent,
    /// Every so many bytes.
    Every(usize),
}

/// Cuts the archive of a layer into frames while it is written.
pub struct Framer {
    cuts: Cuts,
    /// The group in the making.
    group: Vec<u8>,
    notes: Vec<Note>,
    /// The large file in the making.
    large: Option<Large>,
    hash: HashingThread<Block>,
    pipe: PipeWriter<Frame, Packed>,
    /// Where the table of contents stands, once the other end has written it.
    toc: Receiver<Option<Toc>>,
}

/// A file whose content makes frames of its own.
struct Large {
    chunk: Vec<u8>,
    cutter: Cutter,
    /// Zeros that were met last and are in no frame yet.
    zeros: usize,
}

impl Framer {
    /// Frames for this pipe; `toc` will be told when all of them were written.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn new(cuts: Cuts, pipe: PipeWriter<Frame, Packed>, toc: Receiver<Option<Toc>>) -> Result<Self> {
        let hash = HashingThread::start(Algorithm::Sha256)?;
        Ok(Self { cuts, group: Vec::new(), notes: Vec::new(), large: None, hash, pipe, toc })
    }

    /// Adds bytes to the group; in frames of a fixed size they may fill several.
    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let size = match self.cuts {
                Cuts::ByContent => usize::MAX,
                Cuts::Every(size) => size,
            };
            if self.group.capacity() == 0 {
                self.group.reserve_exact(size.min(FRAME));
            }
            let taken = bytes.len().min(size - self.group.len());
            self.group.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.group.len() == size {
                self.close()?;
            }
        }
        Ok(())
    }

    /// Ends the group.
    fn close(&mut self) -> io::Result<()> {
        match self.group.is_empty() {
            true => Ok(()),
            false => {
                let (group, notes) = (mem::take(&mut self.group), mem::take(&mut self.notes));
                self.send(group.into(), notes)
            }
        }
    }

    fn send(&mut self, block: Block, notes: Vec<Note>) -> io::Result<()> {
        self.pipe.send(Frame { block: block.clone(), notes })?;
        self.hash.update(block)
    }

    /// A chunk of the large file.
    fn send_chunk(&mut self, block: Block, zeros: bool) -> io::Result<()> {
        // What still waits for its frame came before.
        self.close()?;
        let mut notes = mem::take(&mut self.notes);
        notes.push(Note::Chunk { digest: None, zeros });
        self.send(block, notes)
    }

    fn large_content(&mut self, large: &mut Large, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            if piece == &NOTHING[..piece.len()] {
                large.zeros += piece.len();
                if large.zeros >= FRAME {
                    self.end_chunk(large)?;
                    self.send_chunk(zeros(FRAME), true)?;
                    large.zeros -= FRAME;
                }
            } else {
                self.settle_zeros(large)?;
                self.large_data(large, piece)?;
            }
        }
        Ok(())
    }

    /// Decides about the zeros behind which something else follows.
    fn settle_zeros(&mut self, large: &mut Large) -> io::Result<()> {
        let mut left = mem::take(&mut large.zeros);
        if left >= ZERO_RUN {
            self.end_chunk(large)?;
            return self.send_chunk(zeros(left), true);
        }
        while left > 0 {
            let piece = left.min(PIECE);
            self.large_data(large, &NOTHING[..piece])?;
            left -= piece;
        }
        Ok(())
    }

    fn large_data(&mut self, large: &mut Large, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if large.chunk.capacity() == 0 {
                large.chunk.reserve_exact(LONGEST);
            }
            let (taken, ends) = large.cutter.take(bytes);
            large.chunk.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if ends {
                self.end_chunk(large)?;
            }
        }
        Ok(())
    }

    /// Ends the chunk in the making, where there is one.
    fn end_chunk(&mut self, large: &mut Large) -> io::Result<()> {
        large.cutter = Cutter::default();
        match mem::take(&mut large.chunk) {
            chunk if chunk.is_empty() => Ok(()),
            chunk => self.send_chunk(chunk.into(), false),
        }
    }
}

impl Archive for Framer {
    type Out = ();

    fn header(&mut self, entry: &Entry, header: &[u8]) -> io::Result<()> {
        if let Cuts::Every(_) = self.cuts {
            return self.push(header);
        }
        let size = match entry.kind {
            EntryKind::File { size } => size,
            _ => 0,
        };
        let whole = size
            .checked_next_multiple_of(BLOCK as u64)
            .and_then(|size| usize::try_from(size).ok())
            .and_then(|size| size.checked_add(header.len()))
            .filter(|whole| *whole <= FRAME);
        if self.group.len() + whole.unwrap_or(header.len()) > FRAME {
            self.close()?;
        }
        self.push(header)?;
        if whole.is_some() {
            self.notes.push(Note::Whole { entry: entry.clone(), inner: self.group.len(), digest: None });
            return Ok(());
        }
        self.notes.push(Note::Begin(entry.clone()));
        self.large = Some(Large { chunk: Vec::new(), cutter: Cutter::default(), zeros: 0 });
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.large.take() {
            None => self.push(bytes),
            Some(mut large) => {
                let outcome = self.large_content(&mut large, bytes);
                self.large = Some(large);
                outcome
            }
        }
    }

    fn end(&mut self, padding: &[u8]) -> io::Result<()> {
        if let Some(mut large) = self.large.take() {
            self.settle_zeros(&mut large)?;
            self.end_chunk(&mut large)?;
            self.notes.push(Note::End);
        }
        self.push(padding)
    }

    fn seal(mut self) -> Result<((), Written, Option<Toc>)> {
        let cannot_write = |error: io::Error| Error::io("cannot write the layer", error);
        self.close().map_err(cannot_write)?;
        self.pipe.finish().map_err(cannot_write)?;
        let archive = self.hash.finish().recv();
        // The other end writes the table of contents when it has come to the end of the frames.
        match (archive, self.toc.recv()) {
            (Ok(archive), Ok(toc)) => Ok(((), archive, toc)),
            _ => Err(cannot_write(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

/// Zeros, to compare with and to copy from.
static NOTHING: [u8; PIECE] = [0; PIECE];

/// A block of at most [`FRAME`] zeros. Nobody writes to it, and so the kernel keeps one page for all of it.
fn zeros(length: usize) -> Block {
    vec![0; length].into()
}
