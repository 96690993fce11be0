//! Locks on files and directories, among processes and among threads.
//!
//! Where a file system knows no locks, work goes on without them, as that of skopeo and podman does everywhere.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};

/// A file or a directory that is locked until this is dropped.
#[derive(Debug)]
pub struct Locked {
    file: File,
    is_held: bool,
}

impl Locked {
    /// Waits until nobody holds it alone, and keeps others from doing so.
    pub fn shared(file: File) -> io::Result<Self> {
        Self::take(file, FlockOperation::LockShared)
    }

    /// Waits until nobody else holds it.
    pub fn alone(file: File) -> io::Result<Self> {
        Self::take(file, FlockOperation::LockExclusive)
    }

    /// Holds it alone, at once.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when somebody else holds it.
    pub fn alone_at_once(file: File) -> io::Result<Self> {
        Self::take(file, FlockOperation::NonBlockingLockExclusive)
    }

    fn take(file: File, how: FlockOperation) -> io::Result<Self> {
        let is_held = match flock(&file, how) {
            Ok(()) => true,
            Err(error) if knows_no_locks(error) => false,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { file, is_held })
    }

    /// Whether there is a lock: not where the file system knows none.
    pub fn is_held(&self) -> bool {
        self.is_held
    }
}

/// NFS without its lock daemon, Lustre that was mounted without locks, FUSE; and where locks are made of those of
/// `fcntl`, what is open for reading only cannot be locked against others.
fn knows_no_locks(error: Errno) -> bool {
    [Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOLCK, Errno::BADF].contains(&error)
}

impl Drop for Locked {
    /// Closing is not enough: a process that another thread starts meanwhile, such as a credential helper, has a copy of
    /// the descriptor until it has become another program, and would hold the lock as long.
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl DerefMut for Locked {
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
        for take in [Locked::shared, Locked::alone] {
            let held = take(open()).unwrap();
            let _copy = held.try_clone().unwrap();
            assert!(held.is_held());
            assert_eq!(Locked::alone_at_once(open()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            drop(held);
            assert!(Locked::alone_at_once(open()).unwrap().is_held());
        }
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
