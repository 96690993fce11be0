//! The state of a job on disk: a lock, and a note about the last run.
//!
//! The note says that a run has begun, before its first hook runs. If it still says so at the next start, that run was
//! killed, and the command of `--after` is due. The note has no commands: it is the present ones that run.

use super::clock::{Clock, unix_seconds};
use super::log::Log;
use crate::disk::atomic_file::replace;
use crate::disk::lock::LockFile;
use crate::error::{Error, Kind, Result};
use crate::oci::Digest;
use crate::stream::CancelToken;
use rustix::fs::{Mode, OFlags, open, statfs};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The time for which another process with the same job is waited for, such as one that is about to end.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// The time between two tries to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(500);
/// The maximum size of a note in bytes.
const MAX_NOTE: u64 = 64 << 10;
/// The type of an overlay file system (statfs(2)), which engines give to containers.
const OVERLAYFS: u64 = 0x794c_7630;

/// The state of one job, which no other process has at the same time.
#[derive(Debug)]
pub struct JobState {
    file: PathBuf,
    note: Note,
    _lock: LockFile,
}

/// The size of a tree that was packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeSize {
    /// The number of entries that are not directories.
    pub files: u64,
    /// The size of its files together, in bytes.
    pub bytes: u64,
}

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// It was successful.
    Succeeded {
        /// The time at which it began.
        begun: SystemTime,
        /// The size of the tree, if it is to be compared with that of the next run.
        size: Option<TreeSize>,
    },
    /// It has failed.
    Failed,
    /// It was killed or interrupted. What it has sent may be of use for the next one.
    Interrupted,
}

/// A note in its directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Note {
    /// The job, for people.
    job: String,
    /// The time at which the run began that has not ended, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    running_since: Option<u64>,
    /// The time at which the last successful run began, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success: Option<u64>,
    /// The size of the tree that it has packed.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_size: Option<TreeSize>,
    /// Set when a run begins, until one has ended by itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_interrupted: bool,
}

impl JobState {
    /// Opens the state of a job in this directory, which is created if it is missing. `job` says what the job is about,
    /// such as `pack registry.example/data:v1`; jobs with the same text exclude each other. Another process with the same
    /// job is waited for, for up to a minute.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) if the other process does not end, or the directory belongs to another user;
    /// those of the file system; cancellation.
    pub fn open(
        directory: &Path,
        job: &str,
        clock: &dyn Clock,
        log: &dyn Log,
        cancel: &CancelToken,
    ) -> Result<Self> {
        let directory = directory.join("jobs");
        let cannot = |error: std::io::Error| {
            Error::io(format!("cannot keep the state of the job in {}", directory.display()), error)
                .with_hint("--state names another directory")
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(cannot)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = open(&directory, flags, Mode::empty()).map_err(|error| cannot(error.into()))?;
        let found = directory.metadata().map_err(cannot)?;
        if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
            return Err(Error::refused(format!(
                "other users can change the state of the job in {}",
                directory.display()
            ))
            .with_hint("--state names a directory of this user"));
        }
        let key = Digest::of(job.as_bytes());
        let key = &key.hex()[..32];
        let lock = lock(opened.as_fd(), &directory.join(format!("{key}.lock")), job, clock, log, cancel)?;
        let file = directory.join(format!("{key}.json"));
        let note = read(&file).unwrap_or_else(|error| {
            log.warning("state", &format!("the note about the last run is lost: {error}"));
            Note::default()
        });
        Ok(Self { file, note: Note { job: job.to_owned(), ..note }, _lock: lock })
    }

    /// Returns whether the last run has not ended: it was killed, or its `--after` has failed.
    pub fn was_killed(&self) -> bool {
        self.note.running_since.is_some()
    }

    /// Returns the time at which the last successful run began.
    pub fn last_success(&self) -> Option<SystemTime> {
        self.note
            .last_success
            .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
    }

    /// Returns whether the last run was killed or interrupted.
    pub fn was_interrupted(&self) -> bool {
        self.note.is_interrupted
    }

    /// Returns the size of the tree that the last successful run has packed.
    pub fn last_size(&self) -> Option<TreeSize> {
        self.note.last_size
    }

    /// Notes that a run begins. The note is on the disk when this returns.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn begin(&mut self, now: SystemTime) -> Result<()> {
        self.write(Note { running_since: Some(unix_seconds(now)), is_interrupted: true, ..self.note.clone() })
    }

    /// Notes that the run has ended. Unless `is_complete`, its `--after` is still due.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn end(&mut self, end: RunEnd, is_complete: bool) -> Result<()> {
        let mut note = self.note.clone();
        note.running_since = note.running_since.filter(|_| !is_complete);
        note.is_interrupted = end == RunEnd::Interrupted;
        if let RunEnd::Succeeded { begun, size } = end {
            (note.last_success, note.last_size) = (Some(unix_seconds(begun)), size);
        }
        self.write(note)
    }

    fn write(&mut self, note: Note) -> Result<()> {
        let cannot =
            |error| Error::io(format!("cannot write the state of the job to {}", self.file.display()), error);
        let text = serde_json::to_vec(&note).map_err(|error| cannot(error.into()))?;
        replace(&self.file, &text, 0o600).map_err(cannot)?;
        self.note = note;
        Ok(())
    }
}

/// Returns whether a directory, or the place where it would be created, is in the file system of a container, which ends with the container.
pub fn is_in_container(directory: &Path) -> bool {
    let found = directory.ancestors().find_map(|path| statfs(path).ok());
    #[allow(clippy::unnecessary_cast)] // The type differs between architectures.
    found.is_some_and(|found| found.f_type as u64 == OVERLAYFS)
}

/// Takes the lock of a job.
fn lock(
    directory: std::os::fd::BorrowedFd<'_>,
    path: &Path,
    job: &str,
    clock: &dyn Clock,
    log: &dyn Log,
    cancel: &CancelToken,
) -> Result<LockFile> {
    let end = clock.elapsed() + LOCK_TIMEOUT;
    let mut is_said = false;
    loop {
        match LockFile::take(directory, path, Duration::ZERO) {
            Err(error) if error.kind() == Kind::Refused => {
                if clock.elapsed() >= end {
                    return Err(Error::refused(format!("another volio has the same job: {job}"))
                        .with_source(error)
                        .with_hint(
                            "end the other process, or give this one another IMAGE or another --state",
                        ));
                }
                if !is_said {
                    is_said = true;
                    log.info("state", &format!("waiting for another volio with the same job: {error}"));
                }
                clock.sleep(LOCK_PAUSE, cancel)?;
            }
            taken => return taken,
        }
    }
}

/// Reads a note; an empty one if there is none.
fn read(file: &Path) -> Result<Note> {
    let cannot = |error: std::io::Error| Error::io(format!("cannot read {}", file.display()), error);
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Note::default()),
        Err(error) => return Err(cannot(error)),
        Ok(found) if !found.is_file() || found.len() > MAX_NOTE => {
            return Err(Error::failed(format!("{} is not a note of volio", file.display())));
        }
        Ok(_) => {}
    }
    serde_json::from_slice(&fs::read(file).map_err(cannot)?).map_err(|error| cannot(error.into()))
}
