//! The removal of several images of one repository or layout, for retention.

use crate::error::{Error, Kind, Result};
use crate::oci::Digest;
use std::time::SystemTime;

/// A remover of images of one repository or layout. It is not bound to a name.
pub trait BulkRemoval: Send + Sync {
    /// Removes tags, in this order. Each is removed only if it still means the image with the digest beside it. A registry
    /// removes nothing else. A layout also removes what refers to images that have no tag afterwards, and deletes the blobs
    /// that only they need.
    ///
    /// Registries cannot compare and remove in one step: the tag is read just before. A tag that the registry refuses to
    /// remove, such as an immutable one, is an outcome, and the others are removed.
    ///
    /// # Errors
    /// Those of the requests, and of writing; [`Denied`](Kind::Denied) if all removals are refused for missing permissions.
    /// Tags before that one are removed.
    fn remove_tags(&self, tags: &[(String, Digest)]) -> Result<TagsRemoved>;

    /// Removes an image with all its tags.
    ///
    /// # Errors
    /// Those of the request. A refusal is an outcome.
    fn remove_image(&self, digest: &Digest) -> Result<RemovalOutcome>;

    /// Returns the digest of the image with this tag; `None` if there is none.
    ///
    /// # Errors
    /// Those of looking for it.
    fn digest_of(&self, tag: &str) -> Result<Option<Digest>>;

    /// Returns whether a manifest or an index with this digest exists.
    ///
    /// # Errors
    /// Those of looking for it.
    fn has_image(&self, digest: &Digest) -> Result<bool>;

    /// Removes the attachments and referrers of a layout whose image does not exist, and deletes the blobs that no image needs
    /// and that have not changed since `before`. A registry has its own garbage collection.
    ///
    /// # Errors
    /// Those of reading and removing.
    fn collect_garbage(&self, before: SystemTime) -> Result<Garbage>;

    /// Returns what [`remove_tags`](Self::remove_tags) and then [`collect_garbage`](Self::collect_garbage) would do.
    ///
    /// # Errors
    /// Those of reading.
    fn preview(&self, tags: &[(String, Digest)], before: SystemTime) -> Result<TagsRemoved>;

    /// Returns whether an image is deleted with its last tag, and not later by the storage itself.
    fn deletes_with_last_tag(&self) -> bool;

    /// Returns the error for a storage that cannot remove images.
    fn no_deletion(&self) -> Error;
}

/// The outcome of a removal of tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagsRemoved {
    /// The outcome for each tag.
    pub outcomes: Vec<RemovalOutcome>,
    /// The tags of attachments, such as signatures, that were removed with their images.
    pub attachments: Vec<String>,
    /// The blobs that were deleted.
    pub garbage: Garbage,
}

/// The outcome for one tag or image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemovalOutcome {
    /// It is removed.
    Removed,
    /// It did not exist any more.
    Missing,
    /// The tag means another image by now, and stays.
    Moved,
    /// The registry refused to remove this one.
    Refused(Refusal),
    /// The registry seems to support no removal of this kind. Further ones were not tried.
    Unsupported(Refusal),
}

/// The refusal of a registry to remove a tag or an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// [`Refused`](Kind::Refused) if the tag is immutable, [`Denied`](Kind::Denied) if permissions may be missing.
    pub kind: Kind,
    /// The answer of the registry.
    pub why: String,
    /// Advice for the user.
    pub hint: Option<String>,
}

/// The largest number of removals that are refused before the first success. Further ones are not tried then.
const REFUSALS_LIMIT: usize = 8;

/// The experience with removals of one kind so far. A registry answers in the same way, for example with 405, if it supports
/// no removal and if it protects one tag or image: the others show which of both it is.
#[derive(Debug, Default)]
pub struct RemovalTries {
    /// Set if the registry has removed something, or refused for a reason that only one tag or image can have.
    is_supported: bool,
    unsupported: usize,
    denied: usize,
}

/// The meaning of the outcomes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriesVerdict {
    /// Others may be removed.
    Continue,
    /// The registry supports no removal of this kind.
    Unsupported,
    /// The permission for all removals is missing.
    Denied,
}

impl RemovalTries {
    /// Adds an outcome.
    pub fn add(&mut self, outcome: &RemovalOutcome) -> TriesVerdict {
        match outcome {
            RemovalOutcome::Refused(refusal) if refusal.kind == Kind::Denied => self.denied += 1,
            RemovalOutcome::Removed | RemovalOutcome::Refused(_) => self.is_supported = true,
            RemovalOutcome::Unsupported(_) => self.unsupported += 1,
            RemovalOutcome::Missing | RemovalOutcome::Moved => {}
        }
        match self {
            Self { is_supported: true, .. } => TriesVerdict::Continue,
            Self { denied: REFUSALS_LIMIT.., .. } => TriesVerdict::Denied,
            Self { unsupported: REFUSALS_LIMIT.., .. } => TriesVerdict::Unsupported,
            _ => TriesVerdict::Continue,
        }
    }

    /// Returns whether the registry supports this kind of removal, as far as is known.
    pub fn is_supported(&self) -> bool {
        self.is_supported
    }
}

/// An attachment or a referrer whose image does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// Its tag, or its digest if it has none.
    pub name: String,
    /// The digest of the image.
    pub subject: Digest,
}

/// Blobs that no image needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Their number.
    pub blobs: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// The reason why they were not deleted, if they were not.
    pub left: Option<String>,
    /// The attachments and referrers that were removed because their image does not exist.
    pub orphans: Vec<Orphan>,
}
