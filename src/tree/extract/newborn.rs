//! What new files are given by the file system, so that it need not be set once more: a file costs four calls then,
//! and not six.

use super::attributes::{Attributes, Given};
use crate::tree::TreePath;
use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, fstat};
use rustix::io::Result;

/// What is known about new files in one directory.
pub(super) struct Newborns {
    /// The directory.
    pub path: TreePath,
    /// Whether it hands an ACL down to all that is made in it.
    pub inherit: bool,
    /// Whether nobody but this extraction has said what is given here.
    pub is_ours: bool,
    /// Whose they are, once one was looked at.
    owner: Option<(u32, u32)>,
    /// The modes that they are given when they are asked for: those that no umask changes.
    modes: Vec<u32>,
}

impl Newborns {
    pub fn new(path: TreePath, inherit: bool, is_ours: bool) -> Self {
        Self { path, inherit, is_ours, owner: None, modes: Vec::new() }
    }

    /// The mode to make a file with. Nobody else may read it before it has its owner, and ACLs and special bits come
    /// last: then the mode is set when all is there.
    pub fn mode(&self, wanted: &Attributes<'_>) -> Mode {
        match wanted.plain_mode() {
            Some(mode) if self.is_given() && self.owner == Some(wanted.owner()) => mode,
            _ => Mode::RUSR | Mode::WUSR,
        }
    }

    /// What a file has that was made with that mode. The first of its kind is looked at.
    pub fn given(&mut self, file: BorrowedFd<'_>, wanted: &Attributes<'_>, made: Mode) -> Result<Given> {
        let Some(mode) = wanted.plain_mode().filter(|_| self.is_given()) else { return Ok(Given::default()) };
        let is_asked = mode == made;
        if self.owner.is_none() || (is_asked && !self.modes.contains(&mode.bits())) {
            let stat = fstat(file)?;
            self.owner = Some((stat.st_uid, stat.st_gid));
            if stat.st_mode & 0o7777 == made.bits() {
                self.modes.push(made.bits());
            }
        }
        let owner = self.owner == Some(wanted.owner());
        Ok(Given { owner, mode: owner && is_asked && self.modes.contains(&mode.bits()) })
    }

    fn is_given(&self) -> bool {
        self.is_ours && !self.inherit
    }
}
