//! The true paths of an image's entries, for unpacking a part of it: an entry whose path leads through a symbolic link
//! is at the link's target, and that path decides about its selection.

use crate::error::Result;
use crate::layer::{Item, Whiteout};
use crate::tree::{Entry, EntryKind, Metadata, Overlay, TreePath, memory_exceeded};
use std::collections::HashMap;

/// The memory for a resolved item without its paths, in bytes.
const ENTRY_MEMORY: u64 = 96;

/// The tree of all layers that were read, and the items of the current layer with other true paths than their own.
#[derive(Debug)]
pub(super) struct Links {
    tree: Overlay<()>,
    /// By the item's number in the layer.
    resolved: HashMap<u64, Resolved>,
    /// The number of the next item.
    number: u64,
    /// The maximum number of resolved items.
    max_resolved: usize,
    memory: u64,
}

#[derive(Debug)]
struct Resolved {
    /// `None` for a whiteout of nothing.
    path: Option<TreePath>,
    /// The target of a hard link.
    target: Option<TreePath>,
}

impl Links {
    /// Creates an empty tree that may hold so many bytes of memory.
    pub fn within(memory: u64) -> Self {
        let max_resolved = usize::try_from(memory / 4 / ENTRY_MEMORY).unwrap_or(usize::MAX);
        Self { tree: Overlay::within(memory), resolved: HashMap::new(), number: 0, max_resolved, memory }
    }

    /// Begins the next layer.
    pub fn begin_layer(&mut self) {
        self.tree.begin_layer();
        self.resolved.clear();
        self.number = 0;
    }

    /// Adds the next item of a layer that is read for the first time, and [resolves](Self::resolve) it.
    ///
    /// # Errors
    ///
    /// [`Integrity`](crate::error::Kind::Integrity) if the item is impossible in the tree.
    pub fn note(&mut self, item: Item) -> Result<Option<Item>> {
        let (said, resolved) = match &item {
            Item::Entry(entry) => (&entry.path, self.note_entry(entry)?),
            Item::Whiteout(Whiteout::Entry(path)) => {
                let place = self.tree.locate(path).ok();
                self.tree.whiteout(path);
                (path, Resolved { path: place, target: None })
            }
            Item::Whiteout(Whiteout::Opaque(path)) => {
                let place = self.tree.resolve(path).ok();
                self.tree.opaque(path);
                (path, Resolved { path: place, target: None })
            }
        };
        if resolved.target.is_some() || resolved.path.as_ref() != Some(said) {
            self.resolved.insert(self.number, resolved);
            if self.resolved.len() > self.max_resolved {
                return Err(memory_exceeded(self.memory));
            }
        }
        Ok(self.resolve(item))
    }

    fn note_entry(&mut self, entry: &Entry) -> Result<Resolved> {
        let Entry { path, kind, .. } = entry;
        let place = self.tree.locate(path).ok();
        let target = match kind {
            EntryKind::Hardlink { target } => self.tree.locate(target).ok().filter(|place| place != target),
            _ => None,
        };
        // Fails if a path leads nowhere.
        let bare = Entry { path: path.clone(), kind: kind.clone(), metadata: Metadata::default() };
        self.tree.put(&bare, ())?;
        Ok(Resolved { path: place, target })
    }

    /// Goes back to the beginning of the layer, which is read again.
    pub fn rewind(&mut self) {
        self.number = 0;
    }

    /// Returns the next item with its paths in the tree; `None` for a whiteout of nothing.
    pub fn resolve(&mut self, item: Item) -> Option<Item> {
        let resolved = self.resolved.get(&self.number);
        self.number += 1;
        let Some(Resolved { path, target }) = resolved else { return Some(item) };
        let path = path.clone()?;
        Some(match item {
            Item::Entry(Entry { kind, metadata, .. }) => {
                let kind = target.clone().map_or(kind, |target| EntryKind::Hardlink { target });
                Item::Entry(Entry { path, kind, metadata })
            }
            Item::Whiteout(Whiteout::Entry(_)) => Item::Whiteout(Whiteout::Entry(path)),
            Item::Whiteout(Whiteout::Opaque(_)) => Item::Whiteout(Whiteout::Opaque(path)),
        })
    }
}
