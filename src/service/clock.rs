//! Time for verbs that run unattended: the library does not read the clock of the system.

use crate::error::Result;
use crate::stream::CancelToken;
use std::time::{Duration, SystemTime};

/// A source of time, and a way to wait. The program has the clock of the system; tests let time pass quickly, or jump.
pub trait Clock: Send + Sync {
    /// Returns the time of day. It may jump in both directions.
    fn now(&self) -> SystemTime;

    /// Returns the time since a fixed moment. It never goes back, and counts the time for which the machine sleeps.
    fn elapsed(&self) -> Duration;

    /// Waits for this long.
    ///
    /// # Errors
    /// When the token is cancelled: within a second.
    fn sleep(&self, duration: Duration, cancel: &CancelToken) -> Result<()>;
}

/// Returns the seconds since 1970, as logs, metrics and notes have them; 0 for earlier times.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}
