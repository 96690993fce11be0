//! The counts of a walk.

use crate::tree::race::FileChange;
use crate::tree::{Time, TreePath};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// The reason for which an entry was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOutReason {
    /// The entry cannot be read; this is the error number of the operating system.
    Unreadable(i32),
    /// The entry changed while it was read.
    Changed(FileChange),
}

impl LeftOutReason {
    pub(in crate::tree) fn unreadable(errno: Errno) -> Self {
        Self::Unreadable(errno.raw_os_error())
    }
}

impl fmt::Display for LeftOutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(errno) => match Errno::from_raw_os_error(*errno) {
                Errno::ACCESS | Errno::PERM => write!(f, "it may not be read"),
                errno => write!(f, "it cannot be read: {}", io::Error::from(errno)),
            },
            Self::Changed(change) => write!(f, "{change} while it was read"),
        }
    }
}

/// An entry that is on disk and not in the tree, although no rule leaves it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The path that the entry would have in the tree.
    pub path: TreePath,
    /// The reason.
    pub reason: LeftOutReason,
}

/// The counts at the end of a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sockets. They are left out, because no archive can hold them.
    pub sockets: u64,
    /// Entries that the rules left out; a directory counts once.
    pub excluded: u64,
    /// Extended attributes that belong to the host and not to the tree, by the prefixes of their names.
    pub attributes: BTreeMap<&'static str, u64>,
    /// Files that volio and `mkfs` put into the roots of sources: the state of a target, and `lost+found`.
    pub bookkeeping: u64,
    /// Mount points that were not crossed.
    pub mounts: u64,
    /// Entries that cannot be read. Of a directory among them, the tree has the attributes.
    pub unreadable: u64,
    /// Entries that changed while they were read.
    pub changed: u64,
    /// The first [`MAX_NAMED`](Self::MAX_NAMED) unreadable and changed entries, or all of them in a walk over chosen paths.
    pub left_out: Vec<LeftOut>,
    /// The newest mtime of all entries; `None` where there were none.
    pub newest: Option<Time>,
    /// Names all unreadable and changed entries: a walk over chosen paths was asked for each of them.
    pub(crate) names_all: bool,
}

impl Summary {
    /// The most entries that are named: more than anybody reads, and few enough to fit into memory.
    pub const MAX_NAMED: usize = 1000;

    /// Adds two summaries.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let names_all = self.names_all || other.names_all;
        self.left_out.extend(other.left_out);
        if !names_all {
            self.left_out.truncate(Self::MAX_NAMED);
        }
        for (name, count) in other.attributes {
            *self.attributes.entry(name).or_default() += count;
        }
        Self {
            attributes: self.attributes,
            bookkeeping: self.bookkeeping + other.bookkeeping,
            mounts: self.mounts + other.mounts,
            sockets: self.sockets + other.sockets,
            excluded: self.excluded + other.excluded,
            unreadable: self.unreadable + other.unreadable,
            changed: self.changed + other.changed,
            left_out: self.left_out,
            newest: self.newest.max(other.newest),
            names_all,
        }
    }

    pub(super) fn leave_out(&mut self, path: TreePath, reason: LeftOutReason) {
        match reason {
            LeftOutReason::Unreadable(_) => self.unreadable += 1,
            LeftOutReason::Changed(_) => self.changed += 1,
        }
        if self.names_all || self.left_out.len() < Self::MAX_NAMED {
            self.left_out.push(LeftOut { path, reason });
        }
    }
}
