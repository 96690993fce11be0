//! The directory that a tree is extracted into, as it is found.

use super::journal;
use super::spool::SpoolDirectory;
use super::trouble;
use crate::disk::directory::is_mount_point;
use crate::disk::lock::FileLock;
use crate::disk::mountinfo;
use crate::disk::remove::{self, Failure, Removal};
use crate::error::{Error, Result};
use crate::tree::TreePath;
use crate::tree::dir_stack::{Descent, names_in, open_directory};
use crate::tree::target_state::{self, TargetState};
use crate::tree::walk::shown;
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

/// Deeper below a target than anybody mounts something.
const DEEPEST_MOUNT: usize = 32;

/// A directory that is there, and that no other volio fills meanwhile.
#[derive(Debug)]
pub struct Target {
    pub(super) path: PathBuf,
    /// As the user knows it, for messages.
    pub(super) shown: String,
    pub(super) root: OwnedFd,
    /// Whether it was made for this.
    pub(super) made: bool,
    /// Whether it is beside the place that it will take.
    pub(super) is_stage: bool,
    _lock: Option<FileLock>,
}

impl Target {
    /// Opens a directory; `None` when there is none. What the user names is followed where it is a link.
    ///
    /// # Errors
    /// When it is no directory, cannot be opened, or is being filled; [`Refused`](crate::error::Kind::Refused).
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat(CWD, path, flags, Mode::empty()) {
            Ok(root) => Self::from_fd(path, root, false).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR) => Err(Error::refused(format!("{} is not a directory", path.display()))),
            Err(errno) => Err(Error::io(format!("cannot open {}", path.display()), errno)),
        }
    }

    /// Opens a directory, and makes it and those above it if they are not there.
    ///
    /// # Errors
    /// As [`open`](Self::open); when it cannot be made.
    pub fn open_or_create(path: &Path) -> Result<Self> {
        if let Some(found) = Self::open(path)? {
            return Ok(found);
        }
        let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
        made.map_err(|error| Error::io(format!("cannot make the directory {}", path.display()), error))?;
        match Self::open(path)? {
            Some(mut found) => {
                found.made = true;
                Ok(found)
            }
            None => Err(Error::io(format!("cannot open {}", path.display()), Errno::NOENT)),
        }
    }

    pub(super) fn from_fd(path: &Path, root: OwnedFd, made: bool) -> Result<Self> {
        let shown = shown(path);
        // Not every file system can do it, and most that are asked have nobody else at work.
        let lock = root.try_clone().and_then(|root| FileLock::try_exclusive(File::from(root)));
        if lock.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return Err(Error::refused(format!("another volio is at work in {}", path.display()))
                .with_hint("wait until it has ended"));
        }
        Ok(Self { path: path.to_owned(), shown, root, made, is_stage: false, _lock: lock.ok() })
    }

    /// Something in it that is not volio's own: nor a `lost+found` of root's, which every new ext4 has, nor an empty
    /// directory that is there for something else to be mounted on.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn foreign_entry(&self) -> Result<Option<TreePath>> {
        held(self.root.as_fd(), &TreePath::root())
            .map(|found| found.something)
            .map_err(|errno| Error::io(format!("cannot list {}", self.path.display()), errno))
    }

    /// What was noted when it was filled: its own record, or where it can have none those of what is mounted below.
    ///
    /// It is complete only when all other file systems that were written to say so too.
    pub fn state(&self) -> Option<TargetState> {
        match target_state::read(self.root.as_fd()) {
            Some(record) if record.at.is_empty() => Some(self.confirmed(record)),
            // It was a part of another target then.
            Some(part) => Some(TargetState { complete: false, content: Value::Null, ..part }),
            None => self.records_below().into_iter().map(|(_, record)| record).reduce(both),
        }
    }

    fn confirmed(&self, record: TargetState) -> TargetState {
        let agrees = |volume_path: &String| {
            let volume = self.directory(&TreePath::parse(volume_path)?)?;
            let theirs = target_state::read(volume.as_fd())?;
            Some(theirs.complete && theirs.content == record.content && theirs.at == *volume_path)
        };
        let is_confirmed = record.volumes.iter().all(|volume| agrees(volume).unwrap_or(false));
        TargetState { complete: record.complete && is_confirmed, ..record }
    }

    /// The records of what is mounted below, where the target itself has none.
    fn records_below(&self) -> Vec<(TreePath, TargetState)> {
        let mut records = Vec::new();
        for path in mounts_below(&self.path) {
            let record = self.directory(&path).and_then(|fd| target_state::read(fd.as_fd()));
            if let Some(record) = record.filter(|record| record.at == target_state::place(&path)) {
                records.push((path, self.confirmed(record)));
            }
        }
        records
    }

    /// What was noted where something is: on each of the file systems that are mounted below and were filled, or, where
    /// there are none, on the target itself. What was emptied since counts no more.
    pub fn filled_states(&self) -> Vec<(TreePath, TargetState)> {
        let mut records = self.records_below();
        let own = || target_state::read(self.root.as_fd()).filter(|record| record.at.is_empty());
        if records.is_empty() {
            records.extend(own().map(|record| (TreePath::root(), record)));
        }
        records.retain(|(path, _)| {
            let directory = self.directory(path);
            directory.is_some_and(|fd| held(fd.as_fd(), path).is_ok_and(|found| found.something.is_some()))
        });
        records
    }

    /// Notes in the records of what is filled that this was refused.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn announce(&self, what: &str) -> Result<()> {
        for (path, _) in self.filled_states() {
            let Some(directory) = self.directory(&path) else { continue };
            let Some(record) = target_state::read(directory.as_fd()) else { continue };
            let record = TargetState { announced: Some(what.to_owned()), ..record };
            target_state::write(directory.as_fd(), &record)
                .map_err(|errno| trouble(&self.shown, "write the record of", &path, errno))?;
        }
        Ok(())
    }

    /// A directory below, reached without following links.
    fn directory(&self, path: &TreePath) -> Option<OwnedFd> {
        let mut descent = Descent::new(fcntl_dupfd_cloexec(&self.root, 0).ok()?);
        descent.go_to(path).ok()?;
        fcntl_dupfd_cloexec(descent.here().ok()?, 0).ok()
    }

    /// Takes away what an earlier run made that was interrupted, as its journal says it, where a record claims that nothing was
    /// there before. Of a stage, which nobody but volio has anything to do with, all goes. Returns how many entries it were.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn remove_interrupted(&self) -> Result<u64> {
        let claims = |directory: BorrowedFd<'_>| {
            target_state::read(directory).is_some_and(|record| record.claims(directory))
        };
        let mut places = vec![TreePath::root()];
        places.extend(self.records_below().into_iter().map(|(path, _)| path));
        let mut removed = 0;
        for path in places {
            let Some(directory) = self.directory(&path).filter(|directory| claims(directory.as_fd())) else {
                continue;
            };
            let contents = match self.is_stage {
                true => {
                    remove::contents(directory.as_fd(), &Removal { crosses: &claims, spares: &is_spared })
                        .map(|removed| removed.entries)
                        .map_err(|Failure { path, errno }| (TreePath::parse(path).unwrap_or_default(), errno))
                }
                false => journal::take_back(directory.as_fd()),
            };
            removed += contents
                .map_err(|(below, errno)| trouble(&self.shown, "remove", &path.append(&below), errno))?;
        }
        Ok(removed)
    }

    /// Where layers can be kept until they are proved: in the target, or where nothing can be made in it, on what is
    /// mounted below with the most room.
    ///
    /// # Errors
    /// When there is no such place.
    pub(super) fn spool(&self) -> Result<SpoolDirectory> {
        let open = |fd: BorrowedFd<'_>| fcntl_dupfd_cloexec(fd, 0);
        let first = match open(self.root.as_fd()).and_then(SpoolDirectory::new) {
            Err(errno @ (Errno::ROFS | Errno::ACCESS | Errno::PERM)) => errno,
            place => return place.map_err(|errno| self.no_spool(errno)),
        };
        let mut volumes: Vec<OwnedFd> =
            mounts_below(&self.path).iter().filter_map(|path| self.directory(path)).collect();
        let free = |fd: &OwnedFd| {
            rustix::fs::fstatvfs(fd).map_or(0, |status| status.f_bavail.saturating_mul(status.f_frsize))
        };
        volumes.sort_by_key(|volume| std::cmp::Reverse(free(volume)));
        let place = volumes.into_iter().find_map(|volume| SpoolDirectory::new(volume).ok());
        place.ok_or_else(|| self.no_spool(first))
    }

    fn no_spool(&self, errno: Errno) -> Error {
        Error::io(format!("cannot spool a layer in {}", self.path.display()), errno)
            .with_hint("layers are proved in the target before they are extracted there")
    }

    /// The directory as the user named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether something is mounted here.
    pub fn is_mount_point(&self) -> bool {
        is_mount_point(self.root.as_fd())
    }

    /// Removes the target if it was made for this and is empty.
    pub fn abandon(self) {
        if self.made {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// The places below a directory on which something is mounted, highest first. None where the kernel does not say.
fn mounts_below(directory: &Path) -> Vec<TreePath> {
    let places = mountinfo::below(directory).unwrap_or_default();
    places.iter().filter_map(|place| TreePath::parse(place.as_os_str().as_bytes())).collect()
}

/// What two file systems below one target tell together.
fn both(one: TargetState, other: TargetState) -> TargetState {
    match one.content == other.content {
        true => {
            TargetState { complete: one.complete && other.complete, alone: one.alone && other.alone, ..one }
        }
        // They were filled with different things, one of them not to its end: together they are nothing.
        false => {
            TargetState { complete: false, alone: one.alone && other.alone, content: Value::Null, ..one }
        }
    }
}

/// What is found in a directory.
#[derive(Default)]
pub(super) struct Holding {
    /// Something that counts.
    pub something: Option<TreePath>,
    /// Whether it leads to something that is mounted.
    leads_to_mount: bool,
}

/// Looks for something in a directory that is not volio's own; `path` is what the directory is called.
pub(super) fn held(directory: BorrowedFd<'_>, path: &TreePath) -> Result<Holding, Errno> {
    let mut found = Holding::default();
    for name in names_in(directory)? {
        if is_spared(directory, &name) {
            continue;
        }
        let path = path.join(name.to_bytes());
        match held_below(directory, &name, &path) {
            Some(below) if below.something.is_none() => found.leads_to_mount = true,
            Some(Holding { something: below @ Some(_), leads_to_mount: true }) => {
                return Ok(Holding { something: below, leads_to_mount: true });
            }
            _ => return Ok(Holding { something: Some(path), ..found }),
        }
    }
    Ok(found)
}

/// What is in a directory that is there for mounts only; `None` for everything else.
fn held_below(above: BorrowedFd<'_>, name: &CStr, path: &TreePath) -> Option<Holding> {
    let fd = open_directory(above, name.to_bytes()).ok()?;
    if path.names().count() > DEEPEST_MOUNT {
        return None;
    }
    let below = held(fd.as_fd(), path).ok()?;
    let is_mounted = is_mount_point(fd.as_fd()) || fstat(&fd).ok()?.st_dev != fstat(above).ok()?.st_dev;
    (is_mounted || below.leads_to_mount).then_some(Holding { leads_to_mount: true, ..below })
}

/// What counts as nothing in the root of a file system or of a target.
fn is_spared(directory: BorrowedFd<'_>, name: &CStr) -> bool {
    let is_lost_and_found = || {
        let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.is_ok_and(|stat| stat.st_uid == 0 && FileType::from_raw_mode(stat.st_mode).is_dir())
    };
    match name.to_bytes() {
        b"lost+found" => is_lost_and_found(),
        _ => target_state::is_ours(directory, name),
    }
}
