//! Artifacts: charts, modules and files in the form of images, as helm, flux and oras push them.
//!
//! Annotations and media types say what a layer is, as in oras: a layer with a title is a file of that name, unless it
//! is marked as an archive to unpack; a layer without a title is unpacked if its media type is that of a tar archive.

use super::Job;
use super::selection::Selection;
use crate::error::{Error, Result};
use crate::image;
use crate::layer::{Budget, Item, LayerReader, decompress};
use crate::oci::{Descriptor, Document, Manifest, TITLE};
use crate::progress::{Phase, TaskInfo};
use crate::transport::Source;
use crate::tree::{Content, Entry, EntryKind, Extractor, Metadata, SpoolDirectory, TreePath};
use rustix::process::{getegid, geteuid};
use std::borrow::BorrowMut;
use std::fs::File;
use std::io::{self, Read, Seek};

/// The annotation with which oras marks a packed directory.
const UNPACK_ANNOTATION: &str = "io.deis.oras.content.unpack";
/// The suffixes of the media types of archives.
const ARCHIVE_SUFFIXES: [&str; 7] =
    [".tar", ".tar+gzip", ".tar+zstd", ".tar.gzip", ".tar.gz", ".tar.zstd", "/x-tar"];

/// Returns the manifest of an artifact.
///
/// # Errors
///
/// [`Usage`](crate::error::Kind::Usage) if the root is an image, or has several artifacts.
pub(super) fn select(root: &Document, source: &dyn Source) -> Result<Manifest> {
    let mut artifacts = Vec::new();
    for (_, document) in image::manifests(root, source)? {
        let manifest = Manifest::parse(&document)?;
        if manifest.artifact_type().is_some() {
            artifacts.push((document.descriptor().digest.clone(), manifest));
        }
    }
    match artifacts.len() {
        0 => Err(Error::usage(format!("{} is an image and not an artifact", root.descriptor().digest))
            .with_hint("leave out --artifact")),
        1 => Ok(artifacts.remove(0).1),
        number => {
            let digests: Vec<String> = artifacts.iter().map(|(digest, _)| format!("@{digest}")).collect();
            Err(Error::usage(format!("there are {number} artifacts under this name"))
                .with_hint(format!("name one by its digest: {}", digests.join(", "))))
        }
    }
}

/// The role of a layer.
enum LayerRole {
    /// An archive with entries.
    Archive,
    /// The content of a file.
    File(TreePath),
}

impl LayerRole {
    fn of(layer: &Descriptor) -> Result<Self> {
        let is_marked = layer.annotations.get(UNPACK_ANNOTATION).is_some_and(|value| value == "true");
        match layer.annotations.get(TITLE).filter(|title| !is_marked && !title.is_empty()) {
            Some(title) => match TreePath::parse(title).filter(|path| !path.is_root()) {
                Some(path) => Ok(Self::File(path)),
                None => Err(Error::integrity(format!(
                    "the layer {} calls its file {title:?}, which is not the name of a file in a directory",
                    layer.digest
                ))),
            },
            None if is_marked || ARCHIVE_SUFFIXES.iter().any(|ending| layer.media_type.ends_with(ending)) => {
                Ok(Self::Archive)
            }
            None => Err(Error::failed(format!(
                "the layer {} of type {:?} has no title, so that its file has no name",
                layer.digest, layer.media_type
            ))
            .with_hint(
                "volio copy to oci:DIR takes the artifact as it is; the layer is a file in DIR/blobs then",
            )),
        }
    }
}

/// Extracts the selected part of the layers, in their order.
///
/// # Errors
///
/// A layer has no name, or one that leads out of the target; that is found before anything is fetched.
pub(super) fn extract(job: &Job<'_>, artifact: &Manifest, extractor: &mut Extractor) -> Result<()> {
    let roles = artifact.layers.iter().map(LayerRole::of).collect::<Result<Vec<_>>>()?;
    extractor.begin_state(job.content.clone())?;
    let place = extractor.spool()?;
    let mut selection = Selection::new(&job.options.filter, job.options.limits.max_names);
    let mut budget = Budget::new(job.options.limits);
    for (layer, role) in artifact.layers.iter().zip(roles) {
        let blob = fetch(job, layer, &place)?;
        extractor.begin_layer();
        match role {
            LayerRole::File(path) => {
                let kind = EntryKind::File { size: layer.size };
                let entry = Entry { path, kind, metadata: plain_file(job) };
                selection.put(entry, &mut SpooledContent(blob), extractor)?;
            }
            LayerRole::Archive => {
                if selection.needs_survey() {
                    let mut archive = archive(&blob, budget.clone())?;
                    selection.survey(|| archive.next_item())?;
                }
                let mut archive = archive(&blob, &mut budget)?;
                while let Some(item) = archive.next_item()? {
                    if let Item::Entry(entry) = item {
                        selection.put(entry, &mut archive.content(), extractor)?;
                    }
                }
                archive.drain()?;
            }
        }
    }
    selection.ensure_found()
}

/// Fetches a layer into an unnamed file, and verifies it.
fn fetch(job: &Job<'_>, layer: &Descriptor, place: &SpoolDirectory) -> Result<File> {
    let task =
        job.progress.begin(&TaskInfo::new(Phase::Fetching).of_blob(&layer.digest).with_total(layer.size));
    let mut body = job.source.open(layer)?.verify(layer).on_read(move |bytes| task.advance(bytes));
    let cannot = |error| Error::io("cannot spool a layer", error);
    let mut file = place.file().map_err(cannot)?;
    io::copy(&mut body, &mut file).map_err(cannot)?;
    body.finish()?;
    file.rewind().map_err(cannot)?;
    Ok(file)
}

/// Opens an archive. It is not a layer of an image: `.wh.` has no meaning in it.
fn archive<B: BorrowMut<Budget>>(blob: &File, budget: B) -> Result<LayerReader<impl Read + use<B>, B>> {
    let cannot = |error| Error::io("cannot read the spool", error);
    let mut blob = blob.try_clone().map_err(cannot)?;
    blob.rewind().map_err(cannot)?;
    Ok(LayerReader::within(decompress(blob).map_err(cannot)?, budget).without_whiteouts())
}

/// Returns the attributes of a file of which only the title is known: mode 0644, time 0, and the owner of this process.
fn plain_file(job: &Job<'_>) -> Metadata {
    let mut metadata = Metadata { mode: 0o644, ..Metadata::default() };
    if job.options.tree.maps.is_empty() {
        (metadata.uid, metadata.gid) = (geteuid().as_raw(), getegid().as_raw());
    }
    metadata
}

/// The content of a file.
struct SpooledContent(File);

impl Read for SpooledContent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Content for SpooledContent {}
