//! Starting threads. If the system cannot start one, that is an error and not a panic.

use crate::error::{Error, Result};
use std::io;
use std::thread::{self, Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread.
///
/// # Errors
/// Fails if the system cannot start another thread.
pub fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Builder::new().spawn(work).map_err(no_thread)
}

/// Starts a thread that ends with a scope.
///
/// # Errors
/// As [`start`].
pub fn start_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().spawn_scoped(scope, work).map_err(no_thread)
}

/// Runs `work` on `count` threads at once, of which this is one. There are fewer if the system cannot start as many.
pub fn on_threads(count: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 1..count {
            if start_in(scope, &work).is_err() {
                break;
            }
        }
        work();
    });
}

fn no_thread(error: io::Error) -> Error {
    Error::io("cannot start a thread", error)
        .with_hint("raise the limit on processes: ulimit -u, or pids.max of the control group")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn the_calling_thread_is_one_of_them() {
        for count in [0, 1, 3] {
            let done = AtomicUsize::new(0);
            on_threads(count, || _ = done.fetch_add(1, Ordering::Relaxed));
            assert_eq!(done.into_inner(), count.max(1));
        }
    }
}
