//! Copying the blobs of a manifest. Several are copied at once, because one connection rarely uses the whole bandwidth.

use super::Copy;
use crate::error::{Error, Kind, Result, Side};
use crate::oci::Descriptor;
use crate::progress::Progress;
use crate::stream::try_for_each;
use crate::transport::{Destination, Source};
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
    /// The destination has it already.
    Present,
    /// It was left out, because a base has it.
    Omitted,
    /// It was mounted from another repository.
    Mounted,
    /// It was transferred.
    Copied,
    /// It is a foreign layer that the source does not have.
    Foreign,
}

impl Copy<'_> {
    /// Copies blobs, each of them once.
    pub(super) fn copy_blobs<'b>(&mut self, blobs: impl IntoIterator<Item = BlobToCopy<'b>>) -> Result<()> {
        let mut digests = HashSet::new();
        let blobs: Vec<BlobToCopy> = blobs
            .into_iter()
            .filter(|blob| {
                let digest = &blob.descriptor.digest;
                !self.present.contains(digest) && digests.insert(digest)
            })
            .collect();
        let (from, to, progress) = (self.from, self.to, self.progress);
        let results =
            try_for_each(self.options.concurrency, &blobs, |_, blob| copy_blob(from, to, progress, blob));
        // Blobs are counted also if another one failed: another tag may need them.
        for (number, outcome) in results.done {
            let blob = blobs[number].descriptor;
            match outcome {
                BlobOutcome::Present => self.report.blobs_present += 1,
                BlobOutcome::Omitted => self.report.blobs_omitted += 1,
                BlobOutcome::Mounted => self.report.blobs_mounted += 1,
                BlobOutcome::Foreign => self.report.blobs_foreign += 1,
                BlobOutcome::Copied => {
                    self.report.blobs_copied += 1;
                    self.report.bytes_copied += blob.size;
                }
            }
            self.present.insert(blob.digest.clone());
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
    let task = progress.begin(&format!("copying {}", blob.digest.short()), Some(blob.size));
    let on_destination = |error: Error| error.on(Side::Destination);
    if to.contains(blob).map_err(on_destination)? {
        task.skip();
        return Ok(BlobOutcome::Present);
    }
    if is_in_base {
        task.skip();
        return Ok(BlobOutcome::Omitted);
    }
    if let Some(origin) = from.origin()
        && to.mount(blob, &origin).map_err(on_destination)?
    {
        task.skip();
        return Ok(BlobOutcome::Mounted);
    }
    let body = match from.open(blob) {
        // Other programs leave foreign layers out too: they are fetched from their URLs when the image is unpacked.
        Err(error) if error.kind() == Kind::NotFound && !blob.urls().is_empty() => {
            task.skip();
            progress.warn(&format!(
                "the foreign layer {} is not copied, because the source does not have it: it is at {}",
                blob.digest,
                blob.urls().join(", ")
            ));
            return Ok(BlobOutcome::Foreign);
        }
        opened => opened.map_err(|error| error.on(Side::Source))?.verify(blob),
    };
    to.upload(body.on_read(move |bytes| task.advance(bytes))).map_err(on_destination)?;
    Ok(BlobOutcome::Copied)
}
