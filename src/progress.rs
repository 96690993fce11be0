//! Progress events. The library never prints; the program shows these events to the user.

use std::fmt;

/// A receiver of progress events.
pub trait Progress: Send + Sync {
    /// Called when a task begins. `total` is its size in bytes, if known.
    fn begin(&self, what: &str, total: Option<u64>) -> Box<dyn Task>;

    /// Called with a warning that does not stop the work.
    fn warn(&self, message: &str);
}

impl fmt::Debug for dyn Progress + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// A running task. Dropping it ends the task.
pub trait Task: Send + Sync {
    /// Adds to the number of bytes that are done.
    fn advance(&self, bytes: u64);

    /// Marks the task as skipped because its result exists already.
    fn skip(&self);
}

/// A [`Progress`] that ignores every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total: Option<u64>) -> Box<dyn Task> {
        Box::new(Silent)
    }

    fn warn(&self, _message: &str) {}
}

impl Task for Silent {
    fn advance(&self, _bytes: u64) {}

    fn skip(&self) {}
}
