//! Copying the blobs of a manifest. Several are copied at once, because one connection rarely uses the whole bandwidth.

use super::Copy;
use crate::error::{Result, Side};
use crate::oci::Descriptor;
use crate::progress::{Phase, Progress, TaskInfo};
use crate::stream::try_for_each;
use crate::transport::{Destination, Source, Transferred, transfer};
use std::collections::HashSet;

/// A blob to copy.
pub(super) struct BlobToCopy<'a> {
    pub(super) descriptor: &'a Descriptor,
    /// True if an image of [`Options::since`](super::Options::since) has it, so that it is left out.
    pub(super) is_in_base: bool,
}

/// The outcome for a blob.
#[derive(Clone, Copy)]
enum BlobOutcome {
    /// It was left out, because a base has it.
    Omitted,
    /// It is at the destination, unless it is a foreign layer that the source does not have.
    Transferred(Transferred),
}

impl Copy<'_> {
    /// Copies blobs, each of them once.
    pub(super) fn copy_blobs<'b>(&mut self, blobs: impl IntoIterator<Item = BlobToCopy<'b>>) -> Result<()> {
        let mut digests = HashSet::new();
        let blobs: Vec<BlobToCopy> = blobs
            .into_iter()
            .filter(|blob| {
                let digest = &blob.descriptor.digest;
                !self.known.present.contains(digest) && digests.insert(digest)
            })
            .collect();
        let (from, to, progress) = (self.from, self.to, self.progress);
        let results =
            try_for_each(self.options.concurrency, &blobs, |_, blob| copy_blob(from, to, progress, blob));
        // Blobs are counted also if another one failed: another tag may need them.
        for (number, outcome) in results.done {
            let blob = blobs[number].descriptor;
            match outcome {
                BlobOutcome::Omitted => self.report.blobs_omitted += 1,
                BlobOutcome::Transferred(Transferred::Present) => self.report.blobs_present += 1,
                BlobOutcome::Transferred(Transferred::Mounted) => self.report.blobs_mounted += 1,
                BlobOutcome::Transferred(Transferred::Foreign) => self.report.blobs_foreign += 1,
                BlobOutcome::Transferred(Transferred::Copied) => {
                    self.report.blobs_copied += 1;
                    self.report.bytes_copied += blob.size;
                }
            }
            self.known.present.insert(blob.digest.clone());
        }
        results.failure.map_or(Ok(()), |(_, error)| Err(error))
    }
}

fn copy_blob(
    from: &dyn Source,
    to: &dyn Destination,
    progress: &dyn Progress,
    &BlobToCopy { descriptor: blob, is_in_base }: &BlobToCopy,
) -> Result<BlobOutcome> {
    if is_in_base {
        let is_present = to.contains(blob).map_err(|error| error.on(Side::Destination))?;
        progress.begin(&TaskInfo::new(Phase::Copying).of_blob(&blob.digest).with_total(blob.size)).skip();
        return Ok(if is_present {
            BlobOutcome::Transferred(Transferred::Present)
        } else {
            BlobOutcome::Omitted
        });
    }
    transfer(from, to, blob, progress).map(BlobOutcome::Transferred)
}
