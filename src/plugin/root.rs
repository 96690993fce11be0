//! The root directory of a volume: creation, owner and mode.

use super::options::Ownership;
use crate::error::{Error, Result};
use crate::tree::{Target, TreePath};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::path::Path;

pub(super) fn set_mode(directory: &Path, owner: Ownership) -> io::Result<()> {
    match owner.mode {
        Some(mode) => fs::set_permissions(directory, Permissions::from_mode(mode)),
        None => Ok(()),
    }
}

/// Sets the owner of the root directory of a new volume that reuses an earlier one's data. Its entries keep their
/// owners.
pub(super) fn set_owner(directory: &Path, owner: Ownership) -> Result<()> {
    let claimed = match fs::symlink_metadata(directory) {
        // A symbolic link that an administrator has put there is not followed.
        Ok(found) if !found.is_dir() => Ok(()),
        _ => lchown(directory, owner.uid, owner.gid).and_then(|()| set_mode(directory, owner)),
    };
    claimed.map_err(|error| Error::io(format!("cannot give {} away", directory.display()), error))
}

/// Creates the root directory of a volume with its owner, unless it exists.
pub(super) fn create(directory: &Path, owner: Ownership) -> Result<()> {
    let made = match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Ok(()) => lchown(directory, owner.uid, owner.gid).and_then(|()| set_mode(directory, owner)),
        error => error,
    };
    made.map_err(|error| Error::io(format!("cannot make {}", directory.display()), error))
}

/// Returns an entry of the directory. Returns `None` if it does not exist, or holds only entries of the file system or
/// of volio.
pub(super) fn first_entry(directory: &Path) -> Result<Option<TreePath>> {
    match Target::open(directory)? {
        Some(target) => target.foreign_entry(),
        None => Ok(None),
    }
}
