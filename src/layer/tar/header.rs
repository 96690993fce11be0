//! Encodes an entry as headers of a tar archive: ustar, with PAX records for what ustar cannot express.
//!
//! The PAX records are sorted, and there are no GNU extensions. The bytes depend on nothing but the entry.

use super::pax::{XATTR, decimal};
use crate::error::{Error, Result};
use crate::layer::format::BLOCK;
use crate::tree::{Entry, EntryKind, Metadata};
use std::collections::BTreeMap;
use tar_core::builder::{HeaderBuilder, PaxBuilder};
use tar_core::{EntryType, HeaderError};

/// The size of `name` and `linkname` in a ustar header, in bytes. Longer names go into PAX records. The `prefix` field is
/// not used, so that there is one rule instead of two.
const NAME_FIELD: usize = 100;
/// Seven octal digits, the largest `uid`, `gid` and device number of a header.
const OCTAL_7: u32 = 0o7_777_777;
/// Eleven octal digits, the largest `size` and `mtime` of a header: 8 GiB, or the year 2242.
const OCTAL_11: u64 = 0o77_777_777_777;
/// The name of the entry that holds PAX records. Readers ignore it.
const PAX_NAME: &str = "././@PaxHeader";
/// The limit on the PAX records of one entry, in bytes. Go's reader, which docker and containerd use, has the same limit,
/// and so has volio's.
const PAX_LIMIT: usize = 1 << 20;

/// Returns the header blocks of an entry. Its content, padded to whole blocks, follows them.
///
/// # Errors
/// Fails if the format cannot hold the entry: the name of an extended attribute has a `=` or is not UTF-8, or the
/// attributes exceed 1 MiB.
pub fn encode(entry: &Entry) -> Result<Vec<u8>> {
    let records = records(entry)?;
    let mut blocks = Vec::with_capacity(3 * BLOCK);
    let unfit = |error: HeaderError| {
        Error::failed(format!("{} does not fit a tar header", entry.path)).with_source(error)
    };
    if !records.is_empty() {
        let mut pax = PaxBuilder::new();
        for (key, value) in &records {
            pax.add(key, value);
        }
        let pax = pax.finish();
        if pax.len() > PAX_LIMIT {
            return Err(Error::failed(format!(
                "{} has more than 1 MiB of extended attributes, which nobody could unpack",
                entry.path
            ))
            .with_hint("remove some of them, or leave the file out with --exclude"));
        }
        let mut header = HeaderBuilder::new_ustar();
        header.entry_type(EntryType::XHeader).path(PAX_NAME).map_err(unfit)?;
        header.mode(0o644).and_then(|header| header.size(pax.len() as u64)).map_err(unfit)?;
        header.uid(0).and_then(|header| header.gid(0)).and_then(|header| header.mtime(0)).map_err(unfit)?;
        blocks.extend_from_slice(header.finish().as_bytes());
        blocks.extend_from_slice(&pax);
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
    }
    blocks.extend_from_slice(ustar(entry).map_err(unfit)?.as_bytes());
    Ok(blocks)
}

/// Returns the ustar header. A number that is too large is replaced by the largest one that fits.
fn ustar(entry: &Entry) -> Result<tar_core::Header, HeaderError> {
    let Metadata { mode, uid, gid, mtime, .. } = &entry.metadata;
    let mut header = HeaderBuilder::new_ustar();
    let name = archive_name(entry);
    header.path(&name[..name.len().min(NAME_FIELD)])?;
    header.mode(mode & 0o7777)?;
    header.uid((*uid).min(OCTAL_7).into())?.gid((*gid).min(OCTAL_7).into())?;
    header.mtime(u64::try_from(mtime.seconds).unwrap_or(0).min(OCTAL_11))?;
    header.size(0)?;
    let entry_type = match &entry.kind {
        EntryKind::File { size } => {
            header.size((*size).min(OCTAL_11))?;
            EntryType::Regular
        }
        EntryKind::Directory => EntryType::Directory,
        EntryKind::Symlink { target } => {
            header.link_name(&target[..target.len().min(NAME_FIELD)])?;
            EntryType::Symlink
        }
        EntryKind::Hardlink { target } => {
            let target = target.as_bytes();
            header.link_name(&target[..target.len().min(NAME_FIELD)])?;
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
    Ok(header.entry_type(entry_type).finish())
}

/// Returns the PAX records for what the ustar header cannot express, by key.
fn records(entry: &Entry) -> Result<BTreeMap<String, Vec<u8>>> {
    let Metadata { uid, gid, mtime, xattrs, .. } = &entry.metadata;
    let mut records = BTreeMap::new();
    let mut record = |key: &str, value: Vec<u8>| records.insert(key.to_owned(), value);
    let name = archive_name(entry);
    if name.len() > NAME_FIELD {
        record("path", name);
    }
    match &entry.kind {
        EntryKind::Symlink { target } if target.len() > NAME_FIELD => _ = record("linkpath", target.clone()),
        EntryKind::Hardlink { target } if target.as_bytes().len() > NAME_FIELD => {
            record("linkpath", target.as_bytes().to_vec());
        }
        EntryKind::File { size } if *size > OCTAL_11 => _ = record("size", size.to_string().into()),
        _ => {}
    }
    if *uid > OCTAL_7 {
        record("uid", uid.to_string().into());
    }
    if *gid > OCTAL_7 {
        record("gid", gid.to_string().into());
    }
    if mtime.nanoseconds != 0 || !(0..=OCTAL_11.cast_signed()).contains(&mtime.seconds) {
        record("mtime", decimal(*mtime).into());
    }
    for (name, value) in xattrs {
        // The key of a record ends at its first '=', and Go's reader accepts only UTF-8.
        let name = str::from_utf8(name).ok().filter(|name| !name.contains('=')).ok_or_else(|| {
            Error::failed(format!(
                "{} has an extended attribute whose name no tar archive can hold: {}",
                entry.path,
                name.escape_ascii()
            ))
            .with_hint("remove the attribute, or leave the file out with --exclude")
        })?;
        record(&format!("{XATTR}{name}"), value.clone());
    }
    Ok(records)
}

/// Returns the path as it stands in an archive: a directory ends in `/`, and the root is `./`.
pub fn archive_name(entry: &Entry) -> Vec<u8> {
    let mut name = entry.path.as_bytes().to_vec();
    if entry.kind == EntryKind::Directory {
        name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
    }
    name
}
