//! The walk over a directory that an image is compared with: every entry that a sync may replace or remove, with its
//! attributes, and without its content.
//!
//! A mount point is yielded, and not entered: whether its contents belong to the tree is decided by the image. They are
//! walked by [`TargetWalk::below`].

use super::dir_stack::{DirStack, FileId, names_from, names_in, open_directory};
use super::extract::Target;
use super::walk::entry_kind;
use super::xattr::{XattrReader, XattrSource};
use super::{EntryKind, FileContent, Metadata, Time, TreePath};
use crate::disk::directory::{ensure_owner_access, mount_id};
use crate::disk::working_directory;
use crate::error::{Error, Result};
use crate::tree::activity::Care;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, Statx, StatxAttributes, StatxFlags, StatxTimestamp, fstat,
    makedev, openat, readlinkat, statat, statx,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec, pread, retry_on_intr};
use std::ffi::{CStr, CString};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::vec;

/// An entry of a target.
#[derive(Debug)]
pub(crate) struct FoundEntry {
    /// The path in the target.
    pub path: TreePath,
    /// The kind, and never a hard link; `None` for a socket, which no image has.
    pub kind: Option<EntryKind>,
    /// The attributes. Extended attributes that belong to the host are left out.
    pub metadata: Metadata,
    /// The identity of the inode.
    pub id: FileId,
    /// The number of names of the inode.
    pub links: u64,
    /// The time of the last change of the inode (ctime).
    pub changed: Time,
    /// Set if something is mounted there. A directory was not entered then.
    pub is_mount_point: bool,
    /// Set if the attributes are not all known, or the directory was made accessible, so that they have to be set.
    pub is_opened_up: bool,
}

/// The state of a regular file, which tells whether another process has changed it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileState {
    /// The identity of the inode.
    pub id: FileId,
    /// The number of names of the inode.
    links: u64,
    size: u64,
    mtime: Time,
    /// The time of the last change of the inode (ctime).
    changed: Time,
}

/// The flags for opening a file without changing its atime, and without waiting if it is a fifo by now.
const QUIETLY: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOATIME)
    .union(OFlags::CLOEXEC);

/// The reaction to a directory that its owner may not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClosedDirectory {
    /// It is made accessible, and its entry says so.
    OpenUp,
    /// It is an error.
    Fail,
}

/// The entries of a target in the order of [`TreePath`], without what volio records there.
pub(crate) struct TargetWalk {
    shown: String,
    stack: DirStack,
    levels: Vec<Level>,
    xattrs: XattrReader,
    closed: ClosedDirectory,
    /// Directories with longer paths, in bytes, are not entered: no image has entries in them.
    max_path: usize,
}

/// A directory that is being read.
struct Level {
    names: vec::IntoIter<CString>,
    device: u64,
    mount: Option<u64>,
}

impl TargetWalk {
    /// Creates a walk over what is in a directory of the target, which may be a mount point. The directory itself is
    /// not yielded. `max_path` is the longest path of an image in bytes; directories with longer ones are not entered.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn below(
        target: &Target,
        directory: &TreePath,
        closed: ClosedDirectory,
        max_path: u64,
    ) -> Result<Self> {
        let shown = target.shown.clone();
        let begin = || {
            let mut stack = DirStack::new(fcntl_dupfd_cloexec(&target.root, 0)?);
            stack.goto(directory)?;
            let here = stack.here()?;
            let mut names = names_in(here)?;
            // A `lost+found` that cannot be read stays as well.
            let is_readable = |name: &CStr| {
                open_directory(here, name.to_bytes()).and_then(|fd| names_in(fd.as_fd())).is_ok()
            };
            names.retain(|name| {
                let is_lost_and_found = name.to_bytes() == b"lost+found" && is_readable(name);
                is_lost_and_found || !super::extract::is_spared(here, name)
            });
            let level = Level::new(here, &fstat(here)?, names);
            Ok((stack, level))
        };
        let (stack, level) = begin().map_err(|errno| read_error(&shown, directory, errno))?;
        Ok(Self {
            shown,
            stack,
            levels: vec![level],
            xattrs: XattrReader::new(),
            closed,
            max_path: usize::try_from(max_path).unwrap_or(usize::MAX),
        })
    }

    /// Returns the number of the mount that has the directory which is being read.
    pub fn mount(&self) -> Option<u64> {
        self.levels.last().and_then(|level| level.mount)
    }

    /// Returns the entry of the target itself.
    ///
    /// # Errors
    /// When its attributes cannot be read.
    pub fn root(target: &Target) -> Result<FoundEntry> {
        let path = TreePath::root();
        let mut xattrs = XattrReader::new();
        let found = fstat(&target.root).and_then(|stat| {
            let mut found = FoundEntry::new(path.clone(), &stat);
            found.metadata.xattrs = xattrs.read(XattrSource::Open(target.root.as_fd()))?;
            Ok(found)
        });
        found.map_err(|errno| read_error(&target.shown, &path, errno))
    }

    fn advance(&mut self) -> Result<Option<FoundEntry>> {
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.next() else {
                self.levels.pop();
                if !self.levels.is_empty() {
                    self.stack.leave();
                }
                continue;
            };
            match self.visit(&name) {
                Ok(found) => return Ok(Some(found)),
                // It was removed since the directory was listed.
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    let path = self.stack.path().join(name.to_bytes());
                    return Err(read_error(&self.shown, &path, errno));
                }
            }
        }
        Ok(None)
    }

    fn visit(&mut self, name: &CStr) -> Result<FoundEntry, Errno> {
        let path = self.stack.path().join(name.to_bytes());
        let Some(Level { device, mount, .. }) = self.levels.last() else { return Err(Errno::NOENT) };
        let (here, visit) = self.stack.visited()?;
        let (mut found, is_mounted) = stat_entry(path, here, name)?;
        found.is_mount_point = is_mounted.is_mount_point(*mount, found.id.device != *device);
        if matches!(found.kind, Some(EntryKind::Symlink { .. })) {
            found.kind =
                Some(EntryKind::Symlink { target: readlinkat(here, name, Vec::new())?.into_bytes() });
        }
        let may_enter = !found.is_mount_point && found.path.as_bytes().len() <= self.max_path;
        if found.kind == Some(EntryKind::Directory) && may_enter {
            return self.enter(name, found);
        }
        // The attributes of an open file are found in less time than by a path through `/proc`.
        let is_opened =
            matches!(found.kind, Some(EntryKind::File { .. })) && !working_directory::is_separate();
        let file = is_opened.then(|| openat(here, name, QUIETLY, Mode::empty()).ok()).flatten();
        let source = match &file {
            Some(file) => XattrSource::Open(file.as_fd()),
            None => XattrSource::Visited(here, visit, name),
        };
        match self.xattrs.read(source) {
            Ok(xattrs) => found.metadata.xattrs = xattrs,
            // The owner of a file that nobody may read cannot read its attributes either.
            Err(Errno::ACCESS) => found.is_opened_up = true,
            Err(errno) => return Err(errno),
        }
        Ok(found)
    }

    fn enter(&mut self, name: &CStr, mut found: FoundEntry) -> Result<FoundEntry, Errno> {
        let fd = open_directory(self.stack.here()?, name.to_bytes())?;
        let stat = fstat(&fd)?;
        if FileId::from(&stat) != found.id {
            return Err(Errno::STALE);
        }
        let names = match names_from(fd.as_fd()) {
            // It is open by O_PATH only, which says why when it is opened to be listed.
            Err(Errno::BADF) => names_in(fd.as_fd()),
            names => names,
        };
        let names = match names {
            Err(Errno::ACCESS) if self.closed == ClosedDirectory::OpenUp => {
                found.is_opened_up = true;
                ensure_owner_access(fd.as_fd());
                names_in(fd.as_fd())?
            }
            names => names?,
        };
        found.metadata.xattrs = match self.xattrs.read(XattrSource::Open(fd.as_fd())) {
            // It is open by O_PATH only.
            Err(Errno::BADF) => {
                found.is_opened_up = true;
                Default::default()
            }
            xattrs => xattrs?,
        };
        self.levels.push(Level::new(fd.as_fd(), &stat, names));
        self.stack.push(name.to_bytes(), fd, &stat);
        Ok(found)
    }
}

impl Iterator for TargetWalk {
    type Item = Result<FoundEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance();
        if next.is_err() {
            self.levels.clear();
        }
        next.transpose()
    }
}

impl Level {
    fn new(fd: BorrowedFd<'_>, stat: &Stat, mut names: Vec<CString>) -> Self {
        names.sort_unstable();
        Self { names: names.into_iter(), device: stat.st_dev, mount: mount_id(fd) }
    }
}

/// The mount of an entry, as far as the kernel reports it.
#[derive(Clone, Copy, Default)]
struct MountOf {
    id: Option<u64>,
    is_root: bool,
}

impl MountOf {
    fn is_mount_point(self, above: Option<u64>, is_other_device: bool) -> bool {
        let is_other_mount = matches!((self.id, above), (Some(here), Some(above)) if here != above);
        self.is_root || is_other_mount || is_other_device
    }
}

/// Returns the status of an entry, and its mount.
fn stat_entry(path: TreePath, above: BorrowedFd<'_>, name: &CStr) -> Result<(FoundEntry, MountOf), Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let status = match statx(above, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID) {
        Ok(status) if has(&status, StatxFlags::BASIC_STATS) => status,
        // Some sandboxes forbid the newer call.
        _ => return Ok((FoundEntry::new(path, &statat(above, name, flags)?), MountOf::default())),
    };
    let found = FoundEntry::of_statx(path, &status);
    // Only what is mounted on can be a mount point, and nothing is mounted on these.
    if matches!(found.kind, Some(EntryKind::Symlink { .. })) {
        return Ok((found, MountOf::default()));
    }
    let id = has(&status, StatxFlags::MNT_ID).then_some(status.stx_mnt_id);
    let root = StatxAttributes::MOUNT_ROOT;
    let is_root = status.stx_attributes_mask.contains(root) && status.stx_attributes.contains(root);
    Ok((found, MountOf { id, is_root }))
}

/// Returns whether the kernel has filled in these fields.
fn has(status: &Statx, fields: StatxFlags) -> bool {
    StatxFlags::from_bits_retain(status.stx_mask).contains(fields)
}

impl FoundEntry {
    /// Returns the state of this file; `None` if it is something else.
    pub fn state(&self) -> Option<FileState> {
        let Self { id, links, metadata: Metadata { mtime, .. }, changed, .. } = *self;
        match self.kind {
            Some(EntryKind::File { size }) => Some(FileState { id, links, size, mtime, changed }),
            _ => None,
        }
    }

    /// Returns whether this is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == Some(EntryKind::Directory)
    }

    fn of_statx(path: TreePath, status: &Statx) -> Self {
        let mode = u32::from(status.stx_mode);
        let (major, minor) = (status.stx_rdev_major, status.stx_rdev_minor);
        let kind = match FileType::from_raw_mode(mode) {
            FileType::RegularFile => Some(EntryKind::File { size: status.stx_size }),
            FileType::Directory => Some(EntryKind::Directory),
            FileType::Symlink => Some(EntryKind::Symlink { target: Vec::new() }),
            FileType::Fifo => Some(EntryKind::Fifo),
            FileType::CharacterDevice => Some(EntryKind::CharDevice { major, minor }),
            FileType::BlockDevice => Some(EntryKind::BlockDevice { major, minor }),
            FileType::Socket | FileType::Unknown => None,
        };
        let time = |time: StatxTimestamp| Time { seconds: time.tv_sec, nanoseconds: time.tv_nsec };
        Self {
            path,
            kind,
            metadata: Metadata {
                mode: mode & 0o7777,
                uid: status.stx_uid,
                gid: status.stx_gid,
                mtime: time(status.stx_mtime),
                ..Metadata::default()
            },
            id: FileId { device: makedev(status.stx_dev_major, status.stx_dev_minor), inode: status.stx_ino },
            links: u64::from(status.stx_nlink),
            changed: time(status.stx_ctime),
            is_mount_point: false,
            is_opened_up: false,
        }
    }

    fn new(path: TreePath, stat: &Stat) -> Self {
        let is_symlink = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        let kind =
            if is_symlink { Some(EntryKind::Symlink { target: Vec::new() }) } else { entry_kind(stat) };
        // The type of this field differs between processors.
        #[allow(clippy::useless_conversion)]
        let links = u64::from(stat.st_nlink);
        let time = |seconds, nanoseconds| Time { seconds, nanoseconds };
        Self {
            path,
            kind,
            metadata: Metadata {
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                mtime: time(stat.st_mtime, stat.st_mtime_nsec as u32),
                ..Metadata::default()
            },
            id: FileId::from(stat),
            links,
            changed: time(stat.st_ctime, stat.st_ctime_nsec as u32),
            is_mount_point: false,
            is_opened_up: false,
        }
    }
}

impl FileState {
    /// Returns the state of a file; `None` if it is something else.
    pub fn of(stat: &Stat) -> Option<Self> {
        FoundEntry::new(TreePath::root(), stat).state()
    }
}

fn read_error(shown: &str, path: &TreePath, errno: Errno) -> Error {
    match errno {
        Errno::STALE | Errno::NOTDIR | Errno::LOOP => {
            Error::failed(format!("{shown}{path} was replaced while it was read"))
                .with_hint("try again when nothing else works in the directory")
        }
        errno => Error::io(format!("cannot read {shown}{path}"), errno),
    }
}

/// The files of a target, to be read as sources of content.
#[derive(Debug)]
pub(crate) struct TargetFiles {
    root: OwnedFd,
    shown: String,
    /// Stacks that are in the directories of the last files: the next ones are often beside them.
    stacks: Mutex<Vec<DirStack>>,
}

/// An open file of a target.
#[derive(Debug)]
pub(crate) struct TargetFile {
    fd: OwnedFd,
    stat: Stat,
    shown: String,
    path: TreePath,
}

impl TargetFiles {
    /// The files of a target.
    ///
    /// # Errors
    /// When the target cannot be opened again.
    pub fn of(target: &Target) -> Result<Self> {
        let root = fcntl_dupfd_cloexec(&target.root, 0)
            .map_err(|errno| Error::io(format!("cannot open {}", target.path().display()), errno))?;
        Ok(Self { root, shown: target.shown.clone(), stacks: Mutex::default() })
    }

    /// The files of a directory that is only read. `None` if it cannot be opened.
    pub fn at(directory: &Path) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, directory, flags, Mode::empty()).ok()?;
        Some(Self { root, shown: directory.display().to_string(), stacks: Mutex::default() })
    }

    /// Opens a regular file, by single steps that follow no link. `None` if there is none that can be read.
    pub fn open(&self, path: &TreePath) -> Option<TargetFile> {
        let parent = path.parent()?;
        let last = self.stacks.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut stack = match last {
            Some(stack) => stack,
            None => DirStack::new(fcntl_dupfd_cloexec(&self.root, 0).ok()?),
        };
        // After an error the stack is not used again: it may be in a directory that is gone.
        stack.goto(&parent).ok()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(stack.here().ok()?, path.name(), flags, Mode::empty()).ok()?;
        self.stacks.lock().unwrap_or_else(PoisonError::into_inner).push(stack);
        let stat = fstat(&fd).ok().filter(|stat| FileType::from_raw_mode(stat.st_mode).is_file())?;
        Some(TargetFile { fd, stat, shown: format!("{}{path}", self.shown), path: path.clone() })
    }
}

impl TargetFile {
    /// The size in bytes.
    pub fn size(&self) -> u64 {
        self.stat.st_size.unsigned_abs()
    }

    /// The time of the last change of the content.
    pub fn mtime(&self) -> Time {
        Time { seconds: self.stat.st_mtime, nanoseconds: self.stat.st_mtime_nsec as u32 }
    }

    /// Returns the content, from its beginning. Reading fails if the file changes meanwhile.
    pub fn into_content(self) -> FileContent {
        FileContent::on_disk(self.fd, &self.stat, Care::Once, self.shown, self.path)
    }

    /// Reads bytes at an offset into a buffer; fewer than fit only at the end of the file.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let read = retry_on_intr(|| pread(&self.fd, &mut buffer[filled..], offset + filled as u64))?;
            if read == 0 {
                break;
            }
            filled += read;
        }
        Ok(filled)
    }
}
