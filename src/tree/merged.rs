//! A whole tree in memory: what layers came to, or what a walk has seen.

use super::entry::xattrs_memory;
use super::path_map::{NodeId, PathMap};
use super::{Entry, EntryKind, Metadata, Time, TreePath};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

/// A tree with what was learned of each entry. Paths are made when they are asked for and not held.
#[derive(Debug)]
pub struct MergedTree<T = ()> {
    names: PathMap<Name>,
    things: Vec<Thing<T>>,
    /// Which of its names a thing has that has several; the others are hard links to it.
    first: HashMap<usize, NodeId>,
}

/// A name of something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    /// The layer that mentioned it last.
    pub layer: NonZeroU32,
    /// Which thing has it, and in the lowest bit whether that had a name already.
    thing: u32,
}

impl Name {
    /// A name that this layer gives to the thing of this number.
    pub fn new(layer: NonZeroU32, thing: usize, is_link: bool) -> Self {
        // There are fewer things than the map has nodes for.
        Self { layer, thing: (thing as u32) << 1 | u32::from(is_link) }
    }

    /// The number of the thing that has this name.
    pub fn thing(self) -> usize {
        (self.thing >> 1) as usize
    }

    /// Whether it is the name of something that had a name already.
    pub fn is_link(self) -> bool {
        self.thing & 1 == 1
    }
}

/// What names are for.
#[derive(Debug)]
pub(super) struct Thing<T> {
    /// How many names it has.
    pub names: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    nanoseconds: u32,
    seconds: i64,
    shape: Shape,
    #[expect(clippy::box_collection, reason = "most have none, and an empty map takes three times as much")]
    xattrs: Option<Box<BTreeMap<Vec<u8>, Vec<u8>>>>,
    learned: T,
}

/// A [`EntryKind`] without the names of its own.
#[derive(Debug)]
enum Shape {
    File(u64),
    Directory,
    Symlink(Box<[u8]>),
    Fifo,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

/// What an allocation takes beside its bytes.
const ALLOCATION: usize = 16;

impl<T> Thing<T> {
    /// What an entry describes, still without a name. A hard link must be resolved before.
    pub fn new(kind: &EntryKind, metadata: &Metadata, learned: T) -> Self {
        let shape = match kind {
            EntryKind::File { size } => Shape::File(*size),
            EntryKind::Directory => Shape::Directory,
            EntryKind::Symlink { target } => Shape::Symlink(target.as_slice().into()),
            EntryKind::Hardlink { target } => Shape::Symlink(target.as_bytes().into()),
            EntryKind::Fifo => Shape::Fifo,
            EntryKind::CharDevice { major, minor } => Shape::CharDevice(*major, *minor),
            EntryKind::BlockDevice { major, minor } => Shape::BlockDevice(*major, *minor),
        };
        let Metadata { mode, uid, gid, mtime, xattrs } = metadata;
        let xattrs = (!xattrs.is_empty()).then(|| Box::new(xattrs.clone()));
        let Time { seconds, nanoseconds } = *mtime;
        let (mode, uid, gid) = (*mode, *uid, *gid);
        Self { names: 0, mode, uid, gid, nanoseconds, seconds, shape, xattrs, learned }
    }

    /// How many bytes it takes.
    pub fn memory(&self) -> usize {
        let target = match &self.shape {
            Shape::Symlink(target) => target.len() + ALLOCATION,
            _ => 0,
        };
        size_of::<Self>() + target + self.xattrs.as_deref().map_or(0, xattrs_memory)
    }

    pub fn is_directory(&self) -> bool {
        matches!(self.shape, Shape::Directory)
    }

    /// The target of a symbolic link.
    pub fn target(&self) -> Option<&[u8]> {
        match &self.shape {
            Shape::Symlink(target) => Some(target),
            _ => None,
        }
    }

    fn kind(&self) -> EntryKind {
        match &self.shape {
            Shape::File(size) => EntryKind::File { size: *size },
            Shape::Directory => EntryKind::Directory,
            Shape::Symlink(target) => EntryKind::Symlink { target: target.to_vec() },
            Shape::Fifo => EntryKind::Fifo,
            Shape::CharDevice(major, minor) => EntryKind::CharDevice { major: *major, minor: *minor },
            Shape::BlockDevice(major, minor) => EntryKind::BlockDevice { major: *major, minor: *minor },
        }
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: Time { seconds: self.seconds, nanoseconds: self.nanoseconds },
            xattrs: self.xattrs.as_deref().cloned().unwrap_or_default(),
        }
    }
}

impl<T> MergedTree<T> {
    pub(super) fn new(names: PathMap<Name>, things: Vec<Thing<T>>) -> Self {
        let mut tree = Self { names, things, first: HashMap::new() };
        let mut first = HashMap::new();
        for (node, name) in tree.shared() {
            // What had the first name may be gone; then the next one in order takes its place.
            match name.is_link() {
                false => _ = first.insert(name.thing(), node),
                true => _ = first.entry(name.thing()).or_insert(node),
            }
        }
        tree.first = first;
        tree
    }

    /// The same tree, where of several names of one thing the first in order has it, whatever the layers said.
    #[must_use]
    pub fn with_first_names(mut self) -> Self {
        let mut first = HashMap::new();
        for (node, name) in self.shared() {
            first.entry(name.thing()).or_insert(node);
        }
        self.first = first;
        self
    }

    /// The names of things that have several, in order.
    fn shared(&self) -> impl Iterator<Item = (NodeId, Name)> + '_ {
        let any = self.things.iter().any(|thing| thing.names > 1);
        let nodes = any.then(|| self.names.walk(NodeId::ROOT)).into_iter().flatten();
        let named = nodes.filter_map(|node| self.names.value(node).map(|name| (node, *name)));
        named.filter(|(_, name)| self.things[name.thing()].names > 1)
    }

    /// All entries, in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (Entry, &T)> + '_ {
        self.names.walk(NodeId::ROOT).filter_map(|node| self.entry(node))
    }

    /// The same without what was learned.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.iter().map(|(entry, _)| entry)
    }

    /// The entry at a path.
    pub fn get(&self, path: &TreePath) -> Option<(Entry, &T)> {
        self.entry(self.names.find(path)?)
    }

    /// What is at a path and below it, in the order of paths.
    pub fn below(&self, path: &TreePath) -> impl Iterator<Item = (Entry, &T)> + '_ {
        let nodes = self.names.find(path).map(|node| self.names.walk(node));
        nodes.into_iter().flatten().filter_map(|node| self.entry(node))
    }

    /// What is in a directory and not deeper, in the order of names.
    pub fn children(&self, path: &TreePath) -> impl Iterator<Item = (Entry, &T)> + '_ {
        let children = self.names.find(path).map(|node| self.names.children(node));
        let mut children: Vec<_> = children.into_iter().flatten().collect();
        children.sort_unstable_by(|one, other| self.names.name(*one).cmp(self.names.name(*other)));
        children.into_iter().filter_map(|node| self.entry(node))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.things.iter().map(|thing| thing.names as usize).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What something is: for a hard link, what it leads to.
    pub fn resolved_kind(&self, entry: &Entry) -> EntryKind {
        let name = self.names.find(&entry.path).and_then(|node| self.names.value(node));
        name.map_or_else(|| entry.kind.clone(), |name| self.things[name.thing()].kind())
    }

    fn entry(&self, node: NodeId) -> Option<(Entry, &T)> {
        let name = self.names.value(node)?;
        let thing = &self.things[name.thing()];
        let kind = match self.first.get(&name.thing()) {
            Some(first) if *first != node => EntryKind::Hardlink { target: self.names.path(*first) },
            _ => thing.kind(),
        };
        Some((Entry { path: self.names.path(node), kind, metadata: thing.metadata() }, &thing.learned))
    }
}
