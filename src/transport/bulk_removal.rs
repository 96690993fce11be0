//! The removal of several images of one repository or layout, for retention.

use crate::error::{Error, Result};
use crate::oci::Digest;
use std::time::SystemTime;

/// A remover of images of one repository or layout. It is not bound to a name.
pub trait BulkRemoval: Send + Sync {
    /// Removes tags, in this order. Each is removed only if it still means the image with the digest beside it. A registry
    /// removes nothing else. A layout also removes what refers to images that have no tag afterwards, and deletes the blobs
    /// that only they need.
    ///
    /// Registries cannot compare and remove in one step: the tag is read just before.
    ///
    /// # Errors
    /// Those of the requests, and of writing. Tags before that one are removed.
    fn remove_tags(&self, tags: &[(String, Digest)]) -> Result<TagsRemoved>;

    /// Removes an image with all its tags. Returns `false` if the registry does not do that.
    ///
    /// # Errors
    /// Those of the request.
    fn remove_image(&self, digest: &Digest) -> Result<bool>;

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
    pub outcomes: Vec<TagOutcome>,
    /// The tags of attachments, such as signatures, that were removed with their images.
    pub attachments: Vec<String>,
    /// The blobs that were deleted.
    pub garbage: Garbage,
}

/// The outcome for one tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagOutcome {
    /// It is removed.
    Removed,
    /// It did not exist any more.
    Missing,
    /// It means another image by now, and stays.
    Moved,
    /// The registry cannot remove a tag alone. Further tags were not tried.
    Unsupported,
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
