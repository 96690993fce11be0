//! Who really sees a volume. An engine that was killed never says that its containers are gone, and one that left them
//! running says nothing when they end; the kernel knows.

use crate::disk::mountinfo::{Mount, mounts};
use rustix::process::geteuid;
use std::collections::BTreeSet;
use std::fs;
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
pub(super) fn seen(directory: &Path) -> Seen {
    let Some(Place { device, root, is_mount_point }) = place(directory) else { return Seen::Unknown };
    let mut namespaces = BTreeSet::new();
    let mut hidden = !geteuid().is_root();
    let Ok(processes) = fs::read_dir("/proc") else { return Seen::Unknown };
    for process in processes.flatten() {
        let Some(number) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Many processes share one.
        if let Ok(namespace) = fs::read_link(process.path().join("ns/mnt"))
            && !namespaces.insert(namespace)
        {
            continue;
        }
        match mounts(&process.path()) {
            Ok(mounts) => {
                // Where a disk is mounted on the directory itself, everybody sees that mount.
                let is_itself = |mount: &Mount| is_mount_point && mount.at == directory;
                let is_it = |mount: &Mount| {
                    mount.device == device && mount.root.starts_with(&root) && !is_itself(mount)
                };
                if mounts.iter().any(is_it) {
                    return Seen::By(number);
                }
            }
            // It has ended meanwhile, or is about to.
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::ACCESS.raw_os_error()) => {}
            Err(_) => hidden = true,
        }
    }
    if hidden { Seen::Unknown } else { Seen::ByNobody }
}

/// The device of a directory and its path within that file system, as the kernel names them.
struct Place {
    device: String,
    root: PathBuf,
    /// Whether something is mounted on it.
    is_mount_point: bool,
}

fn place(directory: &Path) -> Option<Place> {
    let mounts = mounts(Path::new("/proc/self")).ok()?;
    // The last of those that lie over each other is the one that is seen.
    let covering = mounts.iter().filter(|mount| directory.starts_with(&mount.at));
    let mount = covering.max_by_key(|mount| mount.at.components().count())?;
    let rest = directory.strip_prefix(&mount.at).ok()?;
    let root = if rest.as_os_str().is_empty() { mount.root.clone() } else { mount.root.join(rest) };
    Some(Place { device: mount.device.clone(), root, is_mount_point: mount.at == directory })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_mounted_nowhere_is_seen_by_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let directory = fs::canonicalize(directory.path()).unwrap();
        let expected = if geteuid().is_root() { Seen::ByNobody } else { Seen::Unknown };
        assert_eq!(seen(&directory), expected);
    }
}
