//! Reads a tree from a tar archive.

use crate::error::{Error, Kind, Result};
use crate::layer::{Item, LayerReader, decompress};
use crate::progress::{Phase, Progress, TaskInfo};
use crate::tree::StoredTree;
use std::io::{self, Read};
use std::path::Path;

/// Reads a tar archive, as strictly as a layer. It may be compressed with gzip or zstd. Names that begin with `.wh.` are
/// ordinary names.
///
/// The contents are kept in a file without a name in the directory `spool`: an archive has its entries in any order, and a
/// layer must have them sorted.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) if the archive is malformed or truncated, or describes an impossible tree;
/// those of reading it and of writing to `spool`.
pub fn read_archive(archive: impl Read + Send, spool: &Path, progress: &dyn Progress) -> Result<StoredTree> {
    let contents = tempfile::tempfile_in(spool).map_err(|error| {
        Error::io(format!("cannot keep the contents of the archive in {}", spool.display()), error)
            .with_hint("set TMPDIR to a directory with room for them")
    })?;
    let task = progress.begin(&TaskInfo::new(Phase::Reading).about("the archive"));
    let plain = decompress(archive).map_err(|error| Error::io("cannot read the archive", error))?;
    let mut reader = LayerReader::new(plain).without_whiteouts();
    let mut tree = StoredTree::new(contents);
    let mut is_empty = true;
    while let Some(item) = reader.next_item().map_err(|error| damaged(error, is_empty))? {
        let Item::Entry(entry) = item else { continue };
        is_empty = false;
        task.advance_entries(1);
        tree.add(
            entry,
            &mut ObservedContent { content: reader.content(), on_read: |bytes| task.advance(bytes) },
        )?;
    }
    let is_complete = reader.has_end_marker();
    // The writer of the archive must not get a broken pipe for the zeros after its end.
    reader.drain().map_err(|error| damaged(error, false))?;
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

/// Adds context to an error of the reader, because its messages are about layers. Its hints are about options of unpack and
/// are dropped.
fn damaged(error: Error, is_first: bool) -> Error {
    if is_first && error.kind() == Kind::Integrity {
        return Error::integrity("standard input is not a tar archive, or it is truncated");
    }
    Error::new(error.kind(), "the archive cannot be packed").with_source(error)
}

/// Content that reports the number of bytes of each read.
struct ObservedContent<C, F> {
    content: C,
    on_read: F,
}

impl<C: Read, F: Fn(u64)> Read for ObservedContent<C, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        (self.on_read)(read as u64);
        Ok(read)
    }
}

impl<C: crate::tree::Content, F: Fn(u64)> crate::tree::Content for ObservedContent<C, F> {
    fn skip_hole(&mut self) -> u64 {
        self.content.skip_hole()
    }
}
