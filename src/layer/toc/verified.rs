//! A verified table of contents. It is held compressed and can be read several times.

use super::{Toc, TocReader};
use crate::error::{Error, Result};
use crate::layer::{Budget, Limits};
use crate::stream::Unverified;
use std::borrow::BorrowMut;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// The plain size of a table of contents that is always allowed, in bytes.
const FREE: u64 = 64 << 20;
/// The number of plain bytes that are allowed for one compressed byte. Ordinary tables of contents have 4 to 6.
const RATIO: u64 = 100;

/// A table of contents that was verified by the descriptor of its layer. It is held compressed, which takes about 50 bytes
/// an entry.
#[derive(Clone, Debug)]
pub struct VerifiedToc {
    toc: Toc,
    storage: Storage,
}

/// The place of the compressed bytes.
#[derive(Clone, Debug)]
enum Storage {
    Memory(Arc<Vec<u8>>),
    /// A file without a name, and the offset in it.
    File(Arc<File>, u64),
}

/// A reader of the compressed bytes of a verified table of contents.
#[derive(Clone, Debug)]
pub struct TocBytes {
    storage: Storage,
    position: u64,
    size: u64,
}

impl Read for TocBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let buffer = &mut buffer[..most];
        let read = match &self.storage {
            Storage::Memory(bytes) => {
                let from = usize::try_from(self.position).map_or(bytes.len(), |from| from.min(bytes.len()));
                (&bytes[from..]).read(buffer)?
            }
            Storage::File(file, begin) => file.read_at(buffer, begin + self.position)?,
        };
        self.position += read as u64;
        Ok(read)
    }
}

impl Toc {
    /// Checks its size against the limits, before it is fetched.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if it exceeds them.
    pub fn ensure_within(&self, limits: &Limits) -> Result<()> {
        let max_size = limits.max_tocs();
        let max_plain = self.size.saturating_mul(RATIO).saturating_add(FREE);
        let (size, what, max) = if self.size > max_size {
            (self.size, "", max_size)
        } else if self.plain_size > max_plain {
            (self.plain_size, " when it is decompressed", max_plain)
        } else {
            return Ok(());
        };
        Err(Error::integrity(format!(
            "a layer's table of contents has {size} bytes{what}, and at most {max} are allowed"
        ))
        .with_hint("an image with some million files may honestly have that; --max-names allows more"))
    }
}

impl VerifiedToc {
    /// Reads and verifies the bytes in the range of a table of contents, and holds them in memory.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if they do not match the digest, or exceed the limits.
    pub fn verify(toc: Toc, bytes: Unverified, limits: &Limits) -> Result<Self> {
        let mut compressed = Vec::new();
        let toc = copy(toc, bytes, limits, &mut compressed)?;
        Ok(Self { toc, storage: Storage::Memory(Arc::new(compressed)) })
    }

    /// Reads and verifies the bytes in the range of a table of contents, and holds them in a file without a name, from this
    /// offset on: a table of contents of a million entries does not fit into the memory of a small container.
    ///
    /// # Errors
    /// As [`verify`](Self::verify), and those of the file.
    pub fn verify_into(
        file: Arc<File>,
        offset: u64,
        toc: Toc,
        bytes: Unverified,
        limits: &Limits,
    ) -> Result<Self> {
        let toc = copy(toc, bytes, limits, &mut FileRegion { file: &file, position: offset })?;
        Ok(Self { toc, storage: Storage::File(file, offset) })
    }

    /// Verifies the table of contents of a layer that is in a file, compressed as it was stored.
    ///
    /// # Errors
    /// As [`verify`](Self::verify), and those of the file.
    pub fn in_layer(layer: Arc<File>, toc: Toc, limits: &Limits) -> Result<Self> {
        let storage = Storage::File(layer, toc.range().start);
        let bytes = TocBytes { storage: storage.clone(), position: 0, size: toc.size };
        let toc = copy(toc, Unverified::new(bytes), limits, &mut io::sink())?;
        Ok(Self { toc, storage })
    }

    /// Returns its size as it is stored, in bytes.
    pub fn size(&self) -> u64 {
        self.toc.size
    }

    /// Returns its size when it is decompressed, in bytes.
    pub fn plain_size(&self) -> u64 {
        self.toc.plain_size
    }

    /// Returns a reader of the entries that counts them against this budget.
    ///
    /// # Errors
    /// Fails if the decompressor cannot allocate memory.
    pub fn entries<B: BorrowMut<Budget>>(&self, budget: B) -> Result<TocReader<TocBytes, B>> {
        let bytes = TocBytes { storage: self.storage.clone(), position: 0, size: self.toc.size };
        TocReader::within(&self.toc, bytes, budget)
    }
}

fn copy(toc: Toc, bytes: Unverified, limits: &Limits, to: &mut impl Write) -> Result<Toc> {
    toc.ensure_within(limits)?;
    let mut body = bytes.verify(&toc.descriptor());
    io::copy(&mut body, to)
        .map_err(|error| Error::io("cannot read the table of contents of a layer", error))?;
    body.finish()?;
    Ok(toc)
}

/// A writer to an offset of a file, which does not move the position of the file.
struct FileRegion<'a> {
    file: &'a File,
    position: u64,
}

impl Write for FileRegion<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.position)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
