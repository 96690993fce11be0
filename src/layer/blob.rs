//! The blob of a layer: its frames one behind the other as they are compressed, then the table of contents.

use super::frames::Packed;
use super::toc::{Toc, TocWriter};
use crate::stream::PipeReader;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::mpsc::Sender;

/// A layer while it is made, to be read by who sends it.
pub struct Blob {
    frames: PipeReader<Packed>,
    /// The one in the making; `None` for a layer without, and when it was written.
    toc: Option<TocWriter>,
    /// Who waits for the place of the table of contents.
    writer: Option<Sender<Option<Toc>>>,
    /// What is read next.
    ready: VecDeque<io::Cursor<Vec<u8>>>,
    /// How many bytes of frames there were.
    offset: u64,
}

impl Blob {
    pub(super) fn new(
        frames: PipeReader<Packed>,
        toc: Option<TocWriter>,
        writer: Sender<Option<Toc>>,
    ) -> Self {
        Self { frames, toc, writer: Some(writer), ready: VecDeque::new(), offset: 0 }
    }

    /// Makes the next bytes ready, if there are any.
    fn advance(&mut self) -> io::Result<()> {
        let Some(frame) = self.frames.receive()? else { return self.end() };
        let end = self.offset + frame.bytes.len() as u64;
        if let Some(toc) = &mut self.toc {
            toc.add(frame.notes, &(self.offset..end), frame.plain_size)?;
        }
        self.offset = end;
        self.ready.push_back(io::Cursor::new(frame.bytes));
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let toc = match self.toc.take() {
            None => None,
            Some(toc) => {
                let (toc, frames) = toc.finish(self.offset)?;
                self.ready.extend(frames.map(io::Cursor::new));
                Some(toc)
            }
        };
        // A writer that does not wait has gone on to another layer.
        let _ = writer.send(toc);
        Ok(())
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.ready.front_mut() {
                Some(bytes) => match bytes.read(buffer)? {
                    0 if !buffer.is_empty() => _ = self.ready.pop_front(),
                    read => return Ok(read),
                },
                None if self.writer.is_none() => return Ok(0),
                None => self.advance()?,
            }
        }
    }
}
