//! What is in an image, layer over layer, known from its tables of contents where it has them.

use super::Reading;
use crate::error::{Error, Result};
use crate::layer::{Budget, LayerReader, Meter, TocEntry, VerifiedToc, apply_layer, apply_toc, decompress};
use crate::oci::{Descriptor, Digest};
use crate::stream::HashingReader;
use crate::tree::{Content, Entry, MergedTree, Overlay};
use std::io::Read;

/// Learns what a reader of the tree wants to know about its entries.
pub trait Learn {
    /// What is learned of an entry; the default of what has no content of its own.
    type Learned: Clone + Default;

    /// Learns of an entry in the table of contents of a layer, the `number`th of it.
    fn listed(&mut self, layer: usize, number: u64, entry: &TocEntry) -> Self::Learned;

    /// Learns of an entry in the archive of a layer, the `number`th of it. Nothing of the content is proved before the
    /// whole layer was read.
    ///
    /// # Errors
    /// Those of reading.
    fn streamed(
        &mut self,
        layer: usize,
        number: u64,
        entry: &Entry,
        content: &mut dyn Content,
    ) -> Result<Self::Learned>;

    /// Is given the table of contents of a layer when it was read, for whoever needs it again.
    fn keep(&mut self, _layer: usize, _listing: VerifiedToc) {}
}

/// Who wants to know the entries and nothing else.
pub struct Names;

impl Learn for Names {
    type Learned = ();

    fn listed(&mut self, _: usize, _: u64, _: &TocEntry) {}

    fn streamed(&mut self, _: usize, _: u64, _: &Entry, _: &mut dyn Content) -> Result<()> {
        Ok(())
    }
}

impl Reading<'_> {
    /// The tree of the image as it is when all its layers are applied, with what was learned of each entry. Layers without a table of contents are streamed through, and proved as a whole.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when a layer is not what it says, or could not be unpacked.
    pub fn tree<L: Learn>(
        &self,
        diff_ids: &[Digest],
        meter: &Meter,
        learn: &mut L,
    ) -> Result<MergedTree<L::Learned>> {
        let mut overlay = Overlay::within(self.limits.max_names);
        let mut budget = Budget::new(*self.limits);
        self.each_listing(|number, layer, listing| {
            let Some(listing) = listing else {
                let diff_id = diff_ids.get(number).ok_or_else(|| no_diff_id(layer))?;
                return self.stream_over(&mut overlay, (number, layer, diff_id), &mut budget, meter, learn);
            };
            let mut entries = listing.entries(std::mem::take(&mut budget))?;
            let mut counted = 0..;
            apply_toc(&mut overlay, &mut entries, |entry| {
                learn.listed(number, counted.next().unwrap_or_default(), entry)
            })?;
            budget = entries.budget().clone();
            learn.keep(number, listing);
            Ok(())
        })?;
        Ok(overlay.finish())
    }

    /// Lays a layer over those below it, and reads all of it for that.
    fn stream_over<L: Learn>(
        &self,
        overlay: &mut Overlay<L::Learned>,
        (number, layer, diff_id): (usize, &Descriptor, &Digest),
        budget: &mut Budget,
        meter: &Meter,
        learn: &mut L,
    ) -> Result<()> {
        let task = self.progress.begin(&format!("reading {}", layer.digest.short()), Some(layer.size));
        let body = self.source.open(layer)?;
        let mut body = body.verify(layer).on_read(move |bytes| task.advance(bytes)).on_read(meter.stored());
        let mut counted = 0..;
        let read = stream(overlay, (&mut body, meter), diff_id, budget, |entry, content| {
            learn.streamed(number, counted.next().unwrap_or_default(), entry, content)
        });
        // A blob with the wrong digest is that before it is a malformed archive.
        body.drain()?;
        read
    }
}

fn stream<T: Clone + Default>(
    overlay: &mut Overlay<T>,
    (layer, meter): (impl Read + Send, &Meter),
    diff_id: &Digest,
    budget: &mut Budget,
    learn: impl FnMut(&Entry, &mut dyn Content) -> Result<T>,
) -> Result<()> {
    let plain = decompress(layer).map_err(|error| Error::io("cannot read the layer", error))?;
    let mut plain = HashingReader::new(meter.bound(plain), diff_id.algorithm());
    let mut layer = LayerReader::within(&mut plain, std::mem::take(budget));
    apply_layer(overlay, &mut layer, learn)?;
    *budget = layer.budget().clone();
    layer.drain()?;
    match plain.finish() {
        digest if digest == *diff_id => Ok(()),
        digest => Err(Error::integrity(format!(
            "the content of a layer has the digest {digest}, and the image says {diff_id}"
        ))),
    }
}

fn no_diff_id(layer: &Descriptor) -> Error {
    Error::integrity(format!("the image says nothing of the content of its layer {}", layer.digest))
}
