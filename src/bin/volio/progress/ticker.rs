//! A thread that does something at regular intervals.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A thread that calls a function at regular intervals until this is dropped.
pub struct Ticker {
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts the thread. Where the system has no more threads, the function is never called.
    pub fn start(interval: Duration, mut tick: impl FnMut() + Send + 'static) -> Self {
        let (alive, ended) = channel::<()>();
        let thread = thread::Builder::new().spawn(move || {
            while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                tick();
            }
        });
        Self { alive: Some(alive), thread: thread.ok() }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            // A panic of a thread that only prints does not matter to the work.
            let _ = thread.join();
        }
    }
}
