//! Entries from the results of `stat(2)`: their attributes, adjusted by the options of the walk.

use super::skip_list::SkipList;
use super::summary::{LeftOutReason, Summary};
use super::{WalkOptions, WalkedEntry};
use crate::tree::activity::{Activity, Care, wait_for_next_tick, wait_for_write};
use crate::tree::file::{FileContent, READ_AT_ONCE, ReadFailure, read_at_once};
use crate::tree::id_map::{Owner, Unmapped};
use crate::tree::race::{FileChange, MAX_ATTEMPTS, OnChange, is_about_entry};
use crate::tree::xattr::{XattrReader, XattrSource};
use crate::tree::{Entry, EntryKind, Metadata, Time, TreePath};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Stat, major, minor};
use rustix::io::Errno;

/// The reason for which something on disk does not become an entry.
#[derive(Clone, Copy, Debug)]
pub(super) enum EntryFailure {
    Errno(Errno),
    Changed(FileChange),
    Unmapped(Unmapped),
    /// A file of unknown size that does not end.
    Endless,
}

impl From<Errno> for EntryFailure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Changed(FileChange::Vanished),
            Errno::STALE | Errno::LOOP | Errno::NOTDIR => Self::Changed(FileChange::Replaced),
            errno => Self::Errno(errno),
        }
    }
}

impl From<ReadFailure> for EntryFailure {
    fn from(failure: ReadFailure) -> Self {
        match failure {
            ReadFailure::Errno(errno) => errno.into(),
            ReadFailure::Changed(change) => Self::Changed(change),
            ReadFailure::Endless => Self::Endless,
        }
    }
}

impl From<Unmapped> for EntryFailure {
    fn from(unmapped: Unmapped) -> Self {
        Self::Unmapped(unmapped)
    }
}

/// The reaction to an [`EntryFailure`] that does not end the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// The entry is read again.
    Retry,
    /// The entry is left out; it was counted.
    LeaveOut,
}

/// Builds entries from what the kernel says, as the options want them, and counts what is left out.
pub(super) struct EntryBuilder {
    pub options: WalkOptions,
    pub summary: Summary,
    skip_list: SkipList,
    xattrs: XattrReader,
    activity: Activity,
}

impl EntryBuilder {
    pub fn new(options: &WalkOptions, skip_list: &SkipList) -> Self {
        Self {
            options: options.clone(),
            summary: Summary::default(),
            skip_list: skip_list.clone(),
            xattrs: XattrReader::new(),
            activity: Activity::new(),
        }
    }

    /// Builds the entry for something with this status. `kind` has what the status does not say, such as a link's target.
    pub fn entry(
        &mut self,
        path: TreePath,
        kind: EntryKind,
        stat: &Stat,
        xattrs: XattrSource<'_>,
    ) -> Result<Entry, EntryFailure> {
        let mtime = Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 };
        let mode = stat.st_mode & 0o7777;
        let mut metadata =
            Metadata { mode, uid: stat.st_uid, gid: stat.st_gid, mtime, ..Metadata::default() };
        if self.options.normalize.is_none() {
            metadata.xattrs = self.xattrs.read(xattrs)?;
        }
        self.adjust(&mut metadata, FileType::from_raw_mode(stat.st_mode))?;
        Ok(Entry { path, kind, metadata })
    }

    /// Builds the entry for an entry of an archive. `kind` is its kind under this name, which may be a hard link, and
    /// `resolved` the kind of what the name leads to.
    pub fn stored_entry(
        &mut self,
        path: TreePath,
        kind: EntryKind,
        resolved: &EntryKind,
        mut metadata: Metadata,
    ) -> Result<Entry, Unmapped> {
        self.xattrs.retain_portable(&mut metadata.xattrs);
        let file_type = match resolved {
            EntryKind::Symlink { .. } => FileType::Symlink,
            EntryKind::Directory => FileType::Directory,
            _ => FileType::RegularFile,
        };
        self.adjust(&mut metadata, file_type)?;
        Ok(Entry { path, kind, metadata })
    }

    /// Applies the options to metadata.
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

    /// Counts the entry that was built last as part of the tree.
    pub fn count(&mut self, entry: &Entry) {
        self.summary.newest = self.summary.newest.max(Some(entry.metadata.mtime));
        for name in self.xattrs.left_out.drain(..) {
            *self.summary.attributes.entry(name).or_default() += 1;
        }
    }

    /// Counts a directory without its attributes, because another walk counts them.
    pub fn count_shared(&mut self, entry: &Entry) {
        self.xattrs.left_out.clear();
        self.count(entry);
    }

    /// Builds the entry for an open regular file, with its content. `shown` is its name on disk.
    pub fn file(
        &mut self,
        path: TreePath,
        fd: OwnedFd,
        stat: &Stat,
        shown: String,
    ) -> Result<WalkedEntry, EntryFailure> {
        let size = stat.st_size.unsigned_abs();
        let mut entry = self.entry(path, EntryKind::File { size }, stat, XattrSource::Open(fd.as_fd()))?;
        let care = self.activity.care(&fd, stat);
        if care != Care::Once {
            wait_for_next_tick(stat);
            wait_for_write(&fd);
        }
        let content = if size <= READ_AT_ONCE {
            let bytes = read_at_once(fd.as_fd(), stat, care)?;
            // In /proc and /sys the content is longer or shorter than the file system says.
            entry.kind = EntryKind::File { size: bytes.len() as u64 };
            FileContent::in_memory(bytes)
        } else {
            FileContent::on_disk(fd, stat, care, shown, entry.path.clone())
        };
        Ok(WalkedEntry { entry, file: Some(content) })
    }

    /// Decides what follows after an entry failed `attempts` times.
    ///
    /// # Errors
    /// The same failure, unless the entry is to be read again or left out.
    pub fn recover(
        &mut self,
        path: &TreePath,
        failure: EntryFailure,
        attempts: u32,
    ) -> Result<Recovery, EntryFailure> {
        use EntryFailure::{Changed, Errno as Failed};
        let reason = match (failure, self.options.on_change) {
            (Changed(FileChange::Vanished), OnChange::Skip) => LeftOutReason::Changed(FileChange::Vanished),
            // A file that has vanished does not come back by being opened again.
            (Changed(FileChange::Vanished), _) | (Changed(_), OnChange::Fail) => return Err(failure),
            (Changed(_), _) if attempts < MAX_ATTEMPTS => {
                self.activity.expect_change();
                return Ok(Recovery::Retry);
            }
            (Changed(change), OnChange::Skip) => LeftOutReason::Changed(change),
            (Failed(errno), _) if self.may_skip(errno) => LeftOutReason::unreadable(errno),
            // A file that its file server no longer knows looks the same as one that was replaced.
            (Changed(FileChange::Replaced), _) if self.options.skip_unreadable => {
                LeftOutReason::unreadable(Errno::STALE)
            }
            _ => return Err(failure),
        };
        self.leave_out(path.clone(), reason);
        Ok(Recovery::LeaveOut)
    }

    /// Counts an entry that is not in the tree.
    pub fn leave_out(&mut self, path: TreePath, reason: LeftOutReason) {
        self.summary.leave_out(path, reason);
    }

    /// Returns whether an entry that fails with this error is left out.
    pub fn may_skip(&self, errno: Errno) -> bool {
        self.options.skip_unreadable && is_about_entry(errno)
    }

    /// Returns whether a path is in the skip list, and counts it if so.
    pub fn skips(&mut self, path: &TreePath) -> bool {
        let reason = self.skip_list.get(path);
        if let Some(reason) = reason {
            self.leave_out(path.clone(), reason);
        }
        reason.is_some()
    }
}

/// Returns the kind of an entry as far as its status says it: `None` for symbolic links, sockets and unknown types.
pub(in crate::tree) fn entry_kind(stat: &Stat) -> Option<EntryKind> {
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

/// The mode that [`WalkOptions::normalize`] gives an entry.
fn normal_mode(file_type: FileType, mode: u32) -> u32 {
    match file_type {
        FileType::Symlink => 0o777,
        FileType::Directory => 0o755,
        _ if mode & 0o111 != 0 => 0o755,
        _ => 0o644,
    }
}
