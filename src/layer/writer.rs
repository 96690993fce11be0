//! Writes entries as a deterministic tar archive and hashes it as it passes.

use super::{header, whiteout};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::stream::HashingWriter;
use crate::tree::{Entry, Kind};
use std::io::{self, Read, Write};

/// What is in a layer: the first half of it, known when all was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The digest of the plain tar archive.
    pub diff_id: Digest,
    /// The size of the plain tar archive in bytes.
    pub size: u64,
    /// How many entries it has.
    pub entries: u64,
    /// How many bytes the files in it have.
    pub bytes: u64,
}

/// A layer in the making. Dropping it abandons the layer; only [`finish`](LayerWriter::finish) seals it.
pub struct LayerWriter<W> {
    archive: HashingWriter<W>,
    buffer: Box<[u8]>,
    entries: u64,
    bytes: u64,
}

/// A read or a write of files costs next to nothing above this size, and it still fits the cache.
const BUFFER: usize = 256 << 10;

impl<W: Write> LayerWriter<W> {
    /// A layer whose plain tar archive goes to `out`.
    pub fn new(out: W) -> Self {
        Self {
            archive: HashingWriter::new(out),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            entries: 0,
            bytes: 0,
        }
    }

    /// Appends an entry; `content` is read for regular files only, and `passed` is told how much was read.
    ///
    /// # Errors
    /// When an image cannot hold the entry, or the content is shorter than the entry says.
    pub fn append(&mut self, entry: &Entry, content: impl Read, passed: impl Fn(u64)) -> Result<()> {
        if let Some(name) = entry.path.names().find(|name| whiteout::is_reserved(name)) {
            return Err(Error::failed(format!(
                "{} cannot be in an image: names that begin with .wh. mean deleted files there ({})",
                entry.path,
                name.escape_ascii()
            ))
            .hint("rename it, or leave it out with --exclude"));
        }
        self.write(&header::encode(entry)?)?;
        if let Kind::File { size } = entry.kind {
            self.copy(entry, size, content, passed)?;
            let padding = size.next_multiple_of(header::BLOCK as u64) - size;
            self.write(&[0; header::BLOCK][..usize::try_from(padding).unwrap_or(0)])?;
            self.bytes += size;
        }
        self.entries += 1;
        Ok(())
    }

    /// Copies exactly `size` bytes: the header has promised them.
    fn copy(&mut self, entry: &Entry, size: u64, mut content: impl Read, passed: impl Fn(u64)) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            let read = match content.read(&mut self.buffer[..most]) {
                Ok(0) => {
                    return Err(Error::failed(format!("{} became shorter while it was read", entry.path))
                        .hint("pack a snapshot, or stop what writes to it"));
                }
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io(format!("cannot read {}", entry.path), error)),
            };
            self.archive.write_all(&self.buffer[..read]).map_err(cannot_write)?;
            passed(read as u64);
            left -= read as u64;
        }
        Ok(())
    }

    /// Ends the archive, and says what is in it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> Result<(W, Contents)> {
        // POSIX: an archive ends with two blocks of zeros. No padding to a tape record beyond that.
        self.write(&[0; 2 * header::BLOCK])?;
        let (out, written) = self.archive.finish();
        let Self { entries, bytes, .. } = self;
        Ok((out, Contents { diff_id: written.digest, size: written.size, entries, bytes }))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.archive.write_all(bytes).map_err(cannot_write)
    }
}

fn cannot_write(error: io::Error) -> Error {
    Error::io("cannot write the layer", error)
}
