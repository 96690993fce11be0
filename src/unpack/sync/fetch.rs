//! The plan of what is fetched: ranges of layers with a table of contents, or all of a layer where ranges would cost about
//! as much.

use super::plan::{Plan, WantedFile};
use super::reuse::Writes;
use crate::error::Result;
use crate::image::{FetchPlan, FileChunks, Image, SpooledLayers};
use crate::layer::{Chunk, Limits};
use crate::tree::{Holes, TreePath};
use crate::unpack::space::BLOCK;
use std::collections::BTreeMap;

/// The share of a layer, in percent, above which all of it is fetched.
const WHOLE_LAYER: u64 = 60;
/// The cost of a request, as bytes that could be fetched meanwhile.
const REQUEST_COST: u64 = 64 << 10;

/// The way in which the wanted files of a layer are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LayerMode {
    /// By ranges.
    Ranges,
    /// As a stream, which is verified by the table of contents.
    Stream,
    /// From a file, because it has no table of contents.
    Spool,
}

/// The contents that are fetched, and those that are used of the target.
pub(super) struct Fetch<'i> {
    /// The chunks of all files of indexed layers.
    pub chunks: FileChunks<'i>,
    /// The ranges of the layers that are read by ranges.
    pub ranges: FetchPlan,
    /// The modes of the layers that have wanted files.
    pub modes: BTreeMap<usize, LayerMode>,
    /// The number of bytes that are fetched, with tables of contents.
    pub bytes: u64,
    /// The number of requests for them.
    pub requests: u64,
    /// The number of bytes that are copied from files of the target.
    pub reused: u64,
    /// The number of bytes that are written, by mount point.
    pub space: BTreeMap<TreePath, u64>,
}

/// The costs of the wanted files of one layer.
#[derive(Default)]
struct LayerCost {
    reused: u64,
    fetched: Option<FetchPlan>,
}

impl<'i> Fetch<'i> {
    /// Plans the fetching for these files.
    ///
    /// # Errors
    /// Those of the tables of contents.
    pub fn plan(
        image: &'i Image<'i>,
        writes: &Writes,
        plan: &Plan,
        spools: &SpooledLayers,
        limits: &Limits,
        holes: Holes,
    ) -> Result<Self> {
        let chunks = find_chunks(image, writes)?;
        let (requests, bytes) = image.fetched_tocs()?;
        let mut fetch = Self {
            chunks,
            ranges: FetchPlan::within(limits),
            modes: BTreeMap::new(),
            bytes,
            requests,
            reused: 0,
            space: BTreeMap::new(),
        };
        for (number, layer) in image.manifest().layers.iter().enumerate() {
            if image.indexed_layer(number).is_none() {
                (fetch.bytes, fetch.requests) = (fetch.bytes + layer.size, fetch.requests + 1);
            }
        }
        let files = || writes.local.iter().chain(&writes.duplicates);
        for file in files() {
            fetch.reused += fetch.data_size(image, file)?;
        }
        for file in files().chain(&writes.fetched) {
            let size = if holes == Holes::Never { file.size } else { fetch.data_size(image, file)? };
            *fetch.space.entry(mount_of(plan, &file.path)).or_default() += size.next_multiple_of(BLOCK);
        }
        for of_layer in writes.fetched.chunk_by(|one, other| one.at.layer == other.at.layer) {
            fetch.add_layer(image, of_layer, spools, limits)?;
        }
        Ok(fetch)
    }

    /// Chooses the mode of a layer, and adds what is fetched of it.
    fn add_layer(
        &mut self,
        image: &Image<'_>,
        files: &[WantedFile],
        spools: &SpooledLayers,
        limits: &Limits,
    ) -> Result<()> {
        let Some(number) = files.first().map(|file| file.at.layer) else { return Ok(()) };
        if spools.contains_key(&number) || image.indexed_layer(number).is_none() {
            self.modes.insert(number, LayerMode::Spool);
            return Ok(());
        }
        let size = image.manifest().layers.get(number).map_or(0, |layer| layer.size);
        let cost = self.layer_cost(files, limits)?;
        let by_ranges = cost.fetched.filter(|plan| {
            let cost = plan.bytes().saturating_add(plan.requests() * REQUEST_COST);
            // A small layer is not worth a decision: its ranges are never more than it has.
            plan.requests() <= 1 || cost <= size / 100 * WHOLE_LAYER
        });
        let Some(by_ranges) = by_ranges else {
            self.modes.insert(number, LayerMode::Stream);
            (self.bytes, self.requests) = (self.bytes + size, self.requests + 1);
            return Ok(());
        };
        self.modes.insert(number, LayerMode::Ranges);
        self.bytes += by_ranges.bytes();
        self.requests += by_ranges.requests();
        self.reused += cost.reused;
        for file in files {
            let mut chunks = self.chunks.of(file.at)?;
            while let Some(chunk) = chunks.next()? {
                if !has_locally(file, &chunk) {
                    self.ranges.add(number, &chunk)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the ranges for the files of a layer; none if they are too many.
    fn layer_cost(&mut self, files: &[WantedFile], limits: &Limits) -> Result<LayerCost> {
        let mut cost = LayerCost { reused: 0, fetched: Some(FetchPlan::within(limits)) };
        for file in files {
            let mut chunks = self.chunks.of(file.at)?;
            while let Some(chunk) = chunks.next()? {
                if chunk.zeros {
                    continue;
                }
                if has_locally(file, &chunk) {
                    cost.reused += chunk.size;
                } else if let Some(plan) = &mut cost.fetched
                    && plan.add(file.at.layer, &chunk).is_err()
                {
                    cost.fetched = None;
                }
            }
        }
        Ok(cost)
    }

    /// Returns the size of a content without its long runs of zeros.
    fn data_size(&mut self, image: &Image<'_>, file: &WantedFile) -> Result<u64> {
        if image.indexed_layer(file.at.layer).is_none() {
            return Ok(file.size);
        }
        let (mut chunks, mut size) = (self.chunks.of(file.at)?, 0);
        while let Some(chunk) = chunks.next()? {
            size += if chunk.zeros { 0 } else { chunk.size };
        }
        Ok(size)
    }
}

/// Finds the chunks of all files of indexed layers.
fn find_chunks<'i>(image: &'i Image<'i>, writes: &Writes) -> Result<FileChunks<'i>> {
    let Writes { local, fetched, duplicates } = writes;
    let all = local.iter().chain(fetched).chain(duplicates);
    let indexed = all.filter(|file| image.indexed_layer(file.at.layer).is_some());
    FileChunks::find(image, indexed.map(|file| file.at))
}

/// Returns whether the target has a chunk of a file.
fn has_locally(file: &WantedFile, chunk: &Chunk) -> bool {
    file.reuse.as_ref().is_some_and(|reuse| reuse.place(&chunk.digest, chunk.offset).is_some())
}

/// Returns the innermost mount point that a path is in.
fn mount_of(plan: &Plan, path: &TreePath) -> TreePath {
    let mounts = plan.mounts.iter().map(|mount| &mount.path).filter(|mount| path.is_in(mount));
    mounts.max_by_key(|mount| mount.as_bytes().len()).cloned().unwrap_or_default()
}
