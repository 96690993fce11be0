//! A table of contents that was proved, as it stands in its layer: compressed, and read as often as it takes.

use super::{Toc, TocReader};
use crate::error::{Error, Result};
use crate::layer::{Budget, Limits};
use crate::stream::Unverified;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What an entry may take when it is compressed, beside its names: more than twice of what it takes in ordinary trees.
const ENTRY: u64 = 128;

/// A table of contents that was proved by the descriptor of its layer. It is held compressed: some 50 bytes an entry.
#[derive(Clone, Debug)]
pub struct Listing {
    toc: Toc,
    held: Arc<Held>,
}

/// Where the bytes are.
#[derive(Debug)]
enum Held {
    Memory(Vec<u8>),
    /// In a file that has no name.
    File(File),
}

/// The bytes of a table of contents that was proved, from their beginning.
#[derive(Clone, Debug)]
pub struct ListingBytes {
    held: Arc<Held>,
    position: u64,
}

impl Read for ListingBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &*self.held {
            Held::Memory(bytes) => {
                let from = usize::try_from(self.position).map_or(bytes.len(), |from| from.min(bytes.len()));
                (&bytes[from..]).read(buffer)?
            }
            Held::File(file) => file.read_at(buffer, self.position)?,
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
        let most = limits.entries.saturating_mul(ENTRY).saturating_add(limits.names);
        match self.size > most {
            true => Err(Error::integrity(format!(
                "a layer's table of contents has {} bytes, and at most {most} are allowed",
                self.size
            ))
            .hint("no honest image has that; --max-entries allows more")),
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
        Ok(Self { toc, held: Arc::new(Held::Memory(held)) })
    }

    /// The same, held in a file that nobody else can open: that of a million entries is more than a small container has
    /// memory for.
    ///
    /// # Errors
    /// As [`prove`](Self::prove), and those of the file.
    pub fn prove_into(mut file: File, toc: Toc, bytes: Unverified, limits: &Limits) -> Result<Self> {
        let toc = copy(toc, bytes, limits, &mut file)?;
        Ok(Self { toc, held: Arc::new(Held::File(file)) })
    }

    /// Its entries, within what other layers of the image have left.
    ///
    /// # Errors
    /// Those of the decompressor when it has no memory.
    pub fn entries(&self, budget: Budget) -> Result<TocReader<ListingBytes>> {
        TocReader::within(&self.toc, ListingBytes { held: Arc::clone(&self.held), position: 0 }, budget)
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
