//! The figures by which the month is judged: the effects of its faults, and what this process uses.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, thread};
use volio::service::{Line, Log};

/// The number of lines that are kept for a panic.
const LINES: usize = 1000;
/// The number of looks at this process of which the least counts: threads of servers and readers come and go.
const LOOKS: usize = 25;

/// The effects of faults. A month without one of them has not tested that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The registry has answered 503.
    Unavailable,
    /// The registry has rejected a password.
    PasswordRejected,
    /// The registry has rejected a token that it had issued.
    TokenRejected,
    /// A service has seen that its clock was put forward.
    ClockForward,
    /// A service has seen that its clock was put back.
    ClockBack,
    /// A follower could not write a file.
    DiskFull,
    /// A follower has not found the tag.
    TagMissing,
    /// A service was killed while it waited.
    KilledAsleep,
    /// The exporter was killed in a run.
    KilledExporting,
    /// A follower was killed in a run.
    KilledFollowing,
}

impl Effect {
    pub const ALL: [Self; 10] = [
        Self::Unavailable,
        Self::PasswordRejected,
        Self::TokenRejected,
        Self::ClockForward,
        Self::ClockBack,
        Self::DiskFull,
        Self::TagMissing,
        Self::KilledAsleep,
        Self::KilledExporting,
        Self::KilledFollowing,
    ];
}

/// The number of times that each effect has occurred.
#[derive(Default)]
pub struct Effects(Mutex<BTreeMap<Effect, usize>>);

impl Effects {
    pub fn add(&self, effect: Effect) {
        *self.0.lock().unwrap().entry(effect).or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<Effect, usize> {
        self.0.lock().unwrap().clone()
    }
}

/// A log that keeps its last lines, and counts the effects that it shows.
pub struct LastLines {
    lines: Mutex<VecDeque<String>>,
    effects: Arc<Effects>,
}

impl LastLines {
    pub fn new(effects: &Arc<Effects>) -> Arc<Self> {
        Arc::new(Self { lines: Mutex::default(), effects: Arc::clone(effects) })
    }

    /// Returns the last lines, at most so many.
    pub fn last(&self, count: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }
}

impl Log for LastLines {
    fn line(&self, line: Line<'_>) {
        if line.text.contains("File too large") {
            self.effects.add(Effect::DiskFull);
        }
        if line.topic == "watch" && line.text.contains("cannot find") {
            self.effects.add(Effect::TagMissing);
        }
        let mut lines = self.lines.lock().unwrap();
        lines.push_back(format!("{}: {}", line.topic, line.text));
        if lines.len() > LINES {
            lines.pop_front();
        }
    }
}

/// The open descriptors and the threads of this process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub descriptors: usize,
    pub threads: usize,
}

impl Usage {
    /// Returns the least of some looks.
    pub fn now() -> Self {
        let count = |what: &str| fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
        let looks = (0..LOOKS).map(|_| {
            thread::sleep(Duration::from_millis(10));
            Self { descriptors: count("fd"), threads: count("task") }
        });
        let least = |one: Self, other: Self| Self {
            descriptors: one.descriptors.min(other.descriptors),
            threads: one.threads.min(other.threads),
        };
        looks.reduce(least).unwrap()
    }
}

/// Returns the memory of this process that is not that of files, in bytes.
pub fn memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.strip_suffix("kB"));
    kibibytes.unwrap().trim().parse::<usize>().unwrap() << 10
}
