//! A table of contents that was proved, as it stands in its layer: compressed, and read as often as it takes.

use super::{Toc, TocReader};
use crate::error::{Error, Result};
use crate::layer::{Budget, Limits};
use crate::stream::Unverified;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What may come out of a table of contents at least, in bytes, however small it is.
const FREE: u64 = 64 << 20;
/// How many plain bytes may come out of a compressed one: ordinary ones have 4 to 6.
const RATIO: u64 = 100;

/// A table of contents that was proved by the descriptor of its layer. It is held compressed: some 50 bytes an entry.
#[derive(Clone, Debug)]
pub struct Listing {
    toc: Toc,
    held: Held,
}

/// Where the bytes are.
#[derive(Clone, Debug)]
enum Held {
    Memory(Arc<Vec<u8>>),
    /// In a file that has no name, from there on.
    File(Arc<File>, u64),
}

/// The bytes of a table of contents that was proved, from their beginning.
#[derive(Clone, Debug)]
pub struct ListingBytes {
    held: Held,
    position: u64,
    size: u64,
}

impl Read for ListingBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.position).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let buffer = &mut buffer[..most];
        let read = match &self.held {
            Held::Memory(bytes) => {
                let from = usize::try_from(self.position).map_or(bytes.len(), |from| from.min(bytes.len()));
                (&bytes[from..]).read(buffer)?
            }
            Held::File(file, begin) => file.read_at(buffer, begin + self.position)?,
        };
        self.position += read as u64;
        Ok(read)
    }
}

impl Toc {
    /// Insists that it can be held: before it is fetched.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when it is more than an image may make us remember.
    pub fn insist_on(&self, limits: &Limits) -> Result<()> {
        let too_large = |what: &str, size: u64, most: u64| {
            Err(Error::integrity(format!(
                "a layer's table of contents has {size} bytes{what}, and at most {most} are allowed"
            ))
            .with_hint("an image with some million files may honestly have that; --max-names allows more"))
        };
        let most = limits.listings();
        let most_plain = self.size.saturating_mul(RATIO).saturating_add(FREE);
        if self.size > most {
            return too_large("", self.size, most);
        }
        match self.plain_size > most_plain {
            true => too_large(" when it is decompressed", self.plain_size, most_plain),
            false => Ok(()),
        }
    }
}

impl Listing {
    /// The table of contents in these bytes, which are those in its range.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when they are others, or more than such an image may make us remember.
    pub fn prove(toc: Toc, bytes: Unverified, limits: &Limits) -> Result<Self> {
        let mut held = Vec::new();
        let toc = copy(toc, bytes, limits, &mut held)?;
        Ok(Self { toc, held: Held::Memory(Arc::new(held)) })
    }

    /// The same, held in a file that nobody else can open, from this offset on: that of a million entries is more than a
    /// small container has memory for.
    ///
    /// # Errors
    /// As [`prove`](Self::prove), and those of the file.
    pub fn prove_into(
        file: Arc<File>,
        offset: u64,
        toc: Toc,
        bytes: Unverified,
        limits: &Limits,
    ) -> Result<Self> {
        let toc = copy(toc, bytes, limits, &mut Region { file: &file, position: offset })?;
        Ok(Self { toc, held: Held::File(file, offset) })
    }

    /// The table of contents of a layer that is in a file as it is stored.
    ///
    /// # Errors
    /// As [`prove`](Self::prove), and those of the file.
    pub fn in_layer(layer: Arc<File>, toc: Toc, limits: &Limits) -> Result<Self> {
        let held = Held::File(layer, toc.range().start);
        let bytes = ListingBytes { held: held.clone(), position: 0, size: toc.size };
        let toc = copy(toc, Unverified::new(bytes), limits, &mut io::sink())?;
        Ok(Self { toc, held })
    }

    /// Its entries, within what other layers of the image have left.
    ///
    /// # Errors
    /// Those of the decompressor when it has no memory.
    pub fn entries(&self, budget: Budget) -> Result<TocReader<ListingBytes>> {
        let bytes = ListingBytes { held: self.held.clone(), position: 0, size: self.toc.size };
        TocReader::within(&self.toc, bytes, budget)
    }
}

fn copy(toc: Toc, bytes: Unverified, limits: &Limits, to: &mut impl Write) -> Result<Toc> {
    toc.insist_on(limits)?;
    let mut body = bytes.verify(&toc.descriptor());
    io::copy(&mut body, to)
        .map_err(|error| Error::io("cannot read the table of contents of a layer", error))?;
    body.finish()?;
    Ok(toc)
}

/// A part of a file that is written, without moving the file's own position.
struct Region<'a> {
    file: &'a File,
    position: u64,
}

impl Write for Region<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write_at(bytes, self.position)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
