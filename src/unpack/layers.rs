//! Extracts the layers of an image, the lowest first.

use super::selection::Selection;
use crate::error::Result;
use crate::image::{ChunkReader, FetchPlan, FetchedLayer, Image, IndexedLayer};
use crate::layer::{Budget, Item};
use crate::progress::Progress;
use crate::tree::{Content, Extractor};
use std::io;

/// The layers of an image on their way into a target.
pub(super) struct LayerExtraction<'a, 's> {
    pub image: &'a Image<'a>,
    pub selection: &'a mut Selection<'s>,
    pub extractor: &'a mut Extractor,
    pub budget: &'a mut Budget,
    pub progress: &'a dyn Progress,
}

impl LayerExtraction<'_, '_> {
    /// Extracts the selected part of a layer, the `number`th of the image.
    ///
    /// # Errors
    /// Those of reading the layer and of extracting.
    pub fn extract(&mut self, number: usize, layer: &FetchedLayer<'_>) -> Result<()> {
        if self.selection.needs_survey() {
            layer.survey(self.budget, |next| self.selection.survey(next))?;
        }
        if self.selection.is_small() {
            match layer {
                FetchedLayer::Indexed(layer) => return self.extract_ranges(number, layer),
                FetchedLayer::Spooled(_) => {
                    self.image.warn_of_whole_read(&self.image.manifest().layers[number])?;
                }
            }
        }
        let task = self.progress.begin(&format!("extracting layer {}", number + 1), Some(layer.size()));
        let (selection, extractor) = (&mut *self.selection, &mut *self.extractor);
        extractor.begin_layer();
        layer.read_items(
            self.budget,
            move |bytes| task.advance(bytes),
            |item, content| put(selection, extractor, item, content),
        )
    }

    /// Extracts the selected part of a layer from the frames that hold it, and fetches nothing else.
    fn extract_ranges(&mut self, number: usize, layer: &IndexedLayer<'_>) -> Result<()> {
        let mut plan = FetchPlan::within(self.budget.limits());
        let mut entries = layer.entries(self.budget.clone())?;
        while let Some(listed) = entries.next_entry()? {
            if let Some(Item::Entry(entry)) = self.selection.resolve(listed.item)
                && self.selection.wants(&entry)
            {
                while let Some(chunk) = entries.next_chunk()? {
                    plan.add(number, &chunk)?;
                }
            }
        }
        self.selection.rewind();
        let mut entries = layer.entries(&mut *self.budget)?;
        let (selection, extractor) = (&mut *self.selection, &mut *self.extractor);
        self.image.fetch_frames(&plan, |frames| {
            extractor.begin_layer();
            while let Some(listed) = entries.next_entry()? {
                let Some(item) = selection.resolve(listed.item) else { continue };
                match item {
                    Item::Entry(entry) if selection.wants(&entry) => {
                        let mut content = ChunkReader::new(frames, number, || entries.next_chunk());
                        selection.put(entry, &mut content, extractor)?;
                    }
                    // It may still replace what lower layers have.
                    Item::Entry(entry) => selection.put(entry, &mut io::empty(), extractor)?,
                    Item::Whiteout(whiteout) => selection.whiteout(&whiteout, extractor)?,
                }
            }
            Ok(())
        })
    }
}

/// Extracts an item if it is selected.
fn put(
    selection: &mut Selection<'_>,
    extractor: &mut Extractor,
    item: Item,
    content: &mut dyn Content,
) -> Result<()> {
    match selection.resolve(item) {
        Some(Item::Entry(entry)) => selection.put(entry, content, extractor),
        Some(Item::Whiteout(whiteout)) => selection.whiteout(&whiteout, extractor),
        None => Ok(()),
    }
}
