//! Ctrl-C and SIGTERM: registries are told that their uploads have ended, and then the program ends.
//!
//! Everything else that volio does survives being killed at any moment, so a signal needs no more than this: what has
//! no name yet is swept up by whoever comes next, or continued by him.

use crate::output;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use std::{process, thread};
use volio::stream::CancelToken;
use volio::{Error, Result};

/// How long registries may take to hear of it. A block of data that is being compressed comes to its end before, which takes
/// many seconds at the highest levels on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

static CANCEL: LazyLock<CancelToken> = LazyLock::new(CancelToken::default);
static ENDING: AtomicBool = AtomicBool::new(false);

/// Has a write beyond `ulimit -f` fail, as one to a full disk does, and not kill the program without a word (`SIGXFSZ`).
pub fn survive_file_size_limits() {
    // Without a handler the signal kills, as it did.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// Returns the token that cancels all transfers of this program.
pub fn cancel_token() -> CancelToken {
    CANCEL.clone()
}

/// Does the work, and ends the program in the middle of it when a signal comes. A second signal ends it at once.
pub fn watched<T>(work: impl FnOnce() -> T) -> T {
    // Without handlers a signal just kills, which is safe too.
    watched_by(Signals::new([SIGINT, SIGTERM]).ok(), work)
}

fn watched_by<T>(signals: Option<Signals>, work: impl FnOnce() -> T) -> T {
    if let Some(signals) = signals {
        // Without a thread a signal is heard and nothing is done about it; a second one of the same kind likewise.
        let _ = thread::Builder::new().spawn(move || watch(signals));
    }
    let outcome = work();
    if ENDING.load(Ordering::SeqCst) {
        // What the work says now is only that it was interrupted; the other thread ends the program.
        loop {
            thread::park();
        }
    }
    outcome
}

/// Somebody who waits for the first signal. It is kept from the beginning, so that none is lost that comes early: the first
/// process of a container has no other way to hear of its end.
pub struct Waiting(Signals);

impl Waiting {
    /// From now on a signal is not the end.
    ///
    /// # Errors
    /// When the system takes no handlers: then it would wait for ever.
    pub fn begin() -> Result<Self> {
        let signals = Signals::new([SIGINT, SIGTERM]);
        signals.map(Self).map_err(|error| Error::io("cannot listen for signals", error))
    }

    /// Waits, and does the work. Further signals end the program in the middle of it.
    pub fn then<T>(mut self, work: impl FnOnce() -> T) -> T {
        // There is always a next one: nobody else closes it.
        let _ = self.0.forever().next();
        watched_by(Some(self.0), work)
    }
}

fn watch(mut signals: Signals) {
    for signal in signals.forever() {
        // 128 and the number of the signal, as shells have it: 130 and 143.
        let code = 128 + signal;
        if ENDING.swap(true, Ordering::SeqCst) {
            process::exit(code);
        }
        let end = move || {
            CANCEL.cancel();
            CANCEL.wait_for_guards(PATIENCE);
            output::line("interrupted");
            process::exit(code)
        };
        if thread::Builder::new().spawn(end).is_err() {
            end();
        }
    }
}
