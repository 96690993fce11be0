//! Filling a volume from an image. The image is unpacked into a directory beside the volume, and the two directories
//! are exchanged in one step.
//!
//! No process sees half of an image, and if a fetch fails, for lack of space or because of the network, the volume is
//! unchanged. A volume that any process sees is not exchanged.

use super::export::{self, WaitFor};
use super::fingerprint::fingerprint;
use super::in_use::{self, InUse};
use super::min_speed::SpeedGuard;
use super::options::{ExportOptions, FillOptions, FillPolicy, Ownership, PullPolicy};
use super::progress::{ProgressRecorder, TransferProgress};
use super::root::{first_entry, set_mode};
use super::state::{ImageStamp, VolumeState};
use super::storage::{make_private, sync_directory};
use super::volume::{Activity, Volume, VolumeLock};
use super::volumes::VolumeStore;
use crate::disk::mountinfo;
use crate::error::{Error, Kind, Result};
use crate::image::{SignedPart, SignedSource};
use crate::stream::CancelToken;
use crate::transport::{Access, Source};
use crate::tree::ExtractOptions;
use crate::trust::{PublicKey, SignaturePolicy};
use crate::unpack::{self, CompareBy, ForeignTarget, PathFilter, Run, SyncOptions, WriteMode, unpack};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Returns `true` if the volume has to be filled before its first container gets it.
pub(super) fn is_needed(fill: &FillOptions, state: &VolumeState, is_fresh: bool) -> bool {
    let is_filled = state.filled.as_ref().is_some_and(|filled| is_filled_from(filled, fill));
    match fill.pull {
        PullPolicy::Missing => !is_filled,
        // Content that was fetched for this mount is not fetched again: a fetch may take longer than an engine waits,
        // and the engine then repeats the mount.
        PullPolicy::Newer | PullPolicy::Always => !(is_filled && is_fresh),
    }
}

/// Returns `true` if the content is from this image and subpath; it may be an older version.
fn is_filled_from(filled: &ImageStamp, fill: &FillOptions) -> bool {
    filled.image == fill.image.to_string() && filled.subpath == subpath(fill)
}

fn subpath(fill: &FillOptions) -> Option<String> {
    fill.subpath.as_ref().map(|path| path.to_string())
}

/// A request to fill a volume.
#[derive(Clone)]
pub(super) struct FillRequest {
    pub(super) fill: FillOptions,
    pub(super) owner: Ownership,
    /// The image to which the current content has to be exported before it is replaced.
    pub(super) export: Option<ExportOptions>,
}

/// Fills the volume in a separate thread, which continues if the engine hangs up.
pub(super) fn in_background(
    store: &Arc<VolumeStore>,
    volume: &Arc<Volume>,
    request: FillRequest,
    lock: VolumeLock,
) -> Result<()> {
    let (progress, cancel) = (Arc::new(TransferProgress::default()), CancelToken::default());
    let image = request.fill.image.to_string();
    lock.set_activity(Activity::Fetching { image, progress: Arc::clone(&progress), cancel: cancel.clone() });
    let (store, volume) = (Arc::clone(store), Arc::clone(volume));
    let work = move || {
        // A mount that waits for the lock has to learn that a fetch has ended, also after a panic.
        let mut end =
            FetchEnd { volume: &volume, outcome: Some(Err("it was given up: this is a bug".to_owned())) };
        let speed = SpeedGuard::watch(Arc::clone(&progress), cancel.clone(), store.settings.min_speed);
        let run = FillRun { store: &store, volume: &volume, request: &request, progress, cancel: &cancel };
        let outcome = run.run().map_err(|error| speed.explain(error));
        drop(speed);
        if let Err(error) = &outcome {
            store.record_failure(&volume, "filling it", error);
        }
        end.outcome = Some(outcome.map_err(|error| match error.hint() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        }));
        drop(end);
        drop(lock);
    };
    let begun = thread::Builder::new().name("fetch".to_owned()).spawn(work);
    begun.map(drop).map_err(|error| Error::io("cannot begin a fetch", error))
}

/// Records the end of a fetch when it is dropped.
struct FetchEnd<'a> {
    volume: &'a Volume,
    outcome: Option<Result<(), String>>,
}

impl Drop for FetchEnd<'_> {
    fn drop(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.volume.end_fetch(outcome);
        }
    }
}

struct FillRun<'a> {
    store: &'a VolumeStore,
    volume: &'a Volume,
    request: &'a FillRequest,
    progress: Arc<TransferProgress>,
    cancel: &'a CancelToken,
}

impl FillRun<'_> {
    fn run(&self) -> Result<()> {
        let Self { store, volume, request: FillRequest { fill, .. }, .. } = self;
        let state = volume.state()?;
        let target = store.storage.volume_dir(&volume.name);
        if state.filled.as_ref().is_some_and(|filled| is_filled_from(filled, fill))
            && fill.pull == PullPolicy::Missing
        {
            return Ok(());
        }
        self.ensure_replaceable(&target)?;

        let mut access = (store.settings.access)()?;
        access.client.cancel = self.cancel.clone();
        let source = self.signed_source(&access)?;
        if fill.pull == PullPolicy::Newer
            && state.filled.as_ref().is_some_and(|filled| is_filled_from(filled, fill))
        {
            let digest = source.resolve()?.descriptor().digest.to_string();
            if state.filled.as_ref().is_some_and(|filled| filled.digest == digest) {
                store.log(&format!("{}: {} is still {digest}", volume.name, fill.image));
                return Ok(());
            }
        }
        ensure_no_mounts_below(&target)?;
        self.ensure_exported(&target)?;
        store.log(&format!("{}: filling it from {}", volume.name, fill.image));
        let begun = Instant::now();
        let digest = if self.may_sync(&state, &target)? {
            self.sync_or_replace(source.as_ref(), &target)?
        } else {
            self.replace(source.as_ref(), &target)?
        };
        store.log(&format!(
            "{}: filled with {digest} in {:.1} s",
            volume.name,
            begun.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Opens the image. It can be read only if it is signed as the options of the volume and those of the plugin require.
    fn signed_source(&self, access: &Access) -> Result<Box<dyn Source>> {
        let FillRequest { fill, .. } = &self.request;
        let of_volume = match &fill.verify_key {
            Some(file) => Some(Arc::new(SignaturePolicy::from_keys(vec![PublicKey::read(file)?]))),
            None => None,
        };
        let mut source = fill.image.source(access)?;
        for policy in [of_volume, self.store.settings.signatures.clone()].into_iter().flatten() {
            let part = SignedPart::Platform(fill.platform.clone());
            source = Box::new(SignedSource::new(source, &fill.image, &policy, part)?);
        }
        Ok(source)
    }

    /// Fills a directory beside the volume, and exchanges the two. Returns the digest of the image.
    fn replace(&self, source: &dyn Source, target: &Path) -> Result<String> {
        let Self { store, volume, .. } = self;
        let staging = store.storage.staging_dir(&volume.name);
        let outcome =
            self.stage(source, &staging).and_then(|digest| self.swap(&staging, target, self.stamp(digest)));
        // The previous content, or an incomplete new one.
        if let Err(error) = store.storage.trash.move_in(&staging) {
            store.log(&format!("{}: {error}", volume.name));
        }
        store.storage.trash.empty(&|line| store.log(line));
        outcome
    }

    fn stamp(&self, digest: String) -> ImageStamp {
        let fill = &self.request.fill;
        let (image, at) = (fill.image.to_string(), self.store.timestamp());
        ImageStamp { image, digest, at, subpath: subpath(fill) }
    }

    /// Returns `true` if the volume is to be changed in place: it has a version of the image.
    fn may_sync(&self, state: &VolumeState, target: &Path) -> Result<bool> {
        let fill = &self.request.fill;
        let is_version = state.is_partly_synced()
            || state.filled.as_ref().is_some_and(|filled| is_filled_from(filled, fill));
        Ok(fill.policy == FillPolicy::Sync && is_version && first_entry(target)?.is_some())
    }

    /// Makes the volume what the image has, in place if that is possible.
    fn sync_or_replace(&self, source: &dyn Source, target: &Path) -> Result<String> {
        match self.sync(source, target) {
            // An image that cannot be compared with a directory, or an entry in the way.
            Err(error) if matches!(error.kind(), Kind::Usage | Kind::Refused) => {
                self.store.log(&format!("{}: it is filled beside itself: {error}", self.volume.name));
                self.replace(source, target)
            }
            synced => synced,
        }
    }

    /// Makes the volume what the image has, in place. Returns the digest of the image.
    ///
    /// If this fails or the plugin is killed, the volume is not handed out before it has succeeded.
    fn sync(&self, source: &dyn Source, target: &Path) -> Result<String> {
        ensure_not_in_use(target, target)?;
        // The tag may move until the image is resolved again; then the volume has the later image.
        let digest = source.resolve()?.descriptor().digest.to_string();
        self.volume.update(|state| state.begin_sync(self.stamp(digest)))?;
        let how = SyncOptions {
            // A container can set the time of a file, so that equal metadata does not prove that it was not changed.
            compare: CompareBy::Content,
            // Whatever a container has left is replaced.
            foreign: ForeignTarget::Overwrite,
            run: Run::Apply,
        };
        let options = unpack::Options { write: WriteMode::Sync(how), ..self.unpack_options() };
        let digest = self.unpack(source, target, &options)?;
        let fingerprint = fingerprint(target)?;
        let filled = self.stamp(digest.clone());
        self.volume.update(|state| state.end_sync(filled, fingerprint))?;
        Ok(digest)
    }

    /// Returns an error if the volume holds data that its policy keeps.
    fn ensure_replaceable(&self, target: &Path) -> Result<()> {
        match first_entry(target)? {
            Some(held) if self.request.fill.policy == FillPolicy::Once && !self.is_partly_synced()? => {
                Err(Error::refused(format!(
                    "{} holds data that is not from {}, such as {held}",
                    target.display(),
                    self.request.fill.image
                ))
                .with_hint("empty it, or make the volume with policy=replace"))
            }
            _ => Ok(()),
        }
    }

    fn is_partly_synced(&self) -> Result<bool> {
        self.volume.state().map(|state| state.is_partly_synced())
    }

    /// Ensures that the volume's content is stored in an image, if the volume has an export; exports it if that is due.
    fn ensure_exported(&self, target: &Path) -> Result<()> {
        let Self { store, volume, request, .. } = self;
        let Some(to) = &request.export else { return Ok(()) };
        // What it held before was exported.
        if self.is_partly_synced()? {
            return Ok(());
        }
        if first_entry(target)?.is_none() || volume.state()?.is_stored(&fingerprint(target)?) {
            return Ok(());
        }
        let lost = |why: &dyn std::fmt::Display| {
            Error::refused(format!(
                "what {} holds was not exported yet, and would be lost: {why}",
                target.display()
            ))
        };
        let state = volume.state()?;
        if state.content.is_none() && !state.export_due {
            return Err(
                lost(&"no container has written it").with_hint("export it with volio pack, or empty it")
            );
        }
        let retried = "the export is tried again by itself; the volume's Status says why it failed";
        export::export(store, volume, to, WaitFor::Everybody)
            .map_err(|error| lost(&error).with_hint(retried))?;
        if volume.state()?.is_stored(&fingerprint(target)?) {
            Ok(())
        } else {
            Err(lost(&format!("{} holds something else", to.image))
                .with_hint("export it with volio pack, or empty it"))
        }
    }

    /// Unpacks the image into the staging directory. Returns its digest.
    fn stage(&self, source: &dyn Source, staging: &Path) -> Result<String> {
        self.store.storage.trash.move_in(staging)?;
        let own = staging.parent().unwrap_or(staging);
        make_private(own).map_err(|error| Error::io(format!("cannot make {}", own.display()), error))?;
        // If the image has no entry for its root, the root is as in other volumes.
        fs::create_dir(staging)
            .map_err(|error| Error::io(format!("cannot make {}", staging.display()), error))?;
        self.unpack(source, staging, &self.unpack_options())
    }

    fn unpack_options(&self) -> unpack::Options {
        let FillRequest { fill, owner, .. } = self.request;
        let mut options = unpack::Options {
            platform: fill.platform.clone(),
            filter: fill.subpath.clone().map_or(PathFilter::All, PathFilter::Subpath),
            tree: ExtractOptions { uid: owner.uid, gid: owner.gid, ..ExtractOptions::default() },
            ..unpack::Options::default()
        };
        // An exported volume must unpack again, however deep a container made it, and limits cannot be given here.
        (options.limits.max_path, options.limits.max_depth) = (64 << 10, 2048);
        options
    }

    /// Unpacks the image, and sets the mode of the volume's root. Returns the digest of the image.
    fn unpack(&self, source: &dyn Source, target: &Path, options: &unpack::Options) -> Result<String> {
        let recorder =
            ProgressRecorder { transfer: Arc::clone(&self.progress), log: &self.store.settings.log };
        let unpacked = unpack(source, target, options, &recorder)?;
        set_mode(target, self.request.owner)
            .map_err(|error| Error::io(format!("cannot set the mode of {}", target.display()), error))?;
        Ok(unpacked.digest.to_string())
    }

    /// Exchanges the new content with the volume. Returns its digest.
    fn swap(&self, content: &Path, target: &Path, filled: ImageStamp) -> Result<String> {
        let Self { volume, .. } = self;
        let shown = target.display();
        let io_error = |error: io::Error| Error::io(format!("cannot put the new content at {shown}"), error);
        // The fetch took time, and root can write into the volume without an engine.
        self.ensure_replaceable(target)?;
        self.ensure_exported(target)?;
        ensure_not_in_use(target, target)?;
        ensure_no_mounts_below(target)?;
        let inode = fs::symlink_metadata(content).map_err(io_error)?.ino();
        let fingerprint = fingerprint(content)?;
        volume.update(|state| state.begin_swap(filled.clone(), inode, fingerprint))?;
        let flags = match fs::symlink_metadata(target) {
            Ok(found) if !found.is_dir() => {
                return Err(Error::refused(format!("{shown} is not a directory")));
            }
            Ok(_) => RenameFlags::EXCHANGE,
            Err(_) => RenameFlags::NOREPLACE,
        };
        let rename = || {
            renameat_with(CWD, content, CWD, target, flags).map_err(|errno| match errno {
                rustix::io::Errno::BUSY | rustix::io::Errno::XDEV => {
                    Error::refused(format!("{shown} is a mount point of its own"))
                        .with_hint("a volume that is filled from an image is on the disk of the storage")
                }
                errno => io_error(errno.into()),
            })
        };
        rename()?;
        if flags == RenameFlags::EXCHANGE
            && let Err(error) = ensure_not_in_use(content, target)
        {
            // A container got the old content meanwhile: it is put back.
            rename()?;
            return Err(error);
        }
        for directory in [content.parent(), target.parent()].into_iter().flatten() {
            sync_directory(directory).map_err(io_error)?;
        }
        let digest = filled.digest.clone();
        volume.update(|state| state.end_swap(Some(inode)))?;
        Ok(digest)
    }
}

/// Returns an error if any process sees the directory, which is called `shown` in the error.
fn ensure_not_in_use(directory: &Path, shown: &Path) -> Result<()> {
    match in_use::in_use_by(directory)? {
        InUse::By(process) => {
            Err(Error::refused(format!("{} is in use by process {process}", shown.display()))
                .with_hint("it is filled when no container has it any more"))
        }
        _ => Ok(()),
    }
}

/// Returns an error if something is mounted below the volume, by a hook or an administrator: the mount would move away
/// with the old content.
fn ensure_no_mounts_below(target: &Path) -> Result<()> {
    let below = match mountinfo::below(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        below => below.map_err(|error| {
            Error::io(format!("cannot find out what is mounted in {}", target.display()), error)
        })?,
    };
    match below.first() {
        None => Ok(()),
        Some(place) => Err(Error::refused(format!(
            "something is mounted on {}",
            target.join(place).display()
        ))
        .with_hint(
            "a volume is filled when nothing is mounted in it any more; a post-unmount hook can see to that",
        )),
    }
}
