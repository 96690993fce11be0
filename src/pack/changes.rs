//! Comparison of a tree with the base of a pack.
//!
//! The tree is walked without opening files, and its entries are compared with those of the base by path. A file counts as
//! unchanged if kind, size, mtime, mode, owner and extended attributes are equal. That is not enough if its mtime proves
//! nothing: the file may have changed within the same tick of the clock, or the recorded mtime is not its own. The contents of
//! such files are read and compared by their digests.
//!
//! Device ids and inode numbers are not compared, because they change with the machine. Files with several names are compared
//! by the first name. If one of them differs, all of them are packed: a hard link cannot lead into a lower layer.

use super::base::{BaseNote, BaseTree, stored_size};
use super::warnings::LimitWarnings;
use crate::disk::working_directory;
use crate::error::{Error, Result};
use crate::image::identify;
use crate::progress::{Phase, Progress, TaskInfo};
use crate::stream::start_in;
use crate::tree::{
    Changed, Comparison, Entry, EntryKind, EntryPair, FileChange, ListedDirectories, PathRange, PathSet,
    SkipList, SourceSpec, Summary, Time, TreePath, Walk, WalkOptions, compare, pairs,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{iter, thread};

/// The coarsest resolution of mtimes, in seconds: that of FAT. A file with an mtime that is at most so much older than the
/// newest of the base may have changed since without a trace.
const COARSEST_MTIME: i64 = 2;
/// The number of entries that are handed to the comparison at once, and the number of such batches by which the walk may be
/// ahead while the base is read: about 8 MiB.
const BATCH: usize = 256;
const BATCHES: usize = 128;

/// The differences of a tree from its base.
pub(super) struct Changes {
    /// The entries that a delta has.
    pub delta: DeltaEntries,
    /// The number of entries that the base does not have.
    pub added: u64,
    /// The number of entries that differ from the base.
    pub changed: u64,
    /// The number of entries of the base that are gone.
    pub removed: u64,
    /// The number of entries that are the same in the base.
    pub unchanged: u64,
    /// The number and the size of the files whose contents were compared.
    pub compared: u64,
    pub compared_bytes: u64,
    /// The whole tree.
    pub tree: TreeSize,
    /// The summary of the walk.
    pub summary: Summary,
    /// The directories that the walk has read.
    pub listed: ListedDirectories,
}

/// The entries of a delta.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaEntries {
    /// The added and changed entries, with other names of the same files, and the directories in which something is removed.
    pub paths: Arc<PathSet>,
    /// Those that are directories.
    pub directories: PathSet,
    /// The removed paths by their directories. What is below a removed path is not listed.
    pub removed: BTreeMap<TreePath, Vec<TreePath>>,
}

/// The size of a tree.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TreeSize {
    pub entries: u64,
    pub files: u64,
    /// The size of its files together, in bytes.
    pub bytes: u64,
    /// The size of its archive, in bytes, about.
    pub stored: u64,
}

/// The rules by which a file counts as unchanged.
#[derive(Clone, Debug)]
pub(super) struct ComparisonRules {
    /// All contents are compared.
    pub checksum: bool,
    /// The mtimes of all entries are replaced.
    pub is_normalized: bool,
    /// The time to which later mtimes are reduced.
    pub clamp_mtime: Option<Time>,
}

/// The parts of a comparison that stay the same when it is repeated.
pub(super) struct Comparer<'a> {
    pub sources: &'a [SourceSpec],
    pub options: &'a WalkOptions,
    pub rules: ComparisonRules,
    pub progress: &'a dyn Progress,
}

impl Comparer<'_> {
    /// Compares the tree with the base that `read` returns. The tree is walked while the base is read. An entry that fails
    /// is added to the skip list where the options say so, and `None` is returned.
    ///
    /// # Errors
    /// Those of walking the tree and of `read`.
    pub fn compare<'b>(
        &self,
        tree: Walk,
        read: impl FnOnce() -> Result<&'b BaseTree>,
        skip_list: &mut SkipList,
    ) -> Result<Option<Changes>> {
        let mut limits = LimitWarnings::new(self.progress);
        let task = self.progress.begin(&TaskInfo::new(Phase::Comparing));
        let (base, mut compared, summary, listed) = thread::scope(|scope| -> Result<_> {
            let (send, receive) = sync_channel(BATCHES);
            let walker = start_in(scope, move || walk(tree, &send))?;
            let base = read()?;
            let mut comparison = TreeComparison::new(&self.rules, base);
            let found = batches(receive).inspect(|entry| {
                if let Ok(entry) = entry {
                    limits.count(entry);
                    task.advance_entries(1);
                }
            });
            for pair in pairs(base.tree.iter().map(Ok), found) {
                comparison.add(pair?);
            }
            let (summary, listed) = walker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok((base, comparison, summary, listed))
        })?;
        let Some((count, bytes)) = self.compare_contents(&mut compared, base, skip_list)? else {
            return Ok(None);
        };
        let mut changes = compared.finish(summary, listed);
        (changes.compared, changes.compared_bytes) = (count, bytes);
        Ok(Some(changes))
    }

    /// Reads the files whose metadata proves nothing, and compares their contents. Returns their number and size; `None` if
    /// some of them are left out from now on.
    fn compare_contents(
        &self,
        compared: &mut TreeComparison<'_>,
        base: &BaseTree,
        skip_list: &mut SkipList,
    ) -> Result<Option<(u64, u64)>> {
        let uncertain = Arc::new(std::mem::take(&mut compared.uncertain));
        if uncertain.is_empty() {
            return Ok(Some((0, 0)));
        }
        let task = self
            .progress
            .begin(&TaskInfo::new(Phase::ComparingContents).with_total(compared.uncertain_bytes));
        let range = PathRange { paths: Some(Arc::clone(&uncertain)), ..PathRange::default() };
        let mut tree = Walk::skipping(self.sources, self.options, skip_list)?.within(&range);
        let (mut count, mut bytes) = (0, 0);
        let (mut expected, mut missing) = (uncertain.iter(), None);
        for found in tree.by_ref() {
            let found = found?;
            if !uncertain.contains(&found.entry.path) {
                continue;
            }
            // Both are in the order of paths.
            for path in expected.by_ref().take_while(|path| **path != found.entry.path) {
                missing.get_or_insert(path);
            }
            let content = match found.file {
                Some(mut file) => identify(&found.entry, &mut file)?,
                None => None,
            };
            if let EntryKind::File { size } = found.entry.kind {
                task.advance(size);
                bytes += size;
            }
            count += 1;
            task.advance_entries(1);
            let before = base.tree.get(&found.entry.path).and_then(|(_, note)| note.content());
            let is_equal = before.zip(content.as_ref()).and_then(|(one, other)| one.comparable(other));
            compared.settle(found.entry.path, is_equal.is_some_and(|[one, other]| one == other));
        }
        match missing.or(expected.next()) {
            None => Ok(Some((count, bytes))),
            Some(_) if record_left_out(skip_list, &tree.summary(), &uncertain, &PathSet::default()) => {
                Ok(None)
            }
            Some(path) => Err(moved_meanwhile(path)),
        }
    }
}

/// Adds the wanted entries that a walk has left out to the skip list; returns whether there are any. Unreadable directories
/// are entries nevertheless.
pub(super) fn record_left_out(
    skip_list: &mut SkipList,
    summary: &Summary,
    wanted: &PathSet,
    directories: &PathSet,
) -> bool {
    let mut is_any_new = false;
    for left in &summary.left_out {
        if wanted.contains(&left.path) && !directories.contains(&left.path) {
            is_any_new |= skip_list.add(&left.path, left.reason);
        }
    }
    is_any_new
}

/// The error for a tree that changed between the comparison and the reading.
pub(super) fn moved_meanwhile(path: &TreePath) -> Error {
    let changed = Changed { path: path.clone(), change: FileChange::Vanished };
    let what = if path.is_root() { "a file".to_owned() } else { path.to_string() };
    Error::failed(format!("{what} changed between the comparison with the base and the reading"))
        .with_source(changed)
        .with_hint("pack a snapshot, stop what writes there, or leave out what changes with --on-change skip")
}

/// Sends the entries of a tree without their contents, in batches, from a thread of its own. It ends early if nobody receives
/// them any more.
fn walk(tree: Walk, send: &SyncSender<Vec<Result<Entry>>>) -> (Summary, ListedDirectories) {
    working_directory::separate();
    let mut tree = tree.metadata_only();
    let mut batch = Vec::with_capacity(BATCH);
    for found in tree.by_ref() {
        batch.push(found.map(|found| found.entry));
        if batch.len() == BATCH
            && send.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))).is_err()
        {
            break;
        }
    }
    // An error means that the receiver is gone because of another one.
    let _ = send.send(batch);
    (tree.summary(), tree.into_listed())
}

fn batches(receive: Receiver<Vec<Result<Entry>>>) -> impl Iterator<Item = Result<Entry>> {
    iter::from_fn(move || receive.recv().ok()).flatten()
}

/// A comparison in progress.
struct TreeComparison<'a> {
    rules: &'a ComparisonRules,
    /// The mtime from which on files may have changed without a trace.
    racy_from: Option<Time>,
    paths: PathSet,
    directories: PathSet,
    removed: BTreeMap<TreePath, Vec<TreePath>>,
    /// Files whose contents have to be compared.
    uncertain: PathSet,
    uncertain_bytes: u64,
    /// The further names of files with several, by the first name.
    names: HashMap<TreePath, Vec<TreePath>>,
    /// The path of the base that was removed, or replaced by something that is not a directory. What the base has below it
    /// is gone with it.
    gone: Option<TreePath>,
    changes: Counts,
    tree: TreeSize,
}

#[derive(Default)]
struct Counts {
    added: u64,
    changed: u64,
    removed: u64,
    unchanged: u64,
}

impl<'a> TreeComparison<'a> {
    fn new(rules: &'a ComparisonRules, base: &BaseTree) -> Self {
        let earlier = |time: Time| Time { seconds: time.seconds.saturating_sub(COARSEST_MTIME), ..time };
        Self {
            rules,
            racy_from: base.newest.map(earlier),
            paths: PathSet::default(),
            directories: PathSet::default(),
            removed: BTreeMap::new(),
            uncertain: PathSet::default(),
            uncertain_bytes: 0,
            names: HashMap::new(),
            gone: None,
            changes: Counts::default(),
            tree: TreeSize::default(),
        }
    }

    /// Adds the next pair, in the order of paths.
    fn add(&mut self, pair: EntryPair<(Entry, &BaseNote), Entry>) {
        match pair {
            EntryPair::Left((before, _)) => self.remove(before.path),
            EntryPair::Right(found) => {
                self.count(&found);
                self.changes.added += 1;
                self.want(&found);
            }
            EntryPair::Both((before, note), found) => {
                self.count(&found);
                let is_directory = |entry: &Entry| entry.kind == EntryKind::Directory;
                if is_directory(&before) && !is_directory(&found) {
                    self.gone = Some(found.path.clone());
                }
                match self.judge(&before, note, &found) {
                    Verdict::Equal => self.changes.unchanged += 1,
                    Verdict::Different => {
                        self.changes.changed += 1;
                        self.want(&found);
                    }
                    Verdict::Uncertain(size) => {
                        self.uncertain_bytes += size;
                        self.uncertain.insert(found.path);
                    }
                }
            }
        }
    }

    fn count(&mut self, found: &Entry) {
        let tree = &mut self.tree;
        tree.entries += 1;
        tree.stored = tree.stored.saturating_add(stored_size(&found.kind));
        match &found.kind {
            EntryKind::File { size } => {
                tree.files += 1;
                tree.bytes = tree.bytes.saturating_add(*size);
            }
            EntryKind::Hardlink { target } => {
                self.names.entry(target.clone()).or_default().push(found.path.clone());
            }
            _ => {}
        }
    }

    fn remove(&mut self, path: TreePath) {
        // Every tree has a root.
        let Some(parent) = path.parent() else { return };
        self.changes.removed += 1;
        if self.gone.as_ref().is_some_and(|gone| path.is_in(gone)) {
            return;
        }
        self.gone = Some(path.clone());
        self.paths.insert(parent.clone());
        self.directories.insert(parent.clone());
        self.removed.entry(parent).or_default().push(path);
    }

    fn want(&mut self, found: &Entry) {
        if found.kind == EntryKind::Directory {
            self.directories.insert(found.path.clone());
        }
        self.paths.insert(found.path.clone());
        if let EntryKind::Hardlink { target } = &found.kind {
            self.paths.insert(target.clone());
        }
    }

    fn judge(&self, before: &Entry, note: &BaseNote, found: &Entry) -> Verdict {
        match (compare(before, found), note) {
            (Comparison::Equal, _) | (Comparison::EqualToTheSecond, BaseNote::Archived(_)) => {}
            _ => return Verdict::Different,
        }
        match found.kind {
            EntryKind::File { size } if size > 0 && !self.proves_content(found.metadata.mtime) => {
                Verdict::Uncertain(size)
            }
            _ => Verdict::Equal,
        }
    }

    /// Returns whether a file with the same mtime as in the base has the same content.
    fn proves_content(&self, mtime: Time) -> bool {
        let ComparisonRules { checksum, is_normalized, clamp_mtime } = *self.rules;
        let is_clamped = clamp_mtime.is_some_and(|latest| mtime >= latest);
        let is_racy = self.racy_from.is_none_or(|from| mtime >= from);
        !(checksum || is_normalized || is_clamped || is_racy)
    }

    /// Records the comparison of a content.
    fn settle(&mut self, path: TreePath, is_equal: bool) {
        if is_equal {
            self.changes.unchanged += 1;
        } else {
            self.changes.changed += 1;
            self.paths.insert(path);
        }
    }

    /// Adds all names of files of which one is wanted.
    fn finish(mut self, summary: Summary, listed: ListedDirectories) -> Changes {
        for (first, others) in std::mem::take(&mut self.names) {
            if self.paths.contains(&first) {
                others.into_iter().for_each(|name| _ = self.paths.insert(name));
            }
        }
        let Counts { added, changed, removed, unchanged } = self.changes;
        Changes {
            delta: DeltaEntries {
                paths: Arc::new(self.paths),
                directories: self.directories,
                removed: self.removed,
            },
            added,
            changed,
            removed,
            unchanged,
            compared: 0,
            compared_bytes: 0,
            tree: self.tree,
            summary,
            listed,
        }
    }
}

/// The result of comparing an entry with the base.
enum Verdict {
    Equal,
    Different,
    /// The content of the file, of this size, has to be compared.
    Uncertain(u64),
}
