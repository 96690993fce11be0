//! The removal of the tags that no rule keeps.
//!
//! A registry that can remove a tag alone removes only tags, and its garbage collection frees the space. From other
//! registries an image is removed by its digest, with all its tags. So everything that stays is looked at again, shortly
//! before: an image is removed only if all its tags are to be removed, and nothing that stays needs it. Then its
//! referrers, its attachments, and the manifests of its platforms are removed too.

use super::catalog::{Catalog, Image, Meaning};
use super::report::{Fate, PrunedTag, Reason};
use crate::error::{Error, Kind, Result};
use crate::oci::{Digest, attachment_subject};
use crate::stream::try_for_each;
use crate::transport::{BulkRemoval, Orphan, Source, TagOutcome};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The number of images that are removed by their digests before all tags are read again.
const BATCH: usize = 16;

/// The number of tags that are read at the same time.
pub(super) const CONCURRENT_READS: usize = 6;

/// A tag with the digest of its image.
pub(super) type TaggedDigest = (String, Digest);

/// Removes tags from a registry.
pub(super) struct RegistryRemover<'a> {
    pub source: &'a dyn Source,
    pub removal: &'a dyn BulkRemoval,
    pub catalog: &'a Catalog<'a>,
}

/// Returns the tags that are to be removed, with their digests.
pub(super) fn doomed(tags: &[PrunedTag]) -> Vec<TaggedDigest> {
    let doomed = tags.iter().filter(|tag| tag.fate == Fate::Remove);
    doomed.filter_map(|tag| Some((tag.tag.clone(), tag.digest.clone()?))).collect()
}

/// Keeps the tags of images that are the subjects of images that stay, where an image is deleted with its last tag.
pub(super) fn protect_subjects(catalog: &Catalog<'_>, tags: &mut [PrunedTag]) -> Result<()> {
    loop {
        let staying: Vec<String> = tags
            .iter()
            .filter(|tag| tag.fate == Fate::Keep && !is_attached(tag))
            .map(|tag| tag.tag.clone())
            .collect();
        let subjects: HashSet<Digest> = catalog
            .read(&staying)?
            .into_iter()
            .filter_map(|meaning| match meaning {
                Meaning::Image(image) => image.subject.as_ref().map(|subject| subject.digest.clone()),
                _ => None,
            })
            .collect();
        let is_subject =
            |tag: &PrunedTag| tag.digest.as_ref().is_some_and(|digest| subjects.contains(digest));
        let mut needed = tags.iter_mut().filter(|tag| tag.fate == Fate::Remove && is_subject(tag)).peekable();
        if needed.peek().is_none() {
            return Ok(());
        }
        needed.for_each(|tag| tag.decide(Fate::Keep, Reason::Needed));
    }
}

fn is_attached(tag: &PrunedTag) -> bool {
    attachment_subject(&tag.tag).is_some()
}

/// Records an attachment that was removed from a layout because its image does not exist. A referrer has no tag.
pub(super) fn record_orphan(tags: &mut Vec<PrunedTag>, orphan: &Orphan) {
    let reason = Reason::Orphaned(orphan.subject.clone());
    match tags.binary_search_by(|tag| tag.tag.cmp(&orphan.name)) {
        Ok(place) => tags[place].decide(Fate::Remove, reason),
        Err(place) => tags.insert(place, PrunedTag::new(&orphan.name, Fate::Remove, reason)),
    }
}

/// Records the outcome for a tag that was to be removed. The tags are sorted.
pub(super) fn record(tags: &mut [PrunedTag], name: &str, outcome: TagOutcome) {
    let Ok(place) = tags.binary_search_by(|tag| tag.tag.as_str().cmp(name)) else { return };
    let tag = &mut tags[place];
    match outcome {
        TagOutcome::Removed | TagOutcome::Unsupported => {}
        TagOutcome::Missing => tag.decide(Fate::Remove, Reason::Gone),
        TagOutcome::Moved => tag.decide(Fate::Keep, Reason::Moved),
    }
}

impl RegistryRemover<'_> {
    /// Marks the attachments that go with images: those of images that no tag that stays reaches.
    pub fn doom_attachments(&self, tags: &mut [PrunedTag]) -> Result<()> {
        let gone = doomed(tags);
        if gone.is_empty() || !tags.iter().any(is_attached) {
            return Ok(());
        }
        let is_image = |tag: &&PrunedTag| !is_attached(tag);
        let staying = tags.iter().filter(|tag| tag.fate == Fate::Keep).filter(is_image);
        let needed = self.catalog.reach(self.images(staying.map(|tag| tag.tag.clone()).collect())?)?;
        let mut lost = HashSet::new();
        for image in gone.iter().filter_map(|(_, digest)| self.catalog.known(digest)) {
            lost.extend(self.catalog.parts(&image)?);
            lost.insert(image.digest.clone());
        }
        for tag in tags.iter_mut() {
            if let Some(subject) = attachment_subject(&tag.tag)
                .filter(|subject| lost.contains(subject) && !needed.contains(subject))
            {
                tag.digest = self.removal.digest_of(&tag.tag)?;
                tag.decide(Fate::Remove, Reason::AttachedTo(subject));
            }
        }
        Ok(())
    }

    /// Returns what these tags mean. An image that cannot be read may need anything.
    pub(super) fn images(&self, tags: Vec<String>) -> Result<Vec<Arc<Image>>> {
        let mut images = Vec::new();
        for (tag, meaning) in tags.iter().zip(self.catalog.read(&tags)?) {
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

    /// Removes tags: first those of images, then those of attachments. An image that cannot be removed keeps its signatures.
    pub fn remove(&self, tags: &mut [PrunedTag]) -> Result<()> {
        let (attachments, images): (Vec<TaggedDigest>, Vec<TaggedDigest>) =
            doomed(tags).into_iter().partition(|(tag, _)| attachment_subject(tag).is_some());
        if !self.remove_tags(tags, &images)? {
            return self.remove_by_digest(tags, &images);
        }
        let attachments = self.still_unneeded(tags, attachments)?;
        if self.remove_tags(tags, &attachments)? { Ok(()) } else { self.remove_by_digest(tags, &[]) }
    }

    /// Removes tags, and returns whether the registry can do that.
    fn remove_tags(&self, tags: &mut [PrunedTag], list: &[TaggedDigest]) -> Result<bool> {
        let outcomes = self.removal.remove_tags(list)?.outcomes;
        for ((tag, _), outcome) in list.iter().zip(&outcomes) {
            record(tags, tag, *outcome);
        }
        Ok(!outcomes.contains(&TagOutcome::Unsupported))
    }

    /// Keeps the attachments whose image has got a tag meanwhile, or was stored, and returns the others.
    fn still_unneeded(
        &self,
        tags: &mut [PrunedTag],
        attachments: Vec<TaggedDigest>,
    ) -> Result<Vec<TaggedDigest>> {
        if attachments.is_empty() {
            return Ok(attachments);
        }
        let named = self.named()?;
        let images: Vec<String> =
            named.keys().filter(|tag| attachment_subject(tag).is_none()).cloned().collect();
        let needed = self.catalog.reach(self.known_images(&images, &named)?)?;
        let mut unneeded = Vec::new();
        for (name, digest) in attachments {
            let (Ok(place), Some(subject)) =
                (tags.binary_search_by(|tag| tag.tag.cmp(&name)), attachment_subject(&name))
            else {
                continue;
            };
            let is_orphan = tags[place].reasons.iter().any(|reason| matches!(reason, Reason::Orphaned(_)));
            if needed.contains(&subject) || is_orphan && self.removal.has_image(&subject)? {
                tags[place].decide(Fate::Keep, Reason::AttachedTo(subject));
            } else {
                unneeded.push((name, digest));
            }
        }
        Ok(unneeded)
    }

    /// Removes images by their digests.
    fn remove_by_digest(&self, tags: &mut [PrunedTag], images: &[TaggedDigest]) -> Result<()> {
        let mut digests: Vec<&Digest> = images.iter().map(|(_, digest)| digest).collect();
        let mut seen = HashSet::new();
        digests.retain(|digest| seen.insert(*digest));
        // They go with their images, if these go.
        let mut orphans = Vec::new();
        for tag in tags.iter_mut().filter(|tag| tag.fate == Fate::Remove) {
            let Some(subject) = attachment_subject(&tag.tag) else { continue };
            match (tag.reasons.as_slice(), &tag.digest) {
                ([Reason::Orphaned(_)], Some(digest)) => orphans.push((tag.tag.clone(), digest.clone())),
                _ => tag.decide(Fate::Keep, Reason::AttachedTo(subject)),
            }
        }
        let doomed: HashSet<&TaggedDigest> = images.iter().collect();
        for batch in digests.chunks(BATCH) {
            let mut named = self.named()?;
            for digest in batch {
                self.remove_one(tags, digest, &doomed, &mut named)?;
            }
        }
        self.delete_orphans(tags, &orphans)
    }

    /// Reads what all tags mean now.
    pub(super) fn named(&self) -> Result<BTreeMap<String, Digest>> {
        let tags = self.source.tags()?;
        let digests =
            try_for_each(CONCURRENT_READS, &tags, |_, tag| self.removal.digest_of(tag)).into_result()?;
        Ok(tags.into_iter().zip(digests).filter_map(|(tag, digest)| Some((tag, digest?))).collect())
    }

    /// Removes an image, if that is possible. `named` are all tags.
    fn remove_one(
        &self,
        tags: &mut [PrunedTag],
        digest: &Digest,
        doomed: &HashSet<&TaggedDigest>,
        named: &mut BTreeMap<String, Digest>,
    ) -> Result<()> {
        let own: Vec<String> =
            doomed.iter().filter(|(_, its)| its == digest).map(|(tag, _)| tag.clone()).collect();
        for tag in &own {
            match named.get(tag) {
                None => record(tags, tag, TagOutcome::Missing),
                Some(found) if found != digest => record(tags, tag, TagOutcome::Moved),
                Some(_) => {}
            }
        }
        let with_digest = named.iter().filter(|(_, its)| *its == digest).map(|(tag, _)| tag.clone());
        let (own, others): (Vec<String>, Vec<String>) = with_digest.partition(|tag| own.contains(tag));
        if own.is_empty() {
            return Ok(());
        }
        let mut keep = |reason: Reason| {
            tags.iter_mut()
                .filter(|tag| own.contains(&tag.tag))
                .for_each(|tag| tag.decide(Fate::Keep, reason.clone()));
        };
        if !others.is_empty() {
            keep(Reason::SharedWith(others));
            return Ok(());
        }
        let is_doomed = |tag: &String, its: &Digest| doomed.contains(&(tag.clone(), its.clone()));
        let staying =
            named.iter().filter(|(tag, its)| attachment_subject(tag).is_none() && !is_doomed(tag, its));
        let staying: Vec<String> = staying.map(|(tag, _)| tag.clone()).collect();
        if self.catalog.reach(self.known_images(&staying, named)?)?.contains(digest) {
            keep(Reason::Needed);
            return Ok(());
        }
        self.delete(tags, digest, named)?;
        named.retain(|_, its| its != digest);
        Ok(())
    }

    /// Returns the images with these tags, of which only those are read that are not known.
    fn known_images(&self, tags: &[String], named: &BTreeMap<String, Digest>) -> Result<Vec<Arc<Image>>> {
        let known = |tag: &String| named.get(tag).and_then(|digest| self.catalog.known(digest));
        let (known, unknown): (Vec<_>, Vec<_>) =
            tags.iter().map(|tag| (tag, known(tag))).partition(|(_, image)| image.is_some());
        let unknown = unknown.into_iter().map(|(tag, _)| tag.clone()).collect();
        let mut images = self.images(unknown)?;
        images.extend(known.into_iter().filter_map(|(_, image)| image));
        Ok(images)
    }

    /// Deletes an image, and what belongs to it alone. The image goes first: where it cannot be deleted, it keeps its
    /// signatures.
    fn delete(
        &self,
        tags: &mut [PrunedTag],
        digest: &Digest,
        named: &mut BTreeMap<String, Digest>,
    ) -> Result<()> {
        let others: Vec<String> = named
            .iter()
            .filter(|(tag, its)| attachment_subject(tag).is_none() && *its != digest)
            .map(|(tag, _)| tag.clone())
            .collect();
        let needed = self.catalog.reach(self.known_images(&others, named)?)?;
        let parts = match self.catalog.known(digest) {
            Some(image) => self.catalog.parts(&image)?,
            None => HashSet::new(),
        };
        let lost: Vec<Digest> = parts.into_iter().filter(|part| !needed.contains(part)).collect();
        let mut attached: HashMap<Digest, Vec<String>> = HashMap::new();
        for (tag, its) in named.iter() {
            if attachment_subject(tag).is_some_and(|subject| subject == *digest || lost.contains(&subject)) {
                attached.entry(its.clone()).or_default().push(tag.clone());
            }
        }
        // They cannot be listed any more after their subject is gone.
        let mut referrers = Vec::new();
        for subject in lost.iter().chain([digest]) {
            referrers.extend(self.source.referrers(subject)?);
        }
        self.delete_manifest(digest)?;
        lost.iter().try_for_each(|part| self.delete_manifest(part))?;
        for referrer in referrers {
            let is_tagged = named.values().any(|named| *named == referrer.digest);
            if !is_tagged && !needed.contains(&referrer.digest) {
                self.delete_manifest(&referrer.digest)?;
            }
        }
        for (attachment, own) in attached {
            let is_shared = named.iter().any(|(tag, its)| *its == attachment && !own.contains(tag));
            if !is_shared && !needed.contains(&attachment) {
                self.delete_manifest(&attachment)?;
                for tag in tags.iter_mut().filter(|tag| own.contains(&tag.tag)) {
                    tag.decide(Fate::Remove, Reason::AttachedTo(digest.clone()));
                }
                named.retain(|tag, _| !own.contains(tag));
            }
        }
        Ok(())
    }

    pub(super) fn delete_manifest(&self, digest: &Digest) -> Result<()> {
        match self.removal.remove_image(digest) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.removal.no_deletion()),
            // Another prune was faster.
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}
