//! Races with programs that change a tree while it is read: what counts as a change, and the reaction to it.

use super::{Time, TreePath};
use crate::error::Error;
use rustix::fs::Stat;
use rustix::io::Errno;
use std::{error, fmt};

/// The number of times that an entry is read, or a layer is built, when an entry keeps changing. A file that is written to
/// once is then at rest, and one that never rests costs no more than this.
pub(super) const MAX_ATTEMPTS: u32 = 3;

/// The reaction to an entry that changes while it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnChange {
    /// An error at the first change.
    Fail,
    /// The entry is read again, a few times; then it is an error.
    #[default]
    Retry,
    /// A small file is read again, a few times; an entry that still changes is left out.
    Skip,
}

/// A change of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// The file has more bytes than before.
    Grew {
        /// The size in bytes when it was opened.
        from: u64,
        /// The size in bytes after it was read.
        to: u64,
    },
    /// The file has fewer bytes than before.
    Shrank {
        /// The size in bytes when it was opened.
        from: u64,
        /// The size in bytes after it was read.
        to: u64,
    },
    /// The size is the same and the mtime or ctime is not: the bytes that were read may be a mixture of old and new.
    Touched,
    /// The entry was listed and is no longer there.
    Vanished,
    /// The entry has another type than in the listing.
    Replaced,
    /// The entry was moved into a directory that had been read already.
    Moved,
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grew { from, to } => write!(f, "it grew from {from} to {to} bytes"),
            Self::Shrank { from, to } => write!(f, "it shrank from {from} to {to} bytes"),
            Self::Touched => write!(f, "it was written to"),
            Self::Vanished => write!(f, "it vanished"),
            Self::Replaced => write!(f, "it became something else"),
            Self::Moved => write!(f, "it was moved"),
        }
    }
}

/// The cause of an error about an entry that changed while it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The path in the tree.
    pub path: TreePath,
    /// The change.
    pub change: FileChange,
}

impl Changed {
    /// Returns the cause of an error, if it is a change.
    pub fn cause_of(error: &Error) -> Option<&Self> {
        error.cause()?.downcast_ref()
    }

    /// Converts the cause into an error; `shown` is the entry's name on disk.
    pub(super) fn into_error(self, shown: &str) -> Error {
        Error::failed(format!("{shown} changed while it was read")).with_source(self).with_hint(
            "pack a snapshot, stop what writes there, or leave out what changes with --on-change skip",
        )
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.change.fmt(f)
    }
}

impl error::Error for Changed {}

/// The cause of an error about a file with content that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The path in the tree.
    pub path: TreePath,
    /// The error number of the operating system.
    pub errno: i32,
}

impl Unreadable {
    /// Returns the cause of an error, if it is a file that cannot be read.
    pub fn cause_of(error: &Error) -> Option<&Self> {
        error.cause()?.downcast_ref()
    }

    /// Converts the cause into an error; `shown` is the entry's name on disk.
    pub(super) fn into_error(self, shown: &str) -> Error {
        Error::failed(format!("cannot read {shown}"))
            .with_source(self)
            .with_hint("leave it out with --exclude; --skip-unreadable leaves out all that cannot be read")
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.errno).fmt(f)
    }
}

impl error::Error for Unreadable {}

/// Returns whether an error is about the entry that is read: its permissions, its disk, its file server. Other errors are
/// about this process, or say that the entry has changed.
pub(super) fn is_about_entry(errno: Errno) -> bool {
    let of_this_process = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::BADF, Errno::FAULT, Errno::INTR];
    let of_changes = [Errno::NOENT, Errno::STALE, Errno::LOOP, Errno::NOTDIR];
    !of_this_process.contains(&errno) && !of_changes.contains(&errno)
}

/// The size and times of a file, which show whether it was written to in between.
///
/// The ctime is part of it because a program that writes can set the mtime back, as `rsync -t` and `cp -p` do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub size: u64,
    mtime: Time,
    ctime: Time,
}

impl Stamp {
    pub fn new(stat: &Stat) -> Self {
        let time = |seconds, nanoseconds: u64| Time { seconds, nanoseconds: nanoseconds as u32 };
        Self {
            size: stat.st_size.unsigned_abs(),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Returns the time of the last change: the ctime, or the mtime if that is later because it was set by hand.
    pub fn latest(&self) -> Time {
        self.mtime.max(self.ctime)
    }

    /// Returns the change between this stamp and a later one; `None` if they are equal.
    pub fn change(&self, later: &Self) -> Option<FileChange> {
        let (from, to) = (self.size, later.size);
        match to.cmp(&from) {
            std::cmp::Ordering::Greater => Some(FileChange::Grew { from, to }),
            std::cmp::Ordering::Less => Some(FileChange::Shrank { from, to }),
            std::cmp::Ordering::Equal if self == later => None,
            std::cmp::Ordering::Equal => Some(FileChange::Touched),
        }
    }
}
