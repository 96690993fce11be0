//! The removal of images from a registry that cannot remove a tag alone.
//!
//! An image is removed by its digest, with all its tags. So it is removed only if all its tags are to be removed, and nothing
//! that stays needs it. Then its referrers, its attachments, and the manifests of its platforms are removed too.
//!
//! For that, all tags are read again before the first removal, and then again after as many removals as take about as many
//! requests. So the number of requests is linear in the number of tags, and the time in which another program can give an
//! image a tag unnoticed is not much longer than that of the reading itself. Just before an image is removed, its tags are read
//! once more, and so are new tags, and a few of other names, such as `latest`, which may mean it by now.

use super::remover::{DEPTH_LIMIT, RegistryRemover, TaggedDigest, decide, record};
use super::report::{Fate, PrunedTag, Reason};
use crate::error::{Error, Kind, Result};
use crate::oci::{Digest, attachment_subject, is_tag, tags_about};
use crate::transport::{Refusal, RemovalOutcome, RemovalTries, TriesVerdict};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The smallest number of removals after which all tags are read again.
const MIN_BATCH: usize = 16;

/// The number of tags that are read for each removal.
const TAGS_PER_REMOVAL: usize = 2;

/// The largest number of tags of a repository that are listed again before each removal: those of one page.
const LISTED_LIMIT: usize = 1000;

/// The largest number of tags with other names that are read again before each removal.
const WATCHED_LIMIT: usize = 8;

/// The largest number of attachments and referrers that are removed with an image.
const ATTACHED_LIMIT: usize = 10_000;

/// The images that are to be removed, with their tags.
pub(super) struct TaggedImages {
    /// In the order in which they were given.
    digests: Vec<Digest>,
    tags: HashMap<Digest, BTreeSet<String>>,
}

impl TaggedImages {
    pub fn new(list: &[TaggedDigest]) -> Self {
        let (mut digests, mut tags) = (Vec::new(), HashMap::<Digest, BTreeSet<String>>::new());
        for (tag, digest) in list {
            let own = tags.entry(digest.clone()).or_default();
            if own.is_empty() {
                digests.push(digest.clone());
            }
            own.insert(tag.clone());
        }
        Self { digests, tags }
    }

    fn contains(&self, tag: &str, digest: &Digest) -> bool {
        self.tags.get(digest).is_some_and(|own| own.contains(tag))
    }
}

/// The tags of a registry, as they were read.
#[derive(Default)]
pub(super) struct RegistryState {
    /// The digests of what the tags mean; `None` before the first reading.
    named: Option<BTreeMap<String, Digest>>,
    /// The tags of each digest.
    tags_of: HashMap<Digest, BTreeSet<String>>,
    /// The images that stay, and everything that they refer to.
    needed: HashSet<Digest>,
    /// The number of images to be removed that have a manifest which none has that stays.
    owners: HashMap<Digest, usize>,
}

impl RegistryState {
    fn digest_of(&self, tag: &str) -> Option<&Digest> {
        self.named.as_ref().and_then(|named| named.get(tag))
    }

    /// Notes that a tag means another image, or nothing.
    fn set(&mut self, tag: &str, digest: Option<Digest>) {
        let Some(named) = &mut self.named else { return };
        if let Some(tags) = named.remove(tag).and_then(|before| self.tags_of.get_mut(&before)) {
            tags.remove(tag);
        }
        if let Some(digest) = digest {
            self.tags_of.entry(digest.clone()).or_default().insert(tag.to_owned());
            named.insert(tag.to_owned(), digest);
        }
    }

    fn tags_of(&self, digest: &Digest) -> impl Iterator<Item = &String> {
        self.tags_of.get(digest).into_iter().flatten()
    }

    /// Notes that a manifest was removed, with its tags.
    fn forget(&mut self, digest: &Digest) {
        for tag in self.tags_of.remove(digest).unwrap_or_default() {
            self.named.as_mut().and_then(|named| named.remove(&tag));
        }
    }
}

/// Returns the error for a registry that refuses all removals.
fn denied(refusal: &Refusal) -> Error {
    let error = Error::denied("the registry refuses to remove images").with_source(refusal.why.clone());
    match &refusal.hint {
        Some(hint) => error.with_hint(hint.clone()),
        None => error,
    }
}

/// A manifest that is attached to another.
struct Attached {
    digest: Digest,
    /// The tags that attach it; none if it is a referrer.
    tags: Vec<String>,
    subject: Digest,
}

impl RegistryRemover<'_> {
    /// Removes images, as far as that is possible. Those that refer to others come first: if they cannot be removed, the
    /// others stay.
    pub(super) fn remove_images(
        &self,
        tags: &mut [PrunedTag],
        doomed: &mut TaggedImages,
        state: &mut RegistryState,
    ) -> Result<()> {
        let order = self.catalog.users_first(&doomed.digests);
        let mut tries = RemovalTries::default();
        let mut unsupported = None;
        let mut left = 0;
        for digest in &order {
            if left == 0 {
                self.read_state(doomed, state)?;
                let count = state.named.as_ref().map_or(0, BTreeMap::len);
                left = (count / TAGS_PER_REMOVAL).max(MIN_BATCH);
            }
            let Some(outcome) = self.remove_one(tags, digest, doomed, state)? else { continue };
            left -= 1;
            let verdict = tries.add(&outcome);
            let (RemovalOutcome::Refused(refusal) | RemovalOutcome::Unsupported(refusal)) = &outcome else {
                continue;
            };
            self.keep_refused(tags, digest, refusal, doomed, state)?;
            if verdict == TriesVerdict::Denied {
                return Err(denied(refusal));
            }
            if matches!(outcome, RemovalOutcome::Unsupported(_)) {
                unsupported.get_or_insert(refusal.why.clone());
            }
            if verdict == TriesVerdict::Unsupported {
                break;
            }
        }
        match unsupported {
            Some(why) if !tries.is_supported() => Err(self.removal.no_deletion().with_source(why)),
            _ => Ok(()),
        }
    }

    /// Reads all tags, and finds out what the images need that stay.
    fn read_state(&self, doomed: &TaggedImages, state: &mut RegistryState) -> Result<()> {
        let named = self.named()?;
        let is_image = |tag: &str| attachment_subject(tag).is_none();
        let staying = named.iter().filter(|(tag, its)| is_image(tag) && !doomed.contains(tag, its));
        let staying: Vec<String> = staying.map(|(tag, _)| tag.clone()).collect();
        let needed = self.catalog.reach(self.known_images(&staying, &named)?)?;
        let mut tags_of: HashMap<Digest, BTreeSet<String>> = HashMap::new();
        for (tag, digest) in &named {
            tags_of.entry(digest.clone()).or_default().insert(tag.clone());
        }
        let mut owners: HashMap<Digest, usize> = HashMap::new();
        let left = doomed.tags.keys().filter(|digest| tags_of.contains_key(*digest));
        for image in left.filter_map(|digest| self.catalog.known(digest)) {
            for part in self.catalog.contents([image])? {
                *owners.entry(part).or_default() += 1;
            }
        }
        *state = RegistryState { named: Some(named), tags_of, needed, owners };
        Ok(())
    }

    /// Removes an image, if that is possible. Returns `None` if it was not tried.
    fn remove_one(
        &self,
        tags: &mut [PrunedTag],
        digest: &Digest,
        doomed: &TaggedImages,
        state: &mut RegistryState,
    ) -> Result<Option<RemovalOutcome>> {
        let own: Vec<String> = doomed.tags.get(digest).into_iter().flatten().cloned().collect();
        // Nothing is read again of an image that stays anyway.
        let is_shared = state.tags_of(digest).any(|tag| !own.contains(tag));
        if !is_shared && !state.needed.contains(digest) {
            self.read_again(tags, &own, state)?;
        }
        for tag in &own {
            match state.digest_of(tag) {
                None => record(tags, tag, RemovalOutcome::Missing),
                Some(found) if found != digest => record(tags, tag, RemovalOutcome::Moved),
                Some(_) => {}
            }
        }
        let (own, others): (Vec<String>, Vec<String>) =
            state.tags_of(digest).cloned().partition(|tag| own.contains(tag));
        let mut keep = |reason: Reason| {
            own.iter().for_each(|tag| decide(tags, tag, Fate::Keep, reason.clone()));
        };
        if own.is_empty() {
            return Ok(None);
        }
        if !others.is_empty() {
            keep(Reason::SharedWith(others));
            return Ok(None);
        }
        if state.needed.contains(digest) {
            keep(Reason::Needed);
            return Ok(None);
        }
        let parts = match self.catalog.known(digest) {
            Some(image) => self.catalog.contents([image])?,
            None => HashSet::from([digest.clone()]),
        };
        let is_lost = |part: &&Digest| {
            *part != digest
                && !state.needed.contains(*part)
                && state.tags_of(part).next().is_none()
                && state.owners.get(*part).is_none_or(|owners| *owners <= 1)
        };
        let lost: Vec<Digest> = parts.iter().filter(is_lost).cloned().collect();
        let outcome = self.delete(tags, digest, lost, state)?;
        if outcome == RemovalOutcome::Removed {
            for part in &parts {
                state.owners.entry(part.clone()).and_modify(|owners| *owners = owners.saturating_sub(1));
            }
        }
        Ok(Some(outcome))
    }

    /// Reads the tags of an image again, and those that may have been given to it.
    fn read_again(&self, tags: &[PrunedTag], own: &[String], state: &mut RegistryState) -> Result<()> {
        let Some(named) = &state.named else { return Ok(()) };
        let mut changing: Vec<String> = own.iter().filter(|tag| named.contains_key(*tag)).cloned().collect();
        let is_other = |tag: &&PrunedTag| tag.reasons == [Reason::OtherGroup];
        let watched: Vec<&PrunedTag> = tags.iter().filter(is_other).take(WATCHED_LIMIT + 1).collect();
        if watched.len() <= WATCHED_LIMIT {
            changing.extend(watched.into_iter().map(|tag| tag.tag.clone()));
        }
        if named.len() <= LISTED_LIMIT {
            let is_new = |tag: &String| is_tag(tag) && !named.contains_key(tag);
            changing.extend(self.source.tags()?.into_iter().filter(is_new));
        }
        let mut found = self.digests(&changing)?;
        for tag in &changing {
            let digest = found.remove(tag);
            if digest.as_ref() == state.digest_of(tag) {
                continue;
            }
            state.set(tag, digest.clone());
            if let Some(digest) = digest.filter(|_| attachment_subject(tag).is_none()) {
                let named = BTreeMap::from([(tag.clone(), digest)]);
                let images = self.known_images(std::slice::from_ref(tag), &named)?;
                state.needed.extend(self.catalog.reach(images)?);
            }
        }
        Ok(())
    }

    /// Keeps the tags of an image that the registry refused to remove, and everything that it needs.
    fn keep_refused(
        &self,
        tags: &mut [PrunedTag],
        digest: &Digest,
        refusal: &Refusal,
        doomed: &mut TaggedImages,
        state: &mut RegistryState,
    ) -> Result<()> {
        for tag in doomed.tags.remove(digest).unwrap_or_default() {
            if state.digest_of(&tag) == Some(digest) {
                decide(tags, &tag, Fate::Keep, Reason::Refused(refusal.clone()));
            }
        }
        if let Some(image) = self.catalog.known(digest) {
            state.needed.extend(self.catalog.reach([image])?);
        }
        Ok(())
    }

    /// Deletes a manifest, then the manifests `parts` that only it has, and then what is attached to these. The first goes
    /// first: where it cannot be deleted, it keeps its signatures.
    fn delete(
        &self,
        tags: &mut [PrunedTag],
        digest: &Digest,
        parts: Vec<Digest>,
        state: &mut RegistryState,
    ) -> Result<RemovalOutcome> {
        let subjects: Vec<Digest> = std::iter::once(digest).chain(&parts).cloned().collect();
        // Referrers cannot be listed any more after their subject is gone.
        let attached = self.attached_to(&subjects, state)?;
        let outcome = self.delete_manifest(digest)?;
        if outcome != RemovalOutcome::Removed {
            return Ok(outcome);
        }
        state.forget(digest);
        let mut staying = HashSet::new();
        for part in parts {
            if self.delete_manifest(&part)? != RemovalOutcome::Removed {
                staying.insert(part);
            }
        }
        for Attached { digest, tags: own, subject } in attached {
            if staying.contains(&subject) {
                staying.insert(digest);
                continue;
            }
            let outcome = self.delete_manifest(&digest)?;
            let is_removed = outcome == RemovalOutcome::Removed;
            for tag in &own {
                decide(tags, tag, Fate::Remove, Reason::AttachedTo(subject.clone()));
                record(tags, tag, outcome.clone());
            }
            if is_removed {
                state.forget(&digest);
            } else {
                staying.insert(digest);
            }
        }
        Ok(outcome)
    }

    /// Finds what is attached to manifests, directly or indirectly, and to nothing else.
    fn attached_to(&self, subjects: &[Digest], state: &RegistryState) -> Result<Vec<Attached>> {
        let mut found: Vec<Attached> = Vec::new();
        let mut seen: HashSet<Digest> = subjects.iter().cloned().collect();
        let mut level = subjects.to_vec();
        for _ in 0..DEPTH_LIMIT {
            let mut next: Vec<Attached> = Vec::new();
            for subject in &level {
                for entry in self.source.referrers(subject)? {
                    let is_tagged = state.tags_of(&entry.digest).next().is_some();
                    if !is_tagged
                        && !state.needed.contains(&entry.digest)
                        && seen.insert(entry.digest.clone())
                    {
                        let subject = subject.clone();
                        next.push(Attached { digest: entry.digest, tags: Vec::new(), subject });
                    }
                }
                let mut tagged: BTreeMap<&Digest, Vec<String>> = BTreeMap::new();
                for tag in tags_about(subject) {
                    if let Some(digest) = state.digest_of(&tag) {
                        tagged.entry(digest).or_default().push(tag);
                    }
                }
                for (digest, own) in tagged {
                    let is_shared = state.tags_of(digest).any(|tag| !own.contains(tag));
                    if !is_shared && !state.needed.contains(digest) && seen.insert(digest.clone()) {
                        next.push(Attached { digest: digest.clone(), tags: own, subject: subject.clone() });
                    }
                }
            }
            next.truncate(ATTACHED_LIMIT - found.len());
            if next.is_empty() {
                break;
            }
            level = next.iter().map(|attached| attached.digest.clone()).collect();
            found.extend(next);
        }
        Ok(found)
    }

    /// Deletes attachments of images that do not exist.
    pub(super) fn delete_orphans(
        &self,
        tags: &mut [PrunedTag],
        orphans: &[TaggedDigest],
        doomed: &TaggedImages,
        state: &mut RegistryState,
    ) -> Result<()> {
        if orphans.is_empty() {
            return Ok(());
        }
        if state.named.is_none() {
            self.read_state(doomed, state)?;
        }
        let own: HashSet<&str> = orphans.iter().map(|(tag, _)| tag.as_str()).collect();
        for (tag, digest) in orphans {
            let Some(subject) = attachment_subject(tag) else { continue };
            let others: Vec<String> =
                state.tags_of(digest).filter(|other| !own.contains(other.as_str())).cloned().collect();
            let found = self.removal.digest_of(tag)?;
            if !others.is_empty() {
                decide(tags, tag, Fate::Keep, Reason::SharedWith(others));
            } else if found.is_some_and(|found| found != *digest) {
                decide(tags, tag, Fate::Keep, Reason::Moved);
            } else if state.needed.contains(digest) {
                decide(tags, tag, Fate::Keep, Reason::Needed);
            } else if self.removal.has_image(&subject)? {
                decide(tags, tag, Fate::Keep, Reason::AttachedTo(subject));
            } else {
                let referrers = self.attached_to(std::slice::from_ref(&subject), state)?;
                match self.delete(tags, digest, Vec::new(), state)? {
                    RemovalOutcome::Unsupported(_) => return Err(self.removal.no_deletion()),
                    outcome => record(tags, tag, outcome),
                }
                for referrer in referrers.iter().filter(|referrer| referrer.tags.is_empty()) {
                    self.delete_manifest(&referrer.digest)?;
                }
            }
        }
        Ok(())
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<RemovalOutcome> {
        match self.removal.remove_image(digest) {
            // Another prune was faster.
            Err(error) if error.kind() == Kind::NotFound => Ok(RemovalOutcome::Removed),
            outcome => outcome,
        }
    }
}
