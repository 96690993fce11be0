//! What is wanted of a layer, and nothing else of it: its table of contents says where that is.

use super::Work;
use super::listed::Listed;
use crate::error::Result;
use crate::layer::Item;
use crate::partial::{ChunkReader, Plan, Reading};
use std::io;

impl Work<'_, '_> {
    /// Extracts what is wanted of a layer, the `number`th of the image, from the frames that hold it.
    pub(super) fn in_part(&mut self, layer: &Listed<'_>, number: usize, reading: &Reading<'_>) -> Result<()> {
        self.survey(layer)?;
        let mut plan = Plan::within(self.budget.limits());
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
        let mut entries = layer.entries(std::mem::take(self.budget))?;
        let (selection, extractor) = (&mut *self.selection, &mut *self.extractor);
        reading.frames(&plan, |frames| {
            extractor.begin_layer();
            while let Some(listed) = entries.next_entry()? {
                let Some(item) = selection.resolve(listed.item) else { continue };
                match item {
                    Item::Entry(entry) if selection.wants(&entry) => {
                        let mut content = ChunkReader::new(frames, number, || entries.next_chunk());
                        selection.put(entry, &mut content, extractor)?;
                    }
                    // It may still take the place of what lower layers have.
                    Item::Entry(entry) => selection.put(entry, &mut io::empty(), extractor)?,
                    Item::Whiteout(whiteout) => selection.whiteout(&whiteout, extractor)?,
                }
            }
            Ok(())
        })?;
        *self.budget = entries.budget().clone();
        Ok(())
    }
}
