//! What is known of one volume: what is in it, who has it, and what is still to be done.

use super::directory;
use super::protocol::MountId;
use crate::error::{Error, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

const VERSION: u32 = 1;

/// How long after a mount a count is believed although no process sees the volume: a container that starts is given its
/// volumes some time before it has them. Afterwards the engine has died without letting go.
const FAITH: Duration = Duration::from_secs(60);

/// What is known of a volume. It outlives the volume, as the data does.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    version: u32,
    /// The boot of the machine that the mounts belong to.
    boot: String,
    /// How often each id has mounted it.
    pub(super) mounts: BTreeMap<MountId, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_mount: Option<String>,
    /// The image whose content it got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) filled: Option<Moment>,
    /// The image whose content it gets now, and the inode of the directory with that content: if the volume has that
    /// inode, the two were swapped before a crash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) filling: Option<(Moment, u64)>,
    /// Whether a container may have changed it since it was exported.
    pub(super) export_due: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exported: Option<Moment>,
    /// How it looked when it was filled or exported last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_error: Option<Failure>,
}

/// An image at a time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Moment {
    pub(super) image: String,
    pub(super) digest: String,
    pub(super) at: String,
    /// The part of the image that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subpath: Option<String>,
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Failure {
    pub(super) doing: String,
    pub(super) error: String,
    pub(super) at: String,
}

/// A record and its file.
pub(super) struct Kept {
    path: PathBuf,
    record: Record,
}

impl Kept {
    /// Reads the record, where there is one. Mounts of an earlier boot are forgotten: nobody has them any more.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when it cannot be understood.
    pub(super) fn open(path: PathBuf, boot: &str) -> Result<Self> {
        let shown = path.display();
        let mut record = match fs::read(&path) {
            Ok(text) => serde_json::from_slice::<Record>(&text).map_err(|error| {
                Error::integrity(format!("{shown} cannot be understood: {error}"))
                    .hint("mend the file, or remove it: then it is not known what the volume holds")
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) => return Err(Error::io(format!("cannot read {shown}"), error)),
        };
        if record.version > VERSION {
            return Err(Error::integrity(format!("{shown} was written by a later volio")));
        }
        if record.boot != boot {
            record.mounts.clear();
            boot.clone_into(&mut record.boot);
        }
        record.version = VERSION;
        Ok(Self { path, record })
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Changes the record, on the disk first.
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut Record) -> T) -> Result<T> {
        let mut record = self.record.clone();
        let outcome = change(&mut record);
        let trouble = |error: io::Error| Error::io(format!("cannot write {}", self.path.display()), error);
        let mut text = serde_json::to_vec_pretty(&record).map_err(|error| trouble(error.into()))?;
        text.push(b'\n');
        directory::make_private(self.path.parent().unwrap_or(Path::new("/"))).map_err(trouble)?;
        directory::replace(&self.path, &text)?;
        self.record = record;
        Ok(outcome)
    }
}

impl Record {
    /// One more mount by this id.
    pub(super) fn count(&mut self, id: &str, now: Timestamp) {
        *self.mounts.entry(id.to_owned()).or_default() += 1;
        self.last_mount = Some(now.to_string());
    }

    /// One mount less; whether there was one. An id that never mounted it is none.
    pub(super) fn discount(&mut self, id: &str) -> bool {
        match self.mounts.get_mut(id) {
            Some(count) if *count > 1 => {
                *count -= 1;
                true
            }
            _ => self.mounts.remove(id).is_some(),
        }
    }

    /// What went wrong last does no more.
    pub(super) fn mend(&mut self, doing: &str) {
        self.last_error.take_if(|failure| failure.doing == doing);
    }

    /// Whether an engine may be about to give the volume to a container, although none sees it.
    pub(super) fn is_promised(&self, now: Timestamp) -> bool {
        let Some(Ok(last)) = self.last_mount.as_ref().map(|time| time.parse::<Timestamp>()) else {
            return !self.mounts.is_empty();
        };
        let age = now.duration_since(last);
        // A clock that was set back proves nothing.
        !self.mounts.is_empty() && age.as_secs() < FAITH.as_secs() as i64
    }
}
