//! Removal of trees of any depth, and of nothing outside of them.
//!
//! It follows no symbolic link and crosses no mount point, not even one of the same file system. The stack, the
//! descriptors and the memory that it needs do not depend on the tree, except for the names in the current path and 48
//! bytes for each of them. A directory that had to be closed is opened again by `..`, and must then be the same one as
//! before.

use super::directory::{self, FileId, ensure_owner_access, mount_id, open_directory, reopen};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, SeekFrom, fstat, openat, seek, unlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

/// The most directories that stay open, with a part of their names. Honest trees never exceed it.
const MAX_OPEN: usize = 32;

/// The bytes of a directory that are listed at once.
const LISTING_BUFFER: usize = 32 << 10;

/// The rules for what is removed and what stays.
pub(crate) struct RemovalRules<'a> {
    /// Returns whether a directory on another mount or file system than the one above is entered.
    pub crosses: &'a dyn Fn(BorrowedFd<'_>) -> bool,
    /// Returns whether a name stays. Called in the root of the tree and in directories that were crossed into.
    pub spares: &'a dyn Fn(BorrowedFd<'_>, &CStr) -> bool,
}

impl RemovalRules<'_> {
    /// Everything is removed, except for mount points.
    pub const EVERYTHING: RemovalRules<'static> = RemovalRules { crosses: &|_| false, spares: &|_, _| false };
}

/// The result of a removal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// The number of removed entries.
    pub entries: u64,
    /// The path of the first entry that stays because it is a mount point.
    pub mounted: Option<Vec<u8>>,
}

/// The first entry that could not be removed; all others are removed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RemovalError {
    /// The path below the root of the tree, without a leading `/`; empty for the root.
    pub path: Vec<u8>,
    pub errno: Errno,
}

/// Removes the contents of a directory. A directory stays if something in it stays.
pub(crate) fn contents(root: BorrowedFd<'_>, rules: &RemovalRules<'_>) -> Result<Removed, RemovalError> {
    ensure_owner_access(root);
    Remover::new(root, rules).map_err(RemovalError::at_root)?.run(None)
}

/// Removes the entry `name` of a directory, with its contents; does nothing if it does not exist. The paths in the
/// result begin with the name.
pub(crate) fn entry(
    above: BorrowedFd<'_>,
    name: &CStr,
    rules: &RemovalRules<'_>,
) -> Result<Removed, RemovalError> {
    Remover::new(above, rules).map_err(RemovalError::at_root)?.run(Some(name))
}

/// A running removal.
struct Remover<'a> {
    rules: &'a RemovalRules<'a>,
    /// The directories from the root to the current one.
    levels: Vec<Level>,
    /// The first level that is open.
    open_from: usize,
    /// The names of the levels below the root, joined by `/`.
    path: Vec<u8>,
    removed: Removed,
    failure: Option<RemovalError>,
}

/// A directory on the current path.
struct Level {
    id: FileId,
    mount: Option<u64>,
    /// The position of its name in the path.
    name_at: usize,
    /// The position in its listing; 0 is the beginning.
    cookie: u64,
    /// Set when an entry was removed since its listing began.
    is_changed: bool,
    /// Set when it was not listed by one call. Some file systems then skip names when others are removed.
    is_in_parts: bool,
    /// The number of times that it was listed from the beginning.
    listings: u8,
    /// Set when names in it may be spared.
    is_boundary: bool,
    open: Option<Box<Listing>>,
}

/// An open directory, and the names that were listed and not handled yet, the next one last. Each has the position after it.
struct Listing {
    fd: OwnedFd,
    names: Vec<(CString, u64)>,
}

/// The most listings of one directory: a program that creates files faster than they are removed must not keep a
/// removal going.
const MAX_LISTINGS: u8 = 8;

/// The result of the attempt to remove an entry.
enum Outcome {
    Removed,
    Gone,
    Mounted,
    Entered,
}

impl<'a> Remover<'a> {
    fn new(root: BorrowedFd<'_>, rules: &'a RemovalRules<'a>) -> Result<Self, Errno> {
        let fd = open_directory(root, b".")?;
        let level = Level::new(fd, 0, true)?;
        Ok(Self {
            rules,
            levels: vec![level],
            open_from: 0,
            path: Vec::new(),
            removed: Removed::default(),
            failure: None,
        })
    }

    /// Removes the entry `only`, or all entries of the root.
    fn run(mut self, only: Option<&CStr>) -> Result<Removed, RemovalError> {
        let above = usize::from(only.is_some());
        if let Some(name) = only {
            self.remove(name);
        }
        while self.levels.len() > above {
            match self.next_name() {
                Ok(Some(name)) => self.remove(&name),
                Ok(None) => self.leave(),
                Err(errno) => {
                    self.fail(None, errno);
                    self.leave();
                }
            }
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(self.removed),
        }
    }

    fn next_name(&mut self) -> Result<Option<CString>, Errno> {
        let Some(level) = self.levels.last_mut() else { return Ok(None) };
        let Some(listing) = &mut level.open else { return Ok(None) };
        loop {
            if let Some((name, cookie)) = listing.names.pop() {
                level.cookie = cookie;
                if level.is_boundary && (self.rules.spares)(listing.fd.as_fd(), &name) {
                    continue;
                }
                return Ok(Some(name));
            }
            level.is_in_parts |= level.cookie != 0;
            listing.fill()?;
            if !listing.names.is_empty() {
                continue;
            }
            let is_again = level.is_changed && level.is_in_parts && level.listings < MAX_LISTINGS;
            if !is_again {
                return Ok(None);
            }
            seek(&listing.fd, SeekFrom::Start(0))?;
            (level.cookie, level.is_changed, level.is_in_parts) = (0, false, false);
            level.listings += 1;
        }
    }

    /// Removes an entry of the current directory, or enters it.
    fn remove(&mut self, name: &CStr) {
        match self.try_remove(name) {
            Ok(Outcome::Removed) => self.count(),
            Ok(Outcome::Mounted) => self.note_mounted(name),
            Ok(Outcome::Gone | Outcome::Entered) => {}
            Err(errno) => self.fail(Some(name), errno),
        }
    }

    fn try_remove(&mut self, name: &CStr) -> Result<Outcome, Errno> {
        let Some(Level { open: Some(listing), id, mount, .. }) = self.levels.last() else {
            return Err(Errno::STALE);
        };
        let above = listing.fd.as_fd();
        match unlinkat(above, name, AtFlags::empty()) {
            Ok(()) => return Ok(Outcome::Removed),
            Err(Errno::NOENT) => return Ok(Outcome::Gone),
            // POSIX specifies the latter, and some file systems return it.
            Err(Errno::ISDIR | Errno::PERM) => {}
            // A file on which something is mounted.
            Err(Errno::BUSY) => return Ok(Outcome::Mounted),
            Err(errno) => return Err(errno),
        }
        let open = |how| {
            openat(above, name, how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        };
        let (fd, is_closed) = match open(OFlags::RDONLY) {
            Err(Errno::NOENT) => return Ok(Outcome::Gone),
            // It is not a directory, so that the error was about permissions.
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(Errno::PERM),
            Err(Errno::ACCESS) => (open(OFlags::PATH)?, true),
            opened => (opened?, false),
        };
        let is_boundary = fstat(&fd)?.st_dev != id.device
            || mount_id(&fd) != *mount
            || (mount.is_none() && directory::is_mount_point(fd.as_fd()));
        if is_boundary && !(self.rules.crosses)(fd.as_fd()) {
            return Ok(Outcome::Mounted);
        }
        ensure_owner_access(fd.as_fd());
        let fd = if is_closed { reopen(fd.as_fd())? } else { fd };
        let level = Level::new(fd, self.path.len(), is_boundary)?;
        self.enter(name, level);
        Ok(Outcome::Entered)
    }

    fn enter(&mut self, name: &CStr, level: Level) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes());
        self.levels.push(level);
        if self.levels.len() - self.open_from > MAX_OPEN {
            self.levels[self.open_from].open = None;
            self.open_from += 1;
        }
    }

    /// Goes up, and removes the directory that was left unless it holds something.
    fn leave(&mut self) {
        let Some(below) = self.levels.pop() else { return };
        let Some(level) = self.levels.last_mut() else { return };
        let name = self.path.split_off(below.name_at);
        let name = name.strip_prefix(b"/").unwrap_or(&name);
        // The name was a C string, so that it has no NUL byte.
        let name = CString::new(name).unwrap_or_default();
        if level.open.is_none() {
            if let Err(errno) = level.open_above(&below) {
                // The directories above are not known any more.
                self.fail(None, errno);
                self.levels.clear();
                return;
            }
            self.open_from = self.levels.len() - 1;
        }
        let Some(Level { open: Some(listing), .. }) = self.levels.last() else { return };
        match unlinkat(&listing.fd, &name, AtFlags::REMOVEDIR) {
            Ok(()) => self.count(),
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(Errno::BUSY) => self.note_mounted(&name),
            Err(errno) => self.fail(Some(&name), errno),
        }
    }

    fn count(&mut self) {
        self.removed.entries += 1;
        if let Some(level) = self.levels.last_mut() {
            level.is_changed = true;
        }
    }

    /// Notes that an entry is a mount point.
    fn note_mounted(&mut self, name: &CStr) {
        if self.removed.mounted.is_none() {
            self.removed.mounted = Some(self.proc_path(Some(name)));
        }
    }

    /// Notes that an entry, or the current directory, cannot be removed.
    fn fail(&mut self, name: Option<&CStr>, errno: Errno) {
        if self.failure.is_none() {
            self.failure = Some(RemovalError { path: self.proc_path(name), errno });
        }
    }

    fn proc_path(&self, name: Option<&CStr>) -> Vec<u8> {
        let names = [&self.path[..], name.map_or(&[], CStr::to_bytes)];
        names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(&b'/')
    }
}

impl Level {
    fn new(fd: OwnedFd, name_at: usize, is_boundary: bool) -> Result<Self, Errno> {
        Ok(Self {
            id: FileId::from(&fstat(&fd)?),
            mount: mount_id(&fd),
            name_at,
            cookie: 0,
            is_changed: false,
            is_in_parts: false,
            listings: 0,
            is_boundary,
            open: Some(Box::new(Listing { fd, names: Vec::new() })),
        })
    }

    /// Opens the directory again from one in it, and ensures that it is the same directory.
    fn open_above(&mut self, below: &Self) -> Result<(), Errno> {
        let Some(listing) = &below.open else { return Err(Errno::STALE) };
        let fd = open_directory(listing.fd.as_fd(), b"..")?;
        if FileId::from(&fstat(&fd)?) != self.id {
            return Err(Errno::STALE);
        }
        // If that fails, it is listed from the beginning.
        let _ = seek(&fd, SeekFrom::Start(self.cookie));
        self.is_in_parts = true;
        self.open = Some(Box::new(Listing { fd, names: Vec::new() }));
        Ok(())
    }
}

impl Listing {
    /// Lists more names; adds none at the end.
    fn fill(&mut self) -> Result<(), Errno> {
        let mut buffer = [MaybeUninit::uninit(); LISTING_BUFFER];
        let mut entries = RawDir::new(&self.fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                // Another process has removed the directory.
                Err(Errno::NOENT) => break,
                entry => entry?,
            };
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                self.names.push((entry.file_name().to_owned(), entry.next_entry_cookie()));
            }
            if entries.is_buffer_empty() && !self.names.is_empty() {
                break;
            }
        }
        self.names.reverse();
        Ok(())
    }
}

impl RemovalError {
    fn at_root(errno: Errno) -> Self {
        Self { path: Vec::new(), errno }
    }
}
