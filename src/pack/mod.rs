//! Packs a tree into an image.
//!
//! 1. The tree is surveyed, and [`layering`] decides which layer has which files.
//! 2. [`upload`] reads each part of the tree, and archives, compresses, hashes and uploads it while it is read.
//! 3. The configurations and manifests are built from the layers and published, and the image gets its name.
//!
//! With a [base](Base), only what changed is packed: see [`incremental`].

mod archive;
mod base;
mod changes;
mod documents;
mod dry_run;
mod incremental;
mod layering;
mod limits;
mod publish;
mod report;
mod tags;
mod upload;
mod warnings;

pub use archive::read_archive;
pub use base::{Base, BaseRole};
pub use incremental::pack_incremental;
pub use limits::{ContentCheck, Effect, IncrementalOptions, Predecessor, ShrinkRule};
pub(crate) use publish::publish;
pub use report::{FullReason, ImageForm, Incremental, Packed, PackedLayer};
pub use tags::add_tags;
pub(crate) use upload::upload_while_writing;
pub(crate) use warnings::warn_left_out;

use crate::error::{Error, Result};
use crate::image::Description;
use crate::layer::{Compression, Layer};
use crate::oci::Platform;
use crate::progress::Progress;
use crate::transport::{Destination, ImageSupport, is_missing_blob};
use crate::tree::{SkipList, SourceSpec, Summary, Walk, WalkOptions};
use crate::trust::Signer;
use layering::{LayerPlan, LayerPlanner};
use publish::{NameRule, set_name, sign, store_documents};
use std::sync::Arc;
use upload::{UploadedLayer, upload_layers};

/// The default target size of a layer, in bytes of its archive.
pub const LAYER_SIZE: u64 = 512 << 20;

/// Options of [`pack`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The compression of the layers.
    pub compression: Compression,
    /// The target size of a layer, in bytes of its archive. A file of more than twice that is a layer by itself.
    pub layer_size: u64,
    /// The entries that are packed, and their attributes.
    pub tree: WalkOptions,
    /// The documents of the image.
    pub image: Description,
    /// The key that signs the image before it gets its name.
    pub signer: Option<Arc<Signer>>,
    /// The end of an earlier pack of the same tree.
    pub earlier_run: EarlierRun,
    /// The tree that this one replaces, unless it is compared with a base.
    pub predecessor: Option<Predecessor>,
}

/// The end of an earlier pack of the same tree to the same destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlierRun {
    /// It has ended by itself, or there was none. Layers are sent while they are built.
    #[default]
    Ended,
    /// It was killed or interrupted, and has sent some layers. Each layer is built once without being sent, and is not sent
    /// if the destination has it, until as many are missing as are built at once: those that were on their way.
    Interrupted,
}

/// The layers of a tree.
#[derive(Clone, Copy)]
pub(crate) struct LayerForm {
    /// The target size of a layer, in bytes of its archive.
    pub size: u64,
    pub format: ArchiveFormat,
}

/// The format of an archive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArchiveFormat {
    /// A layer of an image.
    Layer,
    /// An archive for tar without PAX support (busybox), in which a name that begins with `.wh.` is an ordinary name.
    Gnu,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            compression: Compression::default(),
            layer_size: LAYER_SIZE,
            tree: WalkOptions::default(),
            image: Description::default(),
            signer: None,
            earlier_run: EarlierRun::default(),
            predecessor: None,
        }
    }
}

/// Packs the sources into an image at the destination, and gives it its name.
///
/// The tree is read once. A part of it is read again if an upload is lost or if the tree changes meanwhile.
///
/// # Errors
/// Those of reading the tree and of writing to the destination. The name then refers to the same image as before.
///
/// ```
/// use volio::{Memory, SourceSpec, pack, progress::Silent};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("file"), "text").unwrap();
/// let image = Memory::default();
/// let sources = [SourceSpec::new(directory.path())];
/// let packed = pack::pack(&image, &sources, &pack::Options::default(), &Silent)?;
/// assert_eq!((packed.entries, packed.bytes), (2, 4));
/// # Ok::<(), volio::Error>(())
/// ```
pub fn pack(
    destination: &dyn Destination,
    sources: &[SourceSpec],
    options: &Options,
    progress: &dyn Progress,
) -> Result<Packed> {
    pack_in_full(destination, sources, options, &NameRule::Replace, progress, &|_| Ok(()))
}

/// Packs the whole tree. `check` can refuse it by the number of its entries that are not directories, before it gets a
/// name.
fn pack_in_full(
    destination: &dyn Destination,
    sources: &[SourceSpec],
    options: &Options,
    rule: &NameRule,
    progress: &dyn Progress,
    check: &dyn Fn(u64) -> Result<()>,
) -> Result<Packed> {
    let given = options;
    let options = &options.fitting(destination.image_support())?;
    options.image.platforms()?;
    let form = LayerForm { size: options.layer_size, format: ArchiveFormat::Layer };
    let (uploaded, summary) = pack_layers(destination, destination, sources, options, form, progress)?;
    check(uploaded.iter().map(|layer| layer.content).sum())?;
    warn_left_out(&summary, progress);
    // SOURCE_DATE_EPOCH if it is set, else the newest time in the tree, but not the clock.
    let created = options.tree.clamp_mtime.or(summary.newest).and_then(rfc3339);
    let layers: Vec<Layer> = uploaded.iter().map(|uploaded| uploaded.layer.clone()).collect();
    let image = Description { created, ..options.image.clone() }.build(&layers)?;
    match store_documents(destination, &image) {
        // It has deleted them since, or its answer was that of a cache.
        Err(error) if is_missing_blob(&error) && uploaded.iter().any(|layer| layer.was_there) => {
            progress.warn(&format!("{error}; all layers are sent again"));
            let options = Options { earlier_run: EarlierRun::Ended, ..given.clone() };
            return pack_in_full(destination, sources, &options, rule, progress, check);
        }
        Err(error) if is_missing_blob(&error) => {
            // Nothing that the user named is missing.
            let what = "the registry says that it lacks blobs that it has just received";
            return Err(Error::failed(what).with_source(error));
        }
        stored => stored?,
    }
    let signed = sign(destination, &image, options.signer.as_deref())?;
    set_name(destination, &image.root, rule)?;
    let layers = uploaded.iter().map(|layer| PackedLayer::new(&layer.layer, &layer.contents)).collect();
    Ok(Packed { signed, ..Packed::new(destination, image, layers, &uploaded, summary) })
}

/// Uploads the tree as layers to `upload_to`. `destination` is where the image goes. Everything is packed again if a
/// directory changed after it was read.
pub(crate) fn pack_layers(
    destination: &dyn Destination,
    upload_to: &dyn Destination,
    sources: &[SourceSpec],
    options: &Options,
    form: LayerForm,
    progress: &dyn Progress,
) -> Result<(Vec<UploadedLayer>, Summary)> {
    let mut skip_list = SkipList::default();
    let mut moves = 0;
    loop {
        let plans =
            with_retries(destination, sources, &options.tree, &mut skip_list, progress, |skip_list| {
                let tree = Walk::skipping(sources, &options.tree, skip_list)?;
                plan_layers(destination, tree, form.size, progress)
            })?;
        let uploaded = upload_layers(upload_to, sources, options, form.format, &skip_list, &plans, progress)?;
        let summaries = uploaded.iter().map(|layer| layer.summary.clone());
        let mut summary = summaries.fold(Summary::default(), Summary::and);
        let on_change = options.tree.on_change;
        match uploaded.iter().try_for_each(|layer| layer.listed.check(on_change, &mut summary)) {
            Ok(()) => {
                if let Some(predecessor) = &options.predecessor {
                    let files = uploaded.iter().map(|layer| layer.content).sum();
                    let bytes = uploaded.iter().map(|layer| layer.contents.bytes).sum();
                    predecessor.ensure_replaceable_by(files, bytes)?;
                }
                return Ok((uploaded, summary));
            }
            Err(error) if skip_list.record_failure(&error, &options.tree, moves) => {
                progress.warn(&format!("{error}; the tree is packed again"));
                moves += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Surveys the tree, and decides which layer has which files.
fn plan_layers(
    destination: &dyn Destination,
    tree: Walk,
    layer_size: u64,
    progress: &dyn Progress,
) -> Result<Vec<LayerPlan>> {
    if let Some(directory) = destination.directory() {
        tree.ensure_excludes(&directory)?;
    }
    let mut planner = LayerPlanner::new(layer_size);
    let mut limits = warnings::LimitWarnings::new(progress);
    for found in tree.sizes_only() {
        let entry = found?.entry;
        limits.count(&entry);
        planner.add(&entry);
    }
    Ok(planner.finish())
}

/// Retries `attempt` if an upload is lost (the same tree gives the same layer) or if something changed while it was read and
/// its header was already in the archive.
fn with_retries<T>(
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
            Err(error) if skip_list.record_failure(&error, tree, changes) => {
                progress.warn(&format!("{error}; the layer is made again"));
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
    retry.wait().is_ok()
}

impl Options {
    /// Returns options that fit the destination. If it holds only plain images, the layers are not compressed, and the image
    /// is for the platform of the host.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if the destination cannot hold what the options ask for.
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

/// Formats a time for an image configuration; `None` for a time outside of the years 0 to 9999.
pub(crate) fn rfc3339(time: crate::tree::Time) -> Option<String> {
    Some(jiff::Timestamp::from_second(time.seconds).ok()?.to_string())
}
