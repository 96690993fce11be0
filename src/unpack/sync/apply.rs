//! The changes of a plan, made in an order in which no content is removed that another file still needs.

use super::fetch::{Fetch, LayerMode};
use super::plan::{InPlace, Plan, Reuse, WantedFile};
use super::reuse::ReusableFiles;
use super::reuse::Writes;
use super::tree::SyncNote;
use crate::error::{Error, Result};
use crate::image::{ChunkReader, ChunkSource, EntryPosition, FetchPlan, FetchedFrames, Image, SpooledLayers};
use crate::layer::{Budget, Chunk, Item, Limits};
use crate::progress::{Phase, Progress, TaskInfo};
use crate::tree::{Content, Entry, EntryKind, Extractor, MergedTree, Place, SeenAs, TargetFile, TreePath};
use std::collections::{BTreeMap, HashSet};
use std::io;

/// The result of the changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Applied {
    /// The number of entries that were removed.
    pub removed: u64,
    /// Bytes and requests for contents that another process changed before they were used.
    pub fetched_again: (u64, u64),
}

/// A target that is being changed.
pub(super) struct Applier<'a> {
    pub image: &'a Image<'a>,
    pub tree: &'a MergedTree<SyncNote>,
    pub extractor: &'a mut Extractor,
    pub files: ReusableFiles<'a>,
    pub plan: &'a Plan,
    /// A name that no entry has.
    pub temporary: Vec<u8>,
    pub limits: Limits,
    pub progress: &'a dyn Progress,
    /// Files whose local content was another one when it was read again.
    pub stale: Vec<WantedFile>,
    /// Files that could not be changed in place, so that their other names must be made again.
    pub replaced: HashSet<TreePath>,
}

impl<'a> Applier<'a> {
    /// Makes the changes.
    ///
    /// # Errors
    /// Those of the source and of the operating system. What was changed by then stays, and the record of the target says
    /// that it is incomplete.
    pub fn run(mut self, writes: &Writes, mut fetch: Fetch<'_>, spools: &SpooledLayers) -> Result<Applied> {
        let plan = self.plan;
        // First, as removing other names of these files changes their ctime.
        for file in &plan.attributes {
            self.change_attributes(file)?;
        }
        // A new name may be an old one in another spelling. Contents of what is removed are fetched then.
        let mut removed = plan.removed;
        if self.extractor.folds_case() {
            removed = self.remove_extras()?;
        }
        for path in &plan.directories {
            let (entry, note) = self.entry(path)?;
            self.restore_parent_at_end(path)?;
            self.extractor.replace_by_directory(&entry, !matches!(note, SyncNote::Implied))?;
        }
        for file in &writes.local {
            self.write_chunks(file, &mut fetch, None)?;
        }
        self.write_ranges(writes, &mut fetch)?;
        self.write_layers(&writes.fetched, &fetch.modes, spools)?;
        for file in &writes.duplicates {
            self.write_chunks(file, &mut fetch, None)?;
        }
        let fetched_again = self.write_stale(&mut fetch, spools)?;
        for path in &plan.specials {
            let (entry, _) = self.entry(path)?;
            self.restore_parent_at_end(path)?;
            let place = place(&self.temporary, self.plan, path);
            self.extractor.replace(&entry, &mut io::empty(), place)?;
        }
        let split = plan.kept_links.iter().filter(|(_, first)| self.replaced.contains(first));
        for (path, first) in plan.links.iter().chain(&split.cloned().collect::<Vec<_>>()) {
            self.restore_parent_at_end(path)?;
            let place = place(&self.temporary, self.plan, path);
            self.extractor.replace_by_link(first, path, place)?;
        }
        if !self.extractor.folds_case() {
            removed = self.remove_extras()?;
        }
        for path in &plan.directory_attributes {
            self.restore_directory_at_end(path)?;
        }
        Ok(Applied { removed, fetched_again })
    }

    /// Removes what the image does not have. Returns the number of removed entries.
    fn remove_extras(&mut self) -> Result<u64> {
        let plan = self.plan;
        let mut removed = plan.removed;
        for (path, seen) in &plan.extras {
            self.restore_parent_at_end(path)?;
            let found = self.extractor.remove_extra(path, *seen)?;
            if found.is_mounted && !plan.kept_mounts.iter().any(|mount| mount.is_in(path)) {
                // It was mounted meanwhile.
                removed = removed.min(found.entries);
            }
        }
        Ok(removed)
    }

    fn entry(&self, path: &TreePath) -> Result<(Entry, &'a SyncNote)> {
        let missing =
            || Error::failed(format!("{path} was planned and is not in the image; this is a bug in volio"));
        self.tree.get(path).ok_or_else(missing)
    }

    /// Notes that the directory of an entry changes, so that it gets its attributes again at the end.
    fn restore_parent_at_end(&mut self, path: &TreePath) -> Result<()> {
        match path.parent() {
            Some(parent) => self.restore_directory_at_end(&parent),
            None => Ok(()),
        }
    }

    fn restore_directory_at_end(&mut self, directory: &TreePath) -> Result<()> {
        match self.tree.get(directory) {
            // Its attributes are those of the directory that was there.
            Some((_, SyncNote::Implied)) if directory.is_root() => Ok(()),
            Some((_, SyncNote::Implied)) => self.extractor.describe_directory(directory, None),
            Some((entry, _)) => self.extractor.describe_directory(directory, Some(&entry.metadata)),
            None => Ok(()),
        }
    }

    /// Writes a file from chunks: of the target, and of the frames that are fetched. If a chunk of the target is another
    /// one by now, the file is written later.
    fn write_chunks(
        &mut self,
        file: &WantedFile,
        fetch: &mut Fetch<'_>,
        frames: Option<&mut FetchedFrames<'_>>,
    ) -> Result<()> {
        let (entry, _) = self.entry(&file.path)?;
        self.restore_parent_at_end(&file.path)?;
        let mut source = MixedChunks::new(file, frames, self.files);
        let mut chunks = fetch.chunks.of(file.at)?;
        let mut content = ChunkReader::of(&mut source, || chunks.next());
        let place = place(&self.temporary, self.plan, &file.path);
        match self.extractor.replace(&entry, &mut content, place) {
            Err(_) if source.is_stale => {
                self.stale.push(WantedFile { reuse: None, ..file.clone() });
                Ok(())
            }
            written => written,
        }
    }

    fn write_ranges(&mut self, writes: &Writes, fetch: &mut Fetch<'_>) -> Result<()> {
        let by_ranges = |file: &&WantedFile| fetch.modes.get(&file.at.layer) == Some(&LayerMode::Ranges);
        let files: Vec<&WantedFile> = writes.fetched.iter().filter(by_ranges).collect();
        let plan = std::mem::replace(&mut fetch.ranges, FetchPlan::within(&self.limits));
        let image = self.image;
        image.fetch_frames(&plan, |frames| {
            files.into_iter().try_for_each(|file| self.write_chunks(file, fetch, Some(frames)))
        })
    }

    /// Writes the files whose local content was not what it had been.
    fn write_stale(&mut self, fetch: &mut Fetch<'_>, spools: &SpooledLayers) -> Result<(u64, u64)> {
        let mut files = std::mem::take(&mut self.stale);
        files.sort_by_key(|file| file.at);
        let image = self.image;
        let (files, spooled): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| image.indexed_layer(file.at.layer).is_some());
        let modes = spooled.iter().map(|file| (file.at.layer, LayerMode::Spool)).collect();
        self.write_layers(&spooled, &modes, spools)?;
        let mut plan = FetchPlan::within(&self.limits);
        for file in &files {
            let mut chunks = fetch.chunks.of(file.at)?;
            while let Some(chunk) = chunks.next()? {
                plan.add(file.at.layer, &chunk)?;
            }
        }
        let fetched = (plan.bytes(), plan.requests());
        image.fetch_frames(&plan, |frames| {
            files.iter().try_for_each(|file| self.write_chunks(file, fetch, Some(frames)))
        })?;
        Ok(fetched)
    }

    /// Writes the files of layers that are read as a whole.
    fn write_layers(
        &mut self,
        files: &[WantedFile],
        modes: &BTreeMap<usize, LayerMode>,
        spools: &SpooledLayers,
    ) -> Result<()> {
        for files in files.chunk_by(|one, other| one.at.layer == other.at.layer) {
            let Some(number) = files.first().map(|file| file.at.layer) else { continue };
            let mut wanted =
                WantedItems { next: EntryPosition { layer: number, number: 0 }, files: files.iter() };
            let mut budget = Budget::new(self.limits);
            match modes.get(&number) {
                Some(LayerMode::Stream) => {
                    let Some(layer) = self.image.indexed_layer(number) else { continue };
                    let info = TaskInfo::new(Phase::Fetching).about(format!("layer {}", number + 1));
                    let info = info.of_blob(&self.image.manifest().layers[number].digest);
                    let task = self.progress.begin(&info.with_total(layer.size()));
                    let passed = move |bytes| task.advance(bytes);
                    layer.read_items(&mut budget, passed, |item, content| {
                        wanted.visit(&item, content, |file, content| self.write_content(file, content))
                    })?;
                }
                Some(LayerMode::Spool) => {
                    let Some(layer) = spools.get(&number) else { continue };
                    layer.read_items(
                        &mut budget,
                        |_| {},
                        |item, content| {
                            wanted.visit(&item, content, |file, content| self.write_content(file, content))
                        },
                    )?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn write_content(&mut self, file: &WantedFile, content: &mut dyn Content) -> Result<()> {
        let (entry, _) = self.entry(&file.path)?;
        self.restore_parent_at_end(&file.path)?;
        let place = place(&self.temporary, self.plan, &file.path);
        self.extractor.replace(&entry, content, place)
    }

    /// Changes the attributes of a file in place. One that was changed or replaced meanwhile is written.
    fn change_attributes(&mut self, file: &InPlace) -> Result<()> {
        let (entry, note) = self.entry(&file.path)?;
        if self.extractor.change_attributes(&entry, &file.seen)? {
            return Ok(());
        }
        self.replaced.insert(file.path.clone());
        match (note, entry.kind) {
            (SyncNote::File(at, content), EntryKind::File { size }) => {
                let (path, at, content) = (file.path.clone(), *at, content.clone());
                self.stale.push(WantedFile { path, size, at, content, reuse: None });
                Ok(())
            }
            _ => {
                let (entry, _) = self.entry(&file.path)?;
                self.restore_parent_at_end(&file.path)?;
                let place = place(&self.temporary, self.plan, &file.path);
                self.extractor.replace(&entry, &mut io::empty(), place)
            }
        }
    }
}

/// Returns where an entry is created.
fn place<'a>(temporary: &'a [u8], plan: &Plan, path: &TreePath) -> Place<'a> {
    let is_directory = plan.replaced_directories.contains(path);
    Place { temporary, seen: if is_directory { SeenAs::Directory } else { SeenAs::Other } }
}

/// The wanted files of a layer that is read as a whole.
struct WantedItems<'f> {
    /// The position of the next entry.
    next: EntryPosition,
    /// The remaining files, in the order of the layer.
    files: std::slice::Iter<'f, WantedFile>,
}

impl WantedItems<'_> {
    /// Calls `write` if an item is the next wanted file.
    fn visit(
        &mut self,
        item: &Item,
        content: &mut dyn Content,
        write: impl FnOnce(&WantedFile, &mut dyn Content) -> Result<()>,
    ) -> Result<()> {
        let Item::Entry(_) = item else { return Ok(()) };
        let at = self.next;
        self.next.number += 1;
        match self.files.as_slice().first() {
            Some(file) if file.at == at => {
                self.files.next();
                write(file, content)
            }
            _ => Ok(()),
        }
    }
}

/// The chunks of one file: of a file of the target as far as that has them, and of frames.
struct MixedChunks<'f, 'a> {
    frames: Option<&'f mut FetchedFrames<'a>>,
    layer: usize,
    reuse: Option<(&'f Reuse, Option<TargetFile>)>,
    buffer: Vec<u8>,
    /// Set if the target did not have a chunk that it had before.
    is_stale: bool,
}

impl<'f, 'a> MixedChunks<'f, 'a> {
    fn new(
        file: &'f WantedFile,
        frames: Option<&'f mut FetchedFrames<'a>>,
        files: ReusableFiles<'_>,
    ) -> Self {
        let reuse = file.reuse.as_deref().map(|reuse| (reuse, files.open(reuse)));
        Self { frames, layer: file.at.layer, reuse, buffer: Vec::new(), is_stale: false }
    }

    fn stale(&mut self) -> Error {
        self.is_stale = true;
        Error::failed("a file of the target was changed while it was used")
    }
}

impl ChunkSource for &mut MixedChunks<'_, '_> {
    fn chunk(&mut self, chunk: &Chunk) -> Result<&[u8]> {
        let place = self.reuse.as_ref().and_then(|(reuse, _)| reuse.place(&chunk.digest, chunk.offset));
        let Some(place) = place else {
            if self.frames.is_none() {
                return Err(self.stale());
            }
            let not_planned = || Error::failed("a chunk was not planned; this is a bug in volio");
            return self.frames.as_mut().ok_or_else(not_planned)?.chunk(self.layer, chunk);
        };
        let size = usize::try_from(chunk.size).unwrap_or_default();
        self.buffer.resize(size, 0);
        let Some((_, Some(file))) = &self.reuse else { return Err(self.stale()) };
        let is_there = file.read_at(place, &mut self.buffer).is_ok_and(|read| read == size)
            && chunk.verify(&self.buffer).is_ok();
        if is_there { Ok(&self.buffer) } else { Err(self.stale()) }
    }
}
