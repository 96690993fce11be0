//! Time that several services share: it passes when all of them wait, and one of them runs at a time.

use super::measures::{Effect, Effects};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};
use volio::service::Clock;
use volio::{CancelToken, Result};

/// The moments at which a long sleep ends: the machines are slow.
pub const TICK: Duration = Duration::from_secs(600);
/// The length of a long sleep.
const LONG: Duration = Duration::from_secs(30);

/// The time of all machines.
pub struct Timeline {
    state: Mutex<State>,
    changed: Vec<Condvar>,
}

struct State {
    elapsed: Duration,
    /// The time at which each machine wakes up; `None` if it is off.
    wakes: Vec<Option<Duration>>,
    /// The machine that runs.
    running: usize,
}

impl Timeline {
    pub fn new(machines: usize) -> Self {
        let state =
            State { elapsed: Duration::ZERO, wakes: vec![Some(Duration::ZERO); machines], running: 0 };
        Self { state: Mutex::new(state), changed: (0..machines).map(|_| Condvar::new()).collect() }
    }

    pub fn elapsed(&self) -> Duration {
        self.state.lock().unwrap().elapsed
    }

    /// Waits for the first turn of a machine.
    pub fn join(&self, machine: usize) {
        self.wait(machine, self.state.lock().unwrap());
    }

    /// Lets the others run until this time.
    pub fn sleep_until(&self, machine: usize, time: Duration) {
        let mut state = self.state.lock().unwrap();
        state.wakes[machine] = Some(time);
        self.pass_on(&mut state);
        self.wait(machine, state);
    }

    /// Takes no further part.
    pub fn leave(&self, machine: usize) {
        let mut state = self.state.lock().unwrap();
        state.wakes[machine] = None;
        self.pass_on(&mut state);
    }

    fn pass_on(&self, state: &mut State) {
        let wakes = state.wakes.iter().enumerate().filter_map(|(number, wake)| Some(((*wake)?, number)));
        if let Some((time, next)) = wakes.min() {
            state.elapsed = state.elapsed.max(time);
            state.running = next;
            self.changed[next].notify_one();
        }
    }

    fn wait(&self, machine: usize, state: MutexGuard<'_, State>) {
        drop(self.changed[machine].wait_while(state, |state| state.running != machine).unwrap());
    }
}

/// The payload of the unwinding of a service that is killed.
pub struct Killed;

/// A machine with a clock of its own.
pub struct Machine {
    pub timeline: Arc<Timeline>,
    pub number: usize,
    /// The error of its time of day, in seconds.
    pub offset: AtomicI64,
    /// The error that its service has seen last.
    seen: AtomicI64,
    /// Set to kill the service when it looks at the clock: it unwinds, and does nothing else.
    pub killed: AtomicBool,
    /// Set to kill the service in its next run.
    pub doomed: AtomicBool,
    /// The number of times that the service was killed in a run.
    pub killed_in_runs: AtomicUsize,
    /// Ends the service.
    pub end: Mutex<CancelToken>,
    effects: Arc<Effects>,
}

impl Machine {
    pub fn new(timeline: &Arc<Timeline>, number: usize, effects: &Arc<Effects>) -> Arc<Self> {
        Arc::new(Self {
            timeline: Arc::clone(timeline),
            number,
            offset: AtomicI64::new(0),
            seen: AtomicI64::new(0),
            killed: AtomicBool::new(false),
            doomed: AtomicBool::new(false),
            killed_in_runs: AtomicUsize::new(0),
            end: Mutex::default(),
            effects: Arc::clone(effects),
        })
    }

    /// Unwinds if the service was killed.
    fn die_if_killed(&self, is_asleep: bool) {
        if !self.killed.swap(false, Ordering::SeqCst) {
            return;
        }
        self.killed_in_runs.fetch_add(usize::from(!is_asleep), Ordering::SeqCst);
        self.effects.add(match self.number {
            _ if is_asleep => Effect::KilledAsleep,
            1 => Effect::KilledExporting,
            _ => Effect::KilledFollowing,
        });
        resume_unwind(Box::new(Killed));
    }
}

impl Clock for Machine {
    fn now(&self) -> SystemTime {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_812_800); // 2026-10-01
        let time = start + self.timeline.elapsed();
        let offset = self.offset.load(Ordering::SeqCst);
        match offset - self.seen.swap(offset, Ordering::SeqCst) {
            0 => {}
            by => self.effects.add(if by > 0 { Effect::ClockForward } else { Effect::ClockBack }),
        }
        let by = Duration::from_secs(offset.unsigned_abs());
        if offset < 0 { time - by } else { time + by }
    }

    fn elapsed(&self) -> Duration {
        self.die_if_killed(false);
        self.timeline.elapsed()
    }

    fn sleep(&self, duration: Duration, cancel: &CancelToken) -> Result<()> {
        let mut until = self.timeline.elapsed() + duration;
        if duration >= LONG {
            let ticks = until.as_secs_f64() / TICK.as_secs_f64();
            until = TICK.mul_f64(ticks.ceil());
        }
        self.timeline.sleep_until(self.number, until);
        self.die_if_killed(true);
        cancel.check()
    }
}
