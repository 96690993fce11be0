//! Writing an archive for `docker load`.

use super::manifest;
use super::manifest_json::{self, FILE, ManifestItem};
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Document, Manifest, Reference, media_type};
use crate::stream::{Body, Written};
use crate::transport::archive::{ArchiveWriter, Closing, Contents, TarArchive};
use crate::transport::{Destination, ImageSupport};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Other lists of images. They are removed when an image is added: programs that read them instead of [`FILE`] would not
/// find it.
const OTHER_LISTS: [&str; 3] = ["oci-layout", "index.json", "repositories"];

/// A writer of an archive, bound to the name of an image in it.
pub struct DockerArchiveWriter {
    writer: ArchiveWriter,
    reference: Option<Reference>,
}

impl DockerArchiveWriter {
    /// Opens an archive for writing. One that does not exist is created when an image gets its name.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) if the file is something else.
    pub fn create(path: &Path, reference: Option<&Reference>) -> Result<Self> {
        let check = |archive: &TarArchive| manifest_json::read(archive, Kind::Refused).map(drop);
        Ok(Self { writer: ArchiveWriter::create(path, check)?, reference: reference.cloned() })
    }

    /// Adds the image with its name to the list. Another image loses the name, and is removed if it has no other one.
    fn insert(&self, items: &mut Vec<ManifestItem>, mut new: ManifestItem) {
        if let Some(reference) = &self.reference {
            items.retain_mut(|item| {
                let had_name = item.has_name(reference);
                item.remove_name(reference);
                !had_name || !item.repo_tags.is_empty()
            });
            new.repo_tags.push(reference.to_string());
        }
        match items.iter_mut().find(|item| item.is_same_image(&new)) {
            Some(same) => same.repo_tags.append(&mut new.repo_tags),
            None => items.push(new),
        }
    }
}

impl Destination for DockerArchiveWriter {
    fn contains(&self, descriptor: &Descriptor) -> Result<bool> {
        self.writer.contains(&member_name(&descriptor.digest), descriptor)
    }

    fn upload(&self, body: Body) -> Result<Written> {
        self.writer.add(body, member_name)
    }

    fn put_manifest(&self, document: &Document) -> Result<()> {
        manifest_item(document).map(drop)
    }

    fn commit(&self, root: &Document) -> Result<()> {
        let new = manifest_item(root)?;
        let close = |contents: &Contents<'_>| {
            let before = match contents.old() {
                Some(old) => manifest_json::read(old, Kind::Refused)?,
                None => Vec::new(),
            };
            let mut items = before.clone();
            self.insert(&mut items, new);
            let list = Document::write("application/json", &items).bytes().to_vec();
            // The members that only the old list names are dropped, including links and their targets.
            let members = |items: &[ManifestItem]| -> HashSet<String> {
                let Some(old) = contents.old() else { return HashSet::new() };
                let names = items.iter().flat_map(|item| item.layers.iter().chain([&item.config]));
                names.flat_map(|name| old.link_chain(name)).collect()
            };
            let needed = members(&items);
            let mut dropped: HashSet<String> = members(&before).difference(&needed).cloned().collect();
            dropped.extend(OTHER_LISTS.map(str::to_owned));
            Ok(Closing { last: vec![(FILE.to_owned(), list)], dropped })
        };
        self.writer.publish(close)
    }

    fn directory(&self) -> Option<PathBuf> {
        Some(self.writer.directory().to_owned())
    }

    fn image_support(&self) -> ImageSupport {
        ImageSupport::PlainOnly
    }

    fn address(&self, digest: &Digest) -> String {
        format!("docker-archive:{}@{digest}", self.writer.path().display())
    }
}

/// Returns the name of the member that holds a blob. `docker save` uses it since version 25; all versions load it.
fn member_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// Returns the item for an image in the list.
///
/// # Errors
/// [`Usage`](crate::error::Kind::Usage) if its manifest is not the one that reading it again would make.
fn manifest_item(document: &Document) -> Result<ManifestItem> {
    let unfit = |why: &str| {
        Error::usage(format!(
            "an archive for docker load cannot hold {}: {why}",
            document.descriptor().digest
        ))
    };
    if document.descriptor().media_type != media_type::MANIFEST {
        return Err(unfit("it is no OCI manifest"));
    }
    let Manifest { config, layers, .. } = Manifest::parse(document)?;
    if layers.iter().any(|layer| layer.media_type != media_type::LAYER) {
        return Err(unfit("its layers are compressed"));
    }
    let (config_name, layer_names) =
        (member_name(&config.digest), layers.iter().map(|layer| member_name(&layer.digest)).collect());
    if manifest(config, layers) != *document {
        return Err(unfit("its manifest says more than where the layers are"));
    }
    Ok(ManifestItem {
        config: config_name,
        repo_tags: Vec::new(),
        layers: layer_names,
        extra: Default::default(),
    })
}
