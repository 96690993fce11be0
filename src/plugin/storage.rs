//! The storage: one directory for each volume, as volmex had it, and beside them what is known of them.
//!
//! ```text
//! volumes.json            which volumes there are, in volmex's own form
//! NAME/                   what a container sees
//! .volio/.lock            held by the plugin that uses the storage
//! .volio/.used            there once was a volumes.json
//! .volio/.trash/          what is being removed
//! .volio/NAME/record.json what is in the volume and who has it
//! .volio/NAME/new/        what will be in the volume
//! ```
//!
//! No name of a volume begins with a dot. Nobody but its owner may enter the storage: an image, or a container's root, can
//! put programs with setuid and devices into a volume, and every user who reaches them is root.

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

/// A storage that belongs to this plugin as long as the value lives.
pub(super) struct Storage {
    path: PathBuf,
    /// What no volume needs any more.
    pub(super) trash: Trash,
    _lock: FileLock,
}

impl Storage {
    /// Takes the storage for this plugin.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        // Mount points go to engines, which know no directory to take a relative path from.
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
        let trouble = |error: io::Error| Error::io(format!("cannot use the storage {shown}"), error);
        ensure_private(&path)?;
        let private = path.join(".volio");
        make_private(&private).map_err(trouble)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(private.join(".lock"));
        let lock = lock.map_err(trouble)?;
        let lock = FileLock::try_exclusive(lock).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                Error::refused(format!("another plugin uses the storage {shown}")).with_hint("stop it first")
            }
            _ => trouble(error),
        })?;
        move_old_files(&private).map_err(trouble)?;
        let trash = private.join(".trash");
        make_private(&trash).map_err(trouble)?;
        let trash = Trash::new(trash);
        let directory = Self { path, trash, _lock: lock };
        directory.discard_unfinished().map_err(trouble)?;
        Ok(directory)
    }

    /// Takes away what fetches have left that did not end: a plugin was killed.
    fn discard_unfinished(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.path.join(".volio"))?.flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.parse::<VolumeName>().is_ok()) {
                // One that cannot be moved is told by the next fetch of its volume.
                let _ = self.trash.move_in(&entry.path().join("new"));
            }
        }
        Ok(())
    }

    /// The list of all volumes.
    pub(super) fn definitions_file(&self) -> PathBuf {
        self.path.join(DEFINITIONS)
    }

    /// What a container sees of the volume.
    pub(super) fn volume_dir(&self, name: &VolumeName) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// What is known of the volume.
    pub(super) fn state_file(&self, name: &VolumeName) -> PathBuf {
        self.private_dir(name).join("record.json")
    }

    /// Where a volume's new content is made, on the same file system.
    pub(super) fn staging_dir(&self, name: &VolumeName) -> PathBuf {
        self.private_dir(name).join("new")
    }

    fn private_dir(&self, name: &VolumeName) -> PathBuf {
        self.path.join(".volio").join(name.as_str())
    }

    /// Whether there was a list of volumes here before.
    pub(super) fn was_used(&self) -> bool {
        self.used().exists()
    }

    /// Notes that there is a list of volumes: should it vanish, its disk is not mounted, or somebody has lost it.
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

/// Keeps other users out of the storage. One with the mode 0711 stays so, since with user namespaces (`userns-remap`) some
/// engines reach volumes as another user: then others can reach what they know the name of.
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

/// Gives files of earlier versions their names of now. Until then no volume could have their old ones.
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

/// Makes a directory that only its owner may enter, unless it is there.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Replaces a file as a whole: whoever reads it, also after a crash, finds the old content or the new one.
pub(super) fn replace_file(path: &Path, content: &[u8]) -> Result<()> {
    atomic_file::replace(path, content, 0o600)
        .map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
}

/// Has the disk know what was renamed in a directory.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    Ok(fsync(File::open(path)?)?)
}
