//! The archives of `docker save` and `docker load`: configurations and layers in a tar file, and a list of them.
//!
//! The format has neither indexes nor manifests, and its layers are plain. So an image in it has one platform, and its
//! manifest is the one that [`manifest`] makes of what is there: always the same one for the same configuration, so
//! that an image has a digest here too. It is the only manifest that can be written, and writing and reading agree.

mod listing;
mod writer;

pub use writer::DockerArchiveWriter;

use super::Source;
use super::archive::{Archive, Section};
use crate::error::{Error, Kind, Result};
use crate::oci::{Config, DOCUMENT_LIMIT, Descriptor, Digest, Document, Manifest, Reference, media_type};
use crate::stream::{Body, Unverified};
use listing::{Entry, LIST_FILE};
use std::collections::{BTreeSet, HashMap};
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

/// How compressed layers begin; other tools than docker put them into such archives, and docker loads them.
const COMPRESSIONS: [(&[u8], &str); 2] =
    [(&[0x1f, 0x8b], media_type::LAYER_GZIP), (&[0x28, 0xb5, 0x2f, 0xfd], media_type::LAYER_ZSTD)];

/// The manifest of the image in such an archive with this configuration and these layers.
fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> Document {
    Document::write(media_type::MANIFEST, &Manifest::new(config, layers, Default::default()))
}

/// One image in an archive, to be read.
pub struct DockerArchive {
    archive: Archive,
    entries: Vec<Entry>,
    /// The image; without a name there may be several, which can be listed only.
    image: Option<Image>,
}

/// An image as it looks to those who know manifests.
struct Image {
    root: Document,
    /// The members of the image by their digests.
    members: HashMap<Digest, String>,
}

impl DockerArchive {
    /// The image of this name; without one, the only image that there is.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) when it is not there.
    pub fn open(path: &Path, reference: Option<&Reference>, digest: Option<&Digest>) -> Result<Self> {
        let archive = Archive::open(path)?;
        let entries = listing::read(&archive, Kind::NotFound)?;
        let absent = |what: &str| {
            let found = format!("there is no image {what} in the archive {}", path.display());
            Error::not_found(found).with_hint(listed(&archive, &entries))
        };
        let image = match (digest, reference, entries.as_slice()) {
            (Some(digest), ..) => {
                Some(find_by_digest(&archive, &entries, digest)?.ok_or_else(|| absent(&digest.to_string()))?)
            }
            (None, Some(reference), entries) => {
                let called: Vec<_> = entries.iter().filter(|entry| entry.is_called(reference)).collect();
                let entry = called.first().ok_or_else(|| absent(&reference.to_string()))?;
                if called.iter().any(|other| !other.is_same(entry)) {
                    return Err(ambiguous(&archive, reference, &called));
                }
                Some(describe(&archive, entry)?)
            }
            (None, None, []) => return Err(absent("at all")),
            (None, None, [first, others @ ..]) => match others.iter().all(|other| other.is_same(first)) {
                true => Some(describe(&archive, first)?),
                false => None,
            },
        };
        Ok(Self { archive, entries, image })
    }

    /// The configuration or a layer of the image.
    fn find(&self, blob: &Descriptor) -> Result<Section> {
        let found = match self.image()?.members.get(&blob.digest) {
            Some(name) => self.archive.find(name)?,
            None => None,
        };
        found.ok_or_else(|| {
            let path = self.archive.path().display();
            Error::not_found(format!("there is no blob {} in the image in {path}", blob.digest))
        })
    }

    fn image(&self) -> Result<&Image> {
        self.image.as_ref().ok_or_else(|| {
            let path = self.archive.path().display();
            Error::usage(format!("there are {} images in the archive {path}", self.entries.len()))
                .with_hint(listed(&self.archive, &self.entries))
        })
    }
}

impl Source for DockerArchive {
    fn resolve(&self) -> Result<Document> {
        Ok(self.image()?.root.clone())
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        let root = &self.image()?.root;
        match descriptor.digest == root.descriptor().digest {
            true => Ok(Unverified::new(Cursor::new(root.bytes().to_vec()))),
            false => self.find(descriptor).map(Section::unverified),
        }
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        super::check_range(blob, &range)?;
        match blob.digest == self.image()?.root.descriptor().digest {
            true => Ok(None),
            false => Ok(Some(self.find(blob)?.part(range).unverified())),
        }
    }

    fn tags(&self) -> Result<Vec<String>> {
        let tags: BTreeSet<&String> = self.entries.iter().flat_map(|entry| &entry.repo_tags).collect();
        Ok(tags.into_iter().cloned().collect())
    }

    fn untagged(&self) -> Result<Vec<Digest>> {
        let untagged = self.entries.iter().filter(|entry| entry.repo_tags.is_empty());
        untagged.map(|entry| Ok(describe(&self.archive, entry)?.root.descriptor().digest.clone())).collect()
    }
}

/// What the images are called, as a hint.
fn listed(archive: &Archive, entries: &[Entry]) -> String {
    listing::images(entries, |entry| digest_of(archive, entry))
}

/// The digest of an image, if it can be read.
fn digest_of(archive: &Archive, entry: &Entry) -> Option<Digest> {
    describe(archive, entry).ok().map(|image| image.root.descriptor().digest.clone())
}

/// The error for a name that several images have.
fn ambiguous(archive: &Archive, reference: &Reference, called: &[&Entry]) -> Error {
    let digests: Vec<String> = called
        .iter()
        .filter_map(|entry| digest_of(archive, entry))
        .map(|digest| format!("@{digest}"))
        .collect();
    let path = archive.path().display();
    Error::usage(format!("{reference} is the name of {} images in the archive {path}", called.len()))
        .with_hint(format!("name one of them by its digest: {}", digests.join(", ")))
}

fn find_by_digest(archive: &Archive, entries: &[Entry], digest: &Digest) -> Result<Option<Image>> {
    for entry in entries {
        let image = describe(archive, entry)?;
        if image.root.descriptor().digest == *digest {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

/// Makes the manifest of an image, and says where in the archive its blobs are.
fn describe(archive: &Archive, entry: &Entry) -> Result<Image> {
    let absent = |name: &str| archive.damaged(&format!("{LIST_FILE} names {name:?}, which is not in it"));
    let bytes = archive.read(&entry.config, DOCUMENT_LIMIT)?.ok_or_else(|| absent(&entry.config))?;
    let document = Document::new(media_type::CONFIG, bytes);
    let config: Config = document.parse()?;
    if config.rootfs.diff_ids.len() != entry.layers.len() {
        return Err(archive.damaged(&format!(
            "{LIST_FILE} names {} layers of {}, which has {}",
            entry.layers.len(),
            entry.config,
            config.rootfs.diff_ids.len()
        )));
    }
    let mut members = HashMap::from([(document.descriptor().digest.clone(), entry.config.clone())]);
    let mut layers: Vec<Descriptor> = Vec::with_capacity(entry.layers.len());
    // Images list the same empty layer many times over; a compressed one must be read to be known.
    let mut known: HashMap<&str, Descriptor> = HashMap::new();
    for (name, diff_id) in entry.layers.iter().zip(config.rootfs.diff_ids) {
        let layer = match known.get(name.as_str()) {
            Some(layer) => layer.clone(),
            None => describe_layer(archive.find(name)?.ok_or_else(|| absent(name))?, diff_id)?,
        };
        known.insert(name, layer.clone());
        members.insert(layer.digest.clone(), name.clone());
        layers.push(layer);
    }
    Ok(Image { root: manifest(document.descriptor().clone(), layers), members })
}

/// What a layer is. The digest of a plain one is its diff_id: it need not be read to be known, and if it is another,
/// whoever reads it will notice.
fn describe_layer(layer: Section, diff_id: Digest) -> Result<Descriptor> {
    for (magic, media_type) in COMPRESSIONS {
        if layer.begins_with(magic).map_err(|error| Error::io("cannot read a layer", error))? {
            let written = Body::new(layer).drain()?;
            return Ok(Descriptor::new(media_type, written.digest, written.size));
        }
    }
    Ok(Descriptor::new(media_type::LAYER, diff_id, layer.len()))
}
