//! Extended attributes: which of them belong to the tree, and how they are read.

use crate::disk::directory::proc_path;
use rustix::fd::BorrowedFd;
use rustix::fs::{fgetxattr, flistxattr, lgetxattr, llistxattr};
use rustix::io::{Errno, Result};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The most that Linux allows for one value, and for all names of one file together.
const LARGEST: usize = 64 << 10;

/// Attributes that are the notes of a machine and no part of a tree, each with what its name begins with.
///
/// Labels of security modules are the policy of a host: elsewhere they are wrong at best. Overlayfs, fuse-overlayfs and
/// container engines note in attributes what a file is to be shown as; copied to where that means something, files
/// vanish or change their owners. `user.volio.` is what volio notes about a target, and an image must not forge it.
const OF_THE_HOST: [&str; 11] = [
    "security.SMACK64",
    "security.apparmor",
    "security.evm",
    "security.fuseoverlayfs.",
    "security.ima",
    "security.selinux",
    "trusted.overlay.",
    "user.containers.override_",
    "user.fuseoverlayfs.",
    "user.overlay.",
    "user.volio.",
];

/// What an attribute is a note of, if it is no part of the tree: the beginning of its name.
fn of_the_host(name: &[u8]) -> Option<&'static str> {
    OF_THE_HOST.into_iter().find(|prefix| name.starts_with(prefix.as_bytes()))
}

/// Whether an attribute is part of the tree.
pub(super) fn travels(name: &[u8]) -> bool {
    of_the_host(name).is_none()
}

/// What carries the attributes that are wanted.
#[derive(Clone, Copy)]
pub(super) enum Carrier<'a> {
    /// Something open.
    Open(BorrowedFd<'a>),
    /// What has this name in this directory and cannot be opened, such as a symbolic link. The kernel has no call for
    /// that before 6.13; the way through `/proc` resolves the directory by its descriptor and follows nothing.
    Named(BorrowedFd<'a>, &'a [u8]),
}

/// Reads the attributes that belong to the tree.
pub(super) struct Reader {
    list: Vec<u8>,
    value: Vec<u8>,
    /// What was read last and does not belong to the tree, by the beginnings of the names.
    pub left_out: Vec<&'static str>,
}

impl Reader {
    pub fn new() -> Self {
        Self { list: vec![0; LARGEST], value: vec![0; LARGEST], left_out: Vec::new() }
    }

    /// Takes those away that do not belong to a tree.
    pub fn keep_travelling(&mut self, xattrs: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        self.left_out = xattrs.keys().filter_map(|name| of_the_host(name)).collect();
        xattrs.retain(|name, _| travels(name));
    }

    /// All attributes that travel. None where the file system has none, or does not say.
    pub fn read(&mut self, carrier: Carrier<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let path = match carrier {
            Carrier::Open(_) => PathBuf::new(),
            Carrier::Named(directory, name) => named(directory, name),
        };
        let listed = match carrier {
            Carrier::Open(fd) => flistxattr(fd, &mut self.list[..]),
            Carrier::Named(..) => llistxattr(&path, &mut self.list[..]),
        };
        let length = match listed {
            // NOENT: there is no /proc, so nothing can be known about what cannot be opened.
            Err(Errno::NOTSUP | Errno::PERM | Errno::NOENT) => 0,
            length => length?,
        };
        let mut xattrs = BTreeMap::new();
        self.left_out.clear();
        let names = self.list[..length].split(|byte| *byte == 0);
        for name in names.filter(|name| !name.is_empty()) {
            if let Some(note) = of_the_host(name) {
                self.left_out.push(note);
                continue;
            }
            let got = match carrier {
                Carrier::Open(fd) => fgetxattr(fd, name, &mut self.value[..]),
                Carrier::Named(..) => lgetxattr(&path, name, &mut self.value[..]),
            };
            match got {
                Ok(length) => drop(xattrs.insert(name.to_vec(), self.value[..length].to_vec())),
                // It was removed since it was listed, or is listed to everyone and shown to some.
                Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(xattrs)
    }
}

/// A path that means `name` in the directory that is open, for calls that take no descriptor.
fn named(directory: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    PathBuf::from(proc_path(directory)).join(OsStr::from_bytes(name))
}
