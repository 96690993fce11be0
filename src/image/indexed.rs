//! A layer that is read while it is fetched: its table of contents, verified against the manifest, is fetched first,
//! and the rest is verified against it frame by frame. So content can be used before the layer has come to its end.

use super::archive;
use super::layer::ImageLayer;
use super::open::Image;
use crate::error::{Kind, Result};
use crate::layer::{
    Budget, FrameVerifier, Item, Toc, TocBytes, TocChecker, TocReader, VerifiedArchive, VerifiedToc,
};
use crate::stream::{Written, start_in};
use crate::tree::Content;
use std::borrow::BorrowMut;
use std::thread;

/// A layer with its table of contents.
pub struct IndexedLayer<'a> {
    layer: ImageLayer<'a>,
    toc: VerifiedToc,
}

impl Image<'_> {
    /// Returns a layer with its table of contents, if that was fetched.
    pub fn indexed_layer(&self, number: usize) -> Option<IndexedLayer<'_>> {
        let layer = self.layers().nth(number)?;
        Some(IndexedLayer::new(layer, self.fetched_toc(number)?.clone()))
    }

    /// Returns the number of tables of contents that were fetched, and of their bytes.
    ///
    /// # Errors
    /// When a descriptor is malformed.
    pub fn fetched_tocs(&self) -> Result<(u64, u64)> {
        let mut fetched = (0, 0);
        for (number, layer) in self.layers().enumerate() {
            if self.fetched_toc(number).is_some() {
                let size = Toc::of(layer.descriptor())?.map_or(0, |toc| toc.descriptor().size);
                fetched = (fetched.0 + 1, fetched.1 + size);
            }
        }
        Ok(fetched)
    }
}

impl<'a> IndexedLayer<'a> {
    /// Brings together a layer and its table of contents.
    pub(super) fn new(layer: ImageLayer<'a>, toc: VerifiedToc) -> Self {
        Self { layer, toc }
    }

    /// The size of the blob in bytes.
    pub fn size(&self) -> u64 {
        self.layer.descriptor().size
    }

    /// The size of the table of contents as it is stored, in bytes.
    pub fn toc_size(&self) -> u64 {
        self.toc.size()
    }

    /// Returns a reader of the table of contents, which counts its entries against the budget.
    ///
    /// # Errors
    /// Fails if the decompressor cannot allocate memory.
    pub fn entries<B: BorrowMut<Budget>>(&self, budget: B) -> Result<TocReader<TocBytes, B>> {
        self.toc.entries(budget)
    }

    /// Returns the items of the layer, one after the other, without content.
    pub(super) fn items(&self, budget: Budget) -> Result<impl FnMut() -> Result<Option<Item>> + use<>> {
        let mut entries = self.entries(budget)?;
        Ok(move || Ok(entries.next_entry()?.map(|entry| entry.item)))
    }

    /// Fetches the layer and shows each item of its archive to `visit`, after the table of contents has proved it. Fails
    /// at the end if the blob or its archive has another digest than the image says. `passed` is called with the number of
    /// bytes of each read.
    ///
    /// # Errors
    /// Those of the source and of `visit`; [`Integrity`](Kind::Integrity) if the layer is not what the image says.
    pub fn read_items(
        &self,
        budget: &mut Budget,
        passed: impl Fn(u64) + Send + 'static,
        visit: impl FnMut(Item, &mut dyn Content) -> Result<()>,
    ) -> Result<()> {
        let (context, diff_id) = (self.layer.context, self.layer.diff_id());
        let body = context.source().open(self.layer.descriptor())?.verify(self.layer.descriptor());
        let body = body.on_read(passed);
        let (frames, archive) = FrameVerifier::new(self.entries(budget.clone())?, diff_id.algorithm())?;
        let (fetched, archive) = thread::scope(|scope| -> Result<_> {
            let fetching = start_in(scope, move || frames.send_frames(body))?;
            let archive = context.cancel_after_error(self.read_archive(archive, budget, visit));
            Ok((fetching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), archive))
        })?;
        let archive = match (fetched, archive) {
            (Ok(()), archive) => archive?,
            // A half that ends early breaks the pipe of the other one, or cancels its reads: the other error is the cause.
            (Err(fetching), Err(reading))
                if fetching.kind() != Kind::Integrity && !reading.is_broken_pipe() =>
            {
                return Err(reading);
            }
            (Err(fetching), _) => return Err(fetching),
        };
        archive::check_diff_id(&archive, diff_id)
    }

    fn read_archive(
        &self,
        archive: VerifiedArchive,
        budget: &mut Budget,
        visit: impl FnMut(Item, &mut dyn Content) -> Result<()>,
    ) -> Result<Written> {
        let checker = TocChecker::for_verified(self.entries(budget.clone())?, archive.position());
        archive::read_items(archive, Some(checker), budget, visit)?.finish()
    }
}
