//! Entries of a tree: files, directories, links and devices.

use super::TreePath;
use super::xattr::is_portable;
use std::collections::BTreeMap;

/// `NAME_MAX` and `XATTR_NAME_MAX`, in bytes.
const MAX_NAME: usize = 255;
/// `PATH_MAX` without the terminating NUL, in bytes.
const MAX_LINK_TARGET: usize = 4095;
/// The memory of a map of extended attributes besides names and values, and that of each attribute, in bytes.
const XATTR_MAP_MEMORY: usize = 640;
const XATTR_MEMORY: usize = 96;
/// `XATTR_SIZE_MAX`, in bytes.
const MAX_XATTR: usize = 64 << 10;

/// An entry of a tree, without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path in the tree.
    pub path: TreePath,
    /// The type, with the properties that only this type has.
    pub kind: EntryKind,
    /// Owner, permissions, mtime and extended attributes.
    pub metadata: Metadata,
}

impl Entry {
    /// A directory that exists only because it leads to other entries, and that no source describes: 0755, 0:0, mtime 0.
    pub fn implied_directory(path: TreePath) -> Self {
        Self { path, kind: EntryKind::Directory, metadata: Metadata::implied_directory() }
    }

    /// Returns whether this is, or looks like, an [implied directory](Self::implied_directory).
    ///
    /// An archive cannot mark implied directories, and a marker would change the bytes of every image. So a directory
    /// that really is 0755, 0:0 and from 1970 looks the same. Extraction over a directory that exists already keeps the
    /// attributes of that directory then.
    pub fn is_implied_directory(&self) -> bool {
        self.kind == EntryKind::Directory && self.metadata == Metadata::implied_directory()
    }

    /// Returns the reason for which no file system of Linux can hold this entry; `None` if one can.
    pub fn impossible(&self) -> Option<&'static str> {
        let Metadata { uid, gid, mtime, xattrs, .. } = &self.metadata;
        let is_long = |name: &[u8]| name.len() > MAX_NAME;
        // The kernel uses the low bits of larger numbers, which are another device.
        let is_device = |major: u32, minor: u32| major < 1 << 12 && minor < 1 << 20;
        match &self.kind {
            _ if is_long(self.path.as_bytes()) && self.path.names().any(is_long) => {
                Some("has a name of more than 255 bytes")
            }
            // To the kernel, the highest number means "leave the owner as it is".
            _ if *uid == u32::MAX || *gid == u32::MAX => Some("has an owner or a group above 4294967294"),
            _ if mtime.nanoseconds >= 1_000_000_000 => Some("has an mtime that cannot be"),
            _ if xattrs.keys().any(|name| name.is_empty() || is_long(name) || name.contains(&0)) => {
                Some("has an extended attribute whose name cannot be")
            }
            _ if xattrs.values().any(|value| value.len() > MAX_XATTR) => {
                Some("has an extended attribute of more than 64 KiB")
            }
            EntryKind::Symlink { target } if target.is_empty() || target.contains(&0) => {
                Some("is a symbolic link with no possible target")
            }
            EntryKind::Symlink { target } if target.len() > MAX_LINK_TARGET => {
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

/// The type of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file of that many bytes.
    File {
        /// The length in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// The target, which need not exist.
        target: Vec<u8>,
    },
    /// Another name of an earlier entry.
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

/// Owner, permissions, mtime and extended attributes of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The permissions with setuid, setgid and sticky: the lowest twelve bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of the last change of the content.
    pub mtime: Time,
    /// Extended attributes, POSIX ACLs among them: full name and value.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Metadata {
    /// The metadata of an [implied directory](Entry::implied_directory).
    pub fn implied_directory() -> Self {
        Self { mode: 0o755, ..Self::default() }
    }

    /// Returns the extended attributes that belong to a tree: without host security labels, bookkeeping of overlayfs and
    /// volio's own records.
    pub fn portable_xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.xattrs.iter().filter(|(name, _)| is_portable(name)).map(|(name, value)| (&name[..], &value[..]))
    }
}

/// Returns the memory of extended attributes, in bytes.
pub(super) fn xattrs_memory(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> usize {
    let xattr = |(name, value): (&Vec<u8>, &Vec<u8>)| name.len() + value.len() + XATTR_MEMORY;
    if xattrs.is_empty() { 0 } else { XATTR_MAP_MEMORY + xattrs.iter().map(xattr).sum::<usize>() }
}

/// A point in time, before or after 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds since 1970, rounded down.
    pub seconds: i64,
    /// Additional nanoseconds, less than 10⁹.
    pub nanoseconds: u32,
}

impl From<(i64, u32)> for Time {
    fn from((seconds, nanoseconds): (i64, u32)) -> Self {
        Self { seconds, nanoseconds }
    }
}

impl From<Time> for (i64, u32) {
    fn from(Time { seconds, nanoseconds }: Time) -> Self {
        (seconds, nanoseconds)
    }
}
