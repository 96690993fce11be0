//! All volumes: created, shown and listed. Mounts are in `mount`, removal is in `removal`.

use super::definitions::{Definition, Definitions};
use super::options::VolumeOptions;
use super::protocol::{Call, ResponseBody, VolumeInfo};
use super::storage::Storage;
use super::volume::Volume;
use super::volume_name::VolumeName;
use super::{CallError, Driver, Settings, root, state::LastError, status};
use crate::error::{Error, Result};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The time that Docker waits for every call except a mount, minus a margin.
pub(super) const DOCKER_TIMEOUT: Duration = Duration::from_secs(50);

/// The plugin's volumes: their definitions, and one [`Volume`] for each name.
pub(super) struct VolumeStore {
    pub(super) settings: Settings,
    pub(super) storage: Storage,
    definitions: Mutex<Definitions>,
    volumes: Mutex<BTreeMap<VolumeName, Arc<Volume>>>,
    /// The id of the current boot. Counts of mounts belong to one boot.
    boot: String,
}

impl VolumeStore {
    pub(super) fn open(settings: Settings) -> Result<Self> {
        let storage = Storage::open(&settings.storage)?;
        let definitions = Definitions::open(storage.definitions_file(), storage.was_used())?;
        storage.mark_used()?;
        // Without a boot id, counts are valid as long as the state file.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self {
            settings,
            storage,
            definitions: Mutex::new(definitions),
            volumes: Mutex::default(),
            boot: boot.trim().to_owned(),
        })
    }

    /// Returns the current time for the state, in whole seconds.
    pub(super) fn timestamp(&self) -> String {
        let now = Timestamp::try_from((self.settings.clock)()).unwrap_or_default();
        Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
    }

    pub(super) fn log(&self, line: &str) {
        (self.settings.log)(line);
    }

    /// Logs an error, and stores it in the volume's state.
    pub(super) fn record_failure(&self, volume: &Volume, doing: &str, error: &Error) {
        self.log(&format!("{}: {doing} failed: {error}", volume.name));
        let at = self.timestamp();
        let last_error = LastError { doing: doing.to_owned(), error: error.to_string(), at };
        // If the state cannot be written, the error is in the log only.
        let _ = volume.update(|state| state.last_error = Some(last_error));
    }

    /// Answers every call except mounts, unmounts and removals.
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
                Err(Error::failed("this call is not answered here; this is a bug in volio").into())
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
        let options = VolumeOptions::parse(definition.driver(), &definition.options);
        let shown = VolumeInfo {
            name: name.to_string(),
            mountpoint: self.mountpoint(&definition, name),
            created_at: definition.created().map(str::to_owned),
            status: Some(status::status(&options, &self.volume(name))),
        };
        Ok(ResponseBody { volume: Some(shown), ..ResponseBody::default() })
    }

    fn create(
        &self,
        driver: Driver,
        name: &VolumeName,
        options: BTreeMap<String, String>,
    ) -> Result<ResponseBody, CallError> {
        let parsed = VolumeOptions::parse(driver, &options)?;
        let mut definitions = self.definitions();
        if let Some(known) = definitions.now()?.get(name.as_str()) {
            // Docker repeats a call if the response was lost.
            return if known.options == options && known.driver() == driver {
                Ok(ResponseBody::default())
            } else {
                Err(Error::refused(format!("there is a volume {name} with other options"))
                    .with_hint("remove it first; its data stays, and the new volume will hold it")
                    .into())
            };
        }
        let mountpoint = self.storage.volume_dir(name);
        root::create(&mountpoint, parsed.owner)?;
        root::set_owner(&mountpoint, parsed.owner)?;
        let created = self.timestamp();
        definitions.put(Definition::new(name, mountpoint, options, driver, created))?;
        drop(definitions);
        self.log(&format!("{name}: made"));
        // A new volume does not inherit an export or an error from an earlier volume of the same name.
        let volume = self.volume(name);
        match volume.state() {
            Ok(state) if state.export_due || state.export_withheld || state.last_error.is_some() => {
                volume.update(|state| {
                    state.export_due = false;
                    state.export_withheld = false;
                    state.last_error = None;
                })?;
            }
            // State that cannot be read is reported when the volume is mounted.
            _ => {}
        }
        Ok(ResponseBody::default())
    }

    /// Returns an error if the list of volumes cannot be read.
    pub(super) fn ensure_readable(&self) -> Result<()> {
        self.definitions().now().map(drop).map_err(CallError::into_error)
    }

    /// Returns the volumes of a driver.
    pub(super) fn volumes_of(&self, driver: Driver) -> Result<Vec<(VolumeName, Definition)>, CallError> {
        let mut definitions = self.definitions();
        // A name that volmex accepted and that no directory can have is ignored.
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

    /// Returns the definition of a volume, or an error if the volume does not exist.
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

    /// Returns the directory that a container sees. For a volmex volume it is the one in `volumes.json`.
    pub(super) fn mountpoint(&self, definition: &Definition, name: &VolumeName) -> PathBuf {
        let listed: &Path = &definition.mountpoint;
        if definition.driver() == Driver::Volmex && listed.is_absolute() {
            listed.to_owned()
        } else {
            self.storage.volume_dir(name)
        }
    }

    /// Returns the [`Volume`] of this name, always the same one.
    pub(super) fn volume(&self, name: &VolumeName) -> Arc<Volume> {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        // State that cannot be read is reported when the volume is mounted.
        let open = || Arc::new(Volume::new(name.clone(), &self.storage, &self.boot));
        Arc::clone(volumes.entry(name.clone()).or_insert_with(open))
    }

    pub(super) fn definitions(&self) -> MutexGuard<'_, Definitions> {
        self.definitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
