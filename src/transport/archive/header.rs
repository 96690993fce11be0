//! The header of a member that volio writes: the same for the same name and size, whoever writes it and when.

use crate::error::{Error, Result};
use tar_core::EntryType;
use tar_core::HeaderError;
use tar_core::builder::{HeaderBuilder, PaxBuilder};

/// Archives come in blocks of this many bytes.
pub const BLOCK: usize = 512;
/// The longest name that an ustar header holds; only the blobs of SHA-512 have longer ones.
const NAME_FIELD: usize = 100;
/// Eleven octal digits, 8 GiB. Larger sizes are written in binary, as GNU tar does it and all others read it: a PAX
/// record would need a block more, and when the header is left out for a blob that is still on its way, nobody knows
/// whether that is needed.
const OCTAL_11: u64 = 0o77_777_777_777;

/// The header blocks of a plain file. How many they are depends on the name's length only.
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

/// Nobody's, readable by all, from 1970.
fn plain(name: &str, size: u64) -> Result<HeaderBuilder, HeaderError> {
    let mut header = match size <= OCTAL_11 {
        true => HeaderBuilder::new_ustar(),
        false => HeaderBuilder::new_gnu(),
    };
    header.path(name)?.mode(0o644)?.uid(0)?.gid(0)?.mtime(0)?.size(size)?;
    Ok(header)
}
