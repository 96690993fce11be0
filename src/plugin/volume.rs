//! One volume: whose lock it is to runtime on it, and what is known of it.

use super::protocol::MountId;
use super::state::{StateFile, VolumeState};
use super::storage::Storage;
use super::volume_name::VolumeName;
use crate::error::{Error, Result};
use crate::progress::{Progress, Task};
use crate::stream::CancelToken;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long what a fetch brought need not be unused_fetch again: who has waited in vain for it starts the container once more
/// within minutes, and who comes the next day wants what is new then.
const FRESHNESS: Duration = Duration::from_secs(10 * 60);

/// A volume. Two mounts, a fetch and an export of one volume never happen at the same time; other volumes do not wait.
pub(super) struct Volume {
    pub(super) name: VolumeName,
    runtime: Mutex<RuntimeState>,
    changed: Condvar,
    /// The record, or why it cannot be read.
    state_file: Mutex<Result<StateFile>>,
}

/// What is going on.
#[derive(Default)]
struct RuntimeState {
    activity: Option<Activity>,
    /// How many unmounts have begun: nobody else may export what a hook has yet to see.
    unmounts: u32,
    /// How many fetches have ended, and how the last one did.
    fetches: u64,
    last_fetch_error: Option<String>,
    /// When the last fetch ended, if it ended well and what it brought was not last_mount yet.
    unused_fetch: Option<Instant>,
    /// When it was last_mount last, by what is known since this plugin runs.
    last_mount: Option<Instant>,
    /// The mounts that may have ended without a word, and when that became known.
    suspected: Option<(BTreeSet<MountId>, Instant)>,
    /// How many exports in a row did not settle the matter, and when the next may be tried.
    unsettled_exports: u32,
    next_export: Option<Instant>,
    /// Why the last export failed.
    last_export_error: Option<String>,
}

/// How an export ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExportOutcome {
    /// The image has what the volume holds, or there was nothing to export.
    Settled,
    /// The same, and an engine still counts a mount: what its container writes is seen only by looking again.
    Counted,
    /// Somebody has the volume: nothing was done.
    InUse,
}

/// Who has the lock.
#[derive(Clone)]
pub(super) enum Activity {
    Mounting,
    Unmounting,
    Removing,
    Fetching { image: String, passed: Arc<TransferProgress>, stop: CancelToken },
    Exporting { image: String },
}

/// How far a fetch is, in bytes.
#[derive(Default)]
pub(super) struct TransferProgress {
    done: AtomicU64,
    total: AtomicU64,
}

/// An unmount that has begun, until this is dropped.
pub(super) struct UnmountGuard<'a>(&'a Volume);

/// The right to runtime on a volume; it passes on when this is dropped, also by a thread that panics.
pub(super) struct VolumeLock(Arc<Volume>);

impl Volume {
    pub(super) fn new(name: VolumeName, storage: &Storage, boot: &str) -> Self {
        let inode = fs::symlink_metadata(storage.volume_dir(&name)).ok().map(|found| found.ino());
        let state_file = StateFile::open(storage.state_file(&name), boot, inode);
        // A mount of which only the record knows may be as young as any.
        let is_mounted = state_file.as_ref().is_ok_and(|state_file| !state_file.state().mounts.is_empty());
        let runtime = RuntimeState { last_mount: is_mounted.then(Instant::now), ..RuntimeState::default() };
        Self {
            name,
            runtime: Mutex::new(runtime),
            changed: Condvar::new(),
            state_file: Mutex::new(state_file),
        }
    }

    /// Waits for the lock until the deadline.
    ///
    /// # Errors
    /// When the time is over, saying what is going on.
    pub(super) fn lock(self: &Arc<Self>, activity: Activity, deadline: Instant) -> Result<VolumeLock> {
        let mut runtime = self.runtime();
        loop {
            let Some(busy) = &runtime.activity else {
                runtime.activity = Some(activity);
                return Ok(VolumeLock(Arc::clone(self)));
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.busy(busy));
            }
            runtime = self.changed.wait_timeout(runtime, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many fetches have ended.
    pub(super) fn fetches(&self) -> u64 {
        self.runtime().fetches
    }

    /// Waits until more fetches have ended than that, or until the deadline.
    ///
    /// # Errors
    /// Why the last one failed; or, when the time is over, how far it is.
    pub(super) fn wait_for_fetch(&self, before: u64, deadline: Instant) -> Result<()> {
        let mut runtime = self.runtime();
        while runtime.fetches == before {
            let left = deadline.saturating_duration_since(Instant::now());
            match &runtime.activity {
                Some(busy) if left.is_zero() => return Err(self.busy(busy)),
                None if left.is_zero() => return Err(Error::failed("the fetch did not begin in time")),
                _ => {}
            }
            runtime = self.changed.wait_timeout(runtime, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.last_fetch(&runtime)
    }

    /// How a fetch ended that ended since that many had.
    ///
    /// # Errors
    /// Why it failed.
    pub(super) fn fetch_since(&self, before: u64) -> Result<()> {
        let runtime = self.runtime();
        if runtime.fetches == before { Ok(()) } else { self.last_fetch(&runtime) }
    }

    fn last_fetch(&self, runtime: &RuntimeState) -> Result<()> {
        match &runtime.last_fetch_error {
            Some(error) => Err(Error::failed(error.clone())),
            None => Ok(()),
        }
    }

    /// Whether what came last may do for a mount that would have everything newest.
    pub(super) fn has_fresh_fetch(&self) -> bool {
        self.runtime().unused_fetch.is_some_and(|time| time.elapsed() < FRESHNESS)
    }

    /// What a fetch brought has been last_mount.
    pub(super) fn mark_fetch_used(&self) {
        self.runtime().unused_fetch = None;
    }

    /// What a fetch brought has not been last_mount after all.
    pub(super) fn mark_fetch_unused(&self) {
        let mut runtime = self.runtime();
        runtime.unused_fetch = (runtime.fetches > 0 && runtime.last_fetch_error.is_none()).then(Instant::now);
    }

    /// Notes how a fetch ended.
    pub(super) fn end_fetch(&self, outcome: Result<(), String>) {
        let mut runtime = self.runtime();
        runtime.fetches += 1;
        runtime.unused_fetch = outcome.is_ok().then(Instant::now);
        runtime.last_fetch_error = outcome.err();
        self.changed.notify_all();
    }

    /// Ends a fetch that is under way, as soon as the network lets it; whether there was one.
    pub(super) fn cancel_fetch(&self) -> bool {
        match &self.runtime().activity {
            Some(Activity::Fetching { stop, .. }) => {
                stop.cancel();
                true
            }
            _ => false,
        }
    }

    /// Notes a mount, or that a process sees the volume: what was exported meanwhile may be old soon.
    pub(super) fn touch(&self, is_mount: bool) {
        let mut runtime = self.runtime();
        if is_mount {
            runtime.last_mount = Some(Instant::now());
        }
        if runtime.last_export_error.is_none() {
            (runtime.unsettled_exports, runtime.next_export) = (0, None);
        }
    }

    /// Notes that one of the mounts that are counted now may have ended without a word.
    pub(super) fn suspect_mounts(&self) {
        let ids = self.state().map(|state| state.mounts.into_keys().collect::<BTreeSet<_>>());
        if let Ok(ids) = ids
            && !ids.is_empty()
        {
            self.runtime().suspected = Some((ids, Instant::now()));
        }
    }

    /// Notes that an engine has last_mount with this id, or ended a mount of it.
    pub(super) fn confirm_mount(&self, id: &str) {
        if let Some((ids, _)) = &mut self.runtime().suspected {
            ids.remove(id);
        }
    }

    /// The mounts that may have ended without a word that long ago.
    pub(super) fn suspected_mounts(&self, grace: Duration) -> BTreeSet<MountId> {
        let runtime = self.runtime();
        let old = runtime.suspected.as_ref().filter(|(_, since)| since.elapsed() >= grace);
        old.map(|(ids, _)| ids.clone()).unwrap_or_default()
    }

    /// Whether the last mount is younger than this.
    pub(super) fn was_mounted_within(&self, time: Duration) -> bool {
        self.runtime().last_mount.is_some_and(|last_mount| last_mount.elapsed() < time)
    }

    /// Notes how an export ended, and when the next one may be tried where that one did not settle the matter: after half
    /// a minute, and twice as long each time, up to a quarter of an hour.
    pub(super) fn end_export(&self, outcome: Result<ExportOutcome, String>) {
        let mut runtime = self.runtime();
        let is_settled = matches!(outcome, Ok(ExportOutcome::Settled | ExportOutcome::InUse));
        runtime.unsettled_exports = if is_settled { 0 } else { runtime.unsettled_exports.saturating_add(1) };
        let wait = 15u64.saturating_mul(1 << runtime.unsettled_exports.min(6)).min(900);
        runtime.next_export = (!is_settled).then(|| Instant::now() + Duration::from_secs(wait));
        runtime.last_export_error = outcome.err();
    }

    /// Why the last export failed, if it did.
    pub(super) fn export_failure(&self) -> Option<String> {
        self.runtime().last_export_error.clone()
    }

    /// Whether an export may be tried now.
    pub(super) fn may_export(&self) -> bool {
        self.runtime().next_export.is_none_or(|time| time <= Instant::now())
    }

    /// What is going on, for people.
    pub(super) fn activity(&self) -> Option<String> {
        self.runtime().activity.as_ref().map(ToString::to_string)
    }

    /// Begins an unmount.
    pub(super) fn begin_unmount(&self) -> UnmountGuard<'_> {
        self.runtime().unmounts += 1;
        UnmountGuard(self)
    }

    pub(super) fn is_busy(&self) -> bool {
        let runtime = self.runtime();
        runtime.activity.is_some() || runtime.unmounts > 0
    }

    pub(super) fn is_exporting(&self) -> bool {
        matches!(self.runtime().activity, Some(Activity::Exporting { .. }))
    }

    /// What is known of the volume.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub(super) fn state(&self) -> Result<VolumeState> {
        match &*self.state_file() {
            Ok(state_file) => Ok(state_file.state().clone()),
            Err(error) => Err(copy_of(error)),
        }
    }

    /// Changes what is known, on the disk first.
    ///
    /// # Errors
    /// When it cannot be read, or not be written.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut VolumeState) -> T) -> Result<T> {
        match &mut *self.state_file() {
            Ok(state_file) => state_file.update(change),
            Err(error) => Err(copy_of(error)),
        }
    }

    fn busy(&self, busy: &Activity) -> Error {
        Error::failed(format!("the volume {} is busy: {busy}", self.name))
            .with_hint("that goes on in the background; try again a little later")
    }

    fn runtime(&self) -> MutexGuard<'_, RuntimeState> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_file(&self) -> MutexGuard<'_, Result<StateFile>> {
        self.state_file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same error once more.
fn copy_of(error: &Error) -> Error {
    let same = Error::new(error.kind(), error.to_string());
    match error.hint() {
        Some(hint) => same.with_hint(hint),
        None => same,
    }
}

impl TransferProgress {
    /// How many bytes have come.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl VolumeLock {
    /// Goes on with something else.
    pub(super) fn set_activity(&self, activity: Activity) {
        self.0.runtime().activity = Some(activity);
    }
}

impl Drop for UnmountGuard<'_> {
    fn drop(&mut self) {
        self.0.runtime().unmounts -= 1;
    }
}

impl Drop for VolumeLock {
    fn drop(&mut self) {
        self.0.runtime().activity = None;
        self.0.changed.notify_all();
    }
}

impl std::fmt::Display for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mounting => f.write_str("it is being last_mount"),
            Self::Unmounting => f.write_str("it is being unmounted"),
            Self::Removing => f.write_str("it is being removed"),
            Self::Fetching { image, passed, .. } => {
                write!(f, "it is being filled from {image}")?;
                let done = passed.done.load(Ordering::Relaxed);
                match passed.total.load(Ordering::Relaxed) {
                    0 => Ok(()),
                    total => {
                        write!(f, ", {} % of {} MiB", done.min(total) * 100 / total, total.div_ceil(1 << 20))
                    }
                }
            }
            Self::Exporting { image } => write!(f, "it is being exported to {image}"),
        }
    }
}

/// What a fetch or an export says of itself.
pub(super) struct ProgressRecorder<'a> {
    pub(super) passed: Arc<TransferProgress>,
    pub(super) journal: &'a (dyn Fn(&str) + Send + Sync),
}

impl Progress for ProgressRecorder<'_> {
    fn begin(&self, _what: &str, total: Option<u64>) -> Box<dyn Task> {
        self.passed.total.fetch_add(total.unwrap_or_default(), Ordering::Relaxed);
        Box::new(ProgressTask { passed: Arc::clone(&self.passed), total: total.unwrap_or_default() })
    }

    fn warn(&self, message: &str) {
        (self.journal)(message);
    }
}

struct ProgressTask {
    passed: Arc<TransferProgress>,
    total: u64,
}

impl Task for ProgressTask {
    fn advance(&self, bytes: u64) {
        self.passed.done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn skip(&self) {
        self.passed.done.fetch_add(self.total, Ordering::Relaxed);
    }
}

/// The time as the state has it: seconds are enough for people.
pub(super) fn shown(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_fetch_brought_is_fresh_for_some_minutes_and_for_one_mount() {
        let place = tempfile::tempdir().unwrap();
        let storage = Storage::open(place.path()).unwrap();
        let volume = Volume::new("a".parse().unwrap(), &storage, "boot");
        assert!(!volume.has_fresh_fetch());
        volume.end_fetch(Ok(()));
        assert!(volume.has_fresh_fetch());
        volume.mark_fetch_used();
        assert!(!volume.has_fresh_fetch());
        volume.mark_fetch_unused();
        assert!(volume.has_fresh_fetch());
        volume.runtime().unused_fetch = Instant::now().checked_sub(FRESHNESS);
        assert!(!volume.has_fresh_fetch());
        volume.end_fetch(Err("no network".to_owned()));
        assert!(!volume.has_fresh_fetch());
    }
}
