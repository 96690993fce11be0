//! Directories by their descriptors: opening without following links, listing, identity.

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RawDir, Stat, StatxAttributes, StatxFlags, chmodat, fchmod, fstat, openat,
    stat, statat, statx,
};
use rustix::io::{Errno, Result};
use std::ffi::CString;
use std::path::Path;

/// The identity of a file on this machine, whatever its name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId {
    /// The file system.
    pub device: u64,
    /// The inode number in it.
    pub inode: u64,
}

impl FileId {
    /// Returns the identity of the file that a path leads to, if there is one.
    pub fn of(path: &Path) -> Option<Self> {
        stat(path).ok().map(|stat| Self::from(&stat))
    }
}

impl From<&Stat> for FileId {
    fn from(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// Opens the directory `name` in `parent`; a symbolic link is not followed.
///
/// A directory that may be entered but not listed is opened by `O_PATH`, which is enough to pass through it.
pub(crate) fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS) => openat(parent, name, flags | OFlags::PATH, Mode::empty()),
        result => result,
    }
}

/// Opens a directory again, to list it: the position in a listing belongs to the open file.
pub(crate) fn reopen(directory: BorrowedFd<'_>) -> Result<OwnedFd> {
    openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Returns the names in a directory, in any order, without `.` and `..`.
pub(crate) fn names_in(directory: BorrowedFd<'_>) -> Result<Vec<CString>> {
    names_from(reopen(directory)?.as_fd())
}

/// Returns the names in a directory that was just opened, from which nothing was read, as [`names_in`].
pub(crate) fn names_from(directory: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Returns a path that leads to an open file, for calls that do not take its descriptor. Without `/proc` it does not exist.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Gives the owner of a directory all permissions, so that it can be filled or emptied. An error is reported when it is
/// used.
pub(crate) fn ensure_owner_access(directory: BorrowedFd<'_>) {
    let Ok(stat) = fstat(directory) else { return };
    let mode = Mode::from_raw_mode(stat.st_mode);
    if !mode.contains(Mode::RWXU) && fchmod(directory, mode | Mode::RWXU).is_err() {
        // It may not be listed, so that it is open by O_PATH, and `fchmod` does not work.
        let _ = chmodat(CWD, proc_path(directory), mode | Mode::RWXU, AtFlags::empty());
    }
}

/// Returns whether a directory is a mount point. Kernels before 5.8 do not report that; there, it is one if the parent
/// is on another file system.
pub(crate) fn is_mount_point(directory: BorrowedFd<'_>) -> bool {
    if let Ok(status) = statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
        && status.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT)
    {
        return status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    }
    match (fstat(directory), statat(directory, "..", AtFlags::empty())) {
        (Ok(here), Ok(parent)) => here.st_dev != parent.st_dev || here.st_ino == parent.st_ino,
        _ => false,
    }
}

/// Returns the number of the mount through which a file was opened: a bind mount has another one than the directory that it
/// shows. `None` if the kernel does not report it, as before 5.8 without `/proc`.
pub(crate) fn mount_id(fd: impl AsFd) -> Option<u64> {
    let fd = fd.as_fd();
    match statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(status) if StatxFlags::from_bits_retain(status.stx_mask).contains(StatxFlags::MNT_ID) => {
            Some(status.stx_mnt_id)
        }
        _ => {
            let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
            info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
        }
    }
}
