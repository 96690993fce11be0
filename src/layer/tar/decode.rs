//! Decodes the headers of a tar archive into an entry.

use super::block::{Dialect, TarBlock, field};
use super::pax::PaxRecords;
use super::sparse::{self, SparseFormat};
use crate::error::{Error, Result};
use crate::tree::{Entry, EntryKind, Metadata, Time, TreePath};

/// The extensions that precede the header of an entry.
#[derive(Debug, Default)]
pub struct Extensions {
    /// The path and the link target of the GNU dialect, if they are too long for a header.
    pub gnu_path: Option<Vec<u8>>,
    pub gnu_link: Option<Vec<u8>>,
    pub pax: Option<Vec<u8>>,
}

impl Extensions {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.gnu_path.is_none() && self.gnu_link.is_none() && self.pax.is_none()
    }
}

/// An entry with the layout of its content.
pub struct Decoded {
    pub entry: Entry,
    /// The size of its content in the archive, in bytes.
    pub stored: u64,
    pub sparse: Option<SparseFormat>,
}

/// Decodes an entry. Its path may be that of a whiteout.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) if it cannot be restored: a path that leaves the tree, an unknown type,
/// an invalid number.
pub fn decode(block: &TarBlock, extensions: Extensions) -> Result<Decoded> {
    let shown = extensions.gnu_path.clone().unwrap_or_else(|| block.path());
    let invalid = |why: &str, name: &[u8]| {
        Error::integrity(format!("the layer's entry {} {why}", name[..name.len().min(300)].escape_ascii()))
    };
    let records = PaxRecords::parse(extensions.pax.as_deref().unwrap_or_default());
    let records = records.map_err(|why| invalid(why, &shown))?;
    let shown = records.path.clone().unwrap_or(shown);
    read(block, extensions, records).map_err(|why| invalid(why, &shown))
}

fn read(block: &TarBlock, extensions: Extensions, records: PaxRecords) -> Result<Decoded, &'static str> {
    let Extensions { gnu_path, gnu_link, .. } = extensions;
    let name = either(gnu_path, records.path)?.unwrap_or_else(|| block.path());
    if name.is_empty() {
        return Err("has no name");
    }
    let path = TreePath::parse(&name).ok_or("has a path that leaves the tree")?;
    let link = either(gnu_link, records.link)?.unwrap_or_else(|| block.text(field::LINK).to_vec());
    let stored = match records.size {
        Some(size) => size,
        None => unsigned(block.number(field::SIZE)).ok_or("has a size that cannot be")?,
    };
    let kind = kind(block, &name, link, stored)?;
    let sparse = match (block.0[field::TYPE], records.sparse, &kind) {
        (b'S', None, _) => Some(sparse::of_header(block).ok_or("has sparse regions that make no sense")?),
        (b'S', Some(_), _) => return Err("is sparse in two ways"),
        (_, Some(_), kind) if !matches!(kind, EntryKind::File { .. }) => return Err("is sparse and no file"),
        (_, sparse, _) => sparse,
    };
    if path.is_root() && kind != EntryKind::Directory {
        return Err("is the root of the tree and no directory");
    }
    // Only files have content, whatever the header says: Go's reader, and with it every engine, has the same rule.
    let stored = if matches!(kind, EntryKind::File { .. }) { stored } else { 0 };
    let id = |pax: Option<u64>, field| {
        let id = pax.or_else(|| unsigned(block.number(field)));
        id.and_then(|id| u32::try_from(id).ok()).ok_or("has an owner or a group that cannot be")
    };
    let header_time = || block.number(field::MTIME).map(|seconds| Time { seconds, nanoseconds: 0 });
    let metadata = Metadata {
        mode: unsigned(block.number(field::MODE)).ok_or("has a mode that cannot be")? as u32 & 0o7777,
        uid: id(records.uid, field::UID)?,
        gid: id(records.gid, field::GID)?,
        mtime: records.mtime.or_else(header_time).ok_or("has a time that cannot be")?,
        xattrs: records.xattrs,
    };
    Ok(Decoded { entry: Entry { path, kind, metadata }, stored, sparse })
}

/// Returns a name that both the GNU dialect and POSIX can give. If they differ, Go's reader uses the one and GNU tar the
/// other, so that is refused.
fn either(gnu: Option<Vec<u8>>, pax: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, &'static str> {
    match (gnu, pax) {
        (Some(gnu), Some(pax)) if gnu != pax => Err("has two names"),
        (gnu, pax) => Ok(gnu.or(pax)),
    }
}

fn kind(block: &TarBlock, name: &[u8], link: Vec<u8>, size: u64) -> Result<EntryKind, &'static str> {
    let device = |field| {
        let number = unsigned(block.number(field)).and_then(|number| u32::try_from(number).ok());
        number.ok_or("is a device whose numbers cannot be")
    };
    Ok(match block.0[field::TYPE] {
        // Archives older than POSIX mark a directory only by a slash at its end.
        0 | b'0' | b'7' if name.ends_with(b"/") => EntryKind::Directory,
        0 | b'0' | b'7' => EntryKind::File { size },
        b'S' if block.dialect() == Dialect::Gnu => EntryKind::File { size },
        b'1' if link.is_empty() => return Err("is a link to nothing"),
        b'1' => match TreePath::parse(&link).ok_or("is a hard link that leaves the tree")? {
            // The root is a directory and has no name that could be written.
            target if target.is_root() => return Err("is a hard link to the root"),
            target => EntryKind::Hardlink { target },
        },
        b'2' => EntryKind::Symlink { target: link },
        b'3' => EntryKind::CharDevice { major: device(field::MAJOR)?, minor: device(field::MINOR)? },
        b'4' => EntryKind::BlockDevice { major: device(field::MAJOR)?, minor: device(field::MINOR)? },
        b'5' => EntryKind::Directory,
        b'6' => EntryKind::Fifo,
        _ => return Err("is of a type that is not known"),
    })
}

fn unsigned(number: Option<i64>) -> Option<u64> {
    u64::try_from(number?).ok()
}
