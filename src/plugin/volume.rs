//! One volume: whose turn it is to work on it, and what is known of it.

use super::directory::Directory;
use super::name::VolumeName;
use super::protocol::MountId;
use super::record::{Kept, Record};
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

/// How long what a fetch brought need not be fetched again: who has waited in vain for it starts the container once more
/// within minutes, and who comes the next day wants what is new then.
const FRESH: Duration = Duration::from_secs(10 * 60);

/// A volume. Two mounts, a fetch and an export of one volume never happen at the same time; other volumes do not wait.
pub(super) struct Volume {
    pub(super) name: VolumeName,
    work: Mutex<Work>,
    changed: Condvar,
    /// The record, or why it cannot be read.
    kept: Mutex<Result<Kept>>,
}

/// What is going on.
#[derive(Default)]
struct Work {
    doing: Option<Doing>,
    /// How many unmounts have begun: nobody else may export what a hook has yet to see.
    leaving: u32,
    /// How many fetches have ended, and how the last one did.
    fetches: u64,
    fetch_failed: Option<String>,
    /// When the last fetch ended, if it ended well and what it brought was not mounted yet.
    fetched: Option<Instant>,
    /// When it was mounted last, by what is known since this plugin runs.
    mounted: Option<Instant>,
    /// The mounts that may have ended without a word, and when that became known.
    doubted: Option<(BTreeSet<MountId>, Instant)>,
    /// How many exports in a row did not settle the matter, and when the next may be tried.
    unsettled: u32,
    not_before: Option<Instant>,
    /// Why the last export failed.
    export_failed: Option<String>,
}

/// How an export ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exported {
    /// The image has what the volume holds, or there was nothing to export.
    Settled,
    /// The same, and an engine still counts a mount: what its container writes is seen only by looking again.
    Counted,
    /// Somebody has the volume: nothing was done.
    InUse,
}

/// Who has the turn.
#[derive(Clone)]
pub(super) enum Doing {
    Mounting,
    Unmounting,
    Removing,
    Fetching { image: String, passed: Arc<Passed>, stop: CancelToken },
    Exporting { image: String },
}

/// How far a fetch is, in bytes.
#[derive(Default)]
pub(super) struct Passed {
    done: AtomicU64,
    total: AtomicU64,
}

/// An unmount that has begun, until this is dropped.
pub(super) struct Leaving<'a>(&'a Volume);

/// The right to work on a volume; it passes on when this is dropped, also by a thread that panics.
pub(super) struct Turn(Arc<Volume>);

impl Volume {
    pub(super) fn new(name: VolumeName, directory: &Directory, boot: &str) -> Self {
        let inode = fs::symlink_metadata(directory.volume(&name)).ok().map(|found| found.ino());
        let kept = Kept::open(directory.record(&name), boot, inode);
        // A mount of which only the record knows may be as young as any.
        let is_mounted = kept.as_ref().is_ok_and(|kept| !kept.record().mounts.is_empty());
        let work = Work { mounted: is_mounted.then(Instant::now), ..Work::default() };
        Self { name, work: Mutex::new(work), changed: Condvar::new(), kept: Mutex::new(kept) }
    }

    /// Waits for the turn until the deadline.
    ///
    /// # Errors
    /// When the time is over, saying what is going on.
    pub(super) fn turn(self: &Arc<Self>, doing: Doing, deadline: Instant) -> Result<Turn> {
        let mut work = self.work();
        loop {
            let Some(busy) = &work.doing else {
                work.doing = Some(doing);
                return Ok(Turn(Arc::clone(self)));
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.busy(busy));
            }
            work = self.changed.wait_timeout(work, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many fetches have ended.
    pub(super) fn fetches(&self) -> u64 {
        self.work().fetches
    }

    /// Waits until more fetches have ended than that, or until the deadline.
    ///
    /// # Errors
    /// Why the last one failed; or, when the time is over, how far it is.
    pub(super) fn wait_for_fetch(&self, before: u64, deadline: Instant) -> Result<()> {
        let mut work = self.work();
        while work.fetches == before {
            let left = deadline.saturating_duration_since(Instant::now());
            match &work.doing {
                Some(busy) if left.is_zero() => return Err(self.busy(busy)),
                None if left.is_zero() => return Err(Error::failed("the fetch did not begin in time")),
                _ => {}
            }
            work = self.changed.wait_timeout(work, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.last_fetch(&work)
    }

    /// How a fetch ended that ended since that many had.
    ///
    /// # Errors
    /// Why it failed.
    pub(super) fn fetch_since(&self, before: u64) -> Result<()> {
        let work = self.work();
        if work.fetches == before { Ok(()) } else { self.last_fetch(&work) }
    }

    fn last_fetch(&self, work: &Work) -> Result<()> {
        match &work.fetch_failed {
            Some(error) => Err(Error::failed(error.clone())),
            None => Ok(()),
        }
    }

    /// Whether what came last may do for a mount that would have everything newest.
    pub(super) fn fetch_is_fresh(&self) -> bool {
        self.work().fetched.is_some_and(|time| time.elapsed() < FRESH)
    }

    /// What a fetch brought has been mounted.
    pub(super) fn use_fetch(&self) {
        self.work().fetched = None;
    }

    /// What a fetch brought has not been mounted after all.
    pub(super) fn keep_fetch(&self) {
        let mut work = self.work();
        work.fetched = (work.fetches > 0 && work.fetch_failed.is_none()).then(Instant::now);
    }

    /// Notes how a fetch ended.
    pub(super) fn end_fetch(&self, outcome: Result<(), String>) {
        let mut work = self.work();
        work.fetches += 1;
        work.fetched = outcome.is_ok().then(Instant::now);
        work.fetch_failed = outcome.err();
        self.changed.notify_all();
    }

    /// Ends a fetch that is under way, as soon as the network lets it; whether there was one.
    pub(super) fn cancel_fetch(&self) -> bool {
        match &self.work().doing {
            Some(Doing::Fetching { stop, .. }) => {
                stop.cancel();
                true
            }
            _ => false,
        }
    }

    /// Notes a mount, or that a process sees the volume: what was exported meanwhile may be old soon.
    pub(super) fn touch(&self, is_mount: bool) {
        let mut work = self.work();
        if is_mount {
            work.mounted = Some(Instant::now());
        }
        if work.export_failed.is_none() {
            (work.unsettled, work.not_before) = (0, None);
        }
    }

    /// Notes that one of the mounts that are counted now may have ended without a word.
    pub(super) fn doubt_mounts(&self) {
        let ids = self.record().map(|record| record.mounts.into_keys().collect::<BTreeSet<_>>());
        if let Ok(ids) = ids
            && !ids.is_empty()
        {
            self.work().doubted = Some((ids, Instant::now()));
        }
    }

    /// Notes that an engine has mounted with this id, or ended a mount of it.
    pub(super) fn trust_mount(&self, id: &str) {
        if let Some((ids, _)) = &mut self.work().doubted {
            ids.remove(id);
        }
    }

    /// The mounts that may have ended without a word that long ago.
    pub(super) fn doubted_mounts(&self, grace: Duration) -> BTreeSet<MountId> {
        let work = self.work();
        let old = work.doubted.as_ref().filter(|(_, since)| since.elapsed() >= grace);
        old.map(|(ids, _)| ids.clone()).unwrap_or_default()
    }

    /// Whether the last mount is younger than this.
    pub(super) fn was_mounted_within(&self, time: Duration) -> bool {
        self.work().mounted.is_some_and(|mounted| mounted.elapsed() < time)
    }

    /// Notes how an export ended, and when the next one may be tried where that one did not settle the matter: after half
    /// a minute, and twice as long each time, up to a quarter of an hour.
    pub(super) fn end_export(&self, outcome: Result<Exported, String>) {
        let mut work = self.work();
        let is_settled = matches!(outcome, Ok(Exported::Settled | Exported::InUse));
        work.unsettled = if is_settled { 0 } else { work.unsettled.saturating_add(1) };
        let wait = 15u64.saturating_mul(1 << work.unsettled.min(6)).min(900);
        work.not_before = (!is_settled).then(|| Instant::now() + Duration::from_secs(wait));
        work.export_failed = outcome.err();
    }

    /// Why the last export failed, if it did.
    pub(super) fn export_failure(&self) -> Option<String> {
        self.work().export_failed.clone()
    }

    /// Whether an export may be tried now.
    pub(super) fn may_export(&self) -> bool {
        self.work().not_before.is_none_or(|time| time <= Instant::now())
    }

    /// What is going on, for people.
    pub(super) fn doing(&self) -> Option<String> {
        self.work().doing.as_ref().map(ToString::to_string)
    }

    /// Begins an unmount.
    pub(super) fn leave(&self) -> Leaving<'_> {
        self.work().leaving += 1;
        Leaving(self)
    }

    pub(super) fn is_busy(&self) -> bool {
        let work = self.work();
        work.doing.is_some() || work.leaving > 0
    }

    pub(super) fn is_exporting(&self) -> bool {
        matches!(self.work().doing, Some(Doing::Exporting { .. }))
    }

    /// What is known of the volume.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub(super) fn record(&self) -> Result<Record> {
        match &*self.kept() {
            Ok(kept) => Ok(kept.record().clone()),
            Err(error) => Err(again(error)),
        }
    }

    /// Changes what is known, on the disk first.
    ///
    /// # Errors
    /// When it cannot be read, or not be written.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Record) -> T) -> Result<T> {
        match &mut *self.kept() {
            Ok(kept) => kept.change(change),
            Err(error) => Err(again(error)),
        }
    }

    fn busy(&self, busy: &Doing) -> Error {
        Error::failed(format!("the volume {} is busy: {busy}", self.name))
            .with_hint("that goes on in the background; try again a little later")
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Result<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same error once more.
fn again(error: &Error) -> Error {
    let same = Error::new(error.kind(), error.to_string());
    match error.hint() {
        Some(hint) => same.with_hint(hint),
        None => same,
    }
}

impl Passed {
    /// How many bytes have come.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl Turn {
    /// Goes on with something else.
    pub(super) fn now(&self, doing: Doing) {
        self.0.work().doing = Some(doing);
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.work().leaving -= 1;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.work().doing = None;
        self.0.changed.notify_all();
    }
}

impl std::fmt::Display for Doing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mounting => f.write_str("it is being mounted"),
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
pub(super) struct Watched<'a> {
    pub(super) passed: Arc<Passed>,
    pub(super) journal: &'a (dyn Fn(&str) + Send + Sync),
}

impl Progress for Watched<'_> {
    fn begin(&self, _what: &str, total: Option<u64>) -> Box<dyn Task> {
        self.passed.total.fetch_add(total.unwrap_or_default(), Ordering::Relaxed);
        Box::new(Part { passed: Arc::clone(&self.passed), total: total.unwrap_or_default() })
    }

    fn warn(&self, message: &str) {
        (self.journal)(message);
    }
}

struct Part {
    passed: Arc<Passed>,
    total: u64,
}

impl Task for Part {
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
        let directory = Directory::open(place.path()).unwrap();
        let volume = Volume::new("a".parse().unwrap(), &directory, "boot");
        assert!(!volume.fetch_is_fresh());
        volume.end_fetch(Ok(()));
        assert!(volume.fetch_is_fresh());
        volume.use_fetch();
        assert!(!volume.fetch_is_fresh());
        volume.keep_fetch();
        assert!(volume.fetch_is_fresh());
        volume.work().fetched = Instant::now().checked_sub(FRESH);
        assert!(!volume.fetch_is_fresh());
        volume.end_fetch(Err("no network".to_owned()));
        assert!(!volume.fetch_is_fresh());
    }
}
