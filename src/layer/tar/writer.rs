//! Writes entries as a deterministic tar archive.

use super::header;
use crate::error::{Error, Result};
use crate::layer::format::{BLOCK, READ};
use crate::layer::{gnu, whiteout};
use crate::oci::Digest;
use crate::stream::{HashingWriter, Written};
use crate::tree::{Entry, EntryKind, TreePath};
use std::io::{self, Read, Write};

/// The archive of a layer, known when all entries were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The digest of the plain tar archive.
    pub diff_id: Digest,
    /// The size of the plain tar archive in bytes.
    pub size: u64,
    /// The number of entries, without whiteouts.
    pub entries: u64,
    /// The size of all files together, in bytes.
    pub bytes: u64,
}

/// A receiver of the archive of a layer while it is written.
pub trait ArchiveSink {
    /// The value that is left when all was written.
    type Out;

    /// Takes the header of the next entry.
    fn header(&mut self, entry: &Entry, header: &[u8]) -> io::Result<()>;

    /// Returns a buffer for the next bytes of that entry's content. The size of all pieces but the last is a multiple of
    /// 64 KiB.
    fn buffer(&mut self, size: usize) -> &mut [u8];

    /// Takes the content that was read into the buffer.
    fn content(&mut self) -> io::Result<()>;

    /// Takes the zeros that end an entry or the archive.
    fn end(&mut self, padding: &[u8]) -> io::Result<()>;

    /// Ends the archive, and returns its digest and size.
    fn finish(self) -> Result<(Self::Out, Written)>;
}

/// A receiver that writes a plain archive.
pub struct PlainSink<W> {
    out: HashingWriter<W>,
    buffer: Vec<u8>,
}

impl<W: Write> ArchiveSink for PlainSink<W> {
    type Out = W;

    fn header(&mut self, _entry: &Entry, header: &[u8]) -> io::Result<()> {
        self.out.write_all(header)
    }

    fn buffer(&mut self, size: usize) -> &mut [u8] {
        self.buffer.resize(size, 0);
        &mut self.buffer
    }

    fn content(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)
    }

    fn end(&mut self, padding: &[u8]) -> io::Result<()> {
        self.out.write_all(padding)
    }

    fn finish(self) -> Result<(W, Written)> {
        Ok(self.out.finish())
    }
}

/// A writer of the archive of a layer. Dropping it abandons the layer; only [`finish`](LayerWriter::finish) completes it.
pub struct LayerWriter<A> {
    archive: A,
    entries: u64,
    bytes: u64,
    /// True if the archive is for tar without PAX support (busybox), and not the archive of a layer.
    is_gnu: bool,
}

impl<W: Write> LayerWriter<PlainSink<W>> {
    /// Creates a writer of a plain tar archive.
    pub fn new(out: W) -> Self {
        Self::over(PlainSink { out: HashingWriter::new(out), buffer: Vec::new() })
    }
}

impl<A: ArchiveSink> LayerWriter<A> {
    /// Creates a writer that writes to this sink.
    pub(in crate::layer) fn over(archive: A) -> Self {
        Self { archive, entries: 0, bytes: 0, is_gnu: false }
    }

    /// Makes the writer produce an archive that tar without PAX support (busybox) can extract, and not a layer: names
    /// that begin with `.wh.` are ordinary names, and attributes that need PAX records are left out.
    #[must_use]
    pub fn gnu(self) -> Self {
        Self { is_gnu: true, ..self }
    }

    /// Appends an entry. `content` is read for regular files only, and `on_read` is called with the size of each read.
    ///
    /// # Errors
    /// Fails if an image cannot hold the entry, or if the content is shorter than the entry says.
    pub fn append(&mut self, entry: &Entry, content: impl Read, on_read: impl Fn(u64)) -> Result<()> {
        let reserved = entry.path.names().find(|name| whiteout::is_reserved(name));
        if let Some(name) = reserved.filter(|_| !self.is_gnu) {
            return Err(Error::failed(format!(
                "{} cannot be in an image: names that begin with .wh. mean deleted files there ({})",
                entry.path,
                name.escape_ascii()
            ))
            .with_hint("rename it, or leave it out with --exclude"));
        }
        let header = if self.is_gnu { gnu::encode(entry)? } else { header::encode(entry)? };
        self.archive.header(entry, &header).map_err(cannot_write)?;
        if let EntryKind::File { size } = entry.kind {
            self.copy(entry, size, content, on_read)?;
            let padding = size.wrapping_neg() % BLOCK as u64;
            let padding = usize::try_from(padding).unwrap_or_default();
            self.archive.end(&[0; BLOCK][..padding]).map_err(cannot_write)?;
            self.bytes += size;
        }
        self.entries += 1;
        Ok(())
    }

    /// Appends a whiteout, which removes what lower layers have at `path` and below. It is not counted as an entry.
    ///
    /// # Errors
    /// Fails if no whiteout can remove the path, and for an archive that is not a layer.
    pub fn append_whiteout(&mut self, path: &TreePath) -> Result<()> {
        if self.is_gnu {
            return Err(Error::failed(format!("{path} cannot be removed by an archive that is not a layer")));
        }
        let entry = whiteout::removal_of(path)?;
        self.archive.header(&entry, &header::encode(&entry)?).map_err(cannot_write)?;
        self.archive.end(&[]).map_err(cannot_write)
    }

    /// Copies exactly `size` bytes, which is the size in the header.
    fn copy(
        &mut self,
        entry: &Entry,
        size: u64,
        mut content: impl Read,
        on_read: impl Fn(u64),
    ) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let size = usize::try_from(left).map_or(READ, |left| left.min(READ));
            content.read_exact(self.archive.buffer(size)).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    Error::failed(format!("{} became shorter while it was read", entry.path))
                        .with_hint("pack a snapshot, or stop what writes to it")
                }
                _ => Error::io(format!("cannot read {}", entry.path), error),
            })?;
            self.archive.content().map_err(cannot_write)?;
            on_read(size as u64);
            left -= size as u64;
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> Result<(A::Out, Contents)> {
        // POSIX: an archive ends with two blocks of zeros. It is not padded to a tape record beyond that.
        self.archive.end(&[0; 2 * BLOCK]).map_err(cannot_write)?;
        let Self { entries, bytes, .. } = self;
        let (out, Written { digest, size }) = self.archive.finish()?;
        Ok((out, Contents { diff_id: digest, size, entries, bytes }))
    }
}

fn cannot_write(error: io::Error) -> Error {
    Error::io("cannot write the layer", error)
}
