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
pub(super) enum Seen {
    /// By no process.
    ByNobody,
    /// By this process, at least.
    By(u32),
    /// It cannot be found out: others' mounts are root's to read.
    Unknown,
}

/// Looks into every mount namespace for a mount of the directory, or of something in it.
///
/// # Errors
/// When something that is there cannot be read, for another reason than that it is root's.
pub(super) fn seen(directory: &Path) -> Result<Seen> {
    let trouble = |error: io::Error| {
        Error::io(format!("cannot find out which processes see {}", directory.display()), error)
    };
    let place = place(directory).map_err(trouble)?;
    let mut search =
        Search { place, directory, namespaces: BTreeSet::new(), is_hidden: !geteuid().is_root() };
    for process in numbers_in(Path::new("/proc")).map_err(trouble)? {
        // Each thread may have a namespace of its own, and all but the first may still run when that has ended.
        let tasks = format!("/proc/{process}/task");
        let found = numbers_in(Path::new(&tasks)).and_then(|tasks_in_it| {
            tasks_in_it.into_iter().try_fold(false, |found, task| {
                Ok(found || search.task_sees_it(&Path::new(&tasks).join(task.to_string()))?)
            })
        });
        match found {
            Ok(true) => return Ok(Seen::By(process)),
            Ok(false) => {}
            Err(error) => search.pass_over(error).map_err(trouble)?,
        }
    }
    Ok(if search.is_hidden { Seen::Unknown } else { Seen::ByNobody })
}

/// A search for mounts of a directory.
struct Search<'a> {
    place: Place,
    directory: &'a Path,
    /// The namespaces whose mounts were looked at: many processes share one.
    namespaces: BTreeSet<PathBuf>,
    /// Whether there may be mounts that are not ours to see.
    is_hidden: bool,
}

impl Search<'_> {
    fn task_sees_it(&mut self, task: &Path) -> io::Result<bool> {
        let namespace = match fs::read_link(task.join("ns/mnt")) {
            Ok(namespace) if self.namespaces.contains(&namespace) => return Ok(false),
            Ok(namespace) => Some(namespace),
            Err(_) => None,
        };
        match mounts(task) {
            Ok(mounts) => {
                // Only now: another task may be readable where this one was not.
                self.namespaces.extend(namespace);
                Ok(mounts.iter().any(|mount| self.is_it(mount)))
            }
            Err(error) => self.pass_over(error).map(|()| false),
        }
    }

    fn is_it(&self, mount: &Mount) -> bool {
        let Place { device, root, is_mount_point } = &self.place;
        // Where a disk is mounted on the directory itself, everybody sees that mount.
        let is_itself = *is_mount_point && mount.at == self.directory;
        mount.device == *device && mount.root.starts_with(root) && !is_itself
    }

    /// Passes over what has ended, and over what is not ours to see.
    fn pass_over(&mut self, error: io::Error) -> io::Result<()> {
        match Errno::from_io_error(&error) {
            // A task without mounts is about to end.
            Some(Errno::NOENT | Errno::SRCH | Errno::INVAL) => Ok(()),
            Some(Errno::ACCESS | Errno::PERM) => {
                self.is_hidden = true;
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// The entries of a directory that are numbers.
fn numbers_in(directory: &Path) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(numbers)
}

/// The device of a directory and its path within that file system, as the kernel names them.
struct Place {
    device: String,
    root: PathBuf,
    /// Whether something is mounted on it.
    is_mount_point: bool,
}

fn place(directory: &Path) -> io::Result<Place> {
    let mounts = mounts(Path::new("/proc/self"))?;
    // The last of those that lie over each other is the one that is seen.
    let covering = mounts.iter().filter(|mount| directory.starts_with(&mount.at));
    let mount = covering.max_by_key(|mount| mount.at.components().count());
    let mount = mount.ok_or_else(|| io::Error::other("it is below no mount"))?;
    let rest = directory.strip_prefix(&mount.at).map_err(io::Error::other)?;
    let root = if rest.as_os_str().is_empty() { mount.root.clone() } else { mount.root.join(rest) };
    Ok(Place { device: mount.device.clone(), root, is_mount_point: mount.at == directory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_mounted_nowhere_is_seen_by_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let directory = fs::canonicalize(directory.path()).unwrap();
        let expected = if geteuid().is_root() { Seen::ByNobody } else { Seen::Unknown };
        assert_eq!(seen(&directory).unwrap(), expected);
    }
}
