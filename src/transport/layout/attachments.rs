//! The entries of a layout that are attached to others: signatures and other attachments, and referrers.

use super::Layout;
use crate::error::Result;
use crate::oci::{Descriptor, Digest, Index, media_type, tags_about};
use crate::transport::layout_index::{ImageName, names, ref_name};
use crate::transport::{document_digests, fetch};
use std::collections::{HashMap, HashSet};

/// The longest chain of attachments that is followed. A signature of an SBOM has length two.
pub(super) const DEPTH_LIMIT: usize = 8;

/// The entries that stay after a removal, and those that go with what they were attached to.
pub(super) struct Split {
    pub(super) attached: Vec<Descriptor>,
    pub(super) kept: Vec<Descriptor>,
}

impl Layout {
    /// Finds the entries that are attached to the image with this digest, which loses its entries `gone`: to its index and to
    /// its manifests, unless an entry that stays has them, and to each other. `kept` are all other entries.
    ///
    /// # Errors
    /// When an index is missing or damaged, so that it is not known what an image has.
    pub(super) fn split_attached(
        &self,
        gone: &[Descriptor],
        digest: &Digest,
        mut kept: Vec<Descriptor>,
    ) -> Result<Split> {
        let subjects = self.subjects(&kept);
        let mut removed = self.documents(gone)?;
        // Entries for several platforms act as an index that no entry has.
        if !removed.contains(digest) && !is_image_of(&kept, digest) {
            removed.insert(digest.clone());
        }
        let mut attached = Vec::new();
        for _ in 0..DEPTH_LIMIT {
            let staying = self.documents(&kept)?;
            removed.retain(|digest| !staying.contains(digest));
            let tags: HashSet<String> = removed.iter().flat_map(tags_about).collect();
            let is_attached = |entry: &Descriptor| match ref_name(entry) {
                Some(name) => tags.contains(name),
                None => subjects.get(&entry.digest).is_some_and(|subject| removed.contains(subject)),
            };
            let (more, rest): (Vec<_>, Vec<_>) = kept.into_iter().partition(is_attached);
            kept = rest;
            if more.is_empty() {
                break;
            }
            removed = self.documents(&more)?;
            attached.extend(more);
        }
        Ok(Split { attached, kept })
    }

    /// Returns the digests of all manifests and indexes that the entries have.
    pub(super) fn documents(&self, entries: &[Descriptor]) -> Result<HashSet<Digest>> {
        let mut digests = HashSet::new();
        for entry in entries {
            let is_new = digests.insert(entry.digest.clone());
            if is_new && media_type::is_index(&entry.media_type) {
                digests.extend(document_digests(&fetch(self, entry)?, |entry| fetch(self, entry))?);
            }
        }
        Ok(digests)
    }

    /// Returns the subjects of the entries without a name that are referrers. One that is missing or damaged says nothing.
    pub(super) fn subjects(&self, entries: &[Descriptor]) -> HashMap<Digest, Digest> {
        let is_unnamed = |entry: &&Descriptor| names(entry).next().is_none();
        let documents = entries.iter().filter(is_unnamed).filter_map(|entry| self.fetch_if_present(entry));
        documents
            .filter_map(|document| Some((document.descriptor().digest.clone(), document.as_referrer()?.0)))
            .collect()
    }
}

/// Returns whether entries for several platforms act as an index with this digest.
pub(super) fn is_image_of(entries: &[Descriptor], digest: &Digest) -> bool {
    let index = Index::new(entries.to_vec(), Default::default());
    ImageName::new(None, Some(digest.clone())).find(&index, "layout", |_| Ok(None)).is_ok()
}
