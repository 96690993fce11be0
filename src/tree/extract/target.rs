//! The directory that a tree is extracted into, as it is found.

use super::io_error;
use super::journal;
use super::spool::SpoolDirectory;
use crate::disk::directory::is_mount_point;
use crate::disk::lock::FileLock;
use crate::disk::mountinfo;
use crate::disk::remove::{self, RemovalError, RemovalRules};
use crate::error::{Error, Result};
use crate::tree::TreePath;
use crate::tree::dir_stack::{DirStack, names_in, open_directory};
use crate::tree::target_state::{self, TargetState};
use crate::tree::walk::display_root;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, statat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use serde_json::Value;
use std::ffi::CStr;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The depth below a target to which mount points are searched for.
const MAX_MOUNT_DEPTH: usize = 32;

/// A directory to extract into, which is locked against other runs of volio.
#[derive(Debug)]
pub struct Target {
    pub(in crate::tree) path: PathBuf,
    /// The path as messages show it.
    pub(in crate::tree) shown: String,
    pub(in crate::tree) root: OwnedFd,
    /// Set when the directory was created for this extraction.
    pub(super) is_created: bool,
    /// Set when this is a staging directory, which takes the place of the target later.
    pub(super) is_stage: bool,
    _lock: Option<FileLock>,
}

impl Target {
    /// Opens a directory; `None` if it does not exist. A symbolic link that the user names is followed.
    ///
    /// # Errors
    /// When it is not a directory, or cannot be opened; [`Refused`](crate::error::Kind::Refused) when it is being filled.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(CWD, path, flags, Mode::empty()) {
            Ok(root) => Self::from_fd(path, root, false).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR) => Err(Error::refused(format!("{} is not a directory", path.display()))),
            Err(errno) => Err(Error::io(format!("cannot open {}", path.display()), errno)),
        }
    }

    /// Opens a directory, and creates it and its ancestors if they do not exist.
    ///
    /// # Errors
    /// As [`open`](Self::open); when it cannot be created.
    pub fn open_or_create(path: &Path) -> Result<Self> {
        if let Some(found) = Self::open(path)? {
            return Ok(found);
        }
        let created = DirBuilder::new().recursive(true).mode(0o755).create(path);
        created.map_err(|error| Error::io(format!("cannot make the directory {}", path.display()), error))?;
        match Self::open(path)? {
            Some(target) => Ok(Self { is_created: true, ..target }),
            None => Err(Error::io(format!("cannot open {}", path.display()), Errno::NOENT)),
        }
    }

    pub(super) fn from_fd(path: &Path, root: OwnedFd, is_created: bool) -> Result<Self> {
        let shown = display_root(path);
        // Where the file system has no locks, the extraction goes on without one.
        let lock = root.try_clone().and_then(|root| FileLock::try_exclusive(File::from(root)));
        if lock.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return Err(Error::refused(format!("another volio is at work in {}", path.display()))
                .with_hint("wait until it has ended")
                .with_retry_after(Duration::ZERO));
        }
        Ok(Self { path: path.to_owned(), shown, root, is_created, is_stage: false, _lock: lock.ok() })
    }

    /// Returns an entry of the directory that is not volio's own, if there is one. A `lost+found` of root, which every new
    /// ext4 has, does not count, nor does an empty directory that is there for something else to be mounted on.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn foreign_entry(&self) -> Result<Option<TreePath>> {
        survey(self.root.as_fd(), &TreePath::root())
            .map(|survey| survey.foreign_entry)
            .map_err(|errno| Error::io(format!("cannot list {}", self.path.display()), errno))
    }

    /// Returns the state that was recorded when the directory was filled: its own, or, if it cannot have one, that of
    /// the file systems mounted in it.
    ///
    /// It is complete only if all other file systems that were written to are complete too.
    pub fn state(&self) -> Option<TargetState> {
        match target_state::read(self.root.as_fd()) {
            Some(state) if state.at.is_empty() => Some(self.confirmed(state)),
            // It was mounted in another target then.
            Some(part) => Some(TargetState { complete: false, content: Value::Null, ..part }),
            None => self.states_below().into_iter().map(|(_, state)| state).reduce(combined),
        }
    }

    /// Returns the state that the directory itself has, if it was recorded there and not on a copy of it.
    pub(crate) fn own_state(&self) -> Option<TargetState> {
        self.state_at(&TreePath::root())
    }

    /// Returns the state of a file system that is mounted in the target, or of the target itself.
    pub(crate) fn state_at(&self, path: &TreePath) -> Option<TargetState> {
        let directory = self.directory(path)?;
        let state = target_state::read(directory.as_fd())?;
        let is_its_own = state.at == target_state::path_text(path) && state.is_of(directory.as_fd());
        is_its_own.then_some(state)
    }

    /// Returns whether a mount point in the target holds something that is not volio's own.
    pub(crate) fn is_mount_empty(&self, path: &TreePath) -> bool {
        let survey = self.directory(path).and_then(|fd| survey(fd.as_fd(), path).ok());
        survey.is_some_and(|survey| survey.foreign_entry.is_none())
    }

    /// Returns whether a directory in the target has no entries.
    pub(crate) fn is_empty_below(&self, path: &TreePath) -> bool {
        self.directory(path).is_some_and(|fd| names_in(fd.as_fd()).is_ok_and(|names| names.is_empty()))
    }

    /// Returns a state that is complete only if the states of all its volumes confirm that.
    fn confirmed(&self, state: TargetState) -> TargetState {
        let agrees = |volume_path: &String| {
            let volume = self.directory(&TreePath::parse(volume_path)?)?;
            let theirs = target_state::read(volume.as_fd())?;
            Some(theirs.complete && theirs.content == state.content && theirs.at == *volume_path)
        };
        let is_confirmed = state.volumes.iter().all(|volume| agrees(volume).unwrap_or(false));
        TargetState { complete: state.complete && is_confirmed, ..state }
    }

    /// Returns the states of the file systems mounted in the target.
    fn states_below(&self) -> Vec<(TreePath, TargetState)> {
        let mut states = Vec::new();
        for path in mounts_below(&self.path) {
            let state = self.directory(&path).and_then(|fd| target_state::read(fd.as_fd()));
            if let Some(state) = state.filter(|state| state.at == target_state::path_text(&path)) {
                states.push((path, self.confirmed(state)));
            }
        }
        states
    }

    /// Returns the states of the file systems mounted in the target that were filled, or, if there are none, that of the
    /// target itself. A directory that was emptied since does not count.
    pub fn filled_states(&self) -> Vec<(TreePath, TargetState)> {
        let mut states = self.states_below();
        let own = || target_state::read(self.root.as_fd()).filter(|state| state.at.is_empty());
        if states.is_empty() {
            states.extend(own().map(|state| (TreePath::root(), state)));
        }
        states.retain(|(path, _)| {
            let directory = self.directory(path);
            directory
                .is_some_and(|fd| survey(fd.as_fd(), path).is_ok_and(|survey| survey.foreign_entry.is_some()))
        });
        states
    }

    /// Records in the states of what is filled that this content was refused.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn announce(&self, content: &str) -> Result<()> {
        for (path, _) in self.filled_states() {
            let Some(directory) = self.directory(&path) else { continue };
            let Some(state) = target_state::read(directory.as_fd()) else { continue };
            let state = TargetState { announced: Some(content.to_owned()), ..state };
            target_state::write(directory.as_fd(), &state)
                .map_err(|errno| io_error("write the record of", &self.shown, &path, errno))?;
        }
        Ok(())
    }

    /// Opens a directory in the target, without following links.
    fn directory(&self, path: &TreePath) -> Option<OwnedFd> {
        let mut stack = DirStack::new(fcntl_dupfd_cloexec(&self.root, 0).ok()?);
        stack.goto(path).ok()?;
        fcntl_dupfd_cloexec(stack.here().ok()?, 0).ok()
    }

    /// Removes what an interrupted run created, as its journal lists it, where the state says that nothing was there
    /// before. A staging directory, which only volio uses, is emptied. Returns the number of removed entries.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn remove_interrupted(&self) -> Result<u64> {
        let claims = |directory: BorrowedFd<'_>| {
            target_state::read(directory).is_some_and(|state| state.claims(directory))
        };
        let mut paths = vec![TreePath::root()];
        paths.extend(self.states_below().into_iter().map(|(path, _)| path));
        let mut removed = 0;
        for path in paths {
            let Some(directory) = self.directory(&path).filter(|directory| claims(directory.as_fd())) else {
                continue;
            };
            let entries = if self.is_stage {
                let rules = RemovalRules { crosses: &claims, spares: &is_spared };
                remove::contents(directory.as_fd(), &rules).map(|removed| removed.entries).map_err(
                    |RemovalError { path, errno }| (TreePath::parse(path).unwrap_or_default(), errno),
                )
            } else {
                journal::remove_entries(directory.as_fd())
            };
            removed += entries
                .map_err(|(below, errno)| io_error("remove", &self.shown, &path.append(&below), errno))?;
        }
        Ok(removed)
    }

    /// Returns a directory in which layers can be stored until they are verified: the target, or, if no file can be
    /// created in it, the file system mounted in it with the most free space.
    ///
    /// # Errors
    /// When there is no such directory.
    pub(crate) fn spool(&self) -> Result<SpoolDirectory> {
        let open = |fd: BorrowedFd<'_>| fcntl_dupfd_cloexec(fd, 0);
        let first = match open(self.root.as_fd()).and_then(SpoolDirectory::new) {
            Err(errno @ (Errno::ROFS | Errno::ACCESS | Errno::PERM)) => errno,
            spool => return spool.map_err(|errno| self.spool_error(errno)),
        };
        let mut volumes: Vec<OwnedFd> =
            mounts_below(&self.path).iter().filter_map(|path| self.directory(path)).collect();
        let free = |fd: &OwnedFd| {
            rustix::fs::fstatvfs(fd).map_or(0, |status| status.f_bavail.saturating_mul(status.f_frsize))
        };
        volumes.sort_by_key(|volume| std::cmp::Reverse(free(volume)));
        let spool = volumes.into_iter().find_map(|volume| SpoolDirectory::new(volume).ok());
        spool.ok_or_else(|| self.spool_error(first))
    }

    /// Returns the number of bytes that this user may still write to the file system of a directory in the target.
    pub(crate) fn free_space(&self, path: &TreePath) -> Option<u64> {
        let status = rustix::fs::fstatvfs(self.directory(path)?).ok()?;
        // A file system without a size, such as ramfs, does not report its free space either.
        (status.f_blocks > 0).then(|| status.f_bavail.saturating_mul(status.f_frsize))
    }

    fn spool_error(&self, errno: Errno) -> Error {
        let error = Error::io(format!("cannot write to {}", self.path.display()), errno);
        match errno {
            Errno::ROFS | Errno::ACCESS | Errno::PERM => {
                error.with_hint("choose a directory that you can write to")
            }
            _ => error,
        }
    }

    /// The path of the directory as the user named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the directory is a mount point.
    pub fn is_mount_point(&self) -> bool {
        is_mount_point(self.root.as_fd())
    }

    /// Removes the directory if it was created for this extraction and is empty.
    pub fn abandon(self) {
        if self.is_created {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Returns the mount points below a directory, highest first. Empty if the kernel does not list mounts.
fn mounts_below(directory: &Path) -> Vec<TreePath> {
    let mounts = mountinfo::below(directory).unwrap_or_default();
    mounts.iter().filter_map(|path| TreePath::parse(path.as_os_str().as_bytes())).collect()
}

/// Combines the states of two file systems in one target.
fn combined(one: TargetState, other: TargetState) -> TargetState {
    let was_empty = one.was_empty && other.was_empty;
    if one.content == other.content {
        TargetState { complete: one.complete && other.complete, was_empty, ..one }
    } else {
        // They were filled with different contents, so that together they are neither.
        TargetState { complete: false, was_empty, content: Value::Null, ..one }
    }
}

/// The contents of a directory, as far as they matter.
#[derive(Default)]
pub(super) struct Survey {
    /// An entry that is not volio's own.
    pub foreign_entry: Option<TreePath>,
    /// Set when the directory leads to a mount point.
    leads_to_mount: bool,
}

/// Searches a directory for an entry that is not volio's own; `path` is the path of the directory.
pub(super) fn survey(directory: BorrowedFd<'_>, path: &TreePath) -> Result<Survey, Errno> {
    let mut found = Survey::default();
    for name in names_in(directory)? {
        if is_spared(directory, &name) {
            continue;
        }
        let path = path.join(name.to_bytes());
        match survey_mounts(directory, &name, &path) {
            Some(below) if below.foreign_entry.is_none() => found.leads_to_mount = true,
            Some(below @ Survey { leads_to_mount: true, .. }) => return Ok(below),
            _ => return Ok(Survey { foreign_entry: Some(path), ..found }),
        }
    }
    Ok(found)
}

/// Searches a directory that exists for mount points only; `None` for any other entry.
fn survey_mounts(above: BorrowedFd<'_>, name: &CStr, path: &TreePath) -> Option<Survey> {
    let fd = open_directory(above, name.to_bytes()).ok()?;
    if path.names().count() > MAX_MOUNT_DEPTH {
        return None;
    }
    let below = survey(fd.as_fd(), path).ok()?;
    let is_mounted = is_mount_point(fd.as_fd()) || fstat(&fd).ok()?.st_dev != fstat(above).ok()?.st_dev;
    (is_mounted || below.leads_to_mount).then_some(Survey { leads_to_mount: true, ..below })
}

/// Returns whether an entry does not count in the root of a file system or of a target.
pub(in crate::tree) fn is_spared(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    let is_lost_and_found = || {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| stat.st_uid == 0 && FileType::from_raw_mode(stat.st_mode).is_dir())
    };
    match name.to_bytes() {
        b"lost+found" => is_lost_and_found(),
        _ => target_state::is_left_by_volio(directory, name),
    }
}
