//! The storage: one directory for each volume, as volmex had it, and the plugin's files.
//!
//! ```text
//! volumes.json            the list of volumes, in volmex's format
//! NAME/                   the directory that a container sees
//! .volio/.lock            locked by the plugin that uses the storage
//! .volio/.used            exists if there was a volumes.json
//! .volio/.trash/          content that is being removed
//! .volio/NAME/record.json the state of a volume: its content, mounts and pending export
//! .volio/NAME/new/        the next content of a volume
//! ```
//!
//! No volume name begins with a dot. Only the owner may access the storage: an image, or root in a container, can put setuid
//! programs and devices into a volume, which would make any user that can reach them root.

use super::trash::Trash;
use super::volume_name::{DEFINITIONS, VolumeName};
use crate::disk::atomic_file;
use crate::disk::lock::FileLock;
use crate::error::{Error, Result};
use rustix::fs::fsync;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A storage directory, locked for this plugin while the value lives.
pub(super) struct Storage {
    path: PathBuf,
    /// Content that is being removed.
    pub(super) trash: Trash,
    _lock: FileLock,
}

impl Storage {
    /// Opens and locks a storage directory.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        // Mount points are sent to engines, so they have to be absolute.
        let path = match fs::canonicalize(path) {
            Ok(path) if path.is_dir() => path,
            Ok(_) => return Err(Error::usage(format!("the storage {shown} is not a directory"))),
            Err(error) => {
                return Err(Error::io(format!("cannot open the storage {shown}"), error)
                    .with_hint("make the directory, or mount the disk that it is on"));
            }
        };
        if path.to_str().is_none() {
            return Err(Error::usage(format!("the storage {shown} has a name that is not UTF-8")));
        }
        let io_error = |error: io::Error| Error::io(format!("cannot use the storage {shown}"), error);
        ensure_private(&path)?;
        let private = path.join(".volio");
        make_private(&private).map_err(io_error)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(private.join(".lock"));
        let lock = lock.map_err(io_error)?;
        let lock = FileLock::try_exclusive(lock).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                Error::refused(format!("another plugin uses the storage {shown}")).with_hint("stop it first")
            }
            _ => io_error(error),
        })?;
        move_old_files(&private).map_err(io_error)?;
        let trash = private.join(".trash");
        make_private(&trash).map_err(io_error)?;
        let trash = Trash::new(trash);
        let directory = Self { path, trash, _lock: lock };
        directory.discard_unfinished().map_err(io_error)?;
        Ok(directory)
    }

    /// Discards incomplete content that a killed plugin has left.
    fn discard_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.path.join(".volio"))?.flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.parse::<VolumeName>().is_ok()) {
                // If one cannot be moved, the next fetch of its volume reports that.
                let _ = self.trash.move_in(&entry.path().join("new"));
            }
        }
        Ok(())
    }

    /// Returns the path of the list of volumes.
    pub(super) fn definitions_file(&self) -> PathBuf {
        self.path.join(DEFINITIONS)
    }

    /// Returns the directory that a container sees.
    pub(super) fn volume_dir(&self, name: &VolumeName) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// Returns the path of a volume's state.
    pub(super) fn state_file(&self, name: &VolumeName) -> PathBuf {
        self.private_dir(name).join("record.json")
    }

    /// Returns the directory for a volume's new content, on the same file system.
    pub(super) fn staging_dir(&self, name: &VolumeName) -> PathBuf {
        self.private_dir(name).join("new")
    }

    /// Returns the directory for the plugin's files about a volume.
    pub(super) fn private_dir(&self, name: &VolumeName) -> PathBuf {
        self.path.join(".volio").join(name.as_str())
    }

    /// Returns `true` if there was a list of volumes before.
    pub(super) fn was_used(&self) -> bool {
        self.used().exists()
    }

    /// Notes that there is a list of volumes. If it disappears later, its disk is not mounted, or it was lost.
    pub(super) fn mark_used(&self) -> Result<()> {
        let used = self.used();
        File::create(&used)
            .map(drop)
            .map_err(|error| Error::io(format!("cannot make {}", used.display()), error))
    }

    fn used(&self) -> PathBuf {
        self.path.join(".volio/.used")
    }
}

/// Denies other users access to the storage. Mode 0711 is accepted: with user namespaces (`userns-remap`) some engines
/// access volumes as another user, and 0711 gives access only to known names.
fn ensure_private(storage: &Path) -> Result<()> {
    let shown = storage.display();
    let mode = || fs::metadata(storage).map(|found| found.permissions().mode() & 0o7777);
    let is_closed = |mode: u32| mode & 0o077 == 0 || mode == 0o711;
    let closed = match mode() {
        Ok(mode) if is_closed(mode) => Ok(mode),
        _ => fs::set_permissions(storage, Permissions::from_mode(0o700)).and_then(|()| mode()),
    };
    match closed {
        Ok(mode) if is_closed(mode) => Ok(()),
        Ok(mode) => {
            Err(Error::refused(format!("other users can enter the storage {shown}, of mode {mode:o}"))
                .with_hint("its file system keeps no modes: take a directory on another one"))
        }
        Err(error) => Err(Error::io(format!("cannot keep other users out of the storage {shown}"), error)
            .with_hint("give the directory to the user that the plugin runs as, or make its mode 0700")),
    }
}

/// Moves files of earlier versions to their current names. No volume could have had the old names.
fn move_old_files(private: &Path) -> io::Result<()> {
    for name in ["lock", "used"] {
        let old = private.join(name);
        if fs::symlink_metadata(&old).is_ok_and(|found| found.is_file()) {
            match name {
                "used" => fs::rename(&old, private.join(".used"))?,
                _ => fs::remove_file(&old)?,
            }
        }
    }
    Ok(())
}

/// Creates a directory with mode 0700, unless it exists.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Replaces a file atomically: a reader finds the old or the new content, also after a crash.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    atomic_file::replace(path, content, 0o600)
        .map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
}

/// Syncs a directory, so that renames in it are durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    Ok(fsync(File::open(path)?)?)
}
