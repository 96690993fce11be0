//! Plain lines for logs: how much is done, how fast, how long it will take.

use super::{State, Sum};
use crate::{output, quantity};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use volio::progress::{Progress, Task};

/// A line every few seconds for as long as this lives.
pub struct Lines {
    sum: Arc<Sum>,
    /// Dropped to end the thread.
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    pub fn new(verb: &'static str, interval: Duration) -> Self {
        let sum = Arc::<Sum>::default();
        let (alive, ended) = channel();
        let watched = Arc::clone(&sum);
        let thread = thread::Builder::new().spawn(move || {
            let (mut before, mut since) = (None, Instant::now());
            while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let now = watched.now();
                if let Some(now) = now {
                    output::line(&line(verb, now, news(before, now), since.elapsed()));
                }
                (before, since) = (now, Instant::now());
            }
        });
        // Without a thread there are no lines.
        Self { sum, alive: Some(alive), thread: thread.ok() }
    }
}

impl Progress for Lines {
    fn begin(&self, _what: &str, total: Option<u64>) -> Box<dyn Task> {
        self.sum.begin(total);
        Box::new(Part { sum: Arc::clone(&self.sum), total })
    }

    fn warn(&self, message: &str) {
        output::warning(message);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.alive = None;
        if let Some(thread) = self.thread.take() {
            // A thread that only prints has nothing to say about the work, not even by its panic.
            let _ = thread.join();
        }
    }
}

/// A task of which only the sum is shown.
struct Part {
    sum: Arc<Sum>,
    total: Option<u64>,
}

impl Task for Part {
    fn advance(&self, bytes: u64) {
        self.sum.advance(self.total, bytes);
    }

    fn skip(&self) {
        self.sum.skip(self.total);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.sum.end(self.total);
    }
}

/// The bytes that were done since the line before, if that was about the same tasks.
fn news(before: Option<State>, now: State) -> u64 {
    match before {
        Some(before) if before.total.is_some() == now.total.is_some() => now.done.saturating_sub(before.done),
        _ => now.done,
    }
}

/// `pack: 1.2 GiB, 210.0 MiB/s`; with a total also how much of it, and the time left at the pace of now.
fn line(verb: &str, State { done, total, .. }: State, news: u64, time: Duration) -> String {
    let mut line = format!("{verb}: {}", quantity::bytes(done));
    let total = total.filter(|total| *total >= done && *total > 0);
    if let Some(total) = total {
        line += &format!(" of {} ({} %)", quantity::bytes(total), done as u128 * 100 / u128::from(total));
    }
    line.extend(quantity::rate(news, time).map(|rate| format!(", {rate}")));
    if let Some(total) = total
        && news > 0
    {
        let left = time.as_secs_f64() * (total - done) as f64 / news as f64;
        line += &format!(", {} left", quantity::clock(Duration::from_secs_f64(left.min(1e9))));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let second = Duration::from_secs(1);
        let line = |verb, done, news, time, total| line(verb, State { done, total, begun: 1 }, news, time);
        let mib = 1 << 20;
        assert_eq!(line("pack", 3 * mib, 2 * mib, second, None), "pack: 3.0 MiB, 2.0 MiB/s");
        assert_eq!(
            line("copy", 3 * mib, 2 * mib, second, Some(11 * mib)),
            "copy: 3.0 MiB of 11.0 MiB (27 %), 2.0 MiB/s, 0:04 left"
        );
        assert_eq!(line("copy", mib, 0, second, Some(2 * mib)), "copy: 1.0 MiB of 2.0 MiB (50 %), 0 B/s");
        // More than announced: a total that was wrong is not repeated.
        assert_eq!(line("copy", 2 * mib, mib, second, Some(mib)), "copy: 2.0 MiB, 1.0 MiB/s");
    }
}
