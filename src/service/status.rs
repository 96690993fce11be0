//! The state of a service, as its health endpoint shows it.

use super::clock::Clock;
use super::run::Report;
use crate::error::{Error, Kind};
use crate::progress::{Progress, Task, TaskInfo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// The time for which a service that waits is healthy without a sign of life: longer than any of its pauses.
const SILENCE: Duration = Duration::from_secs(300);
/// The most hooks that follow each other in a run while no bytes move: `--before-publish`, `--on-error` and `--after`.
const HOOKS_IN_A_ROW: u32 = 3;
/// The time for which a run is healthy while no bytes move, such as for a look at all files of a large tree.
const RUN_SILENCE: Duration = Duration::from_secs(900);

/// The state of a service, shared by the loop that runs it and the server that shows it.
#[derive(Debug, Default)]
pub struct Status {
    snapshot: Mutex<Snapshot>,
    /// The number of bytes that the present run has read or sent.
    moved: AtomicU64,
}

/// The state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The beginning of the last successful run.
    pub last_success: Option<SystemTime>,
    /// The last failure of a run, and its time.
    pub last_error: Option<(SystemTime, String)>,
    /// The kind of that failure, until the next success.
    pub failing: Option<Kind>,
    /// The last failure of a hook, and its time.
    pub last_hook_error: Option<(SystemTime, String)>,
    /// The beginning of the next run, if there is one.
    pub next_run: Option<SystemTime>,
    /// The number of runs that were successful.
    pub succeeded: u64,
    /// The number of runs that failed.
    pub failed: u64,
    /// The number of hooks that failed.
    pub hooks_failed: u64,
    /// The number of runs that failed since the last successful one.
    pub failures_in_a_row: u64,
    /// The number of bytes that all runs have sent or fetched.
    pub bytes: u64,
    /// The number of bytes that the last successful run has sent or fetched.
    pub last_bytes: u64,
    /// The duration of the last successful run.
    pub last_duration: Duration,
    /// Set while a run is in progress.
    pub is_running: bool,
    /// Set if there is data of an earlier process to work with.
    pub has_data: bool,
    /// The moment until which the service is healthy without another success; `None` if it may wait for ever.
    healthy_until: Option<Duration>,
    /// The moment of the last sign of life.
    alive: Option<Duration>,
    /// The bytes that the run had moved at that moment.
    moved: u64,
    /// The time that a hook may take.
    hook_limit: Duration,
    /// Set while a hook runs outside of a run.
    is_in_hook: bool,
}

impl Status {
    /// Returns the state at this moment.
    pub fn snapshot(&self) -> Snapshot {
        self.state().clone()
    }

    /// Allows for hooks of which each takes so long, in which no bytes move.
    pub fn allow_for_hooks(&self, limit: Duration) {
        self.state().hook_limit = limit;
    }

    /// Runs a hook outside of a run, such as `--on-change`. The service is healthy meanwhile, and needs the next success
    /// later by the time that the hook takes, because nothing else is done during it.
    pub fn during_hook<T>(&self, clock: &dyn Clock, hook: impl FnOnce() -> T) -> T {
        let begun = clock.elapsed();
        {
            let mut state = self.state();
            (state.is_in_hook, state.alive) = (true, Some(begun));
        }
        let result = hook();
        let ended = clock.elapsed();
        let mut state = self.state();
        (state.is_in_hook, state.alive) = (false, Some(ended));
        state.healthy_until =
            state.healthy_until.map(|until| until.saturating_add(ended.saturating_sub(begun)));
        result
    }

    /// Reports that the loop is alive, at this moment of the clock.
    pub fn alive(&self, clock: &dyn Clock) {
        self.state().alive = Some(clock.elapsed());
    }

    /// Reports that a run begins.
    pub fn begin(&self, clock: &dyn Clock) {
        self.moved.store(0, Ordering::Relaxed);
        let mut state = self.state();
        (state.is_running, state.next_run, state.moved) = (true, None, 0);
        state.alive = Some(clock.elapsed());
    }

    /// Reports the end of a run, and until when the service is healthy without another success.
    pub fn end(&self, report: &Report, begun: SystemTime, clock: &dyn Clock, healthy_for: Option<Duration>) {
        match &report.outcome {
            Ok(done) => self.success(begun, clock, done.bytes, report.duration, healthy_for),
            // An interruption says nothing about the work.
            Err(_) if report.interrupted => self.state().is_running = false,
            Err(error) => self.failure(clock, error),
        }
        if let Some(error) = &report.hook_error {
            self.hook_failure(clock, error);
        }
    }

    /// Reports success: of a run that began at `begun`, or of a poll. The service is healthy for `healthy_for` from now on
    /// without another one; `None` if it may wait for ever.
    pub fn success(
        &self,
        begun: SystemTime,
        clock: &dyn Clock,
        bytes: u64,
        duration: Duration,
        healthy_for: Option<Duration>,
    ) {
        let now = clock.elapsed();
        let mut state = self.state();
        state.last_success = Some(begun);
        state.succeeded += 1;
        (state.failures_in_a_row, state.failing) = (0, None);
        state.bytes = state.bytes.saturating_add(bytes);
        (state.last_bytes, state.last_duration) = (bytes, duration);
        state.healthy_until = healthy_for.map(|time| now.saturating_add(time));
        (state.is_running, state.alive) = (false, Some(now));
    }

    /// Reports that a run or a poll has failed.
    pub fn failure(&self, clock: &dyn Clock, error: &Error) {
        let mut state = self.state();
        state.last_error = Some((clock.now(), error.to_string()));
        state.failing = Some(error.kind());
        state.failed += 1;
        state.failures_in_a_row += 1;
        (state.is_running, state.alive) = (false, Some(clock.elapsed()));
    }

    /// Reports that a hook has failed.
    pub fn hook_failure(&self, clock: &dyn Clock, error: &impl ToString) {
        let mut state = self.state();
        state.last_hook_error = Some((clock.now(), error.to_string()));
        state.hooks_failed += 1;
    }

    /// Reports that the service waits for the next run, and is healthy for `healthy_for` if nothing was successful yet.
    pub fn wait(&self, next: Option<SystemTime>, clock: &dyn Clock, healthy_for: Option<Duration>) {
        let now = clock.elapsed();
        let mut state = self.state();
        (state.next_run, state.alive) = (next, Some(now));
        if state.last_success.is_none() && state.healthy_until.is_none() {
            state.healthy_until = healthy_for.map(|time| now.saturating_add(time));
        }
    }

    /// Reports that there is data of an earlier process, so that others need not wait for the first success.
    pub fn has_data(&self) {
        self.state().has_data = true;
    }

    /// Returns whether a run was successful, or has data of an earlier process to work with.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.last_success.is_some() || state.has_data
    }

    /// Returns why the service is not healthy; `None` if it is. A run in progress is healthy while bytes move.
    pub fn complaint(&self, clock: &dyn Clock) -> Option<String> {
        let now = clock.elapsed();
        let moved = self.moved.load(Ordering::Relaxed);
        let mut state = self.state();
        if state.is_running && state.moved != moved {
            (state.moved, state.alive) = (moved, Some(now));
        }
        let silence = now.saturating_sub(state.alive.unwrap_or_default());
        let (allowed, what) = if state.is_running {
            let hooks = state.hook_limit.saturating_mul(HOOKS_IN_A_ROW);
            (RUN_SILENCE.saturating_add(hooks), "the run has not moved")
        } else if state.is_in_hook {
            (SILENCE.saturating_add(state.hook_limit), "a hook has not ended")
        } else {
            (SILENCE, "the service has given no sign of life")
        };
        if silence > allowed {
            return Some(format!("{what} for {} s", silence.as_secs()));
        }
        let late =
            state.healthy_until.and_then(|until| now.checked_sub(until)).filter(|late| !late.is_zero())?;
        if state.is_running || state.is_in_hook {
            return None;
        }
        let error = state.last_error.as_ref().map(|(_, error)| format!(": {error}")).unwrap_or_default();
        Some(format!("the last success is too old, for {} s{error}", late.as_secs()))
    }

    /// Returns a receiver of progress that passes everything on and notes that bytes move.
    pub fn observe(self: &Arc<Self>, progress: Arc<dyn Progress>) -> Arc<dyn Progress> {
        Arc::new(Observed { status: Arc::clone(self), progress })
    }

    fn state(&self) -> MutexGuard<'_, Snapshot> {
        // No code panics while it holds the lock.
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A receiver of progress that notes that bytes move.
struct Observed {
    status: Arc<Status>,
    progress: Arc<dyn Progress>,
}

impl Progress for Observed {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        self.status.moved.fetch_add(1, Ordering::Relaxed);
        Box::new(ObservedTask { status: Arc::clone(&self.status), task: self.progress.begin(info) })
    }

    fn warn(&self, message: &str) {
        self.progress.warn(message);
    }
}

struct ObservedTask {
    status: Arc<Status>,
    task: Box<dyn Task>,
}

impl Task for ObservedTask {
    fn advance(&self, bytes: u64) {
        self.status.moved.fetch_add(bytes.max(1), Ordering::Relaxed);
        self.task.advance(bytes);
    }

    fn advance_entries(&self, entries: u64) {
        self.status.moved.fetch_add(entries, Ordering::Relaxed);
        self.task.advance_entries(entries);
    }

    fn skip(&self) {
        self.status.moved.fetch_add(1, Ordering::Relaxed);
        self.task.skip();
    }
}
