//! Lines where there is no terminal and nothing was chosen: bytes done, rate, and time left.

use super::ticker::Ticker;
use super::{Show, Sums, Totals};
use crate::{human, output};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use volio::progress::{Progress, Task, TaskInfo};

/// The time between two lines.
const INTERVAL: Duration = Duration::from_secs(5);

/// Progress as a line every few seconds, until it is finished.
pub struct Lines {
    totals: Arc<Totals>,
    /// `None` after the end.
    ticker: Mutex<Option<Ticker>>,
}

impl Lines {
    pub fn new(verb: &'static str) -> Self {
        let totals = Arc::<Totals>::default();
        let watched = Arc::clone(&totals);
        let (mut before, mut since) = (None, Instant::now());
        let ticker = Ticker::start(INTERVAL, move || {
            let now = watched.current();
            if let Some(now) = now {
                output::line(&line(verb, now, bytes_since(before, now), since.elapsed()));
            }
            (before, since) = (now, Instant::now());
        });
        Self { totals, ticker: Mutex::new(Some(ticker)) }
    }

    fn ticker(&self) -> MutexGuard<'_, Option<Ticker>> {
        // No code panics while it holds the lock.
        self.ticker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Lines {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        self.totals.begin(info.total);
        Box::new(CountedTask { totals: Arc::clone(&self.totals), total: info.total })
    }

    fn warn(&self, message: &str) {
        if self.ticker().is_some() {
            output::warning(message);
        }
    }
}

impl Show for Lines {
    fn finish(&self) {
        let ticker = self.ticker().take();
        drop(ticker);
    }
}

/// A task that counts into the totals only.
struct CountedTask {
    totals: Arc<Totals>,
    total: Option<u64>,
}

impl Task for CountedTask {
    fn advance(&self, bytes: u64) {
        self.totals.advance(self.total, bytes);
    }

    fn skip(&self) {
        self.totals.skip(self.total);
    }
}

impl Drop for CountedTask {
    fn drop(&mut self) {
        self.totals.end(self.total);
    }
}

/// Returns the bytes done since the previous line. If that line was about the other group of tasks, these are all bytes.
fn bytes_since(before: Option<Sums>, now: Sums) -> u64 {
    match before {
        Some(before) if before.total.is_some() == now.total.is_some() => now.done.saturating_sub(before.done),
        _ => now.done,
    }
}

/// Formats a line: `pack: 1.2 GiB, 210.0 MiB/s`, and with a total also the percentage and the time left. `recent` is the
/// bytes of the last `time`.
fn line(verb: &str, Sums { done, total, .. }: Sums, recent: u64, time: Duration) -> String {
    let mut line = format!("{verb}: {}", human::bytes(done));
    let total = total.filter(|total| *total >= done && *total > 0);
    if let Some(total) = total {
        line += &format!(" of {} ({} %)", human::bytes(total), done as u128 * 100 / u128::from(total));
    }
    line.extend(human::rate(recent, time).map(|rate| format!(", {rate}")));
    if let Some(total) = total
        && recent > 0
    {
        let left = time.as_secs_f64() * (total - done) as f64 / recent as f64;
        line += &format!(", {} left", human::clock(Duration::from_secs_f64(left.min(1e9))));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_total_and_the_time_left_where_they_are_known() {
        let second = Duration::from_secs(1);
        let line = |verb, done, recent, time, total| line(verb, Sums { done, total, begun: 1 }, recent, time);
        let mib = 1 << 20;
        assert_eq!(line("pack", 3 * mib, 2 * mib, second, None), "pack: 3.0 MiB, 2.0 MiB/s");
        assert_eq!(
            line("copy", 3 * mib, 2 * mib, second, Some(11 * mib)),
            "copy: 3.0 MiB of 11.0 MiB (27 %), 2.0 MiB/s, 0:04 left"
        );
        assert_eq!(line("copy", mib, 0, second, Some(2 * mib)), "copy: 1.0 MiB of 2.0 MiB (50 %), 0 B/s");
        // A total that is too small is left out.
        assert_eq!(line("copy", 2 * mib, mib, second, Some(mib)), "copy: 2.0 MiB, 1.0 MiB/s");
    }
}
