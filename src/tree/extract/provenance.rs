//! Which layer made what, so that a whiteout removes what the image had and never what was in the target.

use super::Extractor;
use super::front_coded::Made;
use crate::disk::remove::{self, Failure, Removal, Removed};
use crate::error::{Error, Result};
use crate::tree::TreePath;
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::iter;
use std::ops::Bound;

/// What a path takes in a set beside its bytes.
const CLEARED: usize = 64;

/// What was made, and in which layer it was last mentioned.
pub(super) struct Layers {
    current: u32,
    /// Empty where a single layer comes: nothing will ever ask, and a large tree would cost much memory.
    made: Option<Made>,
    /// Directories from which the current layer has removed all that earlier ones made. What is in them now is its own, or
    /// leads to that, and need not be looked through again.
    cleared: BTreeSet<TreePath>,
    /// How many bytes the paths of those take.
    cleared_memory: usize,
}

impl Layers {
    pub fn new(several: bool) -> Self {
        Self { current: 0, made: several.then(Made::default), cleared: BTreeSet::new(), cleared_memory: 0 }
    }

    pub fn begin(&mut self) {
        self.current += 1;
        self.cleared.clear();
        self.cleared_memory = 0;
    }

    /// How many bytes of memory are held.
    pub fn memory(&self) -> usize {
        self.made.as_ref().map_or(0, Made::memory) + self.cleared_memory
    }

    /// Notes that the current layer made this.
    pub fn note(&mut self, path: &TreePath) {
        if let Some(made) = &mut self.made {
            made.put(path, self.current);
        }
    }

    /// Notes that the current layer mentions a directory that is there; only if a layer made it.
    pub fn mention(&mut self, path: &TreePath) {
        if self.has_made(path) {
            self.note(path);
        }
    }

    /// Whether a layer made this, as far as that is noted.
    pub fn has_made(&self, path: &TreePath) -> bool {
        self.made.as_ref().is_some_and(|made| made.get(path).is_some())
    }

    /// Some of what was made in a directory, the last of it before `end`, with the layers that made it.
    fn last_in(&self, directory: &TreePath, end: Bound<&TreePath>) -> Vec<(TreePath, u32)> {
        self.made.as_ref().map_or_else(Vec::new, |made| made.last_below(directory, end))
    }

    /// Notes that the current layer has removed all that earlier ones made in a directory.
    fn clear(&mut self, directory: &TreePath) {
        let is_empty = self.made.as_ref().is_none_or(|made| made.below(directory).next().is_none());
        if !is_empty && self.cleared.insert(directory.clone()) {
            self.cleared_memory += directory.as_bytes().len() + CLEARED;
        }
    }

    /// The uppermost directory that was cleared of those that lead to a path from below `directory`.
    fn cleared_between(&self, directory: &TreePath, path: &TreePath) -> Option<TreePath> {
        if self.cleared.is_empty() {
            return None;
        }
        let above = iter::successors(path.parent(), TreePath::parent);
        above.take_while(|above| above != directory).filter(|above| self.cleared.contains(above)).last()
    }

    /// Whether a directory, or one that it is in, was cleared.
    fn is_cleared(&self, directory: &TreePath) -> bool {
        !self.cleared.is_empty()
            && iter::successors(Some(directory.clone()), TreePath::parent)
                .any(|above| self.cleared.contains(&above))
    }

    /// Whether the current layer has something in this directory.
    fn mentions_below(&self, directory: &TreePath) -> bool {
        let mut made = self.made.iter().flat_map(|made| made.below(directory));
        made.any(|(_, layer)| layer == self.current)
    }

    fn forget(&mut self, path: &TreePath) {
        if let Some(made) = &mut self.made {
            made.remove(path);
        }
    }
}

impl Extractor {
    /// Removes what earlier layers made at `path` and below. What this layer made, and what was in the target
    /// before, stays.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn whiteout(&mut self, path: &TreePath) -> Result<()> {
        let Some(path) = &self.place_of(path)? else { return Ok(()) };
        self.remove_below(path)?;
        let is_earlier = self.layers.made.as_ref().and_then(|made| made.get(path));
        match is_earlier.is_some_and(|layer| layer < self.layers.current) {
            true => self.remove_made(path),
            false => Ok(()),
        }
    }

    /// Removes what earlier layers made in the directory `path`, and leaves the directory. What this layer made,
    /// and what was in the target before, stays.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn opaque(&mut self, path: &TreePath) -> Result<()> {
        match self.directory_of(path)? {
            Some(directory) => self.remove_below(&directory),
            None => Ok(()),
        }
    }

    fn remove_below(&mut self, path: &TreePath) -> Result<()> {
        if self.layers.is_cleared(path) {
            return Ok(());
        }
        self.remove_made_in(path, self.layers.current)?;
        self.layers.clear(path);
        Ok(())
    }

    /// Removes what was made in a directory before the given layer, what is in a directory before that itself.
    fn remove_made_in(&mut self, directory: &TreePath, before: u32) -> Result<()> {
        let mut end = directory.end().map_or(Bound::Unbounded, Bound::Excluded);
        loop {
            let some = self.layers.last_in(directory, end.as_ref());
            if some.is_empty() {
                return Ok(());
            }
            for (path, layer) in some.into_iter().rev() {
                if let Some(cleared) = self.layers.cleared_between(directory, &path) {
                    end = Bound::Included(cleared);
                    break;
                }
                if layer < before {
                    self.remove_made(&path)?;
                }
                end = Bound::Excluded(path);
            }
        }
    }

    /// Removes what was made at `path`, in whichever layer; a directory only when it is empty.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn take_back(&mut self, path: &TreePath) -> Result<()> {
        self.remove_made(path)
    }

    /// Removes a directory that stands in the way of something else, with all that layers made in it.
    ///
    /// # Errors
    /// When it holds something else.
    pub(super) fn remove_directory(&mut self, path: &TreePath) -> Result<()> {
        if self.layers.mentions_below(path) {
            return Err(self.is_twice(path));
        }
        self.remove_made_in(path, u32::MAX)?;
        self.enter_parent(path)?;
        match self.descent.here().and_then(|here| unlinkat(here, path.name(), AtFlags::REMOVEDIR)) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.was_made(path) => {
                return Err(self.is_twice(path));
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.options.force => self.remove_foreign(path)?,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let what = format!("{}{path} is a directory with something in it", self.target.shown);
                return Err(Error::refused(what).with_hint(
                    "the image has something else there; move the directory away, or use --force",
                ));
            }
            Err(Errno::BUSY) => {
                return Err(self.is_mounted(path));
            }
            Err(errno) => return Err(self.trouble("remove", path, errno)),
        }
        self.layers.forget(path);
        self.directories.remove(path);
        Ok(())
    }

    fn is_mounted(&self, path: &TreePath) -> Error {
        Error::refused(format!("something is mounted on {}{path}", self.target.shown))
            .with_hint("the image has something else than a directory there")
    }

    fn is_twice(&self, path: &TreePath) -> Error {
        Error::integrity(format!("the image has {path} twice: as a directory and as a file"))
            .with_hint("it was made wrongly")
    }

    /// Removes a directory with all that was in it before; nothing that is mounted in it.
    fn remove_foreign(&mut self, path: &TreePath) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        let below = |place: &[u8]| parent.append(&TreePath::parse(place).unwrap_or_default());
        // No path has a zero byte.
        let name = CString::new(path.name()).unwrap_or_default();
        let removed = match self.descent.here() {
            Ok(here) => remove::entry(here, &name, &Removal::EVERYTHING),
            Err(errno) => return Err(self.trouble("remove", path, errno)),
        };
        match removed {
            Ok(Removed { mounted: None, .. }) => Ok(()),
            Ok(Removed { mounted: Some(place), .. }) => Err(self.is_mounted(&below(&place))),
            Err(Failure { path, errno }) => Err(self.trouble("remove", &below(&path), errno)),
        }
    }

    /// Whether this came with the image: it was made here, or nothing was in the target.
    pub(super) fn was_made(&self, path: &TreePath) -> bool {
        self.alone
            || self.layers.has_made(path)
            || self.directories.get(path).is_some_and(|directory| directory.made)
    }

    /// Removes something that a layer made; a directory only when it is empty.
    fn remove_made(&mut self, path: &TreePath) -> Result<()> {
        let parent = path.parent().unwrap_or_default();
        let removed = self.descent.go_to(&parent).and_then(|()| {
            let here = self.descent.here()?;
            match unlinkat(here, path.name(), AtFlags::empty()) {
                Err(Errno::ISDIR) => unlinkat(here, path.name(), AtFlags::REMOVEDIR),
                result => result,
            }
        });
        match removed {
            // Something that was there before, or that this layer made, is in it.
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(()),
            // It is gone already, or something else has taken the place of what it was in.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(self.trouble("remove", path, errno)),
        }
        self.layers.forget(path);
        self.directories.remove(path);
        Ok(())
    }
}
