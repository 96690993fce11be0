//! What is in an image, without unpacking it.

use crate::error::{Error, Result};
use crate::image;
use crate::layer::{Budget, LayerReader, Limits, decompress, lay_over};
use crate::oci::{Descriptor, Digest, Platform};
use crate::progress::Progress;
use crate::stream::HashingReader;
use crate::transport::{self, Source};
use crate::tree::{Entry, Overlay, TreePath};
use std::collections::BTreeMap;
use std::io::Read;

/// The entries of the image for a platform, as they are when all its layers are applied.
///
/// The layers are streamed through and nothing of their content is kept.
///
/// # Errors
/// [`Integrity`](crate::error::Kind::Integrity) when a layer is not what it says, or could not be unpacked.
pub fn list(
    source: &dyn Source,
    platform: Option<&Platform>,
    progress: &dyn Progress,
) -> Result<BTreeMap<TreePath, Entry>> {
    list_within(source, platform, Limits::default(), progress)
}

/// The same within other limits; they bound the memory that the list takes.
///
/// # Errors
/// As [`list`], and when the image is beyond the limits.
pub fn list_within(
    source: &dyn Source,
    platform: Option<&Platform>,
    limits: Limits,
    progress: &dyn Progress,
) -> Result<BTreeMap<TreePath, Entry>> {
    let root = source.resolve()?;
    let image = image::select(&root, platform, |descriptor| transport::fetch(source, descriptor))?;
    let mut overlay = Overlay::new();
    let mut budget = Budget::new(limits);
    for (layer, diff_id) in image.manifest.layers.iter().zip(&image.config.rootfs.diff_ids) {
        apply(source, layer, diff_id, &mut overlay, &mut budget, progress)?;
    }
    Ok(overlay.finish().into_iter().map(|(entry, ())| (entry.path.clone(), entry)).collect())
}

/// Lays one layer over those below it.
fn apply(
    source: &dyn Source,
    layer: &Descriptor,
    diff_id: &Digest,
    overlay: &mut Overlay,
    budget: &mut Budget,
    progress: &dyn Progress,
) -> Result<()> {
    let task = progress.begin(&format!("reading {}", layer.digest.short()), Some(layer.size));
    let mut body = source.open(layer)?.verify(layer).observed(move |bytes| task.advance(bytes));
    let read = lay(overlay, &mut body, diff_id, budget);
    // A blob with the wrong digest is that before it is a malformed archive.
    body.drain()?;
    read
}

fn lay(overlay: &mut Overlay, layer: impl Read + Send, diff_id: &Digest, budget: &mut Budget) -> Result<()> {
    let plain = decompress(layer).map_err(|error| Error::io("cannot read the layer", error))?;
    let mut plain = HashingReader::new(plain, diff_id.algorithm());
    let mut layer = LayerReader::within(&mut plain, std::mem::take(budget));
    lay_over(overlay, &mut layer, |_, _| Ok(()))?;
    *budget = layer.budget().clone();
    layer.drain()?;
    match plain.finish() {
        digest if digest == *diff_id => Ok(()),
        digest => Err(Error::integrity(format!(
            "the content of a layer has the digest {digest}, and the image says {diff_id}"
        ))),
    }
}
