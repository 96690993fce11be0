//! A tree into an image, wherever the image is.

mod told;

use crate::error::{Error, Result};
use crate::image::{Built, Description};
use crate::layer::{Compression, Contents, Framer, Layer, LayerWriter};
use crate::oci::{Digest, Document, Platform};
use crate::progress::Progress;
use crate::stream::{Body, Written};
use crate::transport::{Destination, Holds};
use crate::tree::{LeftOut, OnChange, SourceSpec, Summary, Walk, WalkOptions};
use serde::Serialize;
use std::{io, thread};

/// What may be chosen when an image is packed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How the layers are compressed.
    pub compression: Compression,
    /// What of the tree is packed, and how.
    pub tree: WalkOptions,
    /// What the image is, apart from its layers.
    pub image: Description,
}

/// What was packed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Packed {
    /// Where the image is, by its digest: `repo@sha256:…`.
    pub address: String,
    /// The digest of the index, or of the manifest where there is only one.
    pub digest: Digest,
    /// The platforms that the image is for.
    pub platforms: Vec<Platform>,
    /// The layers, lowest first.
    pub layers: Vec<PackedLayer>,
    /// How many entries the tree has.
    pub entries: u64,
    /// How many bytes its files have.
    pub bytes: u64,
    /// How many sockets were left out: no archive can hold them.
    pub sockets_skipped: u64,
    /// How many entries the ignore rules left out; what is below a directory among them is not counted.
    pub excluded: u64,
    /// How many entries were left out because they may not be read.
    pub unreadable_skipped: u64,
    /// How many entries were left out because they changed while they were read.
    pub changed_skipped: u64,
    /// Those by name, up to [`Summary::NAMED`].
    pub skipped: Vec<LeftOut>,
}

/// One layer of what was packed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PackedLayer {
    /// The digest of the blob.
    pub digest: Digest,
    /// The digest of the plain tar archive.
    pub diff_id: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The size of the plain tar archive in bytes.
    pub uncompressed_size: u64,
    /// The media type of the blob.
    pub media_type: String,
}

/// Packs the sources into an image at the destination, and gives it its name.
///
/// The tree is walked once, and again only where a layer got lost on its way or where the tree changed meanwhile; its
/// bytes are archived, compressed, hashed and sent as they are read.
///
/// # Errors
/// Those of reading the tree and of writing to the destination; the name then means what it meant before.
pub fn pack(
    destination: &dyn Destination,
    sources: &[SourceSpec],
    options: &Options,
    progress: &dyn Progress,
) -> Result<Packed> {
    let options = &options.fitting(destination.holds())?;
    options.image.platforms()?;
    let (contents, summary, written) = persist(destination, sources, &options.tree, progress, |tree| {
        let tree = Walk::new(sources, tree)?;
        if let Some(directory) = destination.directory() {
            tree.insist_without(&directory)?;
        }
        send_layer(destination, tree, options.compression, progress)
    })?;
    told::left_out(&summary, progress);
    let layer = Layer::new(options.compression, &contents, written);
    // SOURCE_DATE_EPOCH where it is set, else the newest time in the tree: never the clock.
    let created = options.tree.clamp_mtime.or(summary.newest).and_then(rfc3339);
    let image = Description { created, ..options.image.clone() }.build(std::slice::from_ref(&layer))?;
    publish(destination, &image)?;
    let digest = image.root.descriptor().digest.clone();
    Ok(Packed {
        address: destination.address(&digest),
        digest,
        platforms: image.platforms,
        layers: vec![PackedLayer::new(&layer, &contents)],
        entries: contents.entries,
        bytes: contents.bytes,
        sockets_skipped: summary.sockets,
        excluded: summary.excluded,
        unreadable_skipped: summary.unreadable,
        changed_skipped: summary.changed,
        skipped: summary.left_out,
    })
}

/// Sends a layer, and makes it anew where it got lost on its way (the same tree gives the same layer) or where
/// something changed while it was read: its header was in the archive already.
fn persist<T>(
    destination: &dyn Destination,
    sources: &[SourceSpec],
    tree: &WalkOptions,
    progress: &dyn Progress,
    mut send: impl FnMut(&WalkOptions) -> Result<T>,
) -> Result<T> {
    let mut tree = tree.clone();
    let (mut failures, mut changes) = (0, 0);
    loop {
        match send(&tree) {
            Err(error) if destination.again(&error, failures) => failures += 1,
            Err(error) if tree.learn(&error, changes) => {
                progress.warn(&format!("{error}; the layer is made anew"));
                changes += 1;
                if tree.on_change == OnChange::Skip {
                    tree.survey(sources)?;
                }
            }
            outcome => return outcome,
        }
    }
}

impl Options {
    /// The same for a place that holds nothing else: where images are plain, the layers are not compressed, and data is
    /// packed for the host's platform only.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when something was asked for that is lost there.
    fn fitting(&self, holds: Holds) -> Result<Self> {
        let mut options = self.clone();
        if holds == Holds::PlainImage {
            if !options.image.annotations.is_empty() {
                return Err(Error::usage("this place holds no annotations").hint("use labels"));
            }
            match options.image.platforms.as_slice() {
                [] => options.image.platforms.push(Platform::host()),
                [_] => {}
                _ => {
                    return Err(Error::usage("this place holds images for one platform")
                        .hint("choose one with --platform, or pack into a registry or a layout"));
                }
            }
            options.compression = Compression::None;
        }
        Ok(options)
    }
}

/// Sends a layer while it is made: one thread reads and archives, some compress, this one hashes and sends.
fn send_layer(
    destination: &dyn Destination,
    tree: Walk,
    compression: Compression,
    progress: &dyn Progress,
) -> Result<(Contents, Summary, Written)> {
    let task = progress.begin("packing", None);
    let workers = compression.workers();
    let (layer, blob) = compression.layer(&workers, workers.count())?;
    thread::scope(|scope| {
        let archiver = scope.spawn(|| archive(tree, layer, progress, |bytes| task.advance(bytes)));
        let written = destination.upload(Body::new(blob));
        let archived = archiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (archived, written) {
            (Ok((contents, summary)), Ok(written)) => Ok((contents, summary, written)),
            // Where one half failed, the other one only sees a broken pipe: the cause is what the user must read.
            (Err(error), _) if !error.is_broken_pipe() => Err(error),
            (_, Err(error)) => Err(error),
            (Err(error), Ok(_)) => Err(error),
        }
    })
}

/// Writes the whole tree as one layer.
fn archive(
    mut tree: Walk,
    mut layer: LayerWriter<Framer>,
    progress: &dyn Progress,
    passed: impl Fn(u64),
) -> Result<(Contents, Summary)> {
    let mut holes = told::Holes::new(progress);
    for found in tree.by_ref() {
        let found = found?;
        holes.count(&found);
        match found.file {
            Some(file) => layer.append(&found.entry, file, &passed)?,
            None => layer.append(&found.entry, io::empty(), &passed)?,
        }
    }
    let ((), contents) = layer.finish()?;
    Ok((contents, tree.summary()))
}

/// Sends the documents of an image, leaves first, and gives the root its name.
fn publish(destination: &dyn Destination, image: &Built) -> Result<()> {
    for config in &image.configs {
        if !destination.contains(config.descriptor())? {
            destination.upload(body_of(config))?;
        }
    }
    // The root of an image for one platform is its only manifest.
    for document in image.manifests.iter().filter(|manifest| **manifest != image.root).chain([&image.root]) {
        destination.put_manifest(document)?;
    }
    destination.commit(&image.root)
}

fn body_of(document: &Document) -> Body {
    crate::stream::Unverified::new(io::Cursor::new(document.bytes().to_vec())).verify(document.descriptor())
}

/// A time as image configurations have it; times that no calendar has are left out.
fn rfc3339(time: crate::tree::Time) -> Option<String> {
    Some(jiff::Timestamp::from_second(time.seconds).ok()?.to_string())
}

impl PackedLayer {
    fn new(layer: &Layer, contents: &Contents) -> Self {
        Self {
            digest: layer.descriptor.digest.clone(),
            diff_id: layer.diff_id.clone(),
            size: layer.descriptor.size,
            uncompressed_size: contents.size,
            media_type: layer.descriptor.media_type.clone(),
        }
    }
}
