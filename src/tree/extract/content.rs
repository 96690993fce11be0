//! The content of a file on its way to the disk.

use crate::error::Error;
use crate::tree::Content;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

/// Which zeros become holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holes {
    /// All are written.
    Never,
    /// Runs of 64 KiB and more; shorter holes would tear a file into pieces for little.
    #[default]
    Long,
    /// All that fill a block, so that no file takes more room than it took where it was packed.
    All,
}

impl Holes {
    /// Writes the zeros between two places, unless they are enough for a hole.
    fn fill(self, file: &File, from: u64, to: u64) -> io::Result<()> {
        match to - from {
            zeros @ 1..LONG if self == Self::Long => file.write_all_at(&ZEROS[..zeros as usize], from),
            _ => Ok(()),
        }
    }
}

/// How long a run is that is [long](Holes::Long), in bytes.
const LONG: u64 = 64 << 10;

/// Where a hole begins and ends: file systems keep whole blocks of this size.
const BLOCK: usize = 4 << 10;

/// How much is read before it is written.
const BUFFER: usize = 256 << 10;

/// The disk is told to begin after so many bytes of a file, in bytes. A kernel that is told nothing waits until a tenth of the
/// memory is full of them or half a minute is over, and all of it is waited for in the end.
const PORTION: u64 = 8 << 20;

static ZEROS: [u8; LONG as usize] = [0; LONG as usize];

/// Writes contents to files, one after the other.
pub(super) struct ContentWriter {
    buffer: Vec<u8>,
    holes: Holes,
    /// Whether all that is written will be waited for.
    sync: bool,
}

/// Which half of it failed.
pub(super) enum Failure {
    Reading(io::Error),
    Writing(io::Error),
}

impl ContentWriter {
    pub fn new(holes: Holes, sync: bool) -> Self {
        Self { buffer: vec![0; BUFFER], holes, sync }
    }

    /// Writes `size` bytes to a new file.
    pub fn write(&mut self, file: &File, size: u64, content: &mut dyn Content) -> Result<(), Failure> {
        let mut offset = 0;
        // Where the zeros begin that come before `offset` and were not written.
        let mut zeros_from = 0;
        let mut begun = 0;
        while offset < size {
            if self.holes != Holes::Never {
                offset += content.skip_hole().min(size - offset);
            }
            // What is read ends where a block ends, wherever a hole ended.
            let most = BUFFER - (offset % BLOCK as u64) as usize;
            let wanted = usize::try_from(size - offset).unwrap_or(most).min(most);
            let buffer = &mut self.buffer[..wanted];
            content.read_exact(buffer).map_err(|error| Failure::Reading(short(error, size)))?;
            for run in runs(buffer, offset, self.holes).into_iter().filter(|run| !run.is_zero) {
                let start = offset + run.start as u64;
                self.holes.fill(file, zeros_from, start).map_err(Failure::Writing)?;
                file.write_all_at(&buffer[run.start..run.end], start).map_err(Failure::Writing)?;
                zeros_from = offset + run.end as u64;
            }
            offset += wanted as u64;
            if self.sync && offset - begun >= PORTION {
                begin_writing(file, begun, offset);
                begun = offset;
            }
        }
        match zeros_from < size {
            true => file.set_len(size).map_err(Failure::Writing),
            false => Ok(()),
        }
    }
}

/// Has the kernel send to the disk what was written between two places, and waits for nothing. What it thinks of that is of
/// no consequence: all is synced in the end.
fn begin_writing(file: &File, from: u64, to: u64) {
    // This advice begins to write what is dirty, and then drops what is not: nothing yet, of bytes that were just written.
    let _ = fadvise(file, from, NonZeroU64::new(to - from), Advice::DontNeed);
}

/// Neighbouring bytes that are all zero, or are written as they are.
struct Run {
    start: usize,
    end: usize,
    is_zero: bool,
}

/// Cuts a buffer that stands at `offset` of a file into blocks that are zero and blocks that are not.
fn runs(buffer: &[u8], offset: u64, holes: Holes) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut start = 0;
    while start < buffer.len() {
        let to_boundary = BLOCK - ((offset + start as u64) % BLOCK as u64) as usize;
        let end = buffer.len().min(start + to_boundary);
        let is_zero = holes != Holes::Never && buffer[start..end] == ZEROS[..end - start];
        match runs.last_mut() {
            Some(run) if run.is_zero == is_zero => run.end = end,
            _ => runs.push(Run { start, end, is_zero }),
        }
        start = end;
    }
    runs
}

fn short(error: io::Error, size: u64) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Error::integrity(format!("the content is shorter than the {size} bytes it should have")).into()
        }
        _ => error,
    }
}
