//! How bytes travel to and from registries: what a user can choose about it.

use super::Retry;
use crate::stream::CancelToken;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How bytes travel to and from registries.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// How often something that failed is tried again.
    pub retry: Retry,
    /// How long it may take until a server has accepted a connection and proved who it is.
    pub connect_timeout: Duration,
    /// How long nothing at all may happen on a connection.
    pub stall_timeout: Duration,
    /// How many bytes a second must come at least, over as long a time; zero is any number.
    pub min_rate: u64,
    /// How many connections blobs come over; one that is large and travels alone comes over all of them. Each holds up
    /// to 4 MiB of memory.
    pub concurrency: usize,
    /// Blobs are sent in pieces of this size, in bytes; otherwise whole, as long as the registry takes them.
    pub chunk_size: Option<u64>,
    /// A directory that remembers uploads which have not ended, so that another process continues them.
    pub state: Option<PathBuf>,
    /// Cancels every transfer that is made with these options.
    pub cancel: CancelToken,
    /// Who is told that something is tried again, or read from another place.
    pub told: Told,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            retry: Retry::default(),
            connect_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            min_rate: 1000,
            concurrency: 3,
            chunk_size: None,
            state: None,
            cancel: CancelToken::default(),
            told: Told::default(),
        }
    }
}

/// Somebody who is told what is worth knowing although the work goes on; by default nobody.
#[derive(Clone, Default)]
pub struct Told(Option<Arc<Listener>>);

type Listener = dyn Fn(&str) + Send + Sync;

impl Told {
    /// Tells this listener.
    pub fn new(listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    pub(super) fn tell(&self, message: &str) {
        if let Some(listener) = &self.0 {
            listener(message);
        }
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Told" } else { "Nobody" })
    }
}
