//! How something on disk becomes an [`Entry`]: what is taken over, what is adjusted, and what is counted.

use super::xattr::{Carrier, Reader};
use super::{Entry, Kind, Metadata, Time, TreePath};
use rustix::fs::{FileType, Stat, major, minor};
use rustix::io::Result;
use std::fs::File;

/// Something that a walk came by.
#[derive(Debug)]
pub struct Found {
    /// What it is.
    pub entry: Entry,
    /// Its content, at the beginning: of a regular file that is not another name of an earlier one.
    pub file: Option<File>,
}

/// How a tree is read.
#[derive(Clone, Debug, Default)]
pub struct WalkOptions {
    /// What is left out: rules of gitignore, which come after those in `.volioignore`.
    pub exclude: Vec<String>,
    /// Whether directories on which another file system is mounted are taken as empty.
    pub one_file_system: bool,
    /// Whether all that depends on the machine and its users is replaced: the owner becomes 0:0, the mode 0644, or
    /// 0755 for directories and where anybody may execute, the mtime this one. Extended attributes are left out: they
    /// are grants to users of this machine (ACLs), labels, or notes of the tools that made the files.
    pub normalize: Option<Time>,
    /// An mtime after this one becomes this one, as with `tar --clamp-mtime`.
    pub clamp_mtime: Option<Time>,
}

/// What is known at the end of a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sockets that were passed over: they are one end of a conversation, and no image can hold them.
    pub sockets: u64,
    /// What the rules left out; a directory counts once.
    pub excluded: u64,
    /// The newest mtime, as the entries tell it; `None` where there were none.
    pub newest: Option<Time>,
}

impl Summary {
    /// Both together.
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            sockets: self.sockets + other.sockets,
            excluded: self.excluded + other.excluded,
            newest: self.newest.max(other.newest),
        }
    }
}

/// Turns what the kernel says into entries, as the options want them.
pub(super) struct Observer {
    pub options: WalkOptions,
    pub summary: Summary,
    xattrs: Reader,
}

impl Observer {
    pub fn new(options: &WalkOptions) -> Self {
        Self { options: options.clone(), summary: Summary::default(), xattrs: Reader::new() }
    }

    /// The entry for something with this status; `kind` says what the status does not.
    pub fn entry(&mut self, path: TreePath, kind: Kind, stat: &Stat, carrier: Carrier<'_>) -> Result<Entry> {
        let mtime = match self.options.normalize {
            Some(time) => time,
            None => Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        };
        let mtime = self.options.clamp_mtime.map_or(mtime, |latest| mtime.min(latest));
        self.summary.newest = self.summary.newest.max(Some(mtime));
        let metadata = match self.options.normalize {
            Some(_) => Metadata { mode: normal_mode(stat), mtime, ..Metadata::default() },
            None => Metadata {
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                mtime,
                xattrs: self.xattrs.read(carrier)?,
            },
        };
        Ok(Entry { path, kind, metadata })
    }
}

/// The kind of what is neither a link nor another name; `None` for sockets and what is not known.
pub(super) fn kind(stat: &Stat) -> Option<Kind> {
    let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(Kind::File { size: stat.st_size.unsigned_abs() }),
        FileType::Directory => Some(Kind::Directory),
        FileType::Fifo => Some(Kind::Fifo),
        FileType::CharacterDevice => Some(Kind::CharDevice { major, minor }),
        FileType::BlockDevice => Some(Kind::BlockDevice { major, minor }),
        FileType::Symlink | FileType::Socket | FileType::Unknown => None,
    }
}

fn normal_mode(stat: &Stat) -> u32 {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => 0o777,
        FileType::Directory => 0o755,
        _ if stat.st_mode & 0o111 != 0 => 0o755,
        _ => 0o644,
    }
}
