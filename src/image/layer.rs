//! One layer of an image, and the ways to read it verified.

use super::archive::{self, LayerArchive};
use super::context::ReadContext;
use super::toc_store::TocStore;
use crate::error::Result;
use crate::layer::{Budget, Item, VerifiedToc};
use crate::oci::{Descriptor, Digest};
use crate::progress::Phase;
use crate::stream::Body;
use crate::tree::Content;

/// A layer of an image in a source.
#[derive(Clone, Copy)]
pub struct ImageLayer<'a> {
    pub(super) context: &'a ReadContext<'a>,
    descriptor: &'a Descriptor,
    diff_id: &'a Digest,
}

impl<'a> ImageLayer<'a> {
    /// Creates a layer. `descriptor` is from the manifest and `diff_id` from the config of the image.
    pub fn new(context: &'a ReadContext<'a>, descriptor: &'a Descriptor, diff_id: &'a Digest) -> Self {
        Self { context, descriptor, diff_id }
    }

    /// The descriptor of the blob.
    pub fn descriptor(&self) -> &'a Descriptor {
        self.descriptor
    }

    /// The digest of the plain archive.
    pub fn diff_id(&self) -> &'a Digest {
        self.diff_id
    }

    /// Fetches the table of contents into `store`, verified by the descriptor. Returns `None` if the layer has none, or
    /// the source serves only whole blobs.
    ///
    /// # Errors
    /// Those of [`TocStore::fetch`].
    pub fn toc(&self, store: &TocStore) -> Result<Option<VerifiedToc>> {
        store.fetch(self.context.source(), self.descriptor)
    }

    /// Opens the blob as it is stored. The reader fails at its end unless it has the size and the digest of the
    /// descriptor. `phase` says in the progress what is done.
    ///
    /// # Errors
    /// Those of the source.
    pub fn blob(&self, phase: Phase) -> Result<Body> {
        self.context.blob(self.descriptor, phase)
    }

    /// Opens the plain archive as a stream, which fails at its end unless the layer is what the image says.
    ///
    /// # Errors
    /// Those of the source.
    pub fn archive(&self, phase: Phase) -> Result<LayerArchive> {
        LayerArchive::new(self.blob(phase)?, self.diff_id, self.context.meter.clone())
    }

    /// Streams the whole layer, and shows each item of its archive to `visit`. What `visit` has seen counts only if this
    /// succeeds.
    ///
    /// # Errors
    /// Those of the source and of `visit`; [`Integrity`](crate::error::Kind::Integrity) if the layer is not what the
    /// image says, or exceeds the budget.
    pub fn read_items(
        &self,
        budget: &mut Budget,
        visit: impl FnMut(Item, &mut dyn Content) -> Result<()>,
    ) -> Result<()> {
        let mut archive = self.archive(Phase::Reading)?;
        let outcome = archive::read_items::<_, std::io::Empty>(&mut archive, None, budget, visit).map(drop);
        archive.finish(outcome)
    }

    /// Streams the whole layer, and verifies all that is known about it: the digest of the blob, the diff_id of the
    /// archive, and the table of contents, which is fetched into `store`.
    ///
    /// # Errors
    /// As [`read_items`](Self::read_items).
    pub fn verify(&self, budget: &mut Budget, store: &TocStore) -> Result<()> {
        let mut archive = self.archive(Phase::Verifying)?;
        let outcome = self.compare(&mut archive, budget, store);
        archive.finish(outcome)
    }

    fn compare(&self, archive: &mut LayerArchive, budget: &mut Budget, store: &TocStore) -> Result<()> {
        let toc = match self.toc(store)? {
            Some(toc) => Some(toc),
            None => store.fetch_from_whole(self.context.source(), self.descriptor)?,
        };
        let checker = archive::checker(toc.as_ref(), budget)?;
        archive::read_items(archive, checker, budget, |_, _| Ok(())).map(drop)
    }
}
