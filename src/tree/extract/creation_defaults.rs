//! What new files are given by the file system, so that it need not be set once more: a file costs four calls then,
//! and not six. What one directory gives, others give too that were made here and stand alike.

use super::attributes::{Attributes, Given};
use crate::tree::TreePath;
use crate::tree::dir_stack::Standing;
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
    is_ours: bool,
    known: Known,
}

/// What was learnt from files in directories of one standing.
#[derive(Default)]
struct Known {
    standing: Option<Standing>,
    /// Whose they are, once one was looked at.
    owner: Option<(u32, u32)>,
    /// The modes that they are given when they are asked for: those that no umask changes.
    modes: Vec<u32>,
}

impl Newborns {
    /// Of a directory, with what was learnt in the directories before it, as far as it counts in this one.
    pub fn new(
        path: TreePath,
        inherit: bool,
        is_ours: bool,
        standing: Standing,
        before: Option<Self>,
    ) -> Self {
        let known = before.map(|before| before.known).unwrap_or_default();
        let mut newborns = Self { path, inherit, is_ours, known };
        // Where nothing is taken as given, nothing is learnt either, and what is known stays for the directories to come.
        if newborns.is_given() && newborns.known.standing != Some(standing) {
            newborns.known = Known { standing: Some(standing), ..Known::default() };
        }
        newborns
    }

    /// The mode to make a file with. Nobody else may read it before it has its owner, and ACLs and special bits come
    /// last: then the mode is set when all is there.
    pub fn mode(&self, wanted: &Attributes<'_>) -> Mode {
        match wanted.plain_mode() {
            Some(mode) if self.is_given() && self.known.owner == Some(wanted.owner()) => mode,
            _ => Mode::RUSR | Mode::WUSR,
        }
    }

    /// What a file has that was made with that mode. The first of its kind is looked at.
    pub fn given(&mut self, file: BorrowedFd<'_>, wanted: &Attributes<'_>, made: Mode) -> Result<Given> {
        let Some(mode) = wanted.plain_mode().filter(|_| self.is_given()) else { return Ok(Given::default()) };
        let is_asked = mode == made;
        let known = &mut self.known;
        if known.owner.is_none() || (is_asked && !known.modes.contains(&mode.bits())) {
            let stat = fstat(file)?;
            known.owner = Some((stat.st_uid, stat.st_gid));
            if stat.st_mode & 0o7777 == made.bits() {
                known.modes.push(made.bits());
            }
        }
        let owner = known.owner == Some(wanted.owner());
        Ok(Given { owner, mode: owner && is_asked && known.modes.contains(&mode.bits()) })
    }

    fn is_given(&self) -> bool {
        self.is_ours && !self.inherit
    }
}
