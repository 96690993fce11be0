//! Opening and listing of directories and files for a walk, and their names in messages.

use crate::disk::directory::is_mount_point;
use crate::tree::{TreePath, target_state};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, openat, statat};
use rustix::io::{Errno, pread};
use std::ffi::{CStr, CString};
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The file that the Cache Directory Tagging Specification puts into a directory with reproducible contents, and
/// the first bytes of that file.
pub(super) const CACHE_TAG: &CStr = c"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The number of attempts to open a file that has a lease, and the pause between them: one minute in all. The kernel
/// takes a lease back after 45 seconds.
const LEASE_ATTEMPTS: u32 = 3000;
const LEASE_PAUSE: Duration = Duration::from_millis(20);

/// The directory that `mkfs.ext4` makes in every new file system.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// A name in a directory, with its file type as far as the listing has it.
pub(super) struct DirEntry {
    pub name: CString,
    /// [`FileType::Unknown`] on file systems that list names without types.
    pub file_type: FileType,
    inode: u64,
}

impl DirEntry {
    /// Returns a hash of the name and the inode number.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(self.name.to_bytes());
        hasher.write_u64(self.inode);
        hasher.finish()
    }
}

/// Opens a file or a directory for reading, without changing its atime where that is possible: a backup that changes
/// every atime makes the next backup see changes.
pub(super) fn open_quietly(above: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
    loop {
        match open_leased(|| openat(above, name, flags, Mode::empty())) {
            // Only the owner may use this flag.
            Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => flags.remove(OFlags::NOATIME),
            result => return result,
        }
    }
}

/// Opens a file by a call that does not block, and repeats that while another process, such as Samba, holds a lease on the
/// file.
///
/// The first attempt makes the kernel ask for the lease, and it takes it after `/proc/sys/fs/lease-break-time`. A call that
/// blocks would wait without an end if the file were replaced by a fifo meanwhile.
pub(super) fn open_leased(open: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    for _ in 0..LEASE_ATTEMPTS {
        match open() {
            Err(Errno::AGAIN) => thread::sleep(LEASE_PAUSE),
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// Lists a directory, sorted by the bytes of the names. The buffer is for the kernel, and is kept between calls.
pub(super) fn list(directory: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> Result<Vec<DirEntry>, Errno> {
    buffer.reserve(32 << 10);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(DirEntry {
                name: entry.file_name().to_owned(),
                file_type: entry.file_type(),
                inode: entry.ino(),
            });
        }
    }
    names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(names)
}

/// Returns whether a directory has a valid `CACHEDIR.TAG`.
pub(super) fn is_cache(directory: BorrowedFd<'_>) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut begin = [0; CACHE_SIGNATURE.len()];
    openat(directory, CACHE_TAG, flags, Mode::empty())
        .is_ok_and(|tag| pread(&tag, &mut begin, 0).is_ok_and(|read| begin[..read] == *CACHE_SIGNATURE))
}

/// Returns whether a name in the root of a source was put there by volio or by `mkfs`.
pub(super) fn is_bookkeeping(root: BorrowedFd<'_>, name: &CStr) -> bool {
    let is_lost_and_found = name.to_bytes() == LOST_AND_FOUND
        && statat(root, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_uid == 0)
        && is_mount_point(root);
    is_lost_and_found
        || target_state::is_state_file(root, name)
        || target_state::is_watch_directory(root, name)
}

/// Returns a directory as messages show it, without a trailing `/`, so that a path can be appended.
pub(in crate::tree) fn display_root(directory: &Path) -> String {
    directory.display().to_string().trim_end_matches('/').to_owned()
}

/// Returns the name on disk of an entry, as messages show it. `root` is the result of [`display_root`].
pub(super) fn display_path(root: &str, path: &TreePath) -> String {
    if !path.is_root() {
        format!("{root}{path}")
    } else if root.is_empty() {
        "/".to_owned()
    } else {
        root.to_owned()
    }
}
