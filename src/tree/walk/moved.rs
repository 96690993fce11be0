//! What a walk has listed, so that it is noticed when something was moved past it: from a directory that it was yet to
//! read into one that it had read. Such an entry is nowhere in what the walk told, and was on disk all the time.

use super::filter::Filter;
use super::listing::{Name, is_not_of_the_tree, list, open_quietly, place};
use super::stat::{LeftOutReason, Summary};
use crate::error::Result;
use crate::tree::activity::now;
use crate::tree::dir_stack::{Descent, FileId};
use crate::tree::path_range::{PathRange, Place};
use crate::tree::race::{Changed, FileChange, OnChange, Stamp};
use crate::tree::{Time, TreePath};
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, StatxFlags, fstat, openat, statx};
use rustix::io::Errno;
use std::ffi::CString;
use std::path::PathBuf;

/// In seconds: stamps as coarse as this exist. A directory whose stamps are not older than that may change once more
/// without a trace.
const COARSEST: i64 = 2;

/// The directories of all sources, as they were when they were listed.
#[derive(Default)]
pub struct ListedDirectories(pub(super) Vec<Directories>);

/// The directories of one source, and what of it a walk told.
pub(super) struct Directories {
    pub source: PathBuf,
    pub shown: String,
    pub at: TreePath,
    pub filter: Filter,
    pub range: PathRange,
    pub log: Log,
}

/// The directories that a walk has listed so far, each after the one that it is in.
pub(super) struct Log {
    begun: Time,
    directories: Vec<Directory>,
}

struct Directory {
    name: Box<[u8]>,
    /// How many names lead to it from the root of the source.
    depth: usize,
    identity: FileId,
    stamp: Stamp,
    /// The hashes of its entries, in order.
    entries: Box<[u64]>,
}

impl ListedDirectories {
    /// Looks for entries that were moved past the walk.
    ///
    /// # Errors
    /// The first one, unless changes are to be skipped; then all of them are noted as left out.
    pub fn check(&self, on_change: OnChange, summary: &mut Summary) -> Result<()> {
        for directories in &self.0 {
            for path in directories.moved() {
                let changed = Changed { path: directories.at.append(&path), change: FileChange::Moved };
                match on_change {
                    OnChange::Skip => {
                        summary.leave_out(changed.path, LeftOutReason::Changed(FileChange::Moved))
                    }
                    OnChange::Fail | OnChange::Retry => {
                        return Err(changed.into_error(&place(&directories.shown, &path)));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Log {
    pub fn new() -> Self {
        Self { begun: now(), directories: Vec::new() }
    }

    /// Notes a directory; `stat` is from before it was listed.
    pub fn note(&mut self, path: &TreePath, depth: usize, stat: &Stat, names: &[Name]) {
        let mut entries: Box<[u64]> = names.iter().map(Name::hash).collect();
        entries.sort_unstable();
        let (identity, stamp) = (FileId::from(stat), Stamp::new(stat));
        self.directories.push(Directory { name: path.name().into(), depth, identity, stamp, entries });
    }

    /// Whether a directory may have been changed since it was listed, if these are its stamps now.
    fn may_have_changed(&self, directory: &Directory, stamp: &Stamp) -> bool {
        let is_recent = directory.stamp.latest().seconds >= self.begun.seconds - COARSEST;
        is_recent || directory.stamp.change(stamp).is_some()
    }
}

impl Directories {
    /// What is now in a directory that was listed, was not there then, and is older than the walk. What vanished, or
    /// cannot be read any more, was told when it could be.
    fn moved(&self) -> Vec<TreePath> {
        let mut moved = Vec::new();
        let Some((root, below)) = self.log.directories.split_first() else { return moved };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(fd) = openat(CWD, &self.source, flags, Mode::empty()) else { return moved };
        let Ok(stat) = fstat(&fd) else { return moved };
        if FileId::from(&stat) != root.identity {
            return moved;
        }
        let mut descent = Descent::new(fd);
        self.look_at(root, &stat, &mut descent, &mut moved);
        for directory in below {
            while descent.depth() >= directory.depth {
                descent.leave();
            }
            // The one that it is in is no longer there.
            if descent.depth() + 1 != directory.depth {
                continue;
            }
            if let Ok(stat) = enter(&mut descent, directory) {
                self.look_at(directory, &stat, &mut descent, &mut moved);
            }
        }
        moved
    }

    fn look_at(&self, directory: &Directory, stat: &Stat, descent: &mut Descent, moved: &mut Vec<TreePath>) {
        if !self.log.may_have_changed(directory, &Stamp::new(stat)) {
            return;
        }
        let above = descent.path().clone();
        let is_root = descent.depth() == 0;
        let Ok(here) = descent.here() else { return };
        for name in list(here).into_iter().flatten() {
            if directory.entries.binary_search(&name.hash()).is_err()
                && !(is_root && is_not_of_the_tree(here, &name.name))
                && self.is_older(here, &above, &name)
            {
                moved.push(above.join(name.name.to_bytes()));
            }
        }
    }

    /// Whether something that is in the tree existed before the walk.
    fn is_older(&self, directory: BorrowedFd<'_>, above: &TreePath, name: &Name) -> bool {
        let wanted = StatxFlags::TYPE | StatxFlags::BTIME;
        let Ok(status) = statx(directory, &name.name, AtFlags::SYMLINK_NOFOLLOW, wanted) else {
            return false;
        };
        let kind = FileType::from_raw_mode(status.stx_mode.into());
        let path = above.join(name.name.to_bytes());
        let is_told = self.range.place(&self.at.append(&path)) == Place::Inside
            && !(self.range.only_directories && kind != FileType::Directory)
            && kind != FileType::Socket
            && !self.filter.excludes(&path, kind == FileType::Directory);
        let born = Time { seconds: status.stx_btime.tv_sec, nanoseconds: status.stx_btime.tv_nsec };
        let knows_birth = StatxFlags::from_bits_retain(status.stx_mask).contains(StatxFlags::BTIME);
        is_told && !(knows_birth && born > self.log.begun)
    }
}

/// Goes into a directory, if it is still the one that was listed.
fn enter(descent: &mut Descent, directory: &Directory) -> std::result::Result<Stat, Errno> {
    let name = CString::new(&*directory.name).map_err(|_| Errno::INVAL)?;
    let fd = open_quietly(descent.here()?, &name, OFlags::DIRECTORY)?;
    let stat = fstat(&fd)?;
    match FileId::from(&stat) == directory.identity {
        true => descent.push(&directory.name, fd, &stat),
        false => return Err(Errno::STALE),
    }
    Ok(stat)
}
