//! A layer that was fetched into an unnamed file and verified there, before anything of it is read.

use super::archive::{self, LayerArchive};
use super::layer::ImageLayer;
use crate::error::{Error, Result};
use crate::layer::{Budget, Item, LayerReader, PlainArchive, Toc, VerifiedToc, decompress};
use crate::progress::Phase;
use crate::stream::{Body, CancelToken};
use crate::tree::{Content, SpoolDirectory};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::sync::Arc;

/// A verified layer in an unnamed file, as it is stored.
pub struct SpooledLayer {
    file: Arc<File>,
    archive_size: u64,
    toc: Option<VerifiedToc>,
}

impl ImageLayer<'_> {
    /// Fetches the layer into an unnamed file at `place`, and verifies its digest and its diff_id. The table of contents
    /// is verified, too; the archive is compared with it when it is read.
    ///
    /// # Errors
    /// Those of the source and of the file; [`Integrity`](crate::error::Kind::Integrity) if the layer is not what the
    /// image says.
    pub fn spool(&self, place: &SpoolDirectory) -> Result<SpooledLayer> {
        let body = self.blob(Phase::Fetching)?;
        let file = Arc::new(place.file().map_err(cannot_spool)?);
        let tee = Tee { body, file: Arc::clone(&file), cancel: self.context.cancel.clone() };
        let mut archive = LayerArchive::new(tee, self.diff_id(), self.context.meter.clone())?;
        archive.read_to_end()?;
        let toc = Toc::of(self.descriptor())?
            .map(|toc| VerifiedToc::in_layer(Arc::clone(&file), toc, &self.context.limits()))
            .transpose()?;
        Ok(SpooledLayer { file, archive_size: archive.size(), toc })
    }
}

impl SpooledLayer {
    /// The size of the plain archive in bytes.
    pub fn archive_size(&self) -> u64 {
        self.archive_size
    }

    /// Opens the plain archive, from its beginning.
    ///
    /// # Errors
    /// Those of the file.
    pub fn archive(&self) -> Result<PlainArchive<'static>> {
        let cannot_read = |error| Error::io("cannot read the spool", error);
        let mut file = self.file.try_clone().map_err(cannot_read)?;
        file.rewind().map_err(cannot_read)?;
        decompress(file).map_err(cannot_read)
    }

    /// Returns the items of the archive, one after the other, without content.
    pub(super) fn items(&self, budget: Budget) -> Result<impl FnMut() -> Result<Option<Item>> + use<>> {
        let mut reader = LayerReader::within(self.archive()?, budget);
        Ok(move || reader.next_item())
    }

    /// Reads the archive and shows each item to `visit`; compares it with the table of contents if there is one.
    /// `passed` is called with the number of bytes of each read.
    ///
    /// # Errors
    /// Those of reading and of `visit`.
    pub fn read_items(
        &self,
        budget: &mut Budget,
        passed: impl Fn(u64),
        visit: impl FnMut(Item, &mut dyn Content) -> Result<()>,
    ) -> Result<()> {
        let checker = archive::checker(self.toc.as_ref(), budget)?;
        let archive = Observed { bytes: self.archive()?, passed };
        archive::read_items(archive, checker, budget, visit).map(drop)
    }
}

/// A body that is written to a file as it is read.
struct Tee {
    body: Body,
    file: Arc<File>,
    cancel: CancelToken,
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check()?;
        let read = self.body.read(buffer)?;
        (&*self.file).write_all(&buffer[..read]).map_err(cannot_spool)?;
        Ok(read)
    }
}

/// A reader that reports how much was read.
pub struct Observed<R, F> {
    /// The reader.
    pub bytes: R,
    /// Called with the number of bytes of each read.
    pub passed: F,
}

impl<R: Read, F: Fn(u64)> Read for Observed<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        (self.passed)(read as u64);
        Ok(read)
    }
}

fn cannot_spool(error: io::Error) -> Error {
    Error::io("cannot spool the layer", error)
}
