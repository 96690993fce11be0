//! Atomic replacement of a target: the tree is extracted into a staging directory beside it, which is renamed at the end.

use super::Target;
use super::io_error;
use super::target::survey;
use crate::disk::directory::ensure_owner_access;
use crate::disk::mountinfo;
use crate::disk::remove::{self, RemovalError, RemovalRules, Removed};
use crate::error::{Error, Result};
use crate::tree::TreePath;
use crate::tree::target_state::{self, TargetState};
use crate::tree::walk::display_root;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, fchmod, fchown, fstat, fsync, mkdirat, openat, renameat,
    renameat_with, unlinkat,
};
use rustix::io::Errno;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A target that is replaced atomically, and its staging directory `.NAME.volio` beside it.
#[derive(Debug)]
pub struct AtomicTarget {
    parent: OwnedFd,
    parent_path: PathBuf,
    name: OsString,
    stage: OsString,
}

impl AtomicTarget {
    /// A target that need not exist. If it is a symbolic link, the target is what that leads to.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when the target is a mount point, which cannot be replaced; when the
    /// directory above cannot be opened.
    pub fn beside(target: &Path) -> Result<Self> {
        let path = match fs::canonicalize(target) {
            Ok(path) => path,
            Err(_) => std::path::absolute(target)
                .map_err(|error| Error::io(format!("cannot find {}", target.display()), error))?,
        };
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(mounted(target));
        };
        fs::create_dir_all(above)
            .map_err(|error| Error::io(format!("cannot make the directory {}", above.display()), error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = openat(CWD, above, flags, Mode::empty())
            .map_err(|errno| Error::io(format!("cannot open {}", above.display()), errno))?;
        if Target::open(&path)?.is_some_and(|target| target.is_mount_point()) {
            return Err(mounted(target));
        }
        let stage = [b".", name.as_bytes(), b".volio"].concat();
        Ok(Self {
            parent,
            parent_path: above.to_owned(),
            name: name.to_owned(),
            stage: OsString::from_vec(stage),
        })
    }

    /// Returns the staging directory, to be filled with `content`. It is created if an interrupted run has not left it,
    /// with the owner and the mode of the directory that it replaces.
    ///
    /// # Errors
    /// When it cannot be created; [`Refused`](crate::error::Kind::Refused) when something else has its name.
    pub fn target(&self, content: &Value) -> Result<Target> {
        let path = self.parent_path.join(&self.stage);
        let failed = |errno| Error::io(format!("cannot make the directory {}", path.display()), errno);
        let made = match mkdirat(&self.parent, &self.stage, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(failed(errno)),
        };
        let stage = self.open(&self.stage).map_err(|errno| match errno {
            Errno::NOTDIR | Errno::LOOP => {
                Error::refused(format!("{} is in the way: it is not a directory", path.display()))
                    .with_hint("the image would be unpacked there before it takes its place: move it away")
            }
            errno => failed(errno),
        })?;
        // Where other users may write, one of them may have created it, with any state.
        if !target_state::is_private(stage.as_fd()) && (made || !self.is_parent_private()) {
            let what = format!("{} belongs to somebody else, or others may write in it", path.display());
            return Err(Error::refused(what).with_hint(
                "an image is unpacked there before it takes its place: remove it if nobody is at work there",
            ));
        }
        if let Ok(old) = self.open(&self.name).and_then(fstat)
            && made
        {
            // Only root may change the owner.
            let _ = fchown(
                &stage,
                Some(rustix::fs::Uid::from_raw(old.st_uid)),
                Some(rustix::fs::Gid::from_raw(old.st_gid)),
            );
            fchmod(&stage, Mode::from_raw_mode(old.st_mode)).map_err(failed)?;
        }
        let mut target = Target::from_fd(&path, stage, made)?;
        target.is_stage = true;
        let other = target_state::read(target.root.as_fd())
            .filter(|state| state.complete && state.was_empty && state.content != *content);
        if let Some(other) = other {
            // It was complete and never renamed, so that nobody has used it.
            target_state::write(target.root.as_fd(), &TargetState { complete: false, ..other }).map_err(
                |errno| Error::io(format!("cannot write the record of {}", path.display()), errno),
            )?;
        }
        Ok(target)
    }

    /// Returns whether only root and the user of this process can create files beside the target.
    fn is_parent_private(&self) -> bool {
        target_state::is_private(self.parent.as_fd())
            || fstat(&self.parent).is_ok_and(|stat| stat.st_uid == 0 && stat.st_mode & 0o022 == 0)
    }

    fn open(&self, name: &OsStr) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(&self.parent, name, flags, Mode::empty())
    }

    /// Renames the complete staging directory to the target. A target that is not empty is replaced and removed if
    /// `replace` is set.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when the target is not empty, or when the file system cannot exchange
    /// directories.
    pub fn publish(self, replace: bool) -> Result<()> {
        let target = self.parent_path.join(&self.name);
        if let Ok(old) = self.open(&self.name)
            && survey(old.as_fd(), &TreePath::root()).is_ok_and(|survey| survey.foreign_entry.is_none())
        {
            // The state file of an empty directory is an obstacle to the rename, as any other file.
            let _ = target_state::remove(old.as_fd());
        }
        match renameat(&self.parent, &self.stage, &self.parent, &self.name) {
            Ok(()) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if replace => self.exchange(&target)?,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                return Err(Error::refused(format!("{} is not empty any more", target.display())));
            }
            Err(errno) => {
                return Err(Error::io(
                    format!("cannot put the directory {} in its place", target.display()),
                    errno,
                ));
            }
        }
        fsync(&self.parent).map_err(|errno| {
            Error::io(format!("cannot write {} to the disk", self.parent_path.display()), errno)
        })
    }

    /// Exchanges the staging directory and the target, and removes the old target.
    fn exchange(&self, target: &Path) -> Result<()> {
        // The mount would move together with the old directory.
        if let Some(mount) = mountinfo::below(target).unwrap_or_default().first() {
            return Err(Error::refused(format!("something is mounted on {}", target.join(mount).display()))
                .with_hint(
                    "unmount it first, or unpack into a new directory and let a symbolic link lead to it",
                ));
        }
        let exchanged =
            renameat_with(&self.parent, &self.stage, &self.parent, &self.name, RenameFlags::EXCHANGE);
        exchanged.map_err(|errno| match errno {
            Errno::INVAL | Errno::NOSYS | Errno::XDEV => {
                Error::refused(format!("the file system of {} cannot exchange directories", target.display()))
                    .with_hint("unpack into a new directory, and let a symbolic link lead to it")
            }
            errno => Error::io(format!("cannot exchange {}", target.display()), errno),
        })?;
        let shown = display_root(&self.parent_path.join(&self.stage));
        let failed = |path: &TreePath, errno| io_error("remove", &shown, path, errno);
        let old = self.open(&self.stage).map_err(|errno| failed(&TreePath::root(), errno))?;
        ensure_owner_access(old.as_fd());
        // If this run is killed now, the state lets the next one remove the old directory.
        let _ = target_state::write_bound(old.as_fd(), TargetState::abandoned());
        let full_path = |path: &[u8]| TreePath::parse(path).unwrap_or_default();
        match remove::contents(old.as_fd(), &RemovalRules::EVERYTHING) {
            Ok(Removed { mounted: None, .. }) => {}
            Ok(Removed { mounted: Some(path), .. }) => return Err(failed(&full_path(&path), Errno::BUSY)),
            Err(RemovalError { path, errno }) => return Err(failed(&full_path(&path), errno)),
        }
        unlinkat(&self.parent, &self.stage, AtFlags::REMOVEDIR)
            .map_err(|errno| failed(&TreePath::root(), errno))
    }
}

fn mounted(target: &Path) -> Error {
    let shown = target.display();
    Error::refused(format!("{shown} is a mount point, and nothing can take its place at once")).with_hint(
        format!(
            "unpack into a directory in it, and let a symbolic link lead there: {}/current",
            shown.to_string().trim_end_matches('/')
        ),
    )
}
