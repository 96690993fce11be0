//! The states that are recorded while a target is filled, and the file systems that are written to.

use super::journal::{self, Journal};
use super::small_files::Writer;
use super::target::survey;
use super::{Extractor, io_error};
use crate::disk::directory::{ensure_owner_access, mount_id};
use crate::error::{Error, Result};
use crate::tree::target_state::{self, TargetState};
use crate::tree::{Time, TreePath};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Stat, fstat, fsync, sync, syncfs};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// The kind of run that states are recorded of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum StateMode {
    /// Entries are added. What is there, nobody has used yet, if the directory was empty before.
    #[default]
    Fill,
    /// Entries are replaced and removed, in a directory that was in use. No later run may remove what this one has made.
    Sync,
}

/// A mount point in a target that a sync enters.
#[derive(Clone, Debug)]
pub(crate) struct SyncMount {
    pub path: TreePath,
    /// The number of the mount that was compared; `None` if the kernel does not report it.
    pub id: Option<u64>,
    /// Set if it has contents that volio did not write. Nothing is removed from it, and its state never says that anything
    /// may be removed.
    pub is_foreign: bool,
    /// Set if something in it is to be changed.
    pub is_changed: bool,
}

/// The states of a target and of the file systems in it.
#[derive(Default)]
pub(super) struct StateRecords {
    pub(super) mode: StateMode,
    /// The time of the file system when the run began.
    begun: Option<Time>,
    /// The newest mtime of a file that is not after the beginning.
    newest: Option<Time>,
    /// The newest mtime of a file of the content at the end, if another one is recorded until then.
    interim_newest: Option<Time>,
    /// The content at the end, if another one is recorded until then.
    final_content: Option<Value>,
    /// The mount points that a sync enters.
    mounts: Vec<SyncMount>,
    /// The content that the target is filled with; `None` if no state is recorded.
    content: Option<Value>,
    records: Vec<StateRecord>,
    /// The file systems that are written to, by device, each with a directory on it.
    written: BTreeMap<u64, OwnedFd>,
}

/// The state of the target, or of a file system that is mounted in it.
struct StateRecord {
    path: TreePath,
    directory: OwnedFd,
    state: TargetState,
    /// The state before this run.
    previous: Option<TargetState>,
    /// The journal, if a later run may remove what this one creates.
    journal: Option<Arc<Journal>>,
}

impl StateRecords {
    /// Returns the journal for a path, if there is one, and the path in it.
    fn journal(&self, path: &TreePath) -> Option<(&Arc<Journal>, TreePath)> {
        let records = self.records.iter().filter(|record| path.is_in(&record.path));
        let record = records.max_by_key(|record| record.path.as_bytes().len())?;
        record.journal.as_ref().zip(path.below(&record.path))
    }

    /// Returns whether an entry cannot be extracted because its name, or that of a directory that it is in, is reserved for
    /// the state.
    pub fn is_reserved(&self, path: &TreePath) -> bool {
        if !path.names().any(target_state::is_reserved_name) {
            return false;
        }
        let has_state = |parent| self.records.iter().any(|record| record.path == parent);
        let is_reserved = |path: &TreePath| {
            target_state::is_reserved_name(path.name())
                && path.parent().is_some_and(|parent| parent.is_root() || has_state(parent))
        };
        std::iter::successors(Some(path.clone()), TreePath::parent).any(|path| is_reserved(&path))
    }
}

/// Returns the time of the last change of an inode.
fn changed(stat: &Stat) -> Time {
    Time { seconds: stat.st_ctime, nanoseconds: stat.st_ctime_nsec as u32 }
}

impl Extractor {
    /// Records that the target is being filled with `content`, before anything is put into it. A file system that is mounted
    /// in the target gets a state too when it is entered, because it may be mounted elsewhere the next time.
    ///
    /// A target that cannot be written has no state. Nothing is put into it then, except on file systems mounted in it.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when a file that volio did not write has the name of the state;
    /// otherwise the error of the operating system.
    pub fn begin_state(&mut self, content: Value) -> Result<()> {
        self.states.content = Some(content);
        if !self.user.is_root() {
            ensure_owner_access(self.stack.root());
        }
        let root = fcntl_dupfd_cloexec(self.stack.root(), 0);
        let root = root.map_err(|errno| self.io_error("open", &TreePath::root(), errno))?;
        self.begin_state_of(TreePath::root(), root)
    }

    /// Records that the target is being changed, and that it will have `content` at the end. Until then its content is
    /// `interim`, which is not that of any complete target. `newest` is the newest mtime of a file of the content: until the
    /// end, the target has files of the old content and of this one. `mounts` are the mount points that were compared;
    /// those in which something will be changed get the same state.
    ///
    /// # Errors
    /// As [`begin_state`](Self::begin_state); [`Refused`](crate::error::Kind::Refused) if a state cannot be replaced.
    pub(crate) fn begin_sync_state(
        &mut self,
        interim: Value,
        content: Value,
        newest: Option<Time>,
        mounts: Vec<SyncMount>,
    ) -> Result<()> {
        self.states.final_content = Some(content);
        self.states.interim_newest = newest;
        self.states.mounts = mounts;
        self.begin_state(interim)?;
        let changed = self.states.mounts.iter().filter(|mount| mount.is_changed);
        let paths: Vec<_> = changed.map(|mount| mount.path.clone()).collect();
        paths.iter().try_for_each(|path| self.goto(path))?;
        self.note_case_folding(paths.iter())
    }

    /// Ensures that a directory which a sync has just entered is on the mount that was compared: that of the directory
    /// above, whose number is `above`, unless it is a mount point that was entered then. What was mounted or unmounted
    /// since has other contents than those that are to be changed or removed.
    pub(super) fn ensure_compared(&mut self, above: Option<u64>, device_above: u64) -> Result<()> {
        let path = self.stack.path().clone();
        let here = self.stack.here().map_err(|errno| io_error("enter", &self.target.shown, &path, errno))?;
        let (id, device) = (mount_id(here), fstat(here).ok().map(|stat| stat.st_dev));
        let compared = self.states.mounts.iter().find(|mount| mount.path == path);
        let is_same = match compared {
            Some(mount) => mount.id == id,
            None => above == id && device == Some(device_above),
        };
        if is_same {
            return Ok(());
        }
        let shown = self.display_directory(&path);
        Err(Error::refused(format!("{shown} was mounted or unmounted while it was compared"))
            .with_hint("nothing in it was changed; run the command again to complete the rest"))
    }

    /// Notes that another file system was entered.
    pub(super) fn enter_filesystem(&mut self, device: u64) -> Result<()> {
        let path = self.stack.path().clone();
        let here = |this: &mut Self| this.stack.here().and_then(|here| fcntl_dupfd_cloexec(here, 0));
        if !self.states.written.contains_key(&device) {
            let directory = here(self).map_err(|errno| self.io_error("open", &path, errno))?;
            self.states.written.insert(device, directory);
        }
        if self.states.content.is_some() && !self.states.records.iter().any(|record| record.path == path) {
            let directory = here(self).map_err(|errno| self.io_error("open", &path, errno))?;
            self.begin_state_of(path, directory)?;
        }
        Ok(())
    }

    fn begin_state_of(&mut self, path: TreePath, directory: OwnedFd) -> Result<()> {
        let Some(content) = self.states.content.clone() else { return Ok(()) };
        let previous = target_state::read(directory.as_fd());
        let written = (|| {
            let is_sync = self.states.mode == StateMode::Sync;
            let was_empty = match &previous {
                _ if is_sync => false,
                Some(previous) if !previous.complete => previous.claims(directory.as_fd()),
                _ => survey(directory.as_fd(), &TreePath::root())?.foreign_entry.is_none(),
            };
            let has_only_image_entries = if is_sync {
                let foreign = self.states.mounts.iter().filter(|mount| mount.is_foreign);
                !foreign.into_iter().any(|mount| path.is_in(&mount.path))
            } else {
                was_empty
                    || previous.as_ref().is_some_and(|previous| {
                        previous.may_be_removed()
                            && previous.is_of(directory.as_fd())
                            && previous.content == content
                    })
            };
            let state = TargetState {
                content,
                was_empty,
                at: target_state::path_text(&path),
                has_only_image_entries,
                finished_at: previous.as_ref().and_then(|previous| previous.finished_at),
                newest: previous.as_ref().and_then(|previous| previous.newest).map(|newest| {
                    // The older of the two, because files of both may be there if this run does not end.
                    self.states.interim_newest.map_or(newest, |other| newest.min(other.into()))
                }),
                ..TargetState::abandoned()
            };
            target_state::write_bound(directory.as_fd(), state)
        })();
        match written {
            Ok(state) => {
                if path.is_root() {
                    self.states.begun = fstat(&directory).ok().map(|stat| changed(&stat));
                }
                if self.states.mode == StateMode::Sync {
                    // That of an interrupted run: nothing may be removed because of it any more.
                    journal::remove(directory.as_fd());
                }
                let journal =
                    state.was_empty.then(|| Journal::begin(directory.as_fd())).flatten().map(Arc::new);
                self.states.records.push(StateRecord { path, directory, state, previous, journal });
                Ok(())
            }
            Err(errno @ (Errno::ROFS | Errno::ACCESS | Errno::PERM))
                if self.states.mode == StateMode::Sync && previous.is_some() =>
            {
                // It would say that the directory has the old content.
                let shown = self.display_directory(&path);
                let errno = io::Error::from(errno);
                Err(Error::refused(format!("the record of {shown} cannot be replaced: {errno}")).with_hint(
                    "nothing was changed; run the command as the user that may write to the directory",
                ))
            }
            Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => Ok(()),
            Err(Errno::EXIST) => {
                let shown = self.display_directory(&path);
                Err(Error::refused(format!("{shown} holds a .volio.json that volio did not write"))
                    .with_hint("its record would stand there: move the file away"))
            }
            Err(errno) => Err(self.io_error("write the record of", &path, errno)),
        }
    }

    fn display_directory(&self, path: &TreePath) -> String {
        if path.is_root() {
            self.target.path.display().to_string()
        } else {
            format!("{}{path}", self.target.shown)
        }
    }

    /// Restores the states before this run, after nothing was extracted.
    pub(super) fn revert_state(&mut self) {
        for StateRecord { directory, previous, journal, .. } in self.states.records.drain(..) {
            if previous.is_none() && journal.is_some() {
                journal::remove(directory.as_fd());
            }
            // A state that cannot be restored is a harmless claim on an empty directory.
            let _ = match previous {
                Some(previous) => target_state::write(directory.as_fd(), &previous),
                None => target_state::remove(directory.as_fd()),
            };
        }
    }

    /// Records that the current layer has created an entry.
    pub(super) fn note_created(&mut self, path: &TreePath) {
        self.provenance.record(path);
        if let Some((journal, path)) = self.states.journal(path) {
            journal.add(&path);
        }
    }

    /// Records that the current layer has created a regular file with a content of this size. Returns what has to write it.
    pub(super) fn note_created_file(&mut self, path: &TreePath, file: &File, size: u64) -> Writer {
        if !self.has_writers_for(size) {
            self.note_created(path);
            return Writer::Extractor;
        }
        self.provenance.record(path);
        let Some((journal, path)) = self.states.journal(path) else {
            return Writer::Any { recorded: None };
        };
        match journal::identity(file.as_fd()) {
            Some(identity) => Writer::Any { recorded: Some(journal.add_file(&path, identity)) },
            None => {
                journal.add(&path);
                self.small_files.without_identity()
            }
        }
    }

    /// Notes the mtime of a file of the content.
    pub(crate) fn note_mtime(&mut self, mtime: Time) {
        if self.states.begun.is_some_and(|begun| mtime <= begun) {
            self.states.newest = self.states.newest.max(Some(mtime));
        }
    }

    /// Removes the journals, when all entries exist.
    pub(super) fn end_journals(&mut self) {
        for StateRecord { directory, journal, .. } in &mut self.states.records {
            if journal.take().is_some() {
                journal::remove(directory.as_fd());
            }
        }
    }

    /// Syncs every file system that was written to, and then records that the target is complete.
    pub(super) fn complete_state(&mut self) -> Result<()> {
        for StateRecord { directory, state, .. } in &mut self.states.records {
            // A change of the inode, whose time is that of the file system and later than all others of this run.
            state.is_finishing = true;
            let stamped = target_state::write(directory.as_fd(), state).and_then(|()| fstat(&*directory));
            state.is_finishing = false;
            state.finished_at = stamped.ok().map(|stat| changed(&stat).into());
            state.newest = self.states.newest.map(Into::into);
        }
        self.sync()?;
        let paths = self.states.records.iter().map(|record| &record.state.at);
        let volumes: Vec<String> = paths.filter(|at| !at.is_empty()).cloned().collect();
        for StateRecord { path, directory, state, .. } in &mut self.states.records {
            state.complete = true;
            if let Some(content) = &self.states.final_content {
                state.content.clone_from(content);
            }
            state.volumes.clone_from(&volumes);
            let written = target_state::write(directory.as_fd(), state)
                .and_then(|()| if self.options.sync { fsync(&*directory) } else { Ok(()) });
            written.map_err(|errno| io_error("write the record of", &self.target.shown, path, errno))?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        if !self.options.sync {
            return Ok(());
        }
        let root = self.stack.root();
        for directory in self.states.written.values().map(AsFd::as_fd).chain([root]) {
            match syncfs(directory) {
                // The directory may be entered and not listed, so that it is open by O_PATH only.
                Err(Errno::BADF) => sync(),
                synced => synced.map_err(|errno| {
                    Error::io(format!("cannot write {} to the disk", self.target.path.display()), errno)
                })?,
            }
        }
        Ok(())
    }
}
