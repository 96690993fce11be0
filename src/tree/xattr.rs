//! Extended attributes: reading them, and the choice of those that belong to a tree.

use crate::disk::directory::proc_path;
use crate::disk::working_directory::{self, Visit};
use rustix::fd::BorrowedFd;
use rustix::fs::{fgetxattr, flistxattr, lgetxattr, llistxattr};
use rustix::io::{Errno, Result};
use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The limit of Linux for one value, and for all names of one file together, in bytes.
const MAX_SIZE: usize = 64 << 10;

/// The bytes that are offered to the kernel at first. It allocates what it is offered, and clears it for a value: with
/// [`MAX_SIZE`] that took longer than the rest of the call. Most files have no attributes, or short ones.
const USUAL_SIZE: usize = 256;

/// The prefixes of attributes that belong to a host and not to a tree.
///
/// Labels of security modules are the policy of a host, and wrong at best on another one. Overlayfs, fuse-overlayfs and
/// container engines use attributes to hide files or to show other owners; on a host that interprets them, copied files
/// would vanish or change their owners. `user.volio.` and `trusted.volio.` are the state of a target, which an image
/// must not be able to forge.
const HOST_PREFIXES: [&str; 12] = [
    "security.SMACK64",
    "security.apparmor",
    "security.evm",
    "security.fuseoverlayfs.",
    "security.ima",
    "security.selinux",
    "trusted.overlay.",
    "trusted.volio.",
    "user.containers.override_",
    "user.fuseoverlayfs.",
    "user.overlay.",
    "user.volio.",
];

/// Returns the prefix of an attribute that does not belong to a tree.
fn host_prefix(name: &[u8]) -> Option<&'static str> {
    HOST_PREFIXES.into_iter().find(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Returns whether an attribute belongs to a tree.
pub(super) fn is_portable(name: &[u8]) -> bool {
    host_prefix(name).is_none()
}

/// A file to read attributes from.
#[derive(Clone, Copy)]
pub(super) enum XattrSource<'a> {
    /// An open file.
    Open(BorrowedFd<'a>),
    /// A name in a directory, for files that cannot be opened, such as symbolic links. The kernel has no call for that
    /// before 6.13. A path through `/proc` resolves the directory by its descriptor and follows no link.
    Named(BorrowedFd<'a>, &'a [u8]),
    /// A name in a directory that is visited. If the thread has a working directory of its own, that is used instead of
    /// `/proc`.
    Visited(BorrowedFd<'a>, Visit, &'a CStr),
}

/// The way to the attributes of a file.
enum Way<'a> {
    Open(BorrowedFd<'a>),
    Proc(PathBuf),
    WorkingDirectory(&'a CStr),
}

impl<'a> Way<'a> {
    fn to(source: XattrSource<'a>) -> Self {
        match source {
            XattrSource::Open(fd) => Self::Open(fd),
            XattrSource::Named(directory, name) => Self::Proc(path_in(directory, name)),
            XattrSource::Visited(directory, visit, name) if working_directory::enter(directory, visit) => {
                Self::WorkingDirectory(name)
            }
            XattrSource::Visited(directory, _, name) => Self::Proc(path_in(directory, name.to_bytes())),
        }
    }

    fn list(&self, list: &mut [u8]) -> Result<usize> {
        match self {
            Self::Open(fd) => flistxattr(fd, list),
            // There is no `/proc`, so that files which cannot be opened have no known attributes.
            Self::Proc(path) => {
                llistxattr(path, list).or_else(|errno| if errno == Errno::NOENT { Ok(0) } else { Err(errno) })
            }
            Self::WorkingDirectory(name) => llistxattr(*name, list),
        }
    }

    fn get(&self, attribute: &[u8], value: &mut [u8]) -> Result<usize> {
        match self {
            Self::Open(fd) => fgetxattr(fd, attribute, value),
            Self::Proc(path) => lgetxattr(path, attribute, value),
            Self::WorkingDirectory(name) => lgetxattr(*name, attribute, value),
        }
    }
}

/// A reader of the attributes that belong to a tree.
pub(super) struct XattrReader {
    list: Vec<u8>,
    value: Vec<u8>,
    /// The prefixes of the attributes of the last file that do not belong to a tree.
    pub left_out: Vec<&'static str>,
}

impl XattrReader {
    pub fn new() -> Self {
        Self { list: vec![0; USUAL_SIZE], value: vec![0; USUAL_SIZE], left_out: Vec::new() }
    }

    /// Removes the attributes that do not belong to a tree.
    pub fn retain_portable(&mut self, xattrs: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        self.left_out = xattrs.keys().filter_map(|name| host_prefix(name)).collect();
        xattrs.retain(|name, _| is_portable(name));
    }

    /// Reads the attributes that belong to a tree. There are none if the file system does not support or report them.
    pub fn read(&mut self, source: XattrSource<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let way = Way::to(source);
        let length = match read_at_most(&mut self.list, |list| way.list(list)) {
            Err(Errno::NOTSUP | Errno::PERM) => 0,
            length => length?,
        };
        let mut xattrs = BTreeMap::new();
        self.left_out.clear();
        let names = self.list[..length].split(|byte| *byte == 0);
        for name in names.filter(|name| !name.is_empty()) {
            if let Some(prefix) = host_prefix(name) {
                self.left_out.push(prefix);
                continue;
            }
            match read_at_most(&mut self.value, |value| way.get(name, value)) {
                Ok(length) => drop(xattrs.insert(name.to_vec(), self.value[..length].to_vec())),
                // It was removed since it was listed, or only privileged users may read it.
                Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(xattrs)
    }
}

/// Calls `read` with the begin of a buffer, and with as much as there can be if that is too small.
fn read_at_most(buffer: &mut Vec<u8>, mut read: impl FnMut(&mut [u8]) -> Result<usize>) -> Result<usize> {
    match read(&mut buffer[..USUAL_SIZE]) {
        Err(Errno::RANGE) => {
            buffer.resize(MAX_SIZE, 0);
            read(buffer)
        }
        result => result,
    }
}

/// Returns a path to `name` in an open directory, for calls that take no descriptor.
fn path_in(directory: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    PathBuf::from(proc_path(directory)).join(OsStr::from_bytes(name))
}
