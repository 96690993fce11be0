//! All volumes: made, shown, listed and removed. Mounts have a file of their own.

use super::definitions::{Definition, Definitions};
use super::options::VolumeOptions;
use super::protocol::{Call, ResponseBody, VolumeInfo};
use super::storage::Storage;
use super::volume::Volume;
use super::volume_name::VolumeName;
use super::{CallError, Driver, Settings, root, state::LastError, status, volume};
use crate::error::{Error, Result};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long Docker waits for anything but a mount, with a margin.
pub(super) const DOCKER_TIMEOUT: Duration = Duration::from_secs(50);

/// Whoever keeps the volumes.
pub(super) struct VolumeStore {
    pub(super) settings: Settings,
    pub(super) storage: Storage,
    definitions: Mutex<Definitions>,
    volumes: Mutex<BTreeMap<VolumeName, Arc<Volume>>>,
    /// The boot of this machine, to which counts of mounts belong.
    boot: String,
}

impl VolumeStore {
    pub(super) fn open(settings: Settings) -> Result<Self> {
        let storage = Storage::open(&settings.storage)?;
        let definitions = Definitions::open(storage.definitions_file(), storage.was_used())?;
        storage.mark_used()?;
        // Where the kernel does not tell, counts live as long as their file.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self {
            settings,
            storage,
            definitions: Mutex::new(definitions),
            volumes: Mutex::default(),
            boot: boot.trim().to_owned(),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::try_from((self.settings.clock)()).unwrap_or_default()
    }

    pub(super) fn log(&self, line: &str) {
        (self.settings.log)(line);
    }

    /// Tells the journal and the volume's record what went wrong.
    pub(super) fn record_failure(&self, volume: &Volume, doing: &str, error: &Error) {
        self.log(&format!("{}: {doing} failed: {error}", volume.name));
        let at = volume::shown(self.now());
        let last_error = LastError { doing: doing.to_owned(), error: error.to_string(), at };
        // Where the record cannot be written, the journal has it.
        let _ = volume.update(|state| state.last_error = Some(last_error));
    }

    /// Does what was asked, except for mounts and removals.
    pub(super) fn handle(&self, driver: Driver, call: Call) -> Result<ResponseBody, CallError> {
        match call {
            Call::Activate => Ok(ResponseBody::activated()),
            Call::Capabilities => Ok(ResponseBody::capabilities()),
            Call::List => self.list(driver),
            Call::Create { name, options } => self.create(driver, &name, options),
            Call::Get(name) => self.get(driver, &name),
            Call::Path(name) => {
                Ok(ResponseBody::mounted(self.mountpoint(&self.required_definition(driver, &name)?, &name)))
            }
            Call::Mount { .. } | Call::Unmount { .. } | Call::Remove(_) => {
                Err(Error::failed("mounts and removals are seen to elsewhere").into())
            }
        }
    }

    fn list(&self, driver: Driver) -> Result<ResponseBody, CallError> {
        let volumes = self.volumes_of(driver)?.into_iter().map(|(name, definition)| VolumeInfo {
            mountpoint: self.mountpoint(&definition, &name),
            name: name.to_string(),
            created_at: definition.created().map(str::to_owned),
            status: None,
        });
        Ok(ResponseBody { volumes: Some(volumes.collect()), ..ResponseBody::default() })
    }

    fn get(&self, driver: Driver, name: &VolumeName) -> Result<ResponseBody, CallError> {
        let definition =
            self.definition(driver, name)?.ok_or_else(|| Error::not_found("volume not found"))?;
        let spec = VolumeOptions::parse(definition.driver(), &definition.options);
        let shown = VolumeInfo {
            name: name.to_string(),
            mountpoint: self.mountpoint(&definition, name),
            created_at: definition.created().map(str::to_owned),
            status: Some(status::status(&spec, &self.volume(name))),
        };
        Ok(ResponseBody { volume: Some(shown), ..ResponseBody::default() })
    }

    fn create(
        &self,
        driver: Driver,
        name: &VolumeName,
        options: BTreeMap<String, String>,
    ) -> Result<ResponseBody, CallError> {
        let spec = VolumeOptions::parse(driver, &options)?;
        let mut definitions = self.definitions();
        if let Some(known) = definitions.now()?.get(name.as_str()) {
            // Docker asks again when an answer got lost.
            return match known.options == options && known.driver() == driver {
                true => Ok(ResponseBody::default()),
                false => Err(Error::refused(format!("there is a volume {name} with other options"))
                    .with_hint("remove it first; its data stays, and the new volume will hold it")
                    .into()),
            };
        }
        let mountpoint = self.storage.volume_dir(name);
        root::create(&mountpoint, spec.owner)?;
        root::set_owner(&mountpoint, spec.owner)?;
        let created = volume::shown(self.now());
        definitions.put(Definition::new(name, mountpoint, options, driver, created))?;
        drop(definitions);
        self.log(&format!("{name}: made"));
        // What an earlier volume of this name has left undone is not this one's to do.
        let volume = self.volume(name);
        match volume.state() {
            Ok(state) if state.export_due || state.export_withheld || state.last_error.is_some() => {
                volume.update(|state| {
                    state.export_due = false;
                    state.export_withheld = false;
                    state.last_error = None;
                })?;
            }
            // A record that cannot be read is told when the volume is mounted.
            _ => {}
        }
        Ok(ResponseBody::default())
    }

    /// Insists that it is known which volumes there are.
    pub(super) fn ensure_readable(&self) -> Result<()> {
        match self.definitions().now() {
            Ok(_) => Ok(()),
            Err(CallError::Report(error) | CallError::HangUp(error)) => Err(error),
        }
    }

    /// The volumes of a driver.
    pub(super) fn volumes_of(&self, driver: Driver) -> Result<Vec<(VolumeName, Definition)>, CallError> {
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
    ) -> Result<Option<Definition>, CallError> {
        let mut definitions = self.definitions();
        let found = definitions.now()?.get(name.as_str());
        Ok(found.filter(|definition| self.serves(driver, definition)).cloned())
    }

    /// The same of a volume that must be there.
    pub(super) fn required_definition(
        &self,
        driver: Driver,
        name: &VolumeName,
    ) -> Result<Definition, CallError> {
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
            false => self.storage.volume_dir(name),
        }
    }

    /// The volume of this name, always the same one.
    pub(super) fn volume(&self, name: &VolumeName) -> Arc<Volume> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        // A record that cannot be read is told when the volume is mounted.
        let open = || Arc::new(Volume::new(name.clone(), &self.storage, &self.boot));
        Arc::clone(volumes.entry(name.clone()).or_insert_with(open))
    }

    pub(super) fn definitions(&self) -> MutexGuard<'_, Definitions> {
        self.definitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
