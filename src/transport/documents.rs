//! The manifests and indexes of an image, by their digests. Only indexes are read for that.

use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Document, Index, media_type};
use std::collections::HashSet;

/// The largest number of manifests and indexes of one image. Indexes of indexes can list any number.
const LIMIT: usize = 20_000;

/// Returns the digests of the document and of all manifests and indexes below it.
///
/// # Errors
/// Those of `fetch` and of invalid indexes; [`Integrity`](crate::error::Kind::Integrity) if there are too many.
pub fn document_digests(
    root: &Document,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
) -> Result<HashSet<Digest>> {
    let mut digests = HashSet::from([root.descriptor().digest.clone()]);
    let mut indexes = Vec::from_iter(is_index(root.descriptor()).then(|| root.clone()));
    while let Some(index) = indexes.pop() {
        for entry in Index::parse(&index)?.manifests {
            if !media_type::is_document(&entry.media_type) || !digests.insert(entry.digest.clone()) {
                continue;
            }
            if digests.len() > LIMIT {
                let what = format!("{} lists more than {LIMIT} manifests", root.descriptor().digest);
                return Err(Error::integrity(what));
            }
            if is_index(&entry) {
                indexes.push(fetch(&entry)?);
            }
        }
    }
    Ok(digests)
}

fn is_index(descriptor: &Descriptor) -> bool {
    media_type::is_index(&descriptor.media_type)
}
