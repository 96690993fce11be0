//! What the user should know about a tree that is packed although the work goes on.

use crate::progress::Progress;
use crate::tree::{FileContent, Found, Summary};

/// Holes up to this many bytes are packed without a word: they take about as long as a minute's coffee.
const QUIET: u64 = 64 << 30;

/// Bytes of holes that are archived, hashed and compressed in a second: what SHA-256 does on one core.
const RATE: u64 = 1 << 30;

/// Warns of holes: nothing of them is read, and yet all their zeros must be hashed, because an archive is the same
/// whether its files have holes or not.
pub struct Holes<'a> {
    bytes: u64,
    /// The next warning comes above this.
    quiet: u64,
    progress: &'a dyn Progress,
}

impl<'a> Holes<'a> {
    pub fn new(progress: &'a dyn Progress) -> Self {
        Self { bytes: 0, quiet: QUIET, progress }
    }

    /// Counts what a file adds.
    pub fn count(&mut self, found: &Found) {
        self.bytes = self.bytes.saturating_add(found.file.as_ref().map_or(0, FileContent::holes));
        if self.bytes > self.quiet {
            self.progress.warn(&format!(
                "there are {} GiB of holes up to {}: they are not read, but hashing them takes about {} minutes",
                self.bytes >> 30,
                found.entry.path,
                (self.bytes / RATE / 60).max(1),
            ));
            self.quiet = self.bytes.saturating_mul(2);
        }
    }
}

/// Names what is not in the image.
pub fn left_out(summary: &Summary, progress: &dyn Progress) {
    for left_out in &summary.left_out {
        progress.warn(&format!("{} is not in the image: {}", left_out.path, left_out.reason));
    }
    let unnamed = (summary.unreadable + summary.changed).saturating_sub(summary.left_out.len() as u64);
    if unnamed > 0 {
        progress.warn(&format!("{unnamed} more are not in the image for such reasons"));
    }
}
