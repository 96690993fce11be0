//! What refers to a manifest in a layout: entries of its index that have it as their subject, as oras writes them, or
//! an index under the tag that is made of the digest, as regctl does.

use super::names::ref_name;
use super::{Source, fetch};
use crate::oci::{Descriptor, Digest, Document, Index, media_type, referrers_tag};
use std::collections::HashSet;

/// What of this index refers to the manifest; `source` has the documents.
pub fn list(index: &Index, source: &dyn Source, subject: &Digest) -> Vec<Descriptor> {
    let tag = referrers_tag(subject);
    let (mut found, mut seen, mut read) = (Vec::new(), HashSet::new(), HashSet::new());
    for entry in index.manifests.iter().filter(|entry| media_type::is_document(&entry.media_type)) {
        // The same document says the same again, unless the entry has the tag.
        let is_list = ref_name(entry) == Some(&tag);
        if !read.insert(entry.digest.clone()) && !is_list {
            continue;
        }
        // An entry that is missing or damaged says nothing about this image.
        let Ok(document) = fetch(source, entry) else { continue };
        if is_list {
            found.extend(Index::parse(&document).map(|index| index.manifests).unwrap_or_default());
        }
        match document.as_referrer() {
            Some((its, entry)) if its == *subject => found.push(entry),
            _ => {}
        }
    }
    found.retain(|entry| seen.insert(entry.digest.clone()));
    found
}

/// How a manifest is listed that refers to another one: it has no tag, and would not be found again.
pub fn entry(document: &Document) -> Option<Descriptor> {
    let (_, mut entry) = document.as_referrer()?;
    entry.annotations.clear();
    Some(entry)
}

/// Lists it, and says whether it was not listed yet.
pub fn enter(index: &mut Index, entry: Descriptor) -> bool {
    let is_new = index.manifests.iter().all(|known| known.digest != entry.digest);
    if is_new {
        index.manifests.push(entry);
    }
    is_new
}
