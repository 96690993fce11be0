//! The rate at which bytes come. A connection on which a byte moves now and then is never silent, and would hold a
//! transfer for ever.

use crate::transport::ClientOptions;
use std::time::Duration;

/// How fast the bytes of one transfer come, over one connection or several. Only the time counts in which the network
/// is waited for.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// Bytes in a second.
    least: u64,
    /// The time over which the rate is measured.
    window: Duration,
    waited: Duration,
    bytes: u64,
    /// How many times in a row it was too slow.
    slow: u32,
}

impl Pace {
    pub(super) fn new(options: &ClientOptions) -> Self {
        let (least, window) = (options.min_rate, options.stall_timeout);
        Self { least, window, waited: Duration::ZERO, bytes: 0, slow: 0 }
    }

    /// Notes how long was waited for how many bytes; `false` at the end of a time in which too few have come.
    #[must_use]
    pub(super) fn note(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.window {
            return true;
        }
        let is_enough = self.bytes as f64 >= self.least as f64 * self.waited.as_secs_f64();
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        self.slow = if is_enough { 0 } else { self.slow + 1 };
        is_enough
    }

    /// How many times in a row it was too slow.
    pub(super) fn slow(&self) -> u32 {
        self.slow
    }

    /// What is wrong when it is too slow.
    pub(super) fn complaint(&self) -> String {
        format!("fewer than {} bytes a second came for {} seconds", self.least, self.window.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_are_too_slow_and_what_comes_at_once_or_is_not_limited_is_not() {
        let pace = |min_rate| {
            Pace::new(&ClientOptions {
                min_rate,
                stall_timeout: Duration::from_secs(10),
                ..ClientOptions::default()
            })
        };
        let second = Duration::from_secs(1);
        let mut slow = pace(100);
        assert!((0..9).all(|_| slow.note(second, 99)));
        assert!(!slow.note(second, 99) && slow.slow() == 1);
        assert!((0..9).all(|_| slow.note(second, 0)) && !slow.note(second, 0) && slow.slow() == 2);
        assert!(slow.note(10 * second, 1000) && slow.slow() == 0);
        let mut unlimited = pace(0);
        assert!((0..100).all(|_| unlimited.note(second, 0)));
        let mut quick = pace(100);
        assert!((0..1000).all(|_| quick.note(Duration::ZERO, 0)));
    }
}
