//! What is in an image, without unpacking it.

use crate::error::{Error, Result};
use crate::image;
use crate::layer::{LayerReader, Overlay, decompress};
use crate::oci::{Descriptor, Platform};
use crate::progress::Progress;
use crate::transport::{self, Source};
use crate::tree::{Entry, TreePath};
use std::collections::BTreeMap;

/// The entries of the image for a platform, as they are when all its layers are applied.
///
/// The layers are streamed through and nothing of their content is kept.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when a layer is not what it says.
pub fn list(
    source: &dyn Source,
    platform: Option<&Platform>,
    progress: &dyn Progress,
) -> Result<BTreeMap<TreePath, Entry>> {
    let root = source.resolve()?;
    let image = image::select(&root, platform, |descriptor| transport::fetch(source, descriptor))?;
    let mut overlay = Overlay::default();
    for layer in &image.manifest.layers {
        apply(source, layer, &mut overlay, progress)?;
    }
    Ok(overlay.into_entries().map(|(entry, ())| (entry.path.clone(), entry)).collect())
}

/// Lays one layer over those below it.
fn apply(
    source: &dyn Source,
    layer: &Descriptor,
    overlay: &mut Overlay<()>,
    progress: &dyn Progress,
) -> Result<()> {
    let task = progress.begin(&format!("reading {}", layer.digest.short()), Some(layer.size));
    let mut body = source.open(layer)?.verify(layer).observed(move |bytes| task.advance(bytes));
    let laid = lay(&mut body, overlay);
    // A blob with the wrong digest is that before it is a malformed archive.
    body.drain()?;
    laid
}

fn lay(layer: &mut crate::stream::Body, overlay: &mut Overlay<()>) -> Result<()> {
    let plain = decompress(layer).map_err(|error| Error::io("cannot read the layer", error))?;
    let mut layer = LayerReader::new(plain);
    overlay.lay(&mut layer, |_, _| Ok(()))?;
    layer.drain()
}
