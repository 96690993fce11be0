//! Lays layers over one another, without extracting them.

use super::{Item, LayerReader, Whiteout};
use crate::error::Result;
use crate::tree::{Entry, Overlay};
use std::io::Read;

/// Lays a layer over those that were laid before. `look` is shown every entry with its content.
///
/// # Errors
/// Those of the layer and of `look`.
pub fn lay_over<T: Clone + Default, R: Read>(
    overlay: &mut Overlay<T>,
    layer: &mut LayerReader<R>,
    mut look: impl FnMut(&Entry, &mut dyn Read) -> Result<T>,
) -> Result<()> {
    overlay.begin_layer();
    while let Some(item) = layer.next_item()? {
        match item {
            Item::Entry(entry) => {
                let learned = look(&entry, &mut layer.content())?;
                overlay.put(&entry, learned)?;
            }
            Item::Whiteout(Whiteout::Entry(path)) => overlay.whiteout(&path),
            Item::Whiteout(Whiteout::Opaque(path)) => overlay.opaque(&path),
        }
    }
    Ok(())
}
