//! Unpacks an image into a directory: each layer is fetched, and nothing is extracted that was not verified.

mod archive;
mod artifact;
mod conflict;
mod data_io;
mod layers;
mod links;
mod selection;
mod space;
mod sync;

pub use archive::{ArchiveOptions, unpack_archive};
pub(crate) use conflict::digest as recorded_digest;
pub use selection::PathFilter;
pub use sync::{CompareBy, ForeignTarget, Run, SyncOptions, Synced};

use crate::error::Result;
use crate::image::{FetchedLayer, Image, LiveContent, ReadOptions, fetch_each};
use crate::layer::{Budget, Limits};
use crate::oci::{Digest, Document, Manifest, Platform};
use crate::progress::{Phase, Progress, TaskInfo};
use crate::stream::file_thread_count;
use crate::transport::{ClientOptions, Source};
use crate::tree::{AtomicTarget, ExtractOptions, Extracted, Extractor, Target, TargetState};
use conflict::TargetAction;
use layers::LayerExtraction;
use selection::Selection;
use space::FreeSpace;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The options of an unpack.
#[derive(Clone, Debug)]
pub struct Options {
    /// The platform of the image; otherwise the host's.
    pub platform: Option<Platform>,
    /// The options for the entries. The number of layers and the right to replace directories are filled in.
    pub tree: ExtractOptions,
    /// The limits on what the image may make the program remember.
    pub limits: Limits,
    /// The part of the image that is unpacked.
    pub filter: PathFilter,
    /// The way in which the target is written, and what it may hold before.
    pub write: WriteMode,
    /// The action for a target that holds an image already.
    pub if_present: IfPresent,
    /// The kind of object that the name stands for, and how its layers are read.
    pub read_as: ReadAs,
    /// The number of ranges that are fetched at the same time if a part of the image is unpacked.
    pub connections: usize,
    /// A directory with another version of the image, for a sync: contents that it has are copied and not fetched. They
    /// are verified as what is fetched.
    pub reuse_from: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            platform: None,
            tree: ExtractOptions::default(),
            limits: Limits::default(),
            filter: PathFilter::default(),
            write: WriteMode::default(),
            if_present: IfPresent::default(),
            read_as: ReadAs::default(),
            connections: ClientOptions::default().concurrency,
            reuse_from: None,
        }
    }
}

/// The way in which a target is written, and what it may hold before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// In place. A target that is not empty is refused.
    #[default]
    InPlace,
    /// In place, over the contents of the target: files are replaced, directories stay and get the image's attributes.
    Merge {
        /// A file of the image may replace a directory of the target.
        replace_directories: bool,
    },
    /// In place, so that the target becomes identical to the image: only what differs is fetched and written, and
    /// everything else in the target is removed.
    Sync(SyncOptions),
    /// Into a directory beside the target, which takes its place at the end.
    Atomic {
        /// A target that is not empty is replaced, instead of being refused.
        replace: bool,
    },
}

/// The action for a target that holds an image already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfPresent {
    /// If the target holds this image, nothing is done. Files that were changed since are not noticed.
    #[default]
    Skip,
    /// If the target holds any complete image, nothing is done.
    KeepAny,
    /// The image is written again, which restores changed files.
    Rewrite,
}

/// The kind of object that a name stands for, and how its layers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAs {
    /// An image.
    Image {
        /// An image of data-io is unpacked with its base, and without unpacking its archive.
        as_is: bool,
        /// Layers are recognised by their first bytes, whatever their media types are.
        any_media_type: bool,
    },
    /// An artifact, whose layers are archives and files.
    Artifact,
}

impl Default for ReadAs {
    fn default() -> Self {
        Self::Image { as_is: false, any_media_type: false }
    }
}

/// The result of a run that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The image was extracted.
    Unpacked,
    /// The target holds this image already.
    Present,
    /// The target holds an image, and keeps it.
    Kept,
}

/// The result of an unpack.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Unpacked {
    /// The outcome.
    pub outcome: Outcome,
    /// The digest of the index or the manifest that the name refers to, or of the image that was kept.
    pub digest: Digest,
    /// The platform of the image.
    pub platform: Platform,
    /// The number of layers that were extracted.
    pub layers: usize,
    /// Set if data-io has made the image, so that the archive in its last layer was extracted.
    pub data_io: bool,
    /// Entries of an interrupted run of another image that were removed first.
    pub removed: u64,
    /// The number of entries and bytes, and of everything that could not be restored.
    pub extracted: Extracted,
    /// The part of the layers that was fetched.
    pub fetched: FetchedPart,
    /// The result of a sync; `None` for other unpacks.
    pub sync: Option<Synced>,
}

/// The part of an image's layers that was fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchedPart {
    /// The bytes that were fetched, as they are stored.
    pub bytes: u64,
    /// The bytes of all layers.
    pub of: u64,
    /// Set if content of a layer was left out because later layers replace or remove it.
    pub is_partial: bool,
}

impl Unpacked {
    fn nothing(outcome: Outcome, digest: Digest, platform: Platform) -> Self {
        Self {
            outcome,
            digest,
            platform,
            layers: 0,
            data_io: false,
            removed: 0,
            extracted: Extracted::default(),
            fetched: FetchedPart::default(),
            sync: None,
        }
    }
}

/// Unpacks the image into a directory that is empty or does not exist yet, unless the options say otherwise.
///
/// # Errors
/// [`Refused`](crate::error::Kind::Refused) if the directory holds something, [`Integrity`](crate::error::Kind::Integrity)
/// if a digest is wrong; nothing is extracted that was not verified.
///
/// ```
/// use volio::{Memory, SourceSpec, pack, progress::Silent, unpack};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("file"), "text").unwrap();
/// # let image = Memory::default();
/// # pack::pack(&image, &[SourceSpec::new(directory.path())], &pack::Options::default(), &Silent)?;
/// # let directory = tempfile::tempdir().unwrap();
/// let target = directory.path().join("restored");
/// let unpacked = unpack::unpack(&image, &target, &unpack::Options::default(), &Silent)?;
/// assert_eq!(std::fs::read(target.join("file")).unwrap(), b"text");
/// assert_eq!(unpacked.outcome, unpack::Outcome::Unpacked);
/// # Ok::<(), volio::Error>(())
/// ```
pub fn unpack(
    source: &dyn Source,
    target: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Unpacked> {
    unpack_if(source, target, options, progress, |_, _| Ok(()))
}

/// Unpacks the image unless `check` refuses it for an existing target.
pub(crate) fn unpack_if(
    source: &dyn Source,
    target: &Path,
    options: &Options,
    progress: &dyn Progress,
    check: impl FnOnce(&Target, &Document) -> Result<()>,
) -> Result<Unpacked> {
    let found = Target::open(target)?;
    if options.if_present == IfPresent::KeepAny
        && let Some(kept) = found.as_ref().map(kept).transpose()?.flatten()
    {
        return Ok(kept);
    }
    let root = source.resolve()?;
    if let Some(found) = &found {
        check(found, &root)?;
    }
    Job::new(source, &root, options, progress).run(target, found)
}

/// Unpacks the image when the name was resolved before: `root` is the index or the manifest that it stands for.
///
/// # Errors
/// As [`unpack`].
pub(crate) fn unpack_resolved(
    source: &dyn Source,
    root: &Document,
    target: &Path,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Unpacked> {
    Job::new(source, root, options, progress).run(target, Target::open(target)?)
}

/// Returns whether the record of a directory says that it holds this image, unpacked with these options, and complete.
///
/// # Errors
/// When the directory cannot be opened, or another run is at work in it.
pub(crate) fn is_present(root: &Document, target: &Path, options: &Options) -> Result<bool> {
    let wanted = conflict::state_content(root, options);
    let state = Target::open(target)?.and_then(|target| target.state());
    Ok(state.is_some_and(|state| state.complete && state.content == wanted))
}

/// Returns the digest of the complete image that a directory holds, by its record.
///
/// # Errors
/// As [`is_present`].
pub(crate) fn present_digest(target: &Path) -> Result<Option<Digest>> {
    let kept = Target::open(target)?.as_ref().map(kept).transpose()?.flatten();
    Ok(kept.map(|kept| kept.digest))
}

/// Returns the complete image that a target holds.
fn kept(target: &Target) -> Result<Option<Unpacked>> {
    let complete = |record: &TargetState| {
        record.complete.then(|| conflict::digest(record).zip(conflict::platform(record)))
    };
    let image = target.state().as_ref().and_then(complete).flatten();
    // A target that was emptied since does not hold the image any more.
    let image = image.filter(|_| target.foreign_entry().is_ok_and(|held| held.is_some()));
    Ok(image.map(|(digest, platform)| Unpacked::nothing(Outcome::Kept, digest, platform)))
}

/// The object that is extracted.
enum Chosen<'a> {
    Image(Box<Image<'a>>),
    Artifact(Box<Manifest>),
}

impl Chosen<'_> {
    /// Returns the number of its layers.
    fn layers(&self) -> usize {
        match self {
            Self::Image(image) => image.layers().len(),
            Self::Artifact(manifest) => manifest.layers.len(),
        }
    }

    fn platform(&self, options: &Options) -> Platform {
        match self {
            Self::Image(image) => image.config().platform.clone(),
            Self::Artifact(_) => options.platform.clone().unwrap_or_else(Platform::host),
        }
    }
}

/// An unpack in progress.
struct Job<'a> {
    source: &'a dyn Source,
    root: &'a Document,
    /// The description of the target's content for its state.
    content: serde_json::Value,
    options: &'a Options,
    progress: &'a dyn Progress,
}

impl<'a> Job<'a> {
    fn new(
        source: &'a dyn Source,
        root: &'a Document,
        options: &'a Options,
        progress: &'a dyn Progress,
    ) -> Self {
        Self { source, root, content: conflict::state_content(root, options), options, progress }
    }

    /// Unpacks the image into a target, which was opened if it exists.
    fn run(&self, path: &Path, found: Option<Target>) -> Result<Unpacked> {
        if let WriteMode::Sync(how) = self.options.write {
            return sync::run(self, path, found, how);
        }
        let replaces = self.options.write == WriteMode::Atomic { replace: true };
        let action = match &found {
            Some(found) if !replaces || self.is_there(found) => self.action(found)?,
            _ => TargetAction::Extract,
        };
        match (action, self.options.write) {
            (TargetAction::Skip, _) => Ok(self.present()),
            (_, WriteMode::Atomic { replace }) => {
                drop(found);
                self.staged(path, replace)
            }
            _ => self.fill(found.map_or_else(|| Target::open_or_create(path), Ok)?),
        }
    }

    fn action(&self, target: &Target) -> Result<TargetAction> {
        conflict::action(target, &self.content, self.options)
    }

    /// Returns `true` if the target's state says that this image is there, complete.
    fn is_there(&self, target: &Target) -> bool {
        target.state().is_some_and(|record| record.complete && record.content == self.content)
    }

    fn present(&self) -> Unpacked {
        let platform = self.options.platform.clone().unwrap_or_else(Platform::host);
        Unpacked::nothing(Outcome::Present, self.root.descriptor().digest.clone(), platform)
    }

    /// Fills a directory beside the target, which then takes the target's place.
    fn staged(&self, target: &Path, replace: bool) -> Result<Unpacked> {
        let staged = AtomicTarget::beside(target)?;
        let stage = staged.target(&self.content)?;
        let unpacked = match self.action(&stage)? {
            // An interrupted run has completed the stage.
            TargetAction::Skip => self.present(),
            _ => self.fill(stage)?,
        };
        staged.publish(replace)?;
        Ok(Unpacked { outcome: Outcome::Unpacked, ..unpacked })
    }

    /// Extracts the image into a target.
    fn fill(&self, target: Target) -> Result<Unpacked> {
        let image = match self.choose(None) {
            Ok(image) => image,
            Err(error) => {
                target.abandon();
                return Err(error);
            }
        };
        // Checked again now that the target is locked: the registry took some time, and files may have been added.
        let removed = match self.action(&target)? {
            TargetAction::Skip => return Ok(self.present()),
            TargetAction::RemoveInterrupted => {
                let removed = target.remove_interrupted()?;
                conflict::ensure_empty(&target, self.options)?;
                removed
            }
            TargetAction::Extract => 0,
        };
        let force = match self.options.write {
            WriteMode::InPlace | WriteMode::Sync(_) => false,
            WriteMode::Merge { replace_directories: force } | WriteMode::Atomic { replace: force } => force,
        };
        let tree = ExtractOptions { force, ..self.options.tree.clone() };
        // Only a sync checks the space: another unpack may be into a target that has some of the files already.
        let is_sync = matches!(self.options.write, WriteMode::Sync(_));
        let space = is_sync.then(|| FreeSpace::of(&target, self.options)).flatten();
        let extractor = Extractor::over(target, tree, image.layers())?;
        let extractor = extractor.with_memory_limit(self.options.limits.max_names);
        let mut extractor = extractor.with_file_threads(file_thread_count());
        match self.extract(&image, &mut extractor, space.as_ref()) {
            Ok((data_io, fetched)) => Ok(Unpacked {
                outcome: Outcome::Unpacked,
                digest: self.root.descriptor().digest.clone(),
                layers: if data_io { 1 } else { image.layers() },
                platform: image.platform(self.options),
                data_io,
                removed,
                extracted: extractor.finish()?,
                fetched,
                sync: match (&image, self.options.write) {
                    (Chosen::Image(image), WriteMode::Sync(_)) => Some(sync::whole_image(image)),
                    _ => None,
                },
            }),
            Err(error) => {
                extractor.abandon();
                Err(error)
            }
        }
    }

    /// Opens the image or the artifact that is extracted. Large tables of contents are kept in a file at `temporary`.
    fn choose(&self, temporary: Option<PathBuf>) -> Result<Chosen<'_>> {
        if self.options.read_as == ReadAs::Artifact {
            return artifact::select(self.root, self.source)
                .map(|manifest| Chosen::Artifact(Box::new(manifest)));
        }
        let Options { platform, limits, connections, read_as, .. } = self.options;
        let read = ReadOptions {
            platform: platform.clone(),
            limits: *limits,
            connections: *connections,
            // Only the disk limits content that is extracted.
            max_content: Some(u64::MAX),
            temporary,
            any_media_type: matches!(read_as, ReadAs::Image { any_media_type: true, .. }),
        };
        let image = Image::open_resolved(self.root.clone(), self.source, &read, self.progress)?;
        Ok(Chosen::Image(Box::new(image)))
    }

    /// Extracts the layers, the lowest first, or the archive in the last one if data-io has made the image. Returns `true`
    /// in that case, and the part of the layers that was fetched.
    fn extract(
        &self,
        chosen: &Chosen<'_>,
        extractor: &mut Extractor,
        space: Option<&FreeSpace<'_>>,
    ) -> Result<(bool, FetchedPart)> {
        let image = match chosen {
            Chosen::Image(image) => image,
            Chosen::Artifact(manifest) => {
                return artifact::extract(self, manifest, extractor)
                    .map(|()| (false, FetchedPart::default()));
            }
        };
        extractor.begin_state(self.content.clone())?;
        let place = Arc::new(extractor.spool()?);
        let mut selection = Selection::new(&self.options.filter, self.options.limits.max_names);
        let mut budget = Budget::new(self.options.limits);
        let mut layers: Vec<_> = image.layers().collect();
        // The last layer is fetched first: if it holds the archive of data-io, the others are not needed.
        let is_as_is = matches!(self.options.read_as, ReadAs::Image { as_is: true, .. });
        let may_be_data_io = !is_as_is && data_io::may_have_made(image);
        let last = layers.pop_if(|_| may_be_data_io).map(|last| last.spool(&place)).transpose()?;
        if let Some(last) = &last
            && data_io::is_its_layer(last, &budget)?
        {
            let info = TaskInfo::new(Phase::Extracting).about("data.tar.gz").with_total(last.archive_size());
            let task = self.progress.begin(&info);
            let passed = move |bytes| task.advance(bytes);
            data_io::extract(last, &mut selection, extractor, &mut budget, passed)?;
            return selection.ensure_found().map(|()| (true, FetchedPart::default()));
        }
        let live =
            if last.is_none() && self.may_omit_dead(extractor) { image.live_content(&place)? } else { None };
        if let (Some(space), Some(live)) = (space, &live) {
            space.ensure_for(live)?;
        }
        let mut extraction = LayerExtraction {
            image,
            space,
            live: live.as_ref(),
            selection: &mut selection,
            extractor,
            budget: &mut budget,
            progress: self.progress,
            fetched: FetchedPart::default(),
        };
        let tocs = live.as_ref().map_or(&[][..], LiveContent::tocs);
        fetch_each(&layers, tocs, &place, |number, layer| extraction.extract(number, &layer))?;
        if let Some(last) = last {
            extraction.extract(layers.len(), &FetchedLayer::Spooled(last))?;
        }
        let fetched = extraction.fetched;
        selection.ensure_found().map(|()| (false, fetched))
    }

    /// Returns whether dead content may be left out. Over what was in the target before, a path may lead through its links
    /// to another file than in the image; and with stripped names, two files of the image may be one in the target.
    fn may_omit_dead(&self, extractor: &Extractor) -> bool {
        extractor.is_exclusive() && !matches!(self.options.filter, PathFilter::Strip(_))
    }
}
