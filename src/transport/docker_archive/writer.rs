//! Writes an archive for `docker load`.

use super::listing::{self, Entry, LIST_FILE};
use super::manifest;
use crate::error::{Error, Kind, Result};
use crate::oci::{Descriptor, Digest, Document, Manifest, Reference, media_type};
use crate::stream::{Body, Written};
use crate::transport::archive::{Archive, ArchiveWriter, Composed, View};
use crate::transport::{Destination, Holds};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What else an archive may say about its images. It would say too little when there is one more, and loaders that
/// read it instead of [`LIST_FILE`] would not see the new one.
const OTHER_LISTS: [&str; 3] = ["oci-layout", "index.json", "repositories"];

/// One image in an archive, to be written.
pub struct DockerArchiveWriter {
    writer: ArchiveWriter,
    reference: Option<Reference>,
}

impl DockerArchiveWriter {
    /// An archive that exists, or will when an image is in it.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when the file is something else.
    pub fn create(path: &Path, reference: Option<&Reference>) -> Result<Self> {
        let fits = |archive: &Archive| listing::read(archive, Kind::Refused).map(drop);
        Ok(Self { writer: ArchiveWriter::create(path, fits)?, reference: reference.cloned() })
    }

    /// Lists the image under its name, which no other image has then. An image that loses its only name is not listed
    /// any more.
    fn enter(&self, entries: &mut Vec<Entry>, mut new: Entry) {
        if let Some(reference) = &self.reference {
            entries.retain_mut(|entry| {
                let was_called = entry.is_called(reference);
                entry.forget(reference);
                !was_called || !entry.repo_tags.is_empty()
            });
            new.repo_tags.push(reference.to_string());
        }
        match entries.iter_mut().find(|entry| entry.is_same(&new)) {
            Some(same) => same.repo_tags.append(&mut new.repo_tags),
            None => entries.push(new),
        }
    }
}

impl Destination for DockerArchiveWriter {
    fn contains(&self, descriptor: &Descriptor) -> Result<bool> {
        self.writer.contains(&member(&descriptor.digest), descriptor)
    }

    fn upload(&self, body: Body) -> Result<Written> {
        self.writer.add(body, member)
    }

    fn put_manifest(&self, document: &Document) -> Result<()> {
        entry(document).map(drop)
    }

    fn commit(&self, root: &Document) -> Result<()> {
        let new = entry(root)?;
        let compose = |view: &View<'_>| {
            let before = match view.old() {
                Some(old) => listing::read(old, Kind::Refused)?,
                None => Vec::new(),
            };
            let mut entries = before.clone();
            self.enter(&mut entries, new);
            let list = Document::write("application/json", &entries).bytes().to_vec();
            // What the old list names and the new one does not, links and what they lead to included.
            let members = |entries: &[Entry]| -> HashSet<String> {
                let names = entries.iter().flat_map(|entry| entry.layers.iter().chain([&entry.config]));
                view.old().map_or_else(HashSet::new, |old| names.flat_map(|name| old.trail(name)).collect())
            };
            let needed = members(&entries);
            let mut left_out: HashSet<String> = members(&before).difference(&needed).cloned().collect();
            left_out.extend(OTHER_LISTS.map(str::to_owned));
            Ok(Composed { last: vec![(LIST_FILE.to_owned(), list)], left_out })
        };
        self.writer.publish(compose)
    }

    fn directory(&self) -> Option<PathBuf> {
        Some(self.writer.directory().to_owned())
    }

    fn holds(&self) -> Holds {
        Holds::PlainImage
    }

    fn address(&self, digest: &Digest) -> String {
        format!("docker-archive:{}@{digest}", self.writer.path().display())
    }
}

/// What a blob is called, as `docker save` has called it since version 25; all versions load it.
fn member(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// How an image is listed.
///
/// # Errors
/// [`Usage`](crate::error::Kind::Usage) when its manifest is not the one that reading it again would make.
fn entry(document: &Document) -> Result<Entry> {
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
        (member(&config.digest), layers.iter().map(|layer| member(&layer.digest)).collect());
    if manifest(config, layers) != *document {
        return Err(unfit("its manifest says more than where the layers are"));
    }
    Ok(Entry { config: config_name, repo_tags: Vec::new(), layers: layer_names, extra: Default::default() })
}
