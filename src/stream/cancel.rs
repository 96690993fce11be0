//! Cancellation: one token that is shared by everything that has to end together.

use crate::error::{Error, Result};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A cancellation token. All its clones are cancelled together; a new token is not cancelled.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<CancelState>,
    changed: Condvar,
}

#[derive(Default)]
struct CancelState {
    is_cancelled: bool,
    /// The number of [`CancelGuard`]s.
    guards: usize,
    callbacks: Vec<Box<dyn FnOnce() + Send>>,
}

/// Work that has to be cleaned up after a cancellation. Dropping it says that this is done.
#[derive(Debug)]
pub struct CancelGuard(CancelToken);

impl CancelToken {
    /// Cancels everything that shares this token.
    pub fn cancel(&self) {
        let callbacks = {
            let mut state = self.state();
            state.is_cancelled = true;
            std::mem::take(&mut state.callbacks)
        };
        self.0.changed.notify_all();
        callbacks.into_iter().for_each(|callback| callback());
    }

    /// Returns whether the token was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.state().is_cancelled
    }

    /// Fails if the token was cancelled.
    ///
    /// # Errors
    /// In that case only.
    pub fn check(&self) -> Result<()> {
        self.state().check()
    }

    /// Sleeps for this long.
    ///
    /// # Errors
    /// When the token is cancelled: at once.
    pub fn sleep(&self, duration: Duration) -> Result<()> {
        let state = self.state();
        let outcome = self.0.changed.wait_timeout_while(state, duration, |state| !state.is_cancelled);
        outcome.unwrap_or_else(PoisonError::into_inner).0.check()
    }

    /// Announces work that [`wait_for_guards`](Self::wait_for_guards) waits for, such as an upload that has to be
    /// aborted at the registry.
    ///
    /// # Errors
    /// When the token was cancelled: nothing new begins then.
    pub fn guard(&self) -> Result<CancelGuard> {
        let mut state = self.state();
        state.check()?;
        state.guards += 1;
        Ok(CancelGuard(self.clone()))
    }

    /// Waits until all guards are dropped, or for `timeout`.
    pub fn wait_for_guards(&self, timeout: Duration) {
        let state = self.state();
        drop(self.0.changed.wait_timeout_while(state, timeout, |state| state.guards > 0));
    }

    /// Calls `callback` when the token is cancelled, on the thread that cancels it; at once if it was cancelled before.
    pub fn on_cancel(&self, callback: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if state.is_cancelled {
            drop(state);
            return callback();
        }
        state.callbacks.push(Box::new(callback));
    }

    fn state(&self) -> MutexGuard<'_, CancelState> {
        // No code panics while it holds the lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CancelState {
    fn check(&self) -> Result<()> {
        if self.is_cancelled { Err(Error::failed("interrupted")) } else { Ok(()) }
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.0.state().guards -= 1;
        self.0.0.changed.notify_all();
    }
}

impl fmt::Debug for CancelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_cancelled, guards, .. } = self;
        f.debug_struct("CancelState").field("is_cancelled", is_cancelled).field("guards", guards).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn guards_are_waited_for_and_nothing_new_begins() {
        let token = CancelToken::default();
        let guard = token.guard().unwrap();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                token.cancel();
                token.wait_for_guards(LONG);
            });
            while !token.is_cancelled() {
                thread::yield_now();
            }
            assert!(token.guard().is_err());
            drop(guard);
            waiter.join().unwrap();
        });
    }

    #[test]
    fn the_wait_for_guards_ends() {
        let token = CancelToken::default();
        let _guard = token.guard().unwrap();
        token.cancel();
        token.wait_for_guards(Duration::from_millis(1));
    }

    #[test]
    fn a_sleep_ends_with_the_cancellation() {
        let token = CancelToken::default();
        token.sleep(Duration::from_millis(1)).unwrap();
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| token.sleep(LONG));
            token.cancel();
            assert!(sleeper.join().unwrap().is_err());
        });
    }

    #[test]
    fn a_callback_is_called_once_whenever_it_was_added() {
        let (token, (sender, calls)) = (CancelToken::default(), channel());
        for name in ["before", "after"] {
            let sender = sender.clone();
            token.on_cancel(move || sender.send(name).unwrap());
            token.cancel();
        }
        drop(sender);
        assert_eq!(calls.iter().collect::<Vec<_>>(), ["before", "after"]);
    }
}
