//! A layer that is extracted while it comes: its table of contents, which the manifest proves, is fetched first and
//! proves the rest frame by frame.

use super::Wanted;
use crate::error::{Error, Result};
use crate::layer::{Budget, FrameVerifier, Limits, TocBytes, TocReader, VerifiedArchive, VerifiedToc};
use crate::oci::{Descriptor, Digest};
use crate::partial::Listings;
use crate::stream::start_in;
use crate::transport::Source;
use crate::tree::SpoolDirectory;
use std::thread;

/// A layer whose table of contents was proved.
pub(super) struct Listed<'a> {
    source: &'a dyn Source,
    layer: &'a Descriptor,
    diff_id: &'a Digest,
    listing: VerifiedToc,
}

impl<'a> Listed<'a> {
    /// The layer, if it has a table of contents and the source gives out parts of it.
    ///
    /// # Errors
    /// Those of fetching; [`Integrity`](crate::error::Kind::Integrity) when the table of contents is another one.
    pub fn find(
        source: &'a dyn Source,
        wanted: Wanted<'a>,
        limits: &Limits,
        place: &SpoolDirectory,
    ) -> Result<Option<Self>> {
        let (layer, diff_id) = wanted;
        let listing = Listings::new(Some(place), limits).fetch(source, layer)?;
        Ok(listing.map(|listing| Self { source, layer, diff_id, listing }))
    }

    /// The size of the layer in bytes.
    pub fn size(&self) -> u64 {
        self.layer.size
    }

    /// What it has, as the table of contents says.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn entries(&self, budget: Budget) -> Result<TocReader<TocBytes>> {
        self.listing.entries(budget)
    }

    /// Has its archive read by `work` while it is fetched, proved frame by frame; fails also when at the end the blob or
    /// its archive has another digest than it should.
    ///
    /// # Errors
    /// Those of fetching and of `work`, which gives the archive back.
    pub fn stream(
        &self,
        budget: Budget,
        passed: impl Fn(u64) + Send + 'static,
        work: impl FnOnce(VerifiedArchive) -> Result<VerifiedArchive>,
    ) -> Result<()> {
        let body = self.source.open(self.layer)?.verify(self.layer).on_read(passed);
        let (prover, archive) = FrameVerifier::new(self.entries(budget)?, self.diff_id.algorithm())?;
        let (fetched, archive) = thread::scope(|scope| -> Result<_> {
            let fetching = start_in(scope, move || prover.send_frames(body))?;
            let archive = work(archive).and_then(VerifiedArchive::finish);
            Ok((fetching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), archive))
        })?;
        let archive = match (fetched, archive) {
            // Where one half failed, the other one only sees a broken pipe: the cause is what the user must read.
            (Err(error), _) if !error.is_broken_pipe() => return Err(error),
            (_, Err(error)) | (Err(error), Ok(_)) => return Err(error),
            (Ok(()), Ok(archive)) => archive,
        };
        match archive.digest == *self.diff_id {
            true => Ok(()),
            false => Err(Error::integrity(format!(
                "the content of a layer has the digest {}, and the image says {}",
                archive.digest, self.diff_id
            ))),
        }
    }
}
