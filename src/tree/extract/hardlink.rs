//! Hard links to entries that were extracted before.

use super::attributes::{Attributes, Given};
use super::content::WriteFailure;
use super::enter::{Missing, NotEntered};
use super::{Extractor, make};
use crate::error::{Error, Result};
use crate::tree::activity::Care;
use crate::tree::walk::entry_kind;
use crate::tree::xattr::{XattrReader, XattrSource};
use crate::tree::{Entry, EntryKind, FileContent, Metadata, Time, TreePath};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, linkat, openat, readlinkat, statat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

impl Extractor {
    /// Creates another name for an entry that exists. It has its attributes already.
    pub(super) fn put_hardlink(&mut self, path: &TreePath, target: &TreePath) -> Result<()> {
        let invalid = |why: &str| Error::integrity(format!("{path} is a hard link to {target}, {why}"));
        let above = target.parent().unwrap_or_default();
        self.enter_directory(&above, Missing::Fail).map_err(|failure| match failure {
            NotEntered::Blocked(blocked) => invalid(blocked.of_hard_link()),
            NotEntered::Foreign(_) => invalid("which was in the target and is not of the image"),
            NotEntered::Failed(error) => error,
        })?;
        let target = &self.stack.path().join(target.name());
        if target.is_in(path) {
            return Err(invalid("which it would replace"));
        }
        if let Some(&what) = self.skipped.get(target) {
            return self.skip(path, what);
        }
        let above = self.stack.here().and_then(|here| fcntl_dupfd_cloexec(here, 0));
        let above = above.map_err(|errno| self.io_error("look at", target, errno))?;
        let stat = statat(&above, target.name(), AtFlags::SYMLINK_NOFOLLOW);
        match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Directory) => return Err(invalid("which is a directory")),
            Ok(_) if !self.is_exclusive && !self.provenance.contains(target) => {
                return Err(invalid("which was in the target and is not of the image"));
            }
            Ok(_) => {}
            Err(Errno::NOENT) => return Err(invalid("which is not there")),
            Err(errno) => return Err(self.io_error("look at", target, errno)),
        }
        // A file that is not written when the run is killed is recognised by its first name only.
        self.finish_small_file(target);
        self.enter_parent(path)?;
        let is_linked = self.make(path, |here, name| {
            // Without a flag, a symbolic link itself gets another name, and not the file that it leads to.
            match linkat(&above, target.name(), here, name, AtFlags::empty()) {
                Ok(()) => Ok(true),
                // It is on another file system, or this one has no hard links, or no more for this file.
                Err(Errno::XDEV | Errno::NOTSUP | Errno::NOSYS | Errno::PERM | Errno::MLINK) => Ok(false),
                Err(errno) => Err(errno),
            }
        })?;
        if !is_linked {
            // On a case-insensitive file system, the path of the target may be spelled in another way.
            self.finish_all_small_files();
            self.copy(above.as_fd(), target, path)?;
            self.extracted.hardlinks_copied += 1;
        }
        Ok(())
    }

    /// Creates a separate entry in place of a hard link.
    pub(super) fn copy(&mut self, above: BorrowedFd<'_>, target: &TreePath, path: &TreePath) -> Result<()> {
        let failed = |this: &Self, errno| this.io_error("read", target, errno);
        let stat = statat(above, target.name(), AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(self, e))?;
        let xattrs = XattrSource::Named(above, target.name());
        let metadata = metadata(&stat, xattrs).map_err(|e| failed(self, e))?;
        let kind = match entry_kind(&stat) {
            Some(kind) => kind,
            None => {
                let link = readlinkat(above, target.name(), Vec::new()).map_err(|e| failed(self, e))?;
                EntryKind::Symlink { target: link.into_bytes() }
            }
        };
        let entry = Entry { path: path.clone(), kind, metadata };
        match &entry.kind {
            EntryKind::File { size } => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let source = openat(above, target.name(), flags, Mode::empty());
                let source = source.map_err(|e| failed(self, e))?;
                self.copy_file(&entry, *size, source, target)
            }
            // Only entries that were created here are copied, so those without content are created again.
            EntryKind::Symlink { target } => self.put_symlink(&entry, target),
            EntryKind::Fifo => self.put_node(&entry, FileType::Fifo, 0),
            EntryKind::CharDevice { .. } => self.put_node(&entry, FileType::CharacterDevice, stat.st_rdev),
            EntryKind::BlockDevice { .. } => self.put_node(&entry, FileType::BlockDevice, stat.st_rdev),
            EntryKind::Directory | EntryKind::Hardlink { .. } => Err(failed(self, Errno::STALE)),
        }
    }

    /// Copies a file with its attributes, which have the options applied already.
    fn copy_file(&mut self, entry: &Entry, size: u64, source: OwnedFd, target: &TreePath) -> Result<()> {
        let path = &entry.path;
        let stat = fstat(&source).map_err(|errno| self.io_error("read", path, errno))?;
        let metadata = metadata(&stat, XattrSource::Open(source.as_fd()));
        let metadata = metadata.map_err(|errno| self.io_error("read", path, errno))?;
        let shown = format!("{}{target}", self.target.shown);
        let mut source = FileContent::on_disk(source, &stat, Care::Once, shown, target.clone());
        let private = Mode::RUSR | Mode::WUSR;
        let file = self.make(path, |here, name| make::create(here, name, private))?;
        self.content.write(&file, size, &mut source).map_err(|failure| match failure {
            WriteFailure::Source(error) | WriteFailure::Disk(error) => self.io_error("copy", path, error),
        })?;
        self.apply(path, &file, &Attributes::exactly(&metadata), Given::default())
    }
}

fn metadata(stat: &Stat, xattrs: XattrSource<'_>) -> Result<Metadata, Errno> {
    Ok(Metadata {
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        xattrs: XattrReader::new().read(xattrs)?,
    })
}
