//! One thing in a tree: a file, a directory, a link or a device.

use super::TreePath;
use super::xattr::travels;
use std::collections::BTreeMap;

/// NAME_MAX and XATTR_NAME_MAX.
const LONGEST_NAME: usize = 255;
/// PATH_MAX, less the NUL behind it.
const LONGEST_TARGET: usize = 4095;
/// What a map of extended attributes takes in memory beside their names and values, and each of them.
const XATTRS: usize = 640;
const XATTR: usize = 96;
/// XATTR_SIZE_MAX.
const LARGEST_XATTR: usize = 64 << 10;

/// Something in a tree with all that is known about it but its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub kind: EntryKind,
    /// Whose it is, who may do what with it, and when it changed.
    pub metadata: Metadata,
}

impl Entry {
    /// Why no file system of Linux can hold this, if none can.
    pub fn impossible(&self) -> Option<&'static str> {
        let Metadata { uid, gid, mtime, xattrs, .. } = &self.metadata;
        let is_long = |name: &[u8]| name.len() > LONGEST_NAME;
        // The kernel takes the low bits of larger numbers, and makes another device.
        let is_device = |major: u32, minor: u32| major < 1 << 12 && minor < 1 << 20;
        match &self.kind {
            _ if self.path.names().any(is_long) => Some("has a name of more than 255 bytes"),
            // The highest number is how the kernel spells "leave the owner as it is".
            _ if *uid == u32::MAX || *gid == u32::MAX => Some("has an owner or a group above 4294967294"),
            _ if mtime.nanoseconds >= 1_000_000_000 => Some("has an mtime that cannot be"),
            _ if xattrs.keys().any(|name| name.is_empty() || is_long(name) || name.contains(&0)) => {
                Some("has an extended attribute whose name cannot be")
            }
            _ if xattrs.values().any(|value| value.len() > LARGEST_XATTR) => {
                Some("has an extended attribute of more than 64 KiB")
            }
            EntryKind::Symlink { target } if target.is_empty() || target.contains(&0) => {
                Some("is a symbolic link with no possible target")
            }
            EntryKind::Symlink { target } if target.len() > LONGEST_TARGET => {
                Some("is a symbolic link with a target of more than 4095 bytes")
            }
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor }
                if !is_device(*major, *minor) =>
            {
                Some("is a device whose numbers cannot be")
            }
            _ => None,
        }
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
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
    /// The extended attributes that belong to a tree: no labels of a host, no books of overlayfs, no notes of ours.
    pub fn portable_xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.xattrs.iter().filter(|(name, _)| travels(name)).map(|(name, value)| (&name[..], &value[..]))
    }

    /// What a directory gets that is only there to lead somewhere. It is a statement about nothing: extracted over a
    /// directory that was in the target, it changes nothing.
    pub fn implied_directory() -> Self {
        Self { mode: 0o755, ..Self::default() }
    }
}

/// How many bytes extended attributes take in memory.
pub(super) fn xattrs_memory(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> usize {
    let xattr = |(name, value): (&Vec<u8>, &Vec<u8>)| name.len() + value.len() + XATTR;
    match xattrs.is_empty() {
        true => 0,
        false => XATTRS + xattrs.iter().map(xattr).sum::<usize>(),
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
