//! How each kind of entry is made.

use super::attributes::{Attributes, Failure, Lost, Pinned};
use super::content;
use super::creation_defaults::Newborns;
use super::{Directory, Extractor, attributes, trouble, wanted};
use crate::disk::directory::ensure_owner_access;
use crate::error::{Error, Result};
use crate::tree::dir_stack::open_directory;
use crate::tree::entry::xattrs_memory;
use crate::tree::{Content, Entry, EntryKind, Metadata, TreePath};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fgetxattr, fstat, mkdirat, mknodat, openat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::fs::File;

/// The ACL that a directory hands down.
const DEFAULT_ACL: &str = "system.posix_acl_default";

impl Extractor {
    /// Makes something by `create`, after removing what is in its place.
    pub(super) fn make<T>(
        &mut self,
        path: &TreePath,
        create: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T> {
        let mut created = self.descent.here().and_then(|here| create(here, path.name()));
        if matches!(created, Err(Errno::EXIST)) {
            self.clear(path)?;
            created = self.descent.here().and_then(|here| create(here, path.name()));
        }
        let created = created.map_err(|errno| self.trouble("make", path, errno))?;
        self.note_made(path);
        Ok(created)
    }

    /// Removes what has this name. A link is removed itself, not what it leads to.
    fn clear(&mut self, path: &TreePath) -> Result<()> {
        let removed = self.descent.here().and_then(|here| unlinkat(here, path.name(), AtFlags::empty()));
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => self.remove_directory(path),
            Err(errno) => Err(self.trouble("replace", path, errno)),
        }
    }

    /// The attributes of the target itself.
    pub(super) fn put_root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(Error::integrity("the root of the image is not a directory"));
        }
        self.describe(entry, self.target.made, true)
    }

    pub(super) fn put_directory(&mut self, entry: &Entry) -> Result<()> {
        let path = &entry.path;
        let here = self.descent.here().map_err(|errno| trouble(&self.target.shown, "enter", path, errno))?;
        // In this order because most directories are new.
        match mkdirat(here, path.name(), Mode::RWXU) {
            Ok(()) => {
                self.note_made(path);
                let may_inherit = self.hands_acls_down();
                self.describe(entry, true, may_inherit)?;
            }
            Err(Errno::EXIST) => match open_directory(here, path.name()) {
                Ok(fd) => self.keep_directory(entry, fd.as_fd())?,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.make(path, |here, name| mkdirat(here, name, Mode::RWXU))?;
                    let may_inherit = self.hands_acls_down();
                    self.describe(entry, true, may_inherit)?;
                }
                Err(errno) => return Err(self.trouble("enter", path, errno)),
            },
            Err(errno) => return Err(self.trouble("make", path, errno)),
        }
        Ok(())
    }

    /// A directory that was there keeps what is in it.
    fn keep_directory(&mut self, entry: &Entry, directory: BorrowedFd<'_>) -> Result<()> {
        let known = self.directories.get(&entry.path);
        let (made, may_inherit) = known.map_or((false, true), |known| (known.made, known.may_inherit));
        match self.alone {
            // An interrupted run has made it.
            true => self.layers.note(&entry.path),
            false => self.layers.mention(&entry.path),
        }
        self.describe(entry, made, may_inherit)?;
        if !self.user.is_root() && self.directories.get(&entry.path).is_some() {
            ensure_owner_access(directory);
        }
        Ok(())
    }

    /// Notes the attributes of a directory for later. A plain one says nothing about one that was in the target.
    fn describe(&mut self, entry: &Entry, made: bool, may_inherit: bool) -> Result<()> {
        if made || entry.metadata != Metadata::implied_directory() {
            self.directories.hold(xattrs_memory(&entry.metadata.xattrs))?;
            let directory = Directory { metadata: Some(entry.metadata.clone()), made, may_inherit };
            self.directories.insert(&entry.path, directory)?;
        }
        Ok(())
    }

    pub(super) fn put_file(&mut self, entry: &Entry, size: u64, content: &mut dyn Content) -> Result<()> {
        let path = &entry.path;
        let wanted = self.wanted(entry)?;
        let mode = self.newborns.as_ref().map_or(Mode::RUSR | Mode::WUSR, |newborns| newborns.mode(&wanted));
        let file = self.make(path, |here, name| create(here, name, mode))?;
        // What stood in its place may have led elsewhere, and to other newborns.
        let newborns = self.newborns.as_mut().filter(|newborns| newborns.path == *self.descent.path());
        let given = newborns.map(|newborns| newborns.given(file.as_fd(), &wanted, mode));
        let given = given.transpose().map_err(|errno| self.trouble("look at", path, errno))?;
        self.content.write(&file, size, content).map_err(|failure| match failure {
            content::Failure::Reading(error) => {
                Error::io(format!("cannot read the content of {path}"), error)
            }
            content::Failure::Writing(error) => trouble(&self.target.shown, "write", path, error),
        })?;
        self.done.bytes += size;
        self.account(path, attributes::apply(file.as_fd(), &wanted, given.unwrap_or_default()))
    }

    /// The attributes of an entry that was just made.
    pub(super) fn wanted<'a>(&mut self, entry: &'a Entry) -> Result<Attributes<'a>> {
        let mut wanted = wanted(&entry.metadata, &entry.path, &self.options)?;
        wanted.may_inherit = self.hands_acls_down();
        Ok(wanted)
    }

    /// Whether what is made in the directory that the descent is in gets an ACL from it.
    pub(super) fn hands_acls_down(&mut self) -> bool {
        let path = self.descent.path();
        if let Some(newborns) = self.newborns.as_ref().filter(|newborns| newborns.path == *path) {
            return newborns.inherit;
        }
        let path = path.clone();
        let made = self.directories.get(&path).filter(|directory| directory.made);
        let (is_ours, may_inherit) = (made.is_some(), made.is_none_or(|directory| directory.may_inherit));
        // A directory that got no ACL when it was made has none to hand down: its own comes last.
        let inherit = (may_inherit || !self.is_here_ours()) && self.has_default_acl();
        let standing = self.descent.standing().unwrap_or(self.root);
        self.newborns = Some(Newborns::new(path, inherit, is_ours, standing, self.newborns.take()));
        inherit
    }

    /// Whether what is open is of this process' user: somebody else could have put a directory of their own, with an ACL
    /// of theirs, under the name of one that was made here.
    pub(super) fn is_here_ours(&self) -> bool {
        self.descent.standing().is_some_and(|standing| standing.owner.0 == self.user.as_raw())
    }

    /// Asks whether the directory that the descent is in has an ACL for what is made in it.
    fn has_default_acl(&mut self) -> bool {
        let asked = self.descent.here().and_then(|here| fgetxattr(here, DEFAULT_ACL, &mut [0u8; 0][..]));
        !matches!(asked, Err(Errno::NODATA | Errno::NOTSUP))
    }

    pub(super) fn put_symlink(&mut self, entry: &Entry, target: &[u8]) -> Result<()> {
        self.make(&entry.path, |here, name| symlinkat(target, here, name))?;
        self.pin(entry, FileType::Symlink)
    }

    /// Makes a fifo or a device.
    pub(super) fn put_node(&mut self, entry: &Entry, kind: FileType, device: u64) -> Result<()> {
        let is_device = kind != FileType::Fifo;
        let may_make = self.user.is_root() && self.options.devices;
        let made = self.make(&entry.path, |here, name| {
            // The kernel lets everybody make the device 0:0, which means "deleted" to overlayfs.
            let made = match is_device && !may_make {
                true => Err(Errno::PERM),
                false => mknodat(here, name, kind, Mode::RUSR | Mode::WUSR, device),
            };
            match made {
                // Root in a user namespace may not make devices either.
                Err(Errno::PERM) if is_device => Ok(false),
                made => made.map(|()| true),
            }
        })?;
        match made {
            true => self.pin(entry, kind),
            false => {
                self.done.devices_skipped += 1;
                self.skipped.insert(&entry.path, ())?;
                Ok(())
            }
        }
    }

    /// Gives what was just made and cannot be opened its attributes, if it is still what has its name.
    pub(super) fn pin(&mut self, entry: &Entry, kind: FileType) -> Result<()> {
        let path = &entry.path;
        let here = self.descent.here().map_err(|errno| trouble(&self.target.shown, "enter", path, errno))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pinned = openat(here, path.name(), flags, Mode::empty())
            .and_then(|pin| fstat(&pin).map(|stat| (pin, stat)))
            .map_err(|errno| trouble(&self.target.shown, "look at", path, errno))?;
        let (pin, stat) = pinned;
        if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_nlink > 1 {
            return Err(Error::failed(format!(
                "{}{path} was replaced while it was extracted",
                self.target.shown
            )));
        }
        let wanted = self.wanted(entry)?;
        let directory =
            self.descent.here().map_err(|errno| trouble(&self.target.shown, "enter", path, errno))?;
        let thing = Pinned {
            pin: pin.as_fd(),
            directory,
            name: path.name(),
            is_link: kind == FileType::Symlink,
            is_fifo: kind == FileType::Fifo,
        };
        let given = attributes::apply_pinned(&thing, &wanted);
        self.account(path, given)
    }

    /// Counts what an entry lost.
    pub(super) fn account(&mut self, path: &TreePath, given: Result<Lost, Failure>) -> Result<()> {
        let lost = given.map_err(|failure| self.trouble(failure.doing, path, failure.errno))?;
        self.count(lost);
        Ok(())
    }
}

/// Makes an empty file under a name that was free.
pub(super) fn create(here: BorrowedFd<'_>, name: &[u8], mode: Mode) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(here, name, flags, mode).map(File::from)
}
