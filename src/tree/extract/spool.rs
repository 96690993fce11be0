//! Unnamed files for layers that must be verified before they are extracted.

use crate::tree::target_state::SPOOL;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::io::{Errno, Result};
use std::fs::File;
use std::io;
use std::path::Path;

/// A directory in which unnamed files can be created.
#[derive(Debug)]
pub struct SpoolDirectory(OwnedFd);

impl SpoolDirectory {
    /// Opens a directory, and tries to create an unnamed file in it.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let directory =
            openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self::new(directory)?)
    }

    /// Tries to create an unnamed file in a directory.
    pub(super) fn new(directory: OwnedFd) -> Result<Self> {
        create_unnamed(directory.as_fd())?;
        Ok(Self(directory))
    }

    /// Creates a file, which disappears when it is closed.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn file(&self) -> io::Result<File> {
        Ok(create_unnamed(self.0.as_fd())?)
    }
}

fn create_unnamed(directory: BorrowedFd<'_>) -> Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match openat(directory, ".", flags | OFlags::TMPFILE, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
        created => return created.map(File::from),
    }
    // The name is reserved for volio: a file with it was left by a killed run, or planted.
    match unlinkat(directory, SPOOL, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let file = openat(directory, SPOOL, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode)?;
    unlinkat(directory, SPOOL, AtFlags::empty())?;
    Ok(file.into())
}
