//! Detection of entries that were moved past a walk: from a directory that it had not read yet into one that it had
//! read. Such an entry is nowhere in the result, although it was on disk all the time.
//!
//! The walk logs each directory with its stamps and the hashes of its entries. At the end, each directory that may have
//! changed since it was listed is listed again. An entry that is new there, and older than the walk, was moved.

use super::filter::Filter;
use super::listing::{DirEntry, display_path, is_bookkeeping, list, open_quietly};
use super::summary::{LeftOutReason, Summary};
use crate::error::Result;
use crate::tree::activity::now;
use crate::tree::dir_stack::{DirStack, FileId};
use crate::tree::path_range::{PathRange, Position};
use crate::tree::race::{Changed, FileChange, OnChange, Stamp};
use crate::tree::{Time, TreePath};
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxFlags, fstat, openat, statat, statx};
use rustix::io::Errno;
use std::ffi::CString;
use std::path::PathBuf;

/// The coarsest resolution of stamps, in seconds. A directory with younger stamps may change again without a trace.
const COARSEST_STAMP: i64 = 2;

/// The directories of all sources, as they were when they were listed.
#[derive(Default)]
pub struct ListedDirectories(pub(super) Vec<SourceDirectories>);

/// The directories of one source, and the part of it that the walk yielded.
pub(super) struct SourceDirectories {
    pub source: PathBuf,
    pub shown: String,
    pub at: TreePath,
    pub filter: Filter,
    pub range: PathRange,
    pub log: DirectoryLog,
}

/// The directories that a walk has listed so far; a directory comes after the one that contains it.
pub(super) struct DirectoryLog {
    begun: Time,
    directories: Vec<LoggedDirectory>,
}

struct LoggedDirectory {
    name: Box<[u8]>,
    /// The number of names in the path from the root of the source.
    depth: usize,
    id: FileId,
    stamp: Stamp,
    /// The hashes of its entries, in order.
    entries: Box<[u64]>,
}

impl ListedDirectories {
    /// Looks for entries that were moved past the walk.
    ///
    /// # Errors
    /// The first one, unless changes are to be skipped; then all of them are counted as left out.
    pub fn check(&self, on_change: OnChange, summary: &mut Summary) -> Result<()> {
        for directories in &self.0 {
            for path in directories.moved() {
                let changed = Changed { path: directories.at.append(&path), change: FileChange::Moved };
                match on_change {
                    OnChange::Skip => {
                        summary.leave_out(changed.path, LeftOutReason::Changed(FileChange::Moved));
                    }
                    OnChange::Fail | OnChange::Retry => {
                        return Err(changed.into_error(&display_path(&directories.shown, &path)));
                    }
                }
            }
        }
        Ok(())
    }
}

impl DirectoryLog {
    pub fn new() -> Self {
        Self { begun: now(), directories: Vec::new() }
    }

    /// Adds a directory; `stat` is from before it was listed.
    pub fn add(&mut self, path: &TreePath, depth: usize, stat: &Stat, names: &[DirEntry]) {
        let mut entries: Box<[u64]> = names.iter().map(DirEntry::hash).collect();
        entries.sort_unstable();
        let (id, stamp) = (FileId::from(stat), Stamp::new(stat));
        self.directories.push(LoggedDirectory { name: path.name().into(), depth, id, stamp, entries });
    }

    /// Returns whether a directory may have changed since it was listed; `stamp` is its stamp now.
    fn may_have_changed(&self, directory: &LoggedDirectory, stamp: &Stamp) -> bool {
        let is_recent = directory.stamp.latest().seconds >= self.begun.seconds - COARSEST_STAMP;
        is_recent || directory.stamp.change(stamp).is_some()
    }
}

impl SourceDirectories {
    /// Returns the entries of listed directories that are new there and older than the walk. Entries that have vanished
    /// since, or cannot be read any more, were in the tree while they were there.
    fn moved(&self) -> Vec<TreePath> {
        let mut moved = Vec::new();
        let Some((root, below)) = self.log.directories.split_first() else { return moved };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(fd) = openat(CWD, &self.source, flags, Mode::empty()) else { return moved };
        let Ok(stat) = fstat(&fd) else { return moved };
        if FileId::from(&stat) != root.id {
            return moved;
        }
        let mut stack = DirStack::new(fd);
        self.find_moved(root, &stat, &mut stack, &mut moved);
        for (n, directory) in below.iter().enumerate() {
            while stack.depth() >= directory.depth {
                stack.leave();
            }
            // The directory that contained it could not be entered.
            if stack.depth() + 1 != directory.depth {
                continue;
            }
            let has_listed_below = below.get(n + 1).is_some_and(|next| next.depth > directory.depth);
            if !has_listed_below && self.is_unchanged(&mut stack, directory) {
                continue;
            }
            if let Ok(stat) = enter(&mut stack, directory) {
                self.find_moved(directory, &stat, &mut stack, &mut moved);
            }
        }
        moved
    }

    /// Returns whether a directory below the current one is as it was listed, without opening it.
    fn is_unchanged(&self, stack: &mut DirStack, directory: &LoggedDirectory) -> bool {
        let (Ok(name), Ok(above)) = (CString::new(&*directory.name), stack.here()) else { return false };
        statat(above, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            FileId::from(&stat) == directory.id && !self.log.may_have_changed(directory, &Stamp::new(&stat))
        })
    }

    /// Adds the entries of one directory that were moved into it.
    fn find_moved(
        &self,
        directory: &LoggedDirectory,
        stat: &Stat,
        stack: &mut DirStack,
        moved: &mut Vec<TreePath>,
    ) {
        if !self.log.may_have_changed(directory, &Stamp::new(stat)) {
            return;
        }
        let above = stack.path().clone();
        let is_root = stack.depth() == 0;
        let Ok(here) = stack.here() else { return };
        for entry in list(here, &mut Vec::new()).into_iter().flatten() {
            if directory.entries.binary_search(&entry.hash()).is_err()
                && !(is_root && is_bookkeeping(here, &entry.name))
                && self.is_older_than_walk(here, &above, &entry)
            {
                moved.push(above.join(entry.name.to_bytes()));
            }
        }
    }

    /// Returns whether an entry belongs to the tree and existed before the walk.
    fn is_older_than_walk(&self, directory: BorrowedFd<'_>, above: &TreePath, entry: &DirEntry) -> bool {
        let wanted = StatxFlags::TYPE | StatxFlags::BTIME;
        let Ok(status) = statx(directory, &entry.name, AtFlags::SYMLINK_NOFOLLOW, wanted) else {
            return false;
        };
        let file_type = FileType::from_raw_mode(status.stx_mode.into());
        let path = above.join(entry.name.to_bytes());
        let is_in_tree = self.range.position(&self.at.append(&path)) == Position::Inside
            && !(self.range.only_directories && file_type != FileType::Directory)
            && file_type != FileType::Socket
            && !self.filter.excludes(&path, file_type == FileType::Directory);
        let born = Time { seconds: status.stx_btime.tv_sec, nanoseconds: status.stx_btime.tv_nsec };
        // Where the file system does not record births, every new entry counts as older.
        let has_birth = StatxFlags::from_bits_retain(status.stx_mask).contains(StatxFlags::BTIME);
        is_in_tree && !(has_birth && born > self.log.begun)
    }
}

/// Enters a directory, if it is still the one that was listed.
fn enter(stack: &mut DirStack, directory: &LoggedDirectory) -> std::result::Result<Stat, Errno> {
    let name = CString::new(&*directory.name).map_err(|_| Errno::INVAL)?;
    let fd = open_quietly(stack.here()?, &name, OFlags::DIRECTORY)?;
    let stat = fstat(&fd)?;
    if FileId::from(&stat) != directory.id {
        return Err(Errno::STALE);
    }
    stack.push(&directory.name, fd, &stat);
    Ok(stat)
}
