//! Volumes that are removed. Their data stays; what of it is to be exported is exported first.

use super::export::{self, WaitFor};
use super::fingerprint::fingerprint;
use super::keeper::{Keeper, SHORT_PATIENCE};
use super::mounts::{self, Seen};
use super::name::VolumeName;
use super::options::Spec;
use super::protocol::Answer;
use super::volume::{Doing, Turn, Volume};
use super::{Driver, Trouble};
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

impl Keeper {
    /// Removes a volume and leaves its data. A fetch that is under way is given up.
    pub(super) fn remove(self: &Arc<Self>, driver: Driver, name: &VolumeName) -> Result<Answer, Trouble> {
        let Some(definition) = self.definition(driver, name)? else { return Ok(Answer::default()) };
        let mountpoint = self.mountpoint(&definition, name);
        let volume = self.volume(name);
        if volume.cancel_fetch() {
            self.log(&format!("{name}: the fetch is given up, since the volume is removed"));
        }
        let deadline = Instant::now() + self.settings.patience.min(SHORT_PATIENCE);
        let mut turn = volume.turn(Doing::Removing, deadline)?;
        if let Seen::By(process) = mounts::seen(&mountpoint)? {
            return Err(Error::refused(format!("the volume {name} is in use by process {process}")).into());
        }
        // What makes no sense was never exported either.
        if let Ok(Spec { export: Some(to), .. }) = Spec::parse(definition.driver(), &definition.options)
            && self.has_to_be_exported(&volume, &mountpoint)?
        {
            turn = self.export_before_removal(&volume, to, turn, deadline)?;
        }
        self.definitions().remove(name)?;
        if volume.record().is_ok_and(|record| !record.mounts.is_empty() || record.export_due) {
            volume.change(|record| {
                record.forget_mounts();
                record.export_due = false;
            })?;
        }
        drop(turn);
        self.log(&format!("{name}: removed; its data stays in {}", mountpoint.display()));
        Ok(Answer::default())
    }

    /// Whether the volume may hold something that a container has left and that was not exported.
    fn has_to_be_exported(&self, volume: &Volume, mountpoint: &Path) -> Result<bool> {
        let record = volume.record()?;
        if record.export_withheld {
            self.log(&format!("{}: not exported, since post-unmount failed", volume.name));
            return Ok(false);
        }
        let has_changed = || match &record.content {
            Some(content) => Ok(fingerprint(mountpoint)? != content.fingerprint),
            // It never was mounted to be exported.
            None => Ok(false),
        };
        Ok(record.export_due || has_changed()?)
    }

    fn export_before_removal(
        self: &Arc<Self>,
        volume: &Arc<Volume>,
        to: crate::transport::Location,
        turn: Turn,
        deadline: Instant,
    ) -> Result<Turn> {
        let name = &volume.name;
        let then = (turn, Doing::Removing);
        export::and_wait(self, volume, to, WaitFor::Processes, then, deadline).map_err(|error| {
            Error::refused(format!("the volume {name} holds what was not exported yet: {error}")).with_hint(
                "it is tried again by itself; to give it up, take the option export from the volume in volumes.json",
            )
        })
    }
}
