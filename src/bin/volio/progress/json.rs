//! Events as lines of JSON, for programs. `docs/progress.md` describes them, and they do not change.

use super::Show;
use super::phases::{PhaseCounts, PhaseState, Phases, TaskCounts};
use super::ticker::Ticker;
use crate::output;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use volio::progress::{Phase, Progress, Task, TaskInfo};

/// The time between two events about the same phase.
const INTERVAL: Duration = Duration::from_millis(500);

/// Progress as lines of JSON.
pub struct JsonEvents {
    command: &'static str,
    begun: Instant,
    phases: Arc<Phases>,
    /// `None` after the end.
    ticker: Mutex<Option<Ticker>>,
}

/// A line about a command.
#[derive(Serialize)]
struct Event<'a> {
    event: &'static str,
    time: String,
    command: &'a str,
    #[serde(flatten)]
    about: Option<About<'a>>,
}

/// The fields of an event that not all events have.
#[derive(Serialize)]
#[serde(untagged)]
enum About<'a> {
    /// Of `phase`.
    Phase { phase: String },
    /// Of `progress`.
    Progress {
        #[serde(flatten)]
        counts: Counts,
        running: Vec<RunningTask<'a>>,
    },
    /// Of `finish`.
    Finish { seconds: f64, phases: Vec<Counts> },
}

/// The counts of a phase.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    phase: String,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_total: Option<u64>,
    entries: u64,
    tasks: u64,
    tasks_done: u64,
    tasks_skipped: u64,
}

impl From<&PhaseCounts> for Counts {
    fn from(counts: &PhaseCounts) -> Self {
        Self {
            phase: counts.phase.to_string(),
            bytes: counts.bytes,
            bytes_total: counts.total,
            entries: counts.entries,
            tasks: counts.tasks,
            tasks_done: counts.tasks_done,
            tasks_skipped: counts.tasks_skipped,
        }
    }
}

/// A task that is running.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RunningTask<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_total: Option<u64>,
    entries: u64,
}

impl<'a> From<&'a TaskCounts> for RunningTask<'a> {
    fn from(task: &'a TaskCounts) -> Self {
        Self {
            digest: task.info.digest.as_deref(),
            subject: task.info.subject.as_deref(),
            bytes: task.bytes(),
            bytes_total: task.info.total,
            entries: task.entries(),
        }
    }
}

impl JsonEvents {
    pub fn new(command: &'static str) -> Self {
        let phases = Arc::<Phases>::default();
        print("start", command, None);
        let watched = Arc::clone(&phases);
        let mut before = BTreeMap::<Phase, PhaseCounts>::new();
        let ticker = Ticker::start(INTERVAL, move || {
            for PhaseState { counts, running, .. } in &watched.states() {
                if !running.is_empty() && before.insert(counts.phase, *counts) != Some(*counts) {
                    let running = running.iter().map(|task| RunningTask::from(&**task)).collect();
                    print("progress", command, Some(About::Progress { counts: counts.into(), running }));
                }
            }
        });
        Self { command, begun: Instant::now(), phases, ticker: Mutex::new(Some(ticker)) }
    }

    fn ticker(&self) -> MutexGuard<'_, Option<Ticker>> {
        // No code panics while it holds the lock.
        self.ticker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn print(event: &'static str, command: &str, about: Option<About<'_>>) {
    output::event(&Event { event, time: output::now(), command, about });
}

impl Progress for JsonEvents {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        self.phases.begin(info, |phases| {
            if phases.iter().all(|known| known.counts.phase != info.phase) && self.ticker().is_some() {
                print("phase", self.command, Some(About::Phase { phase: info.phase.to_string() }));
            }
        })
    }

    fn warn(&self, message: &str) {
        if self.ticker().is_some() {
            output::warning(message);
        }
    }
}

impl Show for JsonEvents {
    fn finish(&self) {
        let ticker = self.ticker().take();
        if ticker.is_none() {
            return;
        }
        drop(ticker);
        let phases = self.phases.states().iter().map(|state| Counts::from(&state.counts)).collect();
        let seconds = self.begun.elapsed().as_millis() as f64 / 1000.0;
        print("finish", self.command, Some(About::Finish { seconds, phases }));
    }
}
