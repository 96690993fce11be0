//! What a tree would be, after layers were extracted, without making it.
//!
//! The rules are those of [`Extractor`](super::Extractor), and a test with random layers proves that the two agree:
//!
//! - Entries count in the order in which they come. A directory over a directory keeps what is in it; everything else
//!   takes the place of what was there.
//! - What leads to an entry is a directory, or becomes a plain one; or a symbolic link to a directory that is there, and then the
//!   entry is in that one ([`Resolution`]). The same is true of whiteouts and of what hard links lead to.
//! - A directory gives way to something else with all that earlier layers have in it. If its own layer has something
//!   in it, the layer contradicts itself.
//! - A hard link is another name of what is there when it comes, which is no directory and not below the link itself.
//! - A whiteout removes what earlier layers have, and never what its own layer has, wherever it stands in it.

use super::merged::{MergedTree, Name, Thing};
use super::path_map::{NodeId, PathMap};
use super::resolution::{Blocked, Moved, Resolution, Step};
use super::{Entry, EntryKind, Metadata, TreePath};
use crate::error::{Error, Result};
use std::num::NonZeroU32;

/// Layers over layers, in memory; with each entry stands what was learned when it came.
#[derive(Debug)]
pub struct Overlay<T = ()> {
    layer: NonZeroU32,
    names: PathMap<Name>,
    /// What names are for, by the numbers in them.
    things: Vec<Thing<T>>,
    /// Things that have no name any more.
    nameless: Vec<u32>,
    moved: Moved,
}

impl<T: Clone + Default> Overlay<T> {
    /// An empty tree whose names and attributes may take this many bytes of memory.
    pub fn within(memory: u64) -> Self {
        Self {
            layer: NonZeroU32::MIN,
            names: PathMap::within(memory),
            things: Vec::new(),
            nameless: Vec::new(),
            moved: Moved::default(),
        }
    }

    /// What comes from now on belongs to the next layer.
    pub fn begin_layer(&mut self) {
        self.layer = self.layer.saturating_add(1);
    }

    /// Puts an entry where it belongs, in place of what was there. What was learned of a hard link is what was learned
    /// of the entry that it leads to, and the default of `T` of a directory that only a path below it mentions.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the entry makes no sense there, or takes more memory than is
    /// allowed.
    pub fn put(&mut self, entry: &Entry, learned: T) -> Result<()> {
        let Entry { path, kind, metadata } = entry;
        if let Some(why) = entry.impossible() {
            return Err(Error::integrity(format!("{path} {why}")));
        }
        if path.is_root() && *kind != EntryKind::Directory {
            return Err(Error::integrity("the root of the image is not a directory"));
        }
        let located = self.locate(path).and_then(|place| self.moved.count(path, place));
        let path = &located.map_err(|blocked| blocked.error(path))?;
        let parent = self.make_parents(path)?;
        let linked = match kind {
            EntryKind::Hardlink { target } => Some(self.linked(path, target)?),
            _ => None,
        };
        let before = match path.is_root() {
            true => Some(NodeId::ROOT),
            false => self.names.child(parent, path.name()),
        };
        if *kind != EntryKind::Directory
            && let Some(before) = before
        {
            self.clear_directory(before, path)?;
        }
        let thing = match linked {
            Some(thing) => thing,
            None => self.add(Thing::new(kind, metadata, learned))?,
        };
        let node = match path.is_root() {
            true => NodeId::ROOT,
            false => self.names.make_child(parent, path.name())?,
        };
        self.name(node, thing, linked.is_some());
        Ok(())
    }

    /// Removes what earlier layers have at `path` and below.
    pub fn whiteout(&mut self, path: &TreePath) {
        let Ok(path) = self.locate(path) else { return };
        let Some(node) = self.names.find(&path) else { return };
        self.clear(node);
        if self.names.value(node).is_some_and(|name| name.layer < self.layer) {
            self.remove(node);
        }
    }

    /// Removes what earlier layers have in the directory `path`.
    pub fn opaque(&mut self, path: &TreePath) {
        let directory = self.resolve(path).ok().and_then(|path| self.names.find(&path));
        if let Some(directory) = directory {
            self.clear(directory);
        }
    }

    /// The tree. Of several names of one thing, one has it and the others are hard links to that.
    pub fn finish(self) -> MergedTree<T> {
        MergedTree::new(self.names, self.things)
    }

    /// Removes what earlier layers have in a directory.
    fn clear(&mut self, directory: NodeId) {
        let earlier = self.names.earlier(directory, self.layer.get(), |name| name.layer.get());
        earlier.into_iter().for_each(|node| self.remove(node));
    }

    fn add(&mut self, thing: Thing<T>) -> Result<usize> {
        self.names.hold(thing.memory())?;
        if let Some(free) = self.nameless.pop() {
            self.things[free as usize] = thing;
            return Ok(free as usize);
        }
        self.things.push(thing);
        Ok(self.things.len() - 1)
    }

    /// Gives a name to a thing.
    fn name(&mut self, node: NodeId, thing: usize, is_link: bool) {
        self.things[thing].names += 1;
        let before = self.names.value_mut(node).replace(Name::new(self.layer, thing, is_link));
        self.forget(before);
    }

    /// Removes something; a directory only when nothing is in it.
    fn remove(&mut self, node: NodeId) {
        if self.names.is_leaf(node) {
            let name = self.names.remove_node(node);
            self.forget(name);
        }
    }

    fn forget(&mut self, name: Option<Name>) {
        let Some(name) = name else { return };
        let thing = &mut self.things[name.thing()];
        thing.names -= 1;
        if thing.names == 0 {
            self.names.release(thing.memory());
            self.nameless.push(name.thing() as u32);
        }
    }

    /// The place of an entry after the links that lead to it.
    ///
    /// # Errors
    /// When it leads through something else than directories and links to them.
    pub(crate) fn locate(&self, path: &TreePath) -> Result<TreePath, Blocked> {
        match path.parent() {
            Some(parent) if !self.is_known_directory(&parent) => Ok(self.resolve(&parent)?.join(path.name())),
            _ => Ok(path.clone()),
        }
    }

    /// The directory that a path means. What is missing there is as a directory, unless a link leads to it.
    ///
    /// # Errors
    /// As [`locate`](Self::locate).
    pub(crate) fn resolve(&self, path: &TreePath) -> Result<TreePath, Blocked> {
        let mut at = TreePath::root();
        let mut steps = Resolution::of(path);
        while let Some(step) = steps.next() {
            at = match step {
                Step::Root => TreePath::root(),
                Step::Up => at.parent().unwrap_or_default(),
                Step::Enter { name, from_link } => {
                    let next = at.join(&name);
                    match self.thing_at(&next).map(|(_, thing)| (thing.is_directory(), thing.target())) {
                        Some((true, _)) => next,
                        Some((false, Some(target))) => {
                            steps.follow(target)?;
                            at
                        }
                        Some(_) => return Err(Blocked::NotADirectory(next)),
                        None if from_link => return Err(Blocked::Missing(next)),
                        None => next,
                    }
                }
            };
        }
        Ok(at)
    }

    /// What is at a path.
    fn thing_at(&self, path: &TreePath) -> Option<(usize, &Thing<T>)> {
        let name = self.names.value(self.names.find(path)?)?;
        Some((name.thing(), &self.things[name.thing()]))
    }

    fn is_known_directory(&self, path: &TreePath) -> bool {
        path.is_root() || self.thing_at(path).is_some_and(|(_, thing)| thing.is_directory())
    }

    /// The directory that a path is in, after the links that lead there; plain directories are made of what is missing.
    fn make_parents(&mut self, path: &TreePath) -> Result<NodeId> {
        let mut node = NodeId::ROOT;
        let depth = path.names().count().saturating_sub(1);
        for name in path.names().take(depth) {
            node = match self.names.child(node, name) {
                Some(child) => child,
                None => {
                    let metadata = Metadata::implied_directory();
                    let thing = self.add(Thing::new(&EntryKind::Directory, &metadata, T::default()))?;
                    let child = self.names.make_child(node, name)?;
                    self.name(child, thing, false);
                    child
                }
            };
        }
        Ok(node)
    }

    /// What a hard link is another name of.
    fn linked(&self, path: &TreePath, target: &TreePath) -> Result<usize> {
        let senseless = |why: &str| Error::integrity(format!("{path} is a hard link to {target}, {why}"));
        let target = &self.locate(target).map_err(|blocked| senseless(blocked.of_hard_link()))?;
        match self.thing_at(target) {
            _ if target.is_in(path) => Err(senseless("which it would replace")),
            None => Err(senseless("which is not there")),
            Some((_, thing)) if thing.is_directory() => Err(senseless("which is a directory")),
            Some((number, _)) => Ok(number),
        }
    }

    /// Makes room for something that is no directory.
    fn clear_directory(&mut self, node: NodeId, path: &TreePath) -> Result<()> {
        if self.names.is_leaf(node) {
            return Ok(());
        }
        self.clear(node);
        match self.names.is_leaf(node) {
            true => Ok(()),
            false => {
                Err(Error::integrity(format!("the image has {path} twice: as a directory and as a file"))
                    .with_hint("it was made wrongly"))
            }
        }
    }
}
