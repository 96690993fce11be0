//! Progress as the user sees it: bars on a terminal, a plain line every few seconds elsewhere, or nothing.
//!
//! Both count into the same [`Sum`]. Bars are for eyes and leave nothing behind; lines are for logs, where a bar
//! would be a page of control characters, and where a job of a second shall say nothing at all.

mod bars;
mod lines;

use crate::output;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use volio::progress::{Progress, Silent};

/// How long a log stays silent: short enough to see that nothing hangs, long enough that an hour's work is not a
/// log of its own.
const INTERVAL: Duration = Duration::from_secs(5);

/// The way in which things are shown now; `None` while nothing is going on that shows.
static SHOWN: Mutex<Option<Weak<dyn Progress>>> = Mutex::new(None);

/// Says something that is worth knowing although the work goes on, without tearing up what is shown.
pub fn tell(message: &str) {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Weak::upgrade);
    match shown {
        Some(Some(progress)) => progress.warn(message),
        // The work is over: what still fails behind it does not matter.
        Some(None) => {}
        None => output::warning(message),
    }
}

/// Begins to show what happens, in the way that fits stderr.
pub fn start(verb: &'static str, quiet: bool) -> Arc<dyn Progress> {
    let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    show(verb, quiet, std::io::stderr().is_terminal() && !dumb)
}

/// The same where results come while the work goes on: on one terminal with them, bars would paint over them.
pub fn start_beside_results(verb: &'static str, quiet: bool) -> Arc<dyn Progress> {
    match std::io::stdout().is_terminal() {
        true => show(verb, quiet, false),
        false => start(verb, quiet),
    }
}

fn show(verb: &'static str, quiet: bool, bars: bool) -> Arc<dyn Progress> {
    let progress: Arc<dyn Progress> = match () {
        () if quiet => Arc::new(Silent),
        () if bars => Arc::new(bars::Bars::new()),
        () => Arc::new(lines::Lines::new(verb, INTERVAL)),
    };
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::downgrade(&progress));
    progress
}

/// Tasks together, those that know how much they have to do apart from those that do not: adding them up would make
/// a sum of which nobody could say how much is left.
#[derive(Debug, Default)]
struct Sum {
    known: Group,
    unknown: Group,
}

/// Tasks of one kind.
#[derive(Debug, Default)]
struct Group {
    /// Bytes done.
    done: AtomicU64,
    /// Bytes to do.
    total: AtomicU64,
    /// Tasks that have begun.
    begun: AtomicU64,
    /// Tasks that have ended.
    ended: AtomicU64,
}

/// How far a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    done: u64,
    total: Option<u64>,
    begun: u64,
}

impl Sum {
    fn group(&self, total: Option<u64>) -> &Group {
        if total.is_some() { &self.known } else { &self.unknown }
    }

    fn begin(&self, total: Option<u64>) {
        let group = self.group(total);
        group.total.fetch_add(total.unwrap_or_default(), Ordering::Relaxed);
        group.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// What a task had to do need not be done.
    fn skip(&self, total: Option<u64>) {
        self.group(total).total.fetch_sub(total.unwrap_or_default(), Ordering::Relaxed);
    }

    fn advance(&self, total: Option<u64>, bytes: u64) {
        self.group(total).done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn end(&self, total: Option<u64>) {
        self.group(total).ended.fetch_add(1, Ordering::Relaxed);
    }

    /// How far all tasks are: those that know how much they have to do, or the others where none knows.
    fn whole(&self) -> State {
        let known = self.known.state(true);
        if known.begun > 0 { known } else { self.unknown.state(false) }
    }

    /// The same of tasks that are going on now; `None` when nothing is.
    fn now(&self) -> Option<State> {
        match () {
            () if self.known.is_busy() => Some(self.known.state(true)),
            () if self.unknown.is_busy() => Some(self.unknown.state(false)),
            () => None,
        }
    }
}

impl Group {
    fn is_busy(&self) -> bool {
        self.ended.load(Ordering::Relaxed) < self.begun.load(Ordering::Relaxed)
    }

    fn state(&self, is_known: bool) -> State {
        State {
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
        let sum = Sum::default();
        assert_eq!(sum.now(), None);
        sum.begin(None);
        sum.advance(None, 7);
        assert_eq!(sum.now(), Some(State { done: 7, total: None, begun: 1 }));
        sum.begin(Some(10));
        sum.begin(Some(20));
        sum.advance(Some(10), 5);
        sum.skip(Some(20));
        sum.end(Some(20));
        assert_eq!(sum.now(), Some(State { done: 5, total: Some(10), begun: 2 }));
        sum.end(Some(10));
        assert_eq!(sum.now(), Some(State { done: 7, total: None, begun: 1 }));
        sum.end(None);
        assert_eq!(sum.now(), None);
        assert_eq!(sum.whole(), State { done: 5, total: Some(10), begun: 2 });
    }
}
