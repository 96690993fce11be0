//! `volumes.json`: all volumes with their options, in volmex's format.
//!
//! volmex read the file before each request, so that manual changes took effect at once; so does this module. Its own
//! fields are under a separate key, and volmex can still read the file. The engines' copies of the options are not
//! used: Docker forgets them after one failure.

use super::volume_name::VolumeName;
use super::{CallError, Driver, storage};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The version of the fields added to volmex's format.
const VERSION: u32 = 1;

/// The definition of a volume.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Definition {
    #[serde(default, alias = "name")]
    pub(super) name: String,
    #[serde(default, alias = "mountpoint")]
    pub(super) mountpoint: PathBuf,
    #[serde(default, alias = "options", deserialize_with = "crate::oci::null_is_default")]
    pub(super) options: BTreeMap<String, String>,
    /// The fields that volmex does not know; `None` in an entry that volmex has written.
    #[serde(default)]
    volio: Option<VolioFields>,
    /// Other fields, such as volmex's `Status`.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct VolioFields {
    version: u32,
    driver: Driver,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The list of volumes, and the stamp of the file that it was read from.
pub(super) struct Definitions {
    path: PathBuf,
    all: BTreeMap<String, Definition>,
    seen: Option<FileStamp>,
}

/// Distinguishes versions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Definition {
    pub(super) fn new(
        name: &VolumeName,
        mountpoint: PathBuf,
        options: BTreeMap<String, String>,
        driver: Driver,
        created: String,
    ) -> Self {
        let own = VolioFields { version: VERSION, driver, created: Some(created), rest: Map::new() };
        // volmex wrote this field.
        let rest = Map::from_iter([("Status".to_owned(), Value::Null)]);
        Self { name: name.to_string(), mountpoint, options, volio: Some(own), rest }
    }

    /// Returns the driver that the volume was created with; entries of volmex have none.
    pub(super) fn driver(&self) -> Driver {
        self.volio.as_ref().map_or(Driver::Volmex, |own| own.driver)
    }

    pub(super) fn created(&self) -> Option<&str> {
        self.volio.as_ref()?.created.as_deref()
    }
}

impl Definitions {
    /// Reads the list, and creates an empty one if the storage was never used.
    ///
    /// # Errors
    ///
    /// [`Integrity`](crate::error::Kind::Integrity) if the file cannot be parsed, or has disappeared.
    pub(super) fn open(path: PathBuf, was_used: bool) -> Result<Self> {
        let mut definitions = Self { path, all: BTreeMap::new(), seen: None };
        match stamp_of(&definitions.path)? {
            None if was_used => return Err(definitions.gone()),
            None => definitions.write(BTreeMap::new())?,
            Some(seen) => {
                definitions.read(seen)?;
                definitions.migrate()?;
            }
        }
        Ok(definitions)
    }

    /// Returns the list, and reads the file again if it has changed.
    pub(super) fn now(&mut self) -> Result<&BTreeMap<String, Definition>, CallError> {
        match stamp_of(&self.path).map_err(CallError::HangUp)? {
            Some(seen) if self.seen == Some(seen) => {}
            Some(seen) => self.read(seen).map_err(CallError::HangUp)?,
            None => return Err(CallError::HangUp(self.gone())),
        }
        Ok(&self.all)
    }

    /// Adds or replaces a definition.
    pub(super) fn put(&mut self, definition: Definition) -> Result<(), CallError> {
        let mut all = self.now()?.clone();
        all.insert(definition.name.clone(), definition);
        Ok(self.write(all)?)
    }

    /// Removes a definition.
    pub(super) fn remove(&mut self, name: &VolumeName) -> Result<(), CallError> {
        let mut all = self.now()?.clone();
        match all.remove(name.as_str()) {
            Some(_) => Ok(self.write(all)?),
            None => Ok(()),
        }
    }

    fn read(&mut self, seen: FileStamp) -> Result<()> {
        let shown = self.path.display();
        let text = fs::read(&self.path).map_err(|error| Error::io(format!("cannot read {shown}"), error))?;
        let read: Option<BTreeMap<String, Definition>> = serde_json::from_slice(&text).map_err(|error| {
            Error::integrity(format!("{shown} cannot be understood: {error}"))
                .with_hint("repair the file; until then engines get no answer, which keeps them from forgetting their volumes")
        })?;
        let mut all = read.unwrap_or_default();
        for (name, definition) in &mut all {
            let version = definition.volio.as_ref().map_or(VERSION, |own| own.version);
            if version > VERSION {
                return Err(Error::integrity(format!(
                    "{shown}: the volume {name} was made by a later volio"
                )));
            }
            definition.name.clone_from(name);
        }
        (self.all, self.seen) = (all, Some(seen));
        Ok(())
    }

    /// Marks the entries of volmex, and removes other users' access to the file.
    fn migrate(&mut self) -> Result<()> {
        let open = fs::metadata(&self.path).is_ok_and(|found| found.mode() & 0o077 != 0);
        let mut all = self.all.clone();
        let old = all.values_mut().filter(|definition| definition.volio.is_none());
        let own = VolioFields { version: VERSION, driver: Driver::Volmex, created: None, rest: Map::new() };
        match old.map(|definition| definition.volio = Some(own.clone())).count() {
            0 if !open => Ok(()),
            _ => self.write(all),
        }
    }

    fn write(&mut self, all: BTreeMap<String, Definition>) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(&all)
            .map_err(|error| Error::failed("cannot write the list of volumes").with_source(error))?;
        text.push(b'\n');
        storage::replace_file(&self.path, &text)?;
        (self.all, self.seen) = (all, stamp_of(&self.path)?);
        Ok(())
    }

    fn gone(&self) -> Error {
        Error::integrity(format!("{} is gone", self.path.display())).with_hint(
            "mount the disk that it is on, restore it, or write {} into it if no volume is to be kept",
        )
    }
}

/// Returns the stamp of a file, or `None` if it does not exist.
fn stamp_of(path: &Path) -> Result<Option<FileStamp>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(FileStamp {
            inode: found.ino(),
            size: found.size(),
            changed: (found.ctime(), found.ctime_nsec()),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(format!("cannot look at {}", path.display()), error)),
    }
}
