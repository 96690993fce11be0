//! One volume: its lock, the activity that holds it, and access to its stored state.

use super::progress::TransferProgress;
use super::protocol::MountId;
use super::state::{StateFile, VolumeState};
use super::storage::Storage;
use super::volume_name::VolumeName;
use crate::error::{Error, Result};
use crate::stream::CancelToken;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time for which fetched content counts as up to date. After a mount timed out, a user starts the container again
/// within minutes and gets what was fetched; a container that starts the next day gets a new fetch.
const FRESHNESS: Duration = Duration::from_secs(10 * 60);

/// A volume. Two mounts, a fetch and an export of the same volume never run at the same time; different volumes do not
/// wait for each other.
pub(super) struct Volume {
    pub(super) name: VolumeName,
    runtime: Mutex<RuntimeState>,
    changed: Condvar,
    /// The stored state, or the error with which it could not be read.
    state_file: Mutex<Result<StateFile>>,
}

/// The part of a volume's state that is not stored: it ends with the plugin.
#[derive(Default)]
struct RuntimeState {
    activity: Option<Activity>,
    /// The number of unmounts in progress. Nothing is exported meanwhile, because a post-unmount hook has yet to run.
    unmounts: u32,
    /// The number of fetches that have ended, and the error of the last one.
    fetches: u64,
    last_fetch_error: Option<String>,
    /// When the last fetch ended, if it succeeded and no mount has used it yet.
    unused_fetch: Option<Instant>,
    /// The time of the last mount since the plugin was started.
    last_mount: Option<Instant>,
    /// The mounts whose unmount may have been lost, and when that became known.
    suspected: Option<(BTreeSet<MountId>, Instant)>,
    /// The number of consecutive exports that have to be repeated, and the earliest time of the next one.
    unsettled_exports: u32,
    next_export: Option<Instant>,
    /// The error of the last export.
    last_export_error: Option<String>,
}

/// The result of an export that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExportOutcome {
    /// The image has what the volume holds, or there was nothing to export.
    Settled,
    /// As `Settled`, but an engine still counts a mount: its container may write more, so the volume is examined again
    /// later.
    Counted,
    /// The volume is in use: nothing was done.
    InUse,
}

/// The operation that holds the lock of a volume.
#[derive(Clone)]
pub(super) enum Activity {
    Mounting,
    Unmounting,
    Removing,
    Fetching { image: String, progress: Arc<TransferProgress>, cancel: CancelToken },
    Exporting { image: String },
}

/// An unmount in progress, until this is dropped.
pub(super) struct UnmountGuard<'a>(&'a Volume);

/// The lock of a volume, held by one thread at a time. Dropping it releases the lock, also when the thread panics.
pub(super) struct VolumeLock(Arc<Volume>);

impl Volume {
    pub(super) fn new(name: VolumeName, storage: &Storage, boot: &str) -> Self {
        let inode = fs::symlink_metadata(storage.volume_dir(&name)).ok().map(|found| found.ino());
        let state_file = StateFile::open(storage.state_file(&name), boot, inode);
        // The time of a mount before the plugin was started is not known, so it counts as recent.
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
    ///
    /// The deadline has passed; the error names the operation that holds the lock.
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

    /// Returns the number of fetches that have ended.
    pub(super) fn fetches(&self) -> u64 {
        self.runtime().fetches
    }

    /// Waits until more than `before` fetches have ended.
    ///
    /// # Errors
    ///
    /// The error of the last fetch; or, after the deadline, how far the fetch is.
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

    /// Checks the last fetch, if more than `before` fetches have ended.
    ///
    /// # Errors
    ///
    /// The error of that fetch.
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

    /// Returns `true` if the last fetch is recent and was not used yet, so that a mount with `pull=newer` or
    /// `pull=always` may use it.
    pub(super) fn has_fresh_fetch(&self) -> bool {
        self.runtime().unused_fetch.is_some_and(|time| time.elapsed() < FRESHNESS)
    }

    /// Notes that a mount has used the last fetch.
    pub(super) fn mark_fetch_used(&self) {
        self.runtime().unused_fetch = None;
    }

    /// Notes that the mount for which the last fetch was made did not complete.
    pub(super) fn mark_fetch_unused(&self) {
        let mut runtime = self.runtime();
        runtime.unused_fetch = (runtime.fetches > 0 && runtime.last_fetch_error.is_none()).then(Instant::now);
    }

    /// Records the end of a fetch.
    pub(super) fn end_fetch(&self, outcome: Result<(), String>) {
        let mut runtime = self.runtime();
        runtime.fetches += 1;
        runtime.unused_fetch = outcome.is_ok().then(Instant::now);
        runtime.last_fetch_error = outcome.err();
        self.changed.notify_all();
    }

    /// Cancels a fetch that is in progress. Returns `false` if there was none.
    pub(super) fn cancel_fetch(&self) -> bool {
        match &self.runtime().activity {
            Some(Activity::Fetching { cancel, .. }) => {
                cancel.cancel();
                true
            }
            _ => false,
        }
    }

    /// Notes a mount.
    pub(super) fn note_mount(&self) {
        self.runtime().last_mount = Some(Instant::now());
        self.note_use();
    }

    /// Notes that a process may write into the volume: its content may differ from the last export soon.
    pub(super) fn note_use(&self) {
        let mut runtime = self.runtime();
        if runtime.last_export_error.is_none() {
            (runtime.unsettled_exports, runtime.next_export) = (0, None);
        }
    }

    /// Notes that the unmount of one of the counted mounts may have been lost.
    pub(super) fn suspect_mounts(&self) {
        let ids = self.state().map(|state| state.mounts.into_keys().collect::<BTreeSet<_>>());
        if let Ok(ids) = ids
            && !ids.is_empty()
        {
            self.runtime().suspected = Some((ids, Instant::now()));
        }
    }

    /// Notes that an engine has mounted or unmounted with this id, so that the mount is not suspected any more.
    pub(super) fn confirm_mount(&self, id: &str) {
        if let Some((ids, _)) = &mut self.runtime().suspected {
            ids.remove(id);
        }
    }

    /// Returns the mounts whose unmount may have been lost at least `grace` ago.
    pub(super) fn suspected_mounts(&self, grace: Duration) -> BTreeSet<MountId> {
        let runtime = self.runtime();
        let old = runtime.suspected.as_ref().filter(|(_, since)| since.elapsed() >= grace);
        old.map(|(ids, _)| ids.clone()).unwrap_or_default()
    }

    /// Returns `true` if the last mount is more recent than `time`.
    pub(super) fn was_mounted_within(&self, time: Duration) -> bool {
        self.runtime().last_mount.is_some_and(|last_mount| last_mount.elapsed() < time)
    }

    /// Records the end of an export. One that has to be repeated is tried again after 30 seconds, then after twice as
    /// long each time, up to 15 minutes.
    pub(super) fn end_export(&self, outcome: Result<ExportOutcome, String>) {
        let mut runtime = self.runtime();
        let is_settled = matches!(outcome, Ok(ExportOutcome::Settled | ExportOutcome::InUse));
        runtime.unsettled_exports = if is_settled { 0 } else { runtime.unsettled_exports.saturating_add(1) };
        let wait = 15u64.saturating_mul(1 << runtime.unsettled_exports.min(6)).min(900);
        runtime.next_export = (!is_settled).then(|| Instant::now() + Duration::from_secs(wait));
        runtime.last_export_error = outcome.err();
    }

    /// Returns the error of the last export, if it failed.
    pub(super) fn export_failure(&self) -> Option<String> {
        self.runtime().last_export_error.clone()
    }

    /// Returns `true` if an export may be tried now.
    pub(super) fn may_export(&self) -> bool {
        self.runtime().next_export.is_none_or(|time| time <= Instant::now())
    }

    /// Returns a description of the current activity, for users.
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

    /// Returns the stored state.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn state(&self) -> Result<VolumeState> {
        match &*self.state_file() {
            Ok(state_file) => Ok(state_file.state().clone()),
            Err(error) => Err(copy_of(error)),
        }
    }

    /// Changes the stored state, on the disk first.
    ///
    /// # Errors
    ///
    /// It cannot be read or written.
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

/// Returns an error with the same kind, text and hint.
fn copy_of(error: &Error) -> Error {
    let same = Error::new(error.kind(), error.to_string());
    match error.hint() {
        Some(hint) => same.with_hint(hint),
        None => same,
    }
}

impl VolumeLock {
    /// Changes the activity for which the lock is held.
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
            Self::Fetching { image, progress, .. } => {
                write!(f, "it is being filled from {image}")?;
                progress.fmt(f)
            }
            Self::Exporting { image } => write!(f, "it is being exported to {image}"),
        }
    }
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
