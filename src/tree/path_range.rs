//! Ranges of a tree, so that several walks together yield each entry once.

use super::{PathSet, TreePath};
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

/// A range in the order of paths, without some of the paths in it.
///
/// A walk over a range also yields the directories that lead to it, although they come before it in the order: a layer
/// that holds a file must hold its directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRange {
    /// The beginning.
    pub from: Bound<TreePath>,
    /// The end.
    pub until: Bound<TreePath>,
    /// Paths in the range that do not belong to it.
    pub without: BTreeSet<TreePath>,
    /// The only paths that belong to it; `None` if all do.
    pub paths: Option<Arc<PathSet>>,
    /// Restricts the range to directories.
    pub only_directories: bool,
}

impl Default for PathRange {
    /// The whole tree.
    fn default() -> Self {
        Self {
            from: Bound::Unbounded,
            until: Bound::Unbounded,
            without: BTreeSet::new(),
            paths: None,
            only_directories: false,
        }
    }
}

/// The position of a path relative to a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// Before the range, or left out of it.
    Outside,
    /// In the range, or on the way to it.
    Inside,
    /// After the range; so are all paths that follow.
    After,
}

impl PathRange {
    /// One entry, with the directories that lead to it.
    pub fn single(path: TreePath) -> Self {
        Self { from: Bound::Included(path.clone()), until: Bound::Included(path), ..Self::default() }
    }

    /// Returns whether a file at this path belongs to the range.
    pub fn contains(&self, path: &TreePath) -> bool {
        !self.only_directories && self.position(path) == Position::Inside
    }

    /// Returns whether the directories of this range are yielded by another walk too, the one over directories only.
    pub(super) fn shares_directories(&self) -> bool {
        let is_part =
            self.from != Bound::Unbounded || self.until != Bound::Unbounded || !self.without.is_empty();
        is_part && !self.only_directories
    }

    pub(super) fn position(&self, path: &TreePath) -> Position {
        let is_after = match &self.until {
            Bound::Unbounded => false,
            Bound::Included(last) => path > last,
            Bound::Excluded(end) => path >= end,
        };
        let is_before = match &self.from {
            Bound::Unbounded => false,
            Bound::Included(first) | Bound::Excluded(first) if first.is_in(path) && first != path => false,
            Bound::Included(first) => path < first,
            Bound::Excluded(last) => path <= last,
        };
        let paths = self.paths.as_deref();
        if is_after || paths.is_some_and(|paths| paths.is_before(path)) {
            Position::After
        } else if is_before
            || self.without.contains(path)
            || paths.is_some_and(|paths| !paths.contains_or_leads_to(path))
        {
            Position::Outside
        } else {
            Position::Inside
        }
    }
}
