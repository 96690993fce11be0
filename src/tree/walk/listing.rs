//! How a walk opens and lists what it reads.

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

/// What the Cache Directory Tagging Specification puts into a directory whose content can be made again, and how that begins.
pub(super) const CACHE_TAG: &CStr = c"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// How often, and how long after one another, a file with a lease is opened: for a minute, where the kernel takes a lease
/// back after 45 seconds.
const LEASE_ATTEMPTS: u32 = 3000;
const LEASE_PAUSE: Duration = Duration::from_millis(20);

/// What `mkfs.ext4` makes in every new file system.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// A name as a directory lists it; the kind may be unknown.
pub(super) struct Name {
    pub name: CString,
    pub kind: FileType,
    inode: u64,
}

impl Name {
    /// A number that stands for the name together with what has it.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(self.name.to_bytes());
        hasher.write_u64(self.inode);
        hasher.finish()
    }
}

/// Opens something for reading, if possible without leaving a trace: a backup that changes every atime makes the
/// next one see changes.
pub(super) fn open_quietly(above: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
    loop {
        match without_lease(|| openat(above, name, flags, Mode::empty())) {
            // Only the owner may ask for that.
            Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => flags.remove(OFlags::NOATIME),
            result => return result,
        }
    }
}

/// Opens a file without blocking, again as long as somebody holds a lease on it, as Samba does: the first attempt makes
/// the kernel ask for it back, and take it after `/proc/sys/fs/lease-break-time`. To block instead would be to wait for
/// ever where the file has become a fifo meanwhile.
pub(in crate::tree) fn without_lease(open: impl Fn() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    for _ in 0..LEASE_ATTEMPTS {
        match open() {
            Err(Errno::AGAIN) => thread::sleep(LEASE_PAUSE),
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// What is in a directory, sorted by the bytes of the names.
pub(super) fn list(directory: BorrowedFd<'_>) -> Result<Vec<Name>, Errno> {
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(Name {
                name: entry.file_name().to_owned(),
                kind: entry.file_type(),
                inode: entry.ino(),
            });
        }
    }
    names.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(names)
}

/// Whether a directory says of itself that it is a cache.
pub(super) fn is_cache(directory: BorrowedFd<'_>) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut begin = [0; CACHE_SIGNATURE.len()];
    openat(directory, CACHE_TAG, flags, Mode::empty())
        .is_ok_and(|tag| pread(&tag, &mut begin, 0).is_ok_and(|read| begin[..read] == *CACHE_SIGNATURE))
}

/// Whether something in the root of a source was put there by volio or by `mkfs`.
pub(super) fn is_not_of_the_tree(root: BorrowedFd<'_>, name: &CStr) -> bool {
    let is_lost_and_found = name.to_bytes() == LOST_AND_FOUND
        && statat(root, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| stat.st_uid == 0)
        && is_mount_point(root);
    is_lost_and_found || target_state::is_record(root, name)
}

/// A source as messages show it, so that a path can follow.
pub(in crate::tree) fn shown(source: &Path) -> String {
    let shown = source.display().to_string();
    shown.trim_end_matches('/').to_owned()
}

/// The name on disk of something in a source.
pub(in crate::tree) fn place(shown: &str, path: &TreePath) -> String {
    match path.is_root() {
        true if shown.is_empty() => "/".to_owned(),
        true => shown.to_owned(),
        false => format!("{shown}{path}"),
    }
}
