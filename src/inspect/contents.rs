//! The contents of layers, counted from their tables of contents. No layer is read.

use super::Inspected;
use crate::error::Result;
use crate::image::TocStore;
use crate::layer::{Budget, Item, Limits, Toc, VerifiedToc};
use crate::oci::{Descriptor, Digest};
use crate::progress::Progress;
use crate::stream::try_for_each;
use crate::transport::{ClientOptions, Source};
use crate::tree::EntryKind;
use std::collections::{HashMap, HashSet};

/// The limit on the tables of contents that are fetched of one image, in bytes: about a hundred thousand entries. A summary
/// must not take long.
const FETCHED_LIMIT: u64 = 2 << 20;
/// The limit on the number of layers whose tables of contents are fetched, each by a request.
const COUNT_LIMIT: usize = 128;

/// The contents of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerContents {
    /// The number of entries, without whiteouts.
    pub entries: u64,
    /// The number of entries of lower layers that it removes, as far as it names them.
    pub whiteouts: u64,
    /// The size of its files, in bytes.
    pub size: u64,
}

/// Counts the contents of the layers that have a table of contents, by the digests of their blobs. Large tables of contents
/// are not fetched, nor are those of a source that serves only whole blobs. If a table of contents cannot be read, a warning
/// says so, and its layer has no count.
pub fn contents(
    source: &dyn Source,
    inspected: &Inspected,
    progress: &dyn Progress,
) -> HashMap<Digest, LayerContents> {
    let limits = Limits::default();
    let store = TocStore::new(None, limits);
    let layers = indexed_layers(inspected);
    let fetch = |_, layer: &Descriptor| Ok(store.fetch(source, layer));
    let fetched = try_for_each(ClientOptions::default().concurrency, &layers, fetch);
    let mut budget = Budget::new(limits);
    let mut counted = HashMap::new();
    for (layer, toc) in layers.iter().zip(fetched.into_result().unwrap_or_default()) {
        match toc.and_then(|toc| toc.map(|toc| count(&toc, &mut budget)).transpose()) {
            Ok(Some(contents)) => _ = counted.insert(layer.digest.clone(), contents),
            Ok(None) => {}
            Err(error) => {
                progress.warn(&format!("the contents of the layer {} are not shown: {error}", layer.digest))
            }
        }
    }
    counted
}

/// Returns the distinct layers with tables of contents, lowest first, as many as are read.
fn indexed_layers(inspected: &Inspected) -> Vec<Descriptor> {
    let mut seen = HashSet::new();
    let mut room = FETCHED_LIMIT;
    let layers = inspected.images.iter().flat_map(|image| &image.layers);
    let distinct = layers.filter(|layer| layer.is_indexed && seen.insert(&layer.digest));
    let descriptors = distinct.map(|layer| {
        let descriptor = Descriptor::new(&layer.media_type, layer.digest.clone(), layer.size);
        Descriptor { annotations: layer.annotations.clone(), ..descriptor }
    });
    let fits = |layer: &Descriptor| {
        let size = Toc::of(layer).ok().flatten().map_or(u64::MAX, |toc| toc.descriptor().size);
        let left = room.checked_sub(size);
        room = left.unwrap_or(room);
        left.is_some()
    };
    descriptors.filter(fits).take(COUNT_LIMIT).collect()
}

fn count(toc: &VerifiedToc, budget: &mut Budget) -> Result<LayerContents> {
    let mut contents = LayerContents::default();
    let mut entries = toc.entries(budget)?;
    while let Some(entry) = entries.next_entry()? {
        match entry.item {
            Item::Whiteout(_) => contents.whiteouts += 1,
            Item::Entry(entry) => {
                contents.entries += 1;
                if let EntryKind::File { size } = entry.kind {
                    contents.size = contents.size.saturating_add(size);
                }
            }
        }
    }
    Ok(contents)
}
