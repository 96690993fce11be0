//! The minimum rate of a transfer.
//!
//! A connection on which a byte moves now and then never reaches the stall timeout. Without a minimum rate it could hold
//! a transfer for ever.

use crate::transport::ClientOptions;
use std::time::Duration;

/// Measures the rate of one transfer, over one connection or several. Only time spent waiting for the network counts.
#[derive(Clone, Copy)]
pub(super) struct RateMonitor {
    /// The minimum rate in bytes a second.
    min_rate: u64,
    /// The period over which the rate is measured.
    period: Duration,
    waited: Duration,
    bytes: u64,
    /// The number of consecutive periods that were too slow.
    slow_periods: u32,
}

impl RateMonitor {
    pub(super) fn new(options: &ClientOptions) -> Self {
        let (min_rate, period) = (options.min_rate, options.stall_timeout);
        Self { min_rate, period, waited: Duration::ZERO, bytes: 0, slow_periods: 0 }
    }

    /// Adds bytes, and the time that they were waited for. Returns `false` at the end of a period that was too slow.
    #[must_use]
    pub(super) fn add(&mut self, waited: Duration, bytes: u64) -> bool {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.period {
            return true;
        }
        let is_fast = self.bytes as f64 >= self.min_rate as f64 * self.waited.as_secs_f64();
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        self.slow_periods = if is_fast { 0 } else { self.slow_periods + 1 };
        is_fast
    }

    /// Returns the number of consecutive periods that were too slow.
    pub(super) fn slow_periods(&self) -> u32 {
        self.slow_periods
    }

    /// Describes a period that was too slow, for an error.
    pub(super) fn complaint(&self) -> String {
        format!("fewer than {} bytes a second came for {} seconds", self.min_rate, self.period.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_too_slow_and_data_without_waiting_or_without_a_limit_is_not() {
        let monitor = |min_rate| {
            RateMonitor::new(&ClientOptions {
                min_rate,
                stall_timeout: Duration::from_secs(10),
                ..ClientOptions::default()
            })
        };
        let second = Duration::from_secs(1);
        let mut slow = monitor(100);
        assert!((0..9).all(|_| slow.add(second, 99)));
        assert!(!slow.add(second, 99) && slow.slow_periods() == 1);
        assert!((0..9).all(|_| slow.add(second, 0)) && !slow.add(second, 0) && slow.slow_periods() == 2);
        assert!(slow.add(10 * second, 1000) && slow.slow_periods() == 0);
        let mut unlimited = monitor(0);
        assert!((0..100).all(|_| unlimited.add(second, 0)));
        let mut quick = monitor(100);
        assert!((0..1000).all(|_| quick.add(Duration::ZERO, 0)));
    }
}
