//! Exports: a volume is packed into an image after its last container has ended.
//!
//! A due export is stored before the container starts, so that it happens even if the plugin, the engine or the machine
//! stops in between. It is repeated until it succeeds, because engines do not show errors of an unmount. The content
//! decides whether there is something to export: its fingerprint is compared with that of the content that was last
//! filled or exported.

use super::fingerprint::fingerprint;
use super::options::{ExportMode, ExportOptions};
use super::progress::{ProgressRecorder, TransferProgress};
use super::root::first_entry;
use super::state::{ContentOrigin, ExportNeed, ImageStamp, KnownContent};
use super::usage::{Usage, usage};
use super::volume::{Activity, ExportOutcome, Volume, VolumeLock};
use super::volumes::VolumeStore;
use crate::error::{Error, Kind, Result};
use crate::pack::{
    self, ContentCheck, ImageForm, IncrementalOptions, Packed, ShrinkRule, pack, pack_incremental,
};
use crate::tree::SourceSpec;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// The operation that the stored error of an export names.
const EXPORTING: &str = "exporting it";

/// The uses of a volume that an export waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// Mounts that an engine counts, and processes that see the volume.
    Everybody,
    /// Processes that see the volume: the engine has said that it counts no mount.
    Processes,
}

/// Exports the volume in a separate thread, if that is due.
pub(super) fn in_background(
    store: &Arc<VolumeStore>,
    volume: &Arc<Volume>,
    to: ExportOptions,
    wait_for: WaitFor,
    lock: VolumeLock,
) -> Result<()> {
    lock.set_activity(Activity::Exporting { image: to.image.to_string() });
    let (store, volume) = (Arc::clone(store), Arc::clone(volume));
    let work = move || {
        // Recorded also after a panic: the next export is then tried later, and not at once.
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

/// Records the end of an export when it is dropped.
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

/// Exports the volume, and waits until the lock is free again or the deadline has passed.
///
/// # Errors
///
/// The export failed, or did not end in time.
pub(super) fn export_and_wait(
    store: &Arc<VolumeStore>,
    volume: &Arc<Volume>,
    to: ExportOptions,
    wait_for: WaitFor,
    (lock, then): (VolumeLock, Activity),
    deadline: Instant,
) -> Result<VolumeLock> {
    in_background(store, volume, to, wait_for, lock)?;
    // The lock is free when the export has ended.
    let lock = volume.lock(then, deadline)?;
    outcome(volume).map(|()| lock)
}

/// Checks the last export.
///
/// # Errors
///
/// The export failed.
pub(super) fn outcome(volume: &Volume) -> Result<()> {
    match volume.export_failure() {
        Some(failure) => Err(Error::failed(format!("{EXPORTING} failed: {failure}"))),
        None => Ok(()),
    }
}

/// Exports the volume if the image does not have its content. The caller holds the lock.
pub(super) fn export(
    store: &VolumeStore,
    volume: &Volume,
    to: &ExportOptions,
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
    let name = to.image.to_string();
    let is_needed = match volume.state()?.needed(&name, &before, is_empty) {
        ExportNeed::Nothing => false,
        ExportNeed::IfMissing => is_missing(store, volume, to)?,
        ExportNeed::Export => true,
    };
    let exported = if is_needed { Some(pack_volume(store, volume, to, &directory)?) } else { None };
    volume.update(|state| {
        if let Some(exported) = exported {
            // If the volume is filled from the same name, the image is now what it was filled with.
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

/// Returns `true` if the name has no image. Content that no container has changed creates an image, but replaces none.
fn is_missing(store: &VolumeStore, volume: &Volume, to: &ExportOptions) -> Result<bool> {
    let found = to.image.source(&(store.settings.access)()?).and_then(|source| source.resolve());
    match found {
        Err(error) if error.kind() == Kind::NotFound => Ok(true),
        // Some registries deny access to a name that does not exist. Nothing is lost: the content has not changed.
        Err(error) if error.kind() != Kind::Denied => Err(error),
        _ => {
            store.log(&format!(
                "{}: not exported: nothing has changed, and {} is there",
                volume.name, to.image
            ));
            Ok(false)
        }
    }
}

/// Packs the volume and tags the image.
fn pack_volume(
    store: &VolumeStore,
    volume: &Volume,
    to: &ExportOptions,
    directory: &Path,
) -> Result<ImageStamp> {
    let ExportOptions { image, mode } = to;
    store.log(&format!("{}: exporting it to {image}", volume.name));
    let begun = Instant::now();
    let access = (store.settings.access)()?;
    let destination = image.destination(&access)?;
    let log = |message: &str| store.log(&format!("{}: {message}", volume.name));
    let progress = ProgressRecorder { transfer: Arc::new(TransferProgress::default()), log: &log };
    // No rule files: a container that writes into a volume must not decide what is exported.
    let (sources, options) = ([SourceSpec::new(directory)], pack::Options::default());
    let packed = match mode {
        ExportMode::Full => pack(destination.as_ref(), &sources, &options, &progress)?,
        ExportMode::Incremental => {
            let base = pack::Base::current(image.clone(), access);
            let incremental = incremental_options(store.storage.private_dir(&volume.name));
            pack_incremental(destination.as_ref(), &base, &sources, &options, &incremental, &progress)?
        }
    };
    store.log(&format!(
        "{}: exported {} entries as {} in {:.1} s{}{}",
        volume.name,
        packed.entries,
        packed.address,
        begun.elapsed().as_secs_f64(),
        what_was_sent(&packed),
        left_out(&packed),
    ));
    let digest = packed.digest.to_string();
    Ok(ImageStamp { image: image.to_string(), digest, at: store.timestamp(), subpath: None })
}

/// Returns the options of an incremental export, which must hold what a full one would: exported content may be replaced
/// after it.
fn incremental_options(temporary: PathBuf) -> IncrementalOptions {
    IncrementalOptions {
        // A program can set an mtime, so that equal metadata does not prove that a file was not changed.
        content_check: ContentCheck::Always,
        // A container may empty its volume.
        shrink_rule: ShrinkRule::Any,
        temporary: Some(temporary),
        ..IncrementalOptions::default()
    }
}

/// Returns a description of what an incremental export has sent.
fn what_was_sent(packed: &Packed) -> String {
    let Some(incremental) = &packed.incremental else { return String::new() };
    match &incremental.form {
        ImageForm::Unchanged => "; nothing differs from the image".to_owned(),
        ImageForm::Full(reason) => format!("; packed in full: {reason}"),
        ImageForm::Delta => format!(
            "; {} added, {} changed, {} removed: sent {} bytes of about {}",
            incremental.added,
            incremental.changed,
            incremental.removed,
            incremental.bytes_sent,
            incremental.full_bytes,
        ),
    }
}

/// Returns a description of the entries that are not in the image.
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
    if counted.is_empty() { String::new() } else { format!("; left out: {}", counted.join(", ")) }
}
