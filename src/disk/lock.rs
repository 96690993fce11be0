//! Locks on files and directories, among processes and among threads.
//!
//! Every user who can open a file can lock it, and hold the lock for as long as they like: nobody waits for a lock without an
//! end, and the error says which process has it.
//!
//! Where a file system knows no locks, work goes on without them, as that of skopeo and podman does everywhere.

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

/// How long one who holds a lock for a moment may take.
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
    /// Waits until nobody holds it alone, and keeps others from doing so.
    ///
    /// # Errors
    /// When that takes longer than `patience`; [`Refused`](crate::error::Kind::Refused).
    pub fn shared(file: File, path: &Path, patience: Duration) -> Result<Self> {
        Self::wait(file, path, FlockOperation::NonBlockingLockShared, patience)
    }

    /// Waits until nobody else holds it.
    ///
    /// # Errors
    /// As [`shared`](Self::shared).
    pub fn exclusive(file: File, path: &Path, patience: Duration) -> Result<Self> {
        Self::wait(file, path, FlockOperation::NonBlockingLockExclusive, patience)
    }

    /// Keeps others from holding it alone, at once.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when somebody holds it alone.
    pub fn try_shared(file: File) -> io::Result<Self> {
        Self::take(&file, FlockOperation::NonBlockingLockShared).map(|is_held| Self { file, is_held })
    }

    /// Holds it alone, at once.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when somebody else holds it.
    pub fn try_exclusive(file: File) -> io::Result<Self> {
        Self::take(&file, FlockOperation::NonBlockingLockExclusive).map(|is_held| Self { file, is_held })
    }

    fn wait(file: File, path: &Path, how: FlockOperation, patience: Duration) -> Result<Self> {
        let end = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        loop {
            match Self::take(&file, how) {
                Ok(is_held) => return Ok(Self { file, is_held }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(cannot_lock(path, error)),
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(is_busy(file.as_fd(), path, patience));
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(PAUSE);
        }
    }

    /// Tells whether there is a lock now: not where the file system knows none.
    #[allow(clippy::disallowed_methods)] // It never waits.
    fn take(file: &File, how: FlockOperation) -> io::Result<bool> {
        match flock(file, how) {
            Ok(()) => Ok(true),
            Err(error) if knows_no_locks(error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells whether there is a lock: not where the file system knows none.
    pub fn is_held(&self) -> bool {
        self.is_held
    }
}

/// The error for a lock that others have not given back in time.
fn is_busy(file: BorrowedFd<'_>, path: &Path, patience: Duration) -> Error {
    let holder = match holder(file) {
        Some(process) => format!("the process {process} has"),
        None => "another process has".to_owned(),
    };
    let seconds = patience.as_secs().max(1);
    let path = path.display();
    Error::refused(format!("cannot lock {path}: {holder} locked it, and has not released it for {seconds} s"))
        .with_hint("try again when that process has ended")
}

fn cannot_lock(path: &Path, error: impl Into<io::Error>) -> Error {
    Error::io(format!("cannot lock {}", path.display()), error)
}

/// A process that has locked a file, by `/proc/locks` (proc_locks(5)).
fn holder(file: BorrowedFd<'_>) -> Option<u32> {
    let stat = fstat(file).ok()?;
    let wanted = format!("{:02x}:{:02x}:{}", major(stat.st_dev), minor(stat.st_dev), stat.st_ino);
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let fields = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found = |fields: Vec<&str>| match fields[..] {
        [_, "FLOCK", _, _, process, inode, ..] if inode == wanted => process.parse().ok(),
        _ => None,
    };
    // 0 is a process that is not seen here.
    fields.filter_map(found).find(|process| *process != 0)
}

/// A file that is there for its lock only, and for its owner only: no other user can hold its lock. It goes with the lock.
#[derive(Debug)]
pub(crate) struct LockFile {
    directory: OwnedFd,
    name: OsString,
    _lock: FileLock,
}

impl LockFile {
    /// Makes the file in a directory, which is that of the path, where it is missing, and waits until nobody else holds it.
    ///
    /// # Errors
    /// As [`FileLock::exclusive`]; when there can be no such file, or what has its name is not one.
    pub fn take(directory: BorrowedFd<'_>, path: &Path, patience: Duration) -> Result<Self> {
        let name = path.file_name().unwrap_or_default();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let end = Instant::now() + patience;
        loop {
            let open = openat(directory, name, flags, Mode::RUSR | Mode::WUSR);
            let opened = open.and_then(|file| Ok((fstat(&file)?, directory.try_clone_to_owned(), file)));
            let (stat, directory_again, file) = opened.map_err(|error| cannot_lock(path, error))?;
            let left = end.saturating_duration_since(Instant::now());
            let lock = FileLock::exclusive(File::from(file), path, left)?;
            // The holder before has removed it: what was locked is a file that nobody else will find.
            let is_there = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|found| (found.st_dev, found.st_ino) == (stat.st_dev, stat.st_ino));
            if is_there {
                let directory = directory_again.map_err(|error| cannot_lock(path, error))?;
                return Ok(Self { directory, name: name.to_owned(), _lock: lock });
            }
        }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Before the lock is given back: nobody else has one on it.
        let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
    }
}

/// NFS without its lock daemon, Lustre that was mounted without locks, FUSE; and where locks are made of those of
/// `fcntl`, what is open for reading only cannot be locked against others.
fn knows_no_locks(error: Errno) -> bool {
    [Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOLCK, Errno::BADF].contains(&error)
}

impl Drop for FileLock {
    /// Closing is not enough: a process that another thread starts meanwhile, such as a credential helper, has a copy of
    /// the descriptor until it has become another program, and would hold the lock as long.
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
    fn a_lock_ends_with_its_holder_also_where_a_starting_process_has_a_copy_of_it() {
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
    fn nobody_waits_for_a_lock_without_an_end_and_the_holder_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let open = || File::open(directory.path()).unwrap();
        let held = FileLock::shared(open(), directory.path(), LOCK_TIMEOUT).unwrap();
        assert!(FileLock::shared(open(), directory.path(), Duration::ZERO).is_ok());
        let error = FileLock::exclusive(open(), directory.path(), Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Refused);
        let me = format!("the process {} has locked it", std::process::id());
        assert!(error.to_string().contains(&me) || holder(held.as_fd()).is_none(), "{error}");
        assert!(error.hint().is_some());
        // Whoever gives it back in time is waited for.
        thread::scope(|scope| {
            let waiting = scope
                .spawn(|| FileLock::exclusive(open(), directory.path(), LOCK_TIMEOUT).unwrap().is_held());
            drop(held);
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn many_take_a_lock_file_one_after_the_other_and_leave_nothing() {
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
    fn a_file_system_without_locks_is_told_from_a_lock_that_somebody_holds() {
        for error in [Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOLCK, Errno::BADF] {
            assert!(knows_no_locks(error), "{error}");
        }
        for error in [Errno::WOULDBLOCK, Errno::AGAIN, Errno::INTR, Errno::IO] {
            assert!(!knows_no_locks(error), "{error}");
        }
    }
}
