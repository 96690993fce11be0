//! The stored state of one volume: its content, its mounts, and its pending export.

use super::engine::Engine;
use super::fingerprint::Fingerprint;
use super::protocol::MountId;
use super::storage;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

const VERSION: u32 = 1;

/// The state of a volume, stored as JSON. It is kept when the volume is removed, as the data is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct VolumeState {
    version: u32,
    /// The boot id of the machine, to which the counts of mounts belong.
    boot: String,
    /// The number of mounts for each id.
    pub(super) mounts: BTreeMap<MountId, u64>,
    /// The engine of the last mount for each id, if known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    engines: BTreeMap<MountId, Engine>,
    /// The image that the volume was filled from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) filled: Option<ImageStamp>,
    /// The image that the volume is being filled from, and the inode of the staging directory. If the volume has that
    /// inode, the directories were exchanged before a crash.
    #[serde(skip_serializing_if = "Option::is_none")]
    filling: Option<(ImageStamp, u64)>,
    /// The fingerprint of the staging directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    filling_content: Option<Fingerprint>,
    /// The image that the volume is being changed to in place. Until that has succeeded, the volume has parts of two images,
    /// which are neither handed out nor exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    syncing: Option<ImageStamp>,
    /// Set if the volume has to be checked for an export. The content decides whether there is something to export.
    pub(super) export_due: bool,
    /// Set if a hook that prepares the content for an export has failed: nothing is exported before it succeeds.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) export_withheld: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exported: Option<ImageStamp>,
    /// The content that was last filled, exported or found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<KnownContent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_error: Option<LastError>,
}

/// An image, and when it was fetched or exported.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct ImageStamp {
    pub(super) image: String,
    pub(super) digest: String,
    pub(super) at: String,
    /// The subpath of the image that was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subpath: Option<String>,
}

/// The content that a volume had at some time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct KnownContent {
    pub(super) fingerprint: Fingerprint,
    pub(super) origin: ContentOrigin,
}

/// The image that has a copy of the content, outside the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum ContentOrigin {
    /// The image that the volume was filled from.
    Filled,
    /// The image that the volume was exported to.
    Exported,
    /// None: it was there before the first mount.
    Found,
}

/// The effect of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExportNeed {
    /// None: the image has the content, or there is no content.
    Nothing,
    /// Creates the image if it does not exist. No container has changed the content, so an image is not replaced.
    IfMissing,
    /// Creates or replaces the image.
    Export,
}

/// The last error.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct LastError {
    pub(super) doing: String,
    pub(super) error: String,
    pub(super) at: String,
}

/// The state of a volume together with its file.
pub(super) struct StateFile {
    path: PathBuf,
    state: VolumeState,
}

impl StateFile {
    /// Reads the state, if there is a file, of a volume whose directory has this inode. Mounts of an earlier boot are
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`Integrity`](crate::error::Kind::Integrity) if the file cannot be parsed.
    pub(super) fn open(path: PathBuf, boot: &str, inode: Option<u64>) -> Result<Self> {
        let shown = path.display();
        let mut state = match fs::read(&path) {
            Ok(text) => serde_json::from_slice::<VolumeState>(&text).map_err(|error| {
                Error::integrity(format!("{shown} cannot be understood: {error}")).with_hint(
                    "repair or remove the file; without it the plugin does not know what the volume holds",
                )
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => VolumeState::default(),
            Err(error) => return Err(Error::io(format!("cannot read {shown}"), error)),
        };
        if state.version > VERSION {
            return Err(Error::integrity(format!("{shown} was written by a later volio")));
        }
        if state.boot != boot {
            state.forget_mounts();
            boot.clone_into(&mut state.boot);
        }
        state.version = VERSION;
        // The plugin may have ended between the exchange and its record. The next change stores the result.
        state.end_swap(inode);
        Ok(Self { path, state })
    }

    pub(super) fn state(&self) -> &VolumeState {
        &self.state
    }

    /// Changes the state, on the disk first.
    pub(super) fn update<T>(&mut self, change: impl FnOnce(&mut VolumeState) -> T) -> Result<T> {
        let mut state = self.state.clone();
        let outcome = change(&mut state);
        let io_error = |error: io::Error| Error::io(format!("cannot write {}", self.path.display()), error);
        let mut text = serde_json::to_vec_pretty(&state).map_err(|error| io_error(error.into()))?;
        text.push(b'\n');
        storage::make_private(self.path.parent().unwrap_or(Path::new("/"))).map_err(io_error)?;
        storage::replace_file(&self.path, &text)?;
        self.state = state;
        Ok(outcome)
    }
}

impl VolumeState {
    /// Adds a mount.
    pub(super) fn add_mount(&mut self, id: &str, engine: Option<&Engine>) {
        // After it was killed, an engine mounts with the same id again, but unmounts only once.
        if self.engines.get(id).is_some_and(Engine::is_gone) {
            self.mounts.remove(id);
        }
        *self.mounts.entry(id.to_owned()).or_default() += 1;
        match engine {
            Some(engine) => self.engines.insert(id.to_owned(), engine.clone()),
            None => self.engines.remove(id),
        };
    }

    /// Removes a mount. Returns `false` if the id has no mount.
    pub(super) fn remove_mount(&mut self, id: &str) -> bool {
        match self.mounts.get_mut(id) {
            Some(count) if *count > 1 => {
                *count -= 1;
                true
            }
            _ => {
                self.engines.remove(id);
                self.mounts.remove(id).is_some()
            }
        }
    }

    /// Returns `true` if an engine that has mounted the volume has ended.
    pub(super) fn has_mounts_of_ended_engines(&self) -> bool {
        self.engines.values().any(Engine::is_gone)
    }

    /// Drops the mounts of engines that have ended.
    pub(super) fn forget_ended_engines(&mut self) {
        let Self { mounts, engines, .. } = self;
        engines.retain(|id, engine| {
            let is_gone = engine.is_gone();
            if is_gone {
                mounts.remove(id);
            }
            !is_gone
        });
    }

    /// Drops the mounts with these ids.
    pub(super) fn forget(&mut self, ids: &BTreeSet<MountId>) {
        self.mounts.retain(|id, _| !ids.contains(id));
        self.engines.retain(|id, _| !ids.contains(id));
    }

    pub(super) fn forget_mounts(&mut self) {
        self.mounts.clear();
        self.engines.clear();
    }

    /// Returns the effect of an export of the current content to this name.
    pub(super) fn needed(&self, to: &str, fingerprint: &Fingerprint, is_empty: bool) -> ExportNeed {
        let content = self.content.as_ref();
        // An empty root directory is not exported.
        if is_empty && content.is_none_or(|content| content.fingerprint.has_entries_of(fingerprint)) {
            return ExportNeed::Nothing;
        }
        let known = content.filter(|content| content.fingerprint == *fingerprint);
        let is_there = |moment: &Option<ImageStamp>| {
            moment.as_ref().is_some_and(|moment| moment.image == to && moment.subpath.is_none())
        };
        match known.map(|content| content.origin) {
            Some(ContentOrigin::Exported) if is_there(&self.exported) => ExportNeed::Nothing,
            Some(ContentOrigin::Filled) if is_there(&self.filled) => ExportNeed::Nothing,
            Some(_) => ExportNeed::IfMissing,
            None => ExportNeed::Export,
        }
    }

    /// Returns `true` if an image has this content.
    pub(super) fn is_stored(&self, fingerprint: &Fingerprint) -> bool {
        let known = self.content.as_ref().filter(|content| content.fingerprint == *fingerprint);
        known.is_some_and(|content| content.origin != ContentOrigin::Found)
    }

    /// Clears the last error if it is from this operation.
    pub(super) fn clear_error(&mut self, doing: &str) {
        self.last_error.take_if(|failure| failure.doing == doing);
    }

    /// Records that the volume is about to be exchanged with a directory of this inode and fingerprint.
    pub(super) fn begin_swap(&mut self, filled: ImageStamp, inode: u64, fingerprint: Fingerprint) {
        (self.filling, self.filling_content) = (Some((filled, inode)), Some(fingerprint));
    }

    /// Records that the volume is about to be changed in place. Its content is in an image, or is not kept.
    pub(super) fn begin_sync(&mut self, filled: ImageStamp) {
        self.syncing = Some(filled);
        (self.filled, self.content, self.export_due) = (None, None, false);
    }

    /// Records that the volume was changed in place, and has this content now.
    pub(super) fn end_sync(&mut self, filled: ImageStamp, fingerprint: Fingerprint) {
        self.set_filled(filled, Some(fingerprint));
    }

    /// Returns `true` if a change in place has begun and not succeeded.
    pub(super) fn is_partly_synced(&self) -> bool {
        self.syncing.is_some()
    }

    fn set_filled(&mut self, filled: ImageStamp, content: Option<Fingerprint>) {
        self.filled = Some(filled);
        self.content = content.map(|fingerprint| KnownContent { fingerprint, origin: ContentOrigin::Filled });
        self.export_due = false;
        self.syncing = None;
        self.last_error = None;
    }

    /// Records the result of an exchange: the volume has this inode now.
    pub(super) fn end_swap(&mut self, inode: Option<u64>) {
        let (filling, content) = (self.filling.take(), self.filling_content.take());
        if let Some((filled, staged)) = filling
            && inode == Some(staged)
        {
            self.set_filled(filled, content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(image: &str) -> Option<ImageStamp> {
        Some(ImageStamp { image: image.to_owned(), digest: String::new(), at: String::new(), subpath: None })
    }

    fn state(origin: Option<ContentOrigin>) -> VolumeState {
        let content =
            origin.map(|origin| KnownContent { fingerprint: Fingerprint::named(0, "known"), origin });
        VolumeState { filled: moment("image"), exported: moment("export"), content, ..VolumeState::default() }
    }

    #[test]
    fn an_export_sends_what_changed_and_makes_what_is_missing() {
        for (origin, to, fingerprint, needed) in [
            (Some(ContentOrigin::Exported), "export", "known", ExportNeed::Nothing),
            (Some(ContentOrigin::Exported), "elsewhere", "known", ExportNeed::IfMissing),
            (Some(ContentOrigin::Exported), "export", "changed", ExportNeed::Export),
            (Some(ContentOrigin::Filled), "image", "known", ExportNeed::Nothing),
            (Some(ContentOrigin::Filled), "export", "known", ExportNeed::IfMissing),
            (Some(ContentOrigin::Filled), "image", "changed", ExportNeed::Export),
            (Some(ContentOrigin::Found), "export", "known", ExportNeed::IfMissing),
            (Some(ContentOrigin::Found), "export", "changed", ExportNeed::Export),
            (None, "export", "any", ExportNeed::Export),
        ] {
            let found = state(origin).needed(to, &Fingerprint::named(0, fingerprint), false);
            assert_eq!(found, needed, "{origin:?} {to} {fingerprint}");
        }
    }

    #[test]
    fn an_empty_volume_is_exported_only_where_a_container_emptied_it() {
        for (origin, fingerprint, needed) in [
            (None, "any", ExportNeed::Nothing),
            (Some(ContentOrigin::Found), "known", ExportNeed::Nothing),
            (Some(ContentOrigin::Filled), "known", ExportNeed::Nothing),
            (Some(ContentOrigin::Exported), "changed", ExportNeed::Export),
            (Some(ContentOrigin::Filled), "changed", ExportNeed::Export),
            (Some(ContentOrigin::Found), "changed", ExportNeed::Export),
        ] {
            for root in [0, 1] {
                let found = state(origin).needed("elsewhere", &Fingerprint::named(root, fingerprint), true);
                assert_eq!(found, needed, "{origin:?} {root}");
            }
        }
    }

    #[test]
    fn an_id_that_a_killed_engine_had_is_counted_anew() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let engine = Engine::of_process(child.id().try_into().unwrap()).unwrap();
        let mut state = VolumeState::default();
        state.add_mount("a", Some(&engine));
        state.add_mount("a", Some(&engine));
        state.add_mount("b", None);
        state.forget_ended_engines();
        assert_eq!((state.mounts["a"], state.mounts["b"]), (2, 1));
        child.kill().unwrap();
        child.wait().unwrap();
        state.add_mount("a", None);
        state.forget_ended_engines();
        assert_eq!((state.mounts["a"], state.mounts["b"]), (1, 1));
    }
}
