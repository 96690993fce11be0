//! Places where images are, and the two contracts by which they are read and written.
//!
//! | place | source | destination |
//! |---|---|---|
//! | [`layout`] `oci:DIR[:TAG]` | yes | yes |
//! | [`oci_archive`] `oci-archive:FILE[:TAG]` | yes | yes |
//! | [`docker_archive`] `docker-archive:FILE[:REF]` | yes | one platform, plain layers |
//! | [`registry`] `host/repository:tag` | yes | yes |
//! | [`memory`] | yes | yes |
//!
//! An image is written from its leaves to its root: blobs, manifests, index, and last of all the name. Until
//! then nothing of it can be seen.

mod access;
mod archive;
mod client_options;
pub mod docker_archive;
pub mod layout;
mod location;
pub mod memory;
mod names;
pub mod oci_archive;
mod reach;
mod referrers;
pub mod registry;
mod retry;

pub use access::{Access, CredentialSource, Proxies, Proxy, Secret, Tls};
pub use client_options::ClientOptions;
pub use location::Location;
pub use retry::{Retry, RetryDelay};

use crate::error::{Error, Kind, Result};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document};
use crate::stream::{Body, Unverified, Written};
use serde::Serialize;
use std::io::Read;
use std::ops::Range;
use std::path::PathBuf;

/// A place that images are read from; bound to one name in it.
pub trait Source: Send + Sync {
    /// The index or the manifest that the name stands for, with the bytes that the place has for it.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) when there is no such image; a name with a digest fails with
    /// [`Integrity`](crate::error::Kind::Integrity) when the bytes are not that digest's.
    fn resolve(&self) -> Result<Document>;

    /// The bytes of a blob or a document, not verified yet.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) when it is not there.
    fn open(&self, descriptor: &Descriptor) -> Result<Unverified>;

    /// Some of the bytes of a blob, not verified yet; `None` where the place can only give the whole blob. That may
    /// change from one call to the next: a registry shows what it can only when it is asked.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); [`Integrity`](crate::error::Kind::Integrity) when the blob has no such bytes.
    fn open_range(&self, _blob: &Descriptor, _range: Range<u64>) -> Result<Option<Unverified>> {
        Ok(None)
    }

    /// The tags of all images here, in the order of their bytes, whatever the name that this is bound to.
    ///
    /// # Errors
    /// When the place has no tags, or does not tell them.
    fn tags(&self) -> Result<Vec<String>> {
        Err(Error::usage("this place has no tags to list"))
    }

    /// The digests of the images here that have no tag.
    ///
    /// # Errors
    /// Those of [`tags`](Self::tags).
    fn untagged(&self) -> Result<Vec<Digest>> {
        Ok(Vec::new())
    }

    /// What refers to the manifest or the index with this digest, such as signatures.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn referrers(&self, _subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }

    /// The manifests that cosign attached to the manifest or the index with this digest, under tags made of the digest:
    /// signatures, attestations, and lists of contents. Each with its tag.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn attachments(&self, _subject: &Digest) -> Result<Vec<(String, Document)>> {
        Ok(Vec::new())
    }

    /// The repository of a registry that this is, for a destination that can take blobs over from it.
    fn origin(&self) -> Option<Origin> {
        None
    }
}

/// A place that images are written to; bound to one name in it.
pub trait Destination: Send + Sync {
    /// Whether the blob or the document is there already.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn contains(&self, descriptor: &Descriptor) -> Result<bool>;

    /// Takes in a blob. It is there when this returns, and not before the body has said what it was.
    ///
    /// # Errors
    /// Those of the body and of the place; then nothing is there that was not there before.
    fn upload(&self, body: Body) -> Result<Written>;

    /// Takes a blob over from a neighbour without moving it, and says whether that went well.
    ///
    /// # Errors
    /// When the place is out of order; a mere refusal is `false`.
    fn mount(&self, _descriptor: &Descriptor, _from: &Origin) -> Result<bool> {
        Ok(false)
    }

    /// Takes in a manifest or an index under its digest. All that it refers to must be there.
    ///
    /// # Errors
    /// When the place does not take it.
    fn put_manifest(&self, document: &Document) -> Result<()>;

    /// Gives the image its name: from now on it can be seen. The document must be there.
    ///
    /// # Errors
    /// When the place does not take it; then the name means what it meant before.
    fn commit(&self, root: &Document) -> Result<()>;

    /// Gives a document that is there another tag than the one that this is bound to.
    ///
    /// # Errors
    /// When the place has no such tags.
    fn attach(&self, tag: &str, _document: &Document) -> Result<()> {
        Err(Error::usage(format!("this place cannot give an image the tag {tag} of an attachment")))
    }

    /// Returns when a write that failed may be retried with a new body, or `None` if a retry makes no sense. `failures`
    /// counts the retries that have failed already. It never sleeps: the caller waits.
    fn retry_delay(&self, _error: &Error, _failures: u32) -> Option<RetryDelay> {
        None
    }

    /// Takes away what the name stands for: a tag, and the image behind it where nothing else needs it; named by a
    /// digest, the image. `force` also takes away tags that were not named, where the place cannot do otherwise.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) when there is no such image, [`Refused`](crate::error::Kind::Refused)
    /// when other tags would vanish.
    fn remove(&self, _force: bool) -> Result<Removed> {
        Err(Error::usage("nothing can be removed from this place"))
    }

    /// The directory on this machine that is written to, where there is one.
    fn directory(&self) -> Option<PathBuf> {
        None
    }

    /// What images the place can hold; who writes another kind changes it before.
    fn holds(&self) -> Holds {
        Holds::AnyImage
    }

    /// What to call an image with this digest at this place: `repo@sha256:…`.
    fn address(&self, digest: &Digest) -> String;
}

/// What images a place can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Every index, manifest and blob, byte for byte.
    AnyImage,
    /// Images for one platform with plain layers, whose manifest is an OCI manifest without annotations: what an
    /// archive for `docker load` can say.
    PlainImage,
}

/// What a removal took away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// The digest of the index or the manifest that the name stood for.
    pub digest: Digest,
    /// The tags that are gone.
    pub tags: Vec<String>,
    /// How many blobs were deleted; a registry deletes them later.
    pub blobs: u64,
    /// How many bytes they had.
    pub bytes: u64,
    /// Why blobs that nothing needs are still there, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blobs_left: Option<String>,
}

impl Removed {
    /// No tag and no blob of this image.
    fn nothing(digest: Digest) -> Self {
        Self { digest, tags: Vec::new(), blobs: 0, bytes: 0, blobs_left: None }
    }
}

/// A repository in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The registry's host name with its port.
    pub registry: String,
    /// The repository's name.
    pub repository: String,
}

/// Fails unless the blob has the bytes in this range, and at least one: who asks for them has the range from a list that
/// came from outside.
fn check_range(blob: &Descriptor, range: &Range<u64>) -> Result<()> {
    match range.start < range.end && range.end <= blob.size {
        true => Ok(()),
        false => Err(Error::integrity(format!(
            "the blob {} has {} bytes, and those from {} to {} are asked for",
            blob.digest, blob.size, range.start, range.end
        ))),
    }
}

/// Reads a blob to its end and returns `true` if it is what the descriptor says. Somebody relies on it next.
fn is_sound(blob: Unverified, descriptor: &Descriptor) -> Result<bool> {
    match blob.verify(descriptor).drain() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Kind::Integrity => Ok(false),
        Err(error) => Err(error),
    }
}

/// The same error for a blob that is not there, with where a foreign layer is to be had (image-spec, "Non-Distributable
/// Layers"): registries need not have such layers.
fn say_urls(blob: &Descriptor, error: Error) -> Error {
    match (error.kind(), blob.urls().as_slice()) {
        (Kind::NotFound, urls @ [_, ..]) => error.with_hint(format!(
            "it is a foreign layer, which volio does not fetch: its image says that it is at {}",
            urls.join(", ")
        )),
        _ => error,
    }
}

/// Reads and verifies a manifest, an index or a configuration.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when it is above [`DOCUMENT_LIMIT`] or not what the descriptor says.
pub fn fetch(source: &dyn Source, descriptor: &Descriptor) -> Result<Document> {
    if descriptor.size > DOCUMENT_LIMIT {
        return Err(Error::integrity(format!(
            "{} has {} bytes; a document of an image has at most {DOCUMENT_LIMIT}",
            descriptor.digest, descriptor.size
        )));
    }
    let mut body = source.open(descriptor)?.verify(descriptor);
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes)
        .map_err(|error| Error::io(format!("cannot read {}", descriptor.digest), error))?;
    body.finish()?;
    Ok(Document::new(descriptor.media_type.clone(), bytes))
}
