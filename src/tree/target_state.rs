//! The state of a target: what it is being filled with, or is filled with, so that a later run can complete it or has
//! nothing to do.
//!
//! It is stored as JSON in an extended attribute of the directory, or in a file in it where the file system has no such
//! attributes. It is read and written by the descriptor of the directory, so that no link can lead elsewhere.

use super::TreePath;
use rustix::fd::BorrowedFd;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags, fchmod, fgetxattr,
    fremovexattr, fsetxattr, fstat, futimens, openat, renameat, statat, unlinkat,
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
/// The file that is used instead of the attribute.
const FILE: &CStr = c".volio.json";
/// The name of that file while it is written.
const NEW_FILE: &CStr = c".volio.json.new";
/// The name of a spool between its creation and its removal, where the file system has no unnamed files.
pub(super) const SPOOL: &CStr = c".volio.spool";
/// The name of the journal of a run.
pub(super) const JOURNAL: &CStr = c".volio.made";
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
    pub alone: bool,
    /// The inode number of the directory. A copy of the state on another directory claims nothing.
    pub inode: u64,
    /// The path of the directory in the target: empty for the target itself, not empty for a file system mounted in it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
    /// The paths of file systems in the target that were written to. Each has its own state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Set when every entry is of the content: the directory was empty before, or everything else was removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exact: bool,
    /// The time of the file system, in seconds and nanoseconds, after everything was extracted. A file whose inode has
    /// changed later was changed by another program, or was not on the disk for certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<(i64, u32)>,
    /// The newest mtime of a file of the content, in seconds and nanoseconds, without those in the future. Files with such
    /// an mtime may have changed in the source after they were packed, within the same tick of its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<(i64, u32)>,
    /// Another content that was refused once, and will be accepted the next time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<String>,
}

impl TargetState {
    /// The state of a directory with contents that may be removed.
    pub(super) fn abandoned() -> Self {
        Self {
            complete: false,
            content: Value::Null,
            alone: true,
            inode: 0,
            at: String::new(),
            volumes: Vec::new(),
            exact: false,
            settled: None,
            newest: None,
            announced: None,
        }
    }

    /// Returns whether everything in the directory came from volio: it was empty before, and never complete, so that nobody
    /// had a reason to use it.
    pub(super) fn claims(&self, directory: BorrowedFd<'_>) -> bool {
        self.alone && !self.complete && fstat(directory).is_ok_and(|stat| stat.st_ino == self.inode)
    }
}

/// Returns a path in a target as a state has it.
pub(super) fn path_text(path: &TreePath) -> String {
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

/// Returns whether a name in the root of a target is reserved for volio. No image can have it there.
pub(super) fn is_reserved_name(name: &[u8]) -> bool {
    [FILE, NEW_FILE, SPOOL, JOURNAL].iter().any(|ours| ours.to_bytes() == name)
}

/// Returns whether an entry of a directory was left there by volio.
pub(super) fn is_left_by_volio(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    let is_file = || {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
    };
    if name == FILE { read_file(directory).is_some() } else { is_reserved_name(name.to_bytes()) && is_file() }
}

/// Returns whether an entry of a directory is the file that is used instead of the attribute, and was written by volio.
pub(super) fn is_state_file(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    name == FILE && read_file(directory).is_some()
}

/// Reads the state of a directory; `None` if it cannot be read or parsed. In a directory where other users may write,
/// it may be theirs. There it never says that everything came from volio, so that nothing is removed because of it.
pub(super) fn read(directory: BorrowedFd<'_>) -> Option<TargetState> {
    let mut value = vec![0; MAX_SIZE];
    let state: Option<TargetState> = match fgetxattr(directory, ATTRIBUTE, &mut value[..]) {
        Ok(length) => serde_json::from_slice(&value[..length]).ok(),
        Err(_) => read_file(directory),
    };
    state.map(|state| TargetState { alone: state.alone && is_private(directory), ..state })
}

/// Returns whether a directory belongs to the user of this process and nobody else may write in it. If an ACL lets
/// others, the group bits of the mode are its mask and show that.
pub(super) fn is_private(directory: BorrowedFd<'_>) -> bool {
    fstat(directory).is_ok_and(|stat| stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o022 == 0)
}

fn read_file(directory: BorrowedFd<'_>) -> Option<TargetState> {
    // A link is not followed, and a fifo does not block.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, FILE, flags, Mode::empty()).ok()?;
    let is_file = fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
    let mut text = Vec::new();
    File::from(file).take(MAX_SIZE as u64).read_to_end(&mut text).ok().filter(|_| is_file)?;
    serde_json::from_slice(&text).ok()
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

fn put(directory: BorrowedFd<'_>, text: &[u8]) -> Result<()> {
    match fsetxattr(directory, ATTRIBUTE, text, XattrFlags::empty()) {
        Ok(()) => {
            if read_file(directory).is_some() {
                unlinkat(directory, FILE, AtFlags::empty())?;
            }
            Ok(())
        }
        Err(errno @ (Errno::ROFS | Errno::ACCESS)) => Err(errno),
        Err(_) => put_file(directory, text),
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
    match fremovexattr(directory, ATTRIBUTE) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
        Err(errno) => return Err(errno),
    }
    match read_file(directory) {
        Some(_) => unlinkat(directory, FILE, AtFlags::empty()),
        None => Ok(()),
    }
}
