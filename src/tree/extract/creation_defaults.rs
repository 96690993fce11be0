//! A cache of the owner and the mode that the file system gives new files, which saves two system calls for each file.
//!
//! The cache is shared by the directories that this run has created with the same device, owner, group and setgid bit.

use super::attributes::{Attributes, Given};
use crate::tree::TreePath;
use crate::tree::dir_stack::DirOwnership;
use rustix::fd::BorrowedFd;
use rustix::fs::{Mode, fstat};
use rustix::io::Result;

/// The attributes of new files in one directory.
pub(super) struct CreationDefaults {
    /// The directory.
    pub path: TreePath,
    /// Set when new files inherit an ACL from the directory.
    pub inherits_acl: bool,
    /// Set when this extraction has created the directory, so that no other program has changed its defaults.
    is_ours: bool,
    known: KnownDefaults,
}

/// The defaults of all directories with the same ownership, as far as files were created there.
#[derive(Default)]
struct KnownDefaults {
    ownership: Option<DirOwnership>,
    /// The owner of new files.
    owner: Option<(u32, u32)>,
    /// The modes that new files get as they are requested, because no umask changes them.
    modes: Vec<u32>,
}

impl CreationDefaults {
    /// The defaults of a directory. `previous` are those of the directory before it; they are kept as far as they apply.
    pub fn new(
        path: TreePath,
        inherits_acl: bool,
        is_ours: bool,
        ownership: DirOwnership,
        previous: Option<Self>,
    ) -> Self {
        let known = previous.map(|previous| previous.known).unwrap_or_default();
        let mut defaults = Self { path, inherits_acl, is_ours, known };
        // A directory without reliable defaults changes nothing in what is known for those that follow.
        if defaults.is_reliable() && defaults.known.ownership != Some(ownership) {
            defaults.known = KnownDefaults { ownership: Some(ownership), ..KnownDefaults::default() };
        }
        defaults
    }

    /// Returns the mode to create a file with. It is private unless it is known to be right together with the owner: nobody
    /// else may read a file before it has its owner, its ACL and its special bits.
    pub fn creation_mode(&self, attributes: &Attributes<'_>) -> Mode {
        match attributes.plain_mode() {
            Some(mode) if self.is_reliable() && self.known.owner == Some(attributes.owner()) => mode,
            _ => Mode::RUSR | Mode::WUSR,
        }
    }

    /// Returns the attributes that a file has which was created with the mode `requested`. The first file with each mode is
    /// looked at.
    pub fn given(
        &mut self,
        file: BorrowedFd<'_>,
        attributes: &Attributes<'_>,
        requested: Mode,
    ) -> Result<Given> {
        let Some(mode) = attributes.plain_mode().filter(|_| self.is_reliable()) else {
            return Ok(Given::default());
        };
        let is_final = mode == requested;
        let known = &mut self.known;
        if known.owner.is_none() || (is_final && !known.modes.contains(&mode.bits())) {
            let stat = fstat(file)?;
            known.owner = Some((stat.st_uid, stat.st_gid));
            if stat.st_mode & 0o7777 == requested.bits() {
                known.modes.push(requested.bits());
            }
        }
        let owner = known.owner == Some(attributes.owner());
        Ok(Given { owner, mode: owner && is_final && known.modes.contains(&mode.bits()) })
    }

    fn is_reliable(&self) -> bool {
        self.is_ours && !self.inherits_acl
    }
}
