//! Working directories of single threads, for system calls that take a path and no descriptor of a directory.
//!
//! `llistxattr` and `lgetxattr` with a name in the working directory take half of the time that it takes to open a file,
//! read the attributes and close it. The kernel has no such calls with a descriptor before 6.13.

use rustix::fd::BorrowedFd;
use rustix::io::Result;
use rustix::process::fchdir;
use rustix::thread::UnshareFlags;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// The number of a visit to a directory. No two visits of the process have the same one, so that it says which directory the
/// working directory is, as the number of a descriptor does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visit(u64);

impl Visit {
    /// Begins a visit.
    pub fn begin() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The working directory of a thread.
#[derive(Clone, Copy)]
enum WorkingDirectory {
    /// That of the process, which must not be changed.
    OfProcess,
    /// One of its own, and the visit that it is in.
    OfThread(Option<Visit>),
}

thread_local! {
    static CURRENT: Cell<WorkingDirectory> = const { Cell::new(WorkingDirectory::OfProcess) };
}

/// Gives the current thread a working directory of its own, unless that is forbidden, as in Docker's default sandbox. It must
/// be a thread that was started for one task and resolves no relative path: those of the user mean another directory.
pub(crate) fn separate() {
    if unshare().is_ok() {
        CURRENT.set(WorkingDirectory::OfThread(None));
    }
}

/// Returns whether the current thread has a working directory of its own.
pub(crate) fn is_separate() -> bool {
    matches!(CURRENT.get(), WorkingDirectory::OfThread(_))
}

/// Makes a directory the working directory of the current thread. Returns `false` if that has none of its own, or if the
/// directory cannot be entered.
pub(crate) fn enter(directory: BorrowedFd<'_>, visit: Visit) -> bool {
    match CURRENT.get() {
        WorkingDirectory::OfProcess => false,
        WorkingDirectory::OfThread(Some(current)) if current == visit => true,
        WorkingDirectory::OfThread(_) => {
            let is_entered = fchdir(directory).is_ok();
            CURRENT.set(WorkingDirectory::OfThread(Some(visit).filter(|_| is_entered)));
            is_entered
        }
    }
}

// This function is deprecated because it is unsound with `UnshareFlags::FILES`, after which a thread has other descriptors.
// The one that replaces it is unsafe with all flags.
#[expect(deprecated)]
fn unshare() -> Result<()> {
    rustix::thread::unshare(UnshareFlags::FS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;
    use std::env::current_dir;
    use std::fs::File;
    use std::thread;

    #[test]
    fn the_working_directory_of_a_thread_is_not_that_of_the_others() {
        let (before, one, other) =
            (current_dir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |directory: &tempfile::TempDir| File::open(directory.path()).unwrap();
        let enter = |directory: &tempfile::TempDir, visit| enter(open(directory).as_fd(), visit);
        thread::scope(|scope| {
            scope.spawn(|| {
                separate();
                let (first, second) = (Visit::begin(), Visit::begin());
                for (directory, visit) in [(&one, first), (&other, second), (&one, first)] {
                    let is_entered = enter(directory, visit);
                    assert_eq!(is_entered, is_separate());
                    assert!(
                        !is_entered || current_dir().unwrap() == directory.path().canonicalize().unwrap()
                    );
                }
            });
        });
        assert!(!is_separate() && !enter(&one, Visit::begin()));
        assert_eq!(current_dir().unwrap(), before);
    }
}
