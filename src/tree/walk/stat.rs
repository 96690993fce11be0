//! How something on disk becomes an [`Entry`]: what is taken over, what is adjusted, and what is counted.

use crate::error::Error;
use crate::tree::activity::{Activity, Care, wait_for_write};
use crate::tree::file::{self, FileContent, READ_AT_ONCE, read_at_once};
use crate::tree::id_map::{IdMaps, Owner, Unmapped};
use crate::tree::race::{Changed, FileChange, OnChange, Unreadable, is_about_what_is_read};
use crate::tree::xattr::{Carrier, Reader};
use crate::tree::{Entry, EntryKind, Metadata, Time, TreePath};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Stat, major, minor};
use rustix::io::Errno;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;

/// Something that a walk came by.
#[derive(Debug)]
pub struct WalkedEntry {
    /// What it is.
    pub entry: Entry,
    /// Its content, at the beginning: of a regular file that is not another name of an earlier one.
    pub file: Option<FileContent>,
}

/// How a tree is read.
#[derive(Clone, Debug, Default)]
pub struct WalkOptions {
    /// What is left out: rules of gitignore, which come after those in `.volioignore`.
    pub exclude: Vec<OsString>,
    /// What `.volioignore` at the root of a source means.
    pub rule_files: RuleFiles,
    /// Whether of directories that say they are caches, by a `CACHEDIR.TAG`, nothing but that is in the tree.
    pub exclude_caches: bool,
    /// Whether directories on which another file system is mounted are taken as empty.
    pub one_file_system: bool,
    /// Whether all that depends on the machine and its users is replaced: the owner becomes 0:0, the mode 0644, or
    /// 0755 for directories and where anybody may execute, the mtime this one. Extended attributes are left out: they
    /// are grants to users of this machine (ACLs), labels, or notes of the tools that made the files.
    pub normalize: Option<Time>,
    /// An mtime after this one becomes this one, as with `tar --clamp-mtime`.
    pub clamp_mtime: Option<Time>,
    /// Whose everything is, whoever owns it on disk. ACLs stay as they are.
    pub chown: Option<Owner>,
    /// What the numbers of owners on disk mean in the tree, also those in ACLs. Does not count with `chown`.
    pub id_maps: IdMaps,
    /// Whether what cannot be read is left out. A directory then is in the tree, without what is in it.
    pub skip_unreadable: bool,
    /// What is done when something changes while it is read.
    pub on_change: OnChange,
    /// What is left out because it changed while it was read, in an earlier walk over the same tree.
    pub changed: BTreeMap<TreePath, FileChange>,
    /// What is left out because reading it failed, in an earlier walk over the same tree, with this error of the system.
    pub unreadable: BTreeMap<TreePath, i32>,
}

/// The meaning of `.volioignore` at the root of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuleFiles {
    /// A file like any other. For trees that others can write to: whoever writes the rules decides what is packed.
    #[default]
    Ignore,
    /// Rules of gitignore, which leave entries out. For trees whose owner wants them packed by these rules.
    Apply,
}

/// How often something that changes while it is read is read anew: by the same walk where it is small, otherwise by
/// another walk. What is written to once is then at rest, and what never rests costs not more than this many times.
pub const ATTEMPTS: u32 = 3;

impl WalkOptions {
    /// Learns from an error of a walk over the tree, or of reading what it found, whether another walk may succeed.
    /// `attempts` walks have failed before.
    pub fn learn(&mut self, error: &Error, attempts: u32) -> bool {
        if let Some(Unreadable { path, errno }) = Unreadable::cause_of(error) {
            return self.skip_unreadable && self.unreadable.insert(path.clone(), *errno).is_none();
        }
        match (Changed::cause_of(error), self.on_change) {
            (None, _) | (_, OnChange::Fail) => false,
            (Some(_), OnChange::Retry) => attempts < ATTEMPTS,
            (Some(Changed { path, change }), OnChange::Skip) => {
                self.changed.insert(path.clone(), *change).is_none()
            }
        }
    }

    /// Whether what the error taught is left out, so that the rest of the tree is worth a survey.
    pub fn leaves_out_cause_of(&self, error: &Error) -> bool {
        Unreadable::cause_of(error).is_some() || self.on_change == OnChange::Skip
    }
}

/// Why something is not in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOutReason {
    /// It cannot be read: the number of the error, as the operating system counts them.
    Unreadable(i32),
    /// It changed while it was read.
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

/// Something that is on disk and not in the tree, although no rule says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Where it would be.
    #[serde(serialize_with = "as_text")]
    pub path: TreePath,
    /// Why it is not there.
    #[serde(serialize_with = "as_text")]
    pub reason: LeftOutReason,
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// What is known at the end of a walk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sockets that were passed over: they are one end of a conversation, and no image can hold them.
    pub sockets: u64,
    /// What the rules left out; a directory counts once.
    pub excluded: u64,
    /// Extended attributes that are notes of the host and no part of the tree, by the beginnings of their names.
    pub attributes: BTreeMap<&'static str, u64>,
    /// What volio and `mkfs` put into the roots of sources: the record of a target, `lost+found`.
    pub bookkeeping: u64,
    /// Places on which something else is mounted, where mounts are not crossed.
    pub mounts: u64,
    /// What may not be read. Of a directory among them, the tree has the attributes.
    pub unreadable: u64,
    /// What changed while it was read.
    pub changed: u64,
    /// The first of those two, up to [`NAMED`](Self::NAMED).
    pub left_out: Vec<LeftOut>,
    /// The newest mtime, as the entries tell it; `None` where there were none.
    pub newest: Option<Time>,
}

impl Summary {
    /// How much of what was left out is named: more than anybody reads, and less than fills the memory.
    pub const NAMED: usize = 1000;

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.left_out.extend(other.left_out);
        self.left_out.truncate(Self::NAMED);
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
        }
    }

    pub(super) fn leave_out(&mut self, path: TreePath, reason: LeftOutReason) {
        match reason {
            LeftOutReason::Unreadable(_) => self.unreadable += 1,
            LeftOutReason::Changed(_) => self.changed += 1,
        }
        if self.left_out.len() < Self::NAMED {
            self.left_out.push(LeftOut { path, reason });
        }
    }
}

/// Why something on disk does not become an entry.
#[derive(Clone, Copy, Debug)]
pub(in crate::tree) enum Failure {
    Errno(Errno),
    Changed(FileChange),
    Unmapped(Unmapped),
    /// A file that does not say how long it is, and does not end.
    Endless,
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Changed(FileChange::Vanished),
            Errno::STALE | Errno::LOOP | Errno::NOTDIR => Self::Changed(FileChange::Replaced),
            errno => Self::Errno(errno),
        }
    }
}

impl From<file::Failure> for Failure {
    fn from(failure: file::Failure) -> Self {
        match failure {
            file::Failure::Errno(errno) => errno.into(),
            file::Failure::Changed(change) => Self::Changed(change),
            file::Failure::Endless => Self::Endless,
        }
    }
}

impl From<Unmapped> for Failure {
    fn from(unmapped: Unmapped) -> Self {
        Self::Unmapped(unmapped)
    }
}

/// Turns what the kernel says into entries, as the options want them.
pub(in crate::tree) struct Observer {
    pub options: WalkOptions,
    pub summary: Summary,
    xattrs: Reader,
    activity: Activity,
}

impl Observer {
    pub fn new(options: &WalkOptions) -> Self {
        Self {
            options: options.clone(),
            summary: Summary::default(),
            xattrs: Reader::new(),
            activity: Activity::new(),
        }
    }

    /// The entry for something with this status; `kind` says what the status does not.
    pub fn entry(
        &mut self,
        path: TreePath,
        kind: EntryKind,
        stat: &Stat,
        carrier: Carrier<'_>,
    ) -> Result<Entry, Failure> {
        let mtime = Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 };
        let mode = stat.st_mode & 0o7777;
        let mut metadata =
            Metadata { mode, uid: stat.st_uid, gid: stat.st_gid, mtime, ..Metadata::default() };
        if self.options.normalize.is_none() {
            metadata.xattrs = self.xattrs.read(carrier)?;
        }
        self.adjust(&mut metadata, FileType::from_raw_mode(stat.st_mode))?;
        Ok(Entry { path, kind, metadata })
    }

    /// The entry for something that an archive says; `kind` is what it is under this name, and `of` what it is.
    pub fn recorded(
        &mut self,
        path: TreePath,
        kind: EntryKind,
        of: &EntryKind,
        mut metadata: Metadata,
    ) -> Result<Entry, Unmapped> {
        self.xattrs.keep_travelling(&mut metadata.xattrs);
        let file_type = match of {
            EntryKind::Symlink { .. } => FileType::Symlink,
            EntryKind::Directory => FileType::Directory,
            _ => FileType::RegularFile,
        };
        self.adjust(&mut metadata, file_type)?;
        Ok(Entry { path, kind, metadata })
    }

    /// Makes of what something has what the options want it to have.
    fn adjust(&self, metadata: &mut Metadata, file_type: FileType) -> Result<(), Unmapped> {
        if let Some(mtime) = self.options.normalize {
            *metadata =
                Metadata { mode: normal_mode(file_type, metadata.mode), mtime, ..Metadata::default() };
        }
        if let Some(latest) = self.options.clamp_mtime {
            metadata.mtime = metadata.mtime.min(latest);
        }
        match self.options.chown {
            Some(Owner { uid, gid }) => (metadata.uid, metadata.gid) = (uid, gid),
            None => self.options.id_maps.to_container(metadata)?,
        }
        Ok(())
    }

    /// Notes that the entry that was made last is part of the tree.
    pub fn note(&mut self, entry: &Entry) {
        self.summary.newest = self.summary.newest.max(Some(entry.metadata.mtime));
        for name in self.xattrs.left_out.drain(..) {
            *self.summary.attributes.entry(name).or_default() += 1;
        }
    }

    /// The same for a directory that another walk tells too, and counts.
    pub fn note_again(&mut self, entry: &Entry) {
        self.xattrs.left_out.clear();
        self.note(entry);
    }

    /// A regular file that is open, with its content. `place` is its name on disk.
    pub fn file(
        &mut self,
        path: TreePath,
        fd: OwnedFd,
        stat: &Stat,
        place: String,
    ) -> Result<WalkedEntry, Failure> {
        let size = stat.st_size.unsigned_abs();
        let mut entry = self.entry(path, EntryKind::File { size }, stat, Carrier::Open(fd.as_fd()))?;
        let care = self.activity.care(&fd, stat);
        if care != Care::Once {
            wait_for_write(&fd);
        }
        let content = match size <= READ_AT_ONCE {
            true => {
                let bytes = read_at_once(fd.as_fd(), stat, care)?;
                // In /proc and /sys the content is longer or shorter than the file system says.
                entry.kind = EntryKind::File { size: bytes.len() as u64 };
                FileContent::held(bytes)
            }
            false => FileContent::disk(fd, stat, care, place, entry.path.clone()),
        };
        Ok(WalkedEntry { entry, file: Some(content) })
    }

    /// What is done about something that did not become an entry after `attempts` attempts: an error unless it is
    /// to be read again or left out.
    pub fn answer(&mut self, path: &TreePath, failure: Failure, attempts: u32) -> Result<Answer, Failure> {
        let reason = match (failure, self.options.on_change) {
            (Failure::Changed(FileChange::Vanished), OnChange::Skip) => {
                LeftOutReason::Changed(FileChange::Vanished)
            }
            // What has vanished does not come back by being looked for in the same place.
            (Failure::Changed(FileChange::Vanished), _) | (Failure::Changed(_), OnChange::Fail) => {
                return Err(failure);
            }
            (Failure::Changed(_), _) if attempts < ATTEMPTS => {
                self.activity.found();
                return Ok(Answer::Again);
            }
            (Failure::Changed(change), OnChange::Skip) => LeftOutReason::Changed(change),
            (Failure::Errno(errno), _) if self.may_skip(errno) => LeftOutReason::unreadable(errno),
            // A file that its server does not know any more looks the same.
            (Failure::Changed(FileChange::Replaced), _) if self.options.skip_unreadable => {
                LeftOutReason::unreadable(Errno::STALE)
            }
            _ => return Err(failure),
        };
        self.leave_out(path.clone(), reason);
        Ok(Answer::LeftOut)
    }

    /// Notes that something is not in the tree.
    pub fn leave_out(&mut self, path: TreePath, reason: LeftOutReason) {
        self.summary.leave_out(path, reason);
    }

    /// Whether something for which this is the error is left out.
    pub fn may_skip(&self, errno: Errno) -> bool {
        self.options.skip_unreadable && is_about_what_is_read(errno)
    }

    /// Leaves out what has changed or could not be read in an earlier walk; whether it did.
    pub fn leaves_out(&mut self, path: &TreePath) -> bool {
        let changed = self.options.changed.get(path).copied().map(LeftOutReason::Changed);
        let reason =
            changed.or_else(|| self.options.unreadable.get(path).copied().map(LeftOutReason::Unreadable));
        if let Some(reason) = reason {
            self.leave_out(path.clone(), reason);
        }
        reason.is_some()
    }
}

/// What becomes of something that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tree) enum Answer {
    /// It is looked at again.
    Again,
    /// It is left out, and was counted.
    LeftOut,
}

/// The kind of what is neither a link nor another name; `None` for sockets and what is not known.
pub(in crate::tree) fn kind(stat: &Stat) -> Option<EntryKind> {
    let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(EntryKind::File { size: stat.st_size.unsigned_abs() }),
        FileType::Directory => Some(EntryKind::Directory),
        FileType::Fifo => Some(EntryKind::Fifo),
        FileType::CharacterDevice => Some(EntryKind::CharDevice { major, minor }),
        FileType::BlockDevice => Some(EntryKind::BlockDevice { major, minor }),
        FileType::Symlink | FileType::Socket | FileType::Unknown => None,
    }
}

fn normal_mode(file_type: FileType, mode: u32) -> u32 {
    match file_type {
        FileType::Symlink => 0o777,
        FileType::Directory => 0o755,
        _ if mode & 0o111 != 0 => 0o755,
        _ => 0o644,
    }
}
