//! One thing in a tree: a file, a directory, a link or a device.

use super::TreePath;
use std::collections::BTreeMap;

/// Something in a tree with all that is known about it but its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub kind: Kind,
    /// Whose it is, who may do what with it, and when it changed.
    pub metadata: Metadata,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of that many bytes.
    File {
        /// The length in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link to whatever these bytes say.
    Symlink {
        /// What the link says; it need not exist.
        target: Vec<u8>,
    },
    /// Another name of an entry that came before.
    Hardlink {
        /// The first name.
        target: TreePath,
    },
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
}

/// Whose an entry is, who may do what with it, and when it changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The permissions with setuid, setgid and sticky: the lowest twelve bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content changed last.
    pub mtime: Time,
    /// Extended attributes, POSIX ACLs among them: full name and value.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Metadata {
    /// What a directory gets that is only there to lead somewhere. It is a statement about nothing: extracted over a
    /// directory that was in the target, it changes nothing.
    pub fn plain_directory() -> Self {
        Self { mode: 0o755, ..Self::default() }
    }
}

/// A point in time, before or after 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds since 1970, rounded down.
    pub seconds: i64,
    /// Nanoseconds on top, less than 10⁹.
    pub nanoseconds: u32,
}
