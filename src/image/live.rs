//! The live content of an image: that of the files in its merged tree. The content of a file that a later layer replaces or
//! removes is dead, and need not be fetched.
//!
//! The tree is merged from the tables of contents ([`Image::live_content`]). Where much of a layer is dead, the frames with
//! live content are fetched by ranges ([`LiveContent::plan`]).

use super::layer::ImageLayer;
use super::merge::{EntryPosition, EntryVisitor, merge_indexed};
use super::open::Image;
use super::ranges::{FetchPlan, GAP, REQUEST_SIZE};
use super::toc_store::TocStore;
use crate::error::{Error, Kind, Result};
use crate::layer::{Budget, Chunk, Item, Limits, Toc, TocEntry, VerifiedToc};
use crate::progress::{Phase, TaskInfo};
use crate::stream::map_in_order;
use crate::tree::{Content, Entry, EntryKind, Overlay, SpoolDirectory};
use std::sync::Arc;

/// A layer of which more than this many percent are wanted is fetched as a whole: it then comes over several connections,
/// is decompressed by several threads, and is verified by its own digest too.
const MAX_LIVE_PERCENT: u64 = 60;
/// The most ranges of a layer before they are joined. They take 2 MiB of memory.
const MAX_RANGES: u64 = 1 << 16;

/// The live content of an image.
pub struct LiveContent {
    tocs: Vec<VerifiedToc>,
    /// Empty if it is not known what is live.
    files: Vec<LiveFiles>,
    limits: Limits,
}

/// The files of one layer whose content is live.
#[derive(Clone, Debug, Default)]
pub struct LiveFiles {
    /// One bit for each entry, by its number.
    bits: Vec<u64>,
    /// The number of files with content.
    with_content: u64,
    /// The number of files with live content.
    live: u64,
}

impl LiveFiles {
    /// Returns whether the entry with this number is a file with live content. Whiteouts have no number.
    pub fn contains(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok().and_then(|at| self.bits.get(at));
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Returns whether a file has dead content.
    pub fn has_dead(&self) -> bool {
        self.live < self.with_content
    }

    fn insert(&mut self, number: u64) {
        // Each entry was read from a table of contents, and the limits allow only so many as fit.
        let at = usize::try_from(number / 64).unwrap_or(usize::MAX);
        if self.bits.len() <= at {
            self.bits.resize(at.saturating_add(1), 0);
        }
        self.bits[at] |= 1 << (number % 64);
        self.live += 1;
    }
}

impl LiveContent {
    /// The tables of contents of all layers, the lowest first.
    pub fn tocs(&self) -> &[VerifiedToc] {
        &self.tocs
    }

    /// Returns the files of a layer that have live content; `None` if that is not known, so that all content is needed.
    pub fn files(&self, layer: usize) -> Option<&LiveFiles> {
        self.files.get(layer)
    }

    /// Returns the ranges with the live content of a layer, which has this size in bytes. `None` if it is fetched as a
    /// whole: nothing of it is dead, more than 60 percent of it are wanted, or the ranges would take more requests than
    /// the whole.
    ///
    /// # Errors
    /// Those of reading the table of contents.
    pub fn plan(&self, number: usize, size: u64) -> Result<Option<FetchPlan>> {
        let (Some(toc), Some(files)) = (self.tocs.get(number), self.files.get(number)) else {
            return Ok(None);
        };
        if !files.has_dead() {
            return Ok(None);
        }
        let mut plan = FetchPlan::within(&self.limits);
        let mut entries = toc.entries(Budget::new(self.limits))?;
        let mut entry = 0;
        while let Some(listed) = entries.next_entry()? {
            let Item::Entry(_) = listed.item else { continue };
            if files.contains(entry) {
                while let Some(chunk) = entries.next_chunk()? {
                    plan.add(number, &chunk)?;
                }
            }
            entry += 1;
            if plan.requests() > MAX_RANGES {
                return Ok(None);
            }
        }
        Ok(limit_requests(plan, size))
    }
}

/// Joins ranges until they take hardly more requests than a layer of this size, which is fetched in parts of the same size
/// as the ranges. Returns `None` if that is impossible without most of the layer.
fn limit_requests(mut plan: FetchPlan, size: u64) -> Option<FetchPlan> {
    let parts = if size <= 2 * REQUEST_SIZE { 1 } else { size.div_ceil(REQUEST_SIZE) };
    let mut gap = GAP;
    loop {
        if u128::from(plan.bytes()) * 100 > u128::from(size) * u128::from(MAX_LIVE_PERCENT) {
            return None;
        }
        if plan.requests() <= parts + parts / 10 {
            return Some(plan);
        }
        if gap >= REQUEST_SIZE {
            return None;
        }
        gap *= 2;
        plan.join(gap);
    }
}

impl Image<'_> {
    /// Finds the live content of the image by its tables of contents, which are fetched and kept at `place`.
    ///
    /// Returns `None` where this is of no use: the image has one layer, or a layer without a table of contents, or the source
    /// serves only whole blobs. All content counts as needed if the layers contradict each other or exceed the limits, which
    /// extracting them reports, or if their paths lead through symbolic links, which not every file system has.
    ///
    /// # Errors
    /// Those of the source.
    pub fn live_content(&self, place: &Arc<SpoolDirectory>) -> Result<Option<LiveContent>> {
        let layers: Vec<_> = self.layers().collect();
        let is_indexed = |layer: &ImageLayer<'_>| matches!(Toc::of(layer.descriptor()), Ok(Some(_)));
        if layers.len() < 2 || !layers.iter().all(is_indexed) {
            return Ok(None);
        }
        let limits = self.context().limits();
        let store = TocStore::new(Some(Arc::clone(place)), limits);
        let tocs = match self.fetch_tocs(&layers, &store) {
            Err(error) if error.kind() == Kind::Integrity => return Ok(None),
            tocs => tocs?,
        };
        let Some(tocs) = tocs else { return Ok(None) };
        let files = match live_files(&tocs, &limits) {
            Err(error) if error.kind() == Kind::Integrity => Vec::new(),
            files => files?,
        };
        Ok(Some(LiveContent { tocs, files, limits }))
    }

    /// Fetches the tables of contents of all layers; `None` if the source serves only whole blobs.
    fn fetch_tocs(&self, layers: &[ImageLayer<'_>], store: &TocStore) -> Result<Option<Vec<VerifiedToc>>> {
        let task = self.progress().begin(&TaskInfo::new(Phase::ReadingContents));
        map_in_order(
            self.connections,
            layers,
            |layer| layer.toc(store),
            |receive| {
                let mut tocs = Vec::new();
                while let Some(toc) = receive() {
                    match toc {
                        Ok(Some(toc)) => {
                            task.advance(toc.size());
                            tocs.push(toc);
                        }
                        Ok(None) => return Ok(None),
                        Err(error) => return Err(error),
                    }
                }
                Ok((tocs.len() == layers.len()).then_some(tocs))
            },
        )
    }
}

/// Merges the tree of these tables of contents, and returns the live files of each layer; none if paths lead through symbolic
/// links.
fn live_files(tocs: &[VerifiedToc], limits: &Limits) -> Result<Vec<LiveFiles>> {
    let mut overlay = Overlay::within(limits.max_names);
    let mut budget = Budget::new(*limits);
    let mut locator = Locator { files: vec![LiveFiles::default(); tocs.len()] };
    for (number, toc) in tocs.iter().enumerate() {
        overlay.begin_layer();
        merge_indexed(&mut overlay, number, toc, &mut budget, &mut locator)?;
    }
    if overlay.leads_through_links() {
        return Ok(Vec::new());
    }
    let mut files = locator.files;
    for at in overlay.finish().values().flatten() {
        if let Some(files) = files.get_mut(at.layer) {
            files.insert(at.number);
        }
    }
    Ok(files)
}

/// Notes the position of each file with content.
struct Locator {
    files: Vec<LiveFiles>,
}

impl EntryVisitor for Locator {
    type Note = Option<EntryPosition>;

    fn indexed(
        &mut self,
        at: EntryPosition,
        entry: &TocEntry,
        _: &mut dyn FnMut() -> Result<Option<Chunk>>,
    ) -> Result<Self::Note> {
        let has_content = matches!(&entry.item,
            Item::Entry(Entry { kind: EntryKind::File { size }, .. }) if *size > 0);
        if !has_content {
            return Ok(None);
        }
        if let Some(files) = self.files.get_mut(at.layer) {
            files.with_content += 1;
        }
        Ok(Some(at))
    }

    fn streamed(&mut self, _: EntryPosition, _: &Entry, _: &mut dyn Content) -> Result<Self::Note> {
        Err(Error::failed(
            "a layer is streamed where its table of contents was expected; this is a bug in volio",
        ))
    }
}
