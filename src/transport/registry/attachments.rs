//! Removal of what is attached to an image that lost its last tag: attachments by their tags, and referrers.
//!
//! The image goes first. If the removal ends before it is complete, attachments are left without an image, which is
//! harmless, and never an image without its signatures. A registry cannot say which images have a manifest, so that all
//! tags are read before anything is removed. If there are too many, or one cannot be read, the attachments stay. An image
//! without a tag that has the same manifest is not seen, nor one that another writer stores at the same time.

use super::Registry;
use crate::error::{Error, Kind, Result};
use crate::oci::{Digest, Document, is_attachment_tag, tags_about};
use crate::stream::try_for_each;
use crate::transport::{Source, document_digests, fetch};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The maximum number of tags that are read, because each is a request.
const TAGS_LIMIT: usize = 1000;
/// The maximum number of manifests of an image, because its referrers are listed for each.
const SUBJECTS_LIMIT: usize = 200;
/// The maximum number of attachments and referrers that are removed with an image.
const COUNT_LIMIT: usize = 1000;
/// The longest chain of attachments that is followed. A signature of an SBOM has length two.
const DEPTH_LIMIT: usize = 8;
/// The number of requests at the same time.
const CONCURRENCY: usize = 8;

/// The outcome of a removal of attachments.
#[derive(Default)]
pub(super) struct RemovedAttachments {
    /// The tags of what was removed, and the digests of what had no tag.
    pub(super) names: Vec<String>,
    /// The reason why some were not removed, if that is so.
    pub(super) left: Option<String>,
}

/// A manifest that is attached to another.
struct Attached {
    /// Its tag; `None` for a referrer.
    tag: Option<String>,
    document: Document,
    subject: Digest,
}

impl Attached {
    fn digest(&self) -> &Digest {
        &self.document.descriptor().digest
    }

    fn name(&self) -> String {
        self.tag.clone().unwrap_or_else(|| self.digest().to_string())
    }
}

/// The tags of a repository, and what they mean.
struct TagTargets {
    /// The digests of all manifests and indexes of images with a tag.
    images: HashSet<Digest>,
    /// The tags of images and attachments by the digests of what they mean.
    tags: HashMap<Digest, BTreeSet<String>>,
}

impl TagTargets {
    /// Returns whether an attachment stays: another image has it or its subject, or its subject has a tag that is not among
    /// `removed`. The same SBOM may be attached to several images.
    fn keep(&self, attached: &Attached, removed: &HashSet<String>) -> bool {
        let tags = self.tags.get(&attached.subject);
        self.images.contains(&attached.subject)
            || self.images.contains(attached.digest())
            || tags.is_some_and(|tags| tags.iter().any(|tag| !removed.contains(tag)))
    }
}

impl Registry {
    /// Removes what is attached to manifests and indexes of an image that was removed. What an image with a tag still has
    /// keeps its attachments.
    pub(super) fn remove_attachments(&self, subjects: Result<HashSet<Digest>>) -> RemovedAttachments {
        let mut removed = RemovedAttachments::default();
        let outcome = subjects.and_then(|subjects| self.try_remove(subjects, &mut removed.names));
        removed.names.sort_unstable();
        removed.left = outcome.err().map(|error| error.to_string());
        removed
    }

    fn try_remove(&self, mut subjects: HashSet<Digest>, removed: &mut Vec<String>) -> Result<()> {
        let (attachments, images): (Vec<String>, Vec<String>) =
            self.tags()?.into_iter().partition(|tag| is_attachment_tag(tag));
        let attachment_tags: HashSet<&str> = attachments.iter().map(String::as_str).collect();
        let mut all: Vec<Attached> = Vec::new();
        let mut targets = None;
        for _ in 0..DEPTH_LIMIT {
            let mut found = self.attached_to(&subjects, &attachment_tags)?;
            found.retain(|one| !all.iter().any(|other| other.name() == one.name()));
            if found.is_empty() {
                break;
            }
            let targets = match &mut targets {
                Some(targets) => targets,
                none => none.insert(self.tag_targets(&images, &attachments)?),
            };
            let names: HashSet<String> = all.iter().map(Attached::name).collect();
            found.retain(|one| !targets.keep(one, &names));
            subjects = HashSet::new();
            for one in &found {
                subjects.extend(document_digests(&one.document, |entry| fetch(self, entry))?);
            }
            all.extend(found);
            if all.len() > COUNT_LIMIT {
                return Err(Error::failed(format!("there are more than {COUNT_LIMIT}")));
            }
        }
        match targets {
            Some(targets) => self.delete_attachments(all, targets, removed),
            None => Ok(()),
        }
    }

    /// Finds what is attached to manifests. Lists of referrers may be outdated or wrong, so that the manifests count.
    fn attached_to(&self, subjects: &HashSet<Digest>, tags: &HashSet<&str>) -> Result<Vec<Attached>> {
        if subjects.len() > SUBJECTS_LIMIT {
            return Err(Error::failed(format!("the image has more than {SUBJECTS_LIMIT} manifests")));
        }
        let mut found: Vec<Attached> = Vec::new();
        for subject in subjects {
            for tag in tags_about(subject).filter(|tag| tags.contains(tag.as_str())) {
                if let Some(document) = Source::tagged(self, &tag)? {
                    found.push(Attached { tag: Some(tag), document, subject: subject.clone() });
                }
            }
            let listed = self.list_referrers(subject)?;
            if found.len() + listed.len() > COUNT_LIMIT {
                return Err(Error::failed(format!("there are more than {COUNT_LIMIT}")));
            }
            for entry in listed {
                let document = match fetch(self, &entry) {
                    Err(error) if error.kind() == Kind::NotFound => continue,
                    document => document?,
                };
                let is_about = document.as_referrer().is_some_and(|(its, _)| its == *subject);
                if is_about && !found.iter().any(|other| other.digest() == &entry.digest) {
                    found.push(Attached { tag: None, document, subject: subject.clone() });
                }
            }
        }
        Ok(found)
    }

    /// Reads all tags.
    fn tag_targets(&self, images: &[String], attachments: &[String]) -> Result<TagTargets> {
        let number = images.len() + attachments.len();
        if number > TAGS_LIMIT {
            let why = format!("the repository has {number} tags, and more than {TAGS_LIMIT} are not read");
            return Err(Error::failed(why));
        }
        let mut targets = TagTargets { images: HashSet::new(), tags: HashMap::new() };
        let documents = try_for_each(CONCURRENCY, images, |_, tag| {
            let Some(root) = Source::tagged(self, tag)? else { return Ok(None) };
            let digests = document_digests(&root, |entry| fetch(self, entry))?;
            Ok(Some((root.descriptor().digest.clone(), digests)))
        });
        for (tag, target) in images.iter().zip(documents.into_result()?) {
            let Some((digest, digests)) = target else { continue };
            targets.images.extend(digests);
            targets.tags.entry(digest).or_default().insert(tag.clone());
        }
        let digests = try_for_each(CONCURRENCY, attachments, |_, tag| self.digest_of_tag(tag));
        for (tag, digest) in attachments.iter().zip(digests.into_result()?) {
            let Some(digest) = digest else { continue };
            targets.tags.entry(digest).or_default().insert(tag.clone());
        }
        Ok(targets)
    }

    fn delete_attachments(
        &self,
        attached: Vec<Attached>,
        mut targets: TagTargets,
        removed: &mut Vec<String>,
    ) -> Result<()> {
        let mut shared = Vec::new();
        for one in attached {
            let digest = one.digest();
            let tags = targets.tags.entry(digest.clone()).or_default();
            if let Some(tag) = &one.tag
                && self.delete(tag)?.into_result()?
            {
                tags.remove(tag);
                removed.push(tag.clone());
                continue;
            }
            // A deletion by digest takes all tags, also those that attach the same SBOM to another image.
            if tags.iter().any(|tag| Some(tag) != one.tag.as_ref()) {
                shared.push(one.name());
                continue;
            }
            if !self.delete(&digest.to_string())?.into_result()? {
                return Err(Error::failed(format!(
                    "{} does not let {} be removed",
                    self.reference.registry(),
                    one.name()
                )));
            }
            targets.tags.remove(one.digest());
            removed.push(one.name());
        }
        match shared.as_slice() {
            [] => Ok(()),
            shared => Err(Error::failed(format!("{} also has other tags", shared.join(", ")))),
        }
    }
}
