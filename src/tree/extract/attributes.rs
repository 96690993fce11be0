//! Owner, permissions, extended attributes and mtime of something that was just made.

use crate::tree::xattr::travels;
use crate::tree::{Metadata, Time};
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat, fchmod,
    fchown, fsetxattr, fstat, futimens, setxattr, utimensat,
};
use rustix::io::{Errno, Result as Answer};

/// setuid and setgid: what gives the owner's rights to whoever runs a file.
const SPECIAL: u32 = 0o6000;

/// What could not be restored because we may not, or because the file system has no such thing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    pub ownership: bool,
    pub xattrs: u64,
}

/// What failed, and how.
#[derive(Debug)]
pub(super) struct Failure {
    pub doing: &'static str,
    pub errno: Errno,
}

impl Failure {
    /// Whether somebody with more rights, or on a file system that can be written, would have succeeded.
    pub fn is_for_lack_of_rights(&self) -> bool {
        // BADF: the directory may be passed and not listed, so what is open is a mere place.
        matches!(self.errno, Errno::PERM | Errno::ACCESS | Errno::ROFS | Errno::BADF)
    }
}

/// Gives an open file its attributes.
///
/// The order matters: a change of the owner takes setuid bits and capabilities away, and extended attributes can be
/// set only while the file may be written, which its final mode may forbid even to its owner.
pub(super) fn apply(fd: BorrowedFd<'_>, metadata: &Metadata) -> Result<Lost, Failure> {
    apply_open(fd, metadata, SPECIAL)
}

/// Gives an open directory its attributes. It keeps its setgid bit whosever it is: on a directory the bit gives no
/// rights away, and a group that shares a volume relies on it.
pub(super) fn apply_to_directory(fd: BorrowedFd<'_>, metadata: &Metadata) -> Result<Lost, Failure> {
    apply_open(fd, metadata, 0)
}

fn apply_open(fd: BorrowedFd<'_>, metadata: &Metadata, special: u32) -> Result<Lost, Failure> {
    let (uid, gid) = owner(metadata);
    let ownership = is_lost(fchown(fd, uid, gid))?;
    let xattrs = set_xattrs(metadata, |name, value| fsetxattr(fd, name, value, XattrFlags::empty()))?;
    fchmod(fd, mode(metadata, if ownership { special } else { 0 })).map_err(failed("set the mode of"))?;
    futimens(fd, &times(metadata.mtime)).map_err(failed("set the mtime of"))?;
    Ok(Lost { ownership, xattrs })
}

/// Gives an open directory that no entry has described the attributes of a plain one, but no other owner than it has.
pub(super) fn apply_plain(fd: BorrowedFd<'_>) -> Result<Lost, Failure> {
    let plain = Metadata::plain_directory();
    fchmod(fd, mode(&plain, 0)).map_err(failed("set the mode of"))?;
    futimens(fd, &times(plain.mtime)).map_err(failed("set the mtime of"))?;
    Ok(Lost::default())
}

/// Gives a fifo, a device or a symbolic link its attributes.
///
/// `pin` is the thing itself, held by `O_PATH`, and `name` its name in `directory`: should somebody put a file of
/// their own under that name, it is not that file that gets an owner and a mode.
pub(super) fn apply_pinned(
    pin: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    name: &[u8],
    metadata: &Metadata,
    is_link: bool,
) -> Result<Lost, Failure> {
    let (uid, gid) = owner(metadata);
    let ownership = is_lost(chownat(pin, "", uid, gid, AtFlags::EMPTY_PATH))?;
    // A descriptor of this kind can be used for little; its magic link in /proc leads to the thing itself.
    let itself = format!("/proc/self/fd/{}", pin.as_raw_fd());
    let xattrs = set_xattrs(metadata, |name, value| setxattr(&itself, name, value, XattrFlags::empty()))?;
    let mode = mode(metadata, if ownership { SPECIAL } else { 0 });
    let has_mode = |pin| fstat(pin).map(|stat| stat.st_mode & 0o7777 == mode.bits());
    if !is_link && !has_mode(pin).map_err(failed("look at"))? {
        chmodat(CWD, &itself, mode, AtFlags::empty()).map_err(failed("set the mode of"))?;
    }
    utimensat(directory, name, &times(metadata.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(failed("set the mtime of"))?;
    Ok(Lost { ownership, xattrs })
}

fn failed(doing: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { doing, errno }
}

/// The owner and the group, none of which is the highest number.
fn owner(metadata: &Metadata) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))
}

/// Whether the owner was not restored: we may not (`EPERM`), or the user namespace does not know it (`EINVAL`).
fn is_lost(answer: Answer<()>) -> Result<bool, Failure> {
    match answer {
        Ok(()) => Ok(false),
        Err(Errno::PERM | Errno::INVAL | Errno::NOTSUP) => Ok(true),
        Err(errno) => Err(failed("set the owner of")(errno)),
    }
}

/// Sets what belongs to the tree; how many attributes were refused.
fn set_xattrs(metadata: &Metadata, set: impl Fn(&[u8], &[u8]) -> Answer<()>) -> Result<u64, Failure> {
    let mut lost = 0;
    for (name, value) in metadata.xattrs.iter().filter(|(name, _)| travels(name)) {
        match set(name, value) {
            Ok(()) => {}
            // NOENT: there is no /proc to reach by what cannot be opened. INVAL: there is no attribute of that kind. The
            // others: this file system has less room for them than the one where they come from.
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOENT | Errno::INVAL) => lost += 1,
            Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) => lost += 1,
            Err(errno) => return Err(failed("set the extended attributes of")(errno)),
        }
    }
    Ok(lost)
}

/// The mode without what is dropped: without its owner, a setuid file would give somebody else's rights away.
fn mode(metadata: &Metadata, dropped: u32) -> Mode {
    Mode::from_raw_mode(metadata.mode & 0o7777 & !dropped)
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    }
}
