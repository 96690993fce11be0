//! The minimum speed of a fetch. Without it, a registry that sends a few bytes at a time would block a volume for ever,
//! and neither the engine nor its user would learn why.

use super::progress::TransferProgress;
use crate::error::Error;
use crate::stream::CancelToken;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The minimum speed of a fetch.
#[derive(Clone, Copy, Debug)]
pub struct MinSpeed {
    /// Bytes that have to arrive …
    pub bytes: u64,
    /// … in each interval of this length.
    pub within: Duration,
}

impl Default for MinSpeed {
    /// 1 MiB in five minutes: slower than any network in use, with enough time for a busy disk.
    fn default() -> Self {
        Self { bytes: 1 << 20, within: Duration::from_secs(5 * 60) }
    }
}

/// Cancels a slow fetch, until this is dropped.
pub(super) struct SpeedGuard {
    least: MinSpeed,
    cancel: CancelToken,
    /// Set when the fetch was cancelled for its speed.
    was_slow: Arc<Mutex<bool>>,
    watching: Option<(Sender<()>, JoinHandle<()>)>,
}

impl SpeedGuard {
    /// Starts to watch a fetch.
    pub(super) fn watch(progress: Arc<TransferProgress>, cancel: CancelToken, least: MinSpeed) -> Self {
        let (ended, end) = channel::<()>();
        let was_slow = Arc::new(Mutex::new(false));
        let (too_slow, token) = (Arc::clone(&was_slow), cancel.clone());
        let work = move || {
            let mut before = progress.done();
            while end.recv_timeout(least.within) == Err(RecvTimeoutError::Timeout) {
                let now = progress.done();
                if now.saturating_sub(before) < least.bytes {
                    *too_slow.lock().unwrap_or_else(PoisonError::into_inner) = true;
                    token.cancel();
                    return;
                }
                before = now;
            }
        };
        // Without a thread the fetch is not watched.
        let watching = thread::Builder::new().name("speed".to_owned()).spawn(work).ok();
        Self { least, cancel, was_slow, watching: watching.map(|thread| (ended, thread)) }
    }

    /// Returns the reason for the error of a cancelled fetch.
    pub(super) fn explain(&self, error: Error) -> Error {
        if *self.was_slow.lock().unwrap_or_else(PoisonError::into_inner) {
            let MinSpeed { bytes, within } = self.least;
            return Error::failed(format!(
                "the fetch was given up: it brought less than {} KiB in {} seconds",
                bytes >> 10,
                within.as_secs_f64()
            ))
            .with_hint("the registry or the network is overloaded; start the container again later");
        }
        if self.cancel.is_cancelled() {
            Error::failed("the fetch was given up, since the volume is removed")
        } else {
            error
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
