//! Layers on their way: several are made and sent side by side, each while it is read.

use super::plan::Part;
use super::{ArchiveFormat, Options, persist, told};
use crate::error::{Error, Result};
use crate::layer::{Compression, Contents, Framer, Layer, LayerWriter};
use crate::progress::{Progress, Task};
use crate::stream::{Body, Workers, Written, on_threads, room, start_in};
use crate::transport::Destination;
use crate::tree::{
    Entry, EntryKind, ListedDirectories, Metadata, SkipList, SourceSpec, Summary, TreePath, Walk, WalkedEntry,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{io, thread};

/// Layers that are made at a time. Each reads on its own and holds a few frames; the workers are shared.
const SIDE_BY_SIDE: usize = 3;

/// A layer that was sent.
pub struct Sent {
    pub layer: Layer,
    pub contents: Contents,
    /// What the walk over its part of the tree came by; nothing where another layer told it already.
    pub summary: Summary,
    /// How many entries of the tree are in this layer and in none before it.
    pub entries: u64,
    /// The directories that were read for it.
    pub listed: ListedDirectories,
}

/// A part of the tree that was written as a layer.
struct Archived {
    contents: Contents,
    summary: Summary,
    listed: ListedDirectories,
    /// How many of its entries stand for themselves.
    entries: u64,
}

/// Makes the layers of all parts and sends them; they are in the order of the parts.
///
/// # Errors
/// The first one that occurs; the other layers are then abandoned.
pub fn layers(
    destination: &dyn Destination,
    sources: &[SourceSpec],
    options: &Options,
    format: ArchiveFormat,
    skip_list: &SkipList,
    parts: &[Part],
    progress: &dyn Progress,
) -> Result<Vec<Sent>> {
    let workers = options.compression.workers()?;
    // Each has blocks of its own: where there is no memory for more workers, there is none for those.
    let lanes = parts.len().min(SIDE_BY_SIDE).min(room());
    let sender = Sender {
        destination,
        sources,
        options,
        format,
        skip_list,
        progress,
        share: workers.count().div_ceil(lanes),
        workers,
        count: parts.len(),
        abandoned: AtomicBool::new(false),
    };
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::with_capacity(parts.len()));
    on_threads(lanes, || {
        while let Some((number, part)) = take(&next, parts) {
            if sender.abandoned.load(Ordering::Relaxed) {
                return;
            }
            let outcome = sender.layer(number, part);
            sender.abandoned.fetch_or(outcome.is_err(), Ordering::Relaxed);
            outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((number, outcome));
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    // The one that failed first was pushed first, and the ones that were abandoned for it came later.
    if let Some(failed) = outcomes.iter().position(|(_, outcome)| outcome.is_err()) {
        return outcomes.swap_remove(failed).1.map(|_| Vec::new());
    }
    outcomes.sort_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn take<'a>(next: &AtomicUsize, parts: &'a [Part]) -> Option<(usize, &'a Part)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    parts.get(number).map(|part| (number, part))
}

/// What is the same for all layers.
struct Sender<'a> {
    destination: &'a dyn Destination,
    sources: &'a [SourceSpec],
    options: &'a Options,
    format: ArchiveFormat,
    skip_list: &'a SkipList,
    progress: &'a dyn Progress,
    workers: Workers,
    /// How many of them one layer can keep busy.
    share: usize,
    /// How many layers there will be.
    count: usize,
    /// Whether a layer has failed, so that the others are for nothing.
    abandoned: AtomicBool,
}

impl Sender<'_> {
    /// Sends a layer, however often it takes.
    fn layer(&self, number: usize, part: &Part) -> Result<Sent> {
        let what = match self.count {
            1 => "packing".to_owned(),
            count => format!("packing layer {} of {count}", number + 1),
        };
        let (tree, mut skip_list) = (&self.options.tree, self.skip_list.clone());
        persist(self.destination, self.sources, tree, &mut skip_list, self.progress, |skip_list| {
            self.attempt(part, skip_list, self.progress.begin(&what, None).as_ref())
        })
    }

    /// Sends a layer while it is made: one thread reads and archives, some compress, this one hashes and sends.
    fn attempt(&self, part: &Part, skip_list: &SkipList, task: &dyn Task) -> Result<Sent> {
        let tree = Walk::skipping(self.sources, &self.options.tree, skip_list)?.within(&part.range);
        let (archived, written) =
            while_made(self.destination, self.options.compression, &self.workers, self.share, |layer| {
                let layer = match self.format {
                    ArchiveFormat::Layer => layer,
                    ArchiveFormat::OldTar => layer.for_tar(),
                };
                self.archive(part, tree, layer, task)
            })?;
        Ok(self.sent(part, archived, written))
    }

    /// Writes a part of the tree as one layer.
    fn archive(
        &self,
        part: &Part,
        mut tree: Walk,
        layer: LayerWriter<Framer>,
        task: &dyn Task,
    ) -> Result<Archived> {
        let mut holes = told::Holes::new(self.progress);
        let mut layer = PartWriter { layer, last: TreePath::root(), ancestors: 0 };
        let mut links = Vec::new();
        for found in tree.by_ref() {
            if self.abandoned.load(Ordering::Relaxed) {
                return Err(Error::failed("another layer failed").with_source(broken_pipe()));
            }
            let found = found?;
            if part.only_files && found.entry.kind == EntryKind::Directory {
                continue;
            }
            for path in part.links.get(&found.entry.path).into_iter().flatten() {
                let kind = EntryKind::Hardlink { target: found.entry.path.clone() };
                links.push(Entry { path: path.clone(), kind, metadata: found.entry.metadata.clone() });
            }
            holes.count(&found);
            layer.append(part, found, |bytes| task.advance(bytes))?;
        }
        // They come behind the files, for their first names do.
        links.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        if links.len() != part.links.values().map(Vec::len).sum::<usize>() {
            return Err(Error::failed("files with several names vanished while the tree was read")
                .with_hint("read a tree that nobody changes meanwhile, such as a snapshot"));
        }
        for entry in links {
            layer.append(part, WalkedEntry { entry, file: None }, |_| {})?;
        }
        let ((), contents) = layer.layer.finish()?;
        let (entries, summary) = (contents.entries - layer.ancestors, tree.summary());
        Ok(Archived { contents, summary, listed: tree.into_listed(), entries })
    }

    fn sent(&self, part: &Part, archived: Archived, written: Written) -> Sent {
        let Archived { contents, summary, listed, entries } = archived;
        let layer = Layer::new(self.options.compression, &contents, written);
        // What the layers of files came by, the one of the directories comes by again.
        let summary = match part.range.only_directories {
            true => Summary { newest: summary.newest, attributes: summary.attributes, ..Summary::default() },
            false => summary,
        };
        Sent { layer, contents, summary, entries, listed }
    }
}

/// Sends a layer while `write` makes it on another thread.
///
/// # Errors
/// That of the half which failed first.
pub fn while_made<T: Send>(
    destination: &dyn Destination,
    compression: Compression,
    workers: &Workers,
    share: usize,
    write: impl FnOnce(LayerWriter<Framer>) -> Result<T> + Send,
) -> Result<(T, Written)> {
    let (layer, blob) = compression.layer(workers, share)?;
    thread::scope(|scope| {
        let writer = start_in(scope, || write(layer))?;
        let written = destination.upload(Body::new(blob));
        let made = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (made, written) {
            (Ok(made), Ok(written)) => Ok((made, written)),
            // Where one half failed, the other one only sees a broken pipe: the cause is what the user must read.
            (Err(error), _) if !error.is_broken_pipe() => Err(error),
            (_, Err(error)) => Err(error),
            (Err(error), Ok(_)) => Err(error),
        }
    })
}

/// Writes entries, each behind the directories that lead to it where those are not told by the tree.
struct PartWriter {
    layer: LayerWriter<Framer>,
    /// The entry before: its directories are there.
    last: TreePath,
    /// How many directories were put in.
    ancestors: u64,
}

impl PartWriter {
    fn append(&mut self, part: &Part, found: WalkedEntry, passed: impl Fn(u64)) -> Result<()> {
        if part.only_files {
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
            Some(file) => self.layer.append(&found.entry, file, passed),
            None => self.layer.append(&found.entry, io::empty(), passed),
        }
    }
}

fn broken_pipe() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
