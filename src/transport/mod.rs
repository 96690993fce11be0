//! Transports: the kinds of storage that images are read from and written to.
//!
//! | transport | location | source | destination |
//! |---|---|---|---|
//! | [`layout`] | `oci:DIR[:TAG]` | yes | yes |
//! | [`oci_archive`] | `oci-archive:FILE[:TAG]` | yes | yes |
//! | [`docker_archive`] | `docker-archive:FILE[:REF]` | yes | one platform, plain layers |
//! | [`registry`] | `host/repository:tag` | yes | yes |
//! | [`memory`] | | yes | yes |
//!
//! A [`Source`] or a [`Destination`] is bound to one name in its storage. An image is written from its leaves to its root:
//! blobs, manifests, the index, and then the name. Readers do not see any of it before the name is set.
//!
//! The methods of the traits block. They do not wait for retries of a whole blob: [`Destination::retry_delay`] says when
//! a retry makes sense, and the caller waits.

mod access;
mod archive;
mod bulk_removal;
mod client_options;
pub mod docker_archive;
mod documents;
mod environment;
mod gc;
pub mod layout;
mod layout_index;
mod location;
pub mod memory;
mod moved_name;
pub mod oci_archive;
mod referrers;
pub mod registry;
mod retry;
mod transfer;

pub use access::{Access, CredentialSource, Proxies, Proxy, Secret, Tls};
pub use bulk_removal::{
    BulkRemoval, Garbage, Orphan, Refusal, RemovalOutcome, RemovalTries, TagsRemoved, TriesVerdict,
};
pub use client_options::ClientOptions;
pub use documents::document_digests;
pub use environment::Environment;
pub use location::Location;
pub use moved_name::ensure_unmoved;
pub use retry::{Retry, RetryDelay};
pub use transfer::{Transferred, is_missing_blob, send_again, transfer};

use crate::error::{Error, Kind, Result};
use crate::oci::{DOCUMENT_LIMIT, Descriptor, Digest, Document};
use crate::stream::{Body, CancelToken, Unverified, Written};
use std::io::{self, Read};
use std::ops::Range;
use std::path::PathBuf;

/// A reader of images, bound to one name.
pub trait Source: Send + Sync {
    /// Returns the index or the manifest with this name, with its exact bytes.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) if there is no such image, [`Integrity`](crate::error::Kind::Integrity)
    /// if the name has a digest and the bytes have another one.
    fn resolve(&self) -> Result<Document>;

    /// Returns the same, for a caller that has the document which the name meant before. A registry need not send that one
    /// again if the name still means it.
    ///
    /// # Errors
    /// Those of [`resolve`](Self::resolve).
    fn resolve_again(&self, _known: &Document) -> Result<Document> {
        self.resolve()
    }

    /// Opens a blob or a document.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) if it does not exist.
    fn open(&self, descriptor: &Descriptor) -> Result<Unverified>;

    /// Opens a range of a blob. Returns `None` if only the whole blob can be read, which may change between two calls: a
    /// registry shows that it has ranges only when it is asked for one.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); [`Integrity`](crate::error::Kind::Integrity) if the range is not within the blob.
    fn open_range(&self, _blob: &Descriptor, _range: Range<u64>) -> Result<Option<Unverified>> {
        Ok(None)
    }

    /// Returns the tags of all images, sorted by their bytes. It does not depend on the name.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if the storage has no tags; those of reading it.
    fn tags(&self) -> Result<Vec<String>> {
        Err(Error::usage("this place has no tags to list"))
    }

    /// Returns as many tags as one request lists, in no particular order. By default these are all.
    ///
    /// # Errors
    /// Those of [`tags`](Self::tags).
    fn first_tags(&self) -> Result<Vec<String>> {
        self.tags()
    }

    /// Returns the digests of the images that have no tag.
    ///
    /// # Errors
    /// Those of [`tags`](Self::tags).
    fn untagged(&self) -> Result<Vec<Digest>> {
        Ok(Vec::new())
    }

    /// Returns the manifests that have the manifest or the index with this digest as their subject, such as signatures.
    ///
    /// # Errors
    /// Those of reading the list.
    fn referrers(&self, _subject: &Digest) -> Result<Vec<Descriptor>> {
        Ok(Vec::new())
    }

    /// Returns the document with another tag of the same storage, such as that of a signature; `None` if no document has
    /// the tag. It does not depend on the name.
    ///
    /// # Errors
    /// Those of reading it.
    fn tagged(&self, _tag: &str) -> Result<Option<Document>> {
        Ok(None)
    }

    /// Returns the repository, if this is one of a registry, for [`Destination::mount`].
    fn origin(&self) -> Option<Origin> {
        None
    }

    /// Returns the local files and directories that are read.
    fn local_paths(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Returns the same source for reads that end with an error as soon as `cancel` is cancelled. `None` if this source
    /// never waits for long.
    fn cancelled_by(&self, _cancel: &CancelToken) -> Option<Box<dyn Source + '_>> {
        None
    }
}

/// A writer of images, bound to one name.
pub trait Destination: Send + Sync {
    /// Returns whether the blob or the document exists.
    ///
    /// # Errors
    /// Those of looking for it.
    fn contains(&self, descriptor: &Descriptor) -> Result<bool>;

    /// Returns whether a blob with this digest and size exists, without reading it. [`contains`](Self::contains) may read it,
    /// so that a damaged one is replaced.
    ///
    /// # Errors
    /// Those of looking for it.
    fn exists(&self, descriptor: &Descriptor) -> Result<bool> {
        self.contains(descriptor)
    }

    /// Stores a blob. It exists when this returns, and not before the body was verified.
    ///
    /// # Errors
    /// Those of the body and of writing. Nothing is stored then.
    fn upload(&self, body: Body) -> Result<Written>;

    /// Stores a manifest or an index under its digest. Everything that it refers to must exist.
    ///
    /// # Errors
    /// Those of writing, and a rejection by the registry.
    fn put_manifest(&self, document: &Document) -> Result<()>;

    /// Stores the documents of an image: configs, unless they exist, and manifests, each after those that it refers to.
    ///
    /// # Errors
    /// As [`upload`](Self::upload) and [`put_manifest`](Self::put_manifest).
    fn put_documents(&self, configs: &[Document], manifests: &[&Document]) -> Result<()> {
        for config in configs {
            if !self.contains(config.descriptor())? {
                let body = Unverified::new(io::Cursor::new(config.bytes().to_vec()));
                self.upload(body.verify(config.descriptor()))?;
            }
        }
        manifests.iter().try_for_each(|manifest| self.put_manifest(manifest))
    }

    /// Lets the name mean this document, which must exist. From then on the image can be seen.
    ///
    /// # Errors
    /// Those of writing. The name means the same image as before then.
    fn commit(&self, root: &Document) -> Result<()>;

    /// Lets the name mean this document, if it still means the one with the digest `expected`, or still nothing. Layouts and
    /// archives look under their lock. Registries have no such operation: the name is read just before and just after it is
    /// set, so that another writer in between may stay unnoticed. By default nothing is looked at, for a destination whose
    /// names cannot be read.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) if the name means something else by now; those of [`commit`](Self::commit).
    fn commit_unless_moved(&self, root: &Document, _expected: Option<&Digest>) -> Result<()> {
        self.commit(root)
    }

    /// Returns the location of the image with this digest: `repo@sha256:…`.
    fn address(&self, digest: &Digest) -> String;

    /// Returns the document with another tag of the same storage, as it is after what was written before: an archive has
    /// the tags that it will have when the name is set. Blobs of the document that are used again must be looked for with
    /// [`contains`](Self::contains), so that no removal deletes them meanwhile.
    ///
    /// # Errors
    /// Those of reading it.
    fn tagged(&self, _tag: &str) -> Result<Option<Document>> {
        Ok(None)
    }

    /// Gives an existing document a tag that is not the name, such as the one of a signature. Readers see it at once, or when
    /// the name is set.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if the storage has no such tags; those of writing.
    fn attach(&self, tag: &str, _document: &Document) -> Result<()> {
        Err(Error::usage(format!("this place cannot give an image the tag {tag} of an attachment")))
    }

    /// Gives an existing document a tag as [`attach`](Self::attach) does, if the tag still means the document with the digest
    /// `expected`, or still nothing. Returns `false`, and changes nothing, if it means another one by now. Layouts look under
    /// their lock, and archives when they are published, which then fails. Registries have no such operation: by default
    /// nothing is looked at.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    fn attach_unless_moved(
        &self,
        tag: &str,
        document: &Document,
        _expected: Option<&Digest>,
    ) -> Result<bool> {
        self.attach(tag, document).map(|()| true)
    }

    /// Shows readers the referrers that were put and the documents that were attached, without a change of the name. Only an
    /// archive needs that, which is replaced as a whole: all others show them at once.
    ///
    /// # Errors
    /// Those of writing. Nothing is attached then.
    fn publish_attachments(&self) -> Result<()> {
        Ok(())
    }

    /// Mounts a blob from another repository of the same registry, without a transfer. Returns `false` if the registry
    /// does not do that.
    ///
    /// # Errors
    /// Those of the request.
    fn mount(&self, _descriptor: &Descriptor, _from: &Origin) -> Result<bool> {
        Ok(false)
    }

    /// Returns when a failed write may be retried, with a new body; `None` if a retry makes no sense. `failures` is the
    /// number of earlier retries.
    fn retry_delay(&self, _error: &Error, _failures: u32) -> Option<RetryDelay> {
        None
    }

    /// Returns the local directory that is written to, if there is one.
    fn directory(&self) -> Option<PathBuf> {
        None
    }

    /// Returns which images can be stored. The caller converts other images.
    fn image_support(&self) -> ImageSupport {
        ImageSupport::Any
    }
}

/// The removal of images; bound to one name.
pub trait Removal: Send + Sync {
    /// Removes a tag, or an image if the name is a digest. A layout also deletes the blobs that no other image needs.
    /// `force` also removes tags that were not named, where they cannot be kept. With the last tag of an image, the
    /// attachments and referrers of its manifests go, unless another image has these manifests.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) if there is no such image, [`Refused`](crate::error::Kind::Refused)
    /// if other tags would be lost.
    fn remove(&self, force: bool) -> Result<Removed>;
}

/// The images that a destination can store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSupport {
    /// All indexes, manifests and blobs.
    Any,
    /// Images for one platform with uncompressed layers and an OCI manifest without annotations: those that an archive
    /// for `docker load` can describe.
    PlainOnly,
}

/// The outcome of a removal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// The digest of the index or the manifest that had the name.
    pub digest: Digest,
    /// The removed tags.
    pub tags: Vec<String>,
    /// The attachments and referrers that were removed with the last tag of their image: their tags, and the digests of
    /// those that have none.
    pub attachments: Vec<String>,
    /// The reason why attachments or referrers of the image may have been left, if that is so.
    pub attachments_left: Option<String>,
    /// The number of deleted blobs. A registry deletes blobs later, so it is zero there.
    pub blobs: u64,
    /// The size of the deleted blobs in bytes.
    pub bytes: u64,
    /// The reason why unneeded blobs were not deleted, if there are any.
    pub blobs_left: Option<String>,
}

impl Removed {
    /// A removal without any tags or blobs.
    fn nothing(digest: Digest) -> Self {
        Self {
            digest,
            tags: Vec::new(),
            attachments: Vec::new(),
            attachments_left: None,
            blobs: 0,
            bytes: 0,
            blobs_left: None,
        }
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

/// Fails unless the range is within the blob and not empty. Ranges come from tables of contents, which are input from
/// outside.
fn check_range(blob: &Descriptor, range: &Range<u64>) -> Result<()> {
    if range.start < range.end && range.end <= blob.size {
        return Ok(());
    }
    Err(Error::integrity(format!(
        "the blob {} has {} bytes, and those from {} to {} are asked for",
        blob.digest, blob.size, range.start, range.end
    )))
}

/// Reads a blob to its end and returns whether it has the size and the digest of the descriptor.
fn is_intact(blob: Unverified, descriptor: &Descriptor) -> Result<bool> {
    match blob.verify(descriptor).drain() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == Kind::Integrity => Ok(false),
        Err(error) => Err(error),
    }
}

/// Adds the URLs of a foreign layer to the error that it does not exist (image-spec, "Non-Distributable Layers").
/// Registries need not have such layers.
fn with_foreign_urls(blob: &Descriptor, error: Error) -> Error {
    match (error.kind(), blob.urls().as_slice()) {
        (Kind::NotFound, urls @ [_, ..]) => error.with_hint(format!(
            "it is a foreign layer, which volio does not fetch: its image says that it is at {}",
            urls.join(", ")
        )),
        _ => error,
    }
}

/// Reads and verifies a manifest, an index or a config.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) if it is larger than [`DOCUMENT_LIMIT`] or does not match the descriptor.
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
