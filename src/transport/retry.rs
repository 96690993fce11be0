//! Retries: how often, and after which delays.

use crate::error::Result;
use crate::stream::CancelToken;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The longest delay, unless the server asks for a longer one.
const DELAY_LIMIT: Duration = Duration::from_secs(60);
/// The longest delay that a server may ask for. If it asks for an hour, an early error is better.
const SERVER_DELAY_LIMIT: Duration = Duration::from_secs(120);

/// The number of retries of a failed request, and the delays before them. Progress resets the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The number of retries.
    pub retries: u32,
    /// The delay before the first retry. It doubles with each retry.
    pub delay: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { retries: 5, delay: Duration::from_secs(1) }
    }
}

impl Retry {
    /// Returns the delay before the next retry, after `failures` retries that failed; `None` if no retry is left or the
    /// token was cancelled. A longer delay that the server `asked` for is respected, up to two minutes.
    pub fn after(&self, failures: u32, asked: Duration, cancel: &CancelToken) -> Option<RetryDelay> {
        if failures >= self.retries || cancel.is_cancelled() {
            return None;
        }
        let own = self.delay.saturating_mul(1 << failures.min(16)).min(DELAY_LIMIT);
        let delay = own.mul_f64(jitter()).max(asked.min(SERVER_DELAY_LIMIT));
        Some(RetryDelay { delay, number: failures + 1, limit: self.retries, cancel: cancel.clone() })
    }
}

/// A retry that is allowed, and the delay before it. Displayed as "trying again in 1.0 s (1 of 5)".
#[derive(Clone, Debug)]
pub struct RetryDelay {
    /// The time to wait before the retry.
    pub delay: Duration,
    /// The number of the retry, counted from one.
    pub number: u32,
    /// The number of retries in all.
    pub limit: u32,
    cancel: CancelToken,
}

impl RetryDelay {
    /// Waits for the delay.
    ///
    /// # Errors
    /// When the transfer is cancelled: at once.
    pub fn wait(&self) -> Result<()> {
        self.cancel.sleep(self.delay)
    }
}

impl fmt::Display for RetryDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trying again in {:.1} s ({} of {})", self.delay.as_secs_f64(), self.number, self.limit)
    }
}

/// Returns a random factor between 0.75 and 1.25, so that clients that failed at the same time do not retry at the same
/// time. The seeds of hash maps are random numbers.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    0.75 + (random % 1000) as f64 / 2000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(retry: Retry, failures: u32, asked: Duration) -> Option<Duration> {
        retry.after(failures, asked, &CancelToken::default()).map(|retry| retry.delay)
    }

    #[test]
    fn delays_grow_and_end() {
        let retry = Retry { retries: 10, delay: Duration::from_secs(1) };
        for (failures, seconds) in [(0, 1.0), (1, 2.0), (3, 8.0), (9, 60.0)] {
            let delay = delay(retry, failures, Duration::ZERO).unwrap().as_secs_f64();
            assert!((seconds * 0.75..=seconds * 1.25).contains(&delay), "{failures}: {delay}");
        }
        assert_eq!(delay(retry, 10, Duration::ZERO), None);
        assert_eq!(delay(Retry { retries: 0, ..retry }, 0, Duration::ZERO), None);
        let at_once = Retry { retries: 1, delay: Duration::ZERO };
        let at_once = at_once.after(0, Duration::ZERO, &CancelToken::default()).unwrap();
        assert_eq!(at_once.to_string(), "trying again in 0.0 s (1 of 1)");
    }

    #[test]
    fn the_delay_that_a_server_asks_for_has_a_limit() {
        let retry = Retry { retries: 1, delay: Duration::from_secs(1) };
        let delay = |asked| delay(retry, 0, Duration::from_secs(asked));
        assert_eq!(delay(7), Some(Duration::from_secs(7)));
        assert_eq!(delay(86_400), Some(SERVER_DELAY_LIMIT));
    }

    #[test]
    fn delays_are_random() {
        let delays: std::collections::HashSet<_> =
            (0..50).map(|_| delay(Retry::default(), 0, Duration::ZERO)).collect();
        assert!(delays.len() > 10);
    }

    #[test]
    fn nothing_is_retried_after_a_cancellation() {
        let cancel = CancelToken::default();
        let retry = Retry { retries: 1, delay: Duration::from_secs(600) };
        let allowed = retry.after(0, Duration::ZERO, &cancel).unwrap();
        cancel.cancel();
        assert!(retry.after(0, Duration::ZERO, &cancel).is_none());
        assert!(allowed.wait().is_err(), "it would take ten minutes");
    }
}
