//! Further names for what was extracted.

use super::attributes::{self, Attributes, Given};
use super::enter::{Missing, NoWay};
use super::{Extractor, content};
use crate::error::{Error, Result};
use crate::tree::activity::Care;
use crate::tree::walk::kind;
use crate::tree::xattr::{Carrier, Reader};
use crate::tree::{Entry, EntryKind, FileContent, Metadata, Time, TreePath};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, linkat, openat, readlinkat, statat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

impl Extractor {
    /// Makes another name for something that is there. It has its attributes already.
    pub(super) fn put_hardlink(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        let senseless = |why: &str| Error::integrity(format!("{path} is a hard link to {target}, {why}"));
        let above = target.parent().unwrap_or_default();
        self.pass(&above, Missing::End).map_err(|no_way| match no_way {
            NoWay::Blocked(blocked) => senseless(blocked.of_hard_link()),
            NoWay::Foreign(_) => senseless("which was in the target and is not of the image"),
            NoWay::Failed(error) => error,
        })?;
        let target = &self.descent.path().join(target.name());
        if target.is_in(path) {
            return Err(senseless("which it would replace"));
        }
        if self.skipped.get(target).is_some() {
            self.done.devices_skipped += 1;
            self.skipped.insert(path, ())?;
            return Ok(());
        }
        let above = self.descent.here().and_then(|here| fcntl_dupfd_cloexec(here, 0));
        let above = above.map_err(|errno| self.trouble("look at", target, errno))?;
        let stat = statat(&above, target.name(), AtFlags::SYMLINK_NOFOLLOW);
        match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Directory) => return Err(senseless("which is a directory")),
            Ok(_) if !self.alone && !self.layers.has_made(target) => {
                return Err(senseless("which was in the target and is not of the image"));
            }
            Ok(_) => {}
            Err(Errno::NOENT) => return Err(senseless("which is not there")),
            Err(errno) => return Err(self.trouble("look at", target, errno)),
        }
        self.enter_parent(path)?;
        let linked = self.make(path, |here, name| {
            // Without a flag that says otherwise, the link itself gets another name and not what it leads to.
            match linkat(&above, target.name(), here, name, AtFlags::empty()) {
                Ok(()) => Ok(true),
                // It is on another file system, or this one has no hard links, or no more of them.
                Err(Errno::XDEV | Errno::NOTSUP | Errno::NOSYS | Errno::PERM | Errno::MLINK) => Ok(false),
                Err(errno) => Err(errno),
            }
        })?;
        if !linked {
            self.copy(above.as_fd(), target, path)?;
            self.done.hardlinks_copied += 1;
        }
        Ok(())
    }

    /// Makes a file of its own of what cannot be linked.
    fn copy(&mut self, above: BorrowedFd<'_>, target: &TreePath, path: &TreePath) -> Result<()> {
        let read = |this: &Self, errno| this.trouble("read", target, errno);
        let stat = statat(above, target.name(), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| read(self, e))?;
        let metadata = metadata(&stat, Carrier::Named(above, target.name())).map_err(|e| read(self, e))?;
        let kind = match kind(&stat) {
            Some(kind) => kind,
            None => {
                let link = readlinkat(above, target.name(), Vec::new()).map_err(|e| read(self, e))?;
                EntryKind::Symlink { target: link.into_bytes() }
            }
        };
        let entry = Entry { path: path.clone(), kind, metadata };
        match &entry.kind {
            EntryKind::File { size } => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let source = openat(above, target.name(), flags, Mode::empty());
                let source = source.map_err(|e| read(self, e))?;
                self.put_copy(&entry, *size, source, target)
            }
            // Nothing but what was made here is copied, so what has no content is made anew.
            EntryKind::Symlink { target } => self.put_symlink(&entry, target),
            EntryKind::Fifo => self.put_node(&entry, FileType::Fifo, 0),
            EntryKind::CharDevice { .. } => self.put_node(&entry, FileType::CharacterDevice, stat.st_rdev),
            EntryKind::BlockDevice { .. } => self.put_node(&entry, FileType::BlockDevice, stat.st_rdev),
            EntryKind::Directory | EntryKind::Hardlink { .. } => Err(read(self, Errno::STALE)),
        }
    }

    /// Makes a file with these attributes and no others: the options have been applied to them already.
    fn put_copy(&mut self, entry: &Entry, size: u64, source: OwnedFd, target: &TreePath) -> Result<()> {
        let path = &entry.path;
        let stat = fstat(&source).map_err(|errno| self.trouble("read", path, errno))?;
        let metadata = metadata(&stat, Carrier::Open(source.as_fd()));
        let metadata = metadata.map_err(|errno| self.trouble("read", path, errno))?;
        let place = format!("{}{target}", self.target.shown);
        let mut source = FileContent::disk(source, &stat, Care::Once, place, target.clone());
        let private = Mode::RUSR | Mode::WUSR;
        let file = self.make(path, |here, name| super::make::create(here, name, private))?;
        self.content.write(&file, size, &mut source).map_err(|failure| match failure {
            content::Failure::Reading(error) | content::Failure::Writing(error) => {
                self.trouble("copy", path, error)
            }
        })?;
        let given = attributes::apply(file.as_fd(), &Attributes::exactly(&metadata), Given::default());
        self.account(path, given)
    }
}

fn metadata(stat: &Stat, carrier: Carrier<'_>) -> Result<Metadata, Errno> {
    Ok(Metadata {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        xattrs: Reader::new().read(carrier)?,
    })
}
