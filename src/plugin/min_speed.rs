//! The pace of a fetch: a registry that trickles would hold a volume for ever, and neither its engine nor its user would
//! know why.

use super::volume::TransferProgress;
use crate::error::Error;
use crate::stream::CancelToken;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The least that a fetch has to bring.
#[derive(Clone, Copy, Debug)]
pub struct MinSpeed {
    /// So many bytes …
    pub bytes: u64,
    /// … in each such time.
    pub within: Duration,
}

impl Default for MinSpeed {
    /// A mebibyte in five minutes: slower than any line that is in use, and long enough for a disk that is busy.
    fn default() -> Self {
        Self { bytes: 1 << 20, within: Duration::from_secs(5 * 60) }
    }
}

/// A watch over a fetch, until this is dropped.
pub(super) struct SpeedGuard {
    least: MinSpeed,
    stop: CancelToken,
    /// Whether it was too slow.
    fell_behind: Arc<Mutex<bool>>,
    watching: Option<(Sender<()>, JoinHandle<()>)>,
}

impl SpeedGuard {
    /// Stops the fetch when it falls behind.
    pub(super) fn watch(passed: Arc<TransferProgress>, stop: CancelToken, least: MinSpeed) -> Self {
        let (ended, end) = channel::<()>();
        let fell_behind = Arc::new(Mutex::new(false));
        let (too_slow, word) = (Arc::clone(&fell_behind), stop.clone());
        let work = move || {
            let mut before = passed.done();
            while end.recv_timeout(least.within) == Err(RecvTimeoutError::Timeout) {
                let now = passed.done();
                if now.saturating_sub(before) < least.bytes {
                    *too_slow.lock().unwrap_or_else(PoisonError::into_inner) = true;
                    word.cancel();
                    return;
                }
                before = now;
            }
        };
        // Without a thread for it the fetch goes on unwatched.
        let watching = thread::Builder::new().name("pace".to_owned()).spawn(work).ok();
        Self { least, stop, fell_behind, watching: watching.map(|thread| (ended, thread)) }
    }

    /// The error of a fetch that was stopped, with the reason.
    pub(super) fn explain(&self, error: Error) -> Error {
        if *self.fell_behind.lock().unwrap_or_else(PoisonError::into_inner) {
            let MinSpeed { bytes, within } = self.least;
            return Error::failed(format!(
                "the fetch was given up: it brought less than {} KiB in {} seconds",
                bytes >> 10,
                within.as_secs_f64()
            ))
            .with_hint("the registry or the network is overloaded; start the container again later");
        }
        match self.stop.is_cancelled() {
            true => Error::failed("the fetch was given up, since the volume is removed"),
            false => error,
        }
    }
}

impl Drop for SpeedGuard {
    fn drop(&mut self) {
        if let Some((ended, thread)) = self.watching.take() {
            drop(ended);
            let _ = thread.join();
        }
    }
}
