//! Which layer holds what of a tree.
//!
//! Layers are cut between files, at files whose names decide it and not the place where they stand: a file begins a
//! layer when the hash of its path is the lowest within half the target size, before it and behind it. So what is
//! added or removed moves the boundaries near it and no others, no layer is smaller than half the target, and a small
//! tree is never cut.

use crate::oci::Digest;
use crate::tree::{Entry, EntryKind, PathRange, TreePath};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

/// A file of more than so many times the target is a layer by itself.
const ALONE: u64 = 2;
/// The most layers of an image. Docker takes 125, and those of later changes come on top.
const MOST: usize = 64;
/// How often the target may double: 512 MiB become 2 EiB.
const DOUBLINGS: u32 = 32;
/// What an entry takes in the archive beside its content.
const HEADER: u64 = 512;

/// What goes into one layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The part of the tree.
    pub range: PathRange,
    /// Names that files of it have elsewhere in the tree, by their first names: a hard link must not lead out of its
    /// layer.
    pub links: BTreeMap<TreePath, Vec<TreePath>>,
    /// Whether it has files only: their directories are then plain, and have their attributes in the last layer.
    pub only_files: bool,
}

/// Cuts a tree whose entries it is told in order.
pub struct Planner {
    /// All target sizes at once, for the tree is walked once; the smallest first.
    levels: VecDeque<Level>,
    /// Further names of files, each behind the first one.
    links: Vec<(TreePath, TreePath)>,
}

/// The boundaries for one target size.
struct Level {
    target: u64,
    /// How many bytes of archive there were, without the files that are alone.
    position: u64,
    /// Files that may become boundaries or keep others from it, each with a higher hash than the one before it.
    window: VecDeque<Candidate>,
    boundaries: Vec<TreePath>,
    alone: BTreeSet<TreePath>,
}

struct Candidate {
    /// Where the file ends. How far two files are apart is what lies between them, without either: with its own size
    /// a new file could move away from what decides about it, and change a third layer.
    end: u64,
    hash: u64,
    /// The path of one that is the lowest so far.
    lowest: Option<TreePath>,
}

impl Planner {
    /// A planner for layers of about so many bytes of archive.
    pub fn new(target: u64) -> Self {
        let level = |doublings: u32| Level::new(target.max(1).saturating_mul(1 << doublings));
        Self { levels: (0..=DOUBLINGS).map(level).collect(), links: Vec::new() }
    }

    /// Takes note of the next entry.
    pub fn add(&mut self, entry: &Entry) {
        let size = match &entry.kind {
            EntryKind::Directory => return,
            EntryKind::File { size } => *size,
            EntryKind::Hardlink { target } => {
                // It will be where its first name is, and weighs nothing there.
                return self.links.push((target.clone(), entry.path.clone()));
            }
            _ => 0,
        };
        let hash = hash(&entry.path);
        for level in &mut self.levels {
            level.add(&entry.path, hash, size);
        }
        // The last one stays, whatever it has: some must be.
        while self.levels.len() > 1 && self.levels[0].layers() > MOST {
            self.levels.pop_front();
        }
    }

    /// The layers, in the order in which they are applied; one for the whole tree if it need not be cut.
    pub fn finish(mut self) -> Vec<Part> {
        for level in &mut self.levels {
            level.finish();
        }
        while self.levels.len() > 1 && self.levels[0].layers() > MOST {
            self.levels.pop_front();
        }
        match self.levels.pop_front() {
            Some(level) if level.layers() > 1 => level.parts(self.links),
            _ => vec![Part::default()],
        }
    }
}

impl Level {
    fn new(target: u64) -> Self {
        Self { target, position: 0, window: VecDeque::new(), boundaries: Vec::new(), alone: BTreeSet::new() }
    }

    /// How many layers there would be, with the one of the directories.
    fn layers(&self) -> usize {
        match self.boundaries.len() + self.alone.len() {
            0 => 1,
            cuts => cuts + 2,
        }
    }

    fn add(&mut self, path: &TreePath, hash: u64, size: u64) {
        if size > self.target.saturating_mul(ALONE) {
            self.alone.insert(path.clone());
            return;
        }
        self.settle(self.position);
        while self.window.back().is_some_and(|before| before.hash > hash) {
            self.window.pop_back();
        }
        // At the beginning there is nothing to cut off.
        let is_lowest = self.window.is_empty() && self.position >= self.reach();
        let lowest = is_lowest.then(|| path.clone());
        self.position = self.position.saturating_add(size.saturating_add(2 * HEADER - 1) / HEADER * HEADER);
        self.window.push_back(Candidate { end: self.position, hash, lowest });
    }

    /// How far around a boundary there is no other one.
    fn reach(&self) -> u64 {
        self.target.div_ceil(2)
    }

    /// Makes boundaries of those that nothing behind `position` can prevent any more.
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

    fn parts(self, links: Vec<(TreePath, TreePath)>) -> Vec<Part> {
        let only_files = |range| Part { range, only_files: true, ..Part::default() };
        let mut parts = Vec::with_capacity(self.boundaries.len() + 1);
        let mut from = Bound::Unbounded;
        for boundary in &self.boundaries {
            let until = Bound::Excluded(boundary.clone());
            parts.push(only_files(PathRange { from, until, ..PathRange::default() }));
            from = Bound::Included(boundary.clone());
        }
        parts.push(only_files(PathRange { from, ..PathRange::default() }));
        for path in &self.alone {
            let stretch = self.stretch(path);
            parts[stretch].range.without.insert(path.clone());
            parts.push(only_files(PathRange::single(path.clone())));
        }
        for (first, path) in links {
            let (home, elsewhere) = (self.part(&first), self.stretch(&path));
            if home != elsewhere {
                parts[elsewhere].range.without.insert(path.clone());
                parts[home].links.entry(first).or_default().push(path);
            }
        }
        // Where all files are alone, nothing is left between them.
        if self.position == 0 {
            parts.remove(0);
        }
        parts.push(Part {
            range: PathRange { only_directories: true, ..PathRange::default() },
            ..Part::default()
        });
        parts
    }

    /// The number of the stretch between two boundaries that a path is in.
    fn stretch(&self, path: &TreePath) -> usize {
        self.boundaries.partition_point(|boundary| boundary <= path)
    }

    /// The number of the part that holds a file.
    fn part(&self, path: &TreePath) -> usize {
        match self.alone.contains(path) {
            true => self.boundaries.len() + 1 + self.alone.range(..path.clone()).count(),
            false => self.stretch(path),
        }
    }
}

/// A number that only the path decides.
fn hash(path: &TreePath) -> u64 {
    let digest = Digest::of(path.as_bytes());
    u64::from_str_radix(&digest.hex()[..16], 16).unwrap_or_default()
}

#[cfg(test)]
mod tests;
