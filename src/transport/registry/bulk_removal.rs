//! Removal of several tags and images, for retention.

use super::Registry;
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::transport::{BulkRemoval, Garbage, TagOutcome, TagsRemoved};
use std::time::SystemTime;

impl BulkRemoval for Registry {
    fn remove_tags(&self, tags: &[(String, Digest)]) -> Result<TagsRemoved> {
        let mut outcomes = Vec::with_capacity(tags.len());
        for (tag, expected) in tags {
            let outcome = match self.digest_of_tag(tag)? {
                None => TagOutcome::Missing,
                Some(found) if found != *expected => TagOutcome::Moved,
                Some(_) if self.delete(tag)? => TagOutcome::Removed,
                Some(_) => TagOutcome::Unsupported,
            };
            outcomes.push(outcome);
            if outcome == TagOutcome::Unsupported {
                outcomes.resize(tags.len(), TagOutcome::Unsupported);
                break;
            }
        }
        Ok(TagsRemoved { outcomes, ..TagsRemoved::default() })
    }

    fn remove_image(&self, digest: &Digest) -> Result<bool> {
        self.delete(&digest.to_string())
    }

    fn digest_of(&self, tag: &str) -> Result<Option<Digest>> {
        self.digest_of_tag(tag)
    }

    fn has_image(&self, digest: &Digest) -> Result<bool> {
        self.has_manifest(&digest.to_string())
    }

    fn collect_garbage(&self, _before: SystemTime) -> Result<Garbage> {
        Ok(Garbage::default())
    }

    fn preview(&self, tags: &[(String, Digest)], _before: SystemTime) -> Result<TagsRemoved> {
        Ok(TagsRemoved { outcomes: vec![TagOutcome::Removed; tags.len()], ..TagsRemoved::default() })
    }

    fn deletes_with_last_tag(&self) -> bool {
        false
    }

    fn no_deletion(&self) -> Error {
        self.deletion_is_disabled()
    }
}
