//! Makes a target identical to an image, at the cost of what differs.
//!
//! 1. The tree of the image is merged from its tables of contents, while the target is walked ([`tree`]).
//! 2. The two are compared by metadata ([`compare`]). Where that says too little, contents are read ([`check`]).
//! 3. Contents that the target has elsewhere are found ([`reuse`]), and the rest is planned as ranges of layers, or as
//!    whole layers ([`fetch`]). Nothing was changed so far.
//! 4. The changes are made ([`apply`]): each entry is created beside the old one and renamed over it, extra entries are
//!    removed last. Each byte is hashed before it counts, wherever it is from.
//!
//! While the target is changed, its record has a content that is not that of any image, so that no other run takes the
//! target for complete or removes anything from it. A sync of any image completes it.

mod apply;
mod batches;
mod check;
mod compare;
mod compared;
mod fetch;
mod links;
mod plan;
mod reuse;
mod times;
mod tree;
mod walks;

use super::conflict::SYNC_IN_PROGRESS;
use super::space::too_little;
use super::{Chosen, FetchedPart, IfPresent, Job, Options, Outcome, ReadAs, Unpacked, WriteMode, data_io};
use crate::disk::directory::FileId;
use crate::error::{Error, Kind, Result};
use crate::image::{Image, SpooledLayers};
use crate::progress::{Phase, TaskInfo};
use crate::stream::{start_in, worker_count};
use crate::tree::{
    ClosedDirectory, EntryKind, ExpectedAttributes, Extracted, Extractor, MergedTree, SyncMount, Target,
    TargetFiles, TargetState, TargetWalk, Time, TreePath,
};
use apply::{Applied, Applier};
use batches::{BATCHES_AHEAD, Batches, send_in_batches};
use compare::{Comparison, Rules};
use compared::Compared;
use fetch::Fetch;
use plan::Plan;
use reuse::{ReusableFiles, Writes};
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use tree::{SyncNote, SyncNotes};

/// The most threads that read files of the target.
const MAX_READERS: usize = 4;

/// The options of a sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncOptions {
    /// The way in which files are compared.
    pub compare: CompareBy,
    /// The reaction to a target that volio has not filled with the same options.
    pub foreign: ForeignTarget,
    /// The choice between making the changes and counting them.
    pub run: Run,
}

/// The way in which files are compared that have the same size and mtime in the target and in the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompareBy {
    /// They count as equal, unless the file was changed within two seconds of its mtime, or after the last run.
    #[default]
    Metadata,
    /// Their contents are read.
    Content,
}

/// The reaction to a target that volio has not filled with the same options, and that has contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForeignTarget {
    /// It is refused.
    #[default]
    Refuse,
    /// It is made identical to the image: everything else in it is removed.
    Overwrite,
    /// The image is extracted over its contents, as with [`WriteMode::Merge`], and so is an image that cannot be compared
    /// with a directory: one that data-io made.
    Merge,
}

/// The choice between making the changes and counting them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Run {
    /// They are made.
    #[default]
    Apply,
    /// They are counted, and nothing is changed.
    Dry,
}

/// The result of a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Set if nothing was changed, and the numbers are those of what would be.
    pub is_dry: bool,
    /// Bytes that were fetched, with tables of contents.
    pub fetched: u64,
    /// The number of requests for them.
    pub requests: u64,
    /// Bytes that were copied from files of the target.
    pub reused: u64,
    /// Entries that were created or replaced.
    pub written: u64,
    /// Entries that got other attributes in place.
    pub attributes: u64,
    /// Entries that were removed.
    pub removed: u64,
    /// Entries that were left alone.
    pub unchanged: u64,
    /// Mount points that stay although the image does not have them, with the directories that lead to them, or whose
    /// extra contents stay.
    pub kept_mounts: Vec<TreePath>,
}

/// Makes a target identical to the image. An empty one is filled as without a sync.
///
/// # Errors
/// [`Refused`](crate::error::Kind::Refused) if the target holds something that volio has not unpacked there with the same
/// options, or if the changes cannot be made; those of an unpack.
pub(super) fn run(
    job: &Job<'_>,
    path: &Path,
    found: Option<Target>,
    options: SyncOptions,
) -> Result<Unpacked> {
    if job.options.read_as == ReadAs::Artifact {
        return Err(Error::usage("an artifact cannot be synced")
            .with_hint("unpack it into an empty directory, or over another one with --merge"));
    }
    let other = job.options.reuse_from.as_deref().and_then(TargetFiles::at);
    let target = match (found, options.run) {
        (None, Run::Dry) => return count_all(job),
        (None, Run::Apply) => Target::open_or_create(path)?,
        (Some(target), _) => target,
    };
    if target.foreign_entry()?.is_none() && target.own_state().is_none_or(|state| !is_incomplete_sync(&state))
    {
        return match (options.run, &other) {
            (Run::Dry, _) => count_all(job),
            (Run::Apply, None) => fill(job, target),
            (Run::Apply, Some(_)) => match (SyncRun { job, options, other }).run(target) {
                // One that data-io made cannot be compared. Nothing was changed.
                Err(error) if error.kind() == Kind::Usage => fill(job, Target::open_or_create(path)?),
                synced => synced,
            },
        };
    }
    match (options.foreign, ensure_ours(&target, &job.content)) {
        (ForeignTarget::Refuse, Err(foreign)) => return Err(foreign),
        (ForeignTarget::Merge, Err(_)) => return merge(job, target),
        _ => {}
    }
    match (SyncRun { job, options, other }).run(target) {
        Err(error) if error.kind() == Kind::Usage && options.foreign == ForeignTarget::Merge => {
            merge(job, Target::open_or_create(path)?)
        }
        synced => synced,
    }
}

/// Extracts the image over the contents of a target.
fn merge(job: &Job<'_>, target: Target) -> Result<Unpacked> {
    let write = WriteMode::Merge { replace_directories: false };
    let options = Options { write, if_present: IfPresent::Rewrite, ..job.options.clone() };
    Job { options: &options, content: job.content.clone(), ..*job }.fill(target)
}

/// Fills an empty target.
fn fill(job: &Job<'_>, target: Target) -> Result<Unpacked> {
    let options = Options { if_present: IfPresent::Rewrite, ..job.options.clone() };
    let job = Job { options: &options, content: job.content.clone(), ..*job };
    let unpacked = job.fill(target)?;
    let (written, fetched) = (unpacked.extracted.entries, unpacked.fetched.bytes);
    let synced = Synced { written, fetched, ..unpacked.sync.clone().unwrap_or_default() };
    Ok(Unpacked { sync: Some(synced), ..unpacked })
}

/// Counts what is in the image, for a target that is empty or does not exist.
fn count_all(job: &Job<'_>) -> Result<Unpacked> {
    let chosen = job.choose(None)?;
    let Chosen::Image(image) = &chosen else { return Err(no_image()) };
    let tree = image.tree_with(&mut SyncNotes::default())?;
    let tree = tree::select(tree, &job.options.filter, &job.options.limits)?;
    let synced = Synced { is_dry: true, written: tree.len() as u64, ..whole_image(image) };
    Ok(unpacked(job, image, Outcome::Unpacked, Extracted::default(), synced))
}

/// Returns what it costs to fetch all layers of an image.
pub(super) fn whole_image(image: &Image<'_>) -> Synced {
    let layers = &image.manifest().layers;
    let fetched = layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
    Synced { fetched, requests: layers.len() as u64, ..Synced::default() }
}

fn unpacked(
    job: &Job<'_>,
    image: &Image<'_>,
    outcome: Outcome,
    extracted: Extracted,
    synced: Synced,
) -> Unpacked {
    Unpacked {
        outcome,
        digest: job.root.descriptor().digest.clone(),
        platform: image.config().platform.clone(),
        layers: image.layers().len(),
        data_io: false,
        removed: 0,
        extracted,
        fetched: FetchedPart::default(),
        sync: Some(synced),
    }
}

fn no_image() -> Error {
    Error::usage("an artifact cannot be synced")
}

fn is_incomplete_sync(state: &TargetState) -> bool {
    state.content.get(SYNC_IN_PROGRESS).is_some()
}

/// Fails unless volio has filled a target with the same options, and nothing else was in it.
fn ensure_ours(target: &Target, wanted: &Value) -> Result<()> {
    let same_options = |content: &Value| {
        let without_image = |content: &Value| {
            let mut content = content.clone();
            if let Some(content) = content.as_object_mut() {
                content.remove("digest");
                content.remove(SYNC_IN_PROGRESS);
            }
            content
        };
        without_image(content) == without_image(wanted)
    };
    let shown = target.path().display();
    match target.own_state() {
        Some(state) if state.may_be_removed() => {
            if same_options(&state.content) {
                return Ok(());
            }
            Err(Error::refused(format!("{shown} holds an image that was unpacked with other options"))
                .with_hint("give the same --platform, --subpath, --strip and owners, or make it what these say with --force"))
        }
        Some(state) if state.is_unproven => Err(Error::refused(format!(
            "another user may have written the record of {shown}"
        ))
        .with_hint("everything in it that the image does not have would be removed; --force does that")),
        Some(_) => Err(Error::refused(format!("{shown} holds files that were there before the image"))
            .with_hint("they would be removed; --force does that, --merge keeps them")),
        None => Err(Error::refused(format!("{shown} is not empty, and volio has not filled it"))
            .with_hint("everything in it that the image does not have would be removed; --force does that")),
    }
}

/// A sync of a target that is not empty.
struct SyncRun<'a> {
    job: &'a Job<'a>,
    options: SyncOptions,
    /// Another version of the image, whose contents may be used.
    other: Option<TargetFiles>,
}

/// A plan with all that it needs, before anything is changed.
struct Prepared<'i> {
    tree: MergedTree<SyncNote>,
    /// The newest mtime of a file of the image that is not in the future.
    newest: Option<Time>,
    spools: SpooledLayers,
    plan: Plan,
    writes: Writes,
    fetch: Fetch<'i>,
    temporary: Vec<u8>,
}

impl SyncRun<'_> {
    fn run(&self, target: Target) -> Result<Unpacked> {
        // A dry run makes no file in the target, not even one without a name.
        let place = (!self.is_dry()).then(|| target.path().to_owned());
        let chosen = self.job.choose(place)?;
        let Chosen::Image(image) = &chosen else { return Err(no_image()) };
        let files = TargetFiles::of(&target)?;
        let state = target.own_state();
        let prepared = self.prepare(image, &target, &files, state.as_ref())?;
        let mut synced = prepared.counts(self.is_dry());
        if self.is_dry() {
            return Ok(unpacked(self.job, image, Outcome::Unpacked, Extracted::default(), synced));
        }
        let is_recorded = state.is_some_and(|state| state.complete && state.content == self.job.content);
        if prepared.plan.is_empty() && prepared.writes.is_empty() && is_recorded {
            return Ok(unpacked(self.job, image, Outcome::Present, Extracted::default(), synced));
        }
        ensure_space(&target, &prepared.fetch)?;
        let (extracted, applied) = self.apply(image, target, &files, prepared)?;
        synced.removed = applied.removed;
        synced.fetched += applied.fetched_again.0;
        synced.requests += applied.fetched_again.1;
        Ok(unpacked(self.job, image, Outcome::Unpacked, extracted, synced))
    }

    fn reusable<'f>(&'f self, target: &'f TargetFiles) -> ReusableFiles<'f> {
        ReusableFiles { target, other: self.other.as_ref() }
    }

    fn is_dry(&self) -> bool {
        self.options.run == Run::Dry
    }

    /// Compares the target with the image, and plans what is to be done.
    fn prepare<'i>(
        &self,
        image: &'i Image<'i>,
        target: &Target,
        files: &TargetFiles,
        state: Option<&TargetState>,
    ) -> Result<Prepared<'i>> {
        let closed = if self.is_dry() { ClosedDirectory::Fail } else { ClosedDirectory::OpenUp };
        let max_path = self.job.options.limits.max_path;
        let walk = TargetWalk::below(target, &TreePath::root(), closed, max_path)?;
        let root = TargetWalk::root(target)?;
        let expected = ExpectedAttributes::new(&self.job.options.tree);
        let rules = Rules {
            checksum: self.options.compare == CompareBy::Content,
            image: self.job.source.local_paths().iter().filter_map(|path| FileId::of(path)).collect(),
            force: self.options.foreign == ForeignTarget::Overwrite,
            closed,
            max_path,
            expected: &expected,
            target,
        };
        let comparison = Comparison::new(rules, &root, state);
        let mut notes = SyncNotes::for_target(state);
        let (tree, spools, compared) = thread::scope(|scope| -> Result<_> {
            let (sender, batches) = sync_channel(BATCHES_AHEAD);
            start_in(scope, move || send_in_batches(walk, &sender))?;
            let (tree, spools) = self.merge(image, target, &mut notes)?;
            let found = std::iter::once(Ok(root)).chain(Batches::of(batches));
            let compared = comparison.run(&tree, notes.newest, found)?;
            Ok((tree, spools, compared))
        })?;
        let prepared = self.plan(image, files, (tree, spools), compared)?;
        Ok(Prepared { newest: notes.newest, ..prepared })
    }

    /// Returns the tree that the target is to have.
    fn merge(
        &self,
        image: &Image<'_>,
        target: &Target,
        notes: &mut SyncNotes,
    ) -> Result<(MergedTree<SyncNote>, SpooledLayers)> {
        let Options { filter, limits, .. } = self.job.options;
        let (tree, spools) = if self.is_dry() {
            (image.tree_with(notes)?, SpooledLayers::new())
        } else {
            image.tree_and_spools(notes, || target.spool())?
        };
        let is_as_is = matches!(self.job.options.read_as, ReadAs::Image { as_is: true, .. });
        if !is_as_is && data_io::may_have_made(image) && data_io::has_archive(&tree) {
            return Err(Error::usage("the image was made by data-io, and its data is an archive in it")
                .with_hint("unpack it into an empty directory, or give --as-is to have the archive"));
        }
        let tree = tree::select(tree, filter, limits)?;
        if self.options.foreign != ForeignTarget::Overwrite {
            tree::ensure_not_empty(&tree)?;
        }
        Ok((tree, spools))
    }

    /// Reads the contents that must be compared, finds those that the target has, and plans what is fetched.
    fn plan<'i>(
        &self,
        image: &'i Image<'i>,
        files: &TargetFiles,
        (tree, spools): (MergedTree<SyncNote>, SpooledLayers),
        mut compared: Compared,
    ) -> Result<Prepared<'i>> {
        let Options { limits, .. } = self.job.options;
        let readers = worker_count(MAX_READERS);
        let checks = std::mem::take(&mut compared.checks);
        let total = checks.iter().map(|check| check.file.size).sum();
        let task = self.job.progress.begin(&TaskInfo::new(Phase::ComparingContents).with_total(total));
        check::run(checks, files, readers, &mut compared.plan, task.as_ref())?;
        drop(task);
        let temporary = compared.temporary.clone();
        let mut plan = compared.finish(&tree);
        let is_indexed = |layer| image.indexed_layer(layer).is_some();
        let writes = reuse::find(&mut plan, &tree, self.reusable(files), readers, is_indexed)?;
        let fetch = Fetch::plan(image, &writes, &plan, &spools, limits, self.job.options.tree.holes)?;
        Ok(Prepared { tree, newest: None, spools, plan, writes, fetch, temporary })
    }

    fn apply<'i>(
        &self,
        image: &'i Image<'i>,
        target: Target,
        files: &TargetFiles,
        prepared: Prepared<'i>,
    ) -> Result<(Extracted, Applied)> {
        let Prepared { tree, newest, spools, plan, writes, fetch, temporary } = prepared;
        let Options { limits, tree: extract, .. } = self.job.options;
        let mut extractor = Extractor::for_sync(target, extract.clone())?.with_memory_limit(limits.max_names);
        let mut interim = self.job.content.clone();
        if let Some(interim) = interim.as_object_mut() {
            interim.insert(SYNC_IN_PROGRESS.to_owned(), Value::Bool(true));
        }
        let mounts = plan.mounts.iter().cloned().map(|mount| {
            let is_changed = plan.changes(&mount.path, writes.all());
            SyncMount { is_changed, ..mount }
        });
        if let Err(error) =
            extractor.begin_sync_state(interim, self.job.content.clone(), newest, mounts.collect())
        {
            extractor.abandon();
            return Err(error);
        }
        for entry in tree.entries().filter(|entry| matches!(entry.kind, EntryKind::File { .. })) {
            extractor.note_mtime(entry.metadata.mtime);
        }
        let applier = Applier {
            image,
            tree: &tree,
            extractor: &mut extractor,
            files: self.reusable(files),
            plan: &plan,
            temporary,
            limits: *limits,
            progress: self.job.progress,
            stale: Vec::new(),
            replaced: HashSet::new(),
        };
        match applier.run(&writes, fetch, &spools) {
            Ok(applied) => Ok((extractor.finish()?, applied)),
            Err(error) => {
                extractor.abandon();
                Err(error)
            }
        }
    }
}

impl Prepared<'_> {
    fn counts(&self, is_dry: bool) -> Synced {
        let Self { plan, writes, fetch, .. } = self;
        Synced {
            is_dry,
            fetched: fetch.bytes,
            requests: fetch.requests,
            reused: fetch.reused,
            written: plan.written() + writes.count(),
            attributes: plan.attributes(),
            removed: plan.removed,
            unchanged: plan.unchanged,
            kept_mounts: plan.kept_mounts.clone(),
        }
    }
}

/// Fails if a file system has too little space for what is written to it. Old files stay until they are replaced, so
/// that the space that they take does not count.
fn ensure_space(target: &Target, fetch: &Fetch<'_>) -> Result<()> {
    for (mount, needed) in &fetch.space {
        let Some(free) = target.free_space(mount) else { continue };
        if *needed > free {
            let place = target.path().join(mount.as_path());
            return Err(too_little(&place, free, *needed).with_hint(
                "free some space there: old files stay until the new ones are complete; nothing was changed",
            ));
        }
    }
    Ok(())
}
