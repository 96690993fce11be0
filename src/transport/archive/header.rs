//! Tar headers of the members that volio writes. A header depends on the name and the size of its member only.

use crate::error::{Error, Result};
use tar_core::EntryType;
use tar_core::HeaderError;
use tar_core::builder::{HeaderBuilder, PaxBuilder};

/// The size of the blocks of an archive in bytes.
pub const BLOCK: usize = 512;
/// The longest name that an ustar header can hold. Only blobs with a SHA-512 digest have longer names.
const NAME_FIELD: usize = 100;
/// The largest size that eleven octal digits can hold, 8 GiB. Larger sizes are written in binary, as GNU tar does and all
/// programs can read. A PAX record would need another block, and the space for the header is reserved before the size of the
/// blob is known.
const OCTAL_11: u64 = 0o77_777_777_777;

/// Returns the header of a file. Its length depends on the length of the name only.
pub fn encode(name: &str, size: u64) -> Result<Vec<u8>> {
    build(name, size)
        .map_err(|error| Error::failed(format!("{name} does not fit a tar header")).with_source(error))
}

fn build(name: &str, size: u64) -> Result<Vec<u8>, HeaderError> {
    let mut blocks = Vec::with_capacity(BLOCK);
    if name.len() > NAME_FIELD {
        let mut pax = PaxBuilder::new();
        pax.add("path", name);
        let pax = pax.finish();
        let mut header = plain("././@PaxHeader", pax.len() as u64)?;
        blocks.extend_from_slice(header.entry_type(EntryType::XHeader).finish().as_bytes());
        blocks.extend_from_slice(&pax);
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
    }
    let mut header = plain(&name[..name.len().min(NAME_FIELD)], size)?;
    blocks.extend_from_slice(header.entry_type(EntryType::Regular).finish().as_bytes());
    Ok(blocks)
}

/// A header with fixed attributes: mode 0644, owner 0:0, modified in 1970.
fn plain(name: &str, size: u64) -> Result<HeaderBuilder, HeaderError> {
    let mut header = if size <= OCTAL_11 { HeaderBuilder::new_ustar() } else { HeaderBuilder::new_gnu() };
    header.path(name)?.mode(0o644)?.uid(0)?.gid(0)?.mtime(0)?.size(size)?;
    Ok(header)
}
