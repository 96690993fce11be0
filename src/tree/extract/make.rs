//! How each kind of entry is made.

use super::attributes::{Failure, Lost};
use super::content;
use super::{Directory, Extractor, attributes, trouble};
use crate::error::{Error, Result};
use crate::tree::descent::open_directory;
use crate::tree::{Content, Entry, Kind, Metadata, TreePath};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, chmodat, fstat, linkat, mkdirat, mknodat, openat, statat,
    symlinkat, unlinkat,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use std::fs::File;

impl Extractor {
    /// Goes to the directory that `path` is in, and makes what is missing on the way.
    pub(super) fn enter_parent(&mut self, path: &TreePath) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        self.descent.rise_towards(&parent);
        for name in parent.names().skip(self.descent.depth()) {
            let directory = self.descent.path().join(name);
            let mut entered = self.descent.enter(name);
            if entered == Err(Errno::NOENT) {
                let made = self.descent.here().and_then(|here| mkdirat(here, name, Mode::RWXU));
                made.map_err(|errno| self.trouble("make the directory", &directory, errno))?;
                self.layers.note(&directory);
                self.directories.insert(directory.clone(), Directory { metadata: None, made: true });
                entered = self.descent.enter(name);
            }
            match entered {
                Ok(()) => {}
                Err(Errno::NOTDIR | Errno::LOOP) => return Err(self.not_a_directory(&directory, path)),
                Err(errno) => return Err(self.trouble("enter", &directory, errno)),
            }
        }
        Ok(())
    }

    /// The error for an entry that would lead through something that is no directory.
    fn not_a_directory(&self, directory: &TreePath, path: &TreePath) -> Error {
        let what = format!("{path} would be in {directory}, which is not a directory but a file or a link");
        match self.was_made(directory) {
            true => Error::integrity(what)
                .hint("the image was made wrongly, or to do harm: links are never followed"),
            false => Error::refused(format!("{what} that was in {}", self.shown)).hint("move it away"),
        }
    }

    /// Makes something by `create`, after removing what is in its place.
    fn make<T>(
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
        self.layers.note(path);
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
        if entry.kind != Kind::Directory {
            return Err(Error::integrity("the root of the image is not a directory"));
        }
        self.describe(entry, self.made);
        Ok(())
    }

    pub(super) fn put_directory(&mut self, entry: &Entry) -> Result<()> {
        let path = &entry.path;
        let here = self.descent.here().map_err(|errno| trouble(&self.shown, "enter", path, errno))?;
        // In this order because most directories are new.
        match mkdirat(here, path.name(), Mode::RWXU) {
            Ok(()) => {
                self.layers.note(path);
                self.describe(entry, true);
            }
            Err(Errno::EXIST) => match open_directory(here, path.name()) {
                Ok(fd) => self.keep_directory(entry, fd.as_fd()),
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.make(path, |here, name| mkdirat(here, name, Mode::RWXU))?;
                    self.describe(entry, true);
                }
                Err(errno) => return Err(self.trouble("enter", path, errno)),
            },
            Err(errno) => return Err(self.trouble("make", path, errno)),
        }
        Ok(())
    }

    /// A directory that was there keeps what is in it.
    fn keep_directory(&mut self, entry: &Entry, directory: BorrowedFd<'_>) {
        let made = self.directories.get(&entry.path).is_some_and(|directory| directory.made);
        self.layers.mention(&entry.path);
        self.describe(entry, made);
        if !self.is_root && self.directories.contains_key(&entry.path) {
            make_usable(directory);
        }
    }

    /// Notes the attributes of a directory for later. A plain one says nothing about one that was in the target.
    fn describe(&mut self, entry: &Entry, made: bool) {
        if made || entry.metadata != Metadata::plain_directory() {
            let directory = Directory { metadata: Some(entry.metadata.clone()), made };
            self.directories.insert(entry.path.clone(), directory);
        }
    }

    pub(super) fn put_file(&mut self, entry: &Entry, size: u64, content: &mut dyn Content) -> Result<()> {
        let path = &entry.path;
        let file = self.make(path, |here, name| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            // Nobody else may read it before it has its owner and its mode.
            openat(here, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        let file = File::from(file);
        self.content.write(&file, size, content).map_err(|failure| match failure {
            content::Failure::Reading(error) => {
                Error::io(format!("cannot read the content of {path}"), error)
            }
            content::Failure::Writing(error) => trouble(&self.shown, "write", path, error),
        })?;
        self.done.bytes += size;
        self.account(path, attributes::apply(file.as_fd(), &entry.metadata))
    }

    pub(super) fn put_symlink(&mut self, entry: &Entry, target: &[u8]) -> Result<()> {
        self.make(&entry.path, |here, name| symlinkat(target, here, name))?;
        self.pin(entry, FileType::Symlink)
    }

    /// Makes a fifo or a device.
    pub(super) fn put_node(&mut self, entry: &Entry, kind: FileType, device: u64) -> Result<()> {
        let is_device = kind != FileType::Fifo;
        let is_root = self.is_root;
        let made = self.make(&entry.path, |here, name| {
            // The kernel lets everybody make the device 0:0, which means "deleted" to overlayfs.
            let made = match is_device && !is_root {
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
                self.skipped.insert(entry.path.clone());
                Ok(())
            }
        }
    }

    /// Makes another name for something that is there. It has its attributes already.
    pub(super) fn put_hardlink(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        let senseless = |why: &str| Error::integrity(format!("{path} is a hard link to {target}, {why}"));
        if target.is_in(path) {
            return Err(senseless("which it would replace"));
        }
        if self.skipped.contains(target) {
            self.done.devices_skipped += 1;
            self.skipped.insert(path.clone());
            return Ok(());
        }
        let above = target.parent().unwrap_or_default();
        let found = self.descent.go_to(&above).and_then(|()| fcntl_dupfd_cloexec(self.descent.here()?, 0));
        let above = found.map_err(|errno| match errno {
            Errno::NOENT => senseless("which is not there"),
            Errno::NOTDIR | Errno::LOOP => senseless("and that is not in a directory"),
            errno => self.trouble("enter", &above, errno),
        })?;
        let stat = statat(&above, target.name(), AtFlags::SYMLINK_NOFOLLOW);
        match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Directory) => return Err(senseless("which is a directory")),
            Ok(_) => {}
            Err(Errno::NOENT) => return Err(senseless("which is not there")),
            Err(errno) => return Err(self.trouble("look at", target, errno)),
        }
        self.enter_parent(path)?;
        // Without a flag that says otherwise, the link itself gets another name and not what it leads to.
        self.make(path, |here, name| linkat(&above, target.name(), here, name, AtFlags::empty()))
    }

    /// Gives what was just made and cannot be opened its attributes, if it is still what has its name.
    fn pin(&mut self, entry: &Entry, kind: FileType) -> Result<()> {
        let path = &entry.path;
        let here = self.descent.here().map_err(|errno| trouble(&self.shown, "enter", path, errno))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pinned = openat(here, path.name(), flags, Mode::empty())
            .and_then(|pin| fstat(&pin).map(|stat| (pin, stat)))
            .map_err(|errno| trouble(&self.shown, "look at", path, errno))?;
        let (pin, stat) = pinned;
        if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_nlink > 1 {
            return Err(Error::failed(format!("{}{path} was replaced while it was extracted", self.shown)));
        }
        let is_link = kind == FileType::Symlink;
        let given = attributes::apply_pinned(pin.as_fd(), here, path.name(), &entry.metadata, is_link);
        self.account(path, given)
    }

    /// Counts what an entry lost.
    fn account(&mut self, path: &TreePath, given: Result<Lost, Failure>) -> Result<()> {
        let lost = given.map_err(|failure| self.trouble(failure.doing, path, failure.errno))?;
        self.count(lost);
        Ok(())
    }
}

/// Lets its owner fill a directory that an interrupted extraction has completed as read-only. Whether that worked
/// shows when something is put into it.
fn make_usable(directory: BorrowedFd<'_>) {
    let mode = fstat(directory).map(|stat| Mode::from_raw_mode(stat.st_mode));
    if let Ok(mode) = mode
        && !mode.contains(Mode::RWXU)
    {
        let itself = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let _ = chmodat(CWD, itself, mode | Mode::RWXU, AtFlags::empty());
    }
}
