//! How often, and how long apart, something is tried again.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The longest pause that we take on our own.
const PAUSE_LIMIT: Duration = Duration::from_secs(60);
/// The longest pause that a server may ask for: one that wants an hour is better told of than waited for.
const ASKED_LIMIT: Duration = Duration::from_secs(120);

/// How often something that failed is tried again, and after what time. What makes progress starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How many times; zero is never.
    pub retries: u32,
    /// How long to wait before the first retry; each further one waits twice as long.
    pub delay: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { retries: 5, delay: Duration::from_secs(1) }
    }
}

impl Retry {
    /// Returns the delay before the next retry, after `failures` retries that failed; `None` if no retry is left.
    /// A longer delay that the server `asked` for is respected, up to two minutes.
    pub fn after(&self, failures: u32, asked: Duration) -> Option<RetryDelay> {
        if failures >= self.retries {
            return None;
        }
        let own = self.delay.saturating_mul(1 << failures.min(16)).min(PAUSE_LIMIT);
        let delay = own.mul_f64(jitter()).max(asked.min(ASKED_LIMIT));
        Some(RetryDelay { delay, number: failures + 1, limit: self.retries })
    }
}

/// A retry that is allowed, and the delay before it. Displayed as "trying again in 1.0 s (1 of 5)".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryDelay {
    /// The time to wait before the retry.
    pub delay: Duration,
    /// The number of the retry, counted from one.
    pub number: u32,
    /// The number of retries in all.
    pub limit: u32,
}

impl fmt::Display for RetryDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trying again in {:.1} s ({} of {})", self.delay.as_secs_f64(), self.number, self.limit)
    }
}

/// Between three and five quarters: machines that failed together shall not come back together. The seeds of hash
/// maps are the randomness that the standard library has.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    0.75 + (random % 1000) as f64 / 2000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let retry = Retry { retries: 10, delay: Duration::from_secs(1) };
        for (failures, seconds) in [(0, 1.0), (1, 2.0), (3, 8.0), (9, 60.0)] {
            let pause = retry.after(failures, Duration::ZERO).unwrap().delay.as_secs_f64();
            assert!((seconds * 0.75..=seconds * 1.25).contains(&pause), "{failures}: {pause}");
        }
        assert_eq!(retry.after(10, Duration::ZERO), None);
        assert_eq!(Retry { retries: 0, ..retry }.after(0, Duration::ZERO), None);
        let at_once = Retry { retries: 1, delay: Duration::ZERO }.after(0, Duration::ZERO).unwrap();
        assert_eq!(at_once.to_string(), "trying again in 0.0 s (1 of 1)");
    }

    #[test]
    fn a_server_is_waited_for_but_not_for_ever() {
        let retry = Retry { retries: 1, delay: Duration::from_secs(1) };
        let delay = |asked| retry.after(0, Duration::from_secs(asked)).unwrap().delay;
        assert_eq!((delay(7), delay(86_400)), (Duration::from_secs(7), ASKED_LIMIT));
    }

    #[test]
    fn pauses_differ() {
        let retry = Retry::default();
        let pauses: std::collections::HashSet<_> =
            (0..50).map(|_| retry.after(0, Duration::ZERO).unwrap().delay).collect();
        assert!(pauses.len() > 10);
    }
}
