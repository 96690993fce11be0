//! The clock of the system, for verbs that run unattended.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};
use volio::service::Clock;
use volio::{CancelToken, Result};

/// The clock of the system.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn elapsed(&self) -> Duration {
        // It counts the time for which the machine sleeps.
        let time = clock_gettime(ClockId::Boottime);
        Duration::new(time.tv_sec.try_into().unwrap_or_default(), time.tv_nsec.try_into().unwrap_or_default())
    }

    fn sleep(&self, duration: Duration, cancel: &CancelToken) -> Result<()> {
        cancel.sleep(duration)
    }
}
