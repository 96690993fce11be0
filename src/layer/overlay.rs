//! Lays layers over one another, without extracting them.

use super::{Item, LayerReader, TocEntry, TocReader, Whiteout};
use crate::error::Result;
use crate::tree::{Content, Entry, Overlay};
use std::io::Read;

/// Lays a layer over those that were laid before. `look` is shown every entry with its content.
///
/// # Errors
/// Those of the layer and of `look`.
pub fn lay_over<T: Clone + Default, R: Read>(
    overlay: &mut Overlay<T>,
    layer: &mut LayerReader<R>,
    mut look: impl FnMut(&Entry, &mut dyn Content) -> Result<T>,
) -> Result<()> {
    overlay.begin_layer();
    while let Some(item) = layer.next_item()? {
        lay(overlay, &item, |entry| look(entry, &mut layer.content()))?;
    }
    Ok(())
}

/// The same from the table of contents of a layer. `look` is shown everything that is listed.
///
/// # Errors
/// Those of the table of contents.
pub fn lay_listing_over<T: Clone + Default, R: Read>(
    overlay: &mut Overlay<T>,
    entries: &mut TocReader<R>,
    mut look: impl FnMut(&TocEntry) -> T,
) -> Result<()> {
    overlay.begin_layer();
    while let Some(listed) = entries.next_entry()? {
        let learned = look(&listed);
        lay(overlay, &listed.item, |_| Ok(learned))?;
    }
    Ok(())
}

fn lay<T: Clone + Default>(
    overlay: &mut Overlay<T>,
    item: &Item,
    look: impl FnOnce(&Entry) -> Result<T>,
) -> Result<()> {
    match item {
        Item::Entry(entry) => {
            let learned = look(entry)?;
            overlay.put(entry, learned)?;
        }
        Item::Whiteout(Whiteout::Entry(path)) => overlay.whiteout(path),
        Item::Whiteout(Whiteout::Opaque(path)) => overlay.opaque(path),
    }
    Ok(())
}
