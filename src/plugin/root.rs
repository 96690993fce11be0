//! The directory of a volume: made, and given to its owner.

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

/// Gives the directory of a volume that is made anew, over data of an earlier one, to the owner that was named this time.
/// What is in it belongs to whom it did.
pub(super) fn set_owner(directory: &Path, owner: Ownership) -> Result<()> {
    let claimed = match fs::symlink_metadata(directory) {
        // What an administrator has put in its place is not followed.
        Ok(found) if !found.is_dir() => Ok(()),
        _ => lchown(directory, owner.uid, owner.gid).and_then(|()| set_mode(directory, owner)),
    };
    claimed.map_err(|error| Error::io(format!("cannot give {} away", directory.display()), error))
}

/// Makes the directory of a volume where it is missing, and gives it to its owner.
pub(super) fn create(directory: &Path, owner: Ownership) -> Result<()> {
    let made = match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Ok(()) => lchown(directory, owner.uid, owner.gid).and_then(|()| set_mode(directory, owner)),
        error => error,
    };
    made.map_err(|error| Error::io(format!("cannot make {}", directory.display()), error))
}

/// Something that the directory holds; `None` when that is nothing but a file system's or volio's own, or it is not there.
pub(super) fn first_entry(directory: &Path) -> Result<Option<TreePath>> {
    match Target::open(directory)? {
        Some(target) => target.foreign_entry(),
        None => Ok(None),
    }
}
