//! Extracts the layers of an image, the lowest first.

use super::FetchedPart;
use super::selection::Selection;
use super::space::FreeSpace;
use crate::error::Result;
use crate::image::{ChunkReader, FetchPlan, FetchedLayer, Image, IndexedLayer, LiveContent, LiveFiles};
use crate::layer::{Budget, Item};
use crate::progress::{Phase, Progress, Task, TaskInfo};
use crate::tree::{Content, Entry, EntryKind, Extractor};
use std::io;
use std::sync::Arc;

/// The layers of an image on their way into a target.
pub(super) struct LayerExtraction<'a, 's> {
    pub image: &'a Image<'a>,
    /// The space in the target, if it is to be checked.
    pub space: Option<&'a FreeSpace<'a>>,
    /// The live content of the image, if it is known.
    pub live: Option<&'a LiveContent>,
    pub selection: &'a mut Selection<'s>,
    pub extractor: &'a mut Extractor,
    pub budget: &'a mut Budget,
    pub progress: &'a dyn Progress,
    /// The bytes that were fetched of the layers so far.
    pub fetched: FetchedPart,
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
        if let (0, None, FetchedLayer::Indexed(layer), Some(space)) = (number, self.live, layer, self.space) {
            space.ensure_for_first(layer.entries(Budget::new(*self.budget.limits()))?)?;
        }
        let size = self.image.manifest().layers.get(number).map_or(0, |layer| layer.size);
        self.fetched.of += size;
        if let FetchedLayer::Indexed(layer) = layer
            && let Some(plan) = self.plan(number, layer)?
        {
            self.fetched.bytes += plan.bytes() + layer.toc_size();
            return self.extract_ranges(number, layer, &plan);
        }
        self.fetched.bytes += size;
        if self.selection.is_small() {
            self.image.warn_of_whole_read(&self.image.manifest().layers[number])?;
        }
        self.extract_whole(number, layer)
    }

    /// Extracts the selected part of a layer that is fetched as a whole.
    fn extract_whole(&mut self, number: usize, layer: &FetchedLayer<'_>) -> Result<()> {
        let info = TaskInfo::new(Phase::Extracting).about(format!("layer {}", number + 1));
        let info = info.of_blob(&self.image.manifest().layers[number].digest).with_total(layer.size());
        let task: Arc<dyn Task> = self.progress.begin(&info).into();
        let counted = Arc::clone(&task);
        let mut entries = EntryFilter::new(self.live, number);
        let (selection, extractor) = (&mut *self.selection, &mut *self.extractor);
        extractor.begin_layer();
        layer.read_items(
            self.budget,
            move |bytes| task.advance(bytes),
            |item, content| {
                counted.advance_entries(1);
                put(selection, extractor, entries.next(item), content)
            },
        )
    }

    /// Returns the ranges to fetch of a layer; `None` if it is fetched as a whole.
    fn plan(&mut self, number: usize, layer: &IndexedLayer<'_>) -> Result<Option<FetchPlan>> {
        if self.selection.is_small() {
            return self.plan_selected(number, layer).map(Some);
        }
        let Some(live) = self.live else { return Ok(None) };
        let plan = live.plan(number, layer.size())?;
        self.fetched.is_partial |= plan.is_some();
        Ok(plan)
    }

    /// Returns the ranges with the selected part of a layer.
    fn plan_selected(&mut self, number: usize, layer: &IndexedLayer<'_>) -> Result<FetchPlan> {
        let mut plan = FetchPlan::within(self.budget.limits());
        let mut filter = EntryFilter::new(self.live, number);
        let mut entries = layer.entries(self.budget.clone())?;
        while let Some(listed) = entries.next_entry()? {
            let item = filter.next(listed.item);
            if let Some(Item::Entry(entry)) = self.selection.resolve(item)
                && has_content(&entry)
                && self.selection.wants(&entry)
            {
                while let Some(chunk) = entries.next_chunk()? {
                    plan.add(number, &chunk)?;
                }
            }
        }
        self.selection.rewind();
        Ok(plan)
    }

    /// Extracts the selected part of a layer from the frames that hold it, and fetches nothing else.
    fn extract_ranges(&mut self, number: usize, layer: &IndexedLayer<'_>, plan: &FetchPlan) -> Result<()> {
        let mut filter = EntryFilter::new(self.live, number);
        let mut entries = layer.entries(&mut *self.budget)?;
        let (selection, extractor) = (&mut *self.selection, &mut *self.extractor);
        self.image.fetch_frames(plan, |frames| {
            extractor.begin_layer();
            while let Some(listed) = entries.next_entry()? {
                let Some(item) = selection.resolve(filter.next(listed.item)) else { continue };
                match item {
                    Item::Entry(entry) if has_content(&entry) && selection.wants(&entry) => {
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

/// The items of a layer, one after the other, in which files with dead content are empty. They are still created, so that
/// hard links, whiteouts and later layers find what they refer to, and are removed with the last of their names.
struct EntryFilter<'a> {
    files: Option<&'a LiveFiles>,
    /// The number of the next entry.
    number: u64,
}

impl<'a> EntryFilter<'a> {
    fn new(live: Option<&'a LiveContent>, layer: usize) -> Self {
        Self { files: live.and_then(|live| live.files(layer)), number: 0 }
    }

    fn next(&mut self, item: Item) -> Item {
        let (Item::Entry(entry), Some(files)) = (&item, self.files) else { return item };
        let is_dead = has_content(entry) && !files.contains(self.number);
        self.number += 1;
        match item {
            Item::Entry(entry) if is_dead => {
                Item::Entry(Entry { kind: EntryKind::File { size: 0 }, ..entry })
            }
            item => item,
        }
    }
}

fn has_content(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::File { size } if size > 0)
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
