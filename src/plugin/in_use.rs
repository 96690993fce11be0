//! Who really sees a volume. An engine that was killed never says that its containers are gone, and one that left them
//! running says nothing when they end; the kernel knows.

use crate::disk::mountinfo::{Mount, mounts};
use crate::error::{Error, Result};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Whether a directory is mounted somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InUse {
    /// By no process.
    No,
    /// By this process, at least.
    By(u32),
    /// It cannot be found out: others' mounts are root's to read.
    Unknown,
}

/// The mounts of all namespaces at one time.
pub(super) struct MountSnapshot {
    /// Our own, in which directories are looked up.
    own: Vec<Mount>,
    /// Those of each namespace, with the number of a process in it.
    namespaces: Vec<(u32, Vec<Mount>)>,
    /// Whether there may be mounts that are not ours to see.
    is_incomplete: bool,
}

/// Looks into every mount namespace for a mount of the directory, or of something in it.
///
/// # Errors
/// When something that is there cannot be read, for another reason than that it is root's.
pub(super) fn in_use_by(directory: &Path) -> Result<InUse> {
    MountSnapshot::now()?.in_use_by(directory)
}

impl MountSnapshot {
    /// Reads the mounts of all processes.
    ///
    /// # Errors
    /// When something that is there cannot be read, for another reason than that it is root's.
    pub(super) fn now() -> Result<Self> {
        Self::read().map_err(|error| Error::io("cannot find out what processes have mounted", error))
    }

    fn read() -> io::Result<Self> {
        let own = mounts(Path::new("/proc/self"))?;
        let mut snapshot = Self { own, namespaces: Vec::new(), is_incomplete: !geteuid().is_root() };
        // Many processes share one.
        let mut known = BTreeSet::new();
        for process in numeric_entries(Path::new("/proc"))? {
            // Each thread may have a namespace of its own, and all but the first may still run when that has ended.
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
                // Only now: another task may be readable where this one was not.
                known.extend(namespace);
                self.namespaces.push((process, mounts));
                Ok(())
            }
            Err(error) => self.skip_unreadable(error),
        }
    }

    /// Passes over what has ended, and over what is not ours to see.
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

    /// Whether a directory, or something in it, is mounted somewhere.
    ///
    /// # Errors
    /// When the directory is below no mount that is known.
    pub(super) fn in_use_by(&self, directory: &Path) -> Result<InUse> {
        let place = kernel_path(directory, &self.own).ok_or_else(|| {
            Error::failed(format!("cannot find out which file system {} is on", directory.display()))
        })?;
        let KernelPath { device, root, is_mount_point } = place;
        // Where a disk is mounted on the directory itself, everybody sees that mount.
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

/// The entries of a directory that are numbers.
fn numeric_entries(directory: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(numbers)
}

/// The device of a directory and its path within that file system, as the kernel names them.
struct KernelPath {
    device: String,
    root: PathBuf,
    /// Whether something is mounted on it.
    is_mount_point: bool,
}

fn kernel_path(directory: &Path, mounts: &[Mount]) -> Option<KernelPath> {
    // The last of those that lie over each other is the one that is seen.
    let covering = mounts.iter().filter(|mount| directory.starts_with(&mount.at));
    let mount = covering.max_by_key(|mount| mount.at.components().count())?;
    let rest = directory.strip_prefix(&mount.at).ok()?;
    let root = if rest.as_os_str().is_empty() { mount.root.clone() } else { mount.root.join(rest) };
    Some(KernelPath { device: mount.device.clone(), root, is_mount_point: mount.at == directory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_mounted_nowhere_is_seen_by_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let directory = fs::canonicalize(directory.path()).unwrap();
        let expected = if geteuid().is_root() { InUse::No } else { InUse::Unknown };
        assert_eq!(in_use_by(&directory).unwrap(), expected);
    }
}
