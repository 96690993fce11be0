//! A tree that changes while it is read: what counts as a change, and what is done about it.

use super::{Time, TreePath};
use crate::error::Error;
use rustix::fs::Stat;
use rustix::io::Errno;
use std::{error, fmt};

/// What is done when something changes while it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnChange {
    /// It is an error.
    Fail,
    /// It is read again, a few times; then it is an error.
    #[default]
    Retry,
    /// A small file is read again, a few times; what still changes is left out.
    Skip,
}

/// What happened to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// It has more bytes than before.
    Grew {
        /// The size in bytes when it was opened.
        from: u64,
        /// The size in bytes after it was read.
        to: u64,
    },
    /// It has fewer bytes than before.
    Shrank {
        /// The size in bytes when it was opened.
        from: u64,
        /// The size in bytes after it was read.
        to: u64,
    },
    /// Its size is the same and its mtime or ctime is not: what was read may be half of the old and half of the new.
    Touched,
    /// It was listed and is no longer there.
    Vanished,
    /// It was listed as something and is something else.
    Replaced,
    /// It is in a directory that had been read, and was somewhere else before.
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

/// The cause of an error about something that changed while it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Where it is in the tree.
    pub path: TreePath,
    /// What happened to it.
    pub change: FileChange,
}

impl Changed {
    /// What changed, if that is what the error is about.
    pub fn cause_of(error: &Error) -> Option<&Self> {
        error.cause()?.downcast_ref()
    }

    /// The error that names it; `place` is its name on disk.
    pub(super) fn into_error(self, place: &str) -> Error {
        Error::failed(format!("{place} changed while it was read")).with_source(self).with_hint(
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

/// The cause of an error about a file whose content cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Where it is in the tree.
    pub path: TreePath,
    /// The error, as the operating system numbers them.
    pub errno: i32,
}

impl Unreadable {
    /// What cannot be read, if that is what the error is about.
    pub fn cause_of(error: &Error) -> Option<&Self> {
        error.cause()?.downcast_ref()
    }

    /// The error that names it; `place` is its name on disk.
    pub(super) fn into_error(self, place: &str) -> Error {
        Error::failed(format!("cannot read {place}"))
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

/// Whether an error says something about the file that is read: its rights, its disk, its file server. The others are
/// about this process, or say that it has changed.
pub(super) fn is_about_what_is_read(errno: Errno) -> bool {
    let of_this_process = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::BADF, Errno::FAULT, Errno::INTR];
    let of_changes = [Errno::NOENT, Errno::STALE, Errno::LOOP, Errno::NOTDIR];
    !of_this_process.contains(&errno) && !of_changes.contains(&errno)
}

/// What tells whether a file was written to between two looks.
///
/// The ctime is part of it because whoever writes can set the mtime back, as `rsync -t` and `cp -p` do.
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

    /// The time of the last change: the ctime, or the mtime where that is later, as where it was set by hand.
    pub fn latest(&self) -> Time {
        self.mtime.max(self.ctime)
    }

    /// What happened until the later look; `None` when nothing did.
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
