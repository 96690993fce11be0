//! Lists the tags of a repository, a layout or an archive: those of images, and those of what is attached to images, such
//! as signatures.

use crate::error::{Error, Kind, Result};
use crate::oci::{Digest, attachment_subject, is_attachment_tag, tags_about};
use crate::stream::try_for_each;
use crate::transport::{self, ClientOptions, Source, document_digests};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The longest chain of attachments that is followed. A signature of an SBOM has length two.
const DEPTH_LIMIT: usize = 8;

/// All tags, sorted by their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tags {
    /// The tags of images.
    pub images: Vec<String>,
    /// The tags of attachments: cosign's, which end with `.sig`, `.att` or `.sbom`, and those of indexes of referrers.
    pub attachments: Vec<String>,
}

/// The tag of an attachment, and the images that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attachment {
    /// The tag.
    pub tag: String,
    /// The digest of the manifest or the index that it is attached to, which may be that of one platform, or of another
    /// attachment. `None` if it was too long for the tag.
    pub subject: Option<Digest>,
    /// The tags of the images that it belongs to. There are none if its image has no tag, or cannot be read.
    pub images: Vec<String>,
}

/// Returns the tags.
///
/// # Errors
/// Those of [`Source::tags`].
pub fn list(source: &dyn Source) -> Result<Tags> {
    let (attachments, images) = source.tags()?.into_iter().partition(|tag| is_attachment_tag(tag));
    Ok(Tags { images, attachments })
}

/// Returns as many tags as one request lists.
///
/// # Errors
/// Those of [`Source::first_tags`].
pub fn first(source: &dyn Source) -> Result<Tags> {
    let (attachments, images) = source.first_tags()?.into_iter().partition(|tag| is_attachment_tag(tag));
    Ok(Tags { images, attachments })
}

/// Finds the images that the attachments belong to, also through a manifest of one platform and through other attachments.
/// Each image is looked at, which takes a request for each tag of a repository.
///
/// # Errors
/// Those of reading the documents. A tag whose document is missing or damaged has no attachments.
pub fn attachments(tags: &Tags, source: &dyn Source) -> Result<Vec<Attachment>> {
    let mut owners: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    // The tags whose documents are read next, and the images that they belong to.
    let mut pending: Vec<(&str, BTreeSet<&str>)> = Vec::new();
    if !tags.attachments.is_empty() {
        pending.extend(tags.images.iter().map(|tag| (tag.as_str(), BTreeSet::from([tag.as_str()]))));
    }
    let known: HashSet<&str> = tags.attachments.iter().map(String::as_str).collect();
    for _ in 0..DEPTH_LIMIT {
        let read = |_, (tag, _): &(&str, _)| documents(source, tag);
        let read = try_for_each(ClientOptions::default().concurrency, &pending, read).into_result()?;
        let mut found: HashMap<&str, BTreeSet<&str>> = HashMap::new();
        for ((_, images), subjects) in pending.iter().zip(read) {
            for tag in subjects.iter().flat_map(tags_about) {
                let Some(tag) = known.get(tag.as_str()) else { continue };
                let owned = owners.entry(tag).or_default();
                let new = images.iter().filter(|image| owned.insert(image));
                found.entry(tag).or_default().extend(new);
            }
        }
        // What is left may be attached to an attachment.
        found.retain(|_, images| !images.is_empty());
        pending = found.into_iter().collect();
        if pending.is_empty() || owners.len() == known.len() {
            break;
        }
    }
    let attachment = |tag: &String| {
        let images = owners.get(tag.as_str()).into_iter().flatten().map(|image| (*image).to_owned());
        Attachment { tag: tag.clone(), subject: attachment_subject(tag), images: images.collect() }
    };
    Ok(tags.attachments.iter().map(attachment).collect())
}

/// Returns the digests of all manifests and indexes under a tag.
fn documents(source: &dyn Source, tag: &str) -> Result<HashSet<Digest>> {
    let found = source.tagged(tag).and_then(|root| match root {
        Some(root) => document_digests(&root, |entry| transport::fetch(source, entry)),
        None => Ok(HashSet::new()),
    });
    match found {
        Err(error) if is_of_one_image(&error) => Ok(HashSet::new()),
        found => found,
    }
}

fn is_of_one_image(error: &Error) -> bool {
    matches!(error.kind(), Kind::Integrity | Kind::NotFound | Kind::Usage)
}
