//! Content that no volume needs any more: what a fetch has replaced, or has left when it failed or was killed.
//!
//! It is moved into `.volio/.trash`, and removed there in its own time. So what cannot be removed, or takes long, is in the
//! way of no volume.

use crate::disk::directory::{mount_id, open_directory};
use crate::disk::remove::{self, Failure, Removal, Removed};
use crate::error::{Error, Result};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::CWD;
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

/// How long what could not be removed is left alone.
const RETRY_INTERVAL: Duration = Duration::from_secs(60 * 60);

pub(super) struct Trash {
    directory: PathBuf,
    /// What could not be removed, and when. Locked while something is removed.
    failed: Mutex<BTreeMap<OsString, Instant>>,
}

impl Trash {
    /// What is in this directory.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, failed: Mutex::default() }
    }

    /// Takes a directory out of the way; nothing where there is none.
    pub(super) fn move_in(&self, path: &Path) -> Result<()> {
        let trouble = |error| Error::io(format!("cannot move {} away", path.display()), error);
        let found = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(trouble)?,
        };
        // No two things in one file system have the same number.
        fs::rename(path, self.directory.join(found.ino().to_string())).map_err(trouble)
    }

    fn names(&self) -> Vec<OsString> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect()
    }

    /// Removes what is there, unless another thread is at it, and says what cannot be removed.
    pub(super) fn empty(&self, log: &dyn Fn(&str)) {
        let mut failed = match self.failed.try_lock() {
            Ok(failed) => failed,
            Err(TryLockError::Poisoned(failed)) => failed.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        failed.retain(|_, time| time.elapsed() < RETRY_INTERVAL);
        for name in self.names().into_iter().filter(|name| !failed.contains_key(name)).collect::<Vec<_>>() {
            if let Err(why) = self.remove(&name) {
                log(&format!("{why}; that is tried again in an hour"));
                failed.insert(name, Instant::now());
            }
        }
    }

    fn remove(&self, name: &OsStr) -> std::result::Result<(), String> {
        let cannot = |path: &Path, why: &dyn std::fmt::Display| {
            format!("cannot remove {}: {why}", self.directory.join(path).display())
        };
        let above = open_directory(CWD, self.directory.as_os_str().as_bytes());
        let above = above.map_err(|errno| cannot(Path::new(name), &errno))?;
        // A subvolume is a file system of its own on the same mount, and any user can make one.
        let own = mount_id(&above);
        let is_subvolume = |directory: BorrowedFd<'_>| own.is_some() && mount_id(directory) == own;
        let removal = Removal { crosses: &is_subvolume, ..Removal::EVERYTHING };
        // No name has a zero byte.
        let name = CString::new(name.as_bytes()).unwrap_or_default();
        let path = |path: Vec<u8>| PathBuf::from(OsString::from_vec(path));
        match remove::entry(above.as_fd(), &name, &removal) {
            Ok(Removed { mounted: None, .. }) => Ok(()),
            Ok(Removed { mounted: Some(place), .. }) => {
                Err(cannot(&path(place), &"something is mounted on it, which has to be unmounted first"))
            }
            Err(Failure { path: place, errno }) => Err(cannot(&path(place), &errno)),
        }
    }

    /// Whether there is something that was not tried to be removed for some time.
    pub(super) fn is_due(&self) -> bool {
        let names = self.names();
        !names.is_empty()
            && self.failed.try_lock().is_ok_and(|failed| {
                names.iter().any(|name| failed.get(name).is_none_or(|time| time.elapsed() >= RETRY_INTERVAL))
            })
    }
}
