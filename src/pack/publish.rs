//! Publication of an image: its documents, the layers of its base, and its name.

use super::limits::Effect;
use crate::error::{Error, Kind, Result, Side};
use crate::image::{Built, DEPTH_LIMIT};
use crate::oci::{Descriptor, Digest, Document, Index, Manifest, media_type};
use crate::progress::Progress;
use crate::stream::try_for_each;
use crate::transport::{self, Destination, Source, Transferred, send_again, transfer};
use crate::trust::{Signed, Signer};
use std::collections::HashSet;

/// The number of layers of a base that are brought to the destination at the same time.
const CONCURRENT_BLOBS: usize = 6;

/// The limit on the documents of a base that is copied. Two or three are usual.
const DOCUMENT_COUNT_LIMIT: usize = 1000;

/// The condition on which an image gets its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// It gets the name in any case.
    Replace,
    /// It gets the name if that means nothing. Whether it does could not be read before.
    IfNew,
    /// It gets the name if that still means the image with this digest, or still nothing.
    UnlessMoved(Option<Digest>),
}

/// Uploads the documents of an image, the root last, signs them, and gives the root its name.
pub(crate) fn publish(
    destination: &dyn Destination,
    image: &Built,
    signer: Option<&Signer>,
) -> Result<Option<Signed>> {
    store_documents(destination, image)?;
    let signed = sign(destination, image, signer)?;
    set_name(destination, &image.root, &NameRule::Replace).map(|()| signed)
}

/// Uploads the documents of an image, the root last.
pub fn store_documents(destination: &dyn Destination, image: &Built) -> Result<()> {
    // The root of an image for one platform is its only manifest.
    let below = image.manifests.iter().filter(|manifest| **manifest != image.root);
    destination.put_documents(&image.configs, &below.chain([&image.root]).collect::<Vec<_>>())
}

/// Signs the documents of an image, which the destination has. The image has no name yet, so that a reader that
/// requires a signature does not see it without one.
pub fn sign(destination: &dyn Destination, image: &Built, signer: Option<&Signer>) -> Result<Option<Signed>> {
    let Some(signer) = signer else { return Ok(None) };
    let manifests = image.manifests.iter().filter(|manifest| **manifest != image.root);
    let documents = manifests.chain([&image.root]).map(Document::descriptor);
    signer.sign(documents, destination).map(Some)
}

/// Gives the root of an image its name.
///
/// # Errors
/// [`Refused`](crate::error::Kind::Refused) if the rule does not allow it.
pub fn set_name(destination: &dyn Destination, root: &Document, rule: &NameRule) -> Result<()> {
    match rule {
        NameRule::Replace => destination.commit(root),
        // The repository exists by now, so that a registry that only denied a missing one answers.
        NameRule::IfNew => destination.commit_unless_moved(root, None).map_err(|error| {
            if error.kind() == Kind::Denied {
                let what = "cannot read whether the name means an image that would be replaced";
                let hint = "allow these credentials to pull as well; without --incremental, whatever the name means is replaced";
                error.context(what).with_hint(hint)
            } else {
                error
            }
        }),
        NameRule::UnlessMoved(expected) => destination.commit_unless_moved(root, expected.as_ref()),
    }
}

/// Brings the layers of a base to the destination. They are not read if they are there already, or can be mounted. Returns
/// the number of bytes that were sent.
///
/// # Errors
/// Those of both sides.
pub fn bring_layers(
    from: &dyn Source,
    to: &dyn Destination,
    layers: &[Descriptor],
    progress: &dyn Progress,
) -> Result<u64> {
    for_each_blob(layers, |layer| {
        if to.exists(layer).map_err(|error| error.on(Side::Destination))? {
            return Ok(0);
        }
        let is_copied = transfer(from, to, layer, progress)? == Transferred::Copied;
        Ok(if is_copied { layer.size } else { 0 })
    })
}

/// Returns the size of those of the blobs that the destination does not have.
///
/// # Errors
/// Those of the destination.
pub fn missing_bytes(to: &dyn Destination, blobs: &[Descriptor]) -> Result<u64> {
    for_each_blob(blobs, |blob| {
        let exists = to.exists(blob).map_err(|error| error.on(Side::Destination))?;
        Ok(if exists { 0 } else { blob.size })
    })
}

/// Sends the layers of a base whatever the destination says about them. Returns the number of bytes that were sent.
///
/// # Errors
/// Those of both sides.
pub fn send_layers(
    from: &dyn Source,
    to: &dyn Destination,
    layers: &[Descriptor],
    progress: &dyn Progress,
) -> Result<u64> {
    for_each_blob(layers, |layer| send_again(from, to, layer, progress).map(|()| layer.size))
}

fn for_each_blob(blobs: &[Descriptor], bring: impl Fn(&Descriptor) -> Result<u64> + Sync) -> Result<u64> {
    let mut digests = HashSet::new();
    let blobs: Vec<&Descriptor> = blobs.iter().filter(|blob| digests.insert(&blob.digest)).collect();
    let sent = try_for_each(CONCURRENT_BLOBS, &blobs, |_, blob| bring(blob)).into_result()?;
    Ok(sent.iter().sum())
}

/// Brings a whole image to the destination, byte for byte: everything that its root refers to, and then the root. Returns
/// the number of bytes that were sent, or that a dry run would have sent.
///
/// # Errors
/// Those of both sides.
pub fn bring_image(
    from: &dyn Source,
    to: &dyn Destination,
    root: &Document,
    effect: Effect,
    progress: &dyn Progress,
) -> Result<u64> {
    // The images of several platforms share layers.
    let mut digests = HashSet::new();
    let mut bring = |blobs: Vec<Descriptor>| {
        let blobs: Vec<_> = blobs.into_iter().filter(|blob| digests.insert(blob.digest.clone())).collect();
        match effect {
            Effect::Write => bring_layers(from, to, &blobs, progress),
            Effect::DryRun => missing_bytes(to, &blobs),
        }
    };
    let mut images = vec![(root.clone(), 0)];
    let (mut documents, mut sent) = (Vec::new(), 0);
    while let Some((document, depth)) = images.pop() {
        if media_type::is_index(&document.descriptor().media_type) {
            if depth == DEPTH_LIMIT {
                return Err(document.malformed("its indexes are nested too deep"));
            }
            for entry in Index::parse(&document)?.manifests {
                if media_type::is_document(&entry.media_type) {
                    images.push((transport::fetch(from, &entry)?, depth + 1));
                } else {
                    sent += bring(vec![entry])?;
                }
            }
        } else {
            let manifest = Manifest::parse(&document)?;
            let blobs = [manifest.layers.as_slice(), &[manifest.config]].concat();
            sent += bring(blobs)?;
        }
        documents.push(document);
        if documents.len() + images.len() > DOCUMENT_COUNT_LIMIT {
            return Err(root.malformed("it lists too many images"));
        }
    }
    for document in documents.iter().rev() {
        to.put_manifest(document)?;
        sent += document.bytes().len() as u64;
    }
    Ok(sent)
}

/// Returns whether an error says that a blob is not where it should be.
pub fn has_lost_blob(error: &Error) -> bool {
    error.kind() == Kind::NotFound || transport::is_missing_blob(error)
}
