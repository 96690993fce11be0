//! Attachments in a registry whose image does not exist: signatures that stay after the garbage collection has deleted the
//! image of a replaced tag.

use super::catalog::CONCURRENT_READS;
use super::remover::RegistryRemover;
use super::report::{Fate, PrunedTag, Reason};
use crate::error::{Kind, Result};
use crate::oci::{
    Digest, Manifest, Reference, attachment_subject, attachment_tags, is_attachment_tag, media_type,
};
use crate::stream::try_for_each;
use crate::transport::fetch;
use crate::trust::Payload;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The largest number of images whose signatures are read to learn under which names the images here are signed.
const IMAGES_LIMIT: usize = 50;
/// The largest number of signatures of one image that are read for that.
const SIGNATURES_LIMIT: usize = 10;

impl RegistryRemover<'_> {
    /// Marks the attachments of images that do not exist. An image that has no tag exists until the garbage collection of
    /// the registry. Nothing is marked if it cannot be known what the images need that stay, nor in a repository without
    /// images, which may have the signatures of another one (cosign: `COSIGN_REPOSITORY`).
    pub fn doom_orphans(&self, tags: &mut [PrunedTag]) -> Result<()> {
        if tags.iter().all(|tag| is_attachment_tag(&tag.tag)) {
            return Ok(());
        }
        let kept = tags.iter().filter(|tag| tag.fate == Fate::Keep);
        let subjects: BTreeSet<Digest> = kept.filter_map(|tag| attachment_subject(&tag.tag)).collect();
        let (missing, needed) = self.missing(&subjects, tags)?;
        if missing.is_empty() {
            return Ok(());
        }
        let elsewhere = self.signed_elsewhere(&missing, &subjects)?;
        let mut lost = HashSet::new();
        for tag in tags.iter_mut().filter(|tag| tag.fate == Fate::Keep) {
            let Some(subject) = attachment_subject(&tag.tag).filter(|subject| missing.contains(subject))
            else {
                continue;
            };
            if let Some(repository) = elsewhere.get(&subject) {
                tag.decide(Fate::Keep, Reason::AttachedElsewhere { subject, repository: repository.clone() });
                continue;
            }
            tag.digest = self.removal.digest_of(&tag.tag)?;
            tag.decide(Fate::Remove, Reason::Orphaned(subject));
            lost.extend(tag.digest.clone());
        }
        let lost = self.without_shared(tags, lost)?;
        self.doom_attached_to(tags, lost, &needed)
    }

    /// Returns those of the subjects that do not exist and that no image needs that stays, and what these images need. An
    /// index may list manifests that were not copied.
    fn missing(
        &self,
        subjects: &BTreeSet<Digest>,
        tags: &[PrunedTag],
    ) -> Result<(HashSet<Digest>, HashSet<Digest>)> {
        let unknown: Vec<&Digest> =
            subjects.iter().filter(|subject| self.catalog.known(subject).is_none()).collect();
        let exist = try_for_each(CONCURRENT_READS, &unknown, |_, subject| self.removal.has_image(subject))
            .into_result()?;
        let missing = unknown.into_iter().zip(exist).filter(|(_, exists)| !exists);
        let mut missing: HashSet<Digest> = missing.map(|(subject, _)| subject.clone()).collect();
        if missing.is_empty() {
            return Ok((missing, HashSet::new()));
        }
        let needed = match self.needed(tags) {
            Ok(needed) => needed,
            Err(error) if matches!(error.kind(), Kind::Refused | Kind::Integrity) => {
                return Ok((HashSet::new(), HashSet::new()));
            }
            Err(error) => return Err(error),
        };
        missing.retain(|subject| !needed.contains(subject));
        Ok((missing, needed))
    }

    /// Returns those of the missing subjects whose signatures name another repository, with its name. Signatures may be kept
    /// in a repository that has images too. The name of a repository from which signed images were copied to here counts as
    /// this one: signatures of images that exist have it.
    fn signed_elsewhere(
        &self,
        missing: &HashSet<Digest>,
        subjects: &BTreeSet<Digest>,
    ) -> Result<HashMap<Digest, String>> {
        let origin = self.source.origin();
        let mut here: HashSet<String> =
            origin.map(|origin| format!("{}/{}", origin.registry, origin.repository)).into_iter().collect();
        let mut elsewhere = HashMap::new();
        for subject in missing {
            let other = self.signed_names(subject)?.into_iter().find(|name| !here.contains(name));
            elsewhere.extend(other.map(|name| (subject.clone(), name)));
        }
        if !elsewhere.is_empty() {
            for subject in subjects.iter().filter(|subject| !missing.contains(subject)).take(IMAGES_LIMIT) {
                here.extend(self.signed_names(subject)?);
            }
        }
        elsewhere.retain(|_, name| !here.contains(name));
        Ok(elsewhere)
    }

    /// Returns the repositories that the simple signatures of an image name. What cannot be read names none.
    fn signed_names(&self, subject: &Digest) -> Result<Vec<String>> {
        let [tag, ..] = attachment_tags(subject);
        let Some(document) = none_if_unreadable(self.source.tagged(&tag))?.flatten() else {
            return Ok(Vec::new());
        };
        if !media_type::is_manifest(&document.descriptor().media_type) {
            return Ok(Vec::new());
        }
        let Some(manifest) = none_if_unreadable(Manifest::parse(&document))? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for payload in manifest.layers.iter().take(SIGNATURES_LIMIT) {
            let Some(payload) = none_if_unreadable(fetch(self.source, payload))? else { continue };
            if let Ok(payload) = Payload::parse(payload.bytes())
                && let Ok(reference) = payload.reference.parse::<Reference>()
            {
                names.push(reference.name());
            }
        }
        Ok(names)
    }
}

fn none_if_unreadable<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Integrity) => Ok(None),
        read => read.map(Some),
    }
}
