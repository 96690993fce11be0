//! Mounts and unmounts: what comes before a container gets a volume, and after it has let go.

use super::definitions::Definition;
use super::hooks::Hook;
use super::keeper::{Keeper, SHORT_PATIENCE};
use super::name::VolumeName;
use super::options::{Pull, Spec};
use super::volume::{Doing, Turn, Volume};
use super::{Driver, Trouble, export, fill};
use crate::error::{Error, Result};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long podman waits for an unmount, unless it is told otherwise, with a margin.
const PODMANS_PATIENCE: Duration = Duration::from_secs(4);

/// What a failure of a hook was a failure of.
const MOUNTING: &str = "mounting it";
const UNMOUNTING: &str = "unmounting it";

/// A mount or an unmount of a volume.
struct Mounting<'a> {
    keeper: &'a Arc<Keeper>,
    volume: Arc<Volume>,
    definition: Definition,
    spec: Spec,
    mountpoint: PathBuf,
    id: &'a str,
    deadline: Instant,
}

impl Keeper {
    /// Prepares a volume for a container, counts the mount, and says where it is.
    pub(super) fn mount(
        self: &Arc<Self>,
        driver: Driver,
        name: &VolumeName,
        id: &str,
    ) -> Result<PathBuf, Trouble> {
        let definition = self.wanted(driver, name)?;
        let mounting = Mounting::new(self, definition, name, id, self.settings.patience)?;
        match mounting.mount() {
            Ok(()) => Ok(mounting.mountpoint),
            Err(error) => {
                self.log(&format!("{name}: mounting it failed: {error}"));
                Err(error.into())
            }
        }
    }

    /// Notes that a container has let go, and sees to what comes after that. Docker only logs an error, so work that
    /// takes longer than it waits simply goes on.
    pub(super) fn unmount(
        self: &Arc<Self>,
        driver: Driver,
        name: &VolumeName,
        id: &str,
        is_podman: bool,
    ) -> Result<(), Trouble> {
        let Some(definition) = self.definition(driver, name)? else { return Ok(()) };
        let patience = if is_podman { PODMANS_PATIENCE } else { SHORT_PATIENCE };
        let mounting = Mounting::new(self, definition, name, id, patience.min(self.settings.patience))?;
        Ok(mounting.unmount()?)
    }

    /// Takes back a mount whose answer did not arrive. What was fetched for it is there for the next one.
    pub(super) fn undo_mount(self: &Arc<Self>, driver: Driver, name: &VolumeName, id: &str) {
        self.log(&format!("{name}: whoever wanted it hung up; it is not counted as mounted"));
        self.volume(name).keep_fetch();
        if let Err(Trouble::Say(error) | Trouble::HangUp(error)) = self.unmount(driver, name, id, false) {
            self.log(&format!("{name}: {error}"));
        }
    }

    /// Exports what is due and free: what nobody said to let go, and what failed before.
    pub(super) fn export_what_is_due(self: &Arc<Self>) {
        // Where the list cannot be read, whoever asks next is told.
        for (name, definition) in self.of(Driver::Volio).unwrap_or_default() {
            let Ok(Spec { export: Some(to), .. }) = Spec::parse(definition.driver(), &definition.options)
            else {
                continue;
            };
            let volume = self.volume(&name);
            let is_due = volume.record().is_ok_and(|record| record.export_due);
            if is_due
                && !volume.is_busy()
                && volume.may_export()
                && export::is_free(self, &volume).unwrap_or(false)
            {
                // Somebody else was quicker, or there are no threads left: it stays due.
                let _ = volume
                    .turn(Doing::Unmounting, Instant::now())
                    .and_then(|turn| export::in_background(self, &volume, to, turn));
            }
        }
    }

    /// Waits until no export is going on.
    pub(super) fn wait_for_exports(&self) {
        for (name, _) in self.of(Driver::Volio).unwrap_or_default() {
            let volume = self.volume(&name);
            if volume.is_exporting() {
                let _ = volume.turn(Doing::Unmounting, Instant::now() + Duration::from_secs(24 * 60 * 60));
            }
        }
    }
}

impl<'a> Mounting<'a> {
    fn new(
        keeper: &'a Arc<Keeper>,
        definition: Definition,
        name: &VolumeName,
        id: &'a str,
        patience: Duration,
    ) -> Result<Self> {
        Ok(Self {
            spec: Spec::parse(definition.driver(), &definition.options)?,
            mountpoint: keeper.mountpoint(&definition, name),
            definition,
            volume: keeper.volume(name),
            keeper,
            id,
            deadline: Instant::now() + patience,
        })
    }

    fn mount(&self) -> Result<()> {
        let turn = self.filled()?;
        fill::make(&self.mountpoint, self.spec.owner)?;
        if !self.mountpoint.is_dir() {
            return Err(Error::refused(format!("{} is not a directory", self.mountpoint.display())));
        }
        if let Err(error) = self.before() {
            self.keeper.failed(&self.volume, MOUNTING, &error);
            return Err(error);
        }
        let now = self.keeper.now();
        self.volume.change(|record| {
            record.count(self.id, now);
            record.export_due |= self.spec.export.is_some();
            record.mend(MOUNTING);
        })?;
        self.volume.use_fetch();
        drop(turn);
        Ok(())
    }

    /// Takes the turn, and has the volume filled where that is wanted.
    fn filled(&self) -> Result<Turn> {
        let mut before = self.volume.fetches();
        loop {
            let turn = self.volume.turn(Doing::Mounting, self.deadline)?;
            // Another mount has had it fetched meanwhile; what it got, this one gets.
            self.volume.fetch_since(before)?;
            let Some(fill) = &self.spec.fill else { return Ok(turn) };
            let record = self.volume.record()?;
            // What somebody has is not replaced. What was never filled must not be given to anybody.
            let is_free =
                || fill.pull == Pull::Missing || export::is_free(self.keeper, &self.volume).unwrap_or(false);
            if !fill::is_wanted(fill, &record, self.volume.fetch_is_fresh()) || !is_free() {
                return Ok(turn);
            }
            before = self.volume.fetches();
            fill::in_background(self.keeper, &self.volume, fill.clone(), self.spec.owner, turn)?;
            self.volume.wait_for_fetch(before, self.deadline)?;
            before = self.volume.fetches();
        }
    }

    /// Runs what is to be run before the mount.
    fn before(&self) -> Result<()> {
        let path = &self.keeper.settings.search_path;
        if let Some(command) = &self.spec.command {
            let hook = Hook::volmex(command, &self.volume.name, &self.mountpoint, self.spec.timeout, path);
            hook.run().map_err(|error| named("error from volmex command", &error))?;
        }
        self.hook("pre-mount", self.spec.pre_mount.as_ref())
    }

    fn unmount(&self) -> Result<()> {
        let name = &self.volume.name;
        let _leaving = self.volume.leave();
        let was_mounted = self.volume.change(|record| record.discount(self.id))?;
        if self.spec.post_unmount.is_some() {
            let turn = self.volume.turn(Doing::Unmounting, self.deadline);
            // Docker only logs it, and the hook does not run any more.
            let turn = turn.inspect_err(|error| self.keeper.failed(&self.volume, UNMOUNTING, error))?;
            if let Err(error) = self.hook("post-unmount", self.spec.post_unmount.as_ref()) {
                self.keeper.failed(&self.volume, UNMOUNTING, &error);
                if self.spec.export.is_some() {
                    // The hook may have been to make the data fit for an export.
                    self.keeper.log(&format!("{name}: not exported, since post-unmount failed"));
                    self.volume.change(|record| record.export_due = false)?;
                }
                return Err(error);
            }
            self.volume.change(|record| {
                record.mend(UNMOUNTING);
                // The hook of another container may have failed before, and have kept all from being exported.
                record.export_due |= was_mounted && self.spec.export.is_some();
            })?;
            drop(turn);
        }
        match &self.spec.export {
            Some(to) if self.volume.record()?.export_due => self.export(to),
            _ => Ok(()),
        }
    }

    /// Exports the volume if this was the last container, and waits for that as long as the engine does.
    fn export(&self, to: &crate::transport::Location) -> Result<()> {
        let Ok(turn) = self.volume.turn(Doing::Unmounting, self.deadline) else { return Ok(()) };
        if !export::is_free(self.keeper, &self.volume)? {
            return Ok(());
        }
        export::in_background(self.keeper, &self.volume, to.clone(), turn)?;
        // Whoever gets the turn comes after the export; who does not need not wait for it.
        let Ok(_turn) = self.volume.turn(Doing::Unmounting, self.deadline) else { return Ok(()) };
        let record = self.volume.record()?;
        match record.last_error.filter(|_| record.export_due) {
            Some(failure) => Err(Error::failed(format!("{} failed: {}", failure.doing, failure.error))),
            None => Ok(()),
        }
    }

    /// Runs a hook, where there is one. Its environment is what is said here, and nothing of the plugin's, which may
    /// hold credentials.
    fn hook(&self, event: &'static str, words: Option<&Vec<String>>) -> Result<()> {
        let Some(words) = words else { return Ok(()) };
        let record = self.volume.record()?;
        let image = self.spec.fill.as_ref().map(|fill| fill.image.to_string()).unwrap_or_default();
        let digest = record.filled.map(|filled| filled.digest).unwrap_or_default();
        let mounts: u64 = record.mounts.values().sum();
        let path = &self.keeper.settings.search_path;
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
        let hook = Hook { words: words.clone(), environment, timeout: self.spec.timeout, search_path: path };
        hook.run().map_err(|error| named(&format!("{event} of the volume {}", self.volume.name), &error))
    }
}

/// The same error, saying of what.
fn named(what: &str, error: &Error) -> Error {
    let same = Error::new(error.kind(), format!("{what}: {error}"));
    match error.advice() {
        Some(hint) => same.hint(hint),
        None => same,
    }
}
