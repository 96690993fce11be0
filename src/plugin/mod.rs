//! The Docker volume plugin, protocol version 1. A volume is filled from an image before its first container starts,
//! and exported to an image after its last container has ended. Volumes of volmex run a command before each mount.
//!
//! `server` accepts connections, `connection` reads requests, `protocol` parses them. `volumes` holds all volumes
//! ([`VolumeStore`]); `mount`, `fill`, `export` and `removal` are the operations on one [`volume`].
//!
//! State is stored in two files of the storage directory (`storage`): `volumes.json` has the options of each volume
//! (`definitions`), `.volio/NAME/record.json` has its mounts, content and pending export (`state`).
//!
//! An engine waits two minutes for a mount, repeats requests, loses its counts when it is killed, and forgets a volume
//! for ever after one response that the volume does not exist. So the plugin does not rely on engines: operations
//! continue if the engine hangs up, mounts are counted for each id, nothing is replaced or packed while a process sees
//! the volume, and if the state cannot be read the connection is dropped without a response, which is the only failure
//! after which an engine tries again.

mod connection;
mod definitions;
mod engine;
mod export;
mod fill;
mod fingerprint;
mod hooks;
mod in_use;
mod min_speed;
mod mount;
mod options;
mod progress;
mod protocol;
mod removal;
mod root;
mod server;
mod socket;
mod state;
mod status;
mod storage;
mod trash;
mod usage;
mod volume;
mod volume_name;
mod volumes;

pub use min_speed::MinSpeed;
pub use server::serve;
pub use socket::Socket;

use crate::error::{Error, Result};
use crate::transport::Access;
use crate::trust::SignaturePolicy;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use volumes::VolumeStore;

/// The settings of the plugin.
pub struct Settings {
    /// The directory with the volumes and their state. It must exist: a missing one may be on a disk that is not
    /// mounted yet.
    pub storage: PathBuf,
    /// The drivers that are served. Volumes of other drivers belong to [`Driver::Volio`].
    pub drivers: Vec<Driver>,
    /// The time that an engine waits for a response, minus a margin. After that time the response is an error with the
    /// reason, and the work continues.
    pub answer_timeout: Duration,
    /// The interval at which pending exports are checked.
    pub check_interval: Duration,
    /// The time for which a mount counts although no process sees the volume and its engine has ended. An engine mounts
    /// volumes some time before it starts the container.
    pub mount_grace: Duration,
    /// The minimum speed of a fetch; a slower one is cancelled.
    pub min_speed: MinSpeed,
    /// Returns the access to registries; called for each fetch and each export, because users log in later.
    pub access: Box<dyn Fn() -> Result<Access> + Send + Sync>,
    /// The signatures that every image must have from which a volume is filled.
    pub signatures: Option<Arc<SignaturePolicy>>,
    /// Receives the lines of the log.
    pub log: Box<dyn Fn(&str) + Send + Sync>,
    /// Returns the current time.
    pub clock: fn() -> SystemTime,
    /// The search path for the programs of hooks.
    pub search_path: OsString,
}

/// A driver: the name under which an engine knows the plugin. Each volume belongs to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// Volumes with images, exports and hooks.
    #[default]
    Volio,
    /// Volumes as volmex had them.
    Volmex,
}

impl Driver {
    /// Returns the name of the driver, which is also that of its socket.
    pub fn name(self) -> &'static str {
        match self {
            Self::Volio => "volio",
            Self::Volmex => "volmex",
        }
    }
}

/// A plugin with its storage open, ready to be served.
pub struct Plugin(Arc<VolumeStore>);

impl Plugin {
    /// Opens the storage, which one plugin at a time can use.
    ///
    /// # Errors
    ///
    /// [`NotFound`](crate::error::Kind::NotFound) if there is no storage, [`Refused`](crate::error::Kind::Refused) if
    /// another plugin uses it, [`Integrity`](crate::error::Kind::Integrity) if its state cannot be parsed.
    pub fn open(settings: Settings) -> Result<Self> {
        VolumeStore::open(settings).map(|store| Self(Arc::new(store)))
    }
}

/// The failure of a call, and how the engine learns of it.
#[derive(Debug)]
enum CallError {
    /// An error response.
    Report(Error),
    /// No response: the connection is dropped. An engine forgets a volume after a response that it does not exist.
    HangUp(Error),
}

impl CallError {
    fn into_error(self) -> Error {
        let (Self::Report(error) | Self::HangUp(error)) = self;
        error
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Report(error)
    }
}
