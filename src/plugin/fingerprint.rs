//! Fingerprints of a volume's content: a hash of its metadata. Content counts as unchanged if size, times and inode
//! are, as in rsync and backup programs; unlike the mtime, the ctime cannot be set.

use crate::error::{Error, Result};
use rustix::fs::{Dir, Mode, OFlags, Stat, fstat, open, openat, statat};
use rustix::{fd::OwnedFd, fs::AtFlags, io::Errno};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::CString;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Longer than a tick of the clock that file systems use for times, so that a change after the fingerprint gets another
/// ctime than a change before it.
const TICK: Duration = Duration::from_millis(20);

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The fingerprint of a directory: its own attributes, and a hash of the metadata of everything in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Fingerprint {
    /// Mode, owner and group of the directory itself. Its times are not included: they change when it is exchanged, and
    /// new or removed entries change the hash of the entries.
    root: (u32, u32, u32),
    entries: String,
}

impl Fingerprint {
    /// Returns `true` if the entries are equal. When Docker creates a container, it gives an empty volume the owner and
    /// mode of the directory that the volume will cover.
    pub(super) fn has_entries_of(&self, other: &Self) -> bool {
        self.entries == other.entries
    }

    #[cfg(test)]
    pub(super) fn named(root: u32, entries: &str) -> Self {
        Self { root: (root, 0, 0), entries: entries.to_owned() }
    }
}

/// Computes the fingerprint of a directory.
///
/// # Errors
///
/// A file cannot be read, or is moved meanwhile.
pub(super) fn fingerprint(directory: &Path) -> Result<Fingerprint> {
    thread::sleep(TICK);
    let mut hash = Sha256::new();
    let root = add_tree(&mut hash, directory)
        .map_err(|errno| Error::io(format!("cannot look through {}", directory.display()), errno))?;
    Ok(Fingerprint {
        root: (root.st_mode, root.st_uid, root.st_gid),
        entries: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

/// A directory after its entries were hashed and before its subdirectories are.
struct PendingDirectory {
    identity: (u64, u64),
    /// The remaining subdirectories, in reverse order.
    below: Vec<CString>,
}

/// Hashes a tree of any depth with one open directory at a time, and returns the status of its root. A container can
/// nest directories deeper than the stack, the descriptor limit or the maximum path length allow.
fn add_tree(hash: &mut Sha256, root: &Path) -> rustix::io::Result<Stat> {
    let mut here = open(root, DIRECTORY, Mode::empty())?;
    let found = fstat(&here)?;
    let mut levels = vec![enter(hash, &here)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.below.pop() {
            here = openat(&here, &name, DIRECTORY, Mode::empty())?;
            levels.push(enter(hash, &here)?);
            continue;
        }
        levels.pop();
        let Some(above) = levels.last() else { break };
        here = openat(&here, "..", DIRECTORY, Mode::empty())?;
        if identity(&fstat(&here)?) != above.identity {
            return Err(Errno::STALE);
        }
    }
    Ok(found)
}

/// Hashes the entries of a directory.
fn enter(hash: &mut Sha256, directory: &OwnedFd) -> rustix::io::Result<PendingDirectory> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.to_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort_unstable();
    add(hash, &[names.len() as u64]);
    let mut below = Vec::new();
    for name in names {
        let found = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        add(hash, &[name.to_bytes().len() as u64]);
        hash.update(name.to_bytes());
        add(
            hash,
            &[
                found.st_mode.into(),
                found.st_uid.into(),
                found.st_gid.into(),
                found.st_size as u64,
                found.st_ino,
                found.st_rdev,
                found.st_mtime as u64,
                found.st_mtime_nsec,
                found.st_ctime as u64,
                found.st_ctime_nsec,
            ],
        );
        if rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir() {
            below.push(name);
        }
    }
    below.reverse();
    Ok(PendingDirectory { identity: identity(&fstat(directory)?), below })
}

fn identity(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

fn add(hash: &mut Sha256, numbers: &[u64]) {
    numbers.iter().for_each(|number| hash.update(number.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mkdirat, unlinkat};
    use std::fs;

    #[test]
    fn every_change_below_changes_it_and_a_new_place_does_not() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("a");
        fs::create_dir_all(root.join("x/y")).unwrap();
        fs::write(root.join("x/y/file"), "1").unwrap();
        let first = fingerprint(&root).unwrap();
        assert_eq!(fingerprint(&root).unwrap(), first);
        fs::rename(&root, place.path().join("b")).unwrap();
        let root = place.path().join("b");
        assert_eq!(fingerprint(&root).unwrap(), first);
        let file = root.join("x/y/file");
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, "2").unwrap();
        fs::File::open(&file).unwrap().set_modified(time).unwrap();
        let second = fingerprint(&root).unwrap();
        assert_ne!(second, first);
        fs::create_dir(root.join("x/z")).unwrap();
        let third = fingerprint(&root).unwrap();
        assert_ne!(third, second);
        fs::rename(root.join("x/z"), root.join("z")).unwrap();
        let fourth = fingerprint(&root).unwrap();
        assert_ne!(fourth, third);
        fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let fifth = fingerprint(&root).unwrap();
        assert!(fifth != fourth && fifth.has_entries_of(&fourth));
    }

    #[test]
    fn directories_nested_deeper_than_any_stack_or_path_are_looked_through() {
        let place = tempfile::tempdir().unwrap();
        let deep = |depth: usize, each: &mut dyn FnMut(&OwnedFd)| {
            let mut here = open(place.path(), DIRECTORY, Mode::empty()).unwrap();
            for _ in 0..depth {
                each(&here);
                here = openat(&here, "d", DIRECTORY, Mode::empty()).unwrap();
            }
            here
        };
        let bottom = deep(15_000, &mut |here| mkdirat(here, "d", Mode::RWXU).unwrap());
        let before = fingerprint(place.path()).unwrap();
        mkdirat(&bottom, "last", Mode::RWXU).unwrap();
        assert_ne!(fingerprint(place.path()).unwrap(), before);
        // Removed here, because a recursive removal cannot.
        unlinkat(&bottom, "last", AtFlags::REMOVEDIR).unwrap();
        let mut here = bottom;
        for _ in 0..15_000 {
            here = openat(&here, "..", DIRECTORY, Mode::empty()).unwrap();
            unlinkat(&here, "d", AtFlags::REMOVEDIR).unwrap();
        }
        drop((here, CWD));
    }
}
