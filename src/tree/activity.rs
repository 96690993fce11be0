//! Reading files that another program may be writing to, so that the result is the content at one moment.
//!
//! The stamps of a file show when a `write()` began, but not that it is still running. They show nothing about a store into
//! pages of a shared mapping that are dirty already. A read lease would show both; no safe interface to it exists. So a
//! file that was changed lately is read twice: if both readings give the same bytes, the file had all of them at one
//! moment between the two.

use super::Time;
use super::race::Stamp;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{SeekFrom, Stat, fstatfs, seek};
use std::thread;
use std::time::{Duration, SystemTime};

/// The age in seconds from which a file counts as at rest. Linux writes dirty pages back after 30 seconds, give or take 5,
/// and the next store into a mapping then changes the stamps.
const REST_AGE: i64 = 60;

/// The types of tmpfs and ramfs in `statfs(2)`. They write nothing back, so stores into a mapping change the stamps once
/// and never again.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

/// The number of readings that a file needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// One reading: the file has not been written to for long.
    Once,
    /// Two readings: a program may be writing to the file. Equal bytes prove that the file had all of them at one moment.
    Twice,
    /// Two readings, and a third after a pause: a writer that the scheduler has stopped in the middle continues meanwhile.
    TwiceWithPause,
}

/// The pause of [`Care::TwiceWithPause`]: longer than a time slice of the scheduler.
const PAUSE: Duration = Duration::from_millis(8);

/// The size from which files are read with a pause, and the number of such files in a walk. Programs map large files rather
/// than small ones, and a pause for each file would make a walk over a fresh tree ten times longer.
const MIN_PAUSE_SIZE: u64 = 64 << 10;
const MAX_PAUSES: u32 = 4;

/// The time for which two changes of a file may get the same stamp: more than a tick of the clock that stamps files, which
/// is 1 to 10 ms on Linux.
const TICK: Duration = Duration::from_millis(20);

/// Decides which files must be read twice.
pub(super) struct Activity {
    /// The number of pauses that are left.
    pauses: u32,
    /// Set when the next file has changed while it was read before.
    is_changing: bool,
    /// The latest stamp of a file at rest.
    at_rest: Time,
    /// The device of the last file, with `true` if it is in memory.
    device: Option<(u64, bool)>,
}

impl Activity {
    /// Measures the age of files from now. Nothing that is recorded depends on the clock.
    pub fn new() -> Self {
        let at_rest = Time { seconds: now().seconds - REST_AGE, nanoseconds: 0 };
        Self { pauses: MAX_PAUSES, is_changing: false, at_rest, device: None }
    }

    /// Makes the next file be read with a pause, because it has changed while it was read before.
    pub fn expect_change(&mut self) {
        self.is_changing = true;
    }

    /// Returns how an open file with this status is to be read.
    pub fn care(&mut self, file: impl AsFd, stat: &Stat) -> Care {
        let stamp = Stamp::new(stat);
        if std::mem::take(&mut self.is_changing) {
            return Care::TwiceWithPause;
        }
        if stamp.latest() <= self.at_rest && !self.is_in_memory(file.as_fd(), stat.st_dev) {
            return Care::Once;
        }
        if stamp.size < MIN_PAUSE_SIZE || self.pauses == 0 {
            return Care::Twice;
        }
        self.pauses -= 1;
        Care::TwiceWithPause
    }

    fn is_in_memory(&mut self, file: BorrowedFd<'_>, device: u64) -> bool {
        match self.device {
            Some((known, is_in_memory)) if known == device => is_in_memory,
            _ => {
                // The width of the field differs between processors, and the numbers fit into each.
                let is_in_memory =
                    fstatfs(file).is_ok_and(|status| IN_MEMORY.contains(&(status.f_type as u32)));
                self.device = Some((device, is_in_memory));
                is_in_memory
            }
        }
    }
}

/// Returns the time by the clock that stamps files. That is this machine's clock, except on network file systems.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanoseconds: since.subsec_nanos() }
}

/// Waits until a further change of a file gets another stamp than it has now. Without this, an image could have a content
/// that is changed in the same tick, and the next comparison by stamps would not notice it. A later file is older by then,
/// so that a tree that nothing writes to costs one such pause at most.
pub(super) fn wait_for_next_tick(stat: &Stat) {
    let stamp = Stamp::new(stat).latest();
    let nanoseconds = |time: Time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let age = nanoseconds(now()) - nanoseconds(stamp);
    // A time in the future was not given by this clock.
    if let Some(age) = u64::try_from(age).ok().map(Duration::from_nanos).filter(|age| *age <= TICK) {
        thread::sleep(TICK - age);
    }
}

/// Waits for a program that may be in the middle of a store into a mapping.
pub(super) fn pause() {
    thread::sleep(PAUSE);
}

/// Waits until a running `write()` has ended: `SEEK_DATA` takes the lock that a write holds, on ext4, tmpfs, btrfs and
/// f2fs. On XFS each read takes it.
pub(super) fn wait_for_write(file: impl AsFd) {
    // Its result does not matter: a file without a size has no data to find.
    let _ = seek(file, SeekFrom::Data(0));
}

/// A checksum of a file's content that zeros do not change, so that holes need not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds the bytes at a position.
    pub fn add(&mut self, position: u64, bytes: &[u8]) {
        let begun = (position % 8) as usize;
        let (head, rest) = bytes.split_at(bytes.len().min((8 - begun) % 8));
        let mut word = position / 8;
        if !head.is_empty() {
            self.add_word(word, part(begun, head));
            word += 1;
        }
        let (words, tail) = rest.as_chunks::<8>();
        for bytes in words {
            self.add_word(word, u64::from_le_bytes(*bytes));
            word += 1;
        }
        self.add_word(word, part(0, tail));
    }

    fn add_word(&mut self, number: u64, word: u64) {
        self.0 = self.0.wrapping_add(word.wrapping_mul(weight(number)));
    }
}

/// Returns a word with `bytes` at offset `from`, and zeros elsewhere.
fn part(from: usize, bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[from..from + bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Returns an odd number for each word of a file, by SplitMix64.
fn weight(number: u64) -> u64 {
    let mut x = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(pieces: &[(u64, &[u8])]) -> Sum {
        let mut sum = Sum::default();
        pieces.iter().for_each(|(position, bytes)| sum.add(*position, bytes));
        sum
    }

    #[test]
    fn a_sum_depends_on_the_bytes_and_not_on_how_they_are_split() {
        let bytes: Vec<u8> = (1..=100).collect();
        let whole = sum(&[(0, &bytes)]);
        for cut in 0..bytes.len() {
            assert_eq!(sum(&[(0, &bytes[..cut]), (cut as u64, &bytes[cut..])]), whole, "cut at {cut}");
        }
        assert_eq!(sum(&[(100, &[0; 50]), (0, &bytes)]), whole, "zeros need not be read");
        assert_ne!(sum(&[(8, &bytes)]), whole);
        let mut other = bytes.clone();
        other.swap(3, 90);
        assert_ne!(sum(&[(0, &other)]), whole);
    }
}
