//! Merges layers without extracting them.

use super::{Budget, Item, LayerReader, TocEntry, TocReader, Whiteout};
use crate::error::Result;
use crate::tree::{Content, Entry, Overlay};
use std::borrow::BorrowMut;
use std::io::Read;

/// Applies a layer to the layers below. `visit` is called with every entry and its content.
///
/// # Errors
/// Those of the layer and of `visit`.
pub fn apply_layer<T: Clone + Default, R: Read, B: BorrowMut<Budget>>(
    overlay: &mut Overlay<T>,
    layer: &mut LayerReader<R, B>,
    mut visit: impl FnMut(&Entry, &mut dyn Content) -> Result<T>,
) -> Result<()> {
    overlay.begin_layer();
    while let Some(item) = layer.next_item()? {
        apply_item(overlay, &item, |entry| visit(entry, &mut layer.content()))?;
    }
    Ok(())
}

/// Applies a layer to the layers below, by its table of contents. `visit` is called with every entry of that.
///
/// # Errors
/// Those of the table of contents.
pub fn apply_toc<T: Clone + Default, R: Read, B: BorrowMut<Budget>>(
    overlay: &mut Overlay<T>,
    entries: &mut TocReader<R, B>,
    mut visit: impl FnMut(&TocEntry) -> T,
) -> Result<()> {
    overlay.begin_layer();
    while let Some(entry) = entries.next_entry()? {
        let value = visit(&entry);
        apply_item(overlay, &entry.item, |_| Ok(value))?;
    }
    Ok(())
}

fn apply_item<T: Clone + Default>(
    overlay: &mut Overlay<T>,
    item: &Item,
    visit: impl FnOnce(&Entry) -> Result<T>,
) -> Result<()> {
    match item {
        Item::Entry(entry) => {
            let value = visit(entry)?;
            overlay.put(entry, value)?;
        }
        Item::Whiteout(Whiteout::Entry(path)) => overlay.whiteout(path),
        Item::Whiteout(Whiteout::Opaque(path)) => overlay.opaque(path),
    }
    Ok(())
}
