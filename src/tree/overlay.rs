//! The tree that the extraction of layers would give, computed in memory.
//!
//! The rules are those of [`Extractor`](super::Extractor), and a test with random layers checks that the two agree:
//!
//! - Entries apply in their order. A directory over a directory keeps the contents; every other entry replaces what has
//!   its path.
//! - The path of an entry leads through directories, and missing ones are created. It may lead through a symbolic link to an
//!   existing directory, and then the entry is in that directory ([`Resolution`]). The same applies to whiteouts and to the
//!   targets of hard links.
//! - A directory can be replaced by another kind of entry, with everything that earlier layers have in it. If its own layer
//!   has an entry in it, the layer contradicts itself.
//! - A hard link is another name of an existing entry, which is not a directory and not below the link itself.
//! - A whiteout removes entries of earlier layers, and never entries of the same layer, whatever their order is.

use super::merged::{Inode, MergedTree, Name};
use super::path_map::{NameSlot, NodeId, PathMap};
use super::resolution::{Blocked, RelocatedPaths, Resolution, Step};
use super::{Entry, EntryKind, TreePath};
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::num::NonZeroU32;

/// Layers over layers, in memory. Each entry has a value of type `T`.
#[derive(Debug)]
pub struct Overlay<T = ()> {
    layer: NonZeroU32,
    names: PathMap<Name>,
    /// The inodes, by the numbers in names.
    inodes: Vec<Inode<T>>,
    /// The numbers of inodes without a name, which can be used again.
    free_inodes: Vec<u32>,
    relocated: RelocatedPaths,
    leads_through_links: bool,
    /// The directory of the last entry, which the next entry is often in too. It is `None` after entries were removed.
    last_directory: Option<(TreePath, NodeId)>,
}

impl<T: Clone + Default> Overlay<T> {
    /// An empty tree with a limit on the memory of names and attributes, in bytes.
    pub fn within(memory: u64) -> Self {
        Self {
            layer: NonZeroU32::MIN,
            names: PathMap::within(memory),
            inodes: Vec::new(),
            free_inodes: Vec::new(),
            relocated: RelocatedPaths::default(),
            leads_through_links: false,
            last_directory: None,
        }
    }

    /// Begins the next layer.
    pub fn begin_layer(&mut self) {
        self.layer = self.layer.saturating_add(1);
    }

    /// Adds an entry, in place of an earlier entry with the same path. A hard link has the value of the entry that it leads
    /// to, and an implied directory has the default of `T`.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the entry is inconsistent with those before, or takes more
    /// memory than is allowed.
    pub fn put(&mut self, entry: &Entry, value: T) -> Result<()> {
        let Entry { path, kind, metadata } = entry;
        if let Some(why) = entry.impossible() {
            return Err(Error::integrity(format!("{path} {why}")));
        }
        if path.is_root() && *kind != EntryKind::Directory {
            return Err(Error::integrity("the root of the image is not a directory"));
        }
        let (path, parent) = &self.locate_in(path)?;
        let parent = *parent;
        let linked = match kind {
            EntryKind::Hardlink { target } => Some(self.linked(path, target)?),
            _ => None,
        };
        let slot =
            if path.is_root() { NameSlot::Taken(NodeId::ROOT) } else { self.names.slot(parent, path.name()) };
        if *kind != EntryKind::Directory
            && let NameSlot::Taken(before) = slot
        {
            self.clear_directory(before, path)?;
        }
        let inode = match linked {
            Some(inode) => inode,
            None => self.add(Inode::new(kind, metadata, value))?,
        };
        let node = match slot {
            NameSlot::Taken(node) => node,
            NameSlot::Free(hash) => self.names.add_child(parent, path.name(), hash)?,
        };
        self.name(node, inode, linked.is_some());
        Ok(())
    }

    /// Returns the path of an entry after the links in its path were resolved, and the directory that it is in. Missing
    /// directories are created.
    fn locate_in<'p>(&mut self, path: &'p TreePath) -> Result<(Cow<'p, TreePath>, NodeId)> {
        if let Some((directory, node)) = &self.last_directory
            && path.is_child_of(directory)
        {
            return Ok((Cow::Borrowed(path), *node));
        }
        let located = self.locate(path).and_then(|resolved| self.relocated.count(path, resolved));
        let located = located.map_err(|blocked| blocked.error(path))?;
        self.leads_through_links |= located != *path;
        let parent = self.make_parents(&located)?;
        self.last_directory = located.parent().map(|directory| (directory, parent));
        Ok((Cow::Owned(located), parent))
    }

    /// Removes the entries of earlier layers at `path` and below.
    pub fn whiteout(&mut self, path: &TreePath) {
        self.last_directory = None;
        let Ok(located) = self.locate(path) else { return };
        self.leads_through_links |= located != *path;
        let path = located;
        let Some(node) = self.names.find(&path) else { return };
        self.clear(node);
        if self.names.value(node).is_some_and(|name| name.layer < self.layer) {
            self.remove(node);
        }
    }

    /// Removes the entries of earlier layers in the directory `path`.
    pub fn opaque(&mut self, path: &TreePath) {
        self.last_directory = None;
        let Ok(directory) = self.resolve(path) else { return };
        self.leads_through_links |= directory != *path;
        if let Some(directory) = self.names.find(&directory) {
            self.clear(directory);
        }
    }

    /// Returns whether the path of an entry or of a whiteout led through a symbolic link.
    pub fn leads_through_links(&self) -> bool {
        self.leads_through_links
    }

    /// Returns the tree. One of several names of an inode has its kind, and the others are hard links to that name.
    pub fn finish(self) -> MergedTree<T> {
        MergedTree::new(self.names, self.inodes)
    }

    /// Removes the entries of earlier layers in a directory.
    fn clear(&mut self, directory: NodeId) {
        let earlier = self.names.earlier(directory, self.layer.get(), |name| name.layer.get());
        earlier.into_iter().for_each(|node| self.remove(node));
    }

    fn add(&mut self, inode: Inode<T>) -> Result<usize> {
        self.names.hold(inode.memory())?;
        if let Some(free) = self.free_inodes.pop() {
            self.inodes[free as usize] = inode;
            return Ok(free as usize);
        }
        self.inodes.push(inode);
        Ok(self.inodes.len() - 1)
    }

    /// Gives a name to an inode.
    fn name(&mut self, node: NodeId, inode: usize, is_link: bool) {
        self.inodes[inode].names += 1;
        let before = self.names.value_mut(node).replace(Name::new(self.layer, inode, is_link));
        self.forget(before);
    }

    /// Removes an entry; a directory only if it is empty.
    fn remove(&mut self, node: NodeId) {
        if self.names.is_leaf(node) {
            let name = self.names.remove_node(node);
            self.forget(name);
        }
    }

    fn forget(&mut self, name: Option<Name>) {
        let Some(name) = name else { return };
        let inode = &mut self.inodes[name.inode()];
        inode.names -= 1;
        if inode.names == 0 {
            self.names.release(inode.memory());
            self.free_inodes.push(name.inode() as u32);
        }
    }

    /// Returns the path of an entry after the links in its path were resolved.
    ///
    /// # Errors
    /// When the path leads through anything but directories and links to directories.
    pub(crate) fn locate(&self, path: &TreePath) -> Result<TreePath, Blocked> {
        match path.parent() {
            Some(parent) if !self.is_known_directory(&parent) => Ok(self.resolve(&parent)?.join(path.name())),
            _ => Ok(path.clone()),
        }
    }

    /// Returns the directory that a path leads to. A missing component counts as a directory, unless a link leads to it.
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
                    match self.inode_at(&next).map(|(_, inode)| (inode.is_directory(), inode.target())) {
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

    /// Returns the inode at a path, with its number.
    fn inode_at(&self, path: &TreePath) -> Option<(usize, &Inode<T>)> {
        let name = self.names.value(self.names.find(path)?)?;
        Some((name.inode(), &self.inodes[name.inode()]))
    }

    fn is_known_directory(&self, path: &TreePath) -> bool {
        path.is_root() || self.inode_at(path).is_some_and(|(_, inode)| inode.is_directory())
    }

    /// Returns the directory of a path, in which links were resolved already. Missing directories are created.
    fn make_parents(&mut self, path: &TreePath) -> Result<NodeId> {
        let mut node = NodeId::ROOT;
        let depth = path.depth().saturating_sub(1);
        for name in path.names().take(depth) {
            node = match self.names.child(node, name) {
                Some(child) => child,
                None => {
                    let Entry { kind, metadata, .. } = Entry::implied_directory(TreePath::root());
                    let inode = self.add(Inode::new(&kind, &metadata, T::default()))?;
                    let child = self.names.make_child(node, name)?;
                    self.name(child, inode, false);
                    child
                }
            };
        }
        Ok(node)
    }

    /// Returns the number of the inode that a hard link leads to.
    fn linked(&self, path: &TreePath, target: &TreePath) -> Result<usize> {
        let invalid = |why: &str| Error::integrity(format!("{path} is a hard link to {target}, {why}"));
        let target = &self.locate(target).map_err(|blocked| invalid(blocked.of_hard_link()))?;
        match self.inode_at(target) {
            _ if target.is_in(path) => Err(invalid("which it would replace")),
            None => Err(invalid("which is not there")),
            Some((_, inode)) if inode.is_directory() => Err(invalid("which is a directory")),
            Some((number, _)) => Ok(number),
        }
    }

    /// Removes the contents of a directory that is about to be replaced by another kind of entry.
    fn clear_directory(&mut self, node: NodeId, path: &TreePath) -> Result<()> {
        if self.names.is_leaf(node) {
            return Ok(());
        }
        self.clear(node);
        if self.names.is_leaf(node) {
            return Ok(());
        }
        Err(Error::integrity(format!("the image has {path} twice: as a directory and as a file"))
            .with_hint("it was made wrongly"))
    }
}
