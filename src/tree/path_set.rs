//! Sets of paths of one tree.

use super::TreePath;
use std::collections::BTreeSet;
use std::ops::Bound;

/// A set of paths, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathSet(BTreeSet<TreePath>);

impl PathSet {
    /// Adds a path; returns whether it is new.
    pub fn insert(&mut self, path: TreePath) -> bool {
        self.0.insert(path)
    }

    /// Removes a path; returns whether it was there.
    pub fn remove(&mut self, path: &TreePath) -> bool {
        self.0.remove(path)
    }

    /// Returns whether the path is in the set.
    pub fn contains(&self, path: &TreePath) -> bool {
        self.0.contains(path)
    }

    /// Returns whether the path, or one below it, is in the set.
    pub fn contains_or_leads_to(&self, path: &TreePath) -> bool {
        // The contents of a directory follow it directly.
        let mut from = self.0.range::<TreePath, _>((Bound::Included(path), Bound::Unbounded));
        from.next().is_some_and(|first| first.is_in(path))
    }

    /// Returns whether the path comes after all paths of the set.
    pub(super) fn is_before(&self, path: &TreePath) -> bool {
        self.0.last().is_none_or(|last| last < path)
    }

    /// Returns the paths, in order.
    pub fn iter(&self) -> impl Iterator<Item = &TreePath> {
        self.0.iter()
    }

    /// The number of paths.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no paths.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<TreePath> for PathSet {
    fn from_iter<I: IntoIterator<Item = TreePath>>(paths: I) -> Self {
        Self(paths.into_iter().collect())
    }
}
