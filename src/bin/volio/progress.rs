//! Progress as the user sees it: bars on a terminal, a plain line every few seconds elsewhere, or nothing.
//!
//! Both count into the same [`Sum`]. Bars are for eyes and leave nothing behind; lines are for logs, where a bar
//! would be a page of control characters, and where a job of a second shall say nothing at all.

mod bars;
mod lines;

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use volio::progress::{Progress, Silent};

/// How long a log stays silent: short enough to see that nothing hangs, long enough that an hour's work is not a
/// log of its own.
const INTERVAL: Duration = Duration::from_secs(5);

/// Begins to show what happens, in the way that fits stderr.
pub fn start(verb: &'static str, quiet: bool) -> Box<dyn Progress> {
    let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    match () {
        () if quiet => Box::new(Silent),
        () if std::io::stderr().is_terminal() && !dumb => Box::new(bars::Bars::new()),
        () => Box::new(lines::Lines::new(verb, INTERVAL)),
    }
}

/// All tasks together.
#[derive(Debug, Default)]
struct Sum {
    /// Bytes done.
    done: AtomicU64,
    /// Bytes to do, of the tasks that know.
    total: AtomicU64,
    /// Tasks that have begun.
    begun: AtomicU64,
    /// Tasks that have ended.
    ended: AtomicU64,
    /// Tasks that do not know how many bytes they have to do.
    unknown: AtomicU64,
}

impl Sum {
    /// A task begins; returns how many have begun.
    fn begin(&self, total: Option<u64>) -> u64 {
        match total {
            Some(total) => self.total.fetch_add(total, Ordering::Relaxed),
            None => self.unknown.fetch_add(1, Ordering::Relaxed),
        };
        self.begun.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What a task had to do need not be done.
    fn skip(&self, total: Option<u64>) {
        match total {
            Some(total) => self.total.fetch_sub(total, Ordering::Relaxed),
            None => self.unknown.fetch_sub(1, Ordering::Relaxed),
        };
    }

    fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Bytes to do, where all tasks that have begun know it.
    fn total(&self) -> Option<u64> {
        (self.unknown.load(Ordering::Relaxed) == 0).then(|| self.total.load(Ordering::Relaxed))
    }

    /// Whether something is going on.
    fn is_busy(&self) -> bool {
        self.ended.load(Ordering::Relaxed) < self.begun.load(Ordering::Relaxed)
    }
}
