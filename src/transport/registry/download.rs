//! Downloads of blobs (distribution-spec, "Pulling blobs").
//!
//! After a lost connection, the next one requests the rest (`Range`). A large blob is downloaded over several connections,
//! in parts that are put together in order. The digest proves the result, so the registry need not be trusted about ranges.
//! If it ignores them and sends the whole blob again, the bytes that were received before are skipped.

use super::client::Client;
use super::http::{Request, runtime, wait};
use super::rate::RateMonitor;
use super::response::Response;
use super::retry::{Attempts, unless_cancelled};
use super::token::Scopes;
use crate::error::{Error, Result};
use crate::stream::{CancelToken, Unverified};
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

/// The number of chunks in the queue of a blob that is not split. A chunk is what one read from the network returned, at
/// most half a mebibyte.
const QUEUE_DEPTH: usize = 4;
/// The size of the parts of a large blob in bytes. At most one part per connection, and one more per blob, is in memory.
const PART_SIZE: u64 = 4 << 20;
/// The number of chunks in the queue of a part: all of them, unless they are very small.
const PART_QUEUE_DEPTH: usize = 4096;
/// Chunks below this size in bytes are copied, because each may keep a buffer in memory that is a hundred times as large.
const MIN_SHARED_CHUNK: usize = 16 << 10;

/// An item of the queue between the network and the reader.
enum QueueItem {
    Bytes(Bytes),
    /// The range is complete.
    End,
    /// The registry has sent the whole blob instead of the part. Only one connection for all the rest makes sense then.
    WholeBlob,
}

/// The sending end of the queue. It is limited to [`PART_SIZE`] bytes, also if a server sends more than the range.
struct Queue {
    items: Sender<Result<QueueItem>>,
    /// One permit for each byte that the queue has room for.
    room: Arc<Semaphore>,
}

impl Queue {
    /// Waits for room and sends bytes. Returns `false` if the reader is gone.
    async fn send_bytes(&self, mut bytes: Bytes) -> bool {
        while !bytes.is_empty() {
            let mut chunk = bytes.split_to(bytes.len().min(PART_SIZE as usize));
            if chunk.len() < MIN_SHARED_CHUNK {
                chunk = Bytes::copy_from_slice(&chunk);
            }
            let Ok(room) = self.room.acquire_many(chunk.len() as u32).await else { return false };
            // The reader returns the permits when it takes the chunk.
            room.forget();
            if !self.send(Ok(QueueItem::Bytes(chunk))).await {
                return false;
            }
        }
        true
    }

    async fn send(&self, item: Result<QueueItem>) -> bool {
        self.items.send(item).await.is_ok()
    }
}

/// A blob in a registry, or a range of it, that can be downloaded from any offset.
#[derive(Clone)]
pub(super) struct Download {
    client: Arc<Client>,
    request: Request,
    scopes: Scopes,
    /// The size of the blob.
    size: u64,
    /// The range that is downloaded.
    range: Range<u64>,
    /// Ends this download, while the cancellation in the options ends everything.
    cancel: CancelToken,
}

/// A response with a range of a blob, or with the whole blob.
struct PartialResponse {
    response: Response,
    /// The number of bytes before the range, which have to be skipped.
    skip: u64,
}

impl Download {
    /// Returns a download. No request is sent yet.
    pub(super) fn new(client: &Arc<Client>, request: Request, scopes: Scopes, size: u64) -> Self {
        let cancel = CancelToken::default();
        Self { client: Arc::clone(client), request, scopes, size, range: 0..size, cancel }
    }

    /// Returns the same download, which ends with an error when `cancel` is cancelled.
    pub(super) fn cancelled_by(self, cancel: &CancelToken) -> Self {
        Self { cancel: cancel.clone(), ..self }
    }

    /// Begins to download the blob.
    pub(super) fn open(self) -> Result<Unverified> {
        let first = self.begin_at(0)?;
        Ok(self.into_unverified(first))
    }

    /// Begins to download a range; `None` if the registry sends only whole blobs.
    pub(super) fn open_range(mut self, range: Range<u64>) -> Result<Option<Unverified>> {
        self.range = range;
        if self.is_part() && self.client.ignores_ranges() {
            return Ok(None);
        }
        let first = self.begin(0)?;
        Ok(first.map(|first| self.into_unverified(first)))
    }

    fn into_unverified(self, first: DownloadReader) -> Unverified {
        Unverified::new(first).reopenable(move |offset| Ok(Box::new(self.begin_at(offset)?)))
    }

    /// Returns whether this is less than the whole blob.
    fn is_part(&self) -> bool {
        self.range != (0..self.size)
    }

    /// Begins at an offset.
    ///
    /// # Errors
    /// Also when the registry sends the whole blob and a range was requested.
    pub(super) fn begin_at(&self, offset: u64) -> Result<DownloadReader> {
        self.begin(offset)?.ok_or_else(|| self.whole_blob_error())
    }

    /// Begins at an offset. A large range is split into parts. If the registry then sends the whole blob, it is read over
    /// this connection. Returns `None` if a range was requested and the registry sends the whole blob.
    fn begin(&self, offset: u64) -> Result<Option<DownloadReader>> {
        let rest = self.range.start.saturating_add(offset)..self.range.end;
        if rest.is_empty() && self.size > 0 {
            // No `Range` header can express an empty range: `bytes=9-8` is an error.
            return Ok(Some(self.reader(rest.end)));
        }
        let is_large = rest.end - rest.start > 2 * PART_SIZE;
        let connections = self.client.options().concurrency.max(1);
        let end = if is_large && connections > 1 { rest.start + PART_SIZE } else { rest.end };
        let part = rest.start..end;
        let request = self.request_range(&part, self.request.clone());
        let first = match wait(unless_cancelled(&self.cancel, request)) {
            Err(error) if self.is_part() && refuses_ranges(&error) => {
                self.client.set_ignores_ranges();
                return Ok(None);
            }
            first => first?,
        };
        let is_partial = is_partial(&first.response);
        if self.is_part() && !is_partial {
            self.client.set_ignores_ranges();
            return Ok(None);
        }
        let mut reader = self.reader(if is_partial { end } else { rest.end });
        let range = rest.start..reader.next;
        reader.spawn(range, Some(first), is_partial, self.client.connection_permit())?;
        Ok(Some(reader))
    }

    /// Returns a reader without any parts. The first part begins at `next`.
    fn reader(&self, next: u64) -> DownloadReader {
        let (parts, current) = (VecDeque::new(), Bytes::new());
        DownloadReader { download: self.clone(), parts, position: 0, next, current, failed: false }
    }

    /// Requests a range, without a `Range` header if it is the whole blob.
    async fn request_range(&self, range: &Range<u64>, mut request: Request) -> Result<PartialResponse> {
        let is_whole = *range == (0..self.size);
        if !is_whole {
            request =
                request.header(RANGE, &format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        }
        let what = request.what.clone();
        let response = self.client.fetch(request, &self.scopes).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(match response.header(&CONTENT_RANGE).and_then(parse_size) {
                Some(size) if size != self.size => {
                    self.size_error(&what, &format!("it has {size} bytes there"))
                }
                // The caller reads the whole blob then, and notices if it is too short.
                _ if self.is_part() => Error::failed(format!("cannot {what}: the registry sends no parts"))
                    .with_status(response.status().as_u16()),
                _ => self.size_error(&what, "it has fewer bytes there"),
            });
        }
        let response = response.success().await?;
        if response.status() != StatusCode::PARTIAL_CONTENT || is_whole {
            return Ok(PartialResponse { response, skip: range.start });
        }
        match response.header(&CONTENT_RANGE).and_then(parse_range) {
            Some((_, Some(size))) if size != self.size => {
                Err(self.size_error(&what, &format!("it has {size} bytes there")))
            }
            // A shorter range is accepted; another request fetches the rest.
            Some((sent, _)) if sent.start == range.start && sent.end <= range.end => {
                Ok(PartialResponse { response, skip: 0 })
            }
            _ => Err(Error::integrity(format!(
                "cannot {what}: the registry sends another range than it was asked for"
            ))
            .with_hint("it, or a cache in front of it, does not know ranges")),
        }
    }

    fn size_error(&self, what: &str, why: &str) -> Error {
        Error::integrity(format!("cannot {what}: it should have {} bytes, and {why}", self.size))
            .with_hint("it was damaged or replaced where it is stored; nothing of it was used")
    }

    /// Returns the error for a registry that has sent a range before and now sends the whole blob.
    fn whole_blob_error(&self) -> Error {
        self.client.set_ignores_ranges();
        let what = &self.request.what;
        Error::failed(format!("cannot {what}: the registry sends the whole blob instead of a part"))
            .with_retry_after(Duration::ZERO)
    }

    /// Requests the rest of a range. The caller retries.
    async fn request_rest(&self, range: &Range<u64>) -> Result<PartialResponse> {
        let request = self.request_range(range, self.request.clone().once());
        let next = unless_cancelled(&self.client.options().cancel, request).await?;
        if self.is_part() && !is_partial(&next.response) {
            return Err(self.whole_blob_error());
        }
        Ok(next)
    }

    /// Downloads a range into a queue, over as many consecutive connections as it takes.
    async fn fetch(
        self,
        mut range: Range<u64>,
        mut first: Option<PartialResponse>,
        is_one_of_many: bool,
        queue: Queue,
    ) {
        let options = self.client.options();
        let (mut attempts, mut rate) = (Attempts::new(options), RateMonitor::new(options));
        loop {
            let before = range.start;
            let begun = Instant::now();
            let next = match first.take() {
                Some(first) => Ok(first),
                None => self.request_rest(&range).await,
            };
            let result = match next {
                // Skipping everything before each part would take time quadratic in the size of the blob.
                Ok(next) if is_one_of_many && next.skip >= PART_SIZE => {
                    let _ = queue.send(Ok(QueueItem::WholeBlob)).await;
                    return;
                }
                Ok(mut next) => {
                    let _ = rate.add(begun.elapsed(), 0);
                    next.response.rate = rate;
                    let forwarding = forward(&mut next, &mut range, self.size, &queue);
                    let result = unless_cancelled(&options.cancel, forwarding).await;
                    rate = next.response.rate;
                    result
                }
                Err(error) => Err(error),
            };
            let Err(error) = result else {
                // This fails if the reader is gone.
                let _ = queue.send(Ok(QueueItem::End)).await;
                return;
            };
            if range.start > before {
                attempts.restart();
            }
            let failed = Instant::now();
            // Connections that break after a few bytes each would restart the attempts for ever, so that the rate
            // counts too.
            if rate.slow_periods() > options.retry.retries || !attempts.wait_for_retry(&error).await {
                let _ = queue.send(Err(error)).await;
                return;
            }
            let _ = rate.add(failed.elapsed(), 0);
        }
    }
}

/// Forwards the body of a response to the queue until the range is complete. Bytes after the end of the whole blob are
/// forwarded too, because the verification has to see them.
async fn forward(
    PartialResponse { response, skip }: &mut PartialResponse,
    range: &mut Range<u64>,
    size: u64,
    queue: &Queue,
) -> Result<()> {
    let is_last = range.end == size;
    let is_part = is_partial(response);
    let has_length =
        [&CONTENT_LENGTH, &TRANSFER_ENCODING].into_iter().any(|name| response.header(name).is_some());
    while is_last || range.start < range.end {
        let mut chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Err(error) if range.start < size => return Err(error),
            // A complete response that is shorter than the blob means that the stored blob is damaged, which its reader
            // notices. A response without a length, or with a part, may only have been cut off.
            Ok(None) if range.start < size && (is_part || !has_length) => return Err(response.truncated()),
            _ => return Ok(()),
        };
        let skipped = (*skip).min(chunk.len() as u64);
        chunk.advance(skipped as usize);
        *skip -= skipped;
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

/// Returns whether the registry, or a proxy in front of it, does not support ranges.
fn refuses_ranges(error: &Error) -> bool {
    [StatusCode::RANGE_NOT_SATISFIABLE, StatusCode::NOT_IMPLEMENTED]
        .iter()
        .any(|status| error.status() == Some(status.as_u16()))
}

/// Parses the size of the blob in the `Content-Range` of status 416.
fn parse_size(header: &str) -> Option<u64> {
    header.trim().strip_prefix("bytes")?.trim().strip_prefix("*/")?.trim().parse().ok()
}

/// Parses the range and the size of the blob in a `Content-Range` (RFC 9110, section 14.4).
fn parse_range(header: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, size) = header.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let size = if size == "*" { None } else { Some(size.parse().ok()?) };
    let end = last.trim().parse::<u64>().ok()?.checked_add(1)?;
    Some((start.trim().parse().ok()?..end, size))
}

/// A part of the blob that is being downloaded.
struct PendingPart {
    start: u64,
    items: Receiver<Result<QueueItem>>,
    room: Arc<Semaphore>,
    task: AbortHandle,
    /// Held until the part was read, because the bytes in memory count too.
    _permit: Option<OwnedSemaphorePermit>,
}

/// A reader of the bytes of a download. It ends only after the connections have said that their ranges are complete.
pub(super) struct DownloadReader {
    download: Download,
    parts: VecDeque<PendingPart>,
    /// The number of bytes that were received of the first part.
    position: u64,
    /// The start of the next part.
    next: u64,
    current: Bytes,
    failed: bool,
}

impl DownloadReader {
    fn spawn(
        &mut self,
        range: Range<u64>,
        first: Option<PartialResponse>,
        is_one_of_many: bool,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<()> {
        let (start, is_unsplit) = (range.start, range.end - range.start > PART_SIZE);
        let (sender, items) = channel(if is_unsplit { QUEUE_DEPTH } else { PART_QUEUE_DEPTH });
        let room = Arc::new(Semaphore::new(PART_SIZE as usize));
        let queue = Queue { items: sender, room: Arc::clone(&room) };
        let cancel = self.download.cancel.clone();
        let fetch = self.download.clone().fetch(range, first, is_one_of_many, queue);
        // A cancellation drops the queue, which ends the wait of the reader.
        let task = runtime()?.spawn(async move {
            let fetch = async {
                fetch.await;
                Ok(())
            };
            unless_cancelled(&cancel, fetch).await
        });
        self.parts.push_back(PendingPart { start, items, room, task: task.abort_handle(), _permit: permit });
        Ok(())
    }

    /// Starts more parts, up to the number of connections. Two parts need no permit: the second one begins before the first
    /// one ends, and no blob waits for the reader of another blob.
    fn start_parts(&mut self) -> Result<()> {
        let (connections, end) = (self.download.client.options().concurrency, self.download.range.end);
        while self.next < end && self.parts.len() < connections.max(2) {
            let permit = self.download.client.connection_permit();
            if permit.is_none() && self.parts.len() >= 2 {
                break;
            }
            let part_end = (self.next + PART_SIZE).min(end);
            self.spawn(self.next..part_end, None, true, permit)?;
            self.next = part_end;
        }
        Ok(())
    }

    /// Returns the next bytes, or none at the end.
    fn receive(&mut self) -> Result<Bytes> {
        loop {
            self.start_parts()?;
            let Some(part) = self.parts.front_mut() else { return Ok(Bytes::new()) };
            match part.items.blocking_recv() {
                Some(Ok(QueueItem::Bytes(chunk))) => {
                    part.room.add_permits(chunk.len());
                    self.position += chunk.len() as u64;
                    return Ok(chunk);
                }
                Some(Ok(QueueItem::End)) => {
                    self.parts.pop_front();
                    self.position = 0;
                }
                Some(Ok(QueueItem::WholeBlob)) => {
                    let offset = part.start + self.position;
                    self.abort();
                    self.next = self.download.range.end;
                    self.spawn(offset..self.next, None, false, self.download.client.connection_permit())?;
                }
                Some(Err(error)) => return Err(error),
                None => {
                    self.download.cancel.check()?;
                    return Err(Error::failed("the download has ended before it was complete"));
                }
            }
        }
    }

    fn abort(&mut self) {
        self.position = 0;
        self.parts.drain(..).for_each(|part| part.task.abort());
    }
}

impl Read for DownloadReader {
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

impl Drop for DownloadReader {
    /// Aborts the download. A slow server would otherwise hold the connections.
    fn drop(&mut self) {
        self.abort();
    }
}
