//! One directory, entry by entry, in the order of [`TreePath`].

use super::filter::Filter;
use super::listing::{CACHE_TAG, Name, is_cache, is_not_of_the_tree, list, open_quietly, place, shown};
use super::moved::{Directories, Log};
use super::stat::{Answer, Failure, LeftOutReason, Observer, Summary, WalkOptions, WalkedEntry, kind};
use crate::disk::directory::is_mount_point;
use crate::error::{self, Error, Result};
use crate::tree::dir_stack::{Descent, FileId};
use crate::tree::path_range::{PathRange, Place};
use crate::tree::race::{Changed, FileChange, is_about_what_is_read};
use crate::tree::xattr::Carrier;
use crate::tree::{Entry, EntryKind, Metadata, TreePath};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, OFlags, Stat, fstat, readlinkat, statat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::vec;

/// The walk over one directory.
pub(super) struct DirectoryWalk {
    /// The source as the user knows it, for messages.
    shown: String,
    at: TreePath,
    begun: bool,
    descent: Descent,
    /// What is still to be seen in the directories of the descent, the root's first.
    names: Vec<vec::IntoIter<Name>>,
    filter: Filter,
    device: u64,
    links: HashMap<FileId, FirstName>,
    observer: Observer,
    /// What is told.
    range: PathRange,
    /// Whether files are looked at without being opened.
    sizes_only: bool,
    log: Log,
}

/// The first name of something that has several.
struct FirstName {
    path: TreePath,
    still_to_come: usize,
}

impl DirectoryWalk {
    /// The walk over the directory `root`, whose entries are told as being below `at`.
    pub fn new(source: &Path, root: OwnedFd, at: TreePath, options: &WalkOptions) -> Result<Self> {
        let shown = shown(source);
        let filter = Filter::new(root.as_fd(), &shown, options)?;
        let stat =
            fstat(&root).map_err(|errno| trouble("look at", &shown, &TreePath::root(), errno.into()))?;
        Ok(Self {
            shown,
            at,
            begun: false,
            descent: Descent::new(root),
            names: Vec::new(),
            filter,
            device: stat.st_dev,
            links: HashMap::new(),
            observer: Observer::new(options),
            range: PathRange::default(),
            sizes_only: false,
            log: Log::new(),
        })
    }

    /// Tells only what is in this range.
    pub fn limit(&mut self, range: PathRange) {
        self.range = range;
    }

    /// Tells what there is and how large it is, without content, owners and attributes of what is no directory.
    pub fn sizes_only(&mut self) {
        self.sizes_only = true;
    }

    /// What was passed over so far.
    pub fn summary(&self) -> Summary {
        self.observer.summary.clone()
    }

    /// What was listed, to be checked when the walk is over; `source` is where it began.
    pub fn into_listed(self, source: PathBuf) -> Directories {
        let Self { shown, at, filter, range, log, .. } = self;
        Directories { source, shown, at, filter, range, log }
    }

    /// Whether a directory, by its path below the source, is left out by a rule for it or for one above it.
    pub fn leaves_out(&self, path: &TreePath) -> bool {
        let mut above = TreePath::root();
        path.names().any(|name| {
            above = above.join(name);
            self.filter.excludes(&above, true)
        })
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// When something cannot be read; the error names it. The walk is then at its end.
    pub fn advance(&mut self) -> Result<Option<WalkedEntry>> {
        if !self.begun {
            self.begun = true;
            return self.root().map(Some);
        }
        while let Some(names) = self.names.last_mut() {
            let Some(name) = names.next() else {
                self.names.pop();
                self.descent.leave();
                continue;
            };
            let visited = self.visit(&name);
            if visited.is_err() {
                self.names.clear();
            }
            if let Some(found) = visited? {
                match found.entry.kind == EntryKind::Directory && self.range.shares_directories() {
                    true => self.observer.note_again(&found.entry),
                    false => self.observer.note(&found.entry),
                }
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn root(&mut self) -> Result<WalkedEntry> {
        let here = TreePath::root();
        let found = (|| {
            let root = self.descent.root();
            let stat = fstat(root)?;
            let entry =
                self.observer.entry(self.at.clone(), EntryKind::Directory, &stat, Carrier::Open(root))?;
            Ok((entry, stat, list(root)?))
        })();
        let (entry, stat, names) = found.map_err(|failure| self.trouble(&here, failure))?;
        match self.range.shares_directories() {
            true => self.observer.note_again(&entry),
            false => self.observer.note(&entry),
        }
        self.begin(&here, &stat, names);
        Ok(WalkedEntry { entry, file: None })
    }

    /// Looks at one name, again where it changes meanwhile; `None` when it is passed over.
    fn visit(&mut self, name: &Name) -> Result<Option<WalkedEntry>> {
        let path = self.descent.path().join(name.name.to_bytes());
        match self.range.place(&self.at.append(&path)) {
            Place::Inside => {}
            Place::Outside => return Ok(None),
            Place::Behind => {
                self.names.clear();
                return Ok(None);
            }
        }
        if self.descent.depth() == 0 && is_not_of_the_tree(self.descent.root(), &name.name) {
            self.observer.summary.bookkeeping += 1;
            return Ok(None);
        }
        if self.observer.leaves_out(&self.at.append(&path)) {
            return Ok(None);
        }
        let mut listed = name.kind;
        for attempt in 1.. {
            let failure = match self.look_at(&name.name, listed, &path) {
                Ok(found) => return Ok(found),
                Err(failure) => failure,
            };
            match self.observer.answer(&self.at.append(&path), failure, attempt) {
                Ok(Answer::LeftOut) => break,
                // It may be something else now.
                Ok(Answer::Again) => listed = FileType::Unknown,
                Err(failure) => return Err(self.trouble(&path, failure)),
            }
        }
        Ok(None)
    }

    /// Looks at one name once. Whatever fails leaves no trace.
    fn look_at(
        &mut self,
        name: &CStr,
        listed: FileType,
        path: &TreePath,
    ) -> Result<Option<WalkedEntry>, Failure> {
        let kind = match listed {
            FileType::Unknown => FileType::from_raw_mode(self.stat(name)?.st_mode),
            known => known,
        };
        if self.filter.excludes(path, kind == FileType::Directory) {
            self.observer.summary.excluded += 1;
            return Ok(None);
        }
        match kind {
            FileType::Directory => self.directory(name, path).map(Some),
            _ if self.range.only_directories => Ok(None),
            FileType::Socket => {
                self.observer.summary.sockets += 1;
                Ok(None)
            }
            _ if self.sizes_only => self.glimpse(name, path).map(Some),
            FileType::RegularFile => self.file(name, path),
            _ => self.special(name, path).map(Some),
        }
    }

    fn directory(&mut self, name: &CStr, path: &TreePath) -> Result<WalkedEntry, Failure> {
        let fd = match open_quietly(self.descent.here()?, name, OFlags::DIRECTORY) {
            Err(errno) if self.observer.may_skip(errno) => return self.closed_directory(name, path, errno),
            opened => opened?,
        };
        let stat = fstat(&fd)?;
        let entry = self.observer.entry(
            self.at.append(path),
            EntryKind::Directory,
            &stat,
            Carrier::Open(fd.as_fd()),
        )?;
        if self.is_beyond(fd.as_fd(), &stat) {
            self.observer.summary.mounts += 1;
            return Ok(WalkedEntry { entry, file: None });
        }
        match list(fd.as_fd()) {
            Ok(mut names) if self.observer.options.exclude_caches && is_cache(fd.as_fd()) => {
                names.retain(|name| name.name.as_c_str() == CACHE_TAG);
                self.observer.summary.excluded += 1;
                self.descent.push(name.to_bytes(), fd, &stat);
                self.names.push(names.into_iter());
            }
            Ok(names) => {
                self.descent.push(name.to_bytes(), fd, &stat);
                self.begin(path, &stat, names);
            }
            Err(errno) if self.observer.may_skip(errno) => {
                self.observer.leave_out(entry.path.clone(), LeftOutReason::unreadable(errno));
            }
            Err(errno) => return Err(errno.into()),
        }
        Ok(WalkedEntry { entry, file: None })
    }

    /// Whether something is mounted here, and mounts are not crossed. What is mounted may be of the same file system: a
    /// bind mount.
    fn is_beyond(&self, fd: BorrowedFd<'_>, stat: &Stat) -> bool {
        self.observer.options.one_file_system && (stat.st_dev != self.device || is_mount_point(fd))
    }

    /// Begins with what is in the directory that the descent has come to.
    fn begin(&mut self, path: &TreePath, stat: &Stat, names: Vec<Name>) {
        if !self.sizes_only {
            self.log.note(path, self.descent.depth(), stat, &names);
        }
        self.names.push(names.into_iter());
    }

    /// A directory that cannot be read: what can be seen from outside.
    fn closed_directory(
        &mut self,
        name: &CStr,
        path: &TreePath,
        errno: Errno,
    ) -> Result<WalkedEntry, Failure> {
        let stat = self.stat(name)?;
        if !FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(Errno::STALE.into());
        }
        let carrier = Carrier::Named(self.descent.here()?, name.to_bytes());
        let entry = self.observer.entry(self.at.append(path), EntryKind::Directory, &stat, carrier)?;
        self.observer.leave_out(entry.path.clone(), LeftOutReason::unreadable(errno));
        Ok(WalkedEntry { entry, file: None })
    }

    fn file(&mut self, name: &CStr, path: &TreePath) -> Result<Option<WalkedEntry>, Failure> {
        let fd = open_quietly(self.descent.here()?, name, OFlags::NONBLOCK)?;
        let stat = fstat(&fd)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(Errno::STALE.into());
        }
        if self.is_beyond(fd.as_fd(), &stat) {
            self.observer.summary.mounts += 1;
            return Ok(None);
        }
        let found = match self.earlier_name(&stat) {
            Some(link) => {
                let carrier = Carrier::Open(fd.as_fd());
                let entry = self.observer.entry(self.at.append(path), link, &stat, carrier)?;
                WalkedEntry { entry, file: None }
            }
            None => {
                let place = place(&self.shown, path);
                self.observer.file(self.at.append(path), fd, &stat, place)?
            }
        };
        self.remember(&stat, path);
        Ok(Some(found))
    }

    /// A symbolic link, a fifo or a device: what is looked at and not opened.
    fn special(&mut self, name: &CStr, path: &TreePath) -> Result<WalkedEntry, Failure> {
        let stat = self.stat(name)?;
        let here = self.descent.here()?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target = readlinkat(here, name, Vec::new())?.into_bytes();
                EntryKind::Symlink { target }
            }
            FileType::RegularFile | FileType::Directory => return Err(Errno::STALE.into()),
            _ => kind(&stat).ok_or(Errno::STALE)?,
        };
        let kind = self.earlier_name(&stat).unwrap_or(kind);
        let carrier = Carrier::Named(self.descent.here()?, name.to_bytes());
        let entry = self.observer.entry(self.at.append(path), kind, &stat, carrier)?;
        self.remember(&stat, path);
        Ok(WalkedEntry { entry, file: None })
    }

    /// What is no directory, with its size and whether it is another name, and with nothing else.
    fn glimpse(&mut self, name: &CStr, path: &TreePath) -> Result<WalkedEntry, Failure> {
        let stat = self.stat(name)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => return Err(Errno::STALE.into()),
            FileType::Symlink => EntryKind::Symlink { target: Vec::new() },
            _ => kind(&stat).ok_or(Errno::STALE)?,
        };
        let kind = self.earlier_name(&stat).unwrap_or(kind);
        self.remember(&stat, path);
        let entry = Entry { path: self.at.append(path), kind, metadata: Metadata::default() };
        Ok(WalkedEntry { entry, file: None })
    }

    /// The hard link to the name under which this was met before, if it was.
    fn earlier_name(&self, stat: &Stat) -> Option<EntryKind> {
        let first = self.links.get(&FileId::from(stat)).filter(|_| stat.st_nlink > 1)?;
        Some(EntryKind::Hardlink { target: first.path.clone() })
    }

    /// Notes that something was met that may have further names.
    fn remember(&mut self, stat: &Stat, path: &TreePath) {
        if stat.st_nlink < 2 {
            return;
        }
        let identity = FileId::from(stat);
        let Some(first) = self.links.get_mut(&identity) else {
            // Its type is not the same on all processors.
            let names = usize::try_from(stat.st_nlink).unwrap_or(usize::MAX);
            let first = FirstName { path: self.at.append(path), still_to_come: names - 1 };
            self.links.insert(identity, first);
            return;
        };
        first.still_to_come -= 1;
        if first.still_to_come == 0 {
            // All names were met: a tree with millions of links needs no memory for the ones that are complete.
            self.links.remove(&identity);
        }
    }

    fn stat(&mut self, name: &CStr) -> Result<Stat, Errno> {
        statat(self.descent.here()?, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// The error for something below the source.
    fn trouble(&self, path: &TreePath, failure: Failure) -> Error {
        match failure {
            Failure::Changed(change) if !path.is_root() => {
                Changed { path: self.at.append(path), change }.into_error(&place(&self.shown, path))
            }
            failure => trouble("read", &self.shown, path, failure),
        }
    }
}

/// The error for something in a source that cannot be read.
pub(super) fn trouble(doing: &str, shown: &str, path: &TreePath, failure: Failure) -> Error {
    let place = place(shown, path);
    let errno = match failure {
        Failure::Errno(errno) => errno,
        Failure::Changed(FileChange::Vanished) => Errno::NOENT,
        Failure::Changed(_) => Errno::STALE,
        Failure::Unmapped(unmapped) => {
            return Error::usage(format!("cannot pack {place}: {unmapped}")).with_hint(
                "add a range to --uid-map or --gid-map, or give everything one owner with --chown",
            );
        }
        Failure::Endless => {
            return Error::failed(format!(
                "{place} does not say how long it is, and has not ended after 16 MiB"
            ))
            .with_hint("leave it out with --exclude");
        }
    };
    let error = Error::io(format!("cannot {doing} {place}"), errno);
    match error.kind() {
        error::Kind::Denied => error.with_hint(
            "read it as its owner or as root, or leave it out with --exclude; --skip-unreadable leaves out all such",
        ),
        _ if is_about_what_is_read(errno) => {
            error.with_hint("leave it out with --exclude; --skip-unreadable leaves out all that cannot be read")
        }
        _ => error,
    }
}
