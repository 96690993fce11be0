//! The open directory of a layout.
//!
//! Other users may have put symbolic links into a layout, and may put new ones there while it is written. So everything
//! that is written or removed is reached from open directories, step by step and without following links. The directory of
//! the layout itself is the one that the user has named, and may be a link. Reading follows links: the digest proves what
//! is read.

use crate::disk::atomic_file::{self, AtomicFile};
use crate::disk::directory::open_directory;
use crate::disk::lock::FileLock;
use crate::error::{Error, Result};
use crate::oci::{Algorithm, Digest};
use crate::stream::try_for_each;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The prefix of the names of unfinished files.
pub(super) const TEMPORARY_PREFIX: &str = ".volio-";

/// The treatment of a directory that does not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IfMissing {
    /// Create it.
    Create,
    /// Fail.
    Fail,
}

/// The open directory of a layout.
pub(super) struct LayoutDirectory {
    root: OwnedFd,
    path: PathBuf,
}

impl LayoutDirectory {
    /// Opens the directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let root = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, path: path.to_owned() })
    }

    /// Returns the directory itself.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Opens the directory of all blobs.
    pub fn blobs(&self, if_missing: IfMissing) -> Result<OwnedFd> {
        self.open_in(self.root(), "blobs", &self.path.join("blobs"), if_missing)
    }

    /// Opens the directory of the blobs with digests of this algorithm.
    pub fn blobs_of(&self, algorithm: &str, if_missing: IfMissing) -> Result<OwnedFd> {
        let blobs = self.blobs(if_missing)?;
        self.open_in(blobs.as_fd(), algorithm, &self.path.join("blobs").join(algorithm), if_missing)
    }

    /// Opens the directory `name` in `parent`.
    fn open_in(
        &self,
        parent: BorrowedFd<'_>,
        name: &str,
        path: &Path,
        if_missing: IfMissing,
    ) -> Result<OwnedFd> {
        let io_error =
            |what: &str, error: io::Error| Error::io(format!("cannot {what} {}", path.display()), error);
        if if_missing == IfMissing::Create {
            match mkdirat(parent, name, Mode::from_raw_mode(0o777)) {
                Ok(()) => atomic_file::sync(parent).map_err(|error| io_error("create", error))?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(io_error("create", errno.into())),
            }
        }
        open_directory(parent, name.as_bytes()).map_err(|errno| match errno {
            Errno::NOTDIR | Errno::LOOP => {
                Error::refused(format!("{} is not a directory of the layout", path.display()))
                    .with_hint("a layout is changed without following links: put a directory there")
            }
            errno => io_error("open", errno.into()),
        })
    }

    /// Locks the layout against other changes. The lock is on the directory itself, because the format has no lock file.
    pub fn lock(&self, timeout: Duration) -> Result<FileLock> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = openat(self.root(), ".", flags, Mode::empty());
        let directory = directory.map_err(|errno| self.io_error("lock", errno.into()))?;
        FileLock::exclusive(File::from(directory), &self.path, timeout)
    }

    /// Creates a temporary file.
    pub fn create_file(&self) -> Result<AtomicFile> {
        let file = AtomicFile::begin(self.root(), TEMPORARY_PREFIX, 0o666);
        file.map_err(|error| self.io_error("create a file in", error))
    }

    /// Syncs temporary files, and gives each the name of the blob that it contains. The names are not synced before the
    /// index is replaced ([`sync_blobs`](Self::sync_blobs)).
    pub fn publish(&self, files: Vec<(AtomicFile, Digest)>) -> Result<()> {
        let io_error = |digest: &Digest, error| self.io_error(&format!("write the blob {digest} to"), error);
        let blobs_of = |digest: &Digest| self.blobs_of(digest.algorithm().name(), IfMissing::Create);
        // The file system writes its journal once for all that wait for it at the same time.
        try_for_each(files.len(), &files, |_, (file, digest)| {
            let synced = file.sync_for(blobs_of(digest)?.as_fd(), OsStr::new(&digest.hex()));
            synced.map_err(|error| io_error(digest, error))
        })
        .into_result()?;
        for (file, digest) in files {
            let renamed = file.rename(blobs_of(&digest)?.as_fd(), OsStr::new(&digest.hex()));
            renamed.map_err(|error| io_error(&digest, error))?;
        }
        Ok(())
    }

    /// Syncs the names of the blobs, also of those that other writers have published.
    pub fn sync_blobs(&self) -> Result<()> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            // A directory that cannot be opened has no blobs of this writer.
            if let Ok(blobs) = self.blobs_of(algorithm.name(), IfMissing::Fail) {
                atomic_file::sync(blobs.as_fd())
                    .map_err(|error| self.io_error("write the blobs of", error))?;
            }
        }
        Ok(())
    }

    /// Replaces a file in the directory itself, atomically.
    pub fn replace(&self, name: &str, content: &[u8]) -> Result<()> {
        let file = self.create_file()?;
        let write = || {
            file.file().write_all(content)?;
            file.publish(self.root(), OsStr::new(name))
        };
        write().map_err(|error| Error::io(format!("cannot write {}", self.path.join(name).display()), error))
    }

    fn io_error(&self, what: &str, error: io::Error) -> Error {
        Error::io(format!("cannot {what} {}", self.path.display()), error)
    }
}
