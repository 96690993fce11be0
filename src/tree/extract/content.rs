//! Writing of file contents, with holes in place of zeros.

use crate::error::Error;
use crate::tree::Content;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

/// The zeros that become holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holes {
    /// None: all zeros are written.
    Never,
    /// Runs of 64 KiB and more. Shorter holes would fragment a file and save little.
    #[default]
    Long,
    /// All zeros that fill a block, so that no file takes more space than where it was packed.
    All,
}

impl Holes {
    /// Writes the zeros between two positions, unless they are enough for a hole.
    fn write_zeros(self, file: &File, from: u64, to: u64) -> io::Result<()> {
        match to - from {
            zeros @ 1..LONG_RUN if self == Self::Long => file.write_all_at(&ZEROS[..zeros as usize], from),
            _ => Ok(()),
        }
    }
}

/// The size of a [long](Holes::Long) run, in bytes.
const LONG_RUN: u64 = 64 << 10;

/// The alignment of holes, in bytes: file systems allocate whole blocks of this size.
const BLOCK: usize = 4 << 10;

/// The bytes that are read before they are written.
pub(super) const BUFFER: usize = 256 << 10;

/// The bytes of a file after which writeback is started. Otherwise the kernel starts it after half a minute, or when a tenth
/// of the memory is dirty, and the sync at the end takes longer.
const WRITEBACK_SIZE: u64 = 8 << 20;

static ZEROS: [u8; LONG_RUN as usize] = [0; LONG_RUN as usize];

/// A writer of file contents, with a buffer that is used for one file after another.
pub(super) struct ContentWriter {
    buffer: Vec<u8>,
    holes: Holes,
    /// Set when everything will be synced at the end.
    sync: bool,
}

/// The side on which a copy failed.
pub(super) enum WriteFailure {
    Source(io::Error),
    Disk(io::Error),
}

impl ContentWriter {
    pub fn new(holes: Holes, sync: bool) -> Self {
        Self { buffer: vec![0; BUFFER], holes, sync }
    }

    /// Writes `size` bytes to a new file.
    pub fn write(&mut self, file: &File, size: u64, content: &mut dyn Content) -> Result<(), WriteFailure> {
        let mut offset = 0;
        // The beginning of the zeros before `offset` that were not written.
        let mut zeros_from = 0;
        let mut begun = 0;
        while offset < size {
            if self.holes != Holes::Never {
                offset += content.skip_hole().min(size - offset);
            }
            // Each read ends at a block boundary, wherever the last hole ended.
            let most = BUFFER - (offset % BLOCK as u64) as usize;
            let wanted = usize::try_from(size - offset).unwrap_or(most).min(most);
            let buffer = &mut self.buffer[..wanted];
            content.read_exact(buffer).map_err(|error| WriteFailure::Source(short(error, size)))?;
            let written = write_block(file, self.holes, buffer, offset, zeros_from);
            zeros_from = written.map_err(WriteFailure::Disk)?;
            offset += wanted as u64;
            if self.sync && offset - begun >= WRITEBACK_SIZE {
                start_writeback(file, begun, offset);
                begun = offset;
            }
        }
        if zeros_from < size { file.set_len(size).map_err(WriteFailure::Disk) } else { Ok(()) }
    }
}

/// Writes a content that is in memory to a new file.
pub(super) fn write_whole(file: &File, content: &[u8], holes: Holes) -> io::Result<()> {
    let size = content.len() as u64;
    if write_block(file, holes, content, 0, 0)? < size { file.set_len(size) } else { Ok(()) }
}

/// Writes a part of a file at `offset`, with holes. The zeros from `zeros_from` on were not written. Returns the beginning of
/// those at the end that were not written.
fn write_block(file: &File, holes: Holes, block: &[u8], offset: u64, mut zeros_from: u64) -> io::Result<u64> {
    for run in runs(block, offset, holes).into_iter().filter(|run| !run.is_zero) {
        let start = offset + run.start as u64;
        holes.write_zeros(file, zeros_from, start)?;
        file.write_all_at(&block[run.start..run.end], start)?;
        zeros_from = offset + run.end as u64;
    }
    Ok(zeros_from)
}

/// Starts writeback of a range, without waiting for it. Errors do not matter: everything is synced at the end.
fn start_writeback(file: &File, from: u64, to: u64) {
    // This advice starts writeback of dirty pages and drops clean ones. Pages that were just written are all dirty.
    let _ = fadvise(file, from, NonZeroU64::new(to - from), Advice::DontNeed);
}

/// A range of a buffer that is all zero, or is written as it is.
struct BufferRun {
    start: usize,
    end: usize,
    is_zero: bool,
}

/// Splits a buffer at `offset` of a file into runs of zero blocks and runs of other blocks.
fn runs(buffer: &[u8], offset: u64, holes: Holes) -> Vec<BufferRun> {
    let mut runs: Vec<BufferRun> = Vec::new();
    let mut start = 0;
    while start < buffer.len() {
        let to_boundary = BLOCK - ((offset + start as u64) % BLOCK as u64) as usize;
        let end = buffer.len().min(start + to_boundary);
        let is_zero = holes != Holes::Never && buffer[start..end] == ZEROS[..end - start];
        match runs.last_mut() {
            Some(run) if run.is_zero == is_zero => run.end = end,
            _ => runs.push(BufferRun { start, end, is_zero }),
        }
        start = end;
    }
    runs
}

pub(super) fn short(error: io::Error, size: u64) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::integrity(format!("the content is shorter than the {size} bytes it should have")).into()
        }
        _ => error,
    }
}
