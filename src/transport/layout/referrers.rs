//! What refers to a manifest in a layout: entries of its index that have it as their subject, as oras writes them, or
//! an index under the tag that is made of the digest, as regctl does.

use super::{INDEX_FILE, Layout, ref_name};
use crate::error::Result;
use crate::oci::{ARTIFACT_TYPE, Descriptor, Digest, Document, Index, media_type, referrers_tag};
use crate::transport::fetch;
use std::collections::HashSet;

impl Layout {
    /// What refers to the manifest.
    pub(super) fn list_referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        let tag = referrers_tag(subject);
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        for entry in self.index()?.manifests.iter().filter(|entry| media_type::is_document(&entry.media_type))
        {
            // An entry that is missing or damaged says nothing about this image.
            let Ok(document) = fetch(self, entry) else { continue };
            if ref_name(entry) == Some(&tag) {
                found.extend(Index::parse(&document).map(|index| index.manifests).unwrap_or_default());
            }
            match document.as_referrer() {
                Some((its, entry)) if its == *subject => found.push(entry),
                _ => {}
            }
        }
        found.retain(|entry| seen.insert(entry.digest.clone()));
        Ok(found)
    }

    /// Lists a manifest that refers to another one: it has no tag, and would not be found again.
    pub(super) fn add_referrer(&self, document: &Document) -> Result<()> {
        let Some((_, mut entry)) = document.as_referrer() else { return Ok(()) };
        let _lock = self.lock()?;
        let mut index = self.index()?;
        if index.manifests.iter().any(|known| known.digest == entry.digest) {
            return Ok(());
        }
        entry.annotations.clear();
        index.manifests.push(entry);
        self.replace(INDEX_FILE, Document::write(media_type::INDEX, &index).bytes())
    }
}

/// Whether an entry of the index stands there only because it refers to another.
pub(super) fn is_referrer(entry: &Descriptor) -> bool {
    ref_name(entry).is_none() && entry.extra.contains_key(ARTIFACT_TYPE)
}
