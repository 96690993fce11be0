//! Encodes an entry as headers for tar without PAX support (busybox): with the long names of GNU tar, and without PAX
//! records.
//!
//! busybox ignores PAX records, so a long name would be cut off. Extended attributes and fractions of seconds do not fit
//! into these headers and are lost, as they were with data-io.

use super::format::BLOCK;
use crate::error::{Error, Result};
use crate::tree::{Entry, EntryKind, Metadata};
use tar_core::builder::EntryBuilder;
use tar_core::{EntryType, HeaderError};

/// Returns the header blocks of an entry. Its content, padded to whole blocks, follows them.
///
/// # Errors
/// Fails if the format cannot hold the entry.
pub fn encode(entry: &Entry) -> Result<Vec<u8>> {
    let blocks = blocks(entry).map_err(|error: HeaderError| {
        Error::failed(format!("{} does not fit a tar header", entry.path)).with_source(error)
    })?;
    debug_assert!(blocks.len().is_multiple_of(BLOCK));
    Ok(blocks)
}

fn blocks(entry: &Entry) -> Result<Vec<u8>, HeaderError> {
    let Metadata { mode, uid, gid, mtime, .. } = &entry.metadata;
    let mut header = EntryBuilder::new_gnu();
    header.path(name(entry)).mode(mode & 0o7777)?;
    header.uid((*uid).into())?.gid((*gid).into())?;
    // Not all of these tars understand times before 1970.
    header.mtime(u64::try_from(mtime.seconds).unwrap_or(0))?.size(0)?;
    let entry_type = match &entry.kind {
        EntryKind::File { size } => {
            header.size(*size)?;
            EntryType::Regular
        }
        EntryKind::Directory => EntryType::Directory,
        EntryKind::Symlink { target } => {
            header.link_name(target);
            EntryType::Symlink
        }
        EntryKind::Hardlink { target } => {
            header.link_name(with_dot(target.as_bytes()));
            EntryType::Link
        }
        EntryKind::Fifo => EntryType::Fifo,
        EntryKind::CharDevice { major, minor } => {
            header.device(*major, *minor)?;
            EntryType::Char
        }
        EntryKind::BlockDevice { major, minor } => {
            header.device(*major, *minor)?;
            EntryType::Block
        }
    };
    Ok(header.entry_type(entry_type).finish_bytes())
}

/// Returns the path as `tar -C DIRECTORY .` writes it: it begins with `./`, and that of a directory ends in `/`.
fn name(entry: &Entry) -> Vec<u8> {
    let mut name = with_dot(entry.path.as_bytes());
    if entry.kind == EntryKind::Directory && !entry.path.is_root() {
        name.push(b'/');
    }
    name
}

fn with_dot(path: &[u8]) -> Vec<u8> {
    [b"./", path].concat()
}
