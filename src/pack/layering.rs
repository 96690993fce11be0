//! Distribution of a tree over layers.
//!
//! The path of a file decides whether a layer begins with it, and not its position: the hash of the path is the lowest
//! within half the target size before and after it. So an added or removed file moves only the boundaries near it, no layer
//! is smaller than half the target, and a small tree has a single layer.
//!
//! A file of more than twice the target is a layer by itself. The last layer has all directories. If there are too many
//! layers, the target is doubled.

use super::base::HEADER;
use super::changes::DeltaEntries;
use crate::oci::Digest;
use crate::tree::{Entry, EntryKind, PathRange, TreePath};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

/// A file that is larger than the target by this factor is a layer by itself.
const ALONE_FACTOR: u64 = 2;
/// The most layers of an image. Docker allows 125, and later changes add more.
pub const MAX_LAYERS: usize = 64;
/// The number of times that the target may double: 512 MiB become 2 EiB.
const DOUBLINGS: u32 = 32;

/// The content of one layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerPlan {
    /// The part of the tree.
    pub range: PathRange,
    /// Names outside of the range of files in the range, by the first names of these files: a hard link must not point to
    /// another layer.
    pub links: BTreeMap<TreePath, Vec<TreePath>>,
    /// True if the layer has files only. Their directories then have default attributes, and the true ones are in the last
    /// layer.
    pub only_files: bool,
    /// The size of its files together, in bytes, when they were planned.
    pub bytes: u64,
    /// The entries to which the layers are restricted, if they are a delta.
    pub delta: Option<Arc<DeltaEntries>>,
}

impl LayerPlan {
    /// Restricts the layer to its part of a delta.
    #[must_use]
    pub fn restricted_to(mut self, delta: &Arc<DeltaEntries>) -> Self {
        self.range.paths = Some(Arc::clone(&delta.paths));
        self.delta = Some(Arc::clone(delta));
        self
    }

    /// Returns the paths that the layer removes from lower ones in a directory. They are in the layer that has the directories
    /// with their true attributes, which is the last one.
    pub fn removed_in(&self, directory: &TreePath) -> &[TreePath] {
        match &self.delta {
            Some(delta) if !self.only_files => delta.removed.get(directory).map_or(&[], Vec::as_slice),
            _ => &[],
        }
    }
}

/// Distributes a tree over layers. Its entries are added in order.
pub struct LayerPlanner {
    /// The boundaries for each target size, the smallest first. The tree is walked once, so all are computed together.
    sizes: VecDeque<BoundaryFinder>,
    /// Further names of files, each with the first name.
    links: Vec<(TreePath, TreePath)>,
    /// The size of all files together, in bytes.
    bytes: u64,
}

/// Finds the boundaries of layers for one target size.
struct BoundaryFinder {
    target: u64,
    /// The size of the archive so far, without files that are layers by themselves, and that of the files in it.
    position: u64,
    bytes: u64,
    /// Files that may become boundaries or prevent others from it, each with a higher hash than the one before it.
    window: VecDeque<Candidate>,
    /// The first files of the second and later layers, each with the number of bytes in all files before it.
    boundaries: Vec<(TreePath, u64)>,
    /// Files that are layers by themselves, with their sizes.
    alone: BTreeMap<TreePath, u64>,
}

struct Candidate {
    /// The end of the file. The distance of two files is what lies between them, without either. If it included the size of
    /// a new file, that could move a boundary of a third layer.
    end: u64,
    hash: u64,
    /// The path of a file with the lowest hash so far, and the number of bytes in all files before it.
    lowest: Option<(TreePath, u64)>,
}

impl LayerPlanner {
    /// Creates a planner for layers of about so many bytes of archive.
    pub fn new(target: u64) -> Self {
        let finder = |doublings: u32| BoundaryFinder::new(target.max(1).saturating_mul(1 << doublings));
        Self { sizes: (0..=DOUBLINGS).map(finder).collect(), links: Vec::new(), bytes: 0 }
    }

    /// Adds the next entry.
    pub fn add(&mut self, entry: &Entry) {
        let size = match &entry.kind {
            EntryKind::Directory => return,
            EntryKind::File { size } => *size,
            EntryKind::Hardlink { target } => {
                // It goes into the layer of its first name, and has no size there.
                return self.links.push((target.clone(), entry.path.clone()));
            }
            _ => 0,
        };
        let hash = hash(&entry.path);
        self.bytes = self.bytes.saturating_add(size);
        for finder in &mut self.sizes {
            finder.add(&entry.path, hash, size);
        }
        self.drop_small_targets();
    }

    /// Returns the layers in the order in which they are applied. There is one for the whole tree if that is small.
    pub fn finish(mut self) -> Vec<LayerPlan> {
        for finder in &mut self.sizes {
            finder.finish();
        }
        self.drop_small_targets();
        match self.sizes.pop_front() {
            Some(finder) if finder.layer_count() > 1 => finder.layers(self.links),
            _ => vec![LayerPlan { bytes: self.bytes, ..LayerPlan::default() }],
        }
    }

    /// Drops target sizes that give too many layers. The largest stays in any case.
    fn drop_small_targets(&mut self) {
        while self.sizes.len() > 1 && self.sizes[0].layer_count() > MAX_LAYERS {
            self.sizes.pop_front();
        }
    }
}

impl BoundaryFinder {
    fn new(target: u64) -> Self {
        Self {
            target,
            position: 0,
            bytes: 0,
            window: VecDeque::new(),
            boundaries: Vec::new(),
            alone: BTreeMap::new(),
        }
    }

    /// Returns the number of layers, including the one with the directories.
    fn layer_count(&self) -> usize {
        match self.boundaries.len() + self.alone.len() {
            0 => 1,
            cuts => cuts + 2,
        }
    }

    fn add(&mut self, path: &TreePath, hash: u64, size: u64) {
        if size > self.target.saturating_mul(ALONE_FACTOR) {
            self.alone.insert(path.clone(), size);
            return;
        }
        self.settle(self.position);
        while self.window.back().is_some_and(|before| before.hash > hash) {
            self.window.pop_back();
        }
        // The first layer must have at least half the target.
        let is_lowest = self.window.is_empty() && self.position >= self.reach();
        let lowest = is_lowest.then(|| (path.clone(), self.bytes));
        self.bytes = self.bytes.saturating_add(size);
        self.position = self.position.saturating_add(size.saturating_add(2 * HEADER - 1) / HEADER * HEADER);
        self.window.push_back(Candidate { end: self.position, hash, lowest });
    }

    /// Returns the smallest distance of two boundaries.
    fn reach(&self) -> u64 {
        self.target.div_ceil(2)
    }

    /// Makes boundaries of the candidates that no file after `position` can prevent.
    fn settle(&mut self, position: u64) {
        let reach = self.reach();
        while self.window.front().is_some_and(|first| position - first.end >= reach) {
            let settled = self.window.pop_front();
            self.boundaries.extend(settled.and_then(|candidate| candidate.lowest));
        }
    }

    fn finish(&mut self) {
        self.settle(self.position);
        self.window.clear();
    }

    fn layers(self, links: Vec<(TreePath, TreePath)>) -> Vec<LayerPlan> {
        let only_files = |range, bytes| LayerPlan { range, only_files: true, bytes, ..LayerPlan::default() };
        let mut layers = Vec::with_capacity(self.boundaries.len() + 1);
        let (mut from, mut bytes_before) = (Bound::Unbounded, 0);
        for (boundary, bytes) in &self.boundaries {
            let until = Bound::Excluded(boundary.clone());
            let range = PathRange { from, until, ..PathRange::default() };
            layers.push(only_files(range, bytes - bytes_before));
            (from, bytes_before) = (Bound::Included(boundary.clone()), *bytes);
        }
        layers.push(only_files(PathRange { from, ..PathRange::default() }, self.bytes - bytes_before));
        for (path, bytes) in &self.alone {
            layers[self.range_of(path)].range.without.insert(path.clone());
            layers.push(only_files(PathRange::single(path.clone()), *bytes));
        }
        for (first, path) in links {
            let (home, elsewhere) = (self.layer_of(&first), self.range_of(&path));
            if home != elsewhere {
                layers[elsewhere].range.without.insert(path.clone());
                layers[home].links.entry(first).or_default().push(path);
            }
        }
        // If every file is a layer by itself, the first range is empty.
        if self.position == 0 {
            layers.remove(0);
        }
        let range = PathRange { only_directories: true, ..PathRange::default() };
        layers.push(LayerPlan { range, ..LayerPlan::default() });
        layers
    }

    /// Returns the number of the range between two boundaries that has a path.
    fn range_of(&self, path: &TreePath) -> usize {
        self.boundaries.partition_point(|(boundary, _)| boundary <= path)
    }

    /// Returns the number of the layer that has a file.
    fn layer_of(&self, path: &TreePath) -> usize {
        if self.alone.contains_key(path) {
            self.boundaries.len() + 1 + self.alone.range(..path.clone()).count()
        } else {
            self.range_of(path)
        }
    }
}

/// Returns a number that depends on the path only: the first eight bytes of its SHA-256.
fn hash(path: &TreePath) -> u64 {
    let digest = Digest::of(path.as_bytes());
    digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests;
