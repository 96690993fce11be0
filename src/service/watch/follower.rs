//! The course of a watch: when something is done next, and what is said about it.

use super::backoff::{until_hook, until_poll};
use super::publishing::{Found, Publishing, judged};
use super::{Watch, WatchOptions};
use crate::error::{Error, Kind, Result};
use crate::oci::Digest;
use crate::service::clock::Clock;
use crate::service::log::{Log, count};
use crate::service::publish::{Judged, Note, Publisher};
use crate::service::run::{Runner, run_work};
use crate::service::state::JobState;
use crate::service::status::Status;
use crate::stream::CancelToken;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// The longest wait without a sign of life.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// The number of periods without a successful poll after which a watch is not healthy, and what it may be late besides.
const HEALTHY_PERIODS: u32 = 3;
const HEALTHY_MARGIN: Duration = Duration::from_secs(60);

/// A watch that is running.
pub(super) struct Follower {
    options: WatchOptions,
    runner: Runner,
    state: Option<JobState>,
    status: Arc<Status>,
    publishing: Publishing,
    /// The condition that was logged last.
    condition: Condition,
    /// The number of failures since the last success.
    failures: u32,
    has_succeeded: bool,
    /// The time of the next poll, by the clock.
    next_poll: Duration,
    hook: HookAttempts,
    /// The new version that was logged last.
    seen: Option<Digest>,
    /// Set after a publication, until old versions are removed.
    wants_tidying: bool,
    /// The problem with old versions that was logged last.
    untidy: Option<String>,
}

/// The condition of a watch. A line is logged when it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Started,
    Published(Digest),
    Rejected(Digest),
    Failing(Kind, Option<u16>),
}

/// The attempts of `--on-change` for one version.
#[derive(Debug, Default)]
struct HookAttempts {
    version: Option<Digest>,
    failures: u32,
    /// The time of the next attempt, by the clock.
    next: Duration,
}

/// The result of a poll, and of the publication that followed.
enum Polled {
    Published(Digest),
    /// The version was rejected, with the error if that was now.
    Rejected(Digest, Option<Error>),
}

impl Follower {
    pub fn new(watch: Watch, publisher: Publisher) -> Self {
        let Watch { target: _, options, open, runner, progress, state, status } = watch;
        let publishing = Publishing {
            publisher: Arc::new(Mutex::new(publisher)),
            open,
            before_publish: options.before_publish.clone(),
            context: runner.context.clone(),
            image: runner.image.clone(),
            progress,
            known: Arc::default(),
            is_pinned: options.is_pinned,
        };
        let next_poll = runner.clock.elapsed();
        Self {
            options,
            runner,
            state,
            status,
            publishing,
            condition: Condition::Started,
            failures: 0,
            has_succeeded: false,
            next_poll,
            hook: HookAttempts::default(),
            seen: None,
            wants_tidying: false,
            untidy: None,
        }
    }

    fn log(&self) -> &dyn Log {
        &*self.runner.context.log
    }

    fn clock(&self) -> &dyn Clock {
        &*self.runner.clock
    }

    /// Returns for how long the service is healthy after a successful poll; `None` if there will be none.
    fn healthy_for(&self) -> Option<Duration> {
        let for_polls = self.options.period.saturating_mul(HEALTHY_PERIODS).saturating_add(HEALTHY_MARGIN);
        (!self.options.is_pinned).then_some(for_polls)
    }

    /// Runs the command of `--after` if the last run was killed, and reports data that it has left.
    pub fn recover(&mut self) {
        let clock = Arc::clone(&self.runner.clock);
        let recovered = self.status.during_hook(&*clock, || self.runner.recover(self.state.as_mut()));
        if let Some(error) = recovered {
            self.status.hook_failure(self.clock(), &error);
        }
        if self.publishing.publisher().current().is_ok_and(|version| version.is_some()) {
            self.status.has_data();
        }
    }

    /// Waits until the next turn, and says that the service is alive.
    ///
    /// # Errors
    /// Cancellation.
    pub fn wait(&self, pause: Duration, cancel: &CancelToken) -> Result<()> {
        let until = self.clock().elapsed().saturating_add(pause);
        let next_poll = self.next_poll.saturating_sub(self.clock().elapsed());
        let next = self.clock().now().checked_add(next_poll).filter(|_| !self.options.is_pinned);
        self.status.wait(next, self.clock(), self.healthy_for());
        loop {
            self.status.alive(self.clock());
            let left = until.saturating_sub(self.clock().elapsed());
            if left.is_zero() {
                return cancel.check();
            }
            self.clock().sleep(left.min(MAX_SLEEP), cancel)?;
        }
    }

    /// Does what is due, and returns the time until the next turn.
    ///
    /// # Errors
    /// The last one, if there were too many failures, or trying again makes no sense.
    pub fn turn(&mut self, cancel: &CancelToken) -> Result<Duration> {
        if self.clock().elapsed() >= self.next_poll {
            let polled = self.poll(cancel);
            if cancel.is_cancelled() {
                return Ok(Duration::ZERO);
            }
            self.judge(polled)?;
        }
        let hook = self.run_on_change(cancel);
        if std::mem::take(&mut self.wants_tidying) && !cancel.is_cancelled() {
            self.tidy();
        }
        let now = self.clock().elapsed();
        let next = hook.map_or(self.next_poll, |hook| hook.min(self.next_poll));
        Ok(next.saturating_sub(now))
    }

    fn poll(&mut self, cancel: &CancelToken) -> Result<Polled> {
        let begun = (self.clock().now(), self.clock().elapsed());
        let publishing = self.publishing.clone();
        let polled = run_work(move |_| publishing.poll(), cancel);
        if let Err(error) = polled.as_ref()
            && !cancel.is_cancelled()
        {
            self.status.failure(self.clock(), error);
        }
        let version = match polled? {
            Found::Published(version) => {
                self.report_poll(begun);
                return Ok(Polled::Published(version));
            }
            Found::Rejected(version) => {
                if self.publishing.publisher().current()?.is_some() {
                    self.report_poll(begun);
                }
                return Ok(Polled::Rejected(version, None));
            }
            Found::New(version) => version,
        };
        if self.seen.as_ref() != Some(&version) {
            self.log().info("watch", &format!("{} is {version} now", self.runner.image));
            self.seen = Some(version.clone());
        }
        let publishing = self.publishing.clone();
        self.status.begin(self.clock());
        let report = self.runner.run(self.state.as_mut(), cancel, move |cancel| publishing.publish(cancel));
        self.status.end(&report, begun.0, self.clock(), self.healthy_for());
        match report.outcome {
            Ok(done) => Ok(Polled::Published(done.digest)),
            // The work may have been abandoned, and holds the directory then.
            Err(error) if report.interrupted => Err(error),
            Err(error) => {
                let publisher = self.publishing.publisher();
                let is_rejected = self.publishing.is_rejected(&publisher, &version);
                if is_rejected { Ok(Polled::Rejected(version, Some(error))) } else { Err(error) }
            }
        }
    }

    /// Reports a successful poll that has found nothing new.
    fn report_poll(&self, (begun, since): (SystemTime, Duration)) {
        let duration = self.clock().elapsed().saturating_sub(since);
        self.status.success(begun, self.clock(), 0, duration, self.healthy_for());
    }

    /// Logs a change, and plans the next poll.
    fn judge(&mut self, polled: Result<Polled>) -> Result<()> {
        let asked = polled.as_ref().err().and_then(Error::retry_after);
        match polled {
            Ok(Polled::Published(version)) => {
                self.succeed(Condition::Published(version));
                self.has_succeeded = true;
                self.failures = 0;
                self.wants_tidying = true;
            }
            Ok(Polled::Rejected(version, None)) => {
                self.succeed(Condition::Rejected(version));
                self.failures = 0;
            }
            Ok(Polled::Rejected(version, Some(error))) => {
                self.condition = Condition::Rejected(version);
                self.log().error("watch", &format!("{error}; the version before stays"));
                self.fail(error)?;
                self.failures = 0;
            }
            Err(error) => {
                let condition = Condition::Failing(error.kind(), error.status());
                if self.condition != condition {
                    self.condition = condition;
                    self.log().error("watch", &describe(&error));
                }
                self.fail(error)?;
            }
        }
        self.next_poll = self.clock().elapsed() + until_poll(self.options.period, self.failures, asked);
        Ok(())
    }

    fn succeed(&mut self, condition: Condition) {
        let image = &self.runner.image;
        if let Condition::Failing(..) = self.condition {
            let failures = count(self.failures.into(), "failure", "failures");
            self.log().info("watch", &format!("{image} can be followed again, after {failures}"));
        }
        match &condition {
            _ if condition == self.condition => {}
            Condition::Rejected(version) => {
                let text = format!("{image} is {version}, which --before-publish has rejected");
                self.log().warning("watch", &text);
            }
            Condition::Published(version) if self.seen.as_ref() != Some(version) => {
                self.log().info("watch", &format!("{image} is {version}"));
            }
            _ => {}
        }
        self.condition = condition;
    }

    /// Counts a failure.
    ///
    /// # Errors
    /// The error, if no more failures are accepted.
    fn fail(&mut self, error: Error) -> Result<()> {
        self.failures = self.failures.saturating_add(1);
        // A directory in which another run is at work at the moment is refused as well.
        let is_lasting = error.retry_after().is_none() && matches!(error.kind(), Kind::Usage | Kind::Refused);
        let is_permanent = is_lasting && !self.has_succeeded;
        let limit = if self.has_succeeded { self.options.max_failures } else { self.options.init_failures };
        match limit {
            _ if is_permanent => Err(error),
            Some(1) => Err(error),
            Some(limit) if self.failures >= limit => {
                Err(error.context(format!("giving up after {} failures in a row", self.failures)))
            }
            _ => Ok(()),
        }
    }

    fn tidy(&mut self) {
        let left = match self.publishing.publisher().tidy() {
            Ok(errors) => errors.into_iter().next(),
            Err(error) => Some(error),
        };
        let text = left.map(|error| error.to_string());
        if let Some(text) = text.as_ref().filter(|text| Some(*text) != self.untidy.as_ref()) {
            self.log().warning("watch", &format!("an old version stays: {text}"));
        }
        self.untidy = text;
    }

    /// Runs `--on-change` if it has not succeeded for the published version. Returns the time of the next attempt.
    fn run_on_change(&mut self, cancel: &CancelToken) -> Option<Duration> {
        let hook = self.options.on_change.clone()?;
        let (version, tree) = {
            let publisher = self.publishing.publisher();
            let version = publisher.current().ok().flatten()?;
            if publisher.note().announced.as_ref() == Some(&judged(&hook, &version)) {
                return None;
            }
            let tree = publisher.tree(&version);
            (version, tree)
        };
        if self.hook.version.as_ref() != Some(&version) {
            self.hook = HookAttempts { version: Some(version.clone()), ..HookAttempts::default() };
        }
        if self.hook.failures >= self.options.on_change_attempts {
            return None;
        }
        if self.clock().elapsed() < self.hook.next {
            return Some(self.hook.next);
        }
        let variables = self.publishing.variables(&version, &tree);
        let run = self
            .status
            .during_hook(self.clock(), || hook.run(&variables, Some(&tree), &self.runner.context, cancel));
        match run.and_then(|()| self.note_announced(judged(&hook, &version))) {
            Ok(()) => None,
            Err(_) if cancel.is_cancelled() => None,
            Err(error) => self.hook_failed(&error),
        }
    }

    /// Notes that `--on-change` has succeeded for a version. If that cannot be noted, the hook will run again.
    fn note_announced(&self, judged: Judged) -> Result<()> {
        let publisher = self.publishing.publisher();
        publisher.write_note(&Note { announced: Some(judged), ..publisher.note() })
    }

    /// Counts a failure of `--on-change`, and returns the time of the next attempt.
    fn hook_failed(&mut self, error: &Error) -> Option<Duration> {
        self.status.hook_failure(self.clock(), error);
        let attempts = self.options.on_change_attempts;
        self.hook.failures += 1;
        self.hook.next = self.clock().elapsed() + until_hook(self.hook.failures);
        if self.hook.failures == 1 {
            self.log().error("hook", &describe(error));
        }
        if self.hook.failures >= attempts {
            let times = count(attempts.into(), "time", "times");
            let text = format!("--on-change has failed {times}, and is not tried again for this version");
            self.log().error("hook", &text);
            return None;
        }
        Some(self.hook.next)
    }
}

/// Returns an error with its hint.
fn describe(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    }
}
