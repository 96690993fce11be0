//! The counts of a command's tasks, by phase.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use volio::progress::{Phase, Task, TaskInfo};

/// The phases of a command so far, in the order in which they began.
#[derive(Default)]
pub struct Phases(Mutex<Vec<PhaseTasks>>);

/// The tasks of a phase.
struct PhaseTasks {
    phase: Phase,
    begun: Instant,
    /// The counts of the tasks that have ended.
    ended: PhaseCounts,
    /// The end of the last task.
    last_end: Option<Instant>,
    running: Vec<Arc<TaskCounts>>,
}

/// A task with what it has done so far.
pub struct TaskCounts {
    pub info: TaskInfo,
    bytes: AtomicU64,
    entries: AtomicU64,
    is_skipped: AtomicBool,
}

/// The sums of the tasks of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseCounts {
    pub phase: Phase,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes to do, if the sizes of all tasks are known.
    pub total: Option<u64>,
    /// Entries done, as far as tasks know them.
    pub entries: u64,
    /// Tasks that have begun.
    pub tasks: u64,
    /// Tasks that have ended.
    pub tasks_done: u64,
    /// Tasks that had nothing to do.
    pub tasks_skipped: u64,
}

/// A phase at one moment.
pub struct PhaseState {
    pub counts: PhaseCounts,
    pub running: Vec<Arc<TaskCounts>>,
    /// The time from the beginning of the first task until now, or until the end of the last one if none is running.
    pub time: Duration,
}

impl Phases {
    /// Begins a task. `on_begin` gets the phases before it.
    pub fn begin(self: &Arc<Self>, info: &TaskInfo, on_begin: impl FnOnce(&[PhaseState])) -> Box<dyn Task> {
        let task = Arc::new(TaskCounts {
            info: info.clone(),
            bytes: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            is_skipped: AtomicBool::new(false),
        });
        let mut phases = self.lock();
        on_begin(&states(&phases));
        match phases.iter_mut().find(|known| known.phase == info.phase) {
            Some(known) => known.running.push(Arc::clone(&task)),
            None => phases.push(PhaseTasks {
                phase: info.phase,
                begun: Instant::now(),
                ended: PhaseCounts::none(info.phase),
                last_end: None,
                running: vec![Arc::clone(&task)],
            }),
        }
        Box::new(CountedTask { task, phases: Arc::clone(self) })
    }

    /// Returns all phases at this moment.
    pub fn states(&self) -> Vec<PhaseState> {
        states(&self.lock())
    }

    fn end(&self, task: &Arc<TaskCounts>) {
        let mut phases = self.lock();
        let Some(known) = phases.iter_mut().find(|known| known.phase == task.info.phase) else { return };
        known.running.retain(|running| !Arc::ptr_eq(running, task));
        known.ended.add(task);
        known.ended.tasks_done += 1;
        known.last_end = Some(Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PhaseTasks>> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn states(phases: &[PhaseTasks]) -> Vec<PhaseState> {
    phases.iter().map(PhaseTasks::state).collect()
}

impl PhaseTasks {
    fn state(&self) -> PhaseState {
        let mut counts = self.ended;
        self.running.iter().for_each(|task| counts.add(task));
        let time = match self.last_end {
            Some(end) if self.running.is_empty() => end.duration_since(self.begun),
            _ => self.begun.elapsed(),
        };
        PhaseState { counts, running: self.running.clone(), time }
    }
}

impl PhaseCounts {
    fn none(phase: Phase) -> Self {
        let (bytes, entries, tasks, tasks_done, tasks_skipped) = (0, 0, 0, 0, 0);
        Self { phase, bytes, total: Some(0), entries, tasks, tasks_done, tasks_skipped }
    }

    fn add(&mut self, task: &TaskCounts) {
        let is_skipped = task.is_skipped.load(Ordering::Relaxed);
        let total = if is_skipped { Some(0) } else { task.info.total };
        self.bytes += task.bytes();
        self.total = self.total.zip(total).map(|(sum, total)| sum + total);
        self.entries += task.entries();
        self.tasks += 1;
        self.tasks_skipped += u64::from(is_skipped);
    }
}

impl TaskCounts {
    /// Returns the bytes done.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the entries done.
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }
}

/// A task that counts into its phase, until it is dropped.
struct CountedTask {
    task: Arc<TaskCounts>,
    phases: Arc<Phases>,
}

impl Task for CountedTask {
    fn advance(&self, bytes: u64) {
        self.task.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn advance_entries(&self, entries: u64) {
        self.task.entries.fetch_add(entries, Ordering::Relaxed);
    }

    fn skip(&self) {
        self.task.is_skipped.store(true, Ordering::Relaxed);
    }
}

impl Drop for CountedTask {
    fn drop(&mut self) {
        self.phases.end(&self.task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(phases: &Phases) -> Vec<PhaseCounts> {
        phases.states().iter().map(|state| state.counts).collect()
    }

    #[test]
    fn tasks_count_into_their_phase_while_they_run_and_afterwards() {
        let phases = Arc::<Phases>::default();
        let begin = |info: TaskInfo| phases.begin(&info, |_| {});
        let first = begin(TaskInfo::new(Phase::Copying).with_total(10));
        let second = begin(TaskInfo::new(Phase::Copying).with_total(20));
        first.advance(4);
        second.skip();
        let copying = PhaseCounts {
            phase: Phase::Copying,
            bytes: 4,
            total: Some(10),
            entries: 0,
            tasks: 2,
            tasks_done: 0,
            tasks_skipped: 1,
        };
        assert_eq!(counts(&phases), [copying]);
        drop((first, second));
        let comparing = begin(TaskInfo::new(Phase::Comparing));
        comparing.advance_entries(3);
        let states = phases.states();
        assert_eq!(states[0].counts, PhaseCounts { tasks_done: 2, ..copying });
        assert_eq!((states[1].counts.entries, states[1].counts.total), (3, None));
        assert!(states[0].running.is_empty() && states[1].running.len() == 1);
    }
}
