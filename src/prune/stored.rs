//! The check that an image is stored, before older ones are removed.

use crate::error::{Error, Result};
use crate::image::DEPTH_LIMIT;
use crate::oci::{Descriptor, Digest, Document, Index, Manifest, media_type};
use crate::stream::try_for_each;
use crate::transport::{Destination, Source, fetch};
use std::collections::HashSet;

/// The number of blobs that are looked for at the same time.
const CONCURRENT_LOOKS: usize = 6;

/// The largest number of documents of an image.
const DOCUMENTS_LIMIT: usize = 1000;

/// Fails unless an image is stored completely: `source` has its documents, under the name that it is bound to, and
/// `destination` has its blobs.
///
/// # Errors
/// [`Failed`](crate::error::Kind::Failed) if something is missing or the name means another image; those of looking.
pub fn ensure_stored(source: &dyn Source, destination: &dyn Destination, image: &Digest) -> Result<()> {
    let missing = |what: String| Error::failed(format!("the image is not stored as it should be: {what}"));
    let root = source.resolve().map_err(|error| error.context("cannot read the image again"))?;
    if root.descriptor().digest != *image {
        return Err(missing(format!("{image} was written, and {} is there", root.descriptor().digest)));
    }
    let blobs = blobs_of(source, root)?;
    let look = |_, blob: &Descriptor| {
        if destination.exists(blob)? {
            Ok(())
        } else {
            Err(missing(format!("the blob {} is missing", blob.digest)))
        }
    };
    try_for_each(CONCURRENT_LOOKS, &blobs, look).into_result().map(drop)
}

/// Returns the blobs of an image, each once.
fn blobs_of(source: &dyn Source, root: Document) -> Result<Vec<Descriptor>> {
    let (mut pending, mut count) = (vec![(root, 0)], 0);
    let (mut blobs, mut seen) = (Vec::new(), HashSet::new());
    while let Some((document, depth)) = pending.pop() {
        count += 1;
        if depth > DEPTH_LIMIT || count > DOCUMENTS_LIMIT {
            return Err(document.malformed("it lists too many images"));
        }
        let found = if media_type::is_index(&document.descriptor().media_type) {
            let (documents, blobs): (Vec<_>, Vec<_>) = Index::parse(&document)?
                .manifests
                .into_iter()
                .partition(|entry| media_type::is_document(&entry.media_type));
            for entry in documents {
                pending.push((fetch(source, &entry)?, depth + 1));
            }
            blobs
        } else {
            let manifest = Manifest::parse(&document)?;
            manifest.layers.into_iter().chain([manifest.config]).collect()
        };
        blobs.extend(found.into_iter().filter(|blob| seen.insert(blob.digest.clone())));
    }
    Ok(blobs)
}
