//! Verbs that run unattended.

mod clock;
mod health;
mod hooks;
mod month;
mod program;
mod schedule;
mod unfinished;
mod watch;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use volio::service::{Clock, Line, Log};
use volio::{CancelToken, Result};

/// The clock of the system.
pub struct RealClock(Instant);

impl Default for RealClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for RealClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration, cancel: &CancelToken) -> Result<()> {
        cancel.sleep(duration)
    }
}

/// A log in memory: each line is `topic: text`.
#[derive(Default)]
pub struct Lines(Mutex<Vec<String>>);

impl Lines {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn has(&self, part: &str) -> bool {
        self.all().iter().any(|line| line.contains(part))
    }
}

impl Log for Lines {
    fn line(&self, line: Line<'_>) {
        self.0.lock().unwrap().push(format!("{}: {}", line.topic, line.text));
    }
}

/// Waits until something is so.
pub fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn log() -> Arc<Lines> {
    Arc::default()
}
