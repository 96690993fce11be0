//! The records that are written while a target is filled, and the file systems that are written to.

use super::journal::{self, Journal};
use super::target::held;
use super::{Extractor, trouble};
use crate::disk::directory::ensure_owner_access;
use crate::error::{Error, Result};
use crate::tree::TreePath;
use crate::tree::target_state::{self, TargetState};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{fstat, fsync, sync, syncfs};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use serde_json::Value;
use std::collections::BTreeMap;

/// What is noted, and where.
#[derive(Default)]
pub(super) struct Marks {
    content: Option<Value>,
    places: Vec<Place>,
    /// The file systems that are written to, by their device numbers, each with a directory on it.
    written: BTreeMap<u64, OwnedFd>,
}

struct Place {
    path: TreePath,
    directory: OwnedFd,
    record: TargetState,
    /// What stood there before.
    earlier: Option<TargetState>,
    /// What is made in this file system, where a later run may take it away.
    journal: Option<Journal>,
}

impl Marks {
    /// Whether an entry cannot be extracted because its name is that of a record.
    pub fn is_ours(&self, path: &TreePath) -> bool {
        let is_marked = |parent| self.places.iter().any(|place| place.path == parent);
        target_state::is_name_of_ours(path.name())
            && path.parent().is_some_and(|parent| parent.is_root() || is_marked(parent))
    }
}

impl Extractor {
    /// Notes on the target that it is being filled with this, before anything is put into it. What else is mounted
    /// below gets a record of its own when it is come to, for it may be in another place the next time.
    ///
    /// A target that cannot be written does without: nothing is put into it either, but into what is mounted below.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when somebody else's file has the name of the record; otherwise what the
    /// operating system says.
    pub fn begin_state(&mut self, content: Value) -> Result<()> {
        self.marks.content = Some(content);
        if !self.user.is_root() {
            ensure_owner_access(self.descent.root());
        }
        let root = fcntl_dupfd_cloexec(self.descent.root(), 0);
        let root = root.map_err(|errno| self.trouble("open", &TreePath::root(), errno))?;
        self.mark_place(TreePath::root(), root)
    }

    /// Takes note that the descent has come to another file system.
    pub(super) fn arrive(&mut self, device: u64) -> Result<()> {
        let path = self.descent.path().clone();
        let here = |this: &mut Self| this.descent.here().and_then(|here| fcntl_dupfd_cloexec(here, 0));
        if !self.marks.written.contains_key(&device) {
            let directory = here(self).map_err(|errno| self.trouble("open", &path, errno))?;
            self.marks.written.insert(device, directory);
        }
        if self.marks.content.is_some() && !self.marks.places.iter().any(|place| place.path == path) {
            let directory = here(self).map_err(|errno| self.trouble("open", &path, errno))?;
            self.mark_place(path, directory)?;
        }
        Ok(())
    }

    fn mark_place(&mut self, path: TreePath, directory: OwnedFd) -> Result<()> {
        let Some(content) = self.marks.content.clone() else { return Ok(()) };
        let made = (|| {
            let earlier = target_state::read(directory.as_fd());
            let alone = match &earlier {
                Some(earlier) if !earlier.complete => earlier.claims(directory.as_fd()),
                _ => held(directory.as_fd(), &TreePath::root())?.something.is_none(),
            };
            let inode = fstat(&directory)?.st_ino;
            let at = target_state::place(&path);
            let record = TargetState {
                complete: false,
                content,
                alone,
                inode,
                at,
                volumes: Vec::new(),
                announced: None,
            };
            target_state::write(directory.as_fd(), &record)?;
            Ok((record, earlier))
        })();
        match made {
            Ok((record, earlier)) => {
                let journal = record.alone.then(|| Journal::begin(directory.as_fd())).flatten();
                self.marks.places.push(Place { path, directory, record, earlier, journal });
            }
            Err(Errno::ROFS | Errno::ACCESS | Errno::PERM) => {}
            Err(Errno::EXIST) => {
                let what =
                    format!("{} holds a .volio.json that volio did not write", self.shown_place(&path));
                return Err(
                    Error::refused(what).with_hint("its record would stand there: move the file away")
                );
            }
            Err(errno) => return Err(self.trouble("write the record of", &path, errno)),
        }
        Ok(())
    }

    fn shown_place(&self, path: &TreePath) -> String {
        match path.is_root() {
            true => self.target.path.display().to_string(),
            false => format!("{}{path}", self.target.shown),
        }
    }

    /// Takes back what was noted, when nothing came of it.
    pub(super) fn unmark(&mut self) {
        for Place { directory, earlier, journal, .. } in self.marks.places.drain(..) {
            if earlier.is_none() && journal.is_some() {
                journal::remove(directory.as_fd());
            }
            // What stays is a claim on an empty directory, and no harm.
            let _ = match earlier {
                Some(earlier) => target_state::write(directory.as_fd(), &earlier),
                None => target_state::remove(directory.as_fd()),
            };
        }
    }

    /// Notes that the current layer has made this.
    pub(super) fn note_made(&mut self, path: &TreePath) {
        self.layers.note(path);
        let places = self.marks.places.iter().filter(|place| path.is_in(&place.path));
        let Some(place) = places.max_by_key(|place| place.path.as_bytes().len()) else { return };
        if let Some((journal, path)) = place.journal.as_ref().zip(path.below(&place.path)) {
            journal.note(&path);
        }
    }

    /// Removes the journals: now everything is there.
    pub(super) fn end_journals(&mut self) {
        for Place { directory, journal, .. } in &mut self.marks.places {
            if journal.take().is_some() {
                journal::remove(directory.as_fd());
            }
        }
    }

    /// Has every file system that was written to write everything to the disk; then, and not before, notes that
    /// everything is there.
    pub(super) fn seal(&mut self) -> Result<()> {
        let failed = |this: &Self, errno| {
            Error::io(format!("cannot write {} to the disk", this.target.path.display()), errno)
        };
        if self.options.sync {
            let root = self.descent.root();
            for directory in self.marks.written.values().map(AsFd::as_fd).chain([root]) {
                match syncfs(directory) {
                    // It may be passed and not listed, so what is open is a mere place.
                    Err(Errno::BADF) => sync(),
                    synced => synced.map_err(|errno| failed(self, errno))?,
                }
            }
        }
        let places = self.marks.places.iter().map(|place| &place.record.at);
        let volumes: Vec<String> = places.filter(|at| !at.is_empty()).cloned().collect();
        for Place { path, directory, record, .. } in &mut self.marks.places {
            record.complete = true;
            record.volumes.clone_from(&volumes);
            target_state::write(directory.as_fd(), record)
                .map_err(|errno| trouble(&self.target.shown, "write the record of", path, errno))?;
            if self.options.sync {
                fsync(&*directory)
                    .map_err(|errno| trouble(&self.target.shown, "write the record of", path, errno))?;
            }
        }
        Ok(())
    }
}
