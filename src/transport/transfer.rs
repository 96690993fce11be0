//! The transfer of one blob from a source to a destination, in the cheapest way that the two allow.

use super::{Destination, Source};
use crate::error::{Error, Kind, Result, Side};
use crate::oci::Descriptor;
use crate::progress::{Phase, Progress, TaskInfo};

/// The way in which a blob came to the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transferred {
    /// The destination had it already.
    Present,
    /// It was mounted from another repository of the same registry.
    Mounted,
    /// It was read from the source and written.
    Copied,
    /// It did not: it is a foreign layer that the source does not have either.
    Foreign,
}

/// Brings a blob to the destination: not at all if it is there, by a mount if the registry does that, and else by reading
/// it. A foreign layer that the source does not have is left out with a warning.
///
/// # Errors
/// Those of both sides; the error says which side it was.
pub fn transfer(
    from: &dyn Source,
    to: &dyn Destination,
    blob: &Descriptor,
    progress: &dyn Progress,
) -> Result<Transferred> {
    let task = progress.begin(&TaskInfo::new(Phase::Copying).of_blob(&blob.digest).with_total(blob.size));
    let on_destination = |error: Error| error.on(Side::Destination);
    if to.contains(blob).map_err(on_destination)? {
        task.skip();
        return Ok(Transferred::Present);
    }
    if let Some(origin) = from.origin()
        && to.mount(blob, &origin).map_err(on_destination)?
    {
        task.skip();
        return Ok(Transferred::Mounted);
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
            return Ok(Transferred::Foreign);
        }
        opened => opened.map_err(|error| error.on(Side::Source))?.verify(blob),
    };
    to.upload(body.on_read(move |bytes| task.advance(bytes))).map_err(on_destination)?;
    Ok(Transferred::Copied)
}

/// Reads a blob from the source and writes it, although the destination said that it has the blob: a registry may answer
/// from a cache that is older than its last garbage collection.
///
/// # Errors
/// Those of both sides; the error says which side it was.
pub fn send_again(
    from: &dyn Source,
    to: &dyn Destination,
    blob: &Descriptor,
    progress: &dyn Progress,
) -> Result<()> {
    let task = progress.begin(&TaskInfo::new(Phase::Copying).of_blob(&blob.digest).with_total(blob.size));
    let body = from.open(blob).map_err(|error| error.on(Side::Source))?.verify(blob);
    to.upload(body.on_read(move |bytes| task.advance(bytes)))
        .map_err(|error| error.on(Side::Destination))
        .map(drop)
}

/// Returns whether a registry has rejected a manifest because a blob that it lists is not there (distribution-spec, "Error
/// Codes").
pub fn is_missing_blob(error: &Error) -> bool {
    error.to_string().contains("BLOB_UNKNOWN")
}
