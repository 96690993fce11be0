//! The walk over a [`StoredTree`].

use super::filter::Filter;
use super::skip_list::SkipList;
use super::stat::EntryBuilder;
use super::summary::Summary;
use super::{WalkOptions, WalkedEntry};
use crate::error::{Error, Result};
use crate::tree::path_range::{PathRange, Position};
use crate::tree::{EntryKind, FileContent, StoredTree, TreePath};
use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

/// The walk over a stored tree.
pub(super) struct StoredWalk {
    tree: Arc<StoredTree>,
    at: TreePath,
    /// The path that was yielded last.
    last: Option<TreePath>,
    filter: Filter,
    range: PathRange,
    builder: EntryBuilder,
    /// The first names of nodes that have several.
    links: HashMap<usize, TreePath>,
}

impl StoredWalk {
    /// A walk over a stored tree. It yields entries below `at`.
    pub fn new(tree: Arc<StoredTree>, at: TreePath, options: &WalkOptions) -> Result<Self> {
        Ok(Self {
            tree,
            at,
            last: None,
            filter: Filter::of_options(options)?,
            range: PathRange::default(),
            builder: EntryBuilder::new(options, &SkipList::default()),
            links: HashMap::new(),
        })
    }

    pub fn restrict_to(&mut self, range: PathRange) {
        self.builder.summary.names_all = range.paths.is_some();
        self.range = range;
    }

    /// Returns what was left out so far.
    pub fn summary(&self) -> Summary {
        self.builder.summary.clone()
    }

    /// Returns the next entry; `None` at the end.
    pub fn advance(&mut self) -> Result<Option<WalkedEntry>> {
        let tree = self.tree.clone();
        let mut excluded: Option<TreePath> = None;
        let last = self.last.clone();
        let start = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        for (path, &node) in tree.names.range::<TreePath, _>((start, Bound::Unbounded)) {
            if excluded.as_ref().is_some_and(|above| path.is_in(above)) {
                continue;
            }
            let is_directory = tree.nodes[node].kind == EntryKind::Directory;
            match self.range.position(&self.at.append(path)) {
                Position::After => break,
                Position::Outside => continue,
                Position::Inside => {}
            }
            if !path.is_root() && self.filter.excludes(path, is_directory) {
                self.builder.summary.excluded += 1;
                excluded = Some(path.clone());
                continue;
            }
            if self.range.only_directories && !is_directory {
                continue;
            }
            self.last = Some(path.clone());
            return self.entry(path, node).map(Some);
        }
        self.last = tree.names.last_key_value().map(|(path, _)| path.clone());
        Ok(None)
    }

    fn entry(&mut self, path: &TreePath, number: usize) -> Result<WalkedEntry> {
        let tree = self.tree.clone();
        let node = &tree.nodes[number];
        let full_path = self.at.append(path);
        let kind = match self.links.get(&number) {
            Some(target) => EntryKind::Hardlink { target: target.clone() },
            None => node.kind.clone(),
        };
        if node.names > 1 && node.kind != EntryKind::Directory {
            self.links.entry(number).or_insert_with(|| full_path.clone());
        }
        let file = match kind {
            EntryKind::File { size } => Some(FileContent::stored(tree.contents.clone(), node.offset, size)),
            _ => None,
        };
        let entry = self.builder.stored_entry(full_path, kind, &node.kind, node.metadata.clone());
        let entry = entry.map_err(|unmapped| {
            Error::usage(format!("cannot pack {path}: {unmapped}"))
                .with_hint("add a range to --uid-map or --gid-map, or give everything one owner with --chown")
        })?;
        if entry.kind == EntryKind::Directory && self.range.shares_directories() {
            self.builder.count_shared(&entry);
        } else {
            self.builder.count(&entry);
        }
        Ok(WalkedEntry { entry, file })
    }
}
