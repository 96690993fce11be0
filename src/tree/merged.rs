//! A whole tree in memory: the result of several layers, or of a walk.

use super::entry::xattrs_memory;
use super::path_map::{NodeId, PathMap};
use super::{Entry, EntryKind, Metadata, Time, TreePath};
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;

/// A tree in which each entry has a value of type `T`. Paths are built on demand and not stored.
#[derive(Debug)]
pub struct MergedTree<T = ()> {
    names: PathMap<Name>,
    inodes: Vec<Inode<T>>,
    /// For inodes with several names, the name that is not a hard link.
    first: HashMap<usize, NodeId>,
}

/// A name of an inode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    /// The last layer that has the name.
    pub layer: NonZeroU32,
    /// The number of the inode; the lowest bit is set if the inode had a name already.
    inode: u32,
}

impl Name {
    /// A name that a layer gives to an inode.
    pub fn new(layer: NonZeroU32, inode: usize, is_link: bool) -> Self {
        // The map has more nodes than there can be inodes, so that the number fits.
        Self { layer, inode: (inode as u32) << 1 | u32::from(is_link) }
    }

    /// The number of the inode.
    pub fn inode(self) -> usize {
        (self.inode >> 1) as usize
    }

    /// Returns whether the inode had a name already.
    pub fn is_link(self) -> bool {
        self.inode & 1 == 1
    }
}

/// An inode: an entry without its names.
#[derive(Debug)]
pub(super) struct Inode<T> {
    /// The number of its names.
    pub names: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    nanoseconds: u32,
    seconds: i64,
    kind: InodeKind,
    #[expect(clippy::box_collection, reason = "most have none, and an empty map takes three times as much")]
    xattrs: Option<Box<BTreeMap<Vec<u8>, Vec<u8>>>>,
    value: T,
}

/// The kind of an inode. It is smaller than an [`EntryKind`], because it cannot be a hard link.
#[derive(Debug)]
enum InodeKind {
    File(u64),
    Directory,
    Symlink(Box<[u8]>),
    Fifo,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

/// The memory of an allocation besides its bytes.
const ALLOCATION_MEMORY: usize = 16;

impl<T> Inode<T> {
    /// An inode without a name. A hard link must be resolved before.
    pub fn new(kind: &EntryKind, metadata: &Metadata, value: T) -> Self {
        let kind = match kind {
            EntryKind::File { size } => InodeKind::File(*size),
            EntryKind::Directory => InodeKind::Directory,
            EntryKind::Symlink { target } => InodeKind::Symlink(target.as_slice().into()),
            EntryKind::Hardlink { target } => InodeKind::Symlink(target.as_bytes().into()),
            EntryKind::Fifo => InodeKind::Fifo,
            EntryKind::CharDevice { major, minor } => InodeKind::CharDevice(*major, *minor),
            EntryKind::BlockDevice { major, minor } => InodeKind::BlockDevice(*major, *minor),
        };
        let Metadata { mode, uid, gid, mtime, xattrs } = metadata;
        let xattrs = (!xattrs.is_empty()).then(|| Box::new(xattrs.clone()));
        let Time { seconds, nanoseconds } = *mtime;
        let (mode, uid, gid) = (*mode, *uid, *gid);
        Self { names: 0, mode, uid, gid, nanoseconds, seconds, kind, xattrs, value }
    }

    /// Returns the memory that the inode takes, in bytes.
    pub fn memory(&self) -> usize {
        let target = match &self.kind {
            InodeKind::Symlink(target) => target.len() + ALLOCATION_MEMORY,
            _ => 0,
        };
        size_of::<Self>() + target + self.xattrs.as_deref().map_or(0, xattrs_memory)
    }

    pub fn is_directory(&self) -> bool {
        matches!(self.kind, InodeKind::Directory)
    }

    /// The target of a symbolic link.
    pub fn target(&self) -> Option<&[u8]> {
        match &self.kind {
            InodeKind::Symlink(target) => Some(target),
            _ => None,
        }
    }

    fn kind(&self) -> EntryKind {
        match &self.kind {
            InodeKind::File(size) => EntryKind::File { size: *size },
            InodeKind::Directory => EntryKind::Directory,
            InodeKind::Symlink(target) => EntryKind::Symlink { target: target.to_vec() },
            InodeKind::Fifo => EntryKind::Fifo,
            InodeKind::CharDevice(major, minor) => EntryKind::CharDevice { major: *major, minor: *minor },
            InodeKind::BlockDevice(major, minor) => EntryKind::BlockDevice { major: *major, minor: *minor },
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
    pub(super) fn new(names: PathMap<Name>, inodes: Vec<Inode<T>>) -> Self {
        let mut tree = Self { names, inodes, first: HashMap::new() };
        let mut first = HashMap::new();
        for (node, name) in tree.shared() {
            // If the entry with the first name is gone, the next name in order takes its place.
            if name.is_link() {
                first.entry(name.inode()).or_insert(node);
            } else {
                first.insert(name.inode(), node);
            }
        }
        tree.first = first;
        tree
    }

    /// Makes the first name in order of each inode the one that is not a hard link, whatever the layers say.
    #[must_use]
    pub fn with_first_names(mut self) -> Self {
        let mut first = HashMap::new();
        for (node, name) in self.shared() {
            first.entry(name.inode()).or_insert(node);
        }
        self.first = first;
        self
    }

    /// Returns the names of inodes that have several, in order.
    fn shared(&self) -> impl Iterator<Item = (NodeId, Name)> + '_ {
        let any = self.inodes.iter().any(|inode| inode.names > 1);
        let nodes = any.then(|| self.names.walk(NodeId::ROOT)).into_iter().flatten();
        let named = nodes.filter_map(|node| self.names.value(node).map(|name| (node, *name)));
        named.filter(|(_, name)| self.inodes[name.inode()].names > 1)
    }

    /// Returns all entries with their values, in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (Entry, &T)> + '_ {
        self.names.walk(NodeId::ROOT).filter_map(|node| self.entry(node))
    }

    /// Returns all entries, in the order of their paths.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        self.iter().map(|(entry, _)| entry)
    }

    /// Returns the values of all entries, in no particular order. Several names of an inode have one value.
    pub fn values(&self) -> impl Iterator<Item = &T> + '_ {
        self.inodes.iter().filter(|inode| inode.names > 0).map(|inode| &inode.value)
    }

    /// Returns the entry at a path.
    pub fn get(&self, path: &TreePath) -> Option<(Entry, &T)> {
        self.entry(self.names.find(path)?)
    }

    /// Returns the value of the entry at a path, to be changed for all names of the entry.
    pub fn get_mut(&mut self, path: &TreePath) -> Option<&mut T> {
        let name = *self.names.value(self.names.find(path)?)?;
        self.inodes.get_mut(name.inode()).map(|inode| &mut inode.value)
    }

    /// Returns the entries at a path and below it, in the order of paths.
    pub fn below(&self, path: &TreePath) -> impl Iterator<Item = (Entry, &T)> + '_ {
        let nodes = self.names.find(path).map(|node| self.names.walk(node));
        nodes.into_iter().flatten().filter_map(|node| self.entry(node))
    }

    /// Returns the direct children of a directory, in the order of names.
    pub fn children(&self, path: &TreePath) -> impl Iterator<Item = (Entry, &T)> + use<'_, T> {
        let children = self.names.find(path).map(|node| self.names.children(node));
        let mut children: Vec<_> = children.into_iter().flatten().collect();
        children.sort_unstable_by(|one, other| self.names.name(*one).cmp(self.names.name(*other)));
        children.into_iter().filter_map(|node| self.entry(node))
    }

    /// Returns the size of each file, and `None` for anything else, with the mtime. Each inode is returned once, however many
    /// names it has, in no particular order.
    pub fn sizes_and_mtimes(&self) -> impl Iterator<Item = (Option<u64>, Time)> + '_ {
        self.inodes.iter().filter(|inode| inode.names > 0).map(|inode| {
            let size = match inode.kind {
                InodeKind::File(size) => Some(size),
                _ => None,
            };
            (size, Time { seconds: inode.seconds, nanoseconds: inode.nanoseconds })
        })
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.inodes.iter().map(|inode| inode.names as usize).sum()
    }

    /// Returns whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the kind of an entry of this tree; for a hard link, that of the entry that it leads to.
    pub fn resolved_kind(&self, entry: &Entry) -> EntryKind {
        if !matches!(entry.kind, EntryKind::Hardlink { .. }) {
            return entry.kind.clone();
        }
        let name = self.names.find(&entry.path).and_then(|node| self.names.value(node));
        name.map_or_else(|| entry.kind.clone(), |name| self.inodes[name.inode()].kind())
    }

    fn entry(&self, node: NodeId) -> Option<(Entry, &T)> {
        let name = self.names.value(node)?;
        let inode = &self.inodes[name.inode()];
        let kind = match self.first.get(&name.inode()) {
            Some(first) if *first != node => EntryKind::Hardlink { target: self.names.path(*first) },
            _ => inode.kind(),
        };
        Some((Entry { path: self.names.path(node), kind, metadata: inode.metadata() }, &inode.value))
    }
}
