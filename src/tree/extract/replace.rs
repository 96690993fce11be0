//! Changes of single entries of a target that holds a tree already: each is created beside the old one, under a temporary
//! name, and renamed over it. So a process that has the old file open keeps it, names of it outside of the target keep
//! its content, and a run that is killed leaves the old entry or the new one.
//!
//! No link is followed: the paths are those of the merged tree, which leads through directories only.

use super::attributes::{self, Given};
use super::provenance::mounted;
use super::{Extractor, PendingDirectory, attributes_of, io_error};
use crate::disk::directory::{FileId, ensure_owner_access, proc_path};
use crate::disk::remove::{self, RemovalError, RemovalRules, Removed};
use crate::error::{Error, Result};
use crate::tree::entry::xattrs_memory;
use crate::tree::{Content, Entry, EntryKind, FileState, FoundEntry, Metadata, TreePath};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, chmodat, fstat, linkat, openat, renameat, statat, unlinkat,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use std::ffi::CString;
use std::fs::File;

/// The kind of an entry that is replaced or removed, as it was when the target was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeenAs {
    /// A directory, which goes with its contents.
    Directory,
    /// Anything else, or nothing. A directory that is there by now has contents that were not seen.
    Other,
}

/// A temporary name, which no entry of the tree has, and what was seen under the final one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub temporary: &'a [u8],
    pub seen: SeenAs,
}

/// The result of a removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemovedEntries {
    /// The number of removed entries.
    pub entries: u64,
    /// Set if a mount point and the directories that lead to it stay.
    pub is_mounted: bool,
}

impl Extractor {
    /// Creates a directory in place of whatever has its path, except for a directory, which stays with its contents. One
    /// that no entry has described gets the attributes of such directories.
    ///
    /// # Errors
    /// As [`put`](Extractor::put).
    pub(crate) fn replace_by_directory(&mut self, entry: &Entry, is_described: bool) -> Result<()> {
        self.enter_for_change(&entry.path)?;
        self.extracted.entries += 1;
        self.remove_other_kind(&entry.path)?;
        self.put_directory(entry)?;
        if !is_described && let Some(pending) = self.directories.get(&entry.path) {
            let (is_created, may_inherit) = (pending.is_created, pending.may_inherit);
            let pending = PendingDirectory { metadata: None, is_created, may_inherit };
            self.directories.insert(&entry.path, pending)?;
        }
        Ok(())
    }

    /// Creates an entry that is not a directory, in place of whatever has its path, except for a mount point and for a
    /// directory that was not seen.
    ///
    /// # Errors
    /// As [`put`](Extractor::put).
    pub(crate) fn replace(
        &mut self,
        entry: &Entry,
        content: &mut dyn Content,
        place: Place<'_>,
    ) -> Result<()> {
        let Place { temporary, .. } = place;
        super::ensure_possible(entry)?;
        self.enter_for_change(&entry.path)?;
        if self.folds_case {
            self.ensure_spelling(&entry.path)?;
        }
        self.extracted.entries += 1;
        let beside = Entry { path: beside(&entry.path, temporary), ..entry.clone() };
        let skipped = self.extracted;
        if let Err(error) = self.put_below_root(&beside, content) {
            self.remove_temporary(temporary);
            return Err(error);
        }
        let is_created = skipped.devices_skipped == self.extracted.devices_skipped
            && skipped.symlinks_skipped == self.extracted.symlinks_skipped
            && skipped.fifos_skipped == self.extracted.fifos_skipped;
        if is_created { self.take_name(place, &entry.path) } else { Ok(()) }
    }

    /// Gives the file at `first` another name, in place of whatever has that path.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn replace_by_link(
        &mut self,
        first: &TreePath,
        path: &TreePath,
        place: Place<'_>,
    ) -> Result<()> {
        let Place { temporary, .. } = place;
        self.enter_for_change(first)?;
        let above = self.stack.here().and_then(|here| fcntl_dupfd_cloexec(here, 0));
        let above = above.map_err(|errno| self.io_error("look at", first, errno))?;
        self.enter_for_change(path)?;
        if self.folds_case {
            self.ensure_spelling(path)?;
        }
        self.extracted.entries += 1;
        let beside = beside(path, temporary);
        let is_linked = self.make(&beside, |here, name| {
            match linkat(&above, first.name(), here, name, AtFlags::empty()) {
                Ok(()) => Ok(true),
                // It is on another file system, or this one has no hard links, or no more for this file.
                Err(Errno::XDEV | Errno::NOTSUP | Errno::NOSYS | Errno::PERM | Errno::MLINK) => Ok(false),
                Err(errno) => Err(errno),
            }
        })?;
        if !is_linked {
            self.copy(above.as_fd(), first, &beside)?;
            self.extracted.hardlinks_copied += 1;
        }
        self.take_name(place, path)?;
        // Renaming one name of a file to another one does nothing, and leaves both.
        self.remove_temporary(temporary);
        Ok(())
    }

    /// Gives a regular file other attributes, in place. Returns `false` if it is not the file that was seen, or was
    /// changed since: its mtime, by which that is noticed, is then not set.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn change_attributes(&mut self, entry: &Entry, seen: &FileState) -> Result<bool> {
        let path = &entry.path;
        self.enter_for_change(path)?;
        let here = self.stack.here().map_err(|errno| io_error("enter", &self.target.shown, path, errno))?;
        let file = match open_for_attributes(here, path.name(), seen) {
            Ok(Some(file)) => File::from(file),
            Ok(None) => return Ok(false),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::ACCESS | Errno::NXIO) => {
                return Ok(false);
            }
            Err(errno) => return Err(self.io_error("open", path, errno)),
        };
        let attributes = attributes_of(&entry.metadata, path, &self.options)?;
        attributes::drop_others(file.as_fd(), &entry.metadata)
            .map_err(|errno| self.io_error("remove an extended attribute of", path, errno))?;
        self.apply(path, &file, &attributes, Given::default())?;
        Ok(true)
    }

    /// Gives a directory that exists the attributes of an entry at the end; without one those of a directory that no
    /// entry describes.
    ///
    /// # Errors
    /// When the memory does not suffice.
    pub(crate) fn describe_directory(&mut self, path: &TreePath, metadata: Option<&Metadata>) -> Result<()> {
        if self.directories.get(path).is_some() {
            return Ok(());
        }
        self.has_extracted = true;
        self.directories.hold(metadata.map_or(0, |metadata| xattrs_memory(&metadata.xattrs)))?;
        let pending = PendingDirectory { metadata: metadata.cloned(), is_created: false, may_inherit: true };
        self.directories.insert(path, pending)?;
        Ok(())
    }

    /// Removes an entry with everything in it, except for mount points and the directories that lead to them.
    ///
    /// # Errors
    /// Those of the operating system, and if it is a directory that was not seen.
    pub(crate) fn remove_extra(&mut self, path: &TreePath, seen: SeenAs) -> Result<RemovedEntries> {
        self.enter_for_change(path)?;
        if seen == SeenAs::Other {
            return self.remove_file(path);
        }
        let Removed { entries, mounted } = self.remove_all_of(path, path.name())?;
        Ok(RemovedEntries { entries, is_mounted: mounted.is_some() })
    }

    /// Removes an entry that was no directory.
    fn remove_file(&mut self, path: &TreePath) -> Result<RemovedEntries> {
        let removed = self.stack.here().and_then(|here| {
            // Some file systems remove directories with this call, or say EPERM.
            match statat(here, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => Err(Errno::ISDIR),
                _ => unlinkat(here, path.name(), AtFlags::empty()),
            }
        });
        match removed {
            Ok(()) => Ok(RemovedEntries { entries: 1, is_mounted: false }),
            Err(Errno::NOENT) => Ok(RemovedEntries::default()),
            Err(Errno::BUSY) => Ok(RemovedEntries { entries: 0, is_mounted: true }),
            Err(Errno::ISDIR) => Err(self.not_seen(path)),
            Err(errno) => Err(self.io_error("remove", path, errno)),
        }
    }

    /// The error for a directory with contents that were not compared.
    fn not_seen(&self, path: &TreePath) -> Error {
        Error::failed(format!("{}{path} was replaced by a directory while it was synced", self.target.shown))
            .with_hint("run the command again when nothing else works in the directory: it stays until then")
    }

    /// Enters the directory of an entry, and makes it writable for its owner.
    fn enter_for_change(&mut self, path: &TreePath) -> Result<()> {
        self.has_extracted = true;
        self.goto(&path.parent().unwrap_or_default())?;
        if !self.user.is_root() {
            let here =
                self.stack.here().map_err(|errno| io_error("enter", &self.target.shown, path, errno))?;
            ensure_owner_access(here);
        }
        Ok(())
    }

    /// Removes an obstacle for a directory: an entry of another kind.
    fn remove_other_kind(&mut self, path: &TreePath) -> Result<()> {
        let removed = self.stack.here().and_then(|here| unlinkat(here, path.name(), AtFlags::empty()));
        match removed {
            // There is a directory, which the second error means on file systems that follow POSIX.
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR | Errno::PERM) => Ok(()),
            Err(Errno::BUSY) => Err(mounted(&self.target.shown, path)),
            Err(errno) => Err(self.io_error("replace", path, errno)),
        }
    }

    /// Renames the temporary entry in the current directory.
    fn take_name(&mut self, place: Place<'_>, path: &TreePath) -> Result<()> {
        let Place { temporary, seen } = place;
        let rename =
            |this: &mut Self| this.stack.here().and_then(|here| renameat(here, temporary, here, path.name()));
        let mut renamed = rename(self);
        if matches!(renamed, Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST)) {
            if seen == SeenAs::Other {
                self.remove_temporary(temporary);
                return Err(self.not_seen(path));
            }
            if self.remove_all_of(path, path.name())?.mounted.is_some() {
                self.remove_temporary(temporary);
                return Err(mounted(&self.target.shown, path));
            }
            renamed = rename(self);
        }
        renamed.map_err(|errno| {
            self.remove_temporary(temporary);
            match errno {
                Errno::BUSY => mounted(&self.target.shown, path),
                errno => self.io_error("replace", path, errno),
            }
        })
    }

    /// Removes an entry of the current directory with everything in it; `path` is for messages.
    fn remove_all_of(&mut self, path: &TreePath, name: &[u8]) -> Result<Removed> {
        let parent = path.parent().unwrap_or_default();
        // No path has a NUL byte.
        let name = CString::new(name).unwrap_or_default();
        let here = self.stack.here().map_err(|errno| io_error("enter", &self.target.shown, path, errno))?;
        remove::entry(here, &name, &RemovalRules::EVERYTHING).map_err(|RemovalError { path, errno }| {
            let below = TreePath::parse(path).unwrap_or_default();
            self.io_error("remove", &parent.append(&below), errno)
        })
    }

    /// Removes the temporary entry, if it is there. If that fails, the next run removes it.
    fn remove_temporary(&mut self, temporary: &[u8]) {
        let _ = self.stack.here().and_then(|here| unlinkat(here, temporary, AtFlags::empty()));
    }
}

/// Returns the path of the temporary entry.
fn beside(path: &TreePath, temporary: &[u8]) -> TreePath {
    path.parent().unwrap_or_default().join(temporary)
}

/// Opens a file to set its attributes; `None` if it is not as it was seen. If its mode forbids that even to its owner, the
/// mode is changed, but only that of the file that was seen: another one may have names outside of the target.
fn open_for_attributes(
    here: BorrowedFd<'_>,
    name: &[u8],
    seen: &FileState,
) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || openat(here, name, flags | OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty());
    match open() {
        Err(Errno::ACCESS) => {
            let pin = openat(here, name, flags | OFlags::PATH, Mode::empty())?;
            let stat = fstat(&pin)?;
            if FileState::of(&stat).as_ref() != Some(seen) {
                return Ok(None);
            }
            let mode = Mode::from_raw_mode(stat.st_mode) | Mode::RUSR | Mode::WUSR;
            chmodat(CWD, proc_path(pin.as_fd()), mode, AtFlags::empty())?;
            let file = open()?;
            let is_same = FileId::from(&fstat(&file)?) == FileId::from(&stat);
            Ok(is_same.then_some(file))
        }
        opened => {
            let file = opened?;
            let is_seen = FileState::of(&fstat(&file)?).as_ref() == Some(seen);
            Ok(is_seen.then_some(file))
        }
    }
}

impl FoundEntry {
    /// Returns whether an entry has the attributes that an extraction with these options would give it.
    pub(crate) fn has_attributes(&self, wanted: &Metadata) -> bool {
        let found = &self.metadata;
        let is_symlink = matches!(self.kind, Some(EntryKind::Symlink { .. }));
        !self.is_opened_up
            && (found.uid, found.gid) == (wanted.uid, wanted.gid)
            && (is_symlink || found.mode == wanted.mode)
            && found.mtime == wanted.mtime
            && found.xattrs == wanted.xattrs
    }
}
