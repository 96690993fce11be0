//! What the layers of an image are together, without extracting them.

use super::{Item, LayerReader, Whiteout};
use crate::error::Result;
use crate::tree::{Entry, Kind, TreePath};
use std::collections::BTreeMap;
use std::io::Read;

/// The entries of layers that lie over one another, each with what was learned about it when it passed.
pub struct Overlay<T>(BTreeMap<TreePath, (Entry, T)>);

impl<T> Default for Overlay<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Overlay<T> {
    /// Lays a layer over those that were laid before. `look` is shown every entry with its content.
    ///
    /// # Errors
    /// Those of the layer and of `look`.
    pub fn lay<R: Read>(
        &mut self,
        layer: &mut LayerReader<R>,
        mut look: impl FnMut(&Entry, &mut dyn Read) -> Result<T>,
    ) -> Result<()> {
        let mut upper = Vec::new();
        while let Some(item) = layer.next_item()? {
            match item {
                Item::Entry(entry) => {
                    let learned = look(&entry, &mut layer.content())?;
                    upper.push((entry, learned));
                }
                // A whiteout hides what lower layers have, wherever in its own layer it stands.
                Item::Whiteout(Whiteout::Entry(path)) => self.remove_below(&path, true),
                Item::Whiteout(Whiteout::Opaque(path)) => self.remove_below(&path, false),
            }
        }
        for (entry, learned) in upper {
            if entry.kind != Kind::Directory {
                self.remove_below(&entry.path, true);
            }
            self.0.insert(entry.path.clone(), (entry, learned));
        }
        Ok(())
    }

    /// What is there when all layers are laid.
    pub fn into_entries(self) -> impl Iterator<Item = (Entry, T)> {
        self.0.into_values()
    }

    /// Removes all that is below a path, and the path itself where that is wanted.
    fn remove_below(&mut self, path: &TreePath, itself: bool) {
        // What is below a directory follows it directly in the order of paths.
        let gone: Vec<TreePath> = self
            .0
            .range(path.clone()..)
            .map(|(found, _)| found)
            .take_while(|found| found.is_in(path))
            .filter(|found| itself || *found != path)
            .cloned()
            .collect();
        for path in gone {
            self.0.remove(&path);
        }
    }
}
