//! The directory of a layout, opened, and those in it, entered without following links.
//!
//! Whoever made the layout may have put a link into it, and puts another one there while it is written: what is written or
//! removed is reached from open directories, step by step. The directory itself is the one that the user has named, and
//! may be a link. Reading follows links: what is read is proved by its digest.

use crate::disk::atomic_file::{self, AtomicFile};
use crate::disk::directory::open_directory;
use crate::disk::lock::FileLock;
use crate::error::{Error, Result};
use crate::oci::Digest;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the names of unfinished files begin with.
pub(super) const TEMPORARY: &str = ".volio-";

/// What happens to a directory that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is made.
    Make,
    /// It is an error.
    Fail,
}

/// The directory of a layout, open.
pub(super) struct Place {
    root: OwnedFd,
    path: PathBuf,
}

impl Place {
    /// Opens the directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// The directory itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory for all blobs.
    pub fn blobs(&self, missing: Missing) -> Result<OwnedFd> {
        self.enter(self.root(), "blobs", &self.path.join("blobs"), missing)
    }

    /// The directory for blobs of this algorithm.
    pub fn blobs_of(&self, algorithm: &str, missing: Missing) -> Result<OwnedFd> {
        let blobs = self.blobs(missing)?;
        self.enter(blobs.as_fd(), algorithm, &self.path.join("blobs").join(algorithm), missing)
    }

    fn enter(&self, above: BorrowedFd<'_>, name: &str, path: &Path, missing: Missing) -> Result<OwnedFd> {
        let cannot =
            |what: &str, error: io::Error| Error::io(format!("cannot {what} {}", path.display()), error);
        if missing == Missing::Make {
            match mkdirat(above, name, Mode::from_raw_mode(0o777)) {
                Ok(()) => atomic_file::sync(above).map_err(|error| cannot("create", error))?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(cannot("create", errno.into())),
            }
        }
        open_directory(above, name.as_bytes()).map_err(|errno| match errno {
            Errno::NOTDIR | Errno::LOOP => {
                Error::refused(format!("{} is not a directory of the layout", path.display()))
                    .with_hint("a layout is changed without following links: put a directory there")
            }
            errno => cannot("open", errno.into()),
        })
    }

    /// Keeps others from changing the layout until it is dropped. The directory itself is locked: a lock file would be one
    /// more thing in a format that has none.
    pub fn lock(&self, patience: Duration) -> Result<FileLock> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let again = openat(self.root(), ".", flags, Mode::empty());
        let again = again.map_err(|errno| self.cannot("lock", errno.into()))?;
        FileLock::exclusive(File::from(again), &self.path, patience)
    }

    /// A new file that has no name yet.
    pub fn begin(&self) -> Result<AtomicFile> {
        let draft = AtomicFile::begin(self.root(), TEMPORARY, 0o666);
        draft.map_err(|error| self.cannot("create a file in", error))
    }

    /// Puts a blob in its place.
    pub fn publish(&self, draft: AtomicFile, digest: &Digest) -> Result<()> {
        let directory = self.blobs_of(digest.algorithm().name(), Missing::Make)?;
        let published = draft.publish(directory.as_fd(), OsStr::new(&digest.hex()));
        published.map_err(|error| self.cannot(&format!("write the blob {digest} to"), error))
    }

    /// Replaces a file in the directory itself as a whole.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let draft = self.begin()?;
        let write = || {
            draft.file().write_all(content)?;
            draft.publish(self.root(), OsStr::new(name))
        };
        write().map_err(|error| Error::io(format!("cannot write {}", self.path.join(name).display()), error))
    }

    fn cannot(&self, what: &str, error: io::Error) -> Error {
        Error::io(format!("cannot {what} {}", self.path.display()), error)
    }
}
