//! The record: what volio notes on a directory that it fills, so that it can be filled to the end by a later run, and
//! need not be filled again.
//!
//! It is an extended attribute of the directory, or a file in it where the file system has no such attributes. It is
//! read and written by the descriptor of the directory, so no link can lead it elsewhere.

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

/// The attribute. Nobody else's tree has it: it never travels.
const ATTRIBUTE: &str = "user.volio.image";
/// The file that stands in for it.
const FILE: &CStr = c".volio.json";
/// What that file is called while it is written.
const NEW_FILE: &CStr = c".volio.json.new";
/// What a spool is called for the moment between its making and its unlinking, where files cannot be made nameless.
pub(super) const SPOOL: &CStr = c".volio.spool";
/// What the journal of a run is called, which is there until all is.
pub(super) const JOURNAL: &CStr = c".volio.made";
/// More than any record has, in bytes.
const LARGEST: usize = 64 << 10;

/// What is known about a directory that volio has filled, or began to fill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetState {
    /// Whether everything is there.
    pub complete: bool,
    /// What it was filled with.
    pub content: Value,
    /// Whether nothing was in the directory when that began.
    pub alone: bool,
    /// The inode number of the directory: a copy of the record on another one claims nothing.
    pub inode: u64,
    /// What the directory is in the target: nothing for the target itself, a path for what is mounted below it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
    /// What is mounted below the target, was written to, and has a record of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// What else was to be put there and was refused, so that the next time it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<String>,
}

impl TargetState {
    /// That of a directory whose content nobody wants.
    pub(super) fn abandoned() -> Self {
        Self {
            complete: false,
            content: Value::Null,
            alone: true,
            inode: 0,
            at: String::new(),
            volumes: Vec::new(),
            announced: None,
        }
    }

    /// Whether all that is in the directory came from volio: there was nothing before, and it never was complete, so
    /// that nobody had a reason to use it.
    pub(super) fn claims(&self, directory: BorrowedFd<'_>) -> bool {
        self.alone && !self.complete && fstat(directory).is_ok_and(|stat| stat.st_ino == self.inode)
    }
}

/// How a record names a place in the target.
pub(super) fn place(path: &TreePath) -> String {
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

/// Whether the root of a target may hold this name for volio's own sake; no image can have it there.
pub(super) fn is_name_of_ours(name: &[u8]) -> bool {
    [FILE, NEW_FILE, SPOOL, JOURNAL].iter().any(|ours| ours.to_bytes() == name)
}

/// Whether what has this name in a directory was left there by volio.
pub(super) fn is_ours(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    let is_file = || {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
    };
    match name {
        name if name == FILE => read_file(directory).is_some(),
        name => is_name_of_ours(name.to_bytes()) && is_file(),
    }
}

/// Whether this is the file that stands in for the attribute, written by volio and by nobody else.
pub(super) fn is_record(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    name == FILE && read_file(directory).is_some()
}

/// The record of a directory. What cannot be read or understood is none. In a directory where others may write too it may be
/// theirs: it never says there that everything came from volio, so nothing is removed because of it.
pub(super) fn read(directory: BorrowedFd<'_>) -> Option<TargetState> {
    let mut value = vec![0; LARGEST];
    let record: Option<TargetState> = match fgetxattr(directory, ATTRIBUTE, &mut value[..]) {
        Ok(length) => serde_json::from_slice(&value[..length]).ok(),
        Err(_) => read_file(directory),
    };
    record.map(|record| TargetState { alone: record.alone && is_private(directory), ..record })
}

/// Whether a directory belongs to the user of this process and nobody else may write in it. Where an ACL lets others, the mode's
/// group bits are its mask, and say so.
pub(super) fn is_private(directory: BorrowedFd<'_>) -> bool {
    fstat(directory).is_ok_and(|stat| stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o022 == 0)
}

fn read_file(directory: BorrowedFd<'_>) -> Option<TargetState> {
    // Not a link, and not blocking: it could be a fifo.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, FILE, flags, Mode::empty()).ok()?;
    let is_file = fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
    let mut text = Vec::new();
    File::from(file).take(LARGEST as u64).read_to_end(&mut text).ok().filter(|_| is_file)?;
    serde_json::from_slice(&text).ok()
}

/// Writes the record of a directory, and changes nothing else about it.
///
/// # Errors
/// `EEXIST` when somebody else's file has the name of the record; otherwise what the operating system says.
pub(super) fn write(directory: BorrowedFd<'_>, record: &TargetState) -> Result<()> {
    let text = serde_json::to_vec(record).map_err(|_| Errno::INVAL)?;
    let before = fstat(directory)?;
    match put(directory, &text) {
        // Its final mode may forbid even its owner to write.
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
        // Only its owner may do that, and only its owner was promised a time.
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

/// Replaces the file as a whole, so that whoever reads it finds the old one or the new one.
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

/// Takes the record away.
///
/// # Errors
/// What the operating system says.
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
