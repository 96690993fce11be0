//! Mounts and unmounts: the steps before a container gets a volume, and after it has released the volume.

use super::definitions::Definition;
use super::engine::Engine;
use super::export::{self, WaitFor};
use super::fingerprint::fingerprint;
use super::hooks::Hook;
use super::in_use::{InUse, MountSnapshot};
use super::options::{ExportOptions, PullPolicy, VolumeOptions};
use super::state::{ContentOrigin, KnownContent};
use super::usage::{Usage, usage};
use super::volume::{Activity, Volume, VolumeLock};
use super::volume_name::VolumeName;
use super::volumes::{DOCKER_TIMEOUT, VolumeStore};
use super::{CallError, Driver, fill, root};
use crate::disk::mountinfo;
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time that podman waits for an unmount by default, minus a margin.
const PODMAN_UNMOUNT_TIMEOUT: Duration = Duration::from_secs(4);

/// The operations that the stored error of a hook names.
const MOUNTING: &str = "mounting it";
const UNMOUNTING: &str = "unmounting it";

/// A request to mount or unmount a volume.
struct MountRequest<'a> {
    store: &'a Arc<VolumeStore>,
    volume: Arc<Volume>,
    definition: Definition,
    options: VolumeOptions,
    mountpoint: PathBuf,
    driver: Driver,
    id: &'a str,
    deadline: Instant,
}

impl VolumeStore {
    /// Prepares a volume for a container, counts the mount, and returns the path of the volume.
    pub(super) fn mount(
        self: &Arc<Self>,
        driver: Driver,
        name: &VolumeName,
        id: &str,
        engine: Option<&Engine>,
    ) -> Result<PathBuf, CallError> {
        let definition = self.required_definition(driver, name)?;
        let request = MountRequest::new(self, driver, definition, name, id, self.settings.answer_timeout)?;
        request.mount(engine).inspect_err(|failure| {
            let (CallError::Report(error) | CallError::HangUp(error)) = failure;
            self.log(&format!("{name}: mounting it failed: {error}"));
        })?;
        Ok(request.mountpoint)
    }

    /// Counts an unmount, runs the hook, and starts the export. Docker only logs an error, so work that takes longer
    /// than Docker waits continues in the background.
    pub(super) fn unmount(
        self: &Arc<Self>,
        driver: Driver,
        name: &VolumeName,
        id: &str,
        is_podman: bool,
    ) -> Result<(), CallError> {
        let Some(definition) = self.definition(driver, name)? else { return Ok(()) };
        let patience = if is_podman { PODMAN_UNMOUNT_TIMEOUT } else { DOCKER_TIMEOUT };
        let request = MountRequest::new(
            self,
            driver,
            definition,
            name,
            id,
            patience.min(self.settings.answer_timeout),
        )?;
        Ok(request.unmount()?)
    }

    /// Reverts a mount after its response could not be delivered. Fetched content is kept for the next mount.
    pub(super) fn undo_mount(self: &Arc<Self>, driver: Driver, name: &VolumeName, id: &str) {
        self.log(&format!("{name}: the caller hung up; it is not counted as mounted"));
        self.volume(name).mark_fetch_unused();
        if let Err(failure) = self.unmount(driver, name, id, false) {
            self.log(&format!("{name}: {}", failure.into_error()));
        }
    }

    /// Exports volumes that are due and not in use: after an unmount that was never sent, or an export that failed.
    pub(super) fn export_due_volumes(self: &Arc<Self>) {
        // Read once for all volumes: most volumes with an export due are in use.
        let mut mounts = None;
        // If the list cannot be read, the next call reports it.
        for (name, definition) in self.volumes_of(Driver::Volio).unwrap_or_default() {
            let Ok(VolumeOptions { export: Some(to), .. }) =
                VolumeOptions::parse(definition.driver(), &definition.options)
            else {
                continue;
            };
            let volume = self.volume(&name);
            let is_due = volume.state().is_ok_and(|state| state.export_due && !state.export_withheld);
            if !is_due || volume.is_busy() || !volume.may_export() {
                continue;
            }
            let mounts = mounts.get_or_insert_with(MountSnapshot::now);
            let seen = mounts.as_ref().map(|mounts| mounts.in_use_by(&self.storage.volume_dir(&name)));
            if let Ok(Ok(InUse::By(_))) = seen {
                volume.note_use();
                continue;
            }
            // If that cannot be determined now, it is tried again later.
            if let Ok(Usage::Free | Usage::Idle) = usage(self, &volume) {
                // Another operation holds the lock, or a thread could not be started: the export stays due.
                let _ = volume
                    .lock(Activity::Unmounting, Instant::now())
                    .and_then(|lock| export::in_background(self, &volume, to, WaitFor::Everybody, lock));
            }
        }
    }

    /// Marks all counted mounts as suspect after an unmount without a body: Docker repeats a call without its body if
    /// the plugin was not running or died. The lost unmount may be that of any mount that no process sees.
    pub(super) fn suspect_mounts(&self) {
        let volumes =
            self.volumes_of(Driver::Volio).into_iter().chain(self.volumes_of(Driver::Volmex)).flatten();
        for (name, _) in volumes {
            self.volume(&name).suspect_mounts();
        }
    }

    /// Waits until no export is running.
    pub(super) fn wait_for_exports(&self) {
        for (name, _) in self.volumes_of(Driver::Volio).unwrap_or_default() {
            let volume = self.volume(&name);
            if volume.is_exporting() {
                let _ = volume.lock(Activity::Unmounting, Instant::now() + Duration::from_secs(24 * 60 * 60));
            }
        }
    }
}

impl<'a> MountRequest<'a> {
    fn new(
        store: &'a Arc<VolumeStore>,
        driver: Driver,
        definition: Definition,
        name: &VolumeName,
        id: &'a str,
        patience: Duration,
    ) -> Result<Self> {
        Ok(Self {
            options: VolumeOptions::parse(definition.driver(), &definition.options)?,
            mountpoint: store.mountpoint(&definition, name),
            definition,
            volume: store.volume(name),
            store,
            driver,
            id,
            deadline: Instant::now() + patience,
        })
    }

    fn mount(&self, engine: Option<&Engine>) -> Result<(), CallError> {
        let lock = self.lock_filled()?;
        root::create(&self.mountpoint, self.options.owner)?;
        if !self.mountpoint.is_dir() {
            return Err(Error::refused(format!("{} is not a directory", self.mountpoint.display())).into());
        }
        let known = self.known_content()?;
        if let Err(error) = self.run_mount_hooks() {
            self.store.record_failure(&self.volume, MOUNTING, &error);
            return Err(error.into());
        }
        let content = self.content_before_the_container(known)?;
        self.volume.note_mount();
        self.volume.confirm_mount(self.id);
        self.volume.update(|state| {
            state.add_mount(self.id, engine);
            state.export_due |= self.options.export.is_some();
            if content.is_some() {
                state.content = content;
            }
            state.clear_error(MOUNTING);
        })?;
        self.volume.mark_fetch_used();
        drop(lock);
        Ok(())
    }

    /// Returns the recorded content, if it is still in the volume and a command may change it before the container gets
    /// it.
    fn known_content(&self) -> Result<Option<KnownContent>> {
        let state = self.volume.state()?;
        let has_command = self.options.command.is_some() || self.options.pre_mount.is_some();
        let content = state.content.filter(|_| has_command && state.mounts.is_empty());
        // The content matters only for exports.
        Ok(content.filter(|content| {
            self.options.export.is_some()
                && fingerprint(&self.mountpoint).is_ok_and(|found| found == content.fingerprint)
        }))
    }

    /// Returns the content that the first container gets, if it was not known or a command has changed it. Only later
    /// changes have to be exported.
    fn content_before_the_container(&self, known: Option<KnownContent>) -> Result<Option<KnownContent>> {
        let state = self.volume.state()?;
        let is_needed = known.is_some() || state.content.is_none();
        if self.options.export.is_none() || !state.mounts.is_empty() || !is_needed {
            return Ok(None);
        }
        let origin = known.map_or(ContentOrigin::Found, |known| known.origin);
        // Without a fingerprint, all content counts as changed.
        Ok(fingerprint(&self.mountpoint).ok().map(|fingerprint| KnownContent { fingerprint, origin }))
    }

    /// Takes the lock, and fills the volume if that is needed.
    fn lock_filled(&self) -> Result<VolumeLock, CallError> {
        let mut before = self.volume.fetches();
        loop {
            let lock = self.volume.lock(Activity::Mounting, self.deadline)?;
            // The volume may have been removed during the wait.
            self.store.required_definition(self.driver, &self.volume.name)?;
            // If another mount had the volume filled meanwhile, this mount gets the same result.
            self.volume.fetch_since(before)?;
            let Some(fill) = &self.options.fill else { return Ok(lock) };
            let state = self.volume.state()?;
            let is_needed = fill::is_needed(fill, &state, self.volume.has_fresh_fetch());
            // A volume in use is not replaced. A volume that was never filled, or is half of one image, is not handed out.
            let may_stay = fill.pull != PullPolicy::Missing && !state.is_partly_synced();
            if !is_needed || (may_stay && !self.may_be_replaced()?) {
                return Ok(lock);
            }
            before = self.volume.fetches();
            let request = fill::FillRequest {
                fill: fill.clone(),
                owner: self.options.owner,
                export: self.options.export.clone(),
            };
            fill::in_background(self.store, &self.volume, request, lock)?;
            self.volume.wait_for_fetch(before, self.deadline)?;
            before = self.volume.fetches();
        }
    }

    /// Returns `true` if the volume is not in use, and no export waits for its hook to succeed.
    fn may_be_replaced(&self) -> Result<bool> {
        let name = &self.volume.name;
        let state = self.volume.state()?;
        let keeps = |why: &str| self.store.log(&format!("{name}: it keeps what it holds: {why}"));
        match usage(self.store, &self.volume) {
            Ok(Usage::Free) => {}
            Ok(Usage::InUse(process)) => {
                keeps(&format!("process {process} sees it"));
                return Ok(false);
            }
            Ok(Usage::Mounted | Usage::Idle) => {
                let ids: Vec<&str> = state.mounts.keys().map(String::as_str).collect();
                keeps(&format!("it is mounted for {}", ids.join(", ")));
                return Ok(false);
            }
            Err(error) => {
                keeps(&error.to_string());
                return Ok(false);
            }
        }
        // A volume that was filled before can be used as it is; otherwise the fetch reports the mount that is in its
        // way.
        if let Ok([place, ..]) = mountinfo::below(&self.mountpoint).as_deref()
            && state.filled.is_some()
        {
            keeps(&format!("something is mounted on {}", self.mountpoint.join(place).display()));
            return Ok(false);
        }
        if state.export_withheld && !state.is_stored(&fingerprint(&self.mountpoint)?) {
            keeps("it was not exported, since post-unmount failed");
            return Ok(false);
        }
        Ok(true)
    }

    /// Runs the commands before a mount.
    fn run_mount_hooks(&self) -> Result<()> {
        let path = &self.store.settings.search_path;
        if let Some(command) = &self.options.command {
            let hook = Hook::volmex(command, &self.volume.name, &self.mountpoint, self.options.timeout, path);
            hook.run().map_err(|error| error.context("error from volmex command"))?;
        }
        self.run_hook("pre-mount", self.options.pre_mount.as_ref())
    }

    fn unmount(&self) -> Result<()> {
        let _leaving = self.volume.begin_unmount();
        let exports = self.options.export.is_some();
        self.volume.confirm_mount(self.id);
        self.volume.update(|state| {
            state.remove_mount(self.id);
            // Regardless of earlier results: this container may have written since.
            state.export_due |= exports;
            state.export_withheld &= self.options.post_unmount.is_some();
        })?;
        self.volume.note_use();
        if self.options.post_unmount.is_some() {
            let lock = self.volume.lock(Activity::Unmounting, self.deadline);
            // Docker only logs the error, and the hook does not run any more.
            let lock =
                lock.inspect_err(|error| self.store.record_failure(&self.volume, UNMOUNTING, error))?;
            let outcome = self.run_hook("post-unmount", self.options.post_unmount.as_ref());
            // The hook may prepare the data for the export; it may have failed after another container.
            self.volume.update(|state| state.export_withheld = exports && outcome.is_err())?;
            if let Err(error) = outcome {
                self.store.record_failure(&self.volume, UNMOUNTING, &error);
                if exports {
                    self.store.log(&format!("{}: not exported, since post-unmount failed", self.volume.name));
                }
                return Err(error);
            }
            self.volume.update(|state| state.clear_error(UNMOUNTING))?;
            drop(lock);
        }
        match &self.options.export {
            Some(to) => self.export(to),
            None => Ok(()),
        }
    }

    /// Exports the volume if this was the last container, and waits for the end as long as the engine does.
    fn export(&self, to: &ExportOptions) -> Result<()> {
        let Ok(lock) = self.volume.lock(Activity::Unmounting, self.deadline) else { return Ok(()) };
        if usage(self.store, &self.volume)? != Usage::Free {
            return Ok(());
        }
        let (store, volume) = (self.store, &self.volume);
        export::in_background(store, volume, to.clone(), WaitFor::Everybody, lock)?;
        // The lock is free when the export has ended. Without the lock the engine's time is over.
        let Ok(_lock) = volume.lock(Activity::Unmounting, self.deadline) else { return Ok(()) };
        export::outcome(volume)
    }

    /// Runs a hook, if there is one. It gets this environment only: that of the plugin may contain credentials.
    fn run_hook(&self, event: &'static str, words: Option<&Vec<String>>) -> Result<()> {
        let Some(words) = words else { return Ok(()) };
        let state = self.volume.state()?;
        let image = self.options.fill.as_ref().map(|fill| fill.image.to_string()).unwrap_or_default();
        let digest = state.filled.map(|filled| filled.digest).unwrap_or_default();
        let mounts: u64 = state.mounts.values().sum();
        let path = &self.store.settings.search_path;
        let environment: Vec<(&str, OsString)> = vec![
            ("PATH", path.clone()),
            ("VOLIO_EVENT", event.into()),
            ("VOLIO_NAME", self.volume.name.as_str().into()),
            ("VOLIO_MOUNTPOINT", self.mountpoint.clone().into()),
            ("VOLIO_ID", self.id.into()),
            ("VOLIO_MOUNTS", mounts.to_string().into()),
            ("VOLIO_IMAGE", image.into()),
            ("VOLIO_DIGEST", digest.into()),
            ("VOLIO_DRIVER", self.definition.driver().name().into()),
        ];
        let hook =
            Hook { words: words.clone(), environment, timeout: self.options.timeout, search_path: path };
        hook.run().map_err(|error| error.context(format!("{event} of the volume {}", self.volume.name)))
    }
}
