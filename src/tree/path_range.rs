//! A part of a tree, so that several walks together see each entry once.

use super::TreePath;
use std::collections::BTreeSet;
use std::ops::Bound;

/// Which entries of a tree a walk tells: those of a stretch in the order of paths, without some.
///
/// Directories that lead to the stretch are told too, wherever they stand: whoever holds a file must hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRange {
    /// Where the stretch begins.
    pub from: Bound<TreePath>,
    /// Where it ends.
    pub until: Bound<TreePath>,
    /// What is in the stretch and not told.
    pub without: BTreeSet<TreePath>,
    /// Whether only directories are told.
    pub only_directories: bool,
}

impl Default for PathRange {
    /// The whole tree.
    fn default() -> Self {
        Self {
            from: Bound::Unbounded,
            until: Bound::Unbounded,
            without: BTreeSet::new(),
            only_directories: false,
        }
    }
}

/// What an range says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is before the stretch, or left out.
    Outside,
    /// It leads to the stretch, or is in it.
    Inside,
    /// It is behind the stretch, and so is all that follows.
    Behind,
}

impl PathRange {
    /// One entry with the directories that lead to it.
    pub fn single(path: TreePath) -> Self {
        Self { from: Bound::Included(path.clone()), until: Bound::Included(path), ..Self::default() }
    }

    /// Whether a file at this path is told.
    pub fn contains(&self, path: &TreePath) -> bool {
        !self.only_directories && self.place(path) == Place::Inside
    }

    /// Whether the directories that it tells are told by another walk too, which is over directories only.
    pub(super) fn shares_directories(&self) -> bool {
        !self.only_directories && *self != Self::default()
    }

    pub(super) fn place(&self, path: &TreePath) -> Place {
        let behind = match &self.until {
            Bound::Unbounded => false,
            Bound::Included(last) => path > last,
            Bound::Excluded(end) => path >= end,
        };
        let before = match &self.from {
            Bound::Unbounded => false,
            Bound::Included(first) | Bound::Excluded(first) if first.is_in(path) && first != path => false,
            Bound::Included(first) => path < first,
            Bound::Excluded(last) => path <= last,
        };
        match (before, behind) {
            (_, true) => Place::Behind,
            (true, _) => Place::Outside,
            _ if self.without.contains(path) => Place::Outside,
            _ => Place::Inside,
        }
    }
}
