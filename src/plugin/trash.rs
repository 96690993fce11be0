//! Removal of unused content: what a fetch has replaced, or has left after an error or a kill.
//!
//! It is moved to `.volio/.trash` and removed from there, so that content which takes long or cannot be removed does
//! not block a volume.

use crate::disk::directory::{mount_id, open_directory};
use crate::disk::remove::{self, RemovalError, RemovalRules, Removed};
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

/// The time before another attempt to remove something.
const RETRY_INTERVAL: Duration = Duration::from_secs(60 * 60);

pub(super) struct Trash {
    directory: PathBuf,
    /// Entries that could not be removed, with the time of the attempt. Locked during removal.
    failed: Mutex<BTreeMap<OsString, Instant>>,
}

impl Trash {
    /// The trash in this directory.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, failed: Mutex::default() }
    }

    /// Moves a directory into the trash, if it exists.
    pub(super) fn move_in(&self, path: &Path) -> Result<()> {
        let io_error = |error| Error::io(format!("cannot move {} away", path.display()), error);
        let found = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(io_error)?,
        };
        // The inode number is unique within the file system.
        fs::rename(path, self.directory.join(found.ino().to_string())).map_err(io_error)
    }

    fn names(&self) -> Vec<OsString> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect()
    }

    /// Removes the entries, unless another thread is removing them, and logs those that cannot be removed.
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
        // A subvolume has a separate device number on the same mount, and any user can create one.
        let own = mount_id(&above);
        let is_subvolume = |directory: BorrowedFd<'_>| own.is_some() && mount_id(directory) == own;
        let removal = RemovalRules { crosses: &is_subvolume, ..RemovalRules::EVERYTHING };
        // A name cannot contain a zero byte.
        let name = CString::new(name.as_bytes()).unwrap_or_default();
        let path = |path: Vec<u8>| PathBuf::from(OsString::from_vec(path));
        match remove::entry(above.as_fd(), &name, &removal) {
            Ok(Removed { mounted: None, .. }) => Ok(()),
            Ok(Removed { mounted: Some(place), .. }) => {
                Err(cannot(&path(place), &"something is mounted on it, which has to be unmounted first"))
            }
            Err(RemovalError { path: place, errno }) => Err(cannot(&path(place), &errno)),
        }
    }

    /// Returns `true` if an entry has not been tried for some time.
    pub(super) fn is_due(&self) -> bool {
        let names = self.names();
        !names.is_empty()
            && self.failed.try_lock().is_ok_and(|failed| {
                names.iter().any(|name| failed.get(name).is_none_or(|time| time.elapsed() >= RETRY_INTERVAL))
            })
    }
}
