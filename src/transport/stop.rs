//! Stopping in good order: what is under way at a registry is ended there too, and nothing new begins.

use crate::error::{Error, Result};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A word that reaches all transfers that share it. By default nobody ever says it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// What has to be ended at a registry.
    busy: usize,
}

/// Something that has to be ended at a registry; it is when this is dropped.
#[derive(Debug)]
pub(super) struct Busy(Stop);

impl Stop {
    /// Lets nothing new begin, and waits until what is under way has been ended, or `patience` is over.
    pub fn now(&self, patience: Duration) {
        let mut state = self.state();
        state.stopped = true;
        // Whether it was in time does not matter: a registry forgets by itself what it is not told to forget.
        drop(self.0.1.wait_timeout_while(state, patience, |state| state.busy > 0));
    }

    /// Whether the word was said.
    pub fn is_said(&self) -> bool {
        self.state().stopped
    }

    /// An error once the word was said.
    ///
    /// # Errors
    /// Then, and only then.
    pub(super) fn check(&self) -> Result<()> {
        match self.is_said() {
            true => Err(Error::failed("interrupted")),
            false => Ok(()),
        }
    }

    /// Says that something has begun which has to be ended.
    pub(super) fn busy(&self) -> Result<Busy> {
        self.check()?;
        self.state().busy += 1;
        Ok(Busy(self.clone()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.state().busy -= 1;
        self.0.0.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn what_is_under_way_is_waited_for_and_nothing_new_begins() {
        let stop = Stop::default();
        let busy = stop.busy().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| stop.now(Duration::from_secs(600)));
            while !stop.is_said() {
                thread::yield_now();
            }
            assert!(stop.busy().is_err());
            drop(busy);
            waiter.join().unwrap();
        });
    }

    #[test]
    fn patience_ends() {
        let stop = Stop::default();
        let _busy = stop.busy().unwrap();
        stop.now(Duration::from_millis(1));
        assert!(stop.is_said());
    }
}
