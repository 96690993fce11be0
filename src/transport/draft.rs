//! Files that get their names when they are whole.
//!
//! A draft stands beside its target, so that one `rename` puts it there. Its writer may be killed: then nobody holds
//! the draft's lock any more, and the next writer sweeps it away.
//!
//! Where a file system knows no locks, two writers at once may undo what the other has listed, and nobody sweeps.

use crate::error::{Error, Result};
use crate::transport::lock::Locked;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
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
    pub fn lock(self) -> Result<Locked> {
        let directory = File::open(self.directory).map_err(|error| cannot("open", self.directory, error))?;
        Locked::alone(directory).map_err(|error| cannot("lock", self.directory, error))
    }

    /// Removes drafts that nobody holds any more. Needs the lock: under it they are made and locked.
    pub fn sweep(self) {
        let Ok(entries) = fs::read_dir(self.directory) else { return };
        for entry in entries.flatten() {
            if self.is_draft(&entry)
                && let Some(_claimed) = claim(&entry.path())
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
        // Without a lock nobody sweeps.
        let _ = flock(file.as_file(), FlockOperation::NonBlockingLockShared);
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

/// Opens and locks a file for whoever wants to continue or remove it; `None` while somebody holds it, and for all that is
/// no plain file under one name: what is written through a link lands somewhere else.
pub fn claim(path: &Path) -> Option<Locked> {
    // For writing also where nothing is written: some file systems lock nothing else.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let metadata = file.metadata().ok()?;
    let is_plain = metadata.is_file() && metadata.nlink() == 1;
    Locked::alone_at_once(file).ok().filter(|file| is_plain && file.is_held())
}

/// Opens a file that somebody else may have put there: where it is a named pipe, nobody must wait for a writer.
pub fn open_without_waiting(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

fn cannot(what: &str, path: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot {what} {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_plain_file_under_one_name_is_not_claimed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("precious"), "x").unwrap();
        std::os::unix::fs::symlink("precious", at("soft")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        for name in ["soft", "pipe", "absent", "."] {
            assert!(claim(&at(name)).is_none(), "{name}");
        }
        let first = claim(&at("precious")).unwrap();
        assert!(claim(&at("precious")).is_none(), "somebody holds it");
        drop(first);
        fs::hard_link(at("precious"), at("hard")).unwrap();
        assert!(claim(&at("hard")).is_none());
    }
}
