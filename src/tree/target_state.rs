//! The state of a target: what it is being filled with, or is filled with, so that a later run can complete it or has
//! nothing to do.
//!
//! It is stored as JSON in an extended attribute of the directory, or in a file in it where the file system has no such
//! attributes. It is read and written by the descriptor of the directory, so that no link can lead elsewhere.

use super::TreePath;
use crate::disk::directory::is_mount_point;
use rustix::fd::BorrowedFd;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Statx, StatxFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags,
    fchmod, fgetxattr, fremovexattr, fsetxattr, fstat, fstatfs, fstatvfs, futimens, openat, renameat, statat,
    statx, unlinkat,
};
use rustix::io::{Errno, Result};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};

/// The attribute. It is never part of a tree.
const ATTRIBUTE: &str = "user.volio.image";
/// The attribute where other users may write the first one. Only a privileged process can read and write it.
const TRUSTED_ATTRIBUTE: &str = "trusted.volio.image";
/// The file that is used instead of the attributes.
const FILE: &CStr = c".volio.json";
/// The name of that file while it is written.
const NEW_FILE: &CStr = c".volio.json.new";
/// The name of a spool between its creation and its removal, where the file system has no unnamed files.
pub(super) const SPOOL: &CStr = c".volio.spool";
/// The name of the journal of a run.
pub(super) const JOURNAL: &CStr = c".volio.made";
/// The directory for what a run records that follows a tag. It is private, and holds no part of the tree.
pub(crate) const WATCH_DIRECTORY: &str = ".volio.watch";
/// The bit of a directory in which only their owners may replace entries, and only its owner may write attributes.
const STICKY: u32 = 0o1000;
/// The type of tmpfs.
const TMPFS: u32 = 0x0102_1994;
/// The most bytes of a state.
const MAX_SIZE: usize = 64 << 10;

/// The state of a directory that volio has filled, or began to fill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetState {
    /// Set when everything is extracted.
    pub complete: bool,
    /// A description of the content, by the verb that fills the directory. This module only compares it.
    pub content: Value,
    /// Set when the directory was empty before.
    #[serde(rename = "alone")]
    pub was_empty: bool,
    /// The inode number of the directory. A copy of the state on another directory claims nothing.
    pub inode: u64,
    /// A property that a copy of the directory does not have, besides the inode number: see [`origin`]. The root of a file
    /// system has the same inode number on every file system of its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The path of the directory in the target: empty for the target itself, not empty for a file system mounted in it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
    /// The paths of file systems in the target that were written to. Each has its own state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Set when a sync may remove every entry: the directory was empty before, or the run that wrote the state is a sync
    /// that removes everything else.
    #[serde(rename = "exact", default, skip_serializing_if = "std::ops::Not::not")]
    pub has_only_image_entries: bool,
    /// The time of the file system, in seconds and nanoseconds, after everything was extracted. A file whose inode has
    /// changed later was changed by another program, or was not on the disk for certain.
    #[serde(rename = "settled", default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<(i64, u32)>,
    /// The newest mtime of a file of the content, in seconds and nanoseconds, without those in the future. Files with such
    /// an mtime may have changed in the source after they were packed, within the same tick of its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<(i64, u32)>,
    /// Another content that was refused once, and will be accepted the next time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<String>,
    /// Set for a moment after everything was extracted: some file systems do not change the time of an inode when an
    /// attribute gets the value that it has.
    #[serde(rename = "settling", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_finishing: bool,
    /// Set when another user may have written the state, so that it does not say that anything may be removed.
    #[serde(skip)]
    pub is_unproven: bool,
}

impl TargetState {
    /// The state of a directory with contents that may be removed.
    pub(super) fn abandoned() -> Self {
        Self {
            complete: false,
            content: Value::Null,
            was_empty: true,
            inode: 0,
            origin: None,
            at: String::new(),
            volumes: Vec::new(),
            has_only_image_entries: false,
            finished_at: None,
            newest: None,
            announced: None,
            is_finishing: false,
            is_unproven: false,
        }
    }

    /// Returns the state as that of a directory.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(super) fn bound_to(self, directory: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self { inode: fstat(directory)?.st_ino, origin: origin(directory), ..self })
    }

    /// Returns whether this is the state of a directory, and not of one that the directory is a copy of. Where the file
    /// system says nothing that a copy does not have, the root of a file system never has a state of its own.
    pub(super) fn is_of(&self, directory: BorrowedFd<'_>) -> bool {
        fstat(directory).is_ok_and(|stat| stat.st_ino == self.inode)
            && self.origin == origin(directory)
            && (self.origin.is_some() || !is_mount_point(directory))
    }

    /// Returns whether a sync may remove everything in the directory that the image does not have. An incomplete state
    /// alone does not say so: its run may have extracted an image over files of the user.
    ///
    /// It has to be the state of the directory ([`is_of`](Self::is_of)); [`read`] has seen to it that nobody else wrote it.
    pub(crate) fn may_be_removed(&self) -> bool {
        self.has_only_image_entries || self.was_empty
    }

    /// Returns whether everything in the directory came from volio: it was empty before, and never complete, so that nobody
    /// had a reason to use it.
    pub(super) fn claims(&self, directory: BorrowedFd<'_>) -> bool {
        self.was_empty && !self.complete && self.is_of(directory)
    }
}

/// Returns a path in a target as a state has it.
pub(super) fn path_text(path: &TreePath) -> String {
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

/// Returns whether a name in the root of a target is reserved for volio. No image can have it there.
pub(crate) fn is_reserved_name(name: &[u8]) -> bool {
    name == WATCH_DIRECTORY.as_bytes()
        || [FILE, NEW_FILE, SPOOL, JOURNAL].iter().any(|ours| ours.to_bytes() == name)
}

/// Returns whether an entry of a directory was left there by volio.
pub(super) fn is_left_by_volio(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    let is_file = || {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
    };
    match name.to_bytes() {
        _ if name == FILE => read_file(directory).is_some(),
        _ if is_watch_directory(directory, name) => true,
        name => is_reserved_name(name) && is_file(),
    }
}

/// Returns whether an entry of a directory is that of a run that follows a tag, which another user did not create.
pub(super) fn is_watch_directory(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    name.to_bytes() == WATCH_DIRECTORY.as_bytes()
        && statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir() && is_of_user_or_root(&stat))
}

/// Returns whether an entry of a directory is the file that is used instead of the attribute, and was written by volio.
pub(super) fn is_state_file(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    name == FILE && read_file(directory).is_some()
}

/// Returns a property of a directory that a copy of it does not have, and that is the same after the file system was mounted
/// again, or elsewhere: the time of its creation, and, where the file system has none or exists only as long as it is
/// mounted, so that many are created at the same moment, the number of the file system. Elsewhere that may be the number
/// of the device.
fn origin(directory: BorrowedFd<'_>) -> Option<String> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let status = statx(directory, "", AtFlags::EMPTY_PATH, flags).ok();
    let has_time = |status: &Statx| StatxFlags::from_bits_retain(status.stx_mask).contains(StatxFlags::BTIME);
    let created = status.filter(has_time).map(|status| status.stx_btime).filter(|time| time.tv_sec != 0);
    let is_temporary = || fstatfs(directory).is_ok_and(|status| status.f_type as u32 == TMPFS);
    let number = || fstatvfs(directory).map_or(0, |status| status.f_fsid);
    match created {
        Some(time) if is_temporary() => {
            Some(format!("created {}.{:09} in {:x}", time.tv_sec, time.tv_nsec, number()))
        }
        Some(time) => Some(format!("created {}.{:09}", time.tv_sec, time.tv_nsec)),
        None => Some(number()).filter(|number| *number != 0).map(|number| format!("in {number:x}")),
    }
}

/// Reads the state of a directory; `None` if it cannot be read or parsed.
///
/// A state says that entries may be removed only if no other user can have written it. That is the attribute of a directory
/// whose attributes only root and the user of this process may write, a file that belongs to one of them and that nobody
/// else may write, or the trusted attribute, if there is no other state that may be newer. Of any other state,
/// `has_only_image_entries` is cleared. `was_empty` counts only in a directory that is private ([`is_private`]), because
/// the journal lies there too.
pub(super) fn read(directory: BorrowedFd<'_>) -> Option<TargetState> {
    let proven =
        |state: TargetState| TargetState { was_empty: state.was_empty && is_private(directory), ..state };
    let unproven =
        |state| TargetState { was_empty: false, has_only_image_entries: false, is_unproven: true, ..state };
    match (read_attribute(directory, ATTRIBUTE), read_file(directory)) {
        (Some(state), _) if has_safe_attributes(directory) => Some(proven(state)),
        (_, Some((state, stat))) if is_safe_file(&stat) => Some(proven(state)),
        (Some(state), _) | (None, Some((state, _))) => Some(unproven(state)),
        (None, None) => read_attribute(directory, TRUSTED_ATTRIBUTE).map(proven),
    }
}

fn read_attribute(directory: BorrowedFd<'_>, name: &str) -> Option<TargetState> {
    let mut value = vec![0; MAX_SIZE];
    let length = fgetxattr(directory, name, &mut value[..]).ok()?;
    serde_json::from_slice(&value[..length]).ok()
}

/// Returns whether only root and the user of this process may write the attributes of a directory. Others may do that in a
/// directory that they may write, unless it is sticky.
fn has_safe_attributes(directory: BorrowedFd<'_>) -> bool {
    fstat(directory).is_ok_and(|stat| {
        is_of_user_or_root(&stat) && (stat.st_mode & 0o022 == 0 || stat.st_mode & STICKY != 0)
    })
}

fn is_safe_file(stat: &Stat) -> bool {
    is_of_user_or_root(stat) && stat.st_mode & 0o022 == 0
}

fn is_of_user_or_root(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == geteuid().as_raw()
}

/// Returns whether a directory belongs to the user of this process and nobody else may write in it. If an ACL lets
/// others, the group bits of the mode are its mask and show that.
pub(super) fn is_private(directory: BorrowedFd<'_>) -> bool {
    fstat(directory).is_ok_and(|stat| stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o022 == 0)
}

/// Returns the state that the file has, and the status of the file.
fn read_file(directory: BorrowedFd<'_>) -> Option<(TargetState, Stat)> {
    // A link is not followed, and a fifo does not block.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, FILE, flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok().filter(|stat| FileType::from_raw_mode(stat.st_mode).is_file())?;
    let mut text = Vec::new();
    File::from(file).take(MAX_SIZE as u64).read_to_end(&mut text).ok()?;
    Some((serde_json::from_slice(&text).ok()?, stat))
}

/// Writes the state of a directory, bound to it.
///
/// # Errors
/// As [`write`].
pub(super) fn write_bound(directory: BorrowedFd<'_>, state: TargetState) -> Result<TargetState> {
    let state = state.bound_to(directory)?;
    write(directory, &state)?;
    if state.is_of(directory) {
        return Ok(state);
    }
    // The first change of a directory of a lower layer of an overlay makes it another one.
    let state = state.bound_to(directory)?;
    write(directory, &state)?;
    Ok(state)
}

/// Writes the state of a directory, and keeps its mode and mtime.
///
/// # Errors
/// `EEXIST` when a file that volio did not write has the name of the state; otherwise the error of the operating system.
pub(super) fn write(directory: BorrowedFd<'_>, state: &TargetState) -> Result<()> {
    let text = serde_json::to_vec(state).map_err(|_| Errno::INVAL)?;
    let before = fstat(directory)?;
    match put(directory, &text) {
        // The final mode of the directory may forbid writing even to its owner.
        Err(Errno::ACCESS) => {
            let mode = Mode::from_raw_mode(before.st_mode);
            fchmod(directory, mode | Mode::WUSR)?;
            let result = put(directory, &text);
            fchmod(directory, mode)?;
            result?;
        }
        result => result?,
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: before.st_mtime, tv_nsec: before.st_mtime_nsec as _ },
    };
    if fstat(directory)?.st_mtime_nsec != before.st_mtime_nsec {
        // Only the owner may set times; no other user was promised one.
        let _ = futimens(directory, &times);
    }
    Ok(())
}

/// Writes the attribute, or another one or the file where there are no attributes, or where other users may write them.
fn put(directory: BorrowedFd<'_>, text: &[u8]) -> Result<()> {
    if !has_safe_attributes(directory) {
        if put_attribute(directory, TRUSTED_ATTRIBUTE, text).is_ok() {
            return Ok(());
        }
        match put_file(directory, text) {
            Ok(()) => return remove_attribute(directory, ATTRIBUTE),
            // The old state would count still.
            Err(errno) if read_file(directory).is_some() => return Err(errno),
            Err(_) => {}
        }
    }
    match put_attribute(directory, ATTRIBUTE, text) {
        Err(errno) if !matches!(errno, Errno::ROFS | Errno::ACCESS) => put_file(directory, text),
        result => result,
    }
}

/// Writes one of the attributes, and removes what was used instead of it.
fn put_attribute(directory: BorrowedFd<'_>, name: &str, text: &[u8]) -> Result<()> {
    fsetxattr(directory, name, text, XattrFlags::empty())?;
    let other = if name == ATTRIBUTE { TRUSTED_ATTRIBUTE } else { ATTRIBUTE };
    remove_attribute(directory, other)?;
    match read_file(directory) {
        Some(_) => unlinkat(directory, FILE, AtFlags::empty()),
        None => Ok(()),
    }
}

/// Removes one of the attributes, if it is there and this process may see it.
fn remove_attribute(directory: BorrowedFd<'_>, name: &str) -> Result<()> {
    match fremovexattr(directory, name) {
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(Errno::PERM) if name == TRUSTED_ATTRIBUTE => Ok(()),
        result => result,
    }
}

/// Replaces the file atomically: a reader finds the old or the new content.
fn put_file(directory: BorrowedFd<'_>, text: &[u8]) -> Result<()> {
    if read_file(directory).is_none() && statat(directory, FILE, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        return Err(Errno::EXIST);
    }
    match unlinkat(directory, NEW_FILE, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, NEW_FILE, flags, Mode::from_raw_mode(0o644))?);
    let written = file.write_all(text).and_then(|()| file.sync_all());
    written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    renameat(directory, NEW_FILE, directory, FILE)
}

/// Removes the state.
///
/// # Errors
/// Those of the operating system.
pub(super) fn remove(directory: BorrowedFd<'_>) -> Result<()> {
    remove_attribute(directory, ATTRIBUTE)?;
    remove_attribute(directory, TRUSTED_ATTRIBUTE)?;
    match read_file(directory) {
        Some(_) => unlinkat(directory, FILE, AtFlags::empty()),
        None => Ok(()),
    }
}
