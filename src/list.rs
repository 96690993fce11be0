//! What is in an image, without unpacking it.

use crate::error::{Error, Result};
use crate::image;
use crate::layer::{Item, LayerReader, Whiteout, decompress};
use crate::oci::{Descriptor, Platform};
use crate::progress::Progress;
use crate::transport::{self, Source};
use crate::tree::{Entry, Kind, TreePath};
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
    let mut entries = BTreeMap::new();
    for layer in &image.manifest.layers {
        apply(source, layer, &mut entries, progress)?;
    }
    Ok(entries)
}

/// Lays one layer over the entries of those below it.
fn apply(
    source: &dyn Source,
    layer: &Descriptor,
    entries: &mut BTreeMap<TreePath, Entry>,
    progress: &dyn Progress,
) -> Result<()> {
    let task = progress.begin(&format!("reading {}", layer.digest.short()), Some(layer.size));
    let mut body = source.open(layer)?.verify(layer).observed(move |bytes| task.advance(bytes));
    let mut upper = Vec::new();
    let read = read_items(&mut body, |item| match item {
        Item::Entry(entry) => upper.push(entry),
        // A whiteout hides what lower layers have, wherever in its own layer it stands.
        Item::Whiteout(Whiteout::Entry(path)) => remove_below(entries, &path, true),
        Item::Whiteout(Whiteout::Opaque(path)) => remove_below(entries, &path, false),
    });
    // A blob with the wrong digest is that before it is a malformed archive.
    body.drain()?;
    read?;
    for entry in upper {
        if entry.kind != Kind::Directory {
            remove_below(entries, &entry.path, true);
        }
        entries.insert(entry.path.clone(), entry);
    }
    Ok(())
}

fn read_items(layer: &mut crate::stream::Body, mut each: impl FnMut(Item)) -> Result<()> {
    let plain = decompress(layer).map_err(|error| Error::io("cannot read the layer", error))?;
    let mut layer = LayerReader::new(plain);
    while let Some(item) = layer.next_item()? {
        each(item);
    }
    layer.drain()
}

/// Removes all that is below a path, and the path itself where that is wanted.
fn remove_below(entries: &mut BTreeMap<TreePath, Entry>, path: &TreePath, itself: bool) {
    // What is below a directory follows it directly in the order of paths.
    let gone: Vec<TreePath> = entries
        .range(path.clone()..)
        .map(|(found, _)| found)
        .take_while(|found| found.is_in(path))
        .filter(|found| itself || *found != path)
        .cloned()
        .collect();
    for path in gone {
        entries.remove(&path);
    }
}
