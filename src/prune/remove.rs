//! The removal of the tags that no rule keeps.
//!
//! A registry that can remove a tag alone removes only tags, and its garbage collection frees the space. From other
//! registries an image is removed by its digest, with all its tags ([`by_digest`](super::by_digest)). A registry may refuse to
//! remove some, such as immutable tags: these stay, with everything that they need, and the others are removed.

use super::by_digest::{RegistryState, TaggedImages};
use super::catalog::{Catalog, Meaning};
use super::remover::{DEPTH_LIMIT, RegistryRemover, TaggedDigest, decide, is_attached, record};
use super::report::{Fate, PrunedTag, Reason};
use crate::error::Result;
use crate::oci::{Digest, attachment_subject};
use crate::transport::{Orphan, RemovalOutcome};
use std::cmp::Reverse;
use std::collections::HashSet;

/// The number of tags that are tried before most others: the newest, and some of the whole list. If a registry removes one of
/// them, it removes tags, and refuses to remove only some.
const FIRST_TRIES: usize = 8;

/// Returns the tags that are to be removed, with their digests.
pub(super) fn doomed(tags: &[PrunedTag]) -> Vec<TaggedDigest> {
    let doomed = tags.iter().filter(|tag| tag.fate == Fate::Remove);
    doomed.filter_map(|tag| Some((tag.tag.clone(), tag.digest.clone()?))).collect()
}

/// Returns the tags of images that are to be removed, in an order in which the first ones show what the registry can do:
/// tags that it has refused to remove for a long time are older than the newest one.
fn doomed_images(tags: &[PrunedTag]) -> Vec<TaggedDigest> {
    let is_doomed = |tag: &&PrunedTag| tag.fate == Fate::Remove && attachment_subject(&tag.tag).is_none();
    let mut doomed: Vec<&PrunedTag> = tags.iter().filter(is_doomed).collect();
    doomed.sort_by_key(|tag| Reverse(tag.time.as_ref().map(|time| time.timestamp())));
    let step = (doomed.len() / FIRST_TRIES).max(1);
    let (first, rest): (Vec<_>, Vec<_>) =
        doomed.into_iter().enumerate().partition(|(place, _)| place % step == 0);
    let ordered = first.into_iter().chain(rest).map(|(_, tag)| tag);
    ordered.filter_map(|tag| Some((tag.tag.clone(), tag.digest.clone()?))).collect()
}

/// Keeps the tags of images that are the subjects of images that stay, where an image is deleted with its last tag.
pub(super) fn protect_subjects(catalog: &Catalog<'_>, tags: &mut [PrunedTag]) -> Result<()> {
    let mut staying: Vec<String> = tags
        .iter()
        .filter(|tag| tag.fate == Fate::Keep && !is_attached(tag))
        .map(|tag| tag.tag.clone())
        .collect();
    while !staying.is_empty() {
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
        let needed = tags.iter_mut().filter(|tag| tag.fate == Fate::Remove && is_subject(tag));
        staying = needed
            .map(|tag| {
                tag.decide(Fate::Keep, Reason::Needed);
                tag.tag.clone()
            })
            .collect();
    }
    Ok(())
}

/// Records an attachment that was removed from a layout because its image does not exist. A referrer has no tag.
pub(super) fn record_orphan(tags: &mut Vec<PrunedTag>, orphan: &Orphan) {
    let reason = Reason::Orphaned(orphan.subject.clone());
    match tags.binary_search_by(|tag| tag.tag.cmp(&orphan.name)) {
        Ok(place) => tags[place].decide(Fate::Remove, reason),
        Err(place) => tags.insert(place, PrunedTag::new(&orphan.name, Fate::Remove, reason)),
    }
}

impl RegistryRemover<'_> {
    /// Marks the attachments that go with images: those of images that no tag that stays reaches.
    pub fn doom_attachments(&self, tags: &mut [PrunedTag]) -> Result<()> {
        let gone = doomed(tags);
        if gone.is_empty() || !tags.iter().any(is_attached) {
            return Ok(());
        }
        let needed = self.needed(tags)?;
        let images = gone.iter().filter_map(|(_, digest)| self.catalog.known(digest));
        let lost = self.catalog.contents(images)?;
        self.doom_attached_to(tags, lost, &needed)
    }

    /// Marks what is attached to manifests that go, unless they are needed, and then what is attached to these attachments,
    /// unless another tag has them.
    pub(super) fn doom_attached_to(
        &self,
        tags: &mut [PrunedTag],
        mut lost: HashSet<Digest>,
        needed: &HashSet<Digest>,
    ) -> Result<()> {
        for _ in 0..DEPTH_LIMIT {
            lost.retain(|digest| !needed.contains(digest));
            let is_lost = |tag: &&mut PrunedTag| {
                tag.fate == Fate::Keep
                    && attachment_subject(&tag.tag).is_some_and(|subject| lost.contains(&subject))
            };
            let mut attached: Vec<&mut PrunedTag> = tags.iter_mut().filter(is_lost).collect();
            if attached.is_empty() {
                return Ok(());
            }
            let names: Vec<String> = attached.iter().map(|tag| tag.tag.clone()).collect();
            let mut digests = self.digests(&names)?;
            for tag in &mut attached {
                let Some(subject) = attachment_subject(&tag.tag) else { continue };
                tag.digest = digests.remove(&tag.tag);
                tag.decide(Fate::Remove, Reason::AttachedTo(subject));
            }
            lost = attached.iter().filter_map(|tag| tag.digest.clone()).collect();
            lost = self.without_shared(tags, lost)?;
        }
        Ok(())
    }

    /// Returns those of these attachments that no attachment that stays is too. The same SBOM may be attached to several
    /// images. Nothing is read unless something is attached to them.
    pub(super) fn without_shared(
        &self,
        tags: &[PrunedTag],
        mut lost: HashSet<Digest>,
    ) -> Result<HashSet<Digest>> {
        let staying: Vec<&PrunedTag> =
            tags.iter().filter(|tag| tag.fate == Fate::Keep && is_attached(tag)).collect();
        let is_about =
            |tag: &&PrunedTag| attachment_subject(&tag.tag).is_some_and(|subject| lost.contains(&subject));
        if !staying.iter().any(is_about) {
            return Ok(HashSet::new());
        }
        let names: Vec<String> = staying.iter().map(|tag| tag.tag.clone()).collect();
        for digest in self.digests(&names)?.values() {
            lost.remove(digest);
        }
        Ok(lost)
    }

    /// Removes tags: first those of images, then those of attachments. An image that cannot be removed keeps its signatures.
    pub fn remove(&self, tags: &mut [PrunedTag]) -> Result<()> {
        let images = doomed_images(tags);
        if !self.remove_tags(tags, &images)? {
            return self.remove_by_digest(tags, &images);
        }
        let attachments = doomed(tags).into_iter().filter(|(tag, _)| attachment_subject(tag).is_some());
        let mut attachments = self.still_unneeded(tags, attachments.collect())?;
        let mut can_remove_tags = !images.is_empty();
        while !attachments.is_empty() {
            // What is attached to an attachment comes after it.
            let digests: HashSet<Digest> = attachments.iter().map(|(_, digest)| digest.clone()).collect();
            let (later, now): (Vec<_>, Vec<_>) = attachments.into_iter().partition(|(tag, own)| {
                attachment_subject(tag).is_some_and(|subject| subject != *own && digests.contains(&subject))
            });
            if !self.remove_tags(tags, &now)? && !can_remove_tags {
                return self.remove_by_digest(tags, &[]);
            }
            can_remove_tags = true;
            let is_kept = |tag: &String| {
                let place = tags.binary_search_by(|other| other.tag.cmp(tag));
                place.is_ok_and(|place| tags[place].fate == Fate::Keep)
            };
            let staying: HashSet<Digest> =
                now.into_iter().filter(|(tag, _)| is_kept(tag)).map(|(_, digest)| digest).collect();
            attachments = keep_attached_to(tags, later, staying);
        }
        Ok(())
    }

    /// Removes tags, and returns whether the registry can do that.
    fn remove_tags(&self, tags: &mut [PrunedTag], list: &[TaggedDigest]) -> Result<bool> {
        let outcomes = self.removal.remove_tags(list)?.outcomes;
        let is_supported = !outcomes.iter().any(|outcome| matches!(outcome, RemovalOutcome::Unsupported(_)));
        for ((tag, _), outcome) in list.iter().zip(outcomes) {
            // What is not supported may be possible in another way.
            if is_supported || !matches!(outcome, RemovalOutcome::Unsupported(_)) {
                record(tags, tag, outcome);
            }
        }
        Ok(is_supported)
    }

    /// Keeps the attachments whose image has got a tag meanwhile, was stored, or was not removed, and returns the others.
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
        let mut staying = self.catalog.reach(self.known_images(&images, &named)?)?;
        for (name, _) in &attachments {
            let (Ok(place), Some(subject)) =
                (tags.binary_search_by(|tag| tag.tag.cmp(name)), attachment_subject(name))
            else {
                continue;
            };
            let is_orphan = tags[place].reasons.iter().any(|reason| matches!(reason, Reason::Orphaned(_)));
            if is_orphan && self.removal.has_image(&subject)? {
                staying.insert(subject);
            }
        }
        Ok(keep_attached_to(tags, attachments, staying))
    }

    /// Removes images by their digests, and then the attachments of images that do not exist.
    fn remove_by_digest(&self, tags: &mut [PrunedTag], images: &[TaggedDigest]) -> Result<()> {
        // They go with their images, if these go.
        let mut orphans = Vec::new();
        for tag in tags.iter_mut().filter(|tag| tag.fate == Fate::Remove) {
            let Some(subject) = attachment_subject(&tag.tag) else { continue };
            match (tag.reasons.as_slice(), &tag.digest) {
                ([Reason::Orphaned(_)], Some(digest)) => orphans.push((tag.tag.clone(), digest.clone())),
                _ => tag.decide(Fate::Keep, Reason::AttachedTo(subject)),
            }
        }
        let mut doomed = TaggedImages::new(images);
        let mut state = RegistryState::default();
        self.remove_images(tags, &mut doomed, &mut state)?;
        self.delete_orphans(tags, &orphans, &doomed, &mut state)
    }
}

/// Keeps those of these attachments that are attached to what stays, directly or indirectly, and returns the others.
fn keep_attached_to(
    tags: &mut [PrunedTag],
    mut attachments: Vec<TaggedDigest>,
    mut staying: HashSet<Digest>,
) -> Vec<TaggedDigest> {
    loop {
        let is_kept =
            |tag: &String| attachment_subject(tag).is_some_and(|subject| staying.contains(&subject));
        let (kept, rest): (Vec<_>, Vec<_>) = attachments.into_iter().partition(|(tag, _)| is_kept(tag));
        attachments = rest;
        if kept.is_empty() {
            return attachments;
        }
        for (tag, digest) in kept {
            if let Some(subject) = attachment_subject(&tag) {
                decide(tags, &tag, Fate::Keep, Reason::AttachedTo(subject));
            }
            staying.insert(digest);
        }
    }
}
