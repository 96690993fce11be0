//! Locks on files and directories, among processes and among threads.
//!
//! Every user that can open a file can lock it for any time. So each wait for a lock has a deadline, and the error names the
//! process that holds the lock.
//!
//! On a file system without locks, volio works without them, as skopeo and podman do everywhere.

use crate::error::{Error, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, flock, fstat, major, minor, openat, statat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait for a lock that is usually held for a moment only.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest pause between two tries to get a lock.
const PAUSE: Duration = Duration::from_millis(50);

/// A file or a directory that is locked until this is dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    is_held: bool,
}

impl FileLock {
    /// Takes a shared lock, and waits for the end of an exclusive one.
    ///
    /// # Errors
    /// When that takes longer than `timeout`; [`Refused`](crate::error::Kind::Refused).
    pub fn shared(file: File, path: &Path, timeout: Duration) -> Result<Self> {
        Self::wait(file, path, FlockOperation::NonBlockingLockShared, timeout)
    }

    /// Takes an exclusive lock, and waits for the end of all others.
    ///
    /// # Errors
    /// As [`shared`](Self::shared).
    pub fn exclusive(file: File, path: &Path, timeout: Duration) -> Result<Self> {
        Self::wait(file, path, FlockOperation::NonBlockingLockExclusive, timeout)
    }

    /// Takes a shared lock without waiting.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when an exclusive lock is held.
    pub fn try_shared(file: File) -> io::Result<Self> {
        Self::take(&file, FlockOperation::NonBlockingLockShared).map(|is_held| Self { file, is_held })
    }

    /// Takes an exclusive lock without waiting.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when another lock is held.
    pub fn try_exclusive(file: File) -> io::Result<Self> {
        Self::take(&file, FlockOperation::NonBlockingLockExclusive).map(|is_held| Self { file, is_held })
    }

    fn wait(file: File, path: &Path, how: FlockOperation, timeout: Duration) -> Result<Self> {
        let end = Instant::now() + timeout;
        let mut pause = Duration::from_millis(1);
        loop {
            match Self::take(&file, how) {
                Ok(is_held) => return Ok(Self { file, is_held }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(lock_error(path, error)),
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(busy_error(file.as_fd(), path, timeout));
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(PAUSE);
        }
    }

    /// Tries to lock; returns `false` if the file system has no locks.
    #[allow(clippy::disallowed_methods)] // It never waits.
    fn take(file: &File, how: FlockOperation) -> io::Result<bool> {
        match flock(file, how) {
            Ok(()) => Ok(true),
            Err(error) if has_no_locks(error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns whether there is a lock: `false` if the file system has none.
    pub fn is_held(&self) -> bool {
        self.is_held
    }
}

/// The error for a lock that was not released in time.
fn busy_error(file: BorrowedFd<'_>, path: &Path, timeout: Duration) -> Error {
    let holder = match holder(file) {
        Some(process) => format!("the process {process} has"),
        None => "another process has".to_owned(),
    };
    let seconds = timeout.as_secs().max(1);
    let path = path.display();
    Error::refused(format!("cannot lock {path}: {holder} locked it, and has not released it for {seconds} s"))
        .with_hint("try again when that process has ended")
}

fn lock_error(path: &Path, error: impl Into<io::Error>) -> Error {
    Error::io(format!("cannot lock {}", path.display()), error)
}

/// Returns a process that has locked a file, from `/proc/locks` (proc_locks(5)).
fn holder(file: BorrowedFd<'_>) -> Option<u32> {
    let stat = fstat(file).ok()?;
    let wanted = format!("{:02x}:{:02x}:{}", major(stat.st_dev), minor(stat.st_dev), stat.st_ino);
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let fields = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = |fields: Vec<&str>| match fields[..] {
        [_, "FLOCK", _, _, process, inode, ..] if inode == wanted => process.parse().ok(),
        _ => None,
    };
    // 0 is a process in another PID namespace.
    fields.filter_map(found).find(|process| *process != 0)
}

/// A file that exists for its lock only, and that only its owner can open: no other user can hold the lock. It is
/// removed with the lock.
#[derive(Debug)]
pub(crate) struct LockFile {
    directory: OwnedFd,
    name: OsString,
    _lock: FileLock,
}

impl LockFile {
    /// Locks the file at `path`, in the open directory `directory`, and creates it if it does not exist. Waits for the
    /// end of another lock.
    ///
    /// # Errors
    /// As [`FileLock::exclusive`]; when the file cannot be created, or something else has its name.
    pub fn take(directory: BorrowedFd<'_>, path: &Path, timeout: Duration) -> Result<Self> {
        let name = path.file_name().unwrap_or_default();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let end = Instant::now() + timeout;
        loop {
            let open = openat(directory, name, flags, Mode::RUSR | Mode::WUSR);
            let opened = open.and_then(|file| Ok((fstat(&file)?, directory.try_clone_to_owned(), file)));
            let (stat, directory_again, file) = opened.map_err(|error| lock_error(path, error))?;
            let left = end.saturating_duration_since(Instant::now());
            let lock = FileLock::exclusive(File::from(file), path, left)?;
            // The previous holder may have removed it; then the lock is on a file that no other process will find.
            let is_there = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|found| (found.st_dev, found.st_ino) == (stat.st_dev, stat.st_ino));
            if is_there {
                let directory = directory_again.map_err(|error| lock_error(path, error))?;
                return Ok(Self { directory, name: name.to_owned(), _lock: lock });
            }
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Before the lock is released, so that no other process has locked this file.
        let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
    }
}

/// Returns whether an error means that the file system has no locks: NFS without its lock daemon, Lustre mounted
/// without locks, FUSE. Where `flock` is emulated by `fcntl`, a file that is open for reading only cannot be locked
/// exclusively.
fn has_no_locks(error: Errno) -> bool {
    [Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOLCK, Errno::BADF].contains(&error)
}

impl Drop for FileLock {
    /// Unlocks the file. Closing it is not enough: a process that another thread starts meanwhile, such as a credential
    /// helper, has a copy of the descriptor until it calls `exec`, and would hold the lock until then.
    #[allow(clippy::disallowed_methods)] // It never waits.
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl Deref for FileLock {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl DerefMut for FileLock {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_with_its_holder_even_if_another_descriptor_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let open = || File::open(directory.path()).unwrap();
        for take in [FileLock::shared, FileLock::exclusive] {
            let held = take(open(), directory.path(), LOCK_TIMEOUT).unwrap();
            let _copy = held.try_clone().unwrap();
            assert!(held.is_held());
            assert_eq!(FileLock::try_exclusive(open()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            drop(held);
            assert!(FileLock::try_exclusive(open()).unwrap().is_held());
        }
    }

    #[test]
    fn a_wait_for_a_lock_has_an_end_and_the_error_names_the_holder() {
        let directory = tempfile::tempdir().unwrap();
        let open = || File::open(directory.path()).unwrap();
        let held = FileLock::shared(open(), directory.path(), LOCK_TIMEOUT).unwrap();
        assert!(FileLock::shared(open(), directory.path(), Duration::ZERO).is_ok());
        let error = FileLock::exclusive(open(), directory.path(), Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Refused);
        let me = format!("the process {} has locked it", std::process::id());
        assert!(error.to_string().contains(&me) || holder(held.as_fd()).is_none(), "{error}");
        assert!(error.hint().is_some());
        // A lock that is released in time is waited for.
        thread::scope(|scope| {
            let waiting = scope
                .spawn(|| FileLock::exclusive(open(), directory.path(), LOCK_TIMEOUT).unwrap().is_held());
            drop(held);
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn a_lock_file_is_held_by_one_thread_at_a_time_and_removed_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let fd = File::open(directory.path()).unwrap();
        let path = directory.path().join("lock");
        let (inside, count) = (std::sync::atomic::AtomicU32::new(0), 4);
        thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _lock = LockFile::take(fd.as_fd(), &path, LOCK_TIMEOUT).unwrap();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_system_without_locks_is_not_taken_for_a_lock_that_is_held() {
        for error in [Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOLCK, Errno::BADF] {
            assert!(has_no_locks(error), "{error}");
        }
        for error in [Errno::WOULDBLOCK, Errno::AGAIN, Errno::INTR, Errno::IO] {
            assert!(!has_no_locks(error), "{error}");
        }
    }
}
