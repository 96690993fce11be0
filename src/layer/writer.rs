//! Writes entries as a deterministic tar archive and hashes it as it passes.

use super::format::{BLOCK, PIECE};
use super::{Toc, gnu, header, whiteout};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::stream::{HashingWriter, Written};
use crate::tree::{Entry, EntryKind};
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
    /// Where its table of contents stands, if it has one.
    pub toc: Option<Toc>,
}

/// What becomes of the archive of a layer as it is written.
pub trait Archive {
    /// What is left when all was written.
    type Out;

    /// Takes the header of the next entry.
    fn header(&mut self, entry: &Entry, header: &[u8]) -> io::Result<()>;

    /// Takes content of that entry. All pieces but the last have multiples of 64 KiB.
    fn content(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Ends the entry, or the archive, with zeros.
    fn end(&mut self, padding: &[u8]) -> io::Result<()>;

    /// Ends all, and says what the archive was.
    fn seal(self) -> Result<(Self::Out, Written, Option<Toc>)>;
}

/// A plain archive.
impl<W: Write> Archive for HashingWriter<W> {
    type Out = W;

    fn header(&mut self, _entry: &Entry, header: &[u8]) -> io::Result<()> {
        self.write_all(header)
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn end(&mut self, padding: &[u8]) -> io::Result<()> {
        self.write_all(padding)
    }

    fn seal(self) -> Result<(W, Written, Option<Toc>)> {
        let (out, written) = self.finish();
        Ok((out, written, None))
    }
}

/// A layer in the making. Dropping it abandons the layer; only [`finish`](LayerWriter::finish) seals it.
pub struct LayerWriter<A> {
    archive: A,
    buffer: Box<[u8]>,
    entries: u64,
    bytes: u64,
    /// Whether it is no layer but an archive for old tars.
    is_for_tar: bool,
}

/// A read or a write of files costs next to nothing above this size, and it still fits the cache.
const BUFFER: usize = 4 * PIECE;

impl<W: Write> LayerWriter<HashingWriter<W>> {
    /// A layer whose plain tar archive goes to `out`.
    pub fn new(out: W) -> Self {
        Self::over(HashingWriter::new(out))
    }
}

impl<A: Archive> LayerWriter<A> {
    /// A layer that becomes this archive.
    pub(super) fn over(archive: A) -> Self {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Self { archive, buffer, entries: 0, bytes: 0, is_for_tar: false }
    }

    /// The same, but an archive that old tars extract, and no layer: every name in it is a name, and what needs PAX records
    /// is left out.
    #[must_use]
    pub fn for_tar(self) -> Self {
        Self { is_for_tar: true, ..self }
    }

    /// Appends an entry; `content` is read for regular files only, and `passed` is told how much was read.
    ///
    /// # Errors
    /// When an image cannot hold the entry, or the content is shorter than the entry says.
    pub fn append(&mut self, entry: &Entry, content: impl Read, passed: impl Fn(u64)) -> Result<()> {
        let reserved = entry.path.names().find(|name| whiteout::is_reserved(name));
        if let Some(name) = reserved.filter(|_| !self.is_for_tar) {
            return Err(Error::failed(format!(
                "{} cannot be in an image: names that begin with .wh. mean deleted files there ({})",
                entry.path,
                name.escape_ascii()
            ))
            .with_hint("rename it, or leave it out with --exclude"));
        }
        let header = match self.is_for_tar {
            true => gnu::encode(entry)?,
            false => header::encode(entry)?,
        };
        self.archive.header(entry, &header).map_err(cannot_write)?;
        if let EntryKind::File { size } = entry.kind {
            self.copy(entry, size, content, passed)?;
            let padding = size.wrapping_neg() % BLOCK as u64;
            let padding = usize::try_from(padding).unwrap_or_default();
            self.archive.end(&[0; BLOCK][..padding]).map_err(cannot_write)?;
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
            let buffer = &mut self.buffer[..most];
            content.read_exact(buffer).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    Error::failed(format!("{} became shorter while it was read", entry.path))
                        .with_hint("pack a snapshot, or stop what writes to it")
                }
                _ => Error::io(format!("cannot read {}", entry.path), error),
            })?;
            self.archive.content(buffer).map_err(cannot_write)?;
            passed(most as u64);
            left -= most as u64;
        }
        Ok(())
    }

    /// Ends the archive, and says what is in it.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> Result<(A::Out, Contents)> {
        // POSIX: an archive ends with two blocks of zeros. No padding to a tape record beyond that.
        self.archive.end(&[0; 2 * BLOCK]).map_err(cannot_write)?;
        let Self { entries, bytes, .. } = self;
        let (out, archive, toc) = self.archive.seal()?;
        Ok((out, Contents { diff_id: archive.digest, size: archive.size, entries, bytes, toc }))
    }
}

fn cannot_write(error: io::Error) -> Error {
    Error::io("cannot write the layer", error)
}
