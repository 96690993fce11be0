//! A clock in which time passes as soon as somebody waits, and which jumps when a test says so.

use std::sync::Mutex;
use std::time::{Duration, SystemTime};
use volio::service::Clock;
use volio::{CancelToken, Result};

/// Time that passes only while it is waited for.
pub struct SimulatedClock(Mutex<State>);

struct State {
    now: SystemTime,
    elapsed: Duration,
    /// Changes of the time of day, each with the moment at which it happens, and seconds.
    jumps: Vec<(Duration, i64)>,
}

impl SimulatedClock {
    /// Starts at this time in RFC 3339.
    pub fn at(time: &str) -> Self {
        let now = time.parse::<jiff::Timestamp>().unwrap().into();
        Self(Mutex::new(State { now, elapsed: Duration::ZERO, jumps: Vec::new() }))
    }

    /// Lets the time of day change by so many seconds when so much time has passed.
    pub fn jump(self, after: Duration, seconds: i64) -> Self {
        self.0.lock().unwrap().jumps.push((after, seconds));
        self
    }

    /// Lets time pass.
    pub fn pass(&self, duration: Duration) {
        let mut state = self.0.lock().unwrap();
        state.now += duration;
        state.elapsed += duration;
        let elapsed = state.elapsed;
        let due: Vec<i64> = state.jumps.extract_if(.., |(at, _)| *at <= elapsed).map(|(_, by)| by).collect();
        for seconds in due {
            let by = Duration::from_secs(seconds.unsigned_abs());
            if seconds > 0 { state.now += by } else { state.now -= by }
        }
    }

    /// Returns the time of day, without the year.
    pub fn text(&self) -> String {
        jiff::Timestamp::try_from(self.now()).unwrap().strftime("%m-%d %H:%M:%S").to_string()
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> SystemTime {
        self.0.lock().unwrap().now
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().unwrap().elapsed
    }

    fn sleep(&self, duration: Duration, cancel: &CancelToken) -> Result<()> {
        self.pass(duration);
        cancel.check()
    }
}
