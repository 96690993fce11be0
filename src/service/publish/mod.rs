//! Publishing: how a version of an image gets into a directory that is in use.
//!
//! In place, the directory is changed from one version into the next one, file by file. By link, each version has a
//! directory of its own, and an atomic change of a symbolic link makes another one the current one.

mod link;
mod note;
#[cfg(test)]
mod tests;
mod workspace;

pub use link::{LinkOptions, version_name};
pub(crate) use note::{Judged, Note};

use crate::error::{Error, Kind, Result};
use crate::oci::{Digest, Document};
use crate::progress::Progress;
use crate::stream::CancelToken;
use crate::transport::Source;
use crate::unpack::{
    ForeignTarget, Options, SyncOptions, Unpacked, WriteMode, is_present, present_digest, unpack_resolved,
};
use link::Versions;
use std::path::{Path, PathBuf};
use workspace::Workspace;

/// The way in which versions of an image are published in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publication {
    /// The directory is changed in place.
    InPlace,
    /// The directory has a directory for each version, and a link to one of them.
    Link(LinkOptions),
}

/// A directory in which versions of an image are published. It is locked: no other run publishes there.
pub(crate) struct Publisher {
    target: PathBuf,
    publication: Publication,
    options: Options,
    workspace: Workspace,
    cancel: CancelToken,
}

impl Publisher {
    /// Opens a directory, and creates it if it does not exist. The options say how a version is unpacked; their write mode
    /// is that of a sync.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when something else has the name of the link, or another run is at work
    /// there; those of the operating system.
    pub fn open(
        target: &Path,
        publication: Publication,
        options: Options,
        cancel: CancelToken,
    ) -> Result<Self> {
        if let Publication::Link(link) = &publication {
            link.check()?;
        }
        let sync = match options.write {
            WriteMode::Sync(sync) => sync,
            _ => SyncOptions::default(),
        };
        let options = Options { write: WriteMode::Sync(sync), ..options };
        let workspace = Workspace::open(target, &cancel)?;
        let publisher = Self { target: target.to_owned(), publication, options, workspace, cancel };
        publisher.versions().map_or(Ok(None), |versions| versions.current())?;
        Ok(publisher)
    }

    /// Opens the directory again if its path leads to another one by now, as after a file system was mounted again.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn refresh(&mut self) -> Result<()> {
        if !self.workspace.is_current() {
            self.workspace = Workspace::open(&self.target, &self.cancel)?;
        }
        Ok(())
    }

    fn versions(&self) -> Option<Versions<'_>> {
        match &self.publication {
            Publication::InPlace => None,
            Publication::Link(options) => Some(Versions { workspace: &self.workspace, options }),
        }
    }

    /// Returns whether this version is published, by what is recorded in the directory. Files that were changed since are
    /// not noticed.
    ///
    /// # Errors
    /// When the directory cannot be read; [`Refused`](crate::error::Kind::Refused) when something else has the name of the
    /// link.
    pub fn is_published(&self, root: &Document) -> Result<bool> {
        let Some(versions) = self.versions() else { return is_present(root, &self.target, &self.options) };
        let digest = &root.descriptor().digest;
        Ok(versions.current()?.as_ref() == Some(digest)
            && is_present(root, &versions.path(digest), &self.options)?)
    }

    /// Returns the version that is published, whatever it is.
    ///
    /// # Errors
    /// As [`is_published`](Self::is_published).
    pub fn current(&self) -> Result<Option<Digest>> {
        self.versions().map_or_else(|| present_digest(&self.target), |versions| versions.current())
    }

    /// Fetches a version. In place, it is published then. By link, it is whole and has its name, and
    /// [`publish`](Self::publish) makes it the current one.
    ///
    /// # Errors
    /// Those of a sync. By link, the link names the same version as before.
    pub fn fetch(&self, source: &dyn Source, root: &Document, progress: &dyn Progress) -> Result<Unpacked> {
        let unpack =
            |target: &Path, options: &Options| unpack_resolved(source, root, target, options, progress);
        let Some(versions) = self.versions() else { return unpack(&self.target, &self.options) };
        let digest = &root.descriptor().digest;
        let reuse_from = versions.current()?.map(|current| versions.path(&current));
        let options = Options { reuse_from, ..self.options.clone() };
        if versions.exists(digest) {
            // It was published before, or a killed run has not come to that.
            match unpack(&versions.path(digest), &options) {
                Err(error) if error.kind() == Kind::Refused && versions.is_ours(digest) => {
                    // It was unpacked with other options: another directory takes its place.
                }
                unpacked => return unpacked,
            }
        }
        // Whatever an earlier run has left there is volio's own.
        let write = match options.write {
            WriteMode::Sync(sync) => {
                WriteMode::Sync(SyncOptions { foreign: ForeignTarget::Overwrite, ..sync })
            }
            other => other,
        };
        let unpacked = unpack(&versions.next(), &Options { write, ..options })
            .inspect_err(|error| versions.abandon_next(error))?;
        versions.place(digest)?;
        Ok(unpacked)
    }

    /// Returns the directory with a version that was fetched.
    pub fn tree(&self, version: &Digest) -> PathBuf {
        self.versions().map_or_else(|| self.target.clone(), |versions| versions.path(version))
    }

    /// Makes a version that was fetched the current one.
    ///
    /// # Errors
    /// As [`is_published`](Self::is_published). The version from before is the current one then.
    pub fn publish(&self, version: &Digest) -> Result<()> {
        let Some(versions) = self.versions() else { return Ok(()) };
        versions.link(version)?;
        let mut note = self.note();
        if note.age(version) != Some(0) {
            note.published(version);
            self.write_note(&note)?;
        }
        Ok(())
    }

    /// Removes a version that was fetched and is not to be published. One that was published before stays.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn discard(&self, version: &Digest) -> Result<()> {
        match self.versions() {
            Some(versions)
                if self.note().age(version).is_none() && versions.current()?.as_ref() != Some(version) =>
            {
                versions.remove(version)
            }
            _ => Ok(()),
        }
    }

    /// Removes what killed runs have left, and the versions that are older than those to be kept. Returns an error for each
    /// version that could not be removed.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn tidy(&self) -> Result<Vec<Error>> {
        self.versions().map_or(Ok(Vec::new()), |versions| versions.tidy(&self.note()))
    }

    /// Reads what is noted about the versions.
    pub fn note(&self) -> Note {
        self.workspace.note()
    }

    /// Replaces what is noted about the versions.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn write_note(&self, note: &Note) -> Result<()> {
        self.workspace.write_note(note)
    }
}
