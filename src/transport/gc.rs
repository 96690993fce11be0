//! Garbage collection: finds the blobs that entries of an index need. Blobs that no entry needs may be deleted.

use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Document, Index, Manifest, media_type};
use std::collections::{HashMap, HashSet};

/// Adds all blobs and documents that the entries refer to, directly or indirectly, to `reachable`, with their sizes.
///
/// # Errors
/// When a document is missing or damaged, or an entry is of an unknown kind: then `reachable` may be incomplete.
pub fn collect_reachable(
    entries: &[Descriptor],
    fetch: impl Fn(&Descriptor) -> Result<Document>,
    reachable: &mut HashMap<Digest, u64>,
) -> Result<()> {
    let mut pending = entries.to_vec();
    let mut outcome = Ok(());
    // `reachable` cannot say what was visited: the same digest may be listed as a blob here and as a manifest there.
    let mut visited = HashSet::new();
    while let Some(entry) = pending.pop() {
        reachable.insert(entry.digest.clone(), entry.size);
        if !visited.insert((entry.digest.clone(), entry.media_type.clone())) {
            continue;
        }
        match visit(&entry, &fetch, reachable) {
            Ok(entries) => pending.extend(entries),
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

/// Returns the entries of an index, which are visited next. Adds the blobs of a manifest.
fn visit(
    entry: &Descriptor,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
    reachable: &mut HashMap<Digest, u64>,
) -> Result<Vec<Descriptor>> {
    let media_type = entry.media_type.as_str();
    if media_type::is_index(media_type) {
        return Ok(Index::parse(&fetch(entry)?)?.manifests);
    }
    if media_type::is_manifest(media_type) {
        let manifest = Manifest::parse(&fetch(entry)?)?;
        let blobs = manifest.layers.into_iter().chain([manifest.config]);
        reachable.extend(blobs.map(|blob| (blob.digest, blob.size)));
        return Ok(Vec::new());
    }
    // BuildKit's caches list layers in an index.
    if media_type::is_layer(media_type) || media_type::is_config(media_type) {
        return Ok(Vec::new());
    }
    Err(Error::failed(format!(
        "{} is listed as a {media_type}, and what belongs to such a thing is not known",
        entry.digest
    )))
}
