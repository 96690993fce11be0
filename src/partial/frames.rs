//! The frames that are needed, fetched by as few ranges as there can be, ahead of who reads them.

use super::Reading;
use crate::error::{Error, Result};
use crate::layer::{Chunk, Limits, PlainFrame};
use crate::stream::map_in_order;
use std::ops::Range;
use std::slice;

/// The most that is fetched by one range, in bytes, where frames are no larger: what each connection holds in memory.
const SPAN: u64 = 4 << 20;
/// What is fetched for nothing where two frames are no further apart: less than a request costs. Between the frames of a
/// sparse file stand those of its zeros, of some hundred bytes each.
const GAP: u64 = 64 << 10;

/// A stretch of a layer that is fetched by one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub layer: usize,
    pub range: Range<u64>,
}

/// Which frames will be needed, in that order: some 30 bytes for each span of up to 4 MiB.
#[derive(Debug)]
pub struct Plan {
    pub(super) spans: Vec<Span>,
    /// The most spans that it may have.
    most: u64,
}

impl Plan {
    /// One that needs nothing yet, and remembers no more than these allow: a span begins at an entry that is wanted, or
    /// behind 4 MiB of one.
    pub fn within(limits: &Limits) -> Self {
        let memory = limits.max_names / 2 / size_of::<Span>() as u64;
        Self { spans: Vec::new(), most: limits.max_entries.min(memory) }
    }

    /// Adds the frame of this chunk of a layer, if it has to be fetched.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when that is more than an image may make us remember.
    pub fn add(&mut self, layer: usize, chunk: &Chunk) -> Result<()> {
        if chunk.zeros {
            return Ok(());
        }
        let Range { start, end } = chunk.frame;
        let most = self.most;
        let is_full = self.spans.len() as u64 >= most;
        match self.spans.last_mut().filter(|last| last.layer == layer) {
            Some(last) if last.range.start <= start && end <= last.range.end => {}
            Some(last)
                if (last.range.end..=last.range.end.saturating_add(GAP)).contains(&start)
                    && end - last.range.start <= SPAN =>
            {
                last.range.end = end;
            }
            _ if is_full => {
                return Err(Error::integrity(format!(
                    "what is wanted is scattered over more than {most} places"
                ))
                .with_hint("no honest image has that; --max-entries and --max-names allow more"));
            }
            _ => self.spans.push(Span { layer, range: start..end }),
        }
        Ok(())
    }

    /// How many bytes will be fetched.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.range.end - span.range.start).sum()
    }
}

/// The frames of a plan, in its order.
pub struct Frames<'a> {
    spans: slice::Iter<'a, Span>,
    next: &'a mut dyn FnMut() -> Option<Result<Vec<u8>>>,
    /// The last span that came, and its bytes, which nothing has proved.
    span: Option<(&'a Span, Vec<u8>)>,
    /// The last frame, and the layer that it is of.
    frame: Option<(usize, PlainFrame)>,
}

impl Reading<'_> {
    /// Fetches the frames of a plan while `read` reads them.
    ///
    /// # Errors
    /// Those of `read`, which gets those of the source.
    pub fn frames<R>(&self, plan: &Plan, read: impl FnOnce(&mut Frames<'_>) -> Result<R>) -> Result<R> {
        let task = self.progress.begin("fetching", Some(plan.bytes()));
        let fetch = |span: &Span| {
            let bytes = self.fetch(span)?;
            task.advance(bytes.len() as u64);
            Ok(bytes)
        };
        map_in_order(self.connections, &plan.spans, fetch, |next| {
            read(&mut Frames { spans: plan.spans.iter(), next, span: None, frame: None })
        })
    }

    fn fetch(&self, span: &Span) -> Result<Vec<u8>> {
        let Some(layer) = self.layers.get(span.layer) else { return Err(not_planned()) };
        let size = usize::try_from(span.range.end - span.range.start).unwrap_or(usize::MAX);
        let part = self.source.open_range(layer, span.range.clone())?;
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

impl Frames<'_> {
    /// One chunk of a layer, proved. The chunks must be asked for in the order in which they were planned.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when it is not there; those of the source.
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
            if let Some((Span { layer: of, range }, bytes)) = &self.span
                && *of == layer
                && range.start <= at.start
                && at.end <= range.end
            {
                let within = |offset: u64| usize::try_from(offset - range.start).unwrap_or(usize::MAX);
                let bytes = bytes.get(within(at.start)..within(at.end)).unwrap_or_default();
                return PlainFrame::new(at.clone(), bytes);
            }
            let Some(span) = self.spans.next() else { return Err(not_planned()) };
            // The one before goes first: two would be more memory than was said.
            self.span = None;
            let bytes = (self.next)().ok_or_else(not_planned)??;
            self.span = Some((span, bytes));
        }
    }
}

fn not_planned() -> Error {
    Error::failed("a frame is needed that nobody planned to fetch; this is a bug in volio")
}
