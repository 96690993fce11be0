//! `volio pack` unattended: by a schedule, or once with hooks.

use super::Pack;
use crate::exit::Exit;
use crate::progress::Display;
use crate::{output, signal, unattended};
use clap::Args;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use volio::pack::EarlierRun;
use volio::service::{AtEnd, Done, JobState, Schedule, Scheduled, Status, Stopped, TreeSize, parse_duration};
use volio::{CancelToken, Error, Result};

/// Options for a schedule.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Unattended options")]
pub struct ScheduleArgs {
    /// Pack now, and again after each of these times, until SIGTERM: 90s, 15m, 6h, 1d
    #[arg(long, value_name = "DURATION", group = "schedule", value_parser = parse_duration)]
    every: Option<Duration>,

    /// Pack at these times, until SIGTERM: minute, hour, day, month, weekday, in the time zone TZ; or @daily
    #[arg(long, value_name = "LINE", group = "schedule")]
    cron: Option<String>,

    /// Delay each run by a random time up to this
    #[arg(long, value_name = "DURATION", requires = "schedule", default_value = "0", value_parser = parse_duration)]
    jitter: Duration,

    /// At SIGTERM, pack once more
    #[arg(long, requires = "schedule")]
    on_exit: bool,

    /// The time between SIGTERM and SIGKILL here; a last pack that needs longer is interrupted
    #[arg(long, value_name = "DURATION", requires = "on_exit", default_value = "30s", value_parser = parse_duration)]
    grace: Duration,

    /// Give up after so many failures in a row
    #[arg(long, value_name = "N", requires = "schedule", value_parser = clap::value_parser!(u32).range(1..))]
    max_failures: Option<u32>,
}

impl ScheduleArgs {
    /// Returns whether a schedule was given.
    pub fn is_given(&self) -> bool {
        self.every.is_some() || self.cron.is_some()
    }

    fn schedule(&self) -> Result<Option<Schedule>> {
        let schedule = match (&self.every, &self.cron) {
            (Some(period), _) if !self.jitter.is_zero() && self.jitter >= *period => {
                return Err(Error::usage("--jitter is not shorter than the time of --every")
                    .with_hint("give a shorter one, for example a tenth of it"));
            }
            (Some(period), _) => Schedule::every(*period)?,
            (None, Some(line)) => Schedule::cron(line, unattended::zone()?, SystemTime::now())?,
            (None, None) => return Ok(None),
        };
        Ok(Some(schedule))
    }
}

/// The facts about the run before that the next one needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastRun {
    /// The end of it.
    pub end: EarlierRun,
    /// The size of the tree that the last successful one has packed.
    pub size: Option<TreeSize>,
}

impl LastRun {
    fn of(state: Option<&JobState>) -> Self {
        let is_interrupted = state.is_some_and(JobState::was_interrupted);
        let end = if is_interrupted { EarlierRun::Interrupted } else { EarlierRun::Ended };
        Self { end, size: state.and_then(JobState::last_size) }
    }
}

/// Returns what a run has to know of the one before. A run that is abandoned counts as interrupted.
fn begin(last: &Mutex<LastRun>, compares_sizes: bool) -> LastRun {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let before = LastRun { size: last.size.filter(|_| compares_sizes), ..*last };
    last.end = EarlierRun::Interrupted;
    before
}

/// Notes the end of a run.
fn end(last: &Mutex<LastRun>, outcome: &Result<Done>, cancel: &CancelToken) {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    match outcome {
        Ok(done) => *last = LastRun { end: EarlierRun::Ended, size: done.size },
        Err(_) if cancel.is_cancelled() => {}
        Err(_) => last.end = EarlierRun::Ended,
    }
}

impl Pack {
    /// Returns whether the command runs by a schedule, or has hooks: then it ends in an orderly way at a signal.
    pub fn is_unattended(&self) -> bool {
        self.schedule.is_given() || self.unattended.is_given()
    }

    /// Packs by the schedule, or once with hooks.
    pub(super) fn run_unattended(self) -> Result<Exit> {
        self.unattended.set_log_format();
        let unattended = self.unattended.clone();
        self.serve().inspect_err(|error| unattended.write_termination_log(error))
    }

    fn serve(self) -> Result<Exit> {
        self.check_unattended()?;
        let schedule = self.schedule.schedule()?;
        let image = self.invocation(&Display::warnings())?.image;
        self.tags.check(&image)?;
        let (unattended, quiet) = (self.unattended.clone(), self.output.quiet);
        let runner = unattended.runner(&image, quiet)?;
        let status = Arc::<Status>::default();
        let _server = unattended.serve_health(&status, &runner)?;
        let needs_state = schedule.is_some() || unattended.has_after();
        let stop = signal::stop_token();
        let opened = if needs_state { unattended.open_state("pack", &image, &runner) } else { Ok(None) };
        if opened.is_err() && stop.is_cancelled() {
            return Ok(Exit::Interrupted);
        }
        let mut state = opened?;
        let is_single = schedule.is_none();
        let (args, pack, shown) = (self.schedule.clone(), Arc::new(self), Arc::clone(&status));
        let last = Mutex::new(LastRun::of(state.as_ref()));
        let work = move |cancel: &CancelToken| {
            let before = begin(&last, !is_single);
            let outcome = Pack::clone(&pack).pack_once(cancel, &shown, is_single, before);
            end(&last, &outcome, cancel);
            outcome
        };
        let Some(schedule) = schedule else {
            runner.recover(state.as_mut());
            status.begin(&*runner.clock);
            let report = runner.run(state.as_mut(), &stop, work);
            if report.interrupted {
                output::line("interrupted");
                return Ok(Exit::Interrupted);
            }
            return report.into_result().map(|_| Exit::Done);
        };
        let scheduled = Scheduled {
            runner,
            schedule,
            zone: unattended::zone()?,
            jitter: args.jitter,
            at_end: if args.on_exit { AtEnd::RunOnce(args.grace) } else { AtEnd::Stop },
            max_failures: args.max_failures,
            status,
        };
        match scheduled.serve(state, &stop, work)? {
            Stopped::Idle => Ok(Exit::Done),
            Stopped::Interrupted => {
                output::line("interrupted");
                Ok(Exit::Interrupted)
            }
        }
    }

    /// Refuses what makes no sense unattended.
    pub(super) fn check_unattended(&self) -> Result<()> {
        self.unattended.check()?;
        if self.incremental.dry_run {
            return Err(Error::usage("--dry-run runs neither hooks nor a schedule").with_hint("leave it out"));
        }
        if self.schedule.is_given() && self.sources.iter().any(|source| source.is_standard_input()) {
            return Err(Error::usage("standard input can be packed only once").with_hint("name a directory"));
        }
        if self.schedule.is_given() && self.wait_for_signal {
            return Err(Error::usage("--wait-for-signal is for a single pack")
                .with_hint("with a schedule, --on-exit packs once more at SIGTERM"));
        }
        Ok(())
    }

    /// Packs once, until the token is cancelled. Credentials are read again for each run.
    fn pack_once(
        self,
        cancel: &CancelToken,
        status: &Arc<Status>,
        is_single: bool,
        last: LastRun,
    ) -> Result<Done> {
        let quiet = self.output.quiet;
        let shown = if is_single { Display::start("pack", quiet) } else { Display::warnings_unless(quiet) };
        let display = shown.observed_by(status);
        let mut invocation = self.invocation(&display)?;
        invocation.access.client.cancel = cancel.clone();
        self.pack(&invocation, display, last).map_err(|error| invocation.explain(error))
    }
}
