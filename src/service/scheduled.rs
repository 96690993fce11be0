//! Runs at the times of a schedule, until the end.
//!
//! - Two runs never overlap. Runs that were missed, because one took long, the machine slept, the clock was put forward, or
//!   the program did not run, become one.
//! - A clock that is put back by less than three hours does not repeat runs. After a larger change the schedule begins again
//!   from the new time.
//! - After a failure the next try is a minute later, then twice as much up to an hour, and never later than the schedule has
//!   it.
//! - The log has one line for each change of state.

use super::clock::Clock;
use super::log::count;
use super::run::{ABORT_TIMEOUT, Done, Report, Runner};
use super::schedule::Schedule;
use super::state::JobState;
use super::status::Status;
use super::zone::Zone;
use crate::error::{Kind, Result};
use crate::stream::{CancelToken, start};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The longest wait without a look at the clock.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// The change of the clock from which it counts as set to another time: times that have been then are repeated.
const SET_BACK: Duration = Duration::from_secs(3 * 3600);
/// The wait after the first failure.
const FIRST_RETRY: Duration = Duration::from_secs(60);
/// The longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_secs(3600);
/// The number of periods without a success after which a service is not healthy.
const HEALTHY_PERIODS: u32 = 3;

/// Runs by a schedule.
pub struct Scheduled {
    /// One run.
    pub runner: Runner,
    /// The times of the runs.
    pub schedule: Schedule,
    /// The zone in which times are shown.
    pub zone: Zone,
    /// The maximum of a random delay of each run, so that many machines do not begin at once.
    pub jitter: Duration,
    /// The reaction to the end of the service.
    pub at_end: AtEnd,
    /// The number of failures in a row after which the service ends with the last error; `None` if it never does.
    pub max_failures: Option<u32>,
    /// The state that others look at.
    pub status: Arc<Status>,
}

/// The reaction to the end of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// A run in progress is interrupted.
    Stop,
    /// A run in progress is interrupted, and a last one begins. It is interrupted if it has not ended shortly before this
    /// time has passed, so that it can be cleaned up before the process is killed.
    RunOnce(Duration),
}

/// The way in which a service has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// No run was interrupted.
    Idle,
    /// A run was interrupted, and will be repeated by the next start.
    Interrupted,
}

/// The planned beginning of a run.
struct Plan {
    /// By the clock that never jumps.
    at: Duration,
    /// By the time of day.
    time: SystemTime,
    /// Set if the time of day counts.
    by_the_clock: bool,
}

/// The memory of the loop between runs.
#[derive(Default)]
struct Memory {
    /// The beginning of the present period, by the clock that never jumps.
    period_begun: Duration,
    /// Set when the next run was announced.
    is_announced: bool,
    /// The time of day at which the last run began.
    last_begun: Option<SystemTime>,
    /// The number of failures since the last success.
    failures: u32,
    /// The last error that was logged.
    error: Option<String>,
}

impl Memory {
    /// Returns the time after which the schedule continues: not one that was run for already, unless the clock was set to
    /// another time.
    fn unless_set_back(&self, now: SystemTime) -> SystemTime {
        let is_earlier = |last: &SystemTime| last.duration_since(now).is_ok_and(|earlier| earlier < SET_BACK);
        self.last_begun.filter(is_earlier).unwrap_or(now)
    }
}

impl Scheduled {
    /// Runs until `end` is cancelled. `work` is called for each run with its token.
    ///
    /// # Errors
    /// After [`max_failures`](Self::max_failures), or an error of [`Usage`](crate::error::Kind::Usage); that of the last run
    /// at the end.
    pub fn serve(
        &self,
        mut state: Option<JobState>,
        end: &CancelToken,
        work: impl Fn(&CancelToken) -> Result<Done> + Send + Sync + 'static,
    ) -> Result<Stopped> {
        let work = Arc::new(work);
        let ended_at = Arc::<Mutex<Option<Duration>>>::default();
        let (at, clock) = (Arc::clone(&ended_at), Arc::clone(&self.runner.clock));
        end.on_cancel(move || *at.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock.elapsed()));
        let recovered = self.status.during_hook(self.clock(), || self.runner.recover(state.as_mut()));
        if let Some(error) = recovered {
            self.status.hook_failure(self.clock(), &error);
        }
        let mut plan = self.first(state.as_ref());
        let (mut memory, mut interrupted) = (Memory { period_begun: plan.at, ..Memory::default() }, false);
        while !end.is_cancelled() {
            self.announce(&plan, &mut memory);
            if self.wait(&mut plan, end).is_err() {
                break;
            }
            let begun = self.clock().elapsed();
            memory.last_begun = Some(self.clock().now());
            let report = self.run(state.as_mut(), end, &work);
            interrupted = report.interrupted;
            if !interrupted {
                self.judge(report, &mut memory)?;
            }
            plan = self.next(begun, &mut memory);
        }
        let AtEnd::RunOnce(grace) = self.at_end else {
            return Ok(if interrupted { Stopped::Interrupted } else { Stopped::Idle });
        };
        // The end may be seen before its time is noted: then it is now.
        let noted = *ended_at.lock().unwrap_or_else(PoisonError::into_inner);
        let ended_at = noted.unwrap_or_else(|| self.clock().elapsed());
        self.run_last(state.as_mut(), ended_at + grace - margin(grace), &work)
    }

    /// Returns how long a run that is interrupted may take to clean up.
    fn abort_timeout(&self) -> Duration {
        match self.at_end {
            AtEnd::Stop => ABORT_TIMEOUT,
            // The rest is for --after.
            AtEnd::RunOnce(grace) => margin(grace).mul_f64(0.6),
        }
    }

    fn clock(&self) -> &dyn Clock {
        &*self.runner.clock
    }

    /// Runs once.
    fn run<W>(&self, state: Option<&mut JobState>, cancel: &CancelToken, work: &Arc<W>) -> Report
    where
        W: Fn(&CancelToken) -> Result<Done> + Send + Sync + 'static,
    {
        let (begun, work) = (self.clock().now(), Arc::clone(work));
        self.status.begin(self.clock());
        let report = self.runner.run_within(self.abort_timeout(), state, cancel, move |token| work(token));
        self.status.end(&report, begun, self.clock(), self.healthy_for(begun));
        report
    }

    /// The last run, which ends before `until` by the clock.
    fn run_last<W>(&self, state: Option<&mut JobState>, until: Duration, work: &Arc<W>) -> Result<Stopped>
    where
        W: Fn(&CancelToken) -> Result<Done> + Send + Sync + 'static,
    {
        let log = &*self.runner.context.log;
        let left = until.saturating_sub(self.clock().elapsed());
        if left.is_zero() {
            log.warning("schedule", "no time is left of --grace for a last run");
            return Ok(Stopped::Interrupted);
        }
        log.info(
            "schedule",
            &format!("a last run begins, and ends within {:.0} s", left.as_secs_f64().ceil()),
        );
        let (last, done) = (CancelToken::default(), CancelToken::default());
        let (clock, token, waiting) = (Arc::clone(&self.runner.clock), last.clone(), done.clone());
        start(move || {
            if clock.sleep(left, &waiting).is_ok() {
                token.cancel();
            }
        })?;
        let report = self.run(state, &last, work);
        done.cancel();
        if report.interrupted {
            log.warning("schedule", "the last run was interrupted: it would not have ended within --grace");
            return Ok(Stopped::Interrupted);
        }
        report.into_result().map(|_| Stopped::Idle)
    }

    /// Logs what has changed.
    ///
    /// # Errors
    /// That of the run if it is the last one.
    fn judge(&self, report: Report, memory: &mut Memory) -> Result<()> {
        let log = &*self.runner.context.log;
        match report.into_result() {
            Ok(_) => {
                if memory.failures > 0 {
                    log.info(
                        "run",
                        &format!(
                            "successful again, after {}",
                            count(memory.failures.into(), "failure", "failures")
                        ),
                    );
                }
                (memory.failures, memory.error) = (0, None);
            }
            Err(error) => {
                memory.failures += 1;
                let is_last = self.max_failures.is_some_and(|max| memory.failures >= max);
                if error.kind() == Kind::Usage || is_last {
                    return Err(error);
                }
                let text = match error.hint() {
                    Some(hint) => format!("{error} ({hint})"),
                    None => error.to_string(),
                };
                if memory.error.as_ref() != Some(&text) {
                    log.error("run", &text);
                    memory.error = Some(text);
                }
            }
        }
        Ok(())
    }

    /// Plans the first run: at once with a period, or when the period since the last success is over.
    fn first(&self, state: Option<&JobState>) -> Plan {
        let (now, elapsed) = (self.clock().now(), self.clock().elapsed());
        let last = state.and_then(JobState::last_success).filter(|last| *last <= now);
        match &self.schedule {
            Schedule::Every(period) => {
                let since = last.and_then(|last| now.duration_since(last).ok());
                let wait = since.map(|since| period.saturating_sub(since)).unwrap_or_default();
                let jitter = if wait.is_zero() { Duration::ZERO } else { self.random() };
                self.plan(wait + jitter, false)
            }
            Schedule::Cron(line) => {
                // A time that was missed since the last success is run for now.
                let missed = last.and_then(|last| line.next(last)).filter(|missed| *missed <= now);
                match missed.or_else(|| line.next(now)) {
                    Some(time) => self.plan(wait_for(time, now) + self.random(), true),
                    None => Plan { at: elapsed + LAST_RETRY, time: now + LAST_RETRY, by_the_clock: false },
                }
            }
        }
    }

    /// Plans the run after one that began at `begun`.
    fn next(&self, begun: Duration, memory: &mut Memory) -> Plan {
        let (now, elapsed) = (self.clock().now(), self.clock().elapsed());
        let (wait, by_the_clock) = match &self.schedule {
            Schedule::Every(period) => {
                // Retries and runs that took long do not move the schedule.
                let passed = begun.saturating_sub(memory.period_begun).as_nanos() / period.as_nanos();
                memory.period_begun += period.saturating_mul(u32::try_from(passed).unwrap_or(u32::MAX));
                ((memory.period_begun + *period).saturating_sub(elapsed), false)
            }
            Schedule::Cron(line) => match line.next(memory.unless_set_back(now)) {
                Some(time) => (wait_for(time, now), true),
                None => (LAST_RETRY, false),
            },
        };
        let wait = wait + self.random();
        match memory.failures {
            0 => self.plan(wait, by_the_clock),
            failures => {
                let doubled = FIRST_RETRY.saturating_mul(1 << (failures - 1).min(16)).min(LAST_RETRY);
                if doubled < wait { self.plan(doubled, false) } else { self.plan(wait, by_the_clock) }
            }
        }
    }

    fn plan(&self, wait: Duration, by_the_clock: bool) -> Plan {
        Plan { at: self.clock().elapsed() + wait, time: self.clock().now() + wait, by_the_clock }
    }

    /// Returns a random part of the jitter.
    fn random(&self) -> Duration {
        let part = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
        self.jitter.mul_f64(part)
    }

    /// Waits for the planned time.
    ///
    /// # Errors
    /// Cancellation.
    fn wait(&self, plan: &mut Plan, end: &CancelToken) -> Result<()> {
        let clock = self.clock();
        let (mut time, mut elapsed) = (clock.now(), clock.elapsed());
        loop {
            self.status.alive(clock);
            let left = if plan.by_the_clock {
                plan.time.duration_since(clock.now()).unwrap_or_default()
            } else {
                plan.at.saturating_sub(clock.elapsed())
            };
            if left.is_zero() {
                return end.check();
            }
            clock.sleep(left.min(MAX_SLEEP), end)?;
            let passed = clock.elapsed().saturating_sub(elapsed);
            let expected = time + passed;
            (time, elapsed) = (clock.now(), clock.elapsed());
            if plan.by_the_clock && expected.duration_since(time).unwrap_or_default() >= SET_BACK {
                self.set_back(plan, time);
            }
        }
    }

    /// Plans again after the clock was set back.
    fn set_back(&self, plan: &mut Plan, now: SystemTime) {
        let Schedule::Cron(line) = &self.schedule else { return };
        if let Some(time) = line.next(now).filter(|time| *time < plan.time) {
            *plan = self.plan(wait_for(time, now) + self.random(), true);
            let next = self.zone.format(plan.time);
            self.runner.context.log.warning("schedule", &format!("the clock was set back; next run: {next}"));
        }
    }

    /// Says when the next run is: once, and after a failure.
    fn announce(&self, plan: &Plan, memory: &mut Memory) {
        let healthy_for = self.healthy_for(self.clock().now());
        self.status.wait(Some(plan.time), self.clock(), healthy_for);
        if !memory.is_announced || memory.failures == 1 {
            memory.is_announced = true;
            let next = self.zone.format(plan.time);
            self.runner.context.log.info("schedule", &format!("next run: {next}"));
        }
    }

    /// Returns for how long the service is healthy after a success, at least: three periods.
    fn healthy_for(&self, from: SystemTime) -> Option<Duration> {
        let time = match &self.schedule {
            Schedule::Every(period) => period.saturating_mul(HEALTHY_PERIODS),
            Schedule::Cron(line) => {
                let third = (0..HEALTHY_PERIODS).try_fold(from, |time, _| line.next(time))?;
                third.duration_since(from).ok()?
            }
        };
        Some(time.saturating_add(self.jitter).saturating_add(FIRST_RETRY))
    }
}

fn wait_for(time: SystemTime, now: SystemTime) -> Duration {
    time.duration_since(now).unwrap_or_default()
}

/// Returns the part of the grace period that is kept for cleaning up after an interruption.
fn margin(grace: Duration) -> Duration {
    (grace / 5).clamp(Duration::from_millis(500), Duration::from_secs(10)).min(grace)
}
