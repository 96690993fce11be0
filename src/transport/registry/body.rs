//! Streaming request bodies: a blocking thread writes chunks, and a task of the runtime sends them.

use bytes::Bytes;
use http_body::{Body, Frame};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

/// The number of chunks in the queue: enough to keep both sides busy.
const QUEUE_DEPTH: usize = 4;
/// The factor on the timeout for the response after the whole body was sent: the registry may now move gigabytes
/// within its own storage.
const COMMIT_TIMEOUT_FACTOR: u32 = 10;

/// An item of the queue.
enum BodyChunk {
    Bytes(Bytes),
    End,
}

/// Returns both ends of a body. Without a `size` in bytes it is sent in chunked encoding.
pub(super) fn streaming_body(size: Option<u64>) -> (BodySender, StreamingBody) {
    let (sender, receiver) = channel(QUEUE_DEPTH);
    (BodySender { sender }, StreamingBody { receiver, size, progress: Arc::default(), ended: false })
}

/// The writing end of a body. Dropping it aborts the request; only [`finish`](BodySender::finish) ends the body.
pub(super) struct BodySender {
    sender: Sender<BodyChunk>,
}

impl BodySender {
    /// Blocks until the queue has room. Returns `false` if the request has ended.
    #[must_use]
    pub(super) fn send(&self, bytes: Bytes) -> bool {
        self.sender.blocking_send(BodyChunk::Bytes(bytes)).is_ok()
    }

    /// Ends the body.
    pub(super) fn finish(self) {
        // This fails if the request has ended, and then there is a response already.
        let _ = self.sender.blocking_send(BodyChunk::End);
    }
}

/// The reading end of a body, for the connection.
pub(super) struct StreamingBody {
    receiver: Receiver<BodyChunk>,
    size: Option<u64>,
    progress: Arc<BodyProgress>,
    ended: bool,
}

impl StreamingBody {
    /// Returns the number of bytes, if it is known in advance.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// Returns the progress of the body while the connection reads it.
    pub(super) fn progress(&self) -> Arc<BodyProgress> {
        Arc::clone(&self.progress)
    }
}

impl Body for StreamingBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let chunk = self.receiver.poll_recv(context);
        self.progress.is_starved.store(chunk.is_pending(), Ordering::Relaxed);
        self.progress.polls.fetch_add(1, Ordering::Relaxed);
        chunk.map(|chunk| match chunk {
            Some(BodyChunk::Bytes(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(BodyChunk::End) => {
                self.ended = true;
                self.progress.ended.store(true, Ordering::Relaxed);
                None
            }
            // An error closes the connection, so that the registry does not take a part for the whole.
            None => {
                Some(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the data ended before it was complete")))
            }
        })
    }
}

/// The progress of a body that a connection reads.
#[derive(Default)]
pub(super) struct BodyProgress {
    /// The number of times that the connection has asked for data.
    polls: AtomicU64,
    /// The connection waits for data. That is not the registry's fault, and has no time limit.
    is_starved: AtomicBool,
    /// The connection has received the whole body.
    ended: AtomicBool,
}

impl BodyProgress {
    /// Waits for the response to the request with this body. Returns `None` if the other side does nothing for `limit`,
    /// or for [`COMMIT_TIMEOUT_FACTOR`] times as long after the end of the body.
    pub(super) async fn watch<T>(&self, limit: Duration, response: impl Future<Output = T>) -> Option<T> {
        let mut response = pin!(response);
        let mut before = self.polls.load(Ordering::Relaxed);
        let mut idle_periods = 0;
        loop {
            if let Ok(response) = timeout(limit, &mut response).await {
                return Some(response);
            }
            let now = self.polls.load(Ordering::Relaxed);
            let is_moving = now != before || self.is_starved.load(Ordering::Relaxed);
            idle_periods = if is_moving { 0 } else { idle_periods + 1 };
            before = now;
            let allowed = if self.ended.load(Ordering::Relaxed) { COMMIT_TIMEOUT_FACTOR } else { 1 };
            if idle_periods >= allowed {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::runtime;
    use super::*;
    use std::future::{pending, poll_fn};

    const LIMIT: Duration = Duration::from_millis(20);

    fn next(body: &mut StreamingBody) -> Option<io::Result<Bytes>> {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        let frame = runtime().unwrap().block_on(frame)?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    #[test]
    fn a_sender_that_is_dropped_makes_an_error_and_not_an_end() {
        let (sender, mut body) = streaming_body(None);
        assert!(sender.send(Bytes::from_static(b"half")));
        drop(sender);
        assert_eq!(next(&mut body).unwrap().unwrap(), b"half"[..]);
        assert!(next(&mut body).unwrap().is_err());
    }

    #[test]
    fn a_sender_that_finishes_ends_the_body() {
        let (sender, mut body) = streaming_body(None);
        sender.finish();
        assert!(next(&mut body).is_none());
        assert!(next(&mut body).is_none());
    }

    #[test]
    fn a_sender_learns_that_the_request_has_ended() {
        let (sender, body) = streaming_body(None);
        drop(body);
        assert!(!sender.send(Bytes::new()));
    }

    #[test]
    fn a_server_that_reads_nothing_times_out_and_a_slow_producer_does_not() {
        let progress = BodyProgress::default();
        let watch = |progress: &BodyProgress| {
            let watched = async { timeout(LIMIT * 5, progress.watch(LIMIT, pending::<()>())).await };
            runtime().unwrap().block_on(watched)
        };
        assert!(matches!(watch(&progress), Ok(None)), "nothing moves");
        progress.is_starved.store(true, Ordering::Relaxed);
        assert!(watch(&progress).is_err(), "the connection waits for data");
        progress.is_starved.store(false, Ordering::Relaxed);
        progress.ended.store(true, Ordering::Relaxed);
        assert!(watch(&progress).is_err(), "the registry has the whole body and may take its time");
    }
}
