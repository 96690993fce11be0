//! Removal of volumes. Their data stays; a pending export is made first.

use super::export::{self, WaitFor};
use super::fingerprint::fingerprint;
use super::in_use::{self, InUse};
use super::options::{ExportOptions, VolumeOptions};
use super::protocol::ResponseBody;
use super::volume::{Activity, Volume, VolumeLock};
use super::volume_name::VolumeName;
use super::volumes::{DOCKER_TIMEOUT, VolumeStore};
use super::{CallError, Driver};
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

impl VolumeStore {
    /// Removes a volume and keeps its data. A fetch in progress is cancelled.
    pub(super) fn remove(
        self: &Arc<Self>,
        driver: Driver,
        name: &VolumeName,
    ) -> Result<ResponseBody, CallError> {
        let Some(definition) = self.definition(driver, name)? else { return Ok(ResponseBody::default()) };
        let mountpoint = self.mountpoint(&definition, name);
        let volume = self.volume(name);
        if volume.cancel_fetch() {
            self.log(&format!("{name}: the fetch is given up, since the volume is removed"));
        }
        let deadline = Instant::now() + self.settings.answer_timeout.min(DOCKER_TIMEOUT);
        let mut lock = volume.lock(Activity::Removing, deadline)?;
        if let InUse::By(process) = in_use::in_use_by(&mountpoint)? {
            return Err(Error::refused(format!("the volume {name} is in use by process {process}")).into());
        }
        // A volume with invalid options was never exported either.
        if let Ok(VolumeOptions { export: Some(to), .. }) =
            VolumeOptions::parse(definition.driver(), &definition.options)
            && self.has_to_be_exported(&volume, &mountpoint)?
        {
            lock = self.export_before_removal(&volume, to, lock, deadline)?;
        }
        self.definitions().remove(name)?;
        if volume.state().is_ok_and(|state| !state.mounts.is_empty() || state.export_due) {
            volume.update(|state| {
                state.forget_mounts();
                state.export_due = false;
            })?;
        }
        drop(lock);
        self.log(&format!("{name}: removed; its data stays in {}", mountpoint.display()));
        Ok(ResponseBody::default())
    }

    /// Returns `true` if the volume may hold something that a container has left and that was not exported.
    fn has_to_be_exported(&self, volume: &Volume, mountpoint: &Path) -> Result<bool> {
        let state = volume.state()?;
        if state.export_withheld {
            self.log(&format!("{}: not exported, since post-unmount failed", volume.name));
            return Ok(false);
        }
        let has_changed = || match &state.content {
            Some(content) => Ok(fingerprint(mountpoint)? != content.fingerprint),
            // It never was mounted to be exported.
            None => Ok(false),
        };
        Ok(state.export_due || has_changed()?)
    }

    fn export_before_removal(
        self: &Arc<Self>,
        volume: &Arc<Volume>,
        to: ExportOptions,
        lock: VolumeLock,
        deadline: Instant,
    ) -> Result<VolumeLock> {
        let name = &volume.name;
        let then = (lock, Activity::Removing);
        export::export_and_wait(self, volume, to, WaitFor::Processes, then, deadline).map_err(|error| {
            Error::refused(format!("the volume {name} holds what was not exported yet: {error}")).with_hint(
                "it is tried again by itself; to give it up, take the option export from the volume in volumes.json",
            )
        })
    }
}
