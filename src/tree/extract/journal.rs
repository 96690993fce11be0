//! The journal: what a run has made in a file system of its target, noted while it works. So a later run can take away just that,
//! and nothing that somebody has put there meanwhile.
//!
//! It is there while the target is incomplete. First comes the time when it was begun, then the paths from the root of the file
//! system, in the order in which they were made, with a NUL behind each. Nothing waits for the disk: what a lost journal does not say is left where
//! it is.

use crate::disk::directory::ensure_owner_access;
use crate::tree::TreePath;
use crate::tree::dir_stack::Descent;
use crate::tree::target_state::JOURNAL;
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, statat, unlinkat};
use rustix::io::{Errno, fcntl_dupfd_cloexec, write};
use std::fs::File;
use std::io::Read;

/// A journal that is written.
pub(super) struct Journal(File);

impl Journal {
    /// Begins a journal in a directory, or goes on with the one of an interrupted run. `None` where none can be written: then
    /// nothing of this run is ever taken away.
    pub fn begin(directory: BorrowedFd<'_>) -> Option<Self> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(directory, JOURNAL, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).ok()?;
        let stat = fstat(&file).ok().filter(is_plain)?;
        if stat.st_size == 0 {
            let begun = format!("{}.{:09}\0", stat.st_mtime, stat.st_mtime_nsec);
            write(&file, begun.as_bytes()).ok()?;
        }
        Some(Self(file.into()))
    }

    /// Notes that this was made. Where that fails, it is not taken away later, and that is all.
    pub fn note(&self, path: &TreePath) {
        let _ = write(&self.0, &[path.as_bytes(), b"\0"].concat());
    }
}

fn is_plain(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_nlink == 1
}

/// Removes the journal of a directory.
pub(super) fn remove(directory: BorrowedFd<'_>) {
    let _ = unlinkat(directory, JOURNAL, AtFlags::empty());
}

/// Removes what the journal of a directory says that interrupted runs have made, as far as nobody has changed it since: of a
/// directory that holds something else now, the directory stays. Returns how many entries it were.
///
/// # Errors
/// The path at which it failed, and what the operating system says.
pub(super) fn take_back(directory: BorrowedFd<'_>) -> Result<u64, (TreePath, Errno)> {
    let at_root = |errno| (TreePath::root(), errno);
    let Some((begun, made)) = read(directory) else { return Ok(0) };
    let root = fcntl_dupfd_cloexec(directory, 0).map_err(at_root)?;
    let device = fstat(&root).map_err(at_root)?.st_dev;
    let mut descent = Descent::new(root);
    let mut removed = 0;
    // The one that was made last may not have its times yet.
    let mut is_last = true;
    for path in
        made.split(|byte| *byte == 0).rev().filter(|path| !path.is_empty()).filter_map(TreePath::parse)
    {
        let parent = path.parent().unwrap_or_default();
        match descent.go_to(&parent).and_then(|()| remove_one(&mut descent, &path, begun, is_last, device)) {
            Ok(is_removed) => removed += u64::from(is_removed),
            // Somebody else has it now, or it is gone.
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

/// When the journal was begun, and the paths in it.
fn read(directory: BorrowedFd<'_>) -> Option<((i64, i64), Vec<u8>)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, JOURNAL, flags, Mode::empty()).ok()?;
    fstat(&file).ok().filter(is_plain)?;
    let mut text = Vec::new();
    File::from(file).read_to_end(&mut text).ok()?;
    let end = text.iter().position(|byte| *byte == 0)?;
    let (seconds, nanoseconds) = str::from_utf8(&text[..end]).ok()?.split_once('.')?;
    let begun = (seconds.parse().ok()?, nanoseconds.parse().ok()?);
    Some((begun, text.split_off(end)))
}

fn remove_one(
    descent: &mut Descent,
    path: &TreePath,
    begun: (i64, i64),
    is_last: bool,
    device: u64,
) -> Result<bool, Errno> {
    let here = descent.here()?;
    let stat = statat(here, path.name(), AtFlags::SYMLINK_NOFOLLOW)?;
    let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
    // What has its times from an image is older than the run; what is newer was written by somebody else.
    let is_ours = is_last || (stat.st_mtime, stat.st_mtime_nsec as i64) < begun;
    match () {
        () if fstat(here)?.st_dev != device || stat.st_dev != device => Ok(false),
        () if is_directory => {
            // It may be closed to its owner, like what it is in.
            ensure_owner_access(here);
            unlinkat(here, path.name(), AtFlags::REMOVEDIR).map(|()| true)
        }
        () if is_ours => {
            ensure_owner_access(here);
            unlinkat(here, path.name(), AtFlags::empty()).map(|()| true)
        }
        () => Ok(false),
    }
}
