//! The storage: one directory for each volume, as volmex had it, and beside them what is known of them.
//!
//! ```text
//! volumes.json            which volumes there are, in volmex's own form
//! NAME/                   what a container sees
//! .volio/lock             held by the plugin that uses the storage
//! .volio/used             there once was a volumes.json
//! .volio/NAME/record.json what is in the volume and who has it
//! .volio/NAME/new/        what will be in the volume
//! ```

use super::name::{DEFINITIONS, VolumeName};
use crate::error::{Error, Result};
use crate::transport::lock::Locked;
use rustix::fs::fsync;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A storage that belongs to this plugin as long as the value lives.
pub(super) struct Directory {
    path: PathBuf,
    _lock: Locked,
}

impl Directory {
    /// Takes the storage for this plugin.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        // Mount points go to engines, which know no directory to take a relative path from.
        let path = match fs::canonicalize(path) {
            Ok(path) if path.is_dir() => path,
            Ok(_) => return Err(Error::usage(format!("the storage {shown} is not a directory"))),
            Err(error) => {
                return Err(Error::io(format!("cannot open the storage {shown}"), error)
                    .hint("make the directory, or mount the disk that it is on"));
            }
        };
        if path.to_str().is_none() {
            return Err(Error::usage(format!("the storage {shown} has a name that is not UTF-8")));
        }
        let trouble = |error: io::Error| Error::io(format!("cannot use the storage {shown}"), error);
        let own = path.join(".volio");
        make_private(&own).map_err(trouble)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(own.join("lock"));
        let lock = lock.map_err(trouble)?;
        let lock = Locked::alone_at_once(lock).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => {
                Error::refused(format!("another plugin uses the storage {shown}")).hint("stop it first")
            }
            _ => trouble(error),
        })?;
        Ok(Self { path, _lock: lock })
    }

    /// The list of all volumes.
    pub(super) fn definitions(&self) -> PathBuf {
        self.path.join(DEFINITIONS)
    }

    /// What a container sees of the volume.
    pub(super) fn volume(&self, name: &VolumeName) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// What is known of the volume.
    pub(super) fn record(&self, name: &VolumeName) -> PathBuf {
        self.own(name).join("record.json")
    }

    /// Where a volume's new content is made, on the same file system.
    pub(super) fn staging(&self, name: &VolumeName) -> PathBuf {
        self.own(name).join("new")
    }

    fn own(&self, name: &VolumeName) -> PathBuf {
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
        self.path.join(".volio/used")
    }
}

/// Makes a directory that only its owner may enter, unless it is there.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Replaces a file as a whole: whoever reads it, also after a crash, finds the old content or the new one.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension("json.new");
    let write = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_directory(path.parent().unwrap_or(path))
    };
    write().map_err(|error| {
        // It may be what fills the disk.
        let _ = fs::remove_file(&new);
        Error::io(format!("cannot write {}", path.display()), error)
    })
}

/// Has the disk know what was renamed in a directory.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    Ok(fsync(File::open(path)?)?)
}
