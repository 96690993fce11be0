//! What a container has left is packed into an image when the last one lets go.
//!
//! That an export is due is written down before the container starts, so that it happens even if the plugin, the engine or
//! the machine dies in between. It is tried until it succeeds: engines do not show what went wrong at an unmount. Whether
//! there is something to export is decided by what the volume holds: its fingerprint beside that of the content that
//! was filled or exported last.

use super::fingerprint::fingerprint;
use super::root::first_entry;
use super::state::{ContentOrigin, ExportNeed, ImageStamp, KnownContent};
use super::usage::{Usage, usage};
use super::volume::{Activity, ExportOutcome, ProgressRecorder, TransferProgress, Volume, VolumeLock};
use super::volumes::VolumeStore;
use crate::error::{Error, Kind, Result};
use crate::pack::{self, Packed, pack};
use crate::transport::Location;
use crate::tree::SourceSpec;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// What a failure of an export was a failure of.
const EXPORTING: &str = "exporting it";

/// The users of a volume that an export waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// Those that an engine counts, and those that see it.
    Everybody,
    /// Those that see it: the engine has said that it counts none.
    Processes,
}

/// Exports the volume in a thread of its own, if that is due.
pub(super) fn in_background(
    store: &Arc<VolumeStore>,
    volume: &Arc<Volume>,
    to: Location,
    wait_for: WaitFor,
    lock: VolumeLock,
) -> Result<()> {
    lock.set_activity(Activity::Exporting { image: to.to_string() });
    let (store, volume) = (Arc::clone(store), Arc::clone(volume));
    let work = move || {
        // Also where a panic ends the export: the next one is then tried later, and not at once.
        let mut end =
            ExportEnd { volume: &volume, outcome: Some(Err("it was given up: this is a bug".to_owned())) };
        let outcome = export(&store, &volume, &to, wait_for);
        if let Err(error) = &outcome {
            store.record_failure(&volume, EXPORTING, error);
        }
        end.outcome = Some(outcome.map_err(|error| error.to_string()));
        drop(end);
        drop(lock);
    };
    let begun = thread::Builder::new().name("export".to_owned()).spawn(work);
    begun.map(drop).map_err(|error| Error::io("cannot begin an export", error))
}

/// Notes how an export ended when it is dropped.
struct ExportEnd<'a> {
    volume: &'a Volume,
    outcome: Option<Result<ExportOutcome, String>>,
}

impl Drop for ExportEnd<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.volume.end_export(outcome);
        }
    }
}

/// The same, and waits for its end until the deadline, or until something else goes on with the volume.
///
/// # Errors
/// Why it failed, or that it did not end in time.
pub(super) fn export_and_wait(
    store: &Arc<VolumeStore>,
    volume: &Arc<Volume>,
    to: Location,
    wait_for: WaitFor,
    (lock, then): (VolumeLock, Activity),
    deadline: Instant,
) -> Result<VolumeLock> {
    in_background(store, volume, to, wait_for, lock)?;
    // Whoever gets the lock comes after the export.
    let lock = volume.lock(then, deadline)?;
    outcome(volume).map(|()| lock)
}

/// How the last export ended.
///
/// # Errors
/// Why it failed.
pub(super) fn outcome(volume: &Volume) -> Result<()> {
    match volume.export_failure() {
        Some(failure) => Err(Error::failed(format!("{EXPORTING} failed: {failure}"))),
        None => Ok(()),
    }
}

/// Exports the volume if it holds what the image has not. Needs the lock.
pub(super) fn export(
    store: &VolumeStore,
    volume: &Volume,
    to: &Location,
    wait_for: WaitFor,
) -> Result<ExportOutcome> {
    let is_counted = match usage(store, volume)? {
        Usage::InUse(_) => return Ok(ExportOutcome::InUse),
        Usage::Mounted if wait_for == WaitFor::Everybody => return Ok(ExportOutcome::InUse),
        Usage::Mounted | Usage::Idle => wait_for == WaitFor::Everybody,
        Usage::Free => false,
    };
    let directory = store.storage.volume_dir(&volume.name);
    let before = fingerprint(&directory)?;
    let is_empty = first_entry(&directory)?.is_none();
    let name = to.to_string();
    let is_needed = match volume.state()?.needed(&name, &before, is_empty) {
        ExportNeed::Nothing => false,
        ExportNeed::IfMissing => is_missing(store, volume, to)?,
        ExportNeed::Export => true,
    };
    let exported = match is_needed {
        true => Some(pack_volume(store, volume, to, &directory)?),
        false => None,
    };
    volume.update(|state| {
        if let Some(exported) = exported {
            // Where it comes from the same name, this is now what it was filled with.
            if let Some(filled) =
                state.filled.as_mut().filter(|filled| filled.image == name && filled.subpath.is_none())
            {
                filled.digest.clone_from(&exported.digest);
            }
            state.exported = Some(exported);
            state.content = Some(KnownContent { fingerprint: before, origin: ContentOrigin::Exported });
        }
        state.export_due = is_counted;
        state.clear_error(EXPORTING);
    })?;
    Ok(if is_counted { ExportOutcome::Counted } else { ExportOutcome::Settled })
}

/// Whether the name means no image: what no container has changed makes one then, and replaces none.
fn is_missing(store: &VolumeStore, volume: &Volume, to: &Location) -> Result<bool> {
    let found = to.source(&(store.settings.access)()?).and_then(|source| source.resolve());
    match found {
        Err(error) if error.kind() == Kind::NotFound => Ok(true),
        // A registry that does not say so to everybody. Nothing is lost: the content is what it was.
        Err(error) if error.kind() != Kind::Denied => Err(error),
        _ => {
            store.log(&format!("{}: not exported: nothing has changed, and {to} is there", volume.name));
            Ok(false)
        }
    }
}

/// Packs the volume and gives the image its name.
fn pack_volume(store: &VolumeStore, volume: &Volume, to: &Location, directory: &Path) -> Result<ImageStamp> {
    store.log(&format!("{}: exporting it to {to}", volume.name));
    let begun = Instant::now();
    let destination = to.destination(&(store.settings.access)()?)?;
    let told = |message: &str| store.log(&format!("{}: {message}", volume.name));
    let progress = ProgressRecorder { passed: Arc::new(TransferProgress::default()), journal: &told };
    // Whoever writes into a volume does not decide what is exported of it: no rule files.
    let packed =
        pack(destination.as_ref(), &[SourceSpec::new(directory)], &pack::Options::default(), &progress)?;
    store.log(&format!(
        "{}: exported {} entries as {} in {:.1} s{}",
        volume.name,
        packed.entries,
        packed.address,
        begun.elapsed().as_secs_f64(),
        left_out(&packed),
    ));
    let digest = packed.digest.to_string();
    Ok(ImageStamp { image: to.to_string(), digest, at: super::volume::shown(store.now()), subpath: None })
}

/// What is in the volume and not in its image, counted.
fn left_out(packed: &Packed) -> String {
    let counted = [
        (packed.excluded, "excluded"),
        (packed.sockets_skipped, "sockets"),
        (packed.unreadable_skipped, "unreadable"),
        (packed.changed_skipped, "changed"),
    ];
    let counted: Vec<String> = counted
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    match counted.is_empty() {
        true => String::new(),
        false => format!("; left out: {}", counted.join(", ")),
    }
}
