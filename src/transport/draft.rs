//! Files that get their names when they are whole.
//!
//! A draft stands beside its target, so that one `rename` puts it there. Its writer may be killed: then nobody holds
//! the draft's lock any more, and the next writer sweeps it away.

use crate::error::{Error, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::NamedTempFile;

/// A directory in which files are drafted.
#[derive(Clone, Copy)]
pub struct Drafts<'a> {
    directory: &'a Path,
    /// What the names of drafts begin with.
    prefix: &'static str,
}

impl<'a> Drafts<'a> {
    /// Drafts in this directory, under names that begin so.
    pub fn new(directory: &'a Path, prefix: &'static str) -> Self {
        Self { directory, prefix }
    }

    /// Keeps others from changing the directory until it is dropped. The directory itself is locked: a lock file
    /// would be one more thing in a format that has none, or beside a file that shall stand alone.
    pub fn lock(self) -> Result<File> {
        let directory = File::open(self.directory).map_err(|error| cannot("open", self.directory, error))?;
        flock(&directory, FlockOperation::LockExclusive)
            .map_err(|error| cannot("lock", self.directory, error.into()))?;
        Ok(directory)
    }

    /// Removes drafts that nobody holds any more. Needs the lock: under it they are made and locked.
    pub fn sweep(self) {
        let Ok(entries) = fs::read_dir(self.directory) else { return };
        for entry in entries.flatten() {
            if self.is_draft(&entry)
                && let Ok(file) = open_without_waiting(&entry.path())
                && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                // A file that cannot be removed is waste and no harm.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Whether this is the name of a draft.
    pub fn is_draft(self, entry: &fs::DirEntry) -> bool {
        entry.file_name().as_encoded_bytes().starts_with(self.prefix.as_bytes())
    }

    /// A new draft, locked for as long as it is open so that nobody sweeps it away. Needs the lock.
    pub fn begin(self) -> Result<NamedTempFile> {
        let file = tempfile::Builder::new()
            .prefix(self.prefix)
            // As other files are made, with the umask: the default 0600 would keep others from reading what they are
            // meant to carry on.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(self.directory)
            .map_err(|error| cannot("create a file in", self.directory, error))?;
        flock(&file, FlockOperation::NonBlockingLockShared)
            .map_err(|error| cannot("lock a file in", self.directory, error.into()))?;
        Ok(file)
    }

    /// Gives a draft its name, for good: it survives a power cut from here on.
    pub fn publish(self, draft: NamedTempFile, name: &Path) -> Result<()> {
        let publish = || {
            draft.as_file().sync_all()?;
            draft.persist(name).map_err(|error| error.error)?;
            File::open(name.parent().unwrap_or(self.directory))?.sync_all()
        };
        publish().map_err(|error| cannot("write", name, error))
    }
}

/// Opens a file that somebody else may have put there: where it is a named pipe, nobody must wait for a writer.
pub fn open_without_waiting(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

fn cannot(what: &str, path: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot {what} {}", path.display()), error)
}
