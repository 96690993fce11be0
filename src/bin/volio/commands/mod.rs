//! The commands, one file each: arguments become options, and one verb of the library does the work.

pub mod cat;
pub mod completions;
pub mod copy;
pub mod diff;
pub mod doctor;
pub mod inspect;
pub mod login;
pub mod ls;
pub mod man;
pub mod pack;
pub mod plugin;
pub mod prune;
pub mod rm;
pub mod sign;
pub mod tags;
pub mod unpack;
pub mod verify;

use crate::human::count;
use std::fs::{self, OpenOptions};
use std::path::Path;
use volio::{Digest, Error, Location, Result};

/// Removes the digest of an earlier run, because a file with a digest says that the image exists. Fails if
/// [`write_digest`] would fail: before the work, and not after the image is stored.
fn clear_digestfile(file: Option<&Path>) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let cannot = |error| Error::io(format!("--digestfile: cannot write to {}", file.display()), error);
    let open = OpenOptions::new().write(true).create(true).truncate(false).open(file).map_err(cannot)?;
    if !open.metadata().map_err(cannot)?.is_file() {
        return Ok(());
    }
    let is_link = file.symlink_metadata().map_err(cannot)?.is_symlink();
    if is_link || fs::remove_file(file).is_err() {
        // The target of a link is only emptied, and so is a file that is mounted, such as the termination message of a pod.
        open.set_len(0).map_err(cannot)?;
    }
    Ok(())
}

/// Writes the digest to the file of `--digestfile`, without a newline, as skopeo and podman do.
fn write_digest(file: Option<&Path>, digest: &Digest) -> Result<()> {
    match file {
        Some(file) => fs::write(file, digest.to_string())
            .map_err(|error| Error::io(format!("cannot write the digest to {}", file.display()), error)),
        None => Ok(()),
    }
}

/// Returns the name of an image with its digest instead of its tag.
fn address(location: &Location, digest: &Digest) -> String {
    format!("{}@{digest}", location.without_name())
}

/// Describes images without a tag by their digests.
fn without_tag(digests: &[Digest]) -> String {
    let listed: Vec<String> = digests.iter().map(|digest| format!("@{digest}")).collect();
    format!("{} without a tag: {}", count(digests.len() as u64, "image", "images"), listed.join(", "))
}
