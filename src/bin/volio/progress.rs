//! Progress on stderr: bars on a terminal, plain lines elsewhere, events for programs, or nothing.
//!
//! Bars are removed when the work ends. Lines are for logs, where bars would be control characters. Without
//! `--progress`, there is one line every few seconds, so that short work prints none.

mod bars;
mod json;
mod lines;
mod phases;
mod plain;
mod ticker;

use crate::output::{self, LogFormat};
use clap::ValueEnum;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use volio::progress::{Progress, Silent, Task, TaskInfo};
use volio::service::Status;

/// The value of `--progress`. The variants have no help texts, because those would double the length of every help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    // Bars on a terminal, and elsewhere lines about work that takes long.
    #[default]
    Auto,
    // Bars. Without a terminal, the same as `Plain`.
    Tty,
    Plain,
    Json,
    None,
}

static MODE: OnceLock<ProgressMode> = OnceLock::new();

impl ProgressMode {
    /// Sets the way in which the command shows its progress. With `json`, all lines on stderr are JSON.
    pub fn apply(self) {
        // There is one command line.
        let _ = MODE.set(self);
        if self == Self::Json {
            output::set_format(LogFormat::Json);
        }
    }

    /// Returns whether progress is wanted, which `--quiet` contradicts.
    pub fn wants_output(self) -> bool {
        matches!(self, Self::Tty | Self::Plain | Self::Json)
    }

    fn current() -> Self {
        MODE.get().copied().unwrap_or_default()
    }
}

/// The progress display of one command. It ends when this is dropped. Events that come later, from connections that are
/// still being closed, are not shown.
pub struct Display(Arc<dyn Show>);

/// A way to show progress.
trait Show: Progress {
    /// Removes everything but warnings from the terminal, and shows nothing from then on.
    fn finish(&self);
}

impl Display {
    /// Starts the display that was chosen, or the one that fits stderr.
    pub fn start(verb: &'static str, quiet: bool) -> Self {
        Self::new(verb, quiet, true)
    }

    /// Starts a display for a command that writes its results while it works. There are no bars where both go to the same
    /// terminal, because they would overwrite the results.
    pub fn start_beside_results(verb: &'static str, quiet: bool) -> Self {
        Self::new(verb, quiet, !std::io::stdout().is_terminal())
    }

    /// A display that shows warnings only, for commands that take no time.
    pub fn warnings() -> Self {
        Self(Arc::new(Warnings))
    }

    /// A display that shows warnings only, or nothing.
    pub fn warnings_unless(quiet: bool) -> Self {
        if quiet { Self(Arc::new(Silent)) } else { Self::warnings() }
    }

    /// The same display, of which a status notes that bytes move.
    pub fn observed_by(mut self, status: &Arc<Status>) -> Self {
        let shown = std::mem::replace(&mut self.0, Arc::new(Silent));
        Self(Arc::new(Observed { events: status.observe(shown.clone()), shown }))
    }

    fn new(verb: &'static str, quiet: bool, may_have_bars: bool) -> Self {
        if quiet {
            return Self(Arc::new(Silent));
        }
        let may_have_bars = may_have_bars && std::io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        Self(match ProgressMode::current() {
            ProgressMode::Auto if may_have_bars && !dumb => Arc::new(bars::Bars::new()),
            ProgressMode::Auto => Arc::new(lines::Lines::new(verb)),
            ProgressMode::Tty if may_have_bars => Arc::new(bars::Bars::new()),
            ProgressMode::Tty | ProgressMode::Plain => Arc::new(plain::PlainLines::new(verb)),
            ProgressMode::Json => Arc::new(json::JsonEvents::new(verb)),
            ProgressMode::None => Arc::new(Warnings),
        })
    }

    /// Returns the receiver of the events, for clients of registries.
    pub fn shared(&self) -> Arc<dyn Progress> {
        self.0.clone()
    }
}

impl AsRef<dyn Progress> for Display {
    fn as_ref(&self) -> &(dyn Progress + 'static) {
        &*self.0
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl Show for Silent {
    fn finish(&self) {}
}

/// A display whose events pass through a status.
struct Observed {
    events: Arc<dyn Progress>,
    shown: Arc<dyn Show>,
}

impl Progress for Observed {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        self.events.begin(info)
    }

    fn warn(&self, message: &str) {
        self.events.warn(message);
    }
}

impl Show for Observed {
    fn finish(&self) {
        self.shown.finish();
    }
}

/// Shows warnings only.
struct Warnings;

impl Progress for Warnings {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        Silent.begin(info)
    }

    fn warn(&self, message: &str) {
        output::warning(message);
    }
}

impl Show for Warnings {
    fn finish(&self) {}
}

/// The sums of all tasks. Tasks with a known total and tasks without one are kept apart, because the time left of a mixed
/// sum would be unknown.
#[derive(Debug, Default)]
struct Totals {
    known: TaskGroup,
    unknown: TaskGroup,
}

/// The sums of tasks that all have a total, or all have none.
#[derive(Debug, Default)]
struct TaskGroup {
    /// Bytes done.
    done: AtomicU64,
    /// Bytes to do.
    total: AtomicU64,
    /// Tasks that have begun.
    begun: AtomicU64,
    /// Tasks that have ended.
    ended: AtomicU64,
}

/// The sums of a group at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sums {
    done: u64,
    total: Option<u64>,
    begun: u64,
}

impl Totals {
    fn group(&self, total: Option<u64>) -> &TaskGroup {
        if total.is_some() { &self.known } else { &self.unknown }
    }

    fn begin(&self, total: Option<u64>) {
        let group = self.group(total);
        group.total.fetch_add(total.unwrap_or_default(), Ordering::Relaxed);
        group.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the total of a skipped task off the sum.
    fn skip(&self, total: Option<u64>) {
        self.group(total).total.fetch_sub(total.unwrap_or_default(), Ordering::Relaxed);
    }

    fn advance(&self, total: Option<u64>, bytes: u64) {
        self.group(total).done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn end(&self, total: Option<u64>) {
        self.group(total).ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the sums of the tasks with a total, or of the others if none has one.
    fn overall(&self) -> Sums {
        let known = self.known.sums(true);
        if known.begun > 0 { known } else { self.unknown.sums(false) }
    }

    /// Returns the sums of the group with tasks that have not ended, first of the one with totals; `None` if there are no
    /// such tasks.
    fn current(&self) -> Option<Sums> {
        if self.known.is_busy() {
            Some(self.known.sums(true))
        } else {
            self.unknown.is_busy().then(|| self.unknown.sums(false))
        }
    }
}

impl TaskGroup {
    fn is_busy(&self) -> bool {
        self.ended.load(Ordering::Relaxed) < self.begun.load(Ordering::Relaxed)
    }

    fn sums(&self, is_known: bool) -> Sums {
        Sums {
            done: self.done.load(Ordering::Relaxed),
            total: is_known.then(|| self.total.load(Ordering::Relaxed)),
            begun: self.begun.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_with_and_without_a_size_are_not_added_up() {
        let totals = Totals::default();
        assert_eq!(totals.current(), None);
        totals.begin(None);
        totals.advance(None, 7);
        assert_eq!(totals.current(), Some(Sums { done: 7, total: None, begun: 1 }));
        totals.begin(Some(10));
        totals.begin(Some(20));
        totals.advance(Some(10), 5);
        totals.skip(Some(20));
        totals.end(Some(20));
        assert_eq!(totals.current(), Some(Sums { done: 5, total: Some(10), begun: 2 }));
        totals.end(Some(10));
        assert_eq!(totals.current(), Some(Sums { done: 7, total: None, begun: 1 }));
        totals.end(None);
        assert_eq!(totals.current(), None);
        assert_eq!(totals.overall(), Sums { done: 5, total: Some(10), begun: 2 });
    }
}
