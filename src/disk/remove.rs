//! RemovalRules of trees of any depth, and of nothing outside of them.
//!
//! It follows no link and goes through no mount point, also not through one of the same file system. What it needs does
//! not depend on the tree, but for the names that lead to where it is and 48 bytes for each of them: neither stack, nor
//! descriptors, nor the size of a directory. A directory of which the descriptor was closed is found again by `..`, and
//! must then be the same one as before.

use super::directory::{self, FileId, ensure_owner_access, mount_id, open_directory, reopen};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, SeekFrom, fstat, openat, seek, unlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

/// How many directories stay open, with a part of their names: enough that honest trees never reopen one.
const MOST_OPEN: usize = 32;

/// How much of a directory is listed at once, in bytes.
const AT_ONCE: usize = 32 << 10;

/// What is removed, and what stays.
pub(crate) struct RemovalRules<'a> {
    /// Returns whether to go on in this directory, which is on another mount or file system than the one above.
    pub crosses: &'a dyn Fn(BorrowedFd<'_>) -> bool,
    /// Returns whether this name stays; asked in the root of the tree and in directories that were crossed into.
    pub spares: &'a dyn Fn(BorrowedFd<'_>, &CStr) -> bool,
}

impl RemovalRules<'_> {
    /// Everything, but for what is mounted.
    pub const EVERYTHING: RemovalRules<'static> = RemovalRules { crosses: &|_| false, spares: &|_, _| false };
}

/// What a removal has done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// How many entries are gone.
    pub entries: u64,
    /// The path of the first thing that stays because something is mounted on it.
    pub mounted: Option<Vec<u8>>,
}

/// The first thing that could not be removed; all others are gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RemovalError {
    /// The path below the root of the tree, without a leading `/`; empty for the root.
    pub path: Vec<u8>,
    pub errno: Errno,
}

/// Removes all that is in a directory. Directories that something must stay in stay too.
pub(crate) fn contents(root: BorrowedFd<'_>, what: &RemovalRules<'_>) -> Result<Removed, RemovalError> {
    ensure_owner_access(root);
    Remover::new(root, what).map_err(RemovalError::at_root)?.run(None)
}

/// Removes the entry `name` of a directory, with all that is in it; nothing where there is no such entry. Paths begin
/// with the name.
pub(crate) fn entry(
    above: BorrowedFd<'_>,
    name: &CStr,
    what: &RemovalRules<'_>,
) -> Result<Removed, RemovalError> {
    Remover::new(above, what).map_err(RemovalError::at_root)?.run(Some(name))
}

/// A removal that is under way, and the directory that it is in.
struct Remover<'a> {
    what: &'a RemovalRules<'a>,
    /// The directories from the root to the one that it is in.
    levels: Vec<Level>,
    /// The levels from here on are open.
    open_from: usize,
    /// The names of the levels but the root, joined by `/`.
    path: Vec<u8>,
    done: Removed,
    failure: Option<RemovalError>,
}

struct Level {
    identity: FileId,
    mount: Option<u64>,
    /// Where its name begins in the path.
    name_at: usize,
    /// Where its listing goes on; 0 is its beginning.
    cookie: u64,
    /// Whether something was removed from it since its listing began.
    is_changed: bool,
    /// Whether its listing did not come at once. Some file systems then pass over names when others are removed.
    is_in_parts: bool,
    /// How often it was listed from the beginning.
    listings: u8,
    /// Whether names in it may be spared.
    is_boundary: bool,
    open: Option<Box<Listing>>,
}

/// An open directory, and names in it that were not looked at yet, the next one last; each with the place behind it.
struct Listing {
    fd: OwnedFd,
    names: Vec<(CString, u64)>,
}

/// Somebody who makes files faster than they are removed must not keep a removal going.
const MOST_LISTINGS: u8 = 8;

enum Taken {
    Removed,
    Gone,
    Mounted,
    Entered,
}

impl<'a> Remover<'a> {
    fn new(root: BorrowedFd<'_>, what: &'a RemovalRules<'a>) -> Result<Self, Errno> {
        let fd = open_directory(root, b".")?;
        let level = Level::new(fd, 0, true)?;
        Ok(Self {
            what,
            levels: vec![level],
            open_from: 0,
            path: Vec::new(),
            done: Removed::default(),
            failure: None,
        })
    }

    /// Removes the entry of that name, or all entries of the root.
    fn run(mut self, only: Option<&CStr>) -> Result<Removed, RemovalError> {
        let above = usize::from(only.is_some());
        if let Some(name) = only {
            self.take(name);
        }
        while self.levels.len() > above {
            match self.next_name() {
                Ok(Some(name)) => self.take(&name),
                Ok(None) => self.leave(),
                Err(errno) => {
                    self.fail(None, errno);
                    self.leave();
                }
            }
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(self.done),
        }
    }

    fn next_name(&mut self) -> Result<Option<CString>, Errno> {
        let Some(level) = self.levels.last_mut() else { return Ok(None) };
        let Some(listing) = &mut level.open else { return Ok(None) };
        loop {
            if let Some((name, cookie)) = listing.names.pop() {
                level.cookie = cookie;
                match level.is_boundary && (self.what.spares)(listing.fd.as_fd(), &name) {
                    true => continue,
                    false => return Ok(Some(name)),
                }
            }
            level.is_in_parts |= level.cookie != 0;
            listing.fill()?;
            if !listing.names.is_empty() {
                continue;
            }
            let is_again = level.is_changed && level.is_in_parts && level.listings < MOST_LISTINGS;
            if !is_again {
                return Ok(None);
            }
            seek(&listing.fd, SeekFrom::Start(0))?;
            (level.cookie, level.is_changed, level.is_in_parts) = (0, false, false);
            level.listings += 1;
        }
    }

    /// Removes an entry of the directory that it is in, or goes into it.
    fn take(&mut self, name: &CStr) {
        match self.take_one(name) {
            Ok(Taken::Removed) => self.count(),
            Ok(Taken::Mounted) => self.spare(name),
            Ok(Taken::Gone | Taken::Entered) => {}
            Err(errno) => self.fail(Some(name), errno),
        }
    }

    fn take_one(&mut self, name: &CStr) -> Result<Taken, Errno> {
        let Some(Level { open: Some(listing), identity, mount, .. }) = self.levels.last() else {
            return Err(Errno::STALE);
        };
        let above = listing.fd.as_fd();
        match unlinkat(above, name, AtFlags::empty()) {
            Ok(()) => return Ok(Taken::Removed),
            Err(Errno::NOENT) => return Ok(Taken::Gone),
            // POSIX says the latter; some file systems do.
            Err(Errno::ISDIR | Errno::PERM) => {}
            // A file on which something is mounted.
            Err(Errno::BUSY) => return Ok(Taken::Mounted),
            Err(errno) => return Err(errno),
        }
        let open = |how| {
            openat(above, name, how | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        };
        let (fd, is_closed) = match open(OFlags::RDONLY) {
            Err(Errno::NOENT) => return Ok(Taken::Gone),
            // It is no directory, and what was wrong was the permission.
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(Errno::PERM),
            Err(Errno::ACCESS) => (open(OFlags::PATH)?, true),
            opened => (opened?, false),
        };
        let is_boundary = fstat(&fd)?.st_dev != identity.device
            || mount_id(&fd) != *mount
            || (mount.is_none() && directory::is_mount_point(fd.as_fd()));
        if is_boundary && !(self.what.crosses)(fd.as_fd()) {
            return Ok(Taken::Mounted);
        }
        ensure_owner_access(fd.as_fd());
        let fd = if is_closed { reopen(fd.as_fd())? } else { fd };
        let level = Level::new(fd, self.path.len(), is_boundary)?;
        self.enter(name, level);
        Ok(Taken::Entered)
    }

    fn enter(&mut self, name: &CStr, level: Level) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name.to_bytes());
        self.levels.push(level);
        if self.levels.len() - self.open_from > MOST_OPEN {
            self.levels[self.open_from].open = None;
            self.open_from += 1;
        }
    }

    /// Goes up, and removes the directory that it was in unless something is left in it.
    fn leave(&mut self) {
        let Some(below) = self.levels.pop() else { return };
        let Some(level) = self.levels.last_mut() else { return };
        let name = self.path.split_off(below.name_at);
        let name = name.strip_prefix(b"/").unwrap_or(&name);
        // No name has a zero byte: it came as a C string.
        let name = CString::new(name).unwrap_or_default();
        if level.open.is_none() {
            if let Err(errno) = level.open_above(&below) {
                // Nothing is known any more of where it is.
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
            Err(Errno::BUSY) => self.spare(&name),
            Err(errno) => self.fail(Some(&name), errno),
        }
    }

    fn count(&mut self) {
        self.done.entries += 1;
        if let Some(level) = self.levels.last_mut() {
            level.is_changed = true;
        }
    }

    /// Notes that something is mounted on this entry.
    fn spare(&mut self, name: &CStr) {
        if self.done.mounted.is_none() {
            self.done.mounted = Some(self.proc_path(Some(name)));
        }
    }

    /// Notes that this entry, or the directory that it is in, cannot be removed.
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
            identity: FileId::from(&fstat(&fd)?),
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

    /// Opens it again from a directory in it, and insists that it is what it was.
    fn open_above(&mut self, below: &Self) -> Result<(), Errno> {
        let Some(listing) = &below.open else { return Err(Errno::STALE) };
        let fd = open_directory(listing.fd.as_fd(), b"..")?;
        if FileId::from(&fstat(&fd)?) != self.identity {
            return Err(Errno::STALE);
        }
        // Where that cannot be done, it is listed from its beginning.
        let _ = seek(&fd, SeekFrom::Start(self.cookie));
        self.is_in_parts = true;
        self.open = Some(Box::new(Listing { fd, names: Vec::new() }));
        Ok(())
    }
}

impl Listing {
    /// Reads more names; none at the end.
    fn fill(&mut self) -> Result<(), Errno> {
        let mut buffer = [MaybeUninit::uninit(); AT_ONCE];
        let mut entries = RawDir::new(&self.fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                // Somebody else has removed the directory.
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
