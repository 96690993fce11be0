//! Blobs coming out (distribution-spec, "Pulling blobs").
//!
//! A connection that breaks is followed by another one that asks for the rest (`Range`). A large blob comes over
//! several connections, a part on each, and is put together in order. Neither needs the registry's word: the digest
//! proves what came. One that does not know ranges sends the whole blob again, and what is here is passed over.

use super::client::Client;
use super::http::{Request, runtime, wait};
use super::rate::RateMonitor;
use super::response::Response;
use super::retry::{Attempts, unless_cancelled};
use super::token::Scopes;
use crate::error::{Error, Result};
use crate::stream::Unverified;
use bytes::{Buf, Bytes};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE, TRANSFER_ENCODING};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

/// Chunks that wait for the reader; a chunk is what the network gave at once, at most half a mebibyte.
const AHEAD: usize = 4;
/// The size of the parts of a large blob, in bytes. As many as there are connections wait in memory at most, and one more
/// for each blob.
const PART: u64 = 4 << 20;
/// Chunks of a part that wait: all of them, unless they are crumbs.
const AHEAD_IN_PART: usize = 4096;
/// A chunk that is smaller is copied: it may be a piece of a buffer that is a hundred times as large.
const CRUMB: usize = 16 << 10;

/// What comes of a range.
enum Chunk {
    Bytes(Bytes),
    /// That was all of it.
    End,
    /// The registry sends the whole blob instead: only who asks for the rest of it gets through to its end.
    Whole,
}

/// The end of a queue that is written: it takes so many chunks, and of them no more bytes than a part has, whatever a server
/// sends behind the end of a range.
struct Queue {
    chunks: Sender<Result<Chunk>>,
    /// How many bytes more may wait.
    room: Arc<Semaphore>,
}

impl Queue {
    /// Waits until there is room, and says whether anybody still wants the bytes.
    async fn send_bytes(&self, mut bytes: Bytes) -> bool {
        while !bytes.is_empty() {
            let mut piece = bytes.split_to(bytes.len().min(PART as usize));
            if piece.len() < CRUMB {
                piece = Bytes::copy_from_slice(&piece);
            }
            let Ok(room) = self.room.acquire_many(piece.len() as u32).await else { return false };
            // It is given back when the reader takes the piece.
            room.forget();
            if !self.send(Ok(Chunk::Bytes(piece))).await {
                return false;
            }
        }
        true
    }

    async fn send(&self, chunk: Result<Chunk>) -> bool {
        self.chunks.send(chunk).await.is_ok()
    }
}

/// A blob in a registry, which can be fetched from any offset on.
#[derive(Clone)]
pub(super) struct Download {
    client: Arc<Client>,
    request: Request,
    scopes: Scopes,
    /// The size of the blob.
    size: u64,
    /// What of it is fetched.
    wanted: Range<u64>,
}

/// An response, and how many of its bytes are here already.
type Begun = (Response, u64);

impl Download {
    /// Asks nothing yet.
    pub(super) fn new(client: &Arc<Client>, request: Request, scopes: Scopes, size: u64) -> Self {
        Self { client: Arc::clone(client), request, scopes, size, wanted: 0..size }
    }

    /// Begins to fetch the blob, for a thread that may block.
    pub(super) fn open(self) -> Result<Unverified> {
        let first = self.begin_surely(0)?;
        Ok(self.unverified(first))
    }

    /// Begins to fetch a range of the blob and nothing else; `None` when the registry sends only whole blobs.
    pub(super) fn open_range(mut self, range: Range<u64>) -> Result<Option<Unverified>> {
        self.wanted = range;
        if self.is_part() && self.client.sends_only_whole_blobs() {
            return Ok(None);
        }
        let first = self.begin(0)?;
        Ok(first.map(|first| self.unverified(first)))
    }

    fn unverified(self, first: Incoming) -> Unverified {
        Unverified::new(first).reopenable(move |offset| Ok(Box::new(self.begin_surely(offset)?)))
    }

    /// Whether less than the whole blob is wanted.
    fn is_part(&self) -> bool {
        self.wanted != (0..self.size)
    }

    /// Begins where there must be a way to do so.
    pub(super) fn begin_surely(&self, offset: u64) -> Result<Incoming> {
        self.begin(offset)?.ok_or_else(|| self.is_whole())
    }

    /// Begins in parts where there are many; if the registry does not know ranges, the first part is all. `None` when a
    /// part of the blob is wanted and all of it would come.
    fn begin(&self, offset: u64) -> Result<Option<Incoming>> {
        let all = self.wanted.start.saturating_add(offset)..self.wanted.end;
        if all.is_empty() && self.size > 0 {
            // Nothing is left, and no range says so: `bytes=9-8` is an error.
            return Ok(Some(self.incoming(all.end)));
        }
        let is_large = all.end - all.start > 2 * PART;
        let connections = self.client.options().concurrency.max(1);
        let end = if is_large && connections > 1 { all.start + PART } else { all.end };
        let begun = match wait(self.ask(&(all.start..end), self.request.clone())) {
            Err(error) if self.is_part() && refuses_parts(&error) => {
                self.client.has_sent_a_whole_blob();
                return Ok(None);
            }
            begun => begun?,
        };
        let partial = is_partial(&begun.0);
        if self.is_part() && !partial {
            self.client.has_sent_a_whole_blob();
            return Ok(None);
        }
        let mut incoming = self.incoming(if partial { end } else { all.end });
        let range = all.start..incoming.next;
        incoming.spawn(range, Some(begun), partial, self.client.place())?;
        Ok(Some(incoming))
    }

    /// Nothing under way yet; the first part that is not begins at `next`.
    fn incoming(&self, next: u64) -> Incoming {
        let (parts, current) = (VecDeque::new(), Bytes::new());
        Incoming { download: self.clone(), parts, position: 0, next, current, failed: false }
    }

    /// Asks for a range, and for nothing less when that is all there is.
    async fn ask(&self, range: &Range<u64>, mut request: Request) -> Result<Begun> {
        let is_all = *range == (0..self.size);
        if !is_all {
            request =
                request.header(RANGE, &format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        }
        let what = request.what.clone();
        let response = self.client.fetch(request, &self.scopes).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(match response.header(&CONTENT_RANGE).and_then(parse_size) {
                Some(size) if size != self.size => self.lie(&what, &format!("it has {size} bytes there")),
                // Whoever then reads all of it finds out whether it is too short.
                _ if self.is_part() => Error::failed(format!("cannot {what}: the registry sends no parts"))
                    .with_status(response.status().as_u16()),
                _ => self.lie(&what, "it has fewer bytes there"),
            });
        }
        let response = response.success().await?;
        let begun = match response.status() {
            StatusCode::PARTIAL_CONTENT if !is_all => {
                match response.header(&CONTENT_RANGE).and_then(parse_range) {
                    Some((_, Some(size))) if size != self.size => {
                        return Err(self.lie(&what, &format!("it has {size} bytes there")));
                    }
                    // Less than was asked for is followed by the rest.
                    Some((sent, _)) if sent.start == range.start && sent.end <= range.end => 0,
                    _ => return Err(another_range(&what)),
                }
            }
            _ => range.start,
        };
        Ok((response, begun))
    }

    fn lie(&self, what: &str, why: &str) -> Error {
        Error::integrity(format!("cannot {what}: it should have {} bytes, and {why}", self.size))
            .with_hint("it was damaged or replaced where it is stored; nothing of it was used")
    }

    /// The error for a registry that sent parts, and then the whole instead of one.
    fn is_whole(&self) -> Error {
        self.client.has_sent_a_whole_blob();
        let what = &self.request.what;
        Error::failed(format!("cannot {what}: the registry sends the whole blob instead of a part"))
            .with_retry_after(Duration::ZERO)
    }

    /// Fetches a range, over as many connections one after the other as it takes.
    async fn fetch(
        self,
        mut range: Range<u64>,
        mut begun: Option<Begun>,
        is_one_of_many: bool,
        queue: Queue,
    ) {
        let options = self.client.options();
        let (mut attempts, mut pace, cancel) =
            (Attempts::new(options), RateMonitor::new(options), &options.cancel);
        loop {
            let before = range.start;
            let asked = Instant::now();
            let next = match begun.take() {
                Some(begun) => Ok(begun),
                None => match unless_cancelled(cancel, self.ask(&range, self.request.clone().once())).await {
                    Ok((response, _)) if self.is_part() && !is_partial(&response) => Err(self.is_whole()),
                    next => next,
                },
            };
            let outcome = match next {
                // To read through all that comes before each part would take the square of the blob's size.
                Ok((_, had)) if is_one_of_many && had >= PART => {
                    let _ = queue.send(Ok(Chunk::Whole)).await;
                    return;
                }
                Ok(mut begun) => {
                    let _ = pace.add(asked.elapsed(), 0);
                    begun.0.rate = pace;
                    let passing = pass_on(&mut begun, &mut range, self.size, &queue);
                    let outcome = unless_cancelled(cancel, passing).await;
                    pace = begun.0.rate;
                    outcome
                }
                Err(error) => Err(error),
            };
            let Err(error) = outcome else {
                // Nobody wants to know: the reader is gone.
                let _ = queue.send(Ok(Chunk::End)).await;
                return;
            };
            if range.start > before {
                attempts.restart();
            }
            let failed = Instant::now();
            // What breaks off after a few bytes each time is as slow as what trickles.
            if pace.slow_periods() > options.retry.retries || !attempts.wait_for_retry(&error).await {
                let _ = queue.send(Err(error)).await;
                return;
            }
            let _ = pace.add(failed.elapsed(), 0);
        }
    }
}

/// Passes the bytes of an response on to the reader, without the first `had`, until the range is over. What lies behind
/// the end of the whole blob is passed on too: whoever verifies it must see that it is there.
async fn pass_on(
    (response, had): &mut Begun,
    range: &mut Range<u64>,
    size: u64,
    queue: &Queue,
) -> Result<()> {
    let is_last = range.end == size;
    let is_part = is_partial(response);
    let is_framed =
        [&CONTENT_LENGTH, &TRANSFER_ENCODING].into_iter().any(|name| response.header(name).is_some());
    while is_last || range.start < range.end {
        let mut chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Err(error) if range.start < size => return Err(error),
            // A blob that is whole where it comes from, and short, is damaged; its reader finds that out. Anything
            // else that ends early only broke off.
            Ok(None) if range.start < size && (is_part || !is_framed) => return Err(response.truncated()),
            _ => return Ok(()),
        };
        let here = (*had).min(chunk.len() as u64);
        chunk.advance(here as usize);
        *had -= here;
        if !is_last {
            chunk.truncate(usize::try_from(range.end - range.start).unwrap_or(usize::MAX));
        }
        range.start += chunk.len() as u64;
        if !queue.send_bytes(chunk).await {
            return Ok(());
        }
    }
    Ok(())
}

fn is_partial(response: &Response) -> bool {
    response.status() == StatusCode::PARTIAL_CONTENT
}

fn another_range(what: &str) -> Error {
    Error::integrity(format!("cannot {what}: the registry sends another range than it was asked for"))
        .with_hint("it, or a cache in front of it, does not know ranges")
}

/// Whether a registry, or what stands in front of it, says that it does not know ranges.
fn refuses_parts(error: &Error) -> bool {
    [StatusCode::RANGE_NOT_SATISFIABLE, StatusCode::NOT_IMPLEMENTED]
        .iter()
        .any(|status| error.status() == Some(status.as_u16()))
}

/// The size of the whole, of the `Content-Range` of an response that has no such range.
fn parse_size(header: &str) -> Option<u64> {
    header.trim().strip_prefix("bytes")?.trim().strip_prefix("*/")?.trim().parse().ok()
}

/// The range and the size of the whole, of a `Content-Range` (RFC 9110, section 14.4).
fn parse_range(header: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, size) = header.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let size = if size == "*" { None } else { Some(size.parse().ok()?) };
    let end = last.trim().parse::<u64>().ok()?.checked_add(1)?;
    Some((start.trim().parse().ok()?..end, size))
}

/// A part that is on its way.
struct Part {
    start: u64,
    chunks: Receiver<Result<Chunk>>,
    room: Arc<Semaphore>,
    task: AbortHandle,
    /// Held until the part was read: what waits in memory counts as well.
    _place: Option<OwnedSemaphorePermit>,
}

/// Bytes from the network. Only the word of the connection that this was all is an end of file.
pub(super) struct Incoming {
    download: Download,
    parts: VecDeque<Part>,
    /// How much of the first part was received, in bytes.
    position: u64,
    /// Where the next part begins.
    next: u64,
    current: Bytes,
    failed: bool,
}

impl Incoming {
    fn spawn(
        &mut self,
        range: Range<u64>,
        begun: Option<Begun>,
        is_one_of_many: bool,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<()> {
        let (start, is_all) = (range.start, range.end - range.start > PART);
        let (sender, chunks) = channel(if is_all { AHEAD } else { AHEAD_IN_PART });
        let room = Arc::new(Semaphore::new(PART as usize));
        let queue = Queue { chunks: sender, room: Arc::clone(&room) };
        let task = runtime()?.spawn(self.download.clone().fetch(range, begun, is_one_of_many, queue));
        self.parts.push_back(Part { start, chunks, room, task: task.abort_handle(), _place: place });
        Ok(())
    }

    /// Keeps as many parts under way as there may be. Two always: the second begins before the first one ends, and the
    /// reader of a blob never waits for the reader of another one.
    fn fill(&mut self) -> Result<()> {
        let (connections, all) = (self.download.client.options().concurrency, self.download.wanted.end);
        while self.next < all && self.parts.len() < connections.max(2) {
            let place = self.download.client.place();
            if place.is_none() && self.parts.len() >= 2 {
                break;
            }
            let end = (self.next + PART).min(all);
            self.spawn(self.next..end, None, true, place)?;
            self.next = end;
        }
        Ok(())
    }

    /// The next bytes; none at the end.
    fn receive(&mut self) -> Result<Bytes> {
        loop {
            self.fill()?;
            let Some(part) = self.parts.front_mut() else { return Ok(Bytes::new()) };
            match part.chunks.blocking_recv() {
                Some(Ok(Chunk::Bytes(chunk))) => {
                    part.room.add_permits(chunk.len());
                    self.position += chunk.len() as u64;
                    return Ok(chunk);
                }
                Some(Ok(Chunk::End)) => {
                    self.parts.pop_front();
                    self.position = 0;
                }
                Some(Ok(Chunk::Whole)) => {
                    let offset = part.start + self.position;
                    self.abandon();
                    self.next = self.download.wanted.end;
                    self.spawn(offset..self.next, None, false, self.download.client.place())?;
                }
                Some(Err(error)) => return Err(error),
                None => return Err(Error::failed("the download has ended before it was complete")),
            }
        }
    }

    fn abandon(&mut self) {
        self.position = 0;
        self.parts.drain(..).for_each(|part| part.task.abort());
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(Error::failed("the download has failed already").into());
        }
        if self.current.is_empty() {
            self.current = self.receive().inspect_err(|_| self.failed = true)?;
        }
        let taken = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..taken]);
        Ok(taken)
    }
}

impl Drop for Incoming {
    /// Ends the download where it is: a server that sends slowly would hold the connections for long.
    fn drop(&mut self) {
        self.abandon();
    }
}
