//! Options for the connections to registries.

use super::Retry;
use crate::progress::{Progress, Silent};
use crate::stream::CancelToken;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Options for the connections to registries.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The number of retries of a failed request, and the delays before them.
    pub retry: Retry,
    /// The time limit for a connection to a server, including the TLS handshake.
    pub connect_timeout: Duration,
    /// The longest time without any data on a connection.
    pub stall_timeout: Duration,
    /// The lowest accepted rate of a download in bytes per second, averaged over `stall_timeout`; zero accepts any rate.
    pub min_rate: u64,
    /// The number of connections that blobs are transferred over. A large blob that is transferred alone uses all of
    /// them. Each holds up to 4 MiB of memory.
    pub concurrency: usize,
    /// The size of the chunks in which blobs are uploaded, in bytes. `None` uploads blobs whole, until a registry
    /// rejects that.
    pub chunk_size: Option<u64>,
    /// A directory that records unfinished uploads, so that another process can resume them.
    pub state: Option<PathBuf>,
    /// Cancels every transfer that is made with these options.
    pub cancel: CancelToken,
    /// Receives a warning for each retry and for each mirror that is skipped.
    pub progress: Arc<dyn Progress>,
}

impl Default for ClientOptions {
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
            progress: Arc::new(Silent),
        }
    }
}
