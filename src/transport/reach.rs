//! All that an image is made of: what is below the entries of an index. Blobs that nothing reaches are nobody's.

use crate::error::{Error, Result};
use crate::oci::{Descriptor, Digest, Document, Index, Manifest, media_type};
use std::collections::{HashMap, HashSet};

/// Collects all blobs and documents below these entries, with their sizes, as far as that can be known.
///
/// # Errors
/// When a document is missing or damaged, or an entry is of a kind that is not known: there may be more below it.
pub fn reach(
    entries: &[Descriptor],
    fetch: impl Fn(&Descriptor) -> Result<Document>,
    reached: &mut HashMap<Digest, u64>,
) -> Result<()> {
    let mut open = entries.to_vec();
    let mut outcome = Ok(());
    // Not `reached`: something may be named as a blob here and listed as a manifest there.
    let mut seen = HashSet::new();
    while let Some(entry) = open.pop() {
        reached.insert(entry.digest.clone(), entry.size);
        if !seen.insert((entry.digest.clone(), entry.media_type.clone())) {
            continue;
        }
        match below(&entry, &fetch, reached) {
            Ok(below) => open.extend(below),
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

/// What an index lists below an entry. What a manifest names is the end, and is noted at once: it is no document.
fn below(
    entry: &Descriptor,
    fetch: impl Fn(&Descriptor) -> Result<Document>,
    reached: &mut HashMap<Digest, u64>,
) -> Result<Vec<Descriptor>> {
    let kind = entry.media_type.as_str();
    if media_type::is_index(kind) {
        return Ok(Index::parse(&fetch(entry)?)?.manifests);
    }
    if media_type::is_manifest(kind) {
        let manifest = Manifest::parse(&fetch(entry)?)?;
        let blobs = manifest.layers.into_iter().chain([manifest.config]);
        reached.extend(blobs.map(|blob| (blob.digest, blob.size)));
        return Ok(Vec::new());
    }
    // Caches of buildkit list their layers in an index.
    match media_type::is_layer(kind) || media_type::is_config(kind) {
        true => Ok(Vec::new()),
        false => Err(Error::failed(format!(
            "{} is listed as a {kind}, and what belongs to such a thing is not known",
            entry.digest
        ))),
    }
}
