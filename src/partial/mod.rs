//! An image read in part: its tables of contents, and of its layers only the frames that are needed.
//!
//! Whatever comes out of here was proved: a table of contents by the manifest, a chunk of content by its table of
//! contents. Where a layer has none, or a place gives only whole blobs, that is said, and the layer has to be read whole.

mod content;
mod frames;
mod listings;
#[cfg(test)]
mod tests;
mod tree;

pub use content::ChunkReader;
pub use frames::{Frames, Plan};
pub use listings::Listings;
pub use tree::{Learn, Names};

use crate::error::Result;
use crate::layer::{Limits, Toc, VerifiedToc};
use crate::oci::Descriptor;
use crate::progress::Progress;
use crate::stream::map_in_order;
use crate::transport::Source;
use crate::tree::SpoolDirectory;

/// How an image is read in part.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// Where it is.
    pub source: &'a dyn Source,
    /// Its layers, lowest first.
    pub layers: &'a [Descriptor],
    /// What it may make us remember.
    pub limits: &'a Limits,
    /// Where files without a name can be made for tables of contents.
    pub spool: Option<&'a SpoolDirectory>,
    /// How many ranges are fetched at once. Each takes up to 4 MiB of memory.
    pub connections: usize,
    /// Who is told about it.
    pub progress: &'a dyn Progress,
}

impl Reading<'_> {
    /// Fetches the tables of contents of all layers side by side, and has `work` look at them in order. It is told for
    /// whom it matters where a layer has to be read whole.
    ///
    /// # Errors
    /// Those of [`Listings::fetch`] and of `work`, the first one in the order of the layers.
    pub fn each_listing(
        &self,
        mut work: impl FnMut(usize, &Descriptor, Option<VerifiedToc>) -> Result<()>,
    ) -> Result<()> {
        let task = self.progress.begin("reading tables of contents", None);
        let listings = Listings::new(self.spool, self.limits);
        let fetch = |layer: &Descriptor| listings.fetch(self.source, layer);
        let mut whole = ReadWhole::default();
        map_in_order(self.connections, self.layers, fetch, |next| {
            for (number, layer) in self.layers.iter().enumerate() {
                let Some(listing) = next() else { break };
                let listing = listing?;
                match &listing {
                    Some(_) => task.advance(Toc::of(layer)?.map_or(0, |toc| toc.descriptor().size)),
                    None => whole.tell(self, layer)?,
                }
                work(number, layer, listing)?;
            }
            Ok(())
        })
    }
}

/// What has to be read whole, said once for each reason.
#[derive(Debug, Default)]
pub struct ReadWhole {
    without_toc: bool,
    without_ranges: bool,
}

impl ReadWhole {
    /// Tells that a layer is read whole, and why, unless it was told of another one for the same reason.
    ///
    /// # Errors
    /// When the layer's descriptor makes no sense.
    pub fn tell(&mut self, reading: &Reading<'_>, layer: &Descriptor) -> Result<()> {
        let (told, message) = match Toc::of(layer)? {
            None => {
                let without = |layer: &&Descriptor| matches!(Toc::of(layer), Ok(None));
                let (all, count) = (reading.layers.len(), reading.layers.iter().filter(without).count());
                let which = match (count, all) {
                    (1, 1) => "the layer has".to_owned(),
                    (count, all) if count == all => format!("the {all} layers have"),
                    (1, _) => format!("one of {all} layers has"),
                    (count, all) => format!("{count} of {all} layers have"),
                };
                (&mut self.without_toc, format!("{which} no table of contents to read in part: all is read"))
            }
            Some(_) => {
                let message = "the place gives only whole blobs, and no parts of them: all is read";
                (&mut self.without_ranges, message.to_owned())
            }
        };
        if !std::mem::replace(told, true) {
            reading.progress.warn(&message);
        }
        Ok(())
    }
}
