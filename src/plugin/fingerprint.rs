//! Whether a volume has changed: its metadata, hashed. Content is trusted to be as before where size, times and inode are,
//! as rsync and backups do; unlike the mtime, nobody sets the ctime back.

use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A hash of the metadata of everything in a directory, itself included.
pub(super) fn fingerprint(directory: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let found = fs::symlink_metadata(directory);
    found
        .and_then(|found| {
            // Not the root's ctime and mtime: they change when it is swapped into its place. What comes into it or goes
            // out of it changes the list of its entries.
            for number in [u64::from(found.mode()), u64::from(found.uid()), u64::from(found.gid())] {
                hash.update(number.to_le_bytes());
            }
            add_entries(&mut hash, directory)
        })
        .map_err(|error| Error::io(format!("cannot look through {}", directory.display()), error))?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn add_entries(hash: &mut Sha256, directory: &Path) -> io::Result<()> {
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let found = entry.metadata()?;
        let name = entry.file_name();
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        for number in [
            u64::from(found.mode()),
            u64::from(found.uid()),
            u64::from(found.gid()),
            found.size(),
            found.ino(),
            found.rdev(),
        ] {
            hash.update(number.to_le_bytes());
        }
        for number in [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()] {
            hash.update(number.to_le_bytes());
        }
        if found.is_dir() {
            add_entries(hash, &entry.path())?;
            hash.update([0xff]);
        }
    }
    Ok(())
}
