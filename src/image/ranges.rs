//! The frames that are needed of an image, fetched with as few range requests as possible, ahead of the reader.

use super::open::Image;
use crate::error::{Error, Result};
use crate::layer::{Chunk, Limits, PlainFrame};
use crate::progress::{Phase, TaskInfo};
use crate::stream::map_in_order;
use std::ops::Range;
use std::slice;

/// The size of one request, in bytes, unless a single frame is larger. Each connection holds that much in memory.
pub(super) const REQUEST_SIZE: u64 = 4 << 20;
/// Frames that are no further apart than this, in bytes, are fetched together: what lies between them costs less than
/// another request. Between the frames of a sparse file are those of its zeros, of some hundred bytes each.
pub(super) const GAP: u64 = 64 << 10;

/// A range of a layer that is fetched with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LayerRange {
    /// The number of the layer.
    pub layer: usize,
    pub range: Range<u64>,
}

/// The ranges to fetch, in the order in which they are read. A range takes some 30 bytes of memory.
#[derive(Debug)]
pub struct FetchPlan {
    pub(super) ranges: Vec<LayerRange>,
    max_ranges: u64,
}

impl FetchPlan {
    /// Creates an empty plan, which may grow as large as `limits` allow: a range begins at a wanted entry, or after 4 MiB
    /// of one.
    pub fn within(limits: &Limits) -> Self {
        let memory = limits.max_names / 2 / size_of::<LayerRange>() as u64;
        Self { ranges: Vec::new(), max_ranges: limits.max_entries.min(memory) }
    }

    /// Adds the frame of a chunk, unless the chunk is zeros, which are not fetched.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if the plan would exceed the limits.
    pub fn add(&mut self, layer: usize, chunk: &Chunk) -> Result<()> {
        if chunk.zeros {
            return Ok(());
        }
        let Range { start, end } = chunk.frame;
        let is_full = self.ranges.len() as u64 >= self.max_ranges;
        match self.ranges.last_mut().filter(|last| last.layer == layer) {
            Some(last) if last.range.start <= start && end <= last.range.end => {}
            Some(last)
                if (last.range.end..=last.range.end.saturating_add(GAP)).contains(&start)
                    && end - last.range.start <= REQUEST_SIZE =>
            {
                last.range.end = end;
            }
            _ if is_full => {
                let max = self.max_ranges;
                return Err(Error::integrity(format!(
                    "what is wanted is scattered over more than {max} places"
                ))
                .with_hint("no honest image has that; --max-entries and --max-names allow more"));
            }
            _ => self.ranges.push(LayerRange { layer, range: start..end }),
        }
        Ok(())
    }

    /// Joins neighbouring ranges that are no further apart than `gap`, in bytes, unless the result would be too large for
    /// one request.
    pub(super) fn join(&mut self, gap: u64) {
        self.ranges.dedup_by(|next, last| {
            let joins = next.layer == last.layer
                && next.range.start.saturating_sub(last.range.end) <= gap
                && next.range.end - last.range.start <= REQUEST_SIZE;
            if joins {
                last.range.end = next.range.end;
            }
            joins
        });
    }

    /// Returns the number of requests.
    pub fn requests(&self) -> u64 {
        self.ranges.len() as u64
    }

    /// Returns the number of bytes to fetch.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.range.end - range.range.start).sum()
    }
}

/// The frames of a [`FetchPlan`], in its order.
pub struct FetchedFrames<'a> {
    ranges: slice::Iter<'a, LayerRange>,
    /// Waits for the bytes of the next range.
    receive: &'a mut dyn FnMut() -> Option<Result<Vec<u8>>>,
    /// The last range that was received, and its bytes, which are not verified.
    current: Option<(&'a LayerRange, Vec<u8>)>,
    /// The last frame, and the number of its layer.
    frame: Option<(usize, PlainFrame)>,
}

impl Image<'_> {
    /// Fetches the frames of a plan over several connections while `read` reads them.
    ///
    /// # Errors
    /// Those of `read`, to which those of the source are returned.
    pub fn fetch_frames<R>(
        &self,
        plan: &FetchPlan,
        read: impl FnOnce(&mut FetchedFrames<'_>) -> Result<R>,
    ) -> Result<R> {
        let task = self.progress().begin(&TaskInfo::new(Phase::Fetching).with_total(plan.bytes()));
        let fetch = |range: &LayerRange| {
            let bytes = self.fetch_range(range)?;
            task.advance(bytes.len() as u64);
            Ok(bytes)
        };
        map_in_order(self.connections, &plan.ranges, fetch, |receive| {
            let ranges = plan.ranges.iter();
            let outcome = read(&mut FetchedFrames { ranges, receive, current: None, frame: None });
            self.context().cancel_after_error(outcome)
        })
    }

    fn fetch_range(&self, LayerRange { layer, range }: &LayerRange) -> Result<Vec<u8>> {
        let Some(layer) = self.manifest().layers.get(*layer) else { return Err(not_planned()) };
        let size = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let part = self.context().source().open_range(layer, range.clone())?;
        let only_whole = || {
            Error::failed(format!(
                "the place has begun to give only whole blobs, in the middle of {}",
                layer.digest
            ))
            .with_hint("try again: all will be read then")
        };
        part.ok_or_else(only_whole)?.take_unverified(size)
    }
}

impl FetchedFrames<'_> {
    /// Returns one chunk of a layer, verified by its digest. Chunks must be requested in the order of the plan.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if the frame does not hold it; those of the source.
    pub fn chunk(&mut self, layer: usize, chunk: &Chunk) -> Result<&[u8]> {
        let at = &chunk.frame;
        if !self.frame.as_ref().is_some_and(|(of, frame)| *of == layer && frame.is_at(at)) {
            self.frame = Some((layer, self.frame_at(layer, at)?));
        }
        let Some((_, frame)) = &self.frame else { return Err(not_planned()) };
        frame.chunk(chunk)
    }

    fn frame_at(&mut self, layer: usize, at: &Range<u64>) -> Result<PlainFrame> {
        loop {
            if let Some((LayerRange { layer: of, range }, bytes)) = &self.current
                && *of == layer
                && range.start <= at.start
                && at.end <= range.end
            {
                let within = |offset: u64| usize::try_from(offset - range.start).unwrap_or(usize::MAX);
                let bytes = bytes.get(within(at.start)..within(at.end)).unwrap_or_default();
                return PlainFrame::new(at.clone(), bytes);
            }
            let Some(range) = self.ranges.next() else { return Err(not_planned()) };
            // Free the last range before the next one is received, so that only one is in memory.
            self.current = None;
            let bytes = (self.receive)().ok_or_else(not_planned)??;
            self.current = Some((range, bytes));
        }
    }
}

fn not_planned() -> Error {
    Error::failed("a frame is needed that was not planned to be fetched; this is a bug in volio")
}
