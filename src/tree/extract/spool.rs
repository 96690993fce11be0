//! Files without a name, for what must be proved before it is extracted.

use crate::tree::target_state::SPOOL;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, unlinkat};
use rustix::io::{Errno, Result};
use std::fs::File;
use std::io;
use std::path::Path;

/// A directory in which files without a name can be made.
#[derive(Debug)]
pub struct SpoolDirectory(OwnedFd);

impl SpoolDirectory {
    /// A directory in which files without a name can be made.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let directory =
            openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self::new(directory)?)
    }

    /// Makes sure of it.
    pub(super) fn new(directory: OwnedFd) -> Result<Self> {
        nameless(directory.as_fd())?;
        Ok(Self(directory))
    }

    /// A new file, which is gone when it is closed.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn file(&self) -> io::Result<File> {
        Ok(nameless(self.0.as_fd())?)
    }
}

fn nameless(directory: BorrowedFd<'_>) -> Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match openat(directory, ".", flags | OFlags::TMPFILE, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
        made => return made.map(File::from),
    }
    // The name is volio's; whatever has it was left by one that was killed, or planted.
    match unlinkat(directory, SPOOL, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let file = openat(directory, SPOOL, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode)?;
    unlinkat(directory, SPOOL, AtFlags::empty())?;
    Ok(file.into())
}
