//! A table of contents that was proved, as it stands in its layer: compressed, and read as often as it takes.

use super::{Toc, TocReader};
use crate::error::{Error, Result};
use crate::layer::{Budget, Limits};
use crate::stream::Unverified;
use std::io::{self, Read};

/// What an entry may take when it is compressed, beside its names: more than twice of what it takes in ordinary trees.
const ENTRY: u64 = 128;

/// A table of contents that was proved by the descriptor of its layer. It is held compressed: some 50 bytes an entry.
#[derive(Clone, Debug)]
pub struct Listing {
    toc: Toc,
    bytes: Vec<u8>,
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
        toc.insist_on(limits)?;
        let mut body = bytes.verify(&toc.descriptor());
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes)
            .map_err(|error| Error::io("cannot read the table of contents of a layer", error))?;
        body.finish()?;
        Ok(Self { toc, bytes })
    }

    /// Its entries, within what other layers of the image have left.
    ///
    /// # Errors
    /// Those of the decompressor when it has no memory.
    pub fn entries(&self, budget: Budget) -> Result<TocReader<&[u8]>> {
        TocReader::within(&self.toc, self.bytes.as_slice(), budget)
    }

    /// The same for a reader that outlives this.
    ///
    /// # Errors
    /// As [`entries`](Self::entries).
    pub fn into_entries(self, budget: Budget) -> Result<TocReader<io::Cursor<Vec<u8>>>> {
        TocReader::within(&self.toc, io::Cursor::new(self.bytes), budget)
    }
}
