//! The content of a file on its way to the disk.

use crate::error::Error;
use crate::tree::Content;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A run of zeros becomes a hole from this length on, where it begins at a multiple of it.
const HOLE: usize = 64 << 10;

/// How much is read before it is written.
const BUFFER: usize = 4 * HOLE;

static ZEROS: [u8; HOLE] = [0; HOLE];

/// Writes contents to files, one after the other.
pub(super) struct ContentWriter {
    buffer: Vec<u8>,
    holes: bool,
}

/// Which half of it failed.
pub(super) enum Failure {
    Reading(io::Error),
    Writing(io::Error),
}

impl ContentWriter {
    pub fn new(holes: bool) -> Self {
        Self { buffer: vec![0; BUFFER], holes }
    }

    /// Writes `size` bytes to a new file.
    pub fn write(&mut self, file: &File, size: u64, content: &mut dyn Content) -> Result<(), Failure> {
        let mut offset = 0;
        let mut ends_in_hole = false;
        while offset < size {
            let hole = if self.holes { content.skip_hole().min(size - offset) } else { 0 };
            if hole > 0 {
                offset += hole;
                ends_in_hole = true;
                continue;
            }
            let wanted = usize::try_from(size - offset).unwrap_or(BUFFER).min(BUFFER);
            let buffer = &mut self.buffer[..wanted];
            content.read_exact(buffer).map_err(|error| Failure::Reading(short(error, size)))?;
            for run in runs(buffer, self.holes) {
                ends_in_hole = run.is_hole;
                if !run.is_hole {
                    let bytes = &buffer[run.start..run.end];
                    file.write_all_at(bytes, offset + run.start as u64).map_err(Failure::Writing)?;
                }
            }
            offset += wanted as u64;
        }
        match ends_in_hole {
            true => file.set_len(size).map_err(Failure::Writing),
            false => Ok(()),
        }
    }
}

/// Neighbouring bytes that are all written, or all left out.
struct Run {
    start: usize,
    end: usize,
    is_hole: bool,
}

/// Cuts a buffer into what is written and what becomes a hole.
fn runs(buffer: &[u8], holes: bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (n, block) in buffer.chunks(HOLE).enumerate() {
        let is_hole = holes && block == ZEROS;
        let end = n * HOLE + block.len();
        match runs.last_mut() {
            Some(run) if run.is_hole == is_hole => run.end = end,
            _ => runs.push(Run { start: n * HOLE, end, is_hole }),
        }
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
