//! All volumes: made, shown, listed and removed. Mounts have a file of their own.

use super::definitions::{Definition, Definitions};
use super::directory::Directory;
use super::name::VolumeName;
use super::options::Spec;
use super::protocol::{Answer, Call, Shown};
use super::volume::Volume;
use super::{Driver, Settings, Trouble, record::Failure, root, status, volume};
use crate::error::{Error, Result};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long Docker waits for anything but a mount, with a margin.
pub(super) const SHORT_PATIENCE: Duration = Duration::from_secs(50);

/// Whoever keeps the volumes.
pub(super) struct Keeper {
    pub(super) settings: Settings,
    pub(super) directory: Directory,
    definitions: Mutex<Definitions>,
    volumes: Mutex<BTreeMap<VolumeName, Arc<Volume>>>,
    /// The boot of this machine, to which counts of mounts belong.
    boot: String,
}

impl Keeper {
    pub(super) fn open(settings: Settings) -> Result<Self> {
        let directory = Directory::open(&settings.storage)?;
        let definitions = Definitions::open(directory.definitions(), directory.was_used())?;
        directory.mark_used()?;
        // Where the kernel does not tell, counts live as long as their file.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self {
            settings,
            directory,
            definitions: Mutex::new(definitions),
            volumes: Mutex::default(),
            boot: boot.trim().to_owned(),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::try_from((self.settings.clock)()).unwrap_or_default()
    }

    pub(super) fn log(&self, line: &str) {
        (self.settings.journal)(line);
    }

    /// Tells the journal and the volume's record what went wrong.
    pub(super) fn failed(&self, volume: &Volume, doing: &str, error: &Error) {
        self.log(&format!("{}: {doing} failed: {error}", volume.name));
        let at = volume::shown(self.now());
        let failure = Failure { doing: doing.to_owned(), error: error.to_string(), at };
        // Where the record cannot be written, the journal has it.
        let _ = volume.change(|record| record.last_error = Some(failure));
    }

    /// Does what was asked, except for mounts and removals.
    pub(super) fn answer(&self, driver: Driver, call: Call) -> Result<Answer, Trouble> {
        match call {
            Call::Activate => Ok(Answer::activated()),
            Call::Capabilities => Ok(Answer::capabilities()),
            Call::List => self.list(driver),
            Call::Create { name, options } => self.create(driver, &name, options),
            Call::Get(name) => self.get(driver, &name),
            Call::Path(name) => Ok(Answer::mounted(self.mountpoint(&self.wanted(driver, &name)?, &name))),
            Call::Mount { .. } | Call::Unmount { .. } | Call::Remove(_) => {
                Err(Error::failed("mounts and removals are seen to elsewhere").into())
            }
        }
    }

    fn list(&self, driver: Driver) -> Result<Answer, Trouble> {
        let volumes = self.of(driver)?.into_iter().map(|(name, definition)| Shown {
            mountpoint: self.mountpoint(&definition, &name),
            name: name.to_string(),
            created_at: definition.created().map(str::to_owned),
            status: None,
        });
        Ok(Answer { volumes: Some(volumes.collect()), ..Answer::default() })
    }

    fn get(&self, driver: Driver, name: &VolumeName) -> Result<Answer, Trouble> {
        let definition =
            self.definition(driver, name)?.ok_or_else(|| Error::not_found("volume not found"))?;
        let spec = Spec::parse(definition.driver(), &definition.options);
        let shown = Shown {
            name: name.to_string(),
            mountpoint: self.mountpoint(&definition, name),
            created_at: definition.created().map(str::to_owned),
            status: Some(status::status(&spec, &self.volume(name))),
        };
        Ok(Answer { volume: Some(shown), ..Answer::default() })
    }

    fn create(
        &self,
        driver: Driver,
        name: &VolumeName,
        options: BTreeMap<String, String>,
    ) -> Result<Answer, Trouble> {
        let spec = Spec::parse(driver, &options)?;
        let mut definitions = self.definitions();
        if let Some(known) = definitions.now()?.get(name.as_str()) {
            // Docker asks again when an answer got lost.
            return match known.options == options && known.driver() == driver {
                true => Ok(Answer::default()),
                false => Err(Error::refused(format!("there is a volume {name} with other options"))
                    .with_hint("remove it first; its data stays, and the new volume will hold it")
                    .into()),
            };
        }
        let mountpoint = self.directory.volume(name);
        root::make(&mountpoint, spec.owner)?;
        root::claim(&mountpoint, spec.owner)?;
        let created = volume::shown(self.now());
        definitions.put(Definition::new(name, mountpoint, options, driver, created))?;
        drop(definitions);
        self.log(&format!("{name}: made"));
        // What an earlier volume of this name has left undone is not this one's to do.
        let volume = self.volume(name);
        match volume.record() {
            Ok(record) if record.export_due || record.export_withheld || record.last_error.is_some() => {
                volume.change(|record| {
                    record.export_due = false;
                    record.export_withheld = false;
                    record.last_error = None;
                })?;
            }
            // A record that cannot be read is told when the volume is mounted.
            _ => {}
        }
        Ok(Answer::default())
    }

    /// Insists that it is known which volumes there are.
    pub(super) fn is_readable(&self) -> Result<()> {
        match self.definitions().now() {
            Ok(_) => Ok(()),
            Err(Trouble::Say(error) | Trouble::HangUp(error)) => Err(error),
        }
    }

    /// The volumes of a driver.
    pub(super) fn of(&self, driver: Driver) -> Result<Vec<(VolumeName, Definition)>, Trouble> {
        let mut definitions = self.definitions();
        // A name that volmex took and that is no directory's is left alone.
        let named =
            definitions.now()?.iter().filter_map(|(name, definition)| Some((name.parse().ok()?, definition)));
        Ok(named
            .filter(|(_, definition)| self.serves(driver, definition))
            .map(|(name, definition)| (name, definition.clone()))
            .collect())
    }

    pub(super) fn definition(
        &self,
        driver: Driver,
        name: &VolumeName,
    ) -> Result<Option<Definition>, Trouble> {
        let mut definitions = self.definitions();
        let found = definitions.now()?.get(name.as_str());
        Ok(found.filter(|definition| self.serves(driver, definition)).cloned())
    }

    /// The same of a volume that must be there.
    pub(super) fn wanted(&self, driver: Driver, name: &VolumeName) -> Result<Definition, Trouble> {
        Ok(self.definition(driver, name)?.ok_or_else(|| Error::not_found("volume unknown"))?)
    }

    fn serves(&self, driver: Driver, definition: &Definition) -> bool {
        let own = definition.driver();
        own == driver || (driver == Driver::Volio && !self.settings.drivers.contains(&own))
    }

    /// Where a container's files are: volmex took whatever its list said.
    pub(super) fn mountpoint(&self, definition: &Definition, name: &VolumeName) -> PathBuf {
        let listed: &Path = &definition.mountpoint;
        match definition.driver() == Driver::Volmex && listed.is_absolute() {
            true => listed.to_owned(),
            false => self.directory.volume(name),
        }
    }

    /// The volume of this name, always the same one.
    pub(super) fn volume(&self, name: &VolumeName) -> Arc<Volume> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        // A record that cannot be read is told when the volume is mounted.
        let open = || Arc::new(Volume::new(name.clone(), &self.directory, &self.boot));
        Arc::clone(volumes.entry(name.clone()).or_insert_with(open))
    }

    pub(super) fn definitions(&self) -> MutexGuard<'_, Definitions> {
        self.definitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
