//! Uploads of layers. Several layers are built and uploaded at once, each while its part of the tree is read.

use super::dry_run::DryRun;
use super::layering::LayerPlan;
use super::{ArchiveFormat, EarlierRun, Options, warnings, with_retries};
use crate::error::{Error, Result, Side};
use crate::layer::{Compression, Contents, Framer, Layer, LayerWriter, Toc};
use crate::progress::{Phase, Progress, Task, TaskInfo};
use crate::stream::{Workers, Written, memory_slots, start_in, try_for_each};
use crate::transport::Destination;
use crate::tree::{
    Entry, EntryKind, ListedDirectories, Metadata, SkipList, SourceSpec, Summary, TreePath, Walk, WalkedEntry,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{io, thread};

/// The number of layers that are built at once. Each has its own reader and a few frames; they share the workers.
const CONCURRENT_LAYERS: usize = 3;

/// A layer that was uploaded.
pub struct UploadedLayer {
    pub layer: Layer,
    pub contents: Contents,
    /// The summary of the walk over its part of the tree, without what the walk for another layer has counted.
    pub summary: Summary,
    /// The number of entries of the tree in this layer, without directories that only lead to them.
    pub entries: u64,
    /// The number of those that are not directories.
    pub content: u64,
    /// The directories that were read for it.
    pub listed: ListedDirectories,
    /// The entries of a delta that were found.
    pub delta_found: DeltaCount,
    /// Set if the destination had it already.
    pub was_there: bool,
}

/// A part of the tree that was written as a layer.
struct ArchivedPart {
    contents: Contents,
    summary: Summary,
    listed: ListedDirectories,
    entries: u64,
    content: u64,
    delta_found: DeltaCount,
}

/// The entries of a delta that a walk has found again.
#[derive(Debug, Default)]
pub struct DeltaCount {
    /// Their number.
    pub entries: u64,
    /// One that has become a directory. What is in it is not in the delta.
    pub new_directory: Option<TreePath>,
}

impl DeltaCount {
    fn add(&mut self, plan: &LayerPlan, entry: &Entry) {
        let Some(delta) = plan.delta.as_deref().filter(|delta| delta.paths.contains(&entry.path)) else {
            return;
        };
        self.entries += 1;
        if entry.kind == EntryKind::Directory && !delta.directories.contains(&entry.path) {
            self.new_directory.get_or_insert_with(|| entry.path.clone());
        }
    }
}

/// Builds and uploads all layers. They are returned in the order of their plans.
///
/// # Errors
/// The first error. The other layers are then abandoned.
pub fn upload_layers(
    destination: &dyn Destination,
    sources: &[SourceSpec],
    options: &Options,
    format: ArchiveFormat,
    skip_list: &SkipList,
    plans: &[LayerPlan],
    progress: &dyn Progress,
) -> Result<Vec<UploadedLayer>> {
    if plans.is_empty() {
        return Ok(Vec::new());
    }
    let workers = options.compression.workers()?;
    // Each layer holds blocks in memory. If the memory is too small for more workers, it is too small for these blocks.
    let concurrency = plans.len().min(CONCURRENT_LAYERS).min(memory_slots());
    let uploader = Uploader {
        destination,
        sources,
        options,
        format,
        skip_list,
        progress,
        share: workers.count().div_ceil(concurrency),
        workers,
        count: plans.len(),
        is_abandoned: AtomicBool::new(false),
        missing: AtomicUsize::new(0),
    };
    let upload = |number, plan: &LayerPlan| {
        let outcome = uploader.upload(number, plan);
        uploader.is_abandoned.fetch_or(outcome.is_err(), Ordering::Relaxed);
        outcome
    };
    try_for_each(concurrency, plans, upload).into_result()
}

/// The values that are the same for all layers.
struct Uploader<'a> {
    destination: &'a dyn Destination,
    sources: &'a [SourceSpec],
    options: &'a Options,
    format: ArchiveFormat,
    skip_list: &'a SkipList,
    progress: &'a dyn Progress,
    workers: Workers,
    /// The number of workers that one layer can keep busy.
    share: usize,
    /// The number of layers.
    count: usize,
    /// True if a layer has failed, so that the others are not needed.
    is_abandoned: AtomicBool,
    /// The number of layers for which the destination was asked, and which it does not have.
    missing: AtomicUsize,
}

impl Uploader<'_> {
    /// Builds and uploads a layer, with retries.
    fn upload(&self, number: usize, plan: &LayerPlan) -> Result<UploadedLayer> {
        let info = TaskInfo::new(Phase::Packing).with_total(plan.bytes);
        let info = match self.count {
            1 => info,
            count => info.about(format!("layer {} of {count}", number + 1)),
        };
        let (tree, mut skip_list) = (&self.options.tree, self.skip_list.clone());
        with_retries(self.destination, self.sources, tree, &mut skip_list, self.progress, |skip_list| {
            if let Some(found) = self.find(&info, plan, skip_list)? {
                return Ok(found);
            }
            let task = self.progress.begin(&info);
            self.attempt(self.destination, plan, skip_list, task.as_ref())
        })
    }

    /// Builds a layer that an interrupted run may have sent, and returns it if the destination has it. Layers are begun in
    /// order, so that only those are missing before the last one that were on their way.
    fn find(&self, info: &TaskInfo, plan: &LayerPlan, skip_list: &SkipList) -> Result<Option<UploadedLayer>> {
        let is_over = self.missing.load(Ordering::Relaxed) >= CONCURRENT_LAYERS;
        if is_over || self.options.earlier_run == EarlierRun::Ended {
            return Ok(None);
        }
        let subject = info.subject.as_deref().unwrap_or("the layer");
        let task = self.progress.begin(&info.clone().about(format!("{subject}, which may be there")));
        let built = self.attempt(&DryRun(self.destination), plan, skip_list, task.as_ref())?;
        let exists = self.destination.exists(&built.layer.descriptor);
        if exists.map_err(|error| error.on(Side::Destination))? {
            return Ok(Some(UploadedLayer { was_there: true, ..built }));
        }
        self.missing.fetch_add(1, Ordering::Relaxed);
        Ok(None)
    }

    /// Uploads a layer while it is built: one thread reads and archives, some compress, one hashes, and this one uploads.
    fn attempt(
        &self,
        destination: &dyn Destination,
        plan: &LayerPlan,
        skip_list: &SkipList,
        task: &dyn Task,
    ) -> Result<UploadedLayer> {
        let tree = Walk::skipping(self.sources, &self.options.tree, skip_list)?.within(&plan.range);
        let compression = self.options.compression;
        let (archived, written, toc) =
            upload_while_writing(destination, compression, &self.workers, self.share, |layer| {
                let layer = match self.format {
                    ArchiveFormat::Layer => layer,
                    ArchiveFormat::Gnu => layer.gnu(),
                };
                self.archive(plan, tree, layer, task)
            })?;
        let ArchivedPart { contents, mut summary, listed, entries, content, delta_found } = archived;
        let layer = Layer::new(compression, &contents, written, toc.as_ref());
        // The walk for the directories meets again what the walks for the files have counted.
        if plan.range.only_directories {
            let Summary { newest, attributes, .. } = summary;
            summary = Summary { newest, attributes, ..Summary::default() };
        }
        let was_there = false;
        Ok(UploadedLayer { layer, contents, summary, entries, content, listed, delta_found, was_there })
    }

    /// Writes the archive of a layer.
    fn archive(
        &self,
        plan: &LayerPlan,
        mut tree: Walk,
        layer: LayerWriter<Framer>,
        task: &dyn Task,
    ) -> Result<ArchivedPart> {
        let mut holes = warnings::HoleWarnings::new(self.progress);
        let mut layer = PlanWriter { layer, last: TreePath::root(), ancestors: 0 };
        let (mut links, mut count, mut content) = (Vec::new(), DeltaCount::default(), 0);
        for found in tree.by_ref() {
            if self.is_abandoned.load(Ordering::Relaxed) {
                return Err(Error::failed("another layer failed").with_source(broken_pipe()));
            }
            let found = found?;
            if plan.only_files && found.entry.kind == EntryKind::Directory {
                continue;
            }
            for path in plan.links.get(&found.entry.path).into_iter().flatten() {
                let kind = EntryKind::Hardlink { target: found.entry.path.clone() };
                links.push(Entry { path: path.clone(), kind, metadata: found.entry.metadata.clone() });
            }
            content += u64::from(found.entry.kind != EntryKind::Directory);
            holes.count(&found);
            count.add(plan, &found.entry);
            layer.append(plan, found, |bytes| task.advance(bytes))?;
            task.advance_entries(1);
        }
        // Links follow the files, because the target of a link must precede it.
        links.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        if links.len() != plan.links.values().map(Vec::len).sum::<usize>() {
            return Err(Error::failed("files with several names vanished while the tree was read")
                .with_hint("read a tree that nobody changes meanwhile, such as a snapshot"));
        }
        for entry in links {
            count.add(plan, &entry);
            layer.append(plan, WalkedEntry { entry, file: None }, |_| {})?;
        }
        let ((), contents) = layer.layer.finish()?;
        let (entries, summary) = (contents.entries - layer.ancestors, tree.summary());
        Ok(ArchivedPart {
            contents,
            summary,
            listed: tree.into_listed(),
            entries,
            content,
            delta_found: count,
        })
    }
}

/// Uploads a layer while `write` writes it on another thread. Also returns its table of contents, if it has one.
///
/// # Errors
/// That of the half that failed first.
pub fn upload_while_writing<T: Send>(
    destination: &dyn Destination,
    compression: Compression,
    workers: &Workers,
    share: usize,
    write: impl FnOnce(LayerWriter<Framer>) -> Result<T> + Send,
) -> Result<(T, Written, Option<Toc>)> {
    let (layer, blob) = compression.layer(workers, share)?;
    let toc = blob.pending_toc();
    thread::scope(|scope| {
        let writer = start_in(scope, || write(layer))?;
        let uploaded = destination.upload(blob.into_body());
        let archived = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (archived, uploaded) {
            (Ok(archived), Ok(uploaded)) => Ok((archived, uploaded, toc.get().cloned())),
            // If one half fails, the other one gets a broken pipe. The user needs the cause.
            (Err(error), _) if !error.is_broken_pipe() => Err(error),
            (_, Err(error)) | (Err(error), Ok(_)) => Err(error),
        }
    })
}

/// Writes the entries of a plan, and before each one the directories that lead to it if the plan has files only.
struct PlanWriter {
    layer: LayerWriter<Framer>,
    /// The previous entry. The directories that lead to it are written.
    last: TreePath,
    /// The number of directories that were added.
    ancestors: u64,
}

impl PlanWriter {
    fn append(&mut self, plan: &LayerPlan, found: WalkedEntry, on_read: impl Fn(u64)) -> Result<()> {
        if plan.only_files {
            let mut path = TreePath::root();
            let parent = found.entry.path.parent().unwrap_or_default();
            for name in parent.names() {
                path = path.join(name);
                if !self.last.is_in(&path) {
                    let metadata = Metadata::implied_directory();
                    let directory = Entry { path: path.clone(), kind: EntryKind::Directory, metadata };
                    self.layer.append(&directory, io::empty(), |_| {})?;
                    self.ancestors += 1;
                }
            }
            self.last = found.entry.path.clone();
        }
        match found.file {
            Some(file) => self.layer.append(&found.entry, file, on_read)?,
            None => self.layer.append(&found.entry, io::empty(), on_read)?,
        }
        if found.entry.kind == EntryKind::Directory {
            let removed = plan.removed_in(&found.entry.path);
            removed.iter().try_for_each(|path| self.layer.append_whiteout(path))?;
        }
        Ok(())
    }
}

fn broken_pipe() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
