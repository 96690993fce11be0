//! A tree into an image, wherever the image is.

mod archive;
mod plan;
mod send;
mod told;

pub use archive::read_archive;
pub(crate) use send::while_made;
pub(crate) use told::left_out;

use crate::error::{Error, Result};
use crate::image::{Built, Description};
use crate::layer::{Compression, Contents, Layer};
use crate::oci::{Digest, Document, Platform};
use crate::progress::Progress;
use crate::stream::Body;
use crate::transport::{Destination, ImageSupport};
use crate::tree::{LeftOut, SkipList, SourceSpec, Summary, Walk, WalkOptions};
use plan::{Part, Planner};
use send::Sent;
use std::collections::BTreeMap;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// What a layer has, in bytes of its archive, unless it is said otherwise.
pub const LAYER_SIZE: u64 = 512 << 20;

/// The time after which a wait for a retry notices that it was cancelled.
const CANCELLATION_INTERVAL: Duration = Duration::from_millis(100);

/// What may be chosen when an image is packed.
#[derive(Clone, Debug)]
pub struct Options {
    /// How the layers are compressed.
    pub compression: Compression,
    /// About how many bytes of archive a layer has; a file of more than twice that is a layer by itself.
    pub layer_size: u64,
    /// What of the tree is packed, and how.
    pub tree: WalkOptions,
    /// What the image is, apart from its layers.
    pub image: Description,
}

/// The layers that a tree becomes.
#[derive(Clone, Copy)]
pub(crate) struct LayerForm {
    /// The approximate number of bytes of an archive.
    pub size: u64,
    pub format: ArchiveFormat,
}

/// The format of an archive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiveFormat {
    /// A layer of an image.
    Layer,
    /// An archive for old tars, in which a name that begins with `.wh.` is an ordinary name.
    OldTar,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compression: Compression::default(),
            layer_size: LAYER_SIZE,
            tree: WalkOptions::default(),
            image: Description::default(),
        }
    }
}

/// What was packed.
#[derive(Clone, Debug)]
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
    /// How many extended attributes were left out because they are notes of the host, by the beginnings of their names.
    pub attributes_skipped: BTreeMap<&'static str, u64>,
    /// How many entries were left out because volio or `mkfs` put them into the root of a source.
    pub bookkeeping_skipped: u64,
    /// How many places were left out, or taken as empty, because something else is mounted there.
    pub mounts_skipped: u64,
    /// How many entries were left out because they cannot be read.
    pub unreadable_skipped: u64,
    /// How many entries were left out because they changed while they were read.
    pub changed_skipped: u64,
    /// Those by name, up to [`Summary::MAX_NAMED`].
    pub skipped: Vec<LeftOut>,
}

/// One layer of what was packed.
#[derive(Clone, Debug)]
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
/// The tree is surveyed first, to know which layer holds what. Then it is read once, and again only where a layer got
/// lost on its way or where the tree changed meanwhile; its bytes are archived, compressed, hashed and sent as they are
/// read.
///
/// # Errors
/// Those of reading the tree and of writing to the destination; the name then means what it meant before.
pub fn pack(
    destination: &dyn Destination,
    sources: &[SourceSpec],
    options: &Options,
    progress: &dyn Progress,
) -> Result<Packed> {
    let options = &options.fitting(destination.image_support())?;
    options.image.platforms()?;
    let form = LayerForm { size: options.layer_size, format: ArchiveFormat::Layer };
    let (sent, summary) = layers(destination, destination, sources, options, form, progress)?;
    told::left_out(&summary, progress);
    // SOURCE_DATE_EPOCH where it is set, else the newest time in the tree: never the clock.
    let created = options.tree.clamp_mtime.or(summary.newest).and_then(rfc3339);
    let layers: Vec<Layer> = sent.iter().map(|sent| sent.layer.clone()).collect();
    let image = Description { created, ..options.image.clone() }.build(&layers)?;
    publish(destination, &image)?;
    let packed = sent.iter().map(|sent| PackedLayer::new(&sent.layer, &sent.contents)).collect();
    Ok(Packed::new(destination, image, packed, &sent, summary))
}

impl Packed {
    /// Describes an image whose layers are `layers`, and whose tree is in the archives of `sent`.
    pub(crate) fn new(
        destination: &dyn Destination,
        image: Built,
        layers: Vec<PackedLayer>,
        sent: &[Sent],
        summary: Summary,
    ) -> Self {
        let digest = image.root.descriptor().digest.clone();
        Self {
            address: destination.address(&digest),
            digest,
            platforms: image.platforms,
            layers,
            entries: sent.iter().map(|sent| sent.entries).sum(),
            bytes: sent.iter().map(|sent| sent.contents.bytes).sum(),
            sockets_skipped: summary.sockets,
            excluded: summary.excluded,
            attributes_skipped: summary.attributes,
            bookkeeping_skipped: summary.bookkeeping,
            mounts_skipped: summary.mounts,
            unreadable_skipped: summary.unreadable,
            changed_skipped: summary.changed,
            skipped: summary.left_out,
        }
    }
}

/// Sends the tree as layers to `into`, anew where something was moved meanwhile from where nothing had been read yet to
/// where all had been. `destination` is where the image goes.
pub(crate) fn layers(
    destination: &dyn Destination,
    into: &dyn Destination,
    sources: &[SourceSpec],
    options: &Options,
    form: LayerForm,
    progress: &dyn Progress,
) -> Result<(Vec<Sent>, Summary)> {
    let mut skip_list = SkipList::default();
    let mut moves = 0;
    loop {
        let parts = persist(destination, sources, &options.tree, &mut skip_list, progress, |skip_list| {
            let tree = Walk::skipping(sources, &options.tree, skip_list)?;
            plan(destination, tree, form.size, progress)
        })?;
        let sent = send::layers(into, sources, options, form.format, &skip_list, &parts, progress)?;
        let mut summary = sent.iter().map(|sent| sent.summary.clone()).fold(Summary::default(), Summary::and);
        let on_change = options.tree.on_change;
        match sent.iter().try_for_each(|sent| sent.listed.check(on_change, &mut summary)) {
            Ok(()) => return Ok((sent, summary)),
            Err(error) if skip_list.learn(&error, &options.tree, moves) => {
                progress.warn(&format!("{error}; the tree is packed anew"));
                moves += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Looks at the tree, and decides which layer holds what of it.
fn plan(
    destination: &dyn Destination,
    tree: Walk,
    layer_size: u64,
    progress: &dyn Progress,
) -> Result<Vec<Part>> {
    if let Some(directory) = destination.directory() {
        tree.ensure_excludes(&directory)?;
    }
    let mut planner = Planner::new(layer_size);
    let mut refused = told::Refused::new(progress);
    for found in tree.sizes_only() {
        let entry = found?.entry;
        refused.count(&entry);
        planner.add(&entry);
    }
    Ok(planner.finish())
}

/// Does something with the tree, and does it anew where a layer got lost on its way (the same tree gives the same layer)
/// or where something changed while it was read: its header was in the archive already.
fn persist<T>(
    destination: &dyn Destination,
    sources: &[SourceSpec],
    tree: &WalkOptions,
    skip_list: &mut SkipList,
    progress: &dyn Progress,
    mut attempt: impl FnMut(&SkipList) -> Result<T>,
) -> Result<T> {
    let (mut failures, mut changes) = (0, 0);
    loop {
        match attempt(skip_list) {
            Err(error) if wait_for_retry(destination, &error, failures, progress) => failures += 1,
            Err(error) if skip_list.learn(&error, tree, changes) => {
                progress.warn(&format!("{error}; the layer is made anew"));
                changes += 1;
                if tree.leaves_out_cause_of(&error) {
                    skip_list.survey(sources, tree)?;
                }
            }
            outcome => return outcome,
        }
    }
}

/// Waits until the destination allows a failed write to be retried. Returns `false` if it does not allow that, or no longer
/// does because it was cancelled meanwhile.
pub(crate) fn wait_for_retry(
    destination: &dyn Destination,
    error: &Error,
    failures: u32,
    progress: &dyn Progress,
) -> bool {
    let Some(retry) = destination.retry_delay(error, failures) else { return false };
    progress.warn(&format!("{error}; {retry}"));
    let end = Instant::now() + retry.delay;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::sleep(left.min(CANCELLATION_INTERVAL));
        if destination.retry_delay(error, failures).is_none() {
            return false;
        }
    }
    true
}

impl Options {
    /// The same for a place that holds nothing else: where images are plain, the layers are not compressed, and data is
    /// packed for the host's platform only.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when something was asked for that is lost there.
    fn fitting(&self, support: ImageSupport) -> Result<Self> {
        let mut options = self.clone();
        if support == ImageSupport::PlainOnly {
            if !options.image.annotations.is_empty() {
                return Err(Error::usage("this place holds no annotations").with_hint("use labels"));
            }
            match options.image.platforms.as_slice() {
                [] => options.image.platforms.push(Platform::host()),
                [_] => {}
                _ => {
                    return Err(Error::usage("this place holds images for one platform")
                        .with_hint("choose one with --platform, or pack into a registry or a layout"));
                }
            }
            options.compression = Compression::None;
        }
        Ok(options)
    }
}

/// Sends the documents of an image, leaves first, and gives the root its name.
pub(crate) fn publish(destination: &dyn Destination, image: &Built) -> Result<()> {
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
pub(crate) fn rfc3339(time: crate::tree::Time) -> Option<String> {
    Some(jiff::Timestamp::from_second(time.seconds).ok()?.to_string())
}

impl PackedLayer {
    pub(crate) fn new(layer: &Layer, contents: &Contents) -> Self {
        Self {
            digest: layer.descriptor.digest.clone(),
            diff_id: layer.diff_id.clone(),
            size: layer.descriptor.size,
            uncompressed_size: contents.size,
            media_type: layer.descriptor.media_type.clone(),
        }
    }
}
