//! Archives of `docker save` and `docker load`: configs and layers in a tar file, with a list of them.
//!
//! The format has no indexes and no manifests, and its layers are not compressed. So an image in it has one platform, and
//! [`manifest`] makes its manifest from the config and the layers. That is always the same manifest for the same config, so
//! that the image has a digest here too. No other manifest can be written, so that an image that is read has the digest
//! with which it was written.

mod manifest_json;
mod writer;

pub use writer::DockerArchiveWriter;

use super::Source;
use super::archive::{Section, TarArchive};
use crate::error::{Error, Kind, Result};
use crate::oci::{
    DOCUMENT_LIMIT, Descriptor, Digest, Document, ImageConfig, Manifest, Reference, media_type,
};
use crate::stream::{Body, Unverified};
use manifest_json::{FILE, ManifestItem};
use std::collections::{BTreeSet, HashMap};
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The first bytes of compressed layers. Programs other than docker write such layers, and docker loads them.
const COMPRESSIONS: [(&[u8], &str); 2] =
    [(&[0x1f, 0x8b], media_type::LAYER_GZIP), (&[0x28, 0xb5, 0x2f, 0xfd], media_type::LAYER_ZSTD)];

/// Returns the manifest of the image with this config and these layers.
fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> Document {
    Document::write(media_type::MANIFEST, &Manifest::new(config, layers, Default::default()))
}

/// A reader of an archive, bound to an image in it.
pub struct DockerArchive {
    archive: TarArchive,
    items: Vec<ManifestItem>,
    /// `None` if no name was given and there are several images. They can only be listed then.
    image: Option<DockerImage>,
}

/// An image in an archive, with the manifest that was made for it.
struct DockerImage {
    root: Document,
    /// The names of its members by the digests of their contents.
    members: HashMap<Digest, String>,
}

impl DockerImage {
    fn digest(&self) -> &Digest {
        &self.root.descriptor().digest
    }
}

impl DockerArchive {
    /// Opens an archive. Without a name, the image is the only one.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) if there is no such archive or no such image.
    pub fn open(path: &Path, reference: Option<&Reference>, digest: Option<&Digest>) -> Result<Self> {
        let archive = TarArchive::open(path)?;
        let items = manifest_json::read(&archive, Kind::NotFound)?;
        let not_found = |what: &str| {
            Error::not_found(format!("there is no image {what} in the archive {}", path.display()))
                .with_hint(names_hint(&archive, &items))
        };
        let image = match (digest, reference, items.as_slice()) {
            (Some(digest), ..) => {
                let image = find_by_digest(&archive, &items, digest)?;
                Some(image.ok_or_else(|| not_found(&digest.to_string()))?)
            }
            (None, Some(reference), items) => {
                let named: Vec<_> = items.iter().filter(|item| item.has_name(reference)).collect();
                let item = named.first().ok_or_else(|| {
                    let name = reference.to_string();
                    not_found(&name).with_missing_tag(&name)
                })?;
                if named.iter().any(|other| !other.is_same_image(item)) {
                    return Err(ambiguous(&archive, reference, &named));
                }
                Some(describe(&archive, item)?)
            }
            (None, None, []) => return Err(not_found("at all")),
            (None, None, [first, others @ ..]) => {
                let is_only = others.iter().all(|other| other.is_same_image(first));
                is_only.then(|| describe(&archive, first)).transpose()?
            }
        };
        Ok(Self { archive, items, image })
    }

    /// Finds the config or a layer of the image.
    fn find_blob(&self, blob: &Descriptor) -> Result<Section> {
        let name = self.image()?.members.get(&blob.digest);
        let section = name.map(|name| self.archive.find(name)).transpose()?.flatten();
        section.ok_or_else(|| {
            let path = self.archive.path().display();
            Error::not_found(format!("there is no blob {} in the image in {path}", blob.digest))
        })
    }

    fn image(&self) -> Result<&DockerImage> {
        self.image.as_ref().ok_or_else(|| {
            let path = self.archive.path().display();
            Error::usage(format!("there are {} images in the archive {path}", self.items.len()))
                .with_hint(names_hint(&self.archive, &self.items))
        })
    }
}

impl Source for DockerArchive {
    fn resolve(&self) -> Result<Document> {
        Ok(self.image()?.root.clone())
    }

    fn open(&self, descriptor: &Descriptor) -> Result<Unverified> {
        let image = self.image()?;
        if descriptor.digest == *image.digest() {
            return Ok(Unverified::new(Cursor::new(image.root.bytes().to_vec())));
        }
        self.find_blob(descriptor).map(Section::unverified)
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        super::check_range(blob, &range)?;
        if blob.digest == *self.image()?.digest() {
            return Ok(None);
        }
        Ok(Some(self.find_blob(blob)?.range(range).unverified()))
    }

    fn local_paths(&self) -> Vec<PathBuf> {
        vec![self.archive.path().to_owned()]
    }

    fn tags(&self) -> Result<Vec<String>> {
        let tags: BTreeSet<&String> = self.items.iter().flat_map(|item| &item.repo_tags).collect();
        Ok(tags.into_iter().cloned().collect())
    }

    fn untagged(&self) -> Result<Vec<Digest>> {
        let untagged = self.items.iter().filter(|item| item.repo_tags.is_empty());
        untagged.map(|item| Ok(describe(&self.archive, item)?.digest().clone())).collect()
    }
}

fn names_hint(archive: &TarArchive, items: &[ManifestItem]) -> String {
    manifest_json::names_hint(items, |item| digest_of(archive, item))
}

/// Returns the digest of an image; `None` if the image cannot be read.
fn digest_of(archive: &TarArchive, item: &ManifestItem) -> Option<Digest> {
    describe(archive, item).ok().map(|image| image.digest().clone())
}

/// The error for a name of several images.
fn ambiguous(archive: &TarArchive, reference: &Reference, items: &[&ManifestItem]) -> Error {
    let digests: Vec<String> =
        items.iter().filter_map(|item| digest_of(archive, item)).map(|digest| format!("@{digest}")).collect();
    let path = archive.path().display();
    Error::usage(format!("{reference} is the name of {} images in the archive {path}", items.len()))
        .with_hint(format!("name one of them by its digest: {}", digests.join(", ")))
}

fn find_by_digest(
    archive: &TarArchive,
    items: &[ManifestItem],
    digest: &Digest,
) -> Result<Option<DockerImage>> {
    for item in items {
        let image = describe(archive, item)?;
        if image.digest() == digest {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

/// Makes the manifest of an image, and finds the members with its blobs.
fn describe(archive: &TarArchive, item: &ManifestItem) -> Result<DockerImage> {
    let missing = |name: &str| archive.damaged(&format!("{FILE} names {name:?}, which is not in it"));
    let bytes = archive.read(&item.config, DOCUMENT_LIMIT)?.ok_or_else(|| missing(&item.config))?;
    let document = Document::new(media_type::CONFIG, bytes);
    let config: ImageConfig = document.parse()?;
    if config.rootfs.diff_ids.len() != item.layers.len() {
        return Err(archive.damaged(&format!(
            "{FILE} names {} layers of {}, which has {}",
            item.layers.len(),
            item.config,
            config.rootfs.diff_ids.len()
        )));
    }
    let mut members = HashMap::from([(document.descriptor().digest.clone(), item.config.clone())]);
    let mut layers: Vec<Descriptor> = Vec::with_capacity(item.layers.len());
    // Images may list the same empty layer many times, and a compressed layer has to be read to be described.
    let mut described: HashMap<&str, Descriptor> = HashMap::new();
    for (name, diff_id) in item.layers.iter().zip(config.rootfs.diff_ids) {
        let layer = match described.get(name.as_str()) {
            Some(layer) => layer.clone(),
            None => describe_layer(archive.find(name)?.ok_or_else(|| missing(name))?, diff_id)?,
        };
        described.insert(name, layer.clone());
        members.insert(layer.digest.clone(), name.clone());
        layers.push(layer);
    }
    Ok(DockerImage { root: manifest(document.descriptor().clone(), layers), members })
}

/// Returns the descriptor of a layer. The digest of an uncompressed layer is its diff_id, so that the layer is not read
/// here. If it has another digest, the reader of the layer fails.
fn describe_layer(layer: Section, diff_id: Digest) -> Result<Descriptor> {
    for (magic, media_type) in COMPRESSIONS {
        if layer.starts_with(magic).map_err(|error| Error::io("cannot read a layer", error))? {
            let written = Body::new(layer).drain()?;
            return Ok(Descriptor::new(media_type, written.digest, written.size));
        }
    }
    Ok(Descriptor::new(media_type::LAYER, diff_id, layer.len()))
}
