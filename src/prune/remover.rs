//! A remover of tags from a registry, and what it reads for that.

use super::catalog::{CONCURRENT_READS, Catalog, Image, Meaning};
use super::report::{Fate, PrunedTag, Reason};
use crate::error::{Error, Result};
use crate::oci::{Digest, attachment_subject, is_tag};
use crate::stream::try_for_each;
use crate::transport::{BulkRemoval, RemovalOutcome, Source};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The longest chain of attachments that is followed. A signature of an SBOM has length two.
pub(super) const DEPTH_LIMIT: usize = 8;

/// A tag with the digest of its image.
pub(super) type TaggedDigest = (String, Digest);

/// Removes tags from a registry.
pub(super) struct RegistryRemover<'a> {
    pub source: &'a dyn Source,
    pub removal: &'a dyn BulkRemoval,
    pub catalog: &'a Catalog<'a>,
}

pub(super) fn is_attached(tag: &PrunedTag) -> bool {
    attachment_subject(&tag.tag).is_some()
}

/// Replaces the fate and the reason of a tag. The tags are sorted.
pub(super) fn decide(tags: &mut [PrunedTag], name: &str, fate: Fate, reason: Reason) {
    if let Ok(place) = tags.binary_search_by(|tag| tag.tag.as_str().cmp(name)) {
        tags[place].decide(fate, reason);
    }
}

/// Records the outcome for a tag that was to be removed. The tags are sorted.
pub(super) fn record(tags: &mut [PrunedTag], name: &str, outcome: RemovalOutcome) {
    match outcome {
        RemovalOutcome::Removed => {}
        RemovalOutcome::Missing => decide(tags, name, Fate::Remove, Reason::Gone),
        RemovalOutcome::Moved => decide(tags, name, Fate::Keep, Reason::Moved),
        RemovalOutcome::Refused(refusal) | RemovalOutcome::Unsupported(refusal) => {
            decide(tags, name, Fate::Keep, Reason::Refused(refusal));
        }
    }
}

impl RegistryRemover<'_> {
    /// Returns the digests of the images that stay, and of everything that they refer to.
    pub(super) fn needed(&self, tags: &[PrunedTag]) -> Result<HashSet<Digest>> {
        let staying = tags.iter().filter(|tag| tag.fate == Fate::Keep && !is_attached(tag));
        let known = |tag: &PrunedTag| tag.digest.as_ref().and_then(|digest| self.catalog.known(digest));
        let (mut images, mut unread) = (Vec::new(), Vec::new());
        for tag in staying {
            match known(tag) {
                Some(image) => images.push(image),
                None => unread.push(tag.tag.clone()),
            }
        }
        images.extend(self.images(&unread)?);
        self.catalog.reach(images)
    }

    /// Reads what these tags mean now.
    pub(super) fn digests(&self, tags: &[String]) -> Result<HashMap<String, Digest>> {
        let digests =
            try_for_each(CONCURRENT_READS, tags, |_, tag| self.removal.digest_of(tag)).into_result()?;
        Ok(tags.iter().cloned().zip(digests).filter_map(|(tag, digest)| Some((tag, digest?))).collect())
    }

    /// Returns what these tags mean. An image that cannot be read may need anything.
    pub(super) fn images(&self, tags: &[String]) -> Result<Vec<Arc<Image>>> {
        let mut images = Vec::new();
        for (tag, meaning) in tags.iter().zip(self.catalog.read(tags)?) {
            match meaning {
                Meaning::Image(image) => images.push(image),
                Meaning::Missing => {}
                Meaning::Unreadable(why) => {
                    return Err(Error::refused(format!(
                        "the tag {tag} cannot be read, and so not what it needs: {why}"
                    ))
                    .with_hint("remove that tag, or repair its image"));
                }
            }
        }
        Ok(images)
    }

    /// Reads what all tags mean now.
    pub(super) fn named(&self) -> Result<BTreeMap<String, Digest>> {
        let mut tags = self.source.tags()?;
        tags.retain(|tag| is_tag(tag));
        Ok(self.digests(&tags)?.into_iter().collect())
    }

    /// Returns the images with these tags, of which only those are read that are not known.
    pub(super) fn known_images(
        &self,
        tags: &[String],
        named: &BTreeMap<String, Digest>,
    ) -> Result<Vec<Arc<Image>>> {
        let known = |tag: &String| named.get(tag).and_then(|digest| self.catalog.known(digest));
        let (known, unknown): (Vec<_>, Vec<_>) =
            tags.iter().map(|tag| (tag, known(tag))).partition(|(_, image)| image.is_some());
        let unknown: Vec<String> = unknown.into_iter().map(|(tag, _)| tag.clone()).collect();
        let mut images = self.images(&unknown)?;
        images.extend(known.into_iter().filter_map(|(_, image)| image));
        Ok(images)
    }
}
