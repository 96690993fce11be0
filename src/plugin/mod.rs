//! The Docker volume plugin, version 1: volumes that are filled from an image before a container gets them, and packed
//! into one when the last container lets go; and volmex's volumes, which run a command before each mount.
//!
//! An engine waits two minutes for a mount, asks twice for the same, loses count when it is killed, and forgets a volume
//! for ever after one wrong answer. So nothing here trusts it: work goes on when it hangs up, counts are kept for each of
//! its ids, nothing is replaced or packed while any process still sees the volume, and where the state of the volumes
//! cannot be read the connection is dropped without an answer, which is the only thing that an engine forgives.

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
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use volumes::VolumeStore;

/// What the plugin is told by the program around it.
pub struct Settings {
    /// The directory with the volumes and their state. It must be there: one that is missing may be a disk that is not
    /// mounted yet.
    pub storage: PathBuf,
    /// The drivers that are served. Volumes of one that is not belong to [`Driver::Volio`].
    pub drivers: Vec<Driver>,
    /// How long an engine waits for an answer, with a margin: whoever would wait longer gets an error that says why, and
    /// the work goes on.
    pub answer_timeout: Duration,
    /// How often it is looked after what waits for the last container to let go.
    pub check_interval: Duration,
    /// How long a mount is believed although no process sees the volume and its engine has ended: a container that starts
    /// is given its volumes some time before it has them.
    pub mount_grace: Duration,
    /// The least that a fetch has to bring; one that falls behind is given up.
    pub min_speed: MinSpeed,
    /// How registries are reached; asked anew for each fetch and each export, since people log in later.
    pub access: Box<dyn Fn() -> Result<Access> + Send + Sync>,
    /// Who is told what happens, line by line.
    pub log: Box<dyn Fn(&str) + Send + Sync>,
    /// What time it is.
    pub clock: fn() -> SystemTime,
    /// Where programs of hooks are looked for.
    pub search_path: OsString,
}

/// The name under which an engine knows the plugin; a volume belongs to one of them.
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
    /// What an engine calls it, and its socket.
    pub fn name(self) -> &'static str {
        match self {
            Self::Volio => "volio",
            Self::Volmex => "volmex",
        }
    }
}

/// The volumes, open for service.
pub struct Plugin(Arc<VolumeStore>);

impl Plugin {
    /// Opens the storage, which belongs to one plugin at a time.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) when there is no storage, [`Refused`](crate::error::Kind::Refused) when
    /// another plugin uses it, [`Integrity`](crate::error::Kind::Integrity) when the state in it cannot be understood.
    pub fn open(settings: Settings) -> Result<Self> {
        VolumeStore::open(settings).map(|store| Self(Arc::new(store)))
    }
}

/// What to tell an engine instead of an answer.
#[derive(Debug)]
enum CallError {
    /// An error, which its user reads.
    Report(Error),
    /// Nothing: the connection is dropped. An engine forgets a volume after an answer that it is not there.
    HangUp(Error),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Report(error)
    }
}
