//! Progress events. The library never prints; the program shows these events to the user.

use std::fmt;

/// A receiver of progress events.
pub trait Progress: Send + Sync {
    /// Called when a task begins.
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task>;

    /// Called with a warning that does not stop the work.
    fn warn(&self, message: &str);
}

/// A kind of work. The text of each is its name in `docs/progress.md`, and does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Comparing metadata with those of an image. There are entries and no bytes.
    Comparing,
    /// Reading files to compare their contents.
    ComparingContents,
    /// Copying blobs.
    Copying,
    /// Extracting layers.
    Extracting,
    /// Fetching layers, or parts of them.
    Fetching,
    /// Archiving, compressing and sending layers.
    Packing,
    /// Reading layers, directories or an archive.
    Reading,
    /// Fetching the tables of contents of layers.
    ReadingContents,
    /// Reading blobs to verify them.
    Verifying,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Comparing => "comparing",
            Self::ComparingContents => "comparing contents",
            Self::Copying => "copying",
            Self::Extracting => "extracting",
            Self::Fetching => "fetching",
            Self::Packing => "packing",
            Self::Reading => "reading",
            Self::ReadingContents => "reading contents",
            Self::Verifying => "verifying",
        })
    }
}

/// A description of a task that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskInfo {
    /// The kind of work.
    pub phase: Phase,
    /// The digest of the blob, if the task is about one blob whose digest is known.
    pub digest: Option<String>,
    /// The words that follow the phase in place of the digest: `layer 2 of 3`, a directory.
    pub subject: Option<String>,
    /// The size of the task in bytes, if it is known.
    pub total: Option<u64>,
}

impl TaskInfo {
    /// Describes a task about nothing in particular, of unknown size.
    pub fn new(phase: Phase) -> Self {
        Self { phase, digest: None, subject: None, total: None }
    }

    /// Names the blob.
    pub fn of_blob(self, digest: &impl ToString) -> Self {
        Self { digest: Some(digest.to_string()), ..self }
    }

    /// Sets the subject.
    pub fn about(self, subject: impl ToString) -> Self {
        Self { subject: Some(subject.to_string()), ..self }
    }

    /// Sets the size in bytes.
    pub fn with_total(self, total: u64) -> Self {
        Self { total: Some(total), ..self }
    }
}

impl fmt::Display for TaskInfo {
    /// Writes the phase, and the subject or the beginning of the digest: `copying 0123456789ab`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest.as_deref().and_then(|digest| digest.split_once(':')?.1.get(..12));
        match self.subject.as_deref().or(digest) {
            Some(subject) => write!(f, "{} {subject}", self.phase),
            None => self.phase.fmt(f),
        }
    }
}

impl fmt::Debug for dyn Progress + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}

/// A running task. Dropping it ends the task.
pub trait Task: Send + Sync {
    /// Adds to the number of bytes that are done.
    fn advance(&self, bytes: u64);

    /// Adds to the number of entries that are done. Tasks that know only bytes do not call it.
    fn advance_entries(&self, _entries: u64) {}

    /// Marks the task as skipped because its result exists already.
    fn skip(&self);
}

/// A [`Progress`] that ignores every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _info: &TaskInfo) -> Box<dyn Task> {
        Box::new(Silent)
    }

    fn warn(&self, _message: &str) {}
}

impl Task for Silent {
    fn advance(&self, _bytes: u64) {}

    fn skip(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_described_by_its_phase_and_its_subject() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let copying = TaskInfo::new(Phase::Copying).of_blob(&digest);
        assert_eq!(
            (copying.to_string().as_str(), copying.digest),
            ("copying 0123456789ab", Some(digest.clone()))
        );
        let layer = TaskInfo::new(Phase::Extracting).about("layer 2").of_blob(&digest).with_total(7);
        assert_eq!((layer.to_string().as_str(), layer.total), ("extracting layer 2", Some(7)));
        assert_eq!(TaskInfo::new(Phase::ReadingContents).to_string(), "reading contents");
        assert_eq!(TaskInfo::new(Phase::Copying).of_blob(&"short").to_string(), "copying");
    }
}
