//! Signals. SIGINT and SIGTERM abort the uploads in the registries, and then end the program.
//!
//! Being killed at any moment loses nothing else: what a run leaves without a name is continued or removed by the next
//! run.

use crate::output;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use std::{process, thread};
use volio::{CancelToken, Error, Result};

/// The time for aborting uploads. It includes the end of a block that is being compressed, which takes many seconds
/// at the highest levels on a busy machine.
const ABORT_TIMEOUT: Duration = Duration::from_secs(20);

static CANCEL: LazyLock<CancelToken> = LazyLock::new(CancelToken::default);
static STOP: LazyLock<CancelToken> = LazyLock::new(CancelToken::default);
/// The exit code for the signal that stopped a command; 0 if there was none.
static RECEIVED: AtomicU8 = AtomicU8::new(0);
static ENDING: AtomicBool = AtomicBool::new(false);

/// Makes a write beyond `ulimit -f` fail like one to a full disk. By default `SIGXFSZ` kills the program without a
/// message.
pub fn handle_file_size_limit() {
    // Without a handler the signal kills, as it did.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// Returns the token that cancels all transfers of this program.
pub fn cancel_token() -> CancelToken {
    CANCEL.clone()
}

/// Returns the token that stops a command which runs unattended.
pub fn stop_token() -> CancelToken {
    STOP.clone()
}

/// Returns the exit code for the signal that stopped such a command: 128 plus its number.
pub fn received() -> Option<u8> {
    Some(RECEIVED.load(Ordering::SeqCst)).filter(|code| *code != 0)
}

/// Does the work. The first signal aborts it and ends the program, and a second signal ends the program at once.
pub fn interruptible<T>(work: impl FnOnce() -> T) -> T {
    // Without handlers a signal just kills, which is safe too.
    interruptible_by(Signals::new([SIGINT, SIGTERM]).ok(), work)
}

fn interruptible_by<T>(signals: Option<Signals>, work: impl FnOnce() -> T) -> T {
    if let Some(signals) = signals {
        // If the thread cannot be started, signals have no effect: they are caught and not handled.
        let _ = thread::Builder::new().spawn(move || end_on_signal(signals));
    }
    let outcome = work();
    if ENDING.load(Ordering::SeqCst) {
        // The outcome is only that the work was interrupted; the other thread ends the program.
        loop {
            thread::park();
        }
    }
    outcome
}

/// Signals that start the work instead of ending the program. They are caught from the beginning, so that an early one
/// is not lost: the first process of a container is not ended by signals that it does not handle.
pub struct SignalGate(Signals);

impl SignalGate {
    /// Begins to catch signals.
    ///
    /// # Errors
    /// When the handlers cannot be installed, because then the wait would never end.
    pub fn new() -> Result<Self> {
        let signals = Signals::new([SIGINT, SIGTERM]);
        signals.map(Self).map_err(|error| Error::io("cannot listen for signals", error))
    }

    /// Waits for the first signal and then does the work. Further signals interrupt it.
    pub fn wait_then<T>(mut self, work: impl FnOnce() -> T) -> T {
        // `next` returns only with a signal, because nothing closes the iterator.
        let _ = self.0.forever().next();
        interruptible_by(Some(self.0), work)
    }

    /// Waits for the first signal and then does the work, which the next one stops.
    pub fn wait_then_stoppable<T>(mut self, work: impl FnOnce() -> T) -> T {
        let _ = self.0.forever().next();
        self.stoppable(work)
    }

    /// Does work that ends by itself when [`stop_token`] is cancelled, which the first signal does: it has something to
    /// put in order at the end. A second signal ends the program at once.
    pub fn stoppable<T>(mut self, work: impl FnOnce() -> T) -> T {
        let listen = move || {
            for signal in self.0.forever() {
                // 130 or 143.
                let code = 128 + signal;
                if STOP.is_cancelled() {
                    process::exit(code);
                }
                RECEIVED.store(code.try_into().unwrap_or(u8::MAX), Ordering::SeqCst);
                STOP.cancel();
            }
        };
        // If the thread cannot be started, signals have no effect: they are caught and not handled.
        let _ = thread::Builder::new().spawn(listen);
        work()
    }
}

fn end_on_signal(mut signals: Signals) {
    for signal in signals.forever() {
        // 128 plus the number of the signal, as in shells: 130 and 143.
        let code = 128 + signal;
        if ENDING.swap(true, Ordering::SeqCst) {
            process::exit(code);
        }
        let end = move || {
            CANCEL.cancel();
            CANCEL.wait_for_guards(ABORT_TIMEOUT);
            output::line("interrupted");
            process::exit(code)
        };
        if thread::Builder::new().spawn(end).is_err() {
            end();
        }
    }
}
