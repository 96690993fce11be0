//! Where the entries of an image are, where only a part of it is unpacked: an entry whose path leads through a symbolic link is
//! elsewhere, and that place decides about it.

use crate::error::Result;
use crate::layer::{Item, Whiteout};
use crate::tree::{Entry, EntryKind, Metadata, Overlay, TreePath, memory_exceeded};
use std::collections::HashMap;

/// What an item that is elsewhere takes in memory, in bytes, beside its paths.
const ELSEWHERE: u64 = 96;

/// The tree of all layers that were read, and which items of the current layer are elsewhere in it than their paths say.
#[derive(Debug)]
pub(super) struct Links {
    tree: Overlay<()>,
    /// By their numbers in the layer.
    elsewhere: HashMap<u64, Elsewhere>,
    /// The number of the next item.
    number: u64,
    /// The most items that may be elsewhere.
    most: usize,
    memory: u64,
}

#[derive(Debug)]
struct Elsewhere {
    /// `None` for a whiteout of nothing.
    path: Option<TreePath>,
    /// What a hard link leads to.
    target: Option<TreePath>,
}

impl Links {
    /// Nothing was read. What is remembered may take this many bytes of memory.
    pub fn within(memory: u64) -> Self {
        let most = usize::try_from(memory / 4 / ELSEWHERE).unwrap_or(usize::MAX);
        Self { tree: Overlay::within(memory), elsewhere: HashMap::new(), number: 0, most, memory }
    }

    /// What comes from now on belongs to the next layer.
    pub fn begin_layer(&mut self) {
        self.tree.begin_layer();
        self.elsewhere.clear();
        self.number = 0;
    }

    /// Takes note of the next item of a layer that is read for the first time, and [resolves](Self::resolve) it.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the item makes no sense in the tree.
    pub fn note(&mut self, item: Item) -> Result<Option<Item>> {
        let (said, elsewhere) = match &item {
            Item::Entry(entry) => (&entry.path, self.note_entry(entry)?),
            Item::Whiteout(Whiteout::Entry(path)) => {
                let place = self.tree.locate(path).ok();
                self.tree.whiteout(path);
                (path, Elsewhere { path: place, target: None })
            }
            Item::Whiteout(Whiteout::Opaque(path)) => {
                let place = self.tree.resolve(path).ok();
                self.tree.opaque(path);
                (path, Elsewhere { path: place, target: None })
            }
        };
        if elsewhere.target.is_some() || elsewhere.path.as_ref() != Some(said) {
            self.elsewhere.insert(self.number, elsewhere);
            if self.elsewhere.len() > self.most {
                return Err(memory_exceeded(self.memory));
            }
        }
        Ok(self.resolve(item))
    }

    fn note_entry(&mut self, entry: &Entry) -> Result<Elsewhere> {
        let Entry { path, kind, .. } = entry;
        let place = self.tree.locate(path).ok();
        let target = match kind {
            EntryKind::Hardlink { target } => self.tree.locate(target).ok().filter(|place| place != target),
            _ => None,
        };
        // It fails where one of them leads nowhere.
        let bare = Entry { path: path.clone(), kind: kind.clone(), metadata: Metadata::default() };
        self.tree.put(&bare, ())?;
        Ok(Elsewhere { path: place, target })
    }

    /// Goes back to the beginning of the layer, which is read once more.
    pub fn rewind(&mut self) {
        self.number = 0;
    }

    /// The next item with its paths as they are in the tree; `None` for a whiteout of nothing.
    pub fn resolve(&mut self, item: Item) -> Option<Item> {
        let elsewhere = self.elsewhere.get(&self.number);
        self.number += 1;
        let Some(Elsewhere { path, target }) = elsewhere else { return Some(item) };
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
