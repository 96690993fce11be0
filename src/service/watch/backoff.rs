//! The pauses between attempts.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The longest pause after failures, unless the period is longer.
const LIMIT: Duration = Duration::from_secs(300);
/// The pause after the first failure of a hook.
const FIRST_HOOK_PAUSE: Duration = Duration::from_secs(3);
/// The longest time that a server may ask for.
const SERVER_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Returns the pause until the next poll: the period, which doubles with each failure after the first one in a row, and
/// at least the time that the server has asked for.
pub(super) fn until_poll(period: Duration, failures: u32, asked: Option<Duration>) -> Duration {
    let own = match failures {
        0 => period,
        _ => {
            doubled(period.max(Duration::from_secs(1)), failures - 1).min(LIMIT.max(period)).mul_f64(jitter())
        }
    };
    own.max(asked.unwrap_or_default().min(SERVER_LIMIT))
}

/// Returns the pause until the next attempt of a hook that failed.
pub(super) fn until_hook(failures: u32) -> Duration {
    doubled(FIRST_HOOK_PAUSE, failures.saturating_sub(1)).min(LIMIT)
}

fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16))
}

/// Returns a random factor between 0.75 and 1.25, so that the pods of a cluster do not poll at the same moment after an
/// outage. The seeds of hash maps are random numbers.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    0.75 + (random % 1000) as f64 / 2000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_are_random() {
        let period = Duration::from_secs(10);
        assert_eq!(until_poll(period, 0, None), period);
        for (failures, seconds) in [(1, 10.0), (2, 20.0), (4, 80.0), (6, 300.0), (1000, 300.0)] {
            let pause = until_poll(period, failures, None).as_secs_f64();
            assert!((seconds * 0.75..=seconds * 1.25).contains(&pause), "{failures}: {pause}");
        }
        let long = Duration::from_secs(3600);
        assert!(until_poll(long, 5, None) <= long.mul_f64(1.25), "a long period is not doubled");
        let pauses: std::collections::HashSet<_> = (0..50).map(|_| until_poll(period, 1, None)).collect();
        assert!(pauses.len() > 10);
        assert_eq!([until_hook(1), until_hook(2), until_hook(100)].map(|pause| pause.as_secs()), [3, 6, 300]);
    }

    #[test]
    fn a_server_that_asks_for_time_gets_it() {
        let period = Duration::from_secs(10);
        assert_eq!(until_poll(period, 1, Some(Duration::from_secs(3600))), Duration::from_secs(3600));
        assert_eq!(until_poll(period, 1, Some(Duration::MAX)), SERVER_LIMIT);
    }
}
