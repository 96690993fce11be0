//! A body on its way out: a thread that may block feeds it, a task that must not block takes it.

use bytes::Bytes;
use futures_core::Stream;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

/// Chunks that wait for the network: enough that neither side is idle while the other one blinks.
const AHEAD: usize = 4;
/// How many times the usual patience a registry gets for its answer when it has everything: it may now move
/// gigabytes in a store behind it.
const DIGESTION: u32 = 10;

/// What travels: bytes, or the word that these were all.
enum Part {
    Bytes(Bytes),
    End,
}

/// A body of `size` bytes, or of as many as there will be.
pub(super) fn outgoing(size: Option<u64>) -> (Feed, Outgoing) {
    let (parts, taken) = channel(AHEAD);
    (Feed { parts }, Outgoing { parts: taken, size, flow: Arc::default(), ended: false })
}

/// The end that is fed. Dropping it abandons the request; only [`finish`](Feed::finish) ends the body.
pub(super) struct Feed {
    parts: Sender<Part>,
}

impl Feed {
    /// Hands on bytes when there is room; `false` when nobody wants any more of them.
    #[must_use]
    pub(super) fn send(&self, bytes: Bytes) -> bool {
        self.parts.blocking_send(Part::Bytes(bytes)).is_ok()
    }

    /// Says that this was all.
    pub(super) fn finish(self) {
        // Nobody wants to know: then the answer is there already.
        let _ = self.parts.blocking_send(Part::End);
    }
}

/// The end that is taken by the connection.
pub(super) struct Outgoing {
    parts: Receiver<Part>,
    size: Option<u64>,
    flow: Arc<Flow>,
    ended: bool,
}

impl Outgoing {
    /// The number of bytes, where it is known beforehand.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// What there is to know of the body while the connection has it.
    pub(super) fn flow(&self) -> Arc<Flow> {
        Arc::clone(&self.flow)
    }
}

impl Stream for Outgoing {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let part = self.parts.poll_recv(context);
        self.flow.hungry.store(part.is_pending(), Ordering::Relaxed);
        self.flow.taken.fetch_add(1, Ordering::Relaxed);
        part.map(|part| match part {
            Some(Part::Bytes(bytes)) => Some(Ok(bytes)),
            Some(Part::End) => {
                self.ended = true;
                self.flow.ended.store(true, Ordering::Relaxed);
                None
            }
            // An error here cuts the connection, so that the registry does not take a part for the whole.
            None => {
                Some(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the data ended before it was complete")))
            }
        })
    }
}

/// Whether a body moves, and who is waited for if it does not.
#[derive(Default)]
pub(super) struct Flow {
    /// Grows whenever the connection takes something.
    taken: AtomicU64,
    /// The connection would take more, and we have nothing yet: that may last as long as it likes.
    hungry: AtomicBool,
    /// The connection has everything.
    ended: AtomicBool,
}

impl Flow {
    /// Waits for the answer to a request with this body; `None` when the other side has been silent too long.
    pub(super) async fn watch<T>(&self, patience: Duration, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = pin!(answer);
        let mut before = self.taken.load(Ordering::Relaxed);
        let mut silent = 0;
        loop {
            if let Ok(answer) = timeout(patience, &mut answer).await {
                return Some(answer);
            }
            let now = self.taken.load(Ordering::Relaxed);
            let moves = now != before || self.hungry.load(Ordering::Relaxed);
            silent = if moves { 0 } else { silent + 1 };
            before = now;
            let allowed = if self.ended.load(Ordering::Relaxed) { DIGESTION } else { 1 };
            if silent >= allowed {
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

    const PATIENCE: Duration = Duration::from_millis(20);

    fn next(outgoing: &mut Outgoing) -> Option<io::Result<Bytes>> {
        runtime().unwrap().block_on(poll_fn(|context| Pin::new(&mut *outgoing).poll_next(context)))
    }

    #[test]
    fn a_feed_that_dies_is_an_error_and_not_an_end() {
        let (feed, mut outgoing) = outgoing(None);
        assert!(feed.send(Bytes::from_static(b"half")));
        drop(feed);
        assert_eq!(next(&mut outgoing).unwrap().unwrap(), b"half"[..]);
        assert!(next(&mut outgoing).unwrap().is_err());
    }

    #[test]
    fn a_feed_that_finishes_is_an_end() {
        let (feed, mut outgoing) = outgoing(None);
        feed.finish();
        assert!(next(&mut outgoing).is_none());
        assert!(next(&mut outgoing).is_none());
    }

    #[test]
    fn a_feed_learns_that_nobody_wants_more() {
        let (feed, outgoing) = outgoing(None);
        drop(outgoing);
        assert!(!feed.send(Bytes::new()));
    }

    #[test]
    fn a_server_that_takes_nothing_is_given_up_and_a_slow_producer_is_waited_for() {
        let flow = Flow::default();
        let watch = |flow: &Flow| {
            let patient = async { timeout(PATIENCE * 5, flow.watch(PATIENCE, pending::<()>())).await };
            runtime().unwrap().block_on(patient)
        };
        assert!(matches!(watch(&flow), Ok(None)), "nothing moves");
        flow.hungry.store(true, Ordering::Relaxed);
        assert!(watch(&flow).is_err(), "we are waited for");
        flow.hungry.store(false, Ordering::Relaxed);
        flow.ended.store(true, Ordering::Relaxed);
        assert!(watch(&flow).is_err(), "the registry has everything and may take its time");
    }
}
