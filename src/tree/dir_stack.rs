//! Directories opened one inside the other, so that no path is resolved twice.
//!
//! The kernel resolves a path again in each call, and between two calls another process can put a symbolic link into it.
//! An open descriptor always means the same directory. So everything that reads or writes a tree holds the current
//! directory open and takes one step at a time, by a single name and without following links.

use super::TreePath;
pub(super) use crate::disk::directory::{FileId, names_from, names_in, open_directory};
use crate::disk::working_directory::Visit;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Stat, fstat};
use rustix::io::{Errno, Result};

/// The most directories that stay open. Honest trees never exceed it, and several trees can be walked at a time within the
/// usual limit of 1024 descriptors.
const MAX_OPEN: usize = 64;

/// The number of directories that are opened again at once when all had been closed. Climbing out of a depth of n then
/// takes n²/32 steps instead of n².
const REOPENED: usize = 32;

/// The setgid bit: what is created in such a directory gets the directory's group.
pub(super) const SETGID: u32 = 0o2000;

/// The properties of a directory that decide, besides its ACL, the owner of what is created in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirOwnership {
    /// The file system.
    pub device: u64,
    /// The owner and the group of the directory.
    pub owner: (u32, u32),
    is_setgid: bool,
}

impl From<&Stat> for DirOwnership {
    fn from(stat: &Stat) -> Self {
        Self { device: stat.st_dev, owner: (stat.st_uid, stat.st_gid), is_setgid: stat.st_mode & SETGID != 0 }
    }
}

/// A directory of a tree, and the directories from the root to it.
#[derive(Debug)]
pub(super) struct DirStack {
    root: OwnedFd,
    path: TreePath,
    levels: Vec<DirLevel>,
    /// The first level that is open; those above it were closed because of [`MAX_OPEN`].
    open_from: usize,
    /// Of the current directory, since it was entered or returned to.
    visit: Visit,
}

#[derive(Debug)]
struct DirLevel {
    id: FileId,
    /// As it was when the directory was entered.
    ownership: DirOwnership,
    fd: Option<OwnedFd>,
}

impl DirStack {
    /// A stack that is at the root of a tree.
    pub fn new(root: OwnedFd) -> Self {
        Self { root, path: TreePath::root(), levels: Vec::new(), open_from: 0, visit: Visit::begin() }
    }

    /// The root of the tree.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The path of the current directory.
    pub fn path(&self) -> &TreePath {
        &self.path
    }

    /// The number of names in the path of the current directory.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Returns the device of the current directory if the directory above is on another one. `root` is the device of the
    /// root.
    pub fn crossed_from(&self, root: u64) -> Option<u64> {
        let (here, above) = self.levels.split_last()?;
        let above = above.last().map_or(root, |above| above.id.device);
        (here.id.device != above).then_some(here.id.device)
    }

    /// Returns the ownership of the current directory when it was entered; `None` at the root, which was not entered.
    pub fn ownership(&self) -> Option<DirOwnership> {
        self.levels.last().map(|level| level.ownership)
    }

    /// Returns the current directory, open.
    ///
    /// # Errors
    /// Those of opening it again if it had to be closed; `ESTALE` when another directory has its name now.
    pub fn here(&mut self) -> Result<BorrowedFd<'_>> {
        if self.open_from == self.levels.len() {
            self.reopen()?;
        }
        Ok(match self.levels.last() {
            Some(DirLevel { fd: Some(fd), .. }) => fd.as_fd(),
            _ => self.root.as_fd(),
        })
    }

    /// Returns the current directory, open, with the visit to it.
    ///
    /// # Errors
    /// As [`here`](Self::here).
    pub fn visited(&mut self) -> Result<(BorrowedFd<'_>, Visit)> {
        let visit = self.visit;
        self.here().map(|here| (here, visit))
    }

    /// Enters the directory `name`.
    ///
    /// # Errors
    /// `ENOENT` when nothing has that name; `ENOTDIR` or `ELOOP` when it is not a directory, also when it is a symbolic link
    /// to one.
    pub fn enter(&mut self, name: &[u8]) -> Result<()> {
        let fd = open_directory(self.here()?, name)?;
        let stat = fstat(&fd)?;
        self.push(name, fd, &stat);
        Ok(())
    }

    /// Enters the directory `name`, which is open already.
    pub fn push(&mut self, name: &[u8], fd: OwnedFd, stat: &Stat) {
        self.path = self.path.join(name);
        self.visit = Visit::begin();
        self.levels.push(DirLevel { id: stat.into(), ownership: stat.into(), fd: Some(fd) });
        if self.levels.len() - self.open_from > MAX_OPEN {
            self.levels[self.open_from].fd = None;
            self.open_from += 1;
        }
    }

    /// Goes up one directory; does nothing at the root.
    pub fn leave(&mut self) {
        self.levels.pop();
        self.visit = Visit::begin();
        self.open_from = self.open_from.min(self.levels.len());
        self.path = self.path.parent().unwrap_or_default();
    }

    /// Goes up to the root.
    pub fn ascend_to_root(&mut self) {
        self.ascend_to(&TreePath::root());
    }

    /// Goes up to the lowest directory that contains `path` or has that path.
    pub fn ascend_to(&mut self, path: &TreePath) {
        while !path.is_in(&self.path) {
            self.leave();
        }
    }

    /// Goes to a directory that exists.
    ///
    /// # Errors
    /// Those of [`enter`](Self::enter).
    pub fn goto(&mut self, path: &TreePath) -> Result<()> {
        self.ascend_to(path);
        path.names().skip(self.depth()).try_for_each(|name| self.enter(name))
    }

    /// Opens the lowest levels again by their names, and ensures that they are the same directories as before.
    fn reopen(&mut self) -> Result<()> {
        let keep_from = self.levels.len().saturating_sub(REOPENED);
        let mut passed = None;
        for (depth, name) in self.path.names().enumerate() {
            let above = match depth.checked_sub(1).and_then(|above| self.levels[above].fd.as_ref()) {
                Some(fd) => fd.as_fd(),
                None => passed.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd),
            };
            let fd = open_directory(above, name)?;
            if depth < keep_from {
                passed = Some(fd);
            } else if self.levels[depth].id == FileId::from(&fstat(&fd)?) {
                self.levels[depth].fd = Some(fd);
            } else {
                return Err(Errno::STALE);
            }
        }
        self.open_from = keep_from;
        Ok(())
    }
}
