//! Finds the processes that still have a volume mounted.
//!
//! An engine that was killed never reports that its containers are gone, and one that left them running reports nothing
//! when they end. The kernel knows: `/proc/PID/task/TID/mountinfo` of each thread shows what its mount namespace sees.

use crate::disk::mountinfo::{Mount, mounts};
use crate::error::{Error, Result};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The use of a directory by processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InUse {
    /// No process has it mounted.
    No,
    /// This process has it mounted, perhaps among others.
    By(u32),
    /// Not known: only root may read the mounts of other users' processes.
    Unknown,
}

/// The mounts of all mount namespaces at one time.
pub(super) struct MountSnapshot {
    /// The mounts of this process's namespace, in which directories are looked up.
    own: Vec<Mount>,
    /// The mounts of each namespace, with the id of a process in it.
    namespaces: Vec<(u32, Vec<Mount>)>,
    /// Set if some mounts could not be read.
    is_incomplete: bool,
}

/// Returns a process that has the directory, or something below it, mounted in any mount namespace.
///
/// # Errors
///
/// A file in `/proc` cannot be read for another reason than missing rights.
pub(super) fn in_use_by(directory: &Path) -> Result<InUse> {
    MountSnapshot::now()?.in_use_by(directory)
}

impl MountSnapshot {
    /// Reads the mounts of all processes.
    ///
    /// # Errors
    ///
    /// A file in `/proc` cannot be read for another reason than missing rights.
    pub(super) fn now() -> Result<Self> {
        Self::read().map_err(|error| Error::io("cannot find out what processes have mounted", error))
    }

    fn read() -> io::Result<Self> {
        let own = mounts(Path::new("/proc/self"))?;
        let mut snapshot = Self { own, namespaces: Vec::new(), is_incomplete: !geteuid().is_root() };
        // Many processes share a namespace; each one is read once.
        let mut known = BTreeSet::new();
        for process in numeric_entries(Path::new("/proc"))? {
            // Threads are read, not processes: each thread may have a separate mount namespace, and after the first
            // thread has ended (`/proc/PID` is a zombie then, without mounts) the others may still run.
            let tasks = PathBuf::from(format!("/proc/{process}/task"));
            match numeric_entries(&tasks) {
                Ok(numbers) => {
                    for task in numbers {
                        snapshot.add(process, &tasks.join(task.to_string()), &mut known)?;
                    }
                }
                Err(error) => snapshot.skip_unreadable(error)?,
            }
        }
        Ok(snapshot)
    }

    fn add(&mut self, process: u32, task: &Path, known: &mut BTreeSet<PathBuf>) -> io::Result<()> {
        let namespace = match fs::read_link(task.join("ns/mnt")) {
            Ok(namespace) if known.contains(&namespace) => return Ok(()),
            Ok(namespace) => Some(namespace),
            Err(_) => None,
        };
        match mounts(task) {
            Ok(mounts) => {
                // Recorded only after the mounts were read: another task of the same namespace may be readable where
                // this one was not.
                known.extend(namespace);
                self.namespaces.push((process, mounts));
                Ok(())
            }
            Err(error) => self.skip_unreadable(error),
        }
    }

    /// Ignores tasks that have ended, and tasks that may not be read.
    fn skip_unreadable(&mut self, error: io::Error) -> io::Result<()> {
        match Errno::from_io_error(&error) {
            // A task without mounts is about to end.
            Some(Errno::NOENT | Errno::SRCH | Errno::INVAL) => Ok(()),
            Some(Errno::ACCESS | Errno::PERM) => {
                self.is_incomplete = true;
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Returns a process that has the directory, or something below it, mounted.
    ///
    /// # Errors
    ///
    /// No known mount covers the directory.
    pub(super) fn in_use_by(&self, directory: &Path) -> Result<InUse> {
        let place = kernel_path(directory, &self.own).ok_or_else(|| {
            Error::failed(format!("cannot find out which file system {} is on", directory.display()))
        })?;
        let KernelPath { device, root, is_mount_point } = place;
        // A disk that is mounted on the directory itself is seen by every process and does not count.
        let is_itself = |mount: &Mount| is_mount_point && mount.at == directory;
        let is_it =
            |mount: &Mount| mount.device == device && mount.root.starts_with(&root) && !is_itself(mount);
        Ok(match self.namespaces.iter().find(|(_, mounts)| mounts.iter().any(is_it)) {
            Some((process, _)) => InUse::By(*process),
            None if self.is_incomplete => InUse::Unknown,
            None => InUse::No,
        })
    }
}

/// Returns the numeric names in a directory.
fn numeric_entries(directory: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(numbers)
}

/// A directory as the kernel names it in mountinfo: device, and path within its file system.
struct KernelPath {
    device: String,
    root: PathBuf,
    /// Set if something is mounted on the directory.
    is_mount_point: bool,
}

fn kernel_path(directory: &Path, mounts: &[Mount]) -> Option<KernelPath> {
    // Of mounts over each other, the last one is the visible one.
    let covering = mounts.iter().filter(|mount| directory.starts_with(&mount.at));
    let mount = covering.max_by_key(|mount| mount.at.components().count())?;
    let rest = directory.strip_prefix(&mount.at).ok()?;
    let root = if rest.as_os_str().is_empty() { mount.root.clone() } else { mount.root.join(rest) };
    Some(KernelPath { device: mount.device.clone(), root, is_mount_point: mount.at == directory })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn a_directory_that_is_mounted_nowhere_is_not_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let directory = fs::canonicalize(directory.path()).unwrap();
        let expected = if geteuid().is_root() { InUse::No } else { InUse::Unknown };
        assert_eq!(in_use_by(&directory).unwrap(), expected);
    }

    #[test]
    #[ignore = "needs root for a mount namespace: run tests/run"]
    fn a_process_whose_main_thread_has_exited_keeps_a_volume_in_use() {
        let temporary = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(temporary.path()).unwrap();
        let (volume, elsewhere) = (root.join("volume"), root.join("elsewhere"));
        fs::create_dir(&volume).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        let script = "import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).pthread_exit(None)";
        let mut process = Command::new("unshare")
            .args(["--mount", "sh", "-c", r#"mount --bind "$1" "$2" && exec python3 -c "$3""#, "sh"])
            .args([&volume, &elsewhere])
            .arg(script)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let stat = format!("/proc/{}/stat", process.id());
        let deadline = Instant::now() + Duration::from_secs(60);
        while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
            assert!(process.try_wait().unwrap().is_none(), "the process has ended");
            assert!(Instant::now() < deadline, "the main thread does not exit");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(in_use_by(&volume).unwrap(), InUse::By(process.id()));
        drop(process.stdin.take());
        process.wait().unwrap();
        assert_eq!(in_use_by(&volume).unwrap(), InUse::No);
    }
}
