//! How often, and how long apart, something is tried again.

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
    /// How long to wait after so many `failures` in a row, counted from zero; `None` when it is time to give up.
    /// A server that `asked` for a longer pause gets it, within reason.
    pub fn pause(&self, failures: u32, asked: Duration) -> Option<Duration> {
        if failures >= self.retries {
            return None;
        }
        let own = self.delay.saturating_mul(1 << failures.min(16)).min(PAUSE_LIMIT);
        Some(own.mul_f64(jitter()).max(asked.min(ASKED_LIMIT)))
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
            let pause = retry.pause(failures, Duration::ZERO).unwrap().as_secs_f64();
            assert!((seconds * 0.75..=seconds * 1.25).contains(&pause), "{failures}: {pause}");
        }
        assert_eq!(retry.pause(10, Duration::ZERO), None);
        assert_eq!(Retry { retries: 0, ..retry }.pause(0, Duration::ZERO), None);
        assert_eq!(
            Retry { retries: 1, delay: Duration::ZERO }.pause(0, Duration::ZERO),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn a_server_is_waited_for_but_not_for_ever() {
        let retry = Retry { retries: 1, delay: Duration::from_secs(1) };
        assert_eq!(retry.pause(0, Duration::from_secs(7)), Some(Duration::from_secs(7)));
        assert_eq!(retry.pause(0, Duration::from_secs(86_400)), Some(ASKED_LIMIT));
    }

    #[test]
    fn pauses_differ() {
        let retry = Retry::default();
        let pauses: std::collections::HashSet<_> =
            (0..50).map(|_| retry.pause(0, Duration::ZERO).unwrap()).collect();
        assert!(pauses.len() > 10);
    }
}
