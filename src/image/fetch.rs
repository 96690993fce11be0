//! Layers that are fetched for extraction, the next one while the current one is worked on. Nothing of a layer can be read
//! from them before it is verified.

use super::indexed::IndexedLayer;
use super::layer::ImageLayer;
use super::spool::SpooledLayer;
use super::toc_store::TocStore;
use crate::error::Result;
use crate::layer::{Budget, Item, VerifiedToc};
use crate::stream::start_in;
use crate::tree::{Content, SpoolDirectory};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

/// A layer that can be extracted.
pub enum FetchedLayer<'a> {
    /// All of it was fetched and verified.
    Spooled(SpooledLayer),
    /// Its table of contents was fetched and verified, and proves the rest while that is fetched.
    Indexed(IndexedLayer<'a>),
}

impl FetchedLayer<'_> {
    /// The number of bytes that [`read_items`](Self::read_items) reports in all.
    pub fn size(&self) -> u64 {
        match self {
            Self::Spooled(layer) => layer.archive_size(),
            Self::Indexed(layer) => layer.size(),
        }
    }

    /// Shows each item to `visit`, without content, before anything is extracted. The budget is not charged.
    ///
    /// # Errors
    /// Those of reading.
    pub fn survey<T>(
        &self,
        budget: &Budget,
        visit: impl FnOnce(&mut dyn FnMut() -> Result<Option<Item>>) -> Result<T>,
    ) -> Result<T> {
        match self {
            Self::Spooled(layer) => visit(&mut layer.items(budget.clone())?),
            Self::Indexed(layer) => visit(&mut layer.items(budget.clone())?),
        }
    }

    /// Reads the archive and shows each item with its content to `visit`. The archive is compared with the table of
    /// contents if there is one. `passed` is called with the number of bytes of each read.
    ///
    /// # Errors
    /// Those of reading and of `visit`; [`Integrity`](crate::error::Kind::Integrity) if the layer is not what the image
    /// says, or exceeds the budget.
    pub fn read_items(
        &self,
        budget: &mut Budget,
        passed: impl Fn(u64) + Send + 'static,
        visit: impl FnMut(Item, &mut dyn Content) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Spooled(layer) => layer.read_items(budget, passed, visit),
            Self::Indexed(layer) => layer.read_items(budget, passed, visit),
        }
    }
}

impl<'a> ImageLayer<'a> {
    /// Fetches the layer as far as necessary before it can be extracted: its table of contents if it has one and the
    /// source serves ranges, else all of it, into an unnamed file at `place`.
    ///
    /// # Errors
    /// Those of [`toc`](Self::toc) and [`spool`](Self::spool).
    pub fn fetch(self, place: &Arc<SpoolDirectory>) -> Result<FetchedLayer<'a>> {
        let store = TocStore::new(Some(Arc::clone(place)), self.context.limits());
        match self.toc(&store)? {
            Some(toc) => Ok(FetchedLayer::Indexed(IndexedLayer::new(self, toc))),
            None => self.spool(place).map(FetchedLayer::Spooled),
        }
    }
}

/// Fetches layers, and calls `work` with each and its position; while it works on one, the next one is fetched. An error
/// of `work` ends the fetching at once. `tocs` are the tables of contents of the first layers, as far as they were fetched
/// before.
///
/// # Errors
/// Those of [`ImageLayer::fetch`] and of `work`, the first one in the order of the layers.
pub fn fetch_each<'a>(
    layers: &[ImageLayer<'a>],
    tocs: &[VerifiedToc],
    place: &Arc<SpoolDirectory>,
    mut work: impl FnMut(usize, FetchedLayer<'a>) -> Result<()>,
) -> Result<()> {
    let Some(ImageLayer { context, .. }) = layers.first() else { return Ok(()) };
    thread::scope(|scope| {
        let (sender, fetched) = sync_channel(0);
        start_in(scope, move || {
            for (number, layer) in layers.iter().enumerate() {
                let fetched = match tocs.get(number) {
                    Some(toc) => Ok(FetchedLayer::Indexed(IndexedLayer::new(*layer, toc.clone()))),
                    None => layer.fetch(place),
                };
                let failed = fetched.is_err();
                // A receiver that is gone has failed.
                if sender.send(fetched).is_err() || failed {
                    return;
                }
            }
        })?;
        let outcome = fetched.iter().enumerate().try_for_each(|(number, layer)| work(number, layer?));
        drop(fetched);
        context.cancel_after_error(outcome)
    })
}
