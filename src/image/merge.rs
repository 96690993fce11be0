//! The merged tree of an image: all layers applied, from their tables of contents where they have them.

use super::open::Image;
use super::spool::SpooledLayer;
use crate::error::Result;
use crate::layer::{Budget, Chunk, Item, TocEntry, VerifiedToc, Whiteout};
use crate::tree::{Content, Entry, MergedTree, Overlay, SpoolDirectory};
use std::collections::BTreeMap;

/// The position of an entry in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryPosition {
    /// The number of the layer, the lowest first.
    pub layer: usize,
    /// The number of the entry in the layer, without whiteouts.
    pub number: u64,
}

/// Collects a note for each entry of an image while the tree is merged.
pub trait EntryVisitor {
    /// The note. Its default is for directories that no entry describes.
    type Note: Clone + Default;

    /// Makes the note for an entry of a table of contents. `chunks` returns the chunks of its content, one by one.
    ///
    /// # Errors
    /// Those of `chunks`.
    fn indexed(
        &mut self,
        at: EntryPosition,
        entry: &TocEntry,
        chunks: &mut dyn FnMut() -> Result<Option<Chunk>>,
    ) -> Result<Self::Note>;

    /// Makes the note for an entry of an archive. The content is not verified before the whole layer was read.
    ///
    /// # Errors
    /// Those of reading.
    fn streamed(&mut self, at: EntryPosition, entry: &Entry, content: &mut dyn Content)
    -> Result<Self::Note>;
}

/// A visitor that makes no notes.
struct WithoutNotes;

impl EntryVisitor for WithoutNotes {
    type Note = ();

    fn indexed(
        &mut self,
        _: EntryPosition,
        _: &TocEntry,
        _: &mut dyn FnMut() -> Result<Option<Chunk>>,
    ) -> Result<()> {
        Ok(())
    }

    fn streamed(&mut self, _: EntryPosition, _: &Entry, _: &mut dyn Content) -> Result<()> {
        Ok(())
    }
}

impl Image<'_> {
    /// Returns the tree of the image: all its layers applied.
    ///
    /// Of layers with a table of contents nothing else is fetched, if the source serves ranges. All others are streamed and
    /// verified as a whole.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if a layer is not what the image says, could not be unpacked, or
    /// exceeds the limits; those of the source.
    pub fn tree(&self) -> Result<MergedTree> {
        self.tree_with(&mut WithoutNotes)
    }

    /// Returns the tree of the image with a note for each entry.
    ///
    /// # Errors
    /// Those of [`tree`](Self::tree) and of `visitor`.
    pub fn tree_with<V: EntryVisitor>(&self, visitor: &mut V) -> Result<MergedTree<V::Note>> {
        let limits = &self.context().limits();
        let mut overlay = Overlay::within(limits.max_names);
        let mut budget = Budget::new(*limits);
        self.each_toc(|number, layer, toc| {
            overlay.begin_layer();
            match toc {
                Some(toc) => merge_indexed(&mut overlay, number, toc, &mut budget, visitor),
                None => {
                    let read = |visit: &mut dyn FnMut(Item, &mut dyn Content) -> Result<()>| {
                        layer.read_items(&mut budget, visit)
                    };
                    merge_streamed(&mut overlay, number, read, visitor)
                }
            }
        })?;
        Ok(overlay.finish())
    }
}

/// The layers of an image that were stored because they have no table of contents, by their numbers.
pub type SpooledLayers = BTreeMap<usize, SpooledLayer>;

impl Image<'_> {
    /// Returns the tree of the image with a note for each entry, as [`tree_with`](Self::tree_with). Layers that have to be
    /// streamed are stored in unnamed files at `place`, so that they are fetched once and can be read again.
    ///
    /// # Errors
    /// Those of [`tree_with`](Self::tree_with) and [`ImageLayer::spool`](super::ImageLayer::spool).
    pub fn tree_and_spools<V: EntryVisitor>(
        &self,
        visitor: &mut V,
        mut place: impl FnMut() -> Result<SpoolDirectory>,
    ) -> Result<(MergedTree<V::Note>, SpooledLayers)> {
        let limits = &self.context().limits();
        let mut overlay = Overlay::within(limits.max_names);
        let mut budget = Budget::new(*limits);
        let mut spools = SpooledLayers::new();
        self.each_toc(|number, layer, toc| {
            overlay.begin_layer();
            let Some(toc) = toc else {
                let spool = layer.spool(&place()?)?;
                let read = |visit: &mut dyn FnMut(Item, &mut dyn Content) -> Result<()>| {
                    spool.read_items(&mut budget, |_| {}, visit)
                };
                merge_streamed(&mut overlay, number, read, visitor)?;
                spools.insert(number, spool);
                return Ok(());
            };
            merge_indexed(&mut overlay, number, toc, &mut budget, visitor)
        })?;
        Ok((overlay.finish(), spools))
    }
}

pub(super) fn merge_indexed<V: EntryVisitor>(
    overlay: &mut Overlay<V::Note>,
    layer: usize,
    toc: &VerifiedToc,
    budget: &mut Budget,
    visitor: &mut V,
) -> Result<()> {
    let mut entries = toc.entries(budget)?;
    let mut at = EntryPosition { layer, number: 0 };
    while let Some(entry) = entries.next_entry()? {
        match &entry.item {
            Item::Entry(found) => {
                let note = visitor.indexed(at, &entry, &mut || entries.next_chunk())?;
                overlay.put(found, note)?;
                at.number += 1;
            }
            Item::Whiteout(whiteout) => apply(overlay, whiteout),
        }
    }
    Ok(())
}

fn merge_streamed<V: EntryVisitor>(
    overlay: &mut Overlay<V::Note>,
    number: usize,
    read_items: impl FnOnce(&mut dyn FnMut(Item, &mut dyn Content) -> Result<()>) -> Result<()>,
    visitor: &mut V,
) -> Result<()> {
    let mut at = EntryPosition { layer: number, number: 0 };
    read_items(&mut |item, content| {
        match &item {
            Item::Entry(entry) => {
                let note = visitor.streamed(at, entry, content)?;
                overlay.put(entry, note)?;
                at.number += 1;
            }
            Item::Whiteout(whiteout) => apply(overlay, whiteout),
        }
        Ok(())
    })
}

fn apply<T: Clone + Default>(overlay: &mut Overlay<T>, whiteout: &Whiteout) {
    match whiteout {
        Whiteout::Entry(path) => overlay.whiteout(path),
        Whiteout::Opaque(path) => overlay.opaque(path),
    }
}
