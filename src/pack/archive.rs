//! A tree from a tar archive.

use crate::error::{Error, Result};
use crate::layer::{Item, LayerReader, decompress};
use crate::progress::Progress;
use crate::tree::StoredTree;
use std::io::{self, Read};
use std::path::Path;

/// Reads a tar archive, as strictly as a layer; it may be compressed with gzip or zstd. `.wh.` in a name means nothing.
///
/// The contents are kept in a file without a name in the directory `spool`: an archive has its entries in any order, and a
/// layer has them in one.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when the archive is malformed or truncated, or no tree can be what it says;
/// those of reading it and of writing to `spool`.
pub fn read_archive(archive: impl Read + Send, spool: &Path, progress: &dyn Progress) -> Result<StoredTree> {
    let contents = tempfile::tempfile_in(spool).map_err(|error| {
        Error::io(format!("cannot keep the contents of the archive in {}", spool.display()), error)
            .with_hint("set TMPDIR to a directory with room for them")
    })?;
    let task = progress.begin("reading the archive", None);
    let plain = decompress(archive).map_err(|error| Error::io("cannot read the archive", error))?;
    let mut reader = LayerReader::new(plain).without_whiteouts();
    let mut tree = StoredTree::new(contents);
    let mut is_empty = true;
    while let Some(item) = reader.next_item().map_err(damaged)? {
        let Item::Entry(entry) = item else { continue };
        is_empty = false;
        tree.add(entry, &mut Counted { content: reader.content(), passed: |bytes| task.advance(bytes) })?;
    }
    let is_complete = reader.has_end_marker();
    // The writer of the archive must not get a broken pipe for the zeros after the end.
    reader.drain().map_err(damaged)?;
    if is_empty {
        return Err(Error::integrity("the archive is empty")
            .with_hint("what writes it may have failed; an empty directory is packed as a directory"));
    }
    if !is_complete {
        return Err(Error::integrity("the archive is truncated: it does not end with blocks of zeros")
            .with_hint(
                "what writes it may have been killed; if it is complete, append 1024 bytes of zeros",
            ));
    }
    tree.finish()
}

/// The error of the reader, which speaks of layers.
fn damaged(error: Error) -> Error {
    Error::new(error.kind(), "the archive cannot be packed").with_source(error)
}

/// Content whose bytes are counted.
struct Counted<C, F> {
    content: C,
    passed: F,
}

impl<C: Read, F: Fn(u64)> Read for Counted<C, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        (self.passed)(read as u64);
        Ok(read)
    }
}

impl<C: crate::tree::Content, F: Fn(u64)> crate::tree::Content for Counted<C, F> {
    fn skip_hole(&mut self) -> u64 {
        self.content.skip_hole()
    }
}
