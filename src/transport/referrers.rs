//! Referrers in a layout. They are entries of its index with the manifest as their subject, as oras writes them, or an index
//! under the tag that contains the digest, as regctl does.

use super::layout_index::ref_name;
use crate::oci::{Descriptor, Digest, Document, Index, media_type, referrers_tag};
use std::collections::HashSet;

/// Returns the referrers of `subject` in an index. `fetch` reads the documents. It returns `None` for those that are missing
/// or damaged, which say nothing about the subject; it must be quick, because an index can list many that are missing.
pub fn list(
    index: &Index,
    fetch: impl Fn(&Descriptor) -> Option<Document>,
    subject: &Digest,
) -> Vec<Descriptor> {
    let tag = referrers_tag(subject);
    let (mut referrers, mut listed, mut read) = (Vec::new(), HashSet::new(), HashSet::new());
    for entry in index.manifests.iter().filter(|entry| media_type::is_document(&entry.media_type)) {
        // A document is read once, but a list also under its tag.
        let is_list = ref_name(entry) == Some(&tag);
        if !read.insert(entry.digest.clone()) && !is_list {
            continue;
        }
        let Some(document) = fetch(entry) else { continue };
        if is_list {
            referrers.extend(Index::parse(&document).map(|index| index.manifests).unwrap_or_default());
        }
        if let Some((its_subject, entry)) = document.as_referrer()
            && its_subject == *subject
        {
            referrers.push(entry);
        }
    }
    referrers.retain(|entry| listed.insert(entry.digest.clone()));
    referrers
}

/// Returns the entry for a manifest that has a subject; `None` for other manifests. Such a manifest has no tag, and could
/// not be found if it was not listed.
pub fn entry(document: &Document) -> Option<Descriptor> {
    let (_, mut entry) = document.as_referrer()?;
    entry.annotations.clear();
    Some(entry)
}

/// Adds an entry to an index. Returns `false` if the index has it already.
pub fn insert(index: &mut Index, entry: Descriptor) -> bool {
    let is_new = index.manifests.iter().all(|known| known.digest != entry.digest);
    if is_new {
        index.manifests.push(entry);
    }
    is_new
}
