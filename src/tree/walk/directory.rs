//! The walk over one directory, in the order of [`TreePath`].
//!
//! Each directory is held open and listed once, and its entries are reached by their names in it, so that no symbolic link
//! can lead the walk elsewhere. An entry that changes between the listing and the reading is read again.

use super::filter::Filter;
use super::listing::{
    CACHE_TAG, DirEntry, display_path, display_root, is_bookkeeping, is_cache, list, open_quietly,
};
use super::moved::{DirectoryLog, SourceDirectories};
use super::skip_list::SkipList;
use super::stat::{EntryBuilder, EntryFailure, Recovery, entry_kind};
use super::summary::{LeftOutReason, Summary};
use super::{WalkDetail, WalkOptions, WalkedEntry};
use crate::disk::directory::is_mount_point;
use crate::disk::working_directory;
use crate::error::{self, Error, Result};
use crate::tree::dir_stack::{DirStack, FileId};
use crate::tree::path_range::{PathRange, Position};
use crate::tree::race::{Changed, FileChange, is_about_entry};
use crate::tree::xattr::XattrSource;
use crate::tree::{Entry, EntryKind, Metadata, TreePath};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::vec;

/// The walk over one directory.
pub(super) struct DirectoryWalk {
    /// The source as messages show it.
    shown: String,
    at: TreePath,
    is_begun: bool,
    stack: DirStack,
    /// The remaining entries of each directory on the stack, the root's first.
    pending: Vec<vec::IntoIter<DirEntry>>,
    filter: Filter,
    device: u64,
    links: HashMap<FileId, FirstName>,
    builder: EntryBuilder,
    range: PathRange,
    detail: WalkDetail,
    log: DirectoryLog,
    /// The buffer of [`list`].
    buffer: Vec<u8>,
}

/// The first name of an inode that has several.
struct FirstName {
    path: TreePath,
    remaining: u64,
}

impl DirectoryWalk {
    /// A walk over the directory `root`. It yields entries below `at`.
    pub fn new(
        source: &Path,
        root: OwnedFd,
        at: TreePath,
        options: &WalkOptions,
        skip_list: &SkipList,
    ) -> Result<Self> {
        let shown = display_root(source);
        let filter = Filter::new(root.as_fd(), &shown, options)?;
        let stat =
            fstat(&root).map_err(|errno| io_error("look at", &shown, &TreePath::root(), errno.into()))?;
        Ok(Self {
            shown,
            at,
            is_begun: false,
            stack: DirStack::new(root),
            pending: Vec::new(),
            filter,
            device: stat.st_dev,
            links: HashMap::new(),
            builder: EntryBuilder::new(options, skip_list),
            range: PathRange::default(),
            detail: WalkDetail::Content,
            log: DirectoryLog::new(),
            buffer: Vec::new(),
        })
    }

    pub fn restrict_to(&mut self, range: PathRange) {
        self.builder.summary.names_all = range.paths.is_some();
        self.range = range;
    }

    /// Sets the parts of an entry that are read.
    pub fn set_detail(&mut self, detail: WalkDetail) {
        self.detail = detail;
    }

    /// Returns what was left out so far.
    pub fn summary(&self) -> Summary {
        self.builder.summary.clone()
    }

    /// Returns the directories that were listed; `source` is the path of the root.
    pub fn into_listed(self, source: PathBuf) -> SourceDirectories {
        let Self { shown, at, filter, range, log, .. } = self;
        SourceDirectories { source, shown, at, filter, range, log }
    }

    /// Returns whether a rule leaves out a directory, by its path below the source, or one that contains it.
    pub fn excludes_directory(&self, path: &TreePath) -> bool {
        let mut above = TreePath::root();
        path.names().any(|name| {
            above = above.join(name);
            self.filter.excludes(&above, true)
        })
    }

    /// Returns the next entry; `None` at the end.
    ///
    /// # Errors
    /// When an entry cannot be read; the error names it. The walk is then at its end.
    pub fn advance(&mut self) -> Result<Option<WalkedEntry>> {
        if !self.is_begun {
            self.is_begun = true;
            return self.root().map(Some);
        }
        while let Some(names) = self.pending.last_mut() {
            let Some(name) = names.next() else {
                self.pending.pop();
                self.stack.leave();
                continue;
            };
            let visited = self.visit(&name);
            if visited.is_err() {
                self.pending.clear();
            }
            if let Some(found) = visited? {
                self.count(&found.entry);
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn count(&mut self, entry: &Entry) {
        if entry.kind == EntryKind::Directory && self.range.shares_directories() {
            self.builder.count_shared(entry);
        } else {
            self.builder.count(entry);
        }
    }

    fn root(&mut self) -> Result<WalkedEntry> {
        let here = TreePath::root();
        let found = (|| {
            let root = self.stack.root();
            let stat = fstat(root)?;
            let xattrs = XattrSource::Open(root);
            let entry = self.builder.entry(self.at.clone(), EntryKind::Directory, &stat, xattrs)?;
            Ok((entry, stat, list(root, &mut self.buffer)?))
        })();
        let (entry, stat, names) = found.map_err(|failure| self.read_error(&here, failure))?;
        self.count(&entry);
        self.begin(&here, &stat, names);
        Ok(WalkedEntry { entry, file: None })
    }

    /// Reads one entry of the current directory, again if it changes meanwhile; `None` when it is left out.
    fn visit(&mut self, entry: &DirEntry) -> Result<Option<WalkedEntry>> {
        let path = self.stack.path().join(entry.name.to_bytes());
        let place = self.at.append(&path);
        match self.range.position(&place) {
            Position::Inside => {}
            Position::Outside => return Ok(None),
            Position::After => {
                self.pending.clear();
                return Ok(None);
            }
        }
        if self.stack.depth() == 0 && is_bookkeeping(self.stack.root(), &entry.name) {
            self.builder.summary.bookkeeping += 1;
            return Ok(None);
        }
        if self.builder.skips(&place) {
            return Ok(None);
        }
        let mut file_type = entry.file_type;
        for attempt in 1.. {
            let failure = match self.read_entry(&entry.name, file_type, &path) {
                Ok(found) => return Ok(found),
                Err(failure) => failure,
            };
            match self.builder.recover(&place, failure, attempt) {
                Ok(Recovery::LeaveOut) => break,
                // It may be something else now.
                Ok(Recovery::Retry) => file_type = FileType::Unknown,
                Err(failure) => return Err(self.read_error(&path, failure)),
            }
        }
        Ok(None)
    }

    /// Reads one entry once. Nothing is counted if that fails.
    fn read_entry(
        &mut self,
        name: &CStr,
        listed: FileType,
        path: &TreePath,
    ) -> Result<Option<WalkedEntry>, EntryFailure> {
        let file_type = match listed {
            FileType::Unknown => FileType::from_raw_mode(self.stat(name)?.st_mode),
            known => known,
        };
        if self.filter.excludes(path, file_type == FileType::Directory) {
            self.builder.summary.excluded += 1;
            return Ok(None);
        }
        match file_type {
            FileType::Directory => self.directory(name, path).map(Some),
            _ if self.range.only_directories => Ok(None),
            FileType::Socket => {
                self.builder.summary.sockets += 1;
                Ok(None)
            }
            _ if self.detail == WalkDetail::Sizes => self.size_of(name, path).map(Some),
            // Only an open file can be recognised as a mount point.
            FileType::RegularFile if self.reads_content() || self.builder.options.one_file_system => {
                self.file(name, path)
            }
            FileType::RegularFile if !working_directory::is_separate() => {
                self.metadata_of_file(name, path).map(Some)
            }
            _ => self.unopened(name, path).map(Some),
        }
    }

    fn directory(&mut self, name: &CStr, path: &TreePath) -> Result<WalkedEntry, EntryFailure> {
        let fd = match open_quietly(self.stack.here()?, name, OFlags::DIRECTORY) {
            Err(errno) if self.builder.may_skip(errno) => {
                return self.unreadable_directory(name, path, errno);
            }
            opened => opened?,
        };
        let stat = fstat(&fd)?;
        let xattrs = XattrSource::Open(fd.as_fd());
        let entry = self.builder.entry(self.at.append(path), EntryKind::Directory, &stat, xattrs)?;
        if self.is_other_mount(fd.as_fd(), &stat) {
            self.builder.summary.mounts += 1;
            return Ok(WalkedEntry { entry, file: None });
        }
        match list(fd.as_fd(), &mut self.buffer) {
            Ok(mut names) if self.builder.options.exclude_caches && is_cache(fd.as_fd()) => {
                names.retain(|entry| entry.name.as_c_str() == CACHE_TAG);
                self.builder.summary.excluded += 1;
                self.stack.push(name.to_bytes(), fd, &stat);
                self.pending.push(names.into_iter());
            }
            Ok(names) => {
                self.stack.push(name.to_bytes(), fd, &stat);
                self.begin(path, &stat, names);
            }
            Err(errno) if self.builder.may_skip(errno) => {
                self.builder.leave_out(entry.path.clone(), LeftOutReason::unreadable(errno));
            }
            Err(errno) => return Err(errno.into()),
        }
        Ok(WalkedEntry { entry, file: None })
    }

    /// Returns whether this is a mount point that is not to be crossed. A bind mount is one too, although it may be of the
    /// same file system.
    fn is_other_mount(&self, fd: BorrowedFd<'_>, stat: &Stat) -> bool {
        self.builder.options.one_file_system && (stat.st_dev != self.device || is_mount_point(fd))
    }

    /// Begins to read the directory that was entered last.
    fn begin(&mut self, path: &TreePath, stat: &Stat, names: Vec<DirEntry>) {
        if self.detail != WalkDetail::Sizes {
            self.log.add(path, self.stack.depth(), stat, &names);
        }
        self.pending.push(names.into_iter());
    }

    /// Builds the entry for a directory that cannot be opened, from its status alone.
    fn unreadable_directory(
        &mut self,
        name: &CStr,
        path: &TreePath,
        errno: Errno,
    ) -> Result<WalkedEntry, EntryFailure> {
        let stat = self.stat(name)?;
        if !FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(Errno::STALE.into());
        }
        let (here, visit) = self.stack.visited()?;
        let xattrs = XattrSource::Visited(here, visit, name);
        let entry = self.builder.entry(self.at.append(path), EntryKind::Directory, &stat, xattrs)?;
        self.builder.leave_out(entry.path.clone(), LeftOutReason::unreadable(errno));
        Ok(WalkedEntry { entry, file: None })
    }

    fn file(&mut self, name: &CStr, path: &TreePath) -> Result<Option<WalkedEntry>, EntryFailure> {
        let fd = open_quietly(self.stack.here()?, name, OFlags::NONBLOCK)?;
        let stat = fstat(&fd)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Errno::STALE.into());
        }
        if self.is_other_mount(fd.as_fd(), &stat) {
            self.builder.summary.mounts += 1;
            return Ok(None);
        }
        let size = || EntryKind::File { size: stat.st_size.unsigned_abs() };
        let found = match self.earlier_name(&stat).or_else(|| (!self.reads_content()).then(size)) {
            Some(kind) => {
                let xattrs = XattrSource::Open(fd.as_fd());
                let entry = self.builder.entry(self.at.append(path), kind, &stat, xattrs)?;
                WalkedEntry { entry, file: None }
            }
            None => {
                let shown = display_path(&self.shown, path);
                self.builder.file(self.at.append(path), fd, &stat, shown)?
            }
        };
        self.remember(&stat, path);
        Ok(Some(found))
    }

    /// Builds the entry for a regular file without its content. The attributes of an open file are read in two thirds of the
    /// time that a path through `/proc` takes; the file need not be readable nevertheless.
    fn metadata_of_file(&mut self, name: &CStr, path: &TreePath) -> Result<WalkedEntry, EntryFailure> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME | OFlags::NONBLOCK;
        let Ok(fd) = openat(self.stack.here()?, name, flags, Mode::empty()) else {
            return self.unopened(name, path);
        };
        let stat = fstat(&fd)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Errno::STALE.into());
        }
        let size = EntryKind::File { size: stat.st_size.unsigned_abs() };
        let kind = self.earlier_name(&stat).unwrap_or(size);
        let xattrs = XattrSource::Open(fd.as_fd());
        let entry = self.builder.entry(self.at.append(path), kind, &stat, xattrs)?;
        self.remember(&stat, path);
        Ok(WalkedEntry { entry, file: None })
    }

    fn reads_content(&self) -> bool {
        self.detail == WalkDetail::Content
    }

    /// Builds the entry for a symbolic link, a fifo, a device, or a file without its content: these are not opened.
    fn unopened(&mut self, name: &CStr, path: &TreePath) -> Result<WalkedEntry, EntryFailure> {
        let stat = self.stat(name)?;
        let here = self.stack.here()?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target = readlinkat(here, name, Vec::new())?.into_bytes();
                EntryKind::Symlink { target }
            }
            FileType::Directory => return Err(Errno::STALE.into()),
            FileType::RegularFile if self.reads_content() => return Err(Errno::STALE.into()),
            _ => entry_kind(&stat).ok_or(Errno::STALE)?,
        };
        let kind = self.earlier_name(&stat).unwrap_or(kind);
        let (here, visit) = self.stack.visited()?;
        let xattrs = XattrSource::Visited(here, visit, name);
        let entry = self.builder.entry(self.at.append(path), kind, &stat, xattrs)?;
        self.remember(&stat, path);
        Ok(WalkedEntry { entry, file: None })
    }

    /// Builds an entry with a size and without metadata, for a walk that yields sizes only. It may be a hard link.
    fn size_of(&mut self, name: &CStr, path: &TreePath) -> Result<WalkedEntry, EntryFailure> {
        let stat = self.stat(name)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Err(Errno::STALE.into()),
            FileType::Symlink => EntryKind::Symlink { target: Vec::new() },
            _ => entry_kind(&stat).ok_or(Errno::STALE)?,
        };
        let kind = self.earlier_name(&stat).unwrap_or(kind);
        self.remember(&stat, path);
        let entry = Entry { path: self.at.append(path), kind, metadata: Metadata::default() };
        Ok(WalkedEntry { entry, file: None })
    }

    /// Returns a hard link to the first name of this inode, if that was yielded before.
    fn earlier_name(&self, stat: &Stat) -> Option<EntryKind> {
        let first = self.links.get(&FileId::from(stat)).filter(|_| stat.st_nlink > 1)?;
        Some(EntryKind::Hardlink { target: first.path.clone() })
    }

    /// Remembers an inode that may have further names.
    fn remember(&mut self, stat: &Stat, path: &TreePath) {
        // The type of this field differs between processors.
        #[allow(clippy::useless_conversion)]
        let names = u64::from(stat.st_nlink);
        if names < 2 {
            return;
        }
        let id = FileId::from(stat);
        let Some(first) = self.links.get_mut(&id) else {
            self.links.insert(id, FirstName { path: self.at.append(path), remaining: names - 1 });
            return;
        };
        first.remaining -= 1;
        if first.remaining == 0 {
            // All names were found, so a tree with millions of links takes no memory for the complete ones.
            self.links.remove(&id);
        }
    }

    fn stat(&mut self, name: &CStr) -> Result<Stat, Errno> {
        statat(self.stack.here()?, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn read_error(&self, path: &TreePath, failure: EntryFailure) -> Error {
        match failure {
            EntryFailure::Changed(change) if !path.is_root() => {
                Changed { path: self.at.append(path), change }.into_error(&display_path(&self.shown, path))
            }
            failure => io_error("read", &self.shown, path, failure),
        }
    }
}

/// The error for an entry of a source.
pub(super) fn io_error(doing: &str, shown: &str, path: &TreePath, failure: EntryFailure) -> Error {
    let shown = display_path(shown, path);
    let errno = match failure {
        EntryFailure::Errno(errno) => errno,
        EntryFailure::Changed(FileChange::Vanished) => Errno::NOENT,
        EntryFailure::Changed(_) => Errno::STALE,
        EntryFailure::Unmapped(unmapped) => {
            return Error::usage(format!("cannot pack {shown}: {unmapped}")).with_hint(
                "add a range to --uid-map or --gid-map, or give everything one owner with --chown",
            );
        }
        EntryFailure::Endless => {
            return Error::failed(format!(
                "{shown} does not say how long it is, and has not ended after 16 MiB"
            ))
            .with_hint("leave it out with --exclude");
        }
    };
    let error = Error::io(format!("cannot {doing} {shown}"), errno);
    match error.kind() {
        error::Kind::Denied => error.with_hint(
            "read it as its owner or as root, or leave it out with --exclude; --skip-unreadable leaves out all such",
        ),
        _ if is_about_entry(errno) => {
            error.with_hint("leave it out with --exclude; --skip-unreadable leaves out all that cannot be read")
        }
        _ => error,
    }
}
