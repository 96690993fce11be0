//! The layer that created each path, so that a whiteout removes what the image had and never what was in the target.

use super::Extractor;
use super::front_coded::FrontCodedMap;
use crate::disk::remove::{self, RemovalError, RemovalRules, Removed};
use crate::error::{Error, Result};
use crate::tree::TreePath;
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::iter;
use std::ops::Bound;

/// The memory of a path in a set besides its bytes.
const SET_ENTRY_MEMORY: usize = 64;

/// The paths that were created, each with the last layer that has it.
pub(super) struct Provenance {
    current: u32,
    /// `None` where a single layer is extracted: it has no whiteouts that apply, and a large tree would take much memory.
    layers: Option<FrontCodedMap>,
    /// Directories from which the current layer has removed everything of earlier layers. Their contents are of the current
    /// layer now, or lead to such, and need not be searched again.
    cleared: BTreeSet<TreePath>,
    /// The memory of `cleared`, in bytes.
    cleared_memory: usize,
}

impl Provenance {
    /// An empty map; `is_recorded` is false if it will never be used.
    pub fn new(is_recorded: bool) -> Self {
        let layers = is_recorded.then(FrontCodedMap::default);
        Self { current: 0, layers, cleared: BTreeSet::new(), cleared_memory: 0 }
    }

    pub fn begin_layer(&mut self) {
        self.current += 1;
        self.cleared.clear();
        self.cleared_memory = 0;
    }

    /// Returns the memory that is held, in bytes.
    pub fn memory(&self) -> usize {
        self.layers.as_ref().map_or(0, FrontCodedMap::memory) + self.cleared_memory
    }

    /// Records that the current layer created a path.
    pub fn record(&mut self, path: &TreePath) {
        if let Some(layers) = &mut self.layers {
            layers.insert(path, self.current);
        }
    }

    /// Records that the current layer has a directory that exists, if a layer created it.
    pub fn mention(&mut self, path: &TreePath) {
        if self.contains(path) {
            self.record(path);
        }
    }

    /// Returns whether a layer is recorded for a path.
    pub fn contains(&self, path: &TreePath) -> bool {
        self.layer(path).is_some()
    }

    /// Returns the layer that is recorded for a path.
    fn layer(&self, path: &TreePath) -> Option<u32> {
        self.layers.as_ref().and_then(|layers| layers.get(path))
    }

    /// Returns some of the paths in a directory, the last ones before `end`, with their layers.
    fn last_in(&self, directory: &TreePath, end: Bound<&TreePath>) -> Vec<(TreePath, u32)> {
        self.layers.as_ref().map_or_else(Vec::new, |layers| layers.last_below(directory, end))
    }

    /// Records that the current layer has removed everything of earlier layers from a directory.
    fn set_cleared(&mut self, directory: &TreePath) {
        let is_empty = self.layers.as_ref().is_none_or(|layers| layers.below(directory).next().is_none());
        if !is_empty && self.cleared.insert(directory.clone()) {
            self.cleared_memory += directory.as_bytes().len() + SET_ENTRY_MEMORY;
        }
    }

    /// Returns the uppermost cleared directory between `directory`, which is not included, and a path in it.
    fn cleared_between(&self, directory: &TreePath, path: &TreePath) -> Option<TreePath> {
        if self.cleared.is_empty() {
            return None;
        }
        let above = iter::successors(path.parent(), TreePath::parent);
        above.take_while(|above| above != directory).filter(|above| self.cleared.contains(above)).last()
    }

    /// Returns whether a directory, or one that contains it, was cleared.
    fn is_cleared(&self, directory: &TreePath) -> bool {
        !self.cleared.is_empty()
            && iter::successors(Some(directory.clone()), TreePath::parent)
                .any(|above| self.cleared.contains(&above))
    }

    /// Returns whether the current layer has an entry in a directory.
    fn has_current_below(&self, directory: &TreePath) -> bool {
        let mut below = self.layers.iter().flat_map(|layers| layers.below(directory));
        below.any(|(_, layer)| layer == self.current)
    }

    fn forget(&mut self, path: &TreePath) {
        if let Some(layers) = &mut self.layers {
            layers.remove(path);
        }
    }
}

impl Extractor {
    /// Removes what earlier layers created at `path` and below. Entries of this layer, and files that were in the
    /// target before, stay.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn whiteout(&mut self, path: &TreePath) -> Result<()> {
        let removed = self.apply_whiteout(path);
        self.in_order(removed)
    }

    fn apply_whiteout(&mut self, path: &TreePath) -> Result<()> {
        let Some(path) = &self.locate(path)? else { return Ok(()) };
        self.clear_directory(path)?;
        if self.provenance.layer(path).is_some_and(|layer| layer < self.provenance.current) {
            self.remove_created(path)?;
        }
        Ok(())
    }

    /// Removes what earlier layers created in the directory `path`, and keeps the directory. Entries of this layer, and
    /// files that were in the target before, stay.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn opaque(&mut self, path: &TreePath) -> Result<()> {
        let removed = match self.locate_directory(path) {
            Ok(Some(directory)) => self.clear_directory(&directory),
            located => located.map(|_| ()),
        };
        self.in_order(removed)
    }

    /// Removes what earlier layers created in a directory.
    fn clear_directory(&mut self, path: &TreePath) -> Result<()> {
        if self.provenance.is_cleared(path) {
            return Ok(());
        }
        self.remove_created_in(path, self.provenance.current)?;
        self.provenance.set_cleared(path);
        Ok(())
    }

    /// Removes what layers before `end_layer` created in a directory, the contents of a directory before the directory
    /// itself.
    fn remove_created_in(&mut self, directory: &TreePath, end_layer: u32) -> Result<()> {
        let mut end = directory.end().map_or(Bound::Unbounded, Bound::Excluded);
        loop {
            let some = self.provenance.last_in(directory, end.as_ref());
            if some.is_empty() {
                return Ok(());
            }
            for (path, layer) in some.into_iter().rev() {
                if let Some(cleared) = self.provenance.cleared_between(directory, &path) {
                    end = Bound::Included(cleared);
                    break;
                }
                if layer < end_layer {
                    self.remove_created(&path)?;
                }
                end = Bound::Excluded(path);
            }
        }
    }

    /// Removes the entry at `path`, whichever layer created it; a directory only if it is empty.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn take_back(&mut self, path: &TreePath) -> Result<()> {
        let removed = self.remove_created(path);
        self.in_order(removed)
    }

    /// Removes a directory that is an obstacle, with everything that layers created in it.
    ///
    /// # Errors
    /// When it holds something else.
    pub(super) fn remove_directory(&mut self, path: &TreePath) -> Result<()> {
        if self.provenance.has_current_below(path) {
            return Err(duplicate(path));
        }
        self.remove_created_in(path, u32::MAX)?;
        self.enter_parent(path)?;
        match self.stack.here().and_then(|here| unlinkat(here, path.name(), AtFlags::REMOVEDIR)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.is_of_image(path) => return Err(duplicate(path)),
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.options.force => self.remove_foreign(path)?,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let what = format!("{}{path} is a directory with something in it", self.target.shown);
                return Err(Error::refused(what).with_hint(
                    "the image has something else there; move the directory away, or use --force",
                ));
            }
            Err(Errno::BUSY) => return Err(mounted(&self.target.shown, path)),
            Err(errno) => return Err(self.io_error("remove", path, errno)),
        }
        self.provenance.forget(path);
        self.directories.remove(path);
        Ok(())
    }

    /// Removes a directory with everything that was in it before, except for mount points.
    fn remove_foreign(&mut self, path: &TreePath) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        let full_path = |path: &[u8]| parent.append(&TreePath::parse(path).unwrap_or_default());
        // No path has a NUL byte.
        let name = CString::new(path.name()).unwrap_or_default();
        let removed = match self.stack.here() {
            Ok(here) => remove::entry(here, &name, &RemovalRules::EVERYTHING),
            Err(errno) => return Err(self.io_error("remove", path, errno)),
        };
        match removed {
            Ok(Removed { mounted: None, .. }) => Ok(()),
            Ok(Removed { mounted: Some(path), .. }) => Err(mounted(&self.target.shown, &full_path(&path))),
            Err(RemovalError { path, errno }) => Err(self.io_error("remove", &full_path(&path), errno)),
        }
    }

    /// Returns whether an entry came with the image: it was created by this run, or the target was empty before.
    pub(super) fn is_of_image(&self, path: &TreePath) -> bool {
        self.is_exclusive
            || self.provenance.contains(path)
            || self.directories.get(path).is_some_and(|directory| directory.is_created)
    }

    /// Removes an entry that a layer created; a directory only if it is empty.
    fn remove_created(&mut self, path: &TreePath) -> Result<()> {
        self.finish_small_file(path);
        let parent = path.parent().unwrap_or_default();
        let removed = self.stack.goto(&parent).and_then(|()| {
            let here = self.stack.here()?;
            match unlinkat(here, path.name(), AtFlags::empty()) {
                Err(Errno::ISDIR) => unlinkat(here, path.name(), AtFlags::REMOVEDIR),
                result => result,
            }
        });
        match removed {
            // It holds something that was there before, or that this layer created.
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(()),
            // It is gone already, or its directory was replaced.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(self.io_error("remove", path, errno)),
        }
        if self.is_counted(path) {
            self.extracted.entries = self.extracted.entries.saturating_sub(1);
        }
        self.provenance.forget(path);
        self.directories.remove(path);
        Ok(())
    }
}

/// The error for a mount point where the image has another kind of entry; `shown` is the target as messages show it.
pub(super) fn mounted(shown: &str, path: &TreePath) -> Error {
    Error::refused(format!("something is mounted on {shown}{path}"))
        .with_hint("the image has something else than a directory there")
}

fn duplicate(path: &TreePath) -> Error {
    Error::integrity(format!("the image has {path} twice: as a directory and as a file"))
        .with_hint("it was made wrongly")
}
