//! Lines for the logs of CI services: one every few seconds, and one at the end of each phase.

use super::Show;
use super::phases::{PhaseCounts, PhaseState, Phases};
use super::ticker::Ticker;
use crate::human::count;
use crate::{human, output};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use volio::progress::{Phase, Progress, Task, TaskInfo};

/// The time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Progress as lines without control characters.
pub struct PlainLines {
    verb: &'static str,
    phases: Arc<Phases>,
    /// The phases whose end was printed, with the counts in that line.
    ended: Mutex<BTreeMap<Phase, PhaseCounts>>,
    /// `None` after the end.
    ticker: Mutex<Option<Ticker>>,
}

impl PlainLines {
    pub fn new(verb: &'static str) -> Self {
        let phases = Arc::<Phases>::default();
        let watched = Arc::clone(&phases);
        let (mut before, mut since) = (BTreeMap::new(), Instant::now());
        let ticker = Ticker::start(INTERVAL, move || {
            let states = watched.states();
            for PhaseState { counts, .. } in states.iter().filter(|state| !state.running.is_empty()) {
                let recent =
                    counts.bytes.saturating_sub(before.get(&counts.phase).copied().unwrap_or_default());
                output::line(&line(verb, counts, recent, since.elapsed()));
            }
            before = states.iter().map(|state| (state.counts.phase, state.counts.bytes)).collect();
            since = Instant::now();
        });
        Self { verb, phases, ended: Mutex::default(), ticker: Mutex::new(Some(ticker)) }
    }

    /// Prints the end of a phase, unless that was done with the same counts.
    fn print_end(&self, PhaseState { counts, time, .. }: &PhaseState) {
        if self.ended().insert(counts.phase, *counts) != Some(*counts) {
            output::line(&end(self.verb, counts, *time));
        }
    }

    fn ended(&self) -> MutexGuard<'_, BTreeMap<Phase, PhaseCounts>> {
        // No code panics while it holds the lock.
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticker(&self) -> MutexGuard<'_, Option<Ticker>> {
        self.ticker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for PlainLines {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        self.phases.begin(info, |phases| {
            // A phase that is continued later has its next line at the end of the command.
            let ends = |state: &&PhaseState| {
                let phase = state.counts.phase;
                phase != info.phase && state.running.is_empty() && !self.ended().contains_key(&phase)
            };
            phases.iter().filter(ends).for_each(|state| self.print_end(state));
        })
    }

    fn warn(&self, message: &str) {
        if self.ticker().is_some() {
            output::warning(message);
        }
    }
}

impl Show for PlainLines {
    fn finish(&self) {
        let ticker = self.ticker().take();
        if ticker.is_some() {
            drop(ticker);
            self.phases.states().iter().for_each(|state| self.print_end(state));
        }
    }
}

/// Formats a line about a phase: `pack: packing: 1.0 GiB of 4.0 GiB (25 %), 12 entries, 210.0 MiB/s, 0:15 left`.
/// `recent` is the bytes of the last `time`.
fn line(verb: &str, counts: &PhaseCounts, recent: u64, time: Duration) -> String {
    let PhaseCounts { phase, bytes, entries, .. } = *counts;
    let mut parts = Vec::new();
    let total = counts.total.filter(|total| *total >= bytes && *total > 0);
    if let Some(total) = total {
        let percent = u128::from(bytes) * 100 / u128::from(total);
        parts.push(format!("{} of {} ({percent} %)", human::bytes(bytes), human::bytes(total)));
    } else if bytes > 0 || entries == 0 {
        parts.push(human::bytes(bytes));
    }
    if entries > 0 {
        parts.push(count(entries, "entry", "entries"));
    }
    if bytes > 0 {
        parts.extend(human::rate(recent, time));
    }
    if let Some(total) = total
        && recent > 0
    {
        let left = time.as_secs_f64() * (total - bytes) as f64 / recent as f64;
        parts.push(format!("{} left", human::clock(Duration::from_secs_f64(left.min(1e9)))));
    }
    format!("{verb}: {phase}: {}", parts.join(", "))
}

/// Formats the line at the end of a phase: `pack: packing: 4.0 GiB, 12 entries in 20.0 s`.
fn end(verb: &str, counts: &PhaseCounts, time: Duration) -> String {
    let PhaseCounts { phase, bytes, entries, .. } = *counts;
    let mut parts = Vec::new();
    if bytes > 0 || entries == 0 {
        parts.push(human::bytes(bytes));
    }
    if entries > 0 {
        parts.push(count(entries, "entry", "entries"));
    }
    format!("{verb}: {phase}: {} in {}", parts.join(", "), human::duration(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_is_known_of_its_phase() {
        let counts = |phase, bytes, total, entries| PhaseCounts {
            phase,
            bytes,
            total,
            entries,
            tasks: 1,
            tasks_done: 0,
            tasks_skipped: 0,
        };
        let (mib, second) = (1 << 20, Duration::from_secs(1));
        let packing = counts(Phase::Packing, 3 * mib, Some(11 * mib), 12);
        assert_eq!(
            line("pack", &packing, 2 * mib, second),
            "pack: packing: 3.0 MiB of 11.0 MiB (27 %), 12 entries, 2.0 MiB/s, 0:04 left"
        );
        assert_eq!(end("pack", &packing, second), "pack: packing: 3.0 MiB, 12 entries in 1.0 s");
        let reading = counts(Phase::Reading, mib, None, 0);
        assert_eq!(line("ls", &reading, 0, second), "ls: reading: 1.0 MiB, 0 B/s");
        let comparing = counts(Phase::Comparing, 0, None, 1);
        assert_eq!(line("pack", &comparing, 0, second), "pack: comparing: 1 entry");
        assert_eq!(end("pack", &comparing, second), "pack: comparing: 1 entry in 1.0 s");
    }
}
