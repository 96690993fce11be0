//! The journal of an extraction: the paths that it created, so that a later run can remove them, and nothing else.
//!
//! Each file system of a target has a journal in its topmost directory while the target is incomplete. It has the time
//! when it was begun, then the paths below that directory in the order of their creation, each followed by a NUL byte.
//! Each path is one `write`, made before the entry's content: a run that is killed at any moment leaves a journal that
//! lacks at most its last entry. Writes are not collected in memory, because a killed process would take them along;
//! the entries that are missing could then not be distinguished from files of the user. Nothing is synced: after a
//! power cut, entries that are missing in the journal stay where they are.

use crate::disk::directory::ensure_owner_access;
use crate::tree::TreePath;
use crate::tree::dir_stack::DirStack;
use crate::tree::target_state::JOURNAL;
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat, unlinkat};
use rustix::io::{Errno, fcntl_dupfd_cloexec, write};
use std::fs::File;
use std::io::Read;

/// An open journal.
pub(super) struct Journal(File);

impl Journal {
    /// Begins a journal in a directory, or continues that of an interrupted run. `None` if none can be written: then a later
    /// run removes nothing.
    pub fn begin(directory: BorrowedFd<'_>) -> Option<Self> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(directory, JOURNAL, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).ok()?;
        let stat = fstat(&file).ok().filter(is_plain_file)?;
        if stat.st_size == 0 {
            let begun = format!("{}.{:09}\0", stat.st_mtime, stat.st_mtime_nsec);
            write(&file, begun.as_bytes()).ok()?;
        }
        Some(Self(file.into()))
    }

    /// Adds a path. An error means only that the entry will not be removed.
    pub fn add(&self, path: &TreePath) {
        let _ = write(&self.0, &[path.as_bytes(), b"\0"].concat());
    }
}

fn is_plain_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_nlink == 1
}

/// Removes the journal of a directory.
pub(super) fn remove(directory: BorrowedFd<'_>) {
    let _ = unlinkat(directory, JOURNAL, AtFlags::empty());
}

/// Removes the entries in the journal of a directory, unless they were changed since. A directory that holds something else
/// now stays. Returns the number of removed entries.
///
/// # Errors
/// The path that failed, and the error of the operating system.
pub(super) fn remove_entries(directory: BorrowedFd<'_>) -> Result<u64, (TreePath, Errno)> {
    let at_root = |errno| (TreePath::root(), errno);
    let Some((begun, paths)) = read(directory) else { return Ok(0) };
    let root = fcntl_dupfd_cloexec(directory, 0).map_err(at_root)?;
    let device = fstat(&root).map_err(at_root)?.st_dev;
    let mut stack = DirStack::new(root);
    let mut removed = 0;
    // The last entry may not have its times yet.
    let mut is_last = true;
    for path in
        paths.split(|byte| *byte == 0).rev().filter(|path| !path.is_empty()).filter_map(TreePath::parse)
    {
        let parent = path.parent().unwrap_or_default();
        match stack.goto(&parent).and_then(|()| remove_entry(&mut stack, &path, begun, is_last, device)) {
            Ok(is_removed) => removed += u64::from(is_removed),
            // It is gone, or was replaced, or is in use.
            Err(
                Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY,
            ) => {}
            Err(errno) => return Err((path, errno)),
        }
        is_last = false;
    }
    remove(directory);
    Ok(removed)
}

/// Returns the time when the journal was begun, and the paths in it.
fn read(directory: BorrowedFd<'_>) -> Option<((i64, i64), Vec<u8>)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, JOURNAL, flags, Mode::empty()).ok()?;
    fstat(&file).ok().filter(is_plain_file)?;
    let mut text = Vec::new();
    File::from(file).read_to_end(&mut text).ok()?;
    let end = text.iter().position(|byte| *byte == 0)?;
    let (seconds, nanoseconds) = str::from_utf8(&text[..end]).ok()?.split_once('.')?;
    let begun = (seconds.parse().ok()?, nanoseconds.parse().ok()?);
    Some((begun, text.split_off(end)))
}

/// Removes one entry; returns `false` if it is not the one that the run created.
fn remove_entry(
    stack: &mut DirStack,
    path: &TreePath,
    begun: (i64, i64),
    is_last: bool,
    device: u64,
) -> Result<bool, Errno> {
    let here = stack.here()?;
    let stat = statat(here, path.name(), AtFlags::SYMLINK_NOFOLLOW)?;
    if fstat(here)?.st_dev != device || stat.st_dev != device {
        return Ok(false);
    }
    let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
    // A file with a time from an image is older than the run; a newer one was written by another program.
    let is_ours = is_last || (stat.st_mtime, stat.st_mtime_nsec as i64) < begun;
    if !is_directory && !is_ours {
        return Ok(false);
    }
    // The directory may be closed to its owner.
    ensure_owner_access(here);
    let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    unlinkat(here, path.name(), flags).map(|()| true)
}
