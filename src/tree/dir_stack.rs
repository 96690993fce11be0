//! Directories opened one below the other, so that no path is ever resolved twice.
//!
//! A path is a question that the kernel answers anew each time, and between two answers somebody can put a symbolic
//! link in its way. A descriptor is a fact. Everything that reads or writes a tree therefore holds the directory it
//! is in and takes one step at a time, by a single name and without following links.

use super::TreePath;
pub(super) use crate::disk::directory::{FileId, names_in, open_directory};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Stat, fstat};
use rustix::io::{Errno, Result};

/// How many directories stay open: enough that honest trees never reopen one, few enough for the usual limit of 1024
/// descriptors, also when several trees are walked at a time.
const MOST_OPEN: usize = 64;

/// How many of the directories above are opened again at once, when all of them had been closed: climbing out of a
/// depth of n then costs n²/32 steps and not n².
const REOPENED: usize = 32;

/// setgid: what is made in a directory belongs to the directory's group.
pub(super) const SETGID: u32 = 0o2000;

/// What decides, besides an ACL, whose the things are that are made in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The file system.
    pub device: u64,
    /// The owner and the group of the directory.
    pub owner: (u32, u32),
    /// Whether they get the directory's group.
    is_setgid: bool,
}

impl From<&Stat> for Standing {
    fn from(stat: &Stat) -> Self {
        Self { device: stat.st_dev, owner: (stat.st_uid, stat.st_gid), is_setgid: stat.st_mode & SETGID != 0 }
    }
}

/// A place in a tree, with the directories above it.
#[derive(Debug)]
pub(super) struct Descent {
    root: OwnedFd,
    path: TreePath,
    levels: Vec<Level>,
    /// The levels from here on are open; the ones before were closed for the sake of [`MOST_OPEN`].
    open_from: usize,
}

#[derive(Debug)]
struct Level {
    identity: FileId,
    /// As it was when it was entered.
    standing: Standing,
    fd: Option<OwnedFd>,
}

impl Descent {
    /// At the root of a tree.
    pub fn new(root: OwnedFd) -> Self {
        Self { root, path: TreePath::root(), levels: Vec::new(), open_from: 0 }
    }

    /// The root, wherever the descent is.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory that the descent is in.
    pub fn path(&self) -> &TreePath {
        &self.path
    }

    /// How many names lead here from the root.
    pub fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Where something else is mounted in the directory above, the device that the descent has come to; `root` is that
    /// of the root.
    pub fn crossed_from(&self, root: u64) -> Option<u64> {
        let (here, above) = self.levels.split_last()?;
        let above = above.last().map_or(root, |above| above.identity.device);
        (here.identity.device != above).then_some(here.identity.device)
    }

    /// How the directory stood when the descent came into it; `None` at the root, which was not entered.
    pub fn standing(&self) -> Option<Standing> {
        self.levels.last().map(|level| level.standing)
    }

    /// The directory that the descent is in, open.
    ///
    /// # Errors
    /// Those of opening it again if it had to be closed; `ESTALE` when something else is now in its place.
    pub fn here(&mut self) -> Result<BorrowedFd<'_>> {
        if self.open_from == self.levels.len() {
            self.reopen()?;
        }
        Ok(match self.levels.last() {
            Some(Level { fd: Some(fd), .. }) => fd.as_fd(),
            _ => self.root.as_fd(),
        })
    }

    /// Goes into the directory `name`.
    ///
    /// # Errors
    /// `ENOENT` when there is nothing of that name; `ENOTDIR` or `ELOOP` when it is not a directory, as a symbolic
    /// link to one is not.
    pub fn enter(&mut self, name: &[u8]) -> Result<()> {
        let fd = open_directory(self.here()?, name)?;
        let stat = fstat(&fd)?;
        self.push(name, fd, &stat);
        Ok(())
    }

    /// Goes into the directory `name`, which is open already.
    pub fn push(&mut self, name: &[u8], fd: OwnedFd, stat: &Stat) {
        self.path = self.path.join(name);
        self.levels.push(Level { identity: stat.into(), standing: stat.into(), fd: Some(fd) });
        if self.levels.len() - self.open_from > MOST_OPEN {
            self.levels[self.open_from].fd = None;
            self.open_from += 1;
        }
    }

    /// Goes up one directory; stays where it is at the root.
    pub fn leave(&mut self) {
        self.levels.pop();
        self.open_from = self.open_from.min(self.levels.len());
        self.path = self.path.parent().unwrap_or_default();
    }

    /// Goes up to the root.
    pub fn rise_to_root(&mut self) {
        self.rise_towards(&TreePath::root());
    }

    /// Goes up until `path` is in the directory or is the directory itself.
    pub fn rise_towards(&mut self, path: &TreePath) {
        while !path.is_in(&self.path) {
            self.leave();
        }
    }

    /// Goes to a directory that exists.
    ///
    /// # Errors
    /// Those of [`enter`](Self::enter).
    pub fn go_to(&mut self, path: &TreePath) -> Result<()> {
        self.rise_towards(path);
        path.names().skip(self.depth()).try_for_each(|name| self.enter(name))
    }

    /// Opens the last levels again by their names, and insists that they are still what they were.
    fn reopen(&mut self) -> Result<()> {
        let keep_from = self.levels.len().saturating_sub(REOPENED);
        let mut passed = None;
        for (depth, name) in self.path.names().enumerate() {
            let above = match depth.checked_sub(1).and_then(|above| self.levels[above].fd.as_ref()) {
                Some(fd) => fd.as_fd(),
                None => passed.as_ref().map_or(self.root.as_fd(), OwnedFd::as_fd),
            };
            let fd = open_directory(above, name)?;
            match depth < keep_from {
                true => passed = Some(fd),
                false if self.levels[depth].identity == FileId::from(&fstat(&fd)?) => {
                    self.levels[depth].fd = Some(fd);
                }
                false => return Err(Errno::STALE),
            }
        }
        self.open_from = keep_from;
        Ok(())
    }
}
