//! One run: the hooks around the work, in this order:
//!
//! 1. `--before`. If it fails, there is no work.
//! 2. The work.
//! 3. `--on-error`, if one of the two failed. It does not run after an interruption.
//! 4. `--after`, always if `--before` has begun: also after an error, an interruption, a time-out or a panic. If this
//!    process is killed, or the command fails, it runs at the next start: see [`JobState`].

use super::clock::Clock;
use super::hook::{Hook, HookContext, Variables};
use super::state::{JobState, RunEnd, TreeSize};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::stream::{CancelToken, start};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The longest time for which interrupted work is waited for, until it has aborted its uploads.
pub(super) const ABORT_TIMEOUT: Duration = Duration::from_secs(20);
/// The time for interrupted work to end after it has aborted its uploads. Work that continues is abandoned: all that it
/// writes can be interrupted at any moment.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// The maximum length of an error in a variable, in characters. Linux has 128 KiB for one variable.
const MAX_ERROR: usize = 8 << 10;
/// The time between two looks at the cancellation.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// The hooks of each run.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// The hook before the work.
    pub before: Option<Hook>,
    /// The hook after the work, whatever happened.
    pub after: Option<Hook>,
    /// The hook after a failure.
    pub on_error: Option<Hook>,
}

/// The result of work that was successful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The digest of the image.
    pub digest: Digest,
    /// The number of bytes that were sent or fetched.
    pub bytes: u64,
    /// The change that the work made.
    pub change: Change,
    /// The size of the tree, if it is to be compared with that of the next run.
    pub size: Option<TreeSize>,
}

/// A change, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something is new.
    Changed,
    /// Everything was there already.
    Unchanged,
}

/// The report about a run.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// The result of `--before` and the work.
    pub outcome: Result<Done>,
    /// Set if the run was interrupted; `outcome` is an error then.
    pub interrupted: bool,
    /// The first error of a hook.
    pub hook_error: Option<Error>,
    /// The duration of the work.
    pub duration: Duration,
}

impl Report {
    fn not_begun(error: Error) -> Self {
        Self { outcome: Err(error), interrupted: false, hook_error: None, duration: Duration::ZERO }
    }

    /// Returns the result of the work, or the error of a hook after it.
    ///
    /// # Errors
    /// If the work or a hook failed.
    pub fn into_result(self) -> Result<Done> {
        match (self.outcome, self.hook_error) {
            (Ok(done), Some(error)) => {
                Err(error.context(format!("the work is done, with the image {}", done.digest)))
            }
            (outcome, _) => outcome,
        }
    }
}

/// Runs of the same work with the same hooks.
#[derive(Clone)]
pub struct Runner {
    /// The hooks.
    pub hooks: Hooks,
    /// Their surroundings.
    pub context: HookContext,
    /// The image, as the command names it.
    pub image: String,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

impl Runner {
    /// Runs the command of `--after` if the last run was killed. An error is logged and returned; the next run is not
    /// affected by it.
    pub fn recover(&self, state: Option<&mut JobState>) -> Option<Error> {
        let state = state.filter(|state| state.was_killed())?;
        let log = &*self.context.log;
        let outcome = match &self.hooks.after {
            Some(after) => {
                log.warning("hook", "the last run was killed, or its --after has failed: it runs now");
                self.run_hook(
                    after,
                    &self.variables().with("VOLIO_RESULT", "killed"),
                    &CancelToken::default(),
                )
            }
            None => Ok(()),
        };
        if let Err(error) = state.end(RunEnd::Interrupted, outcome.is_ok()) {
            log.warning("state", &error.to_string());
        }
        outcome.err()
    }

    /// Runs the hooks and the work. The work gets a token that is cancelled with `cancel`, and ends soon then; otherwise it
    /// is abandoned, with its thread.
    pub fn run(
        &self,
        state: Option<&mut JobState>,
        cancel: &CancelToken,
        work: impl FnOnce(&CancelToken) -> Result<Done> + Send + 'static,
    ) -> Report {
        self.run_within(ABORT_TIMEOUT, state, cancel, work)
    }

    /// Does the same. Interrupted work has the time `abort` to end.
    pub(super) fn run_within(
        &self,
        abort: Duration,
        mut state: Option<&mut JobState>,
        cancel: &CancelToken,
        work: impl FnOnce(&CancelToken) -> Result<Done> + Send + 'static,
    ) -> Report {
        let begun = (self.clock.now(), self.clock.elapsed());
        let noted = state.as_mut().map_or(Ok(()), |state| state.begin(begun.0));
        match noted {
            // Nothing has begun, so nothing has to be undone.
            Err(error) if self.hooks.after.is_some() => return Report::not_begun(error),
            Err(error) => self.context.log.warning("state", &error.to_string()),
            Ok(()) => {}
        }
        let (mut hook_error, mut variables) = (None, self.variables());
        let before = self.hooks.before.as_ref().map(|hook| self.run_hook(hook, &variables, cancel));
        let outcome = match before {
            Some(Err(error)) => {
                hook_error = Some(again(&error));
                Err(error)
            }
            _ => run_work_within(abort, work, cancel),
        };
        let duration = self.clock.elapsed().saturating_sub(begun.1);
        let interrupted = outcome.is_err() && cancel.is_cancelled();
        variables = describe(variables, &outcome, interrupted, duration);
        let on_error = self.hooks.on_error.as_ref().filter(|_| outcome.is_err() && !interrupted);
        // The program may be ended by a second signal meanwhile, and then the note remains.
        let mut is_complete = true;
        for hook in [on_error, self.hooks.after.as_ref()].into_iter().flatten() {
            let outcome = self.run_hook(hook, &variables, &CancelToken::default());
            // The last one decides.
            is_complete = outcome.is_ok() || self.hooks.after.is_none();
            hook_error = hook_error.or(outcome.err());
        }
        let end = match &outcome {
            Ok(done) => RunEnd::Succeeded { begun: begun.0, size: done.size },
            Err(_) if interrupted => RunEnd::Interrupted,
            Err(_) => RunEnd::Failed,
        };
        if let Some(state) = state
            && let Err(error) = state.end(end, is_complete)
        {
            self.context.log.warning("state", &error.to_string());
        }
        Report { outcome, interrupted, hook_error, duration }
    }

    fn variables(&self) -> Variables {
        Variables::default().with("VOLIO_IMAGE", self.image.as_str())
    }

    /// Runs a hook, and logs its error.
    fn run_hook(&self, hook: &Hook, variables: &Variables, cancel: &CancelToken) -> Result<()> {
        hook.run(variables, None, &self.context, cancel)
            .inspect_err(|error| self.context.log.error("hook", &error.to_string()))
    }
}

/// Adds the result to the variables.
fn describe(
    variables: Variables,
    outcome: &Result<Done>,
    interrupted: bool,
    duration: Duration,
) -> Variables {
    let variables = variables.with("VOLIO_SECONDS", format!("{:.3}", duration.as_secs_f64()));
    match outcome {
        Ok(done) => variables
            .with("VOLIO_RESULT", if done.change == Change::Changed { "success" } else { "unchanged" })
            .with("VOLIO_DIGEST", done.digest.to_string())
            .with("VOLIO_BYTES", done.bytes.to_string()),
        Err(error) => variables
            .with("VOLIO_RESULT", if interrupted { "interrupted" } else { "failed" })
            .with("VOLIO_ERROR", variable(error)),
    }
}

/// Returns an error as the value of a variable, which has a limited size and no zero byte.
fn variable(error: &Error) -> String {
    let text = error.to_string().replace('\0', "\\0");
    match text.char_indices().nth(MAX_ERROR) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Copies what is shown of an error.
fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}

/// Does the work on another thread, so that it can be abandoned.
pub(super) fn run_work<T: Send + 'static>(
    work: impl FnOnce(&CancelToken) -> Result<T> + Send + 'static,
    cancel: &CancelToken,
) -> Result<T> {
    run_work_within(ABORT_TIMEOUT, work, cancel)
}

fn run_work_within<T: Send + 'static>(
    abort: Duration,
    work: impl FnOnce(&CancelToken) -> Result<T> + Send + 'static,
    cancel: &CancelToken,
) -> Result<T> {
    cancel.check()?;
    let (sender, result) = channel();
    let token = CancelToken::default();
    let passed = token.clone();
    // The receiver may have gone.
    start(move || _ = sender.send(work(&passed)))?;
    let panicked = || Error::failed("the work has panicked").with_hint("this is a fault of volio: report it");
    loop {
        match result.recv_timeout(CHECK_INTERVAL) {
            Ok(outcome) => return outcome,
            Err(RecvTimeoutError::Disconnected) => return Err(panicked()),
            Err(RecvTimeoutError::Timeout) if cancel.is_cancelled() => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    token.cancel();
    end_of(&result, &token, abort).unwrap_or_else(|| Err(Error::failed("interrupted")))
}

/// Waits for the end of work that was cancelled; `None` if it does not end.
fn end_of<T>(result: &Receiver<Result<T>>, token: &CancelToken, limit: Duration) -> Option<Result<T>> {
    let begun = Instant::now();
    token.wait_for_guards(limit);
    let left = limit.saturating_sub(begun.elapsed()).min(END_TIMEOUT);
    result.recv_timeout(left).ok()
}
