//! Takes away what is in a directory, and nothing outside of it.

use super::TreePath;
use super::descent::{Descent, names_in, open_directory};
use super::walk::is_mount_point;
use super::xattr::itself;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, chmodat, fchmod, fstat, unlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};

/// Where it failed, and how.
pub(super) type Failure = (TreePath, Errno);

/// What is taken away, and what is left.
pub(super) struct Removal<'a> {
    /// Whether to go on in this directory, on which something else is mounted.
    pub crosses: &'a dyn Fn(BorrowedFd<'_>) -> bool,
    /// Whether this name in the root of a file system stays.
    pub spares: &'a dyn Fn(BorrowedFd<'_>, &CStr) -> bool,
}

/// Removes all that is in a directory; directories that something must stay in stay too. Links are removed themselves,
/// and not what they lead to. Returns how many entries it were.
pub(super) fn contents(root: OwnedFd, what: &Removal<'_>) -> Result<u64, Failure> {
    let at_root = |errno| (TreePath::root(), errno);
    let mut open = vec![names(root.as_fd(), Some(what)).map_err(at_root)?];
    let mut descent = Descent::new(root);
    let mut removed = 0;
    while let Some(names) = open.last_mut() {
        let Some(name) = names.pop() else {
            open.pop();
            if descent.depth() > 0 {
                let name = CString::new(descent.path().name()).unwrap_or_default();
                let path = descent.path().clone();
                descent.leave();
                removed += u64::from(remove_empty(&mut descent, &name).map_err(|errno| (path, errno))?);
            }
            continue;
        };
        let path = descent.path().join(name.to_bytes());
        let taken = remove_one(&mut descent, &name, what).map_err(|errno| (path, errno))?;
        match taken {
            Taken::Entered(below) => open.push(below),
            Taken::Removed => removed += 1,
            Taken::Left => {}
        }
    }
    Ok(removed)
}

enum Taken {
    Removed,
    Left,
    /// It is a directory, and the descent is in it; these are its names.
    Entered(Vec<CString>),
}

fn remove_one(descent: &mut Descent, name: &CStr, what: &Removal<'_>) -> Result<Taken, Errno> {
    match unlinkat(descent.here()?, name, AtFlags::empty()) {
        Ok(()) => return Ok(Taken::Removed),
        Err(Errno::NOENT) => return Ok(Taken::Left),
        // POSIX says the latter; some file systems do.
        Err(Errno::ISDIR | Errno::PERM) => {}
        // A file on which something is mounted.
        Err(Errno::BUSY) => return Ok(Taken::Left),
        Err(errno) => return Err(errno),
    }
    let above = descent.here()?;
    let fd = open_directory(above, name.to_bytes()).map_err(|errno| match errno {
        // It is no directory, and what was wrong was the permission.
        Errno::NOTDIR | Errno::LOOP => Errno::PERM,
        errno => errno,
    })?;
    let stat = fstat(&fd)?;
    let is_mounted = fstat(above)?.st_dev != stat.st_dev || is_mount_point(fd.as_fd());
    if is_mounted && !(what.crosses)(fd.as_fd()) {
        return Ok(Taken::Left);
    }
    make_usable(fd.as_fd());
    let below = names(fd.as_fd(), is_mounted.then_some(what))?;
    descent.push(name.to_bytes(), fd, &stat);
    Ok(Taken::Entered(below))
}

/// Removes a directory, unless something is left in it or mounted on it.
fn remove_empty(descent: &mut Descent, name: &CStr) -> Result<bool, Errno> {
    match unlinkat(descent.here()?, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn names(directory: BorrowedFd<'_>, what: Option<&Removal<'_>>) -> Result<Vec<CString>, Errno> {
    let mut names = names_in(directory)?;
    names.retain(|name| !what.is_some_and(|what| (what.spares)(directory, name)));
    Ok(names)
}

/// Lets its owner fill or empty a directory that is read-only or closed. Whether that worked shows when it is used.
pub(super) fn make_usable(directory: BorrowedFd<'_>) {
    let Ok(stat) = fstat(directory) else { return };
    let mode = Mode::from_raw_mode(stat.st_mode);
    if !mode.contains(Mode::RWXU) && fchmod(directory, mode | Mode::RWXU).is_err() {
        // It may not be listed, so what is open is a mere place, which takes no mode.
        let _ = chmodat(CWD, itself(directory), mode | Mode::RWXU, AtFlags::empty());
    }
}
