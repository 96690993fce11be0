//! Removal of several tags and images, for retention.

use super::Registry;
use super::removal::Deletion;
use crate::error::{Error, Kind, Result};
use crate::oci::{Digest, is_tag};
use crate::transport::{
    BulkRemoval, Garbage, Refusal, RemovalOutcome, RemovalTries, TagsRemoved, TriesVerdict,
};
use std::time::SystemTime;

impl BulkRemoval for Registry {
    fn remove_tags(&self, tags: &[(String, Digest)]) -> Result<TagsRemoved> {
        let (mut outcomes, mut tries) = (Vec::with_capacity(tags.len()), RemovalTries::default());
        let mut denial = None;
        for (tag, expected) in tags {
            let outcome = match self.digest_of(tag)? {
                None => RemovalOutcome::Missing,
                Some(found) if found != *expected => RemovalOutcome::Moved,
                Some(_) => {
                    let deletion = self.delete(tag)?;
                    let outcome = RemovalOutcome::from(&deletion);
                    if let Deletion::Refused(error) = deletion {
                        denial = denial.or(Some(error).filter(|error| error.kind() == Kind::Denied));
                    }
                    outcome
                }
            };
            let verdict = tries.add(&outcome);
            outcomes.push(outcome);
            match (verdict, denial.take()) {
                (TriesVerdict::Denied, Some(error)) => return Err(error),
                (TriesVerdict::Unsupported, _) => break,
                (_, first) => denial = first,
            }
        }
        if tries.is_supported() {
            // The registry can remove tags, and refused to remove some.
            outcomes.iter_mut().for_each(|outcome| {
                if let RemovalOutcome::Unsupported(refusal) = outcome {
                    *outcome = RemovalOutcome::Refused(refusal.clone());
                }
            });
        } else if let Some(unsupported) =
            outcomes.iter().find(|outcome| matches!(outcome, RemovalOutcome::Unsupported(_))).cloned()
        {
            outcomes.resize(tags.len(), unsupported);
        }
        Ok(TagsRemoved { outcomes, ..TagsRemoved::default() })
    }

    fn remove_image(&self, digest: &Digest) -> Result<RemovalOutcome> {
        self.delete(&digest.to_string()).map(|deletion| RemovalOutcome::from(&deletion))
    }

    fn digest_of(&self, tag: &str) -> Result<Option<Digest>> {
        // A list may have anything. What cannot be a tag is not put into a URL.
        if is_tag(tag) { self.digest_of_tag(tag) } else { Ok(None) }
    }

    fn has_image(&self, digest: &Digest) -> Result<bool> {
        self.has_manifest(&digest.to_string())
    }

    fn collect_garbage(&self, _before: SystemTime) -> Result<Garbage> {
        Ok(Garbage::default())
    }

    fn preview(&self, tags: &[(String, Digest)], _before: SystemTime) -> Result<TagsRemoved> {
        Ok(TagsRemoved { outcomes: vec![RemovalOutcome::Removed; tags.len()], ..TagsRemoved::default() })
    }

    fn deletes_with_last_tag(&self) -> bool {
        false
    }

    fn no_deletion(&self) -> Error {
        self.deletion_is_disabled()
    }
}

impl From<&Deletion> for RemovalOutcome {
    fn from(deletion: &Deletion) -> Self {
        let refusal = |error: &Error| Refusal {
            kind: error.kind(),
            why: error.cause().map_or_else(|| error.to_string(), ToString::to_string),
            hint: error.hint().map(str::to_owned),
        };
        match deletion {
            Deletion::Deleted => Self::Removed,
            Deletion::Refused(error) => Self::Refused(refusal(error)),
            Deletion::Unsupported(error) => Self::Unsupported(refusal(error)),
        }
    }
}
