//! A map from paths to values, for trees that are too large to hold every path as a whole.
//!
//! A path is a chain of nodes, each with its parent and its name. So the memory of a tree depends on its names and not
//! on the sum of its paths: 2 000 nested directories have 2 000 names, while their paths together have two million.

use super::TreePath;
use crate::error::{Error, Result};
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};

/// No node.
const NONE: u32 = u32::MAX;
/// The node of the root.
const ROOT: u32 = 0;
/// The memory of a node in the hash table, in bytes: an entry and its control byte, in a table that is two thirds full.
const TABLE_ENTRY_MEMORY: usize = 14;

/// A node of a [`PathMap`]. It is invalid after the node was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(u32);

impl NodeId {
    /// The root of the tree.
    pub const ROOT: Self = Self(ROOT);
}

/// The node of a name in a directory, or what it takes to add it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NameSlot {
    Taken(NodeId),
    Free(NameHash),
}

/// The hash of a name in a directory, for a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameHash(u32);

impl NameHash {
    /// Returns the hash for the table, which takes a slot from its low bits and a tag from its high ones.
    fn for_table(self) -> u64 {
        u64::from(self.0) << 32 | u64::from(self.0)
    }
}

/// A node in the hash table. With its hash, a table that grows need not read the nodes, which are all over the memory.
#[derive(Clone, Copy, Debug)]
struct TableEntry {
    hash: NameHash,
    node: u32,
}

/// A map from paths to values with a limit on its memory.
#[derive(Debug)]
pub(crate) struct PathMap<V> {
    nodes: Vec<Node<V>>,
    /// The names of all nodes, one after the other.
    names: Vec<u8>,
    /// The nodes by their parents and names.
    table: HashTable<TableEntry>,
    hasher: RandomState,
    /// The first unused node; the others follow by `next`.
    free: u32,
    /// The memory that is held, in bytes.
    held: u64,
    /// The most memory that may be held, in bytes.
    limit: u64,
}

#[derive(Debug)]
struct Node<V> {
    parent: u32,
    /// The child that was added last.
    first: u32,
    /// Neighbours among the children of the parent, in no particular order.
    next: u32,
    before: u32,
    /// The position of the name in `names`, and its length.
    at: u32,
    length: u8,
    /// See [`PathMap::earlier`].
    cleared_in: u32,
    value: Option<V>,
}

impl<V> Node<V> {
    fn new(parent: u32, next: u32, at: u32, length: u8) -> Self {
        Self { parent, first: NONE, next, before: NONE, at, length, cleared_in: 0, value: None }
    }
}

impl<V> PathMap<V> {
    /// An empty map with a limit on its memory, in bytes.
    pub fn within(limit: u64) -> Self {
        Self {
            nodes: vec![Node::new(NONE, NONE, 0, 0)],
            names: Vec::new(),
            table: HashTable::new(),
            hasher: RandomState::new(),
            free: NONE,
            held: 0,
            limit,
        }
    }

    /// Counts the memory of values outside of the map, in bytes.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the limit is exceeded.
    pub fn hold(&mut self, bytes: usize) -> Result<()> {
        self.held = self.held.saturating_add(bytes as u64);
        // Names may use all numbers of 32 bits, and nodes an eighth of them.
        let is_full = self.nodes.len() >= (NONE >> 3) as usize || self.names.len() >= NONE as usize;
        if self.held > self.limit || is_full {
            return Err(memory_exceeded(self.limit.min(NONE.into())));
        }
        Ok(())
    }

    /// Returns the memory that is held, in bytes.
    pub fn memory(&self) -> u64 {
        self.held
    }

    /// Subtracts the memory of values that are gone, in bytes.
    pub fn release(&mut self, bytes: usize) {
        self.held = self.held.saturating_sub(bytes as u64);
    }

    /// Returns the value at a path.
    pub fn get(&self, path: &TreePath) -> Option<&V> {
        self.value(self.find(path)?)
    }

    /// Sets the value at a path, and returns the one before it.
    ///
    /// # Errors
    /// Those of [`hold`](Self::hold).
    pub fn insert(&mut self, path: &TreePath, value: V) -> Result<Option<V>> {
        let node = self.make(path)?;
        Ok(self.nodes[node.0 as usize].value.replace(value))
    }

    /// Removes the value at a path.
    pub fn remove(&mut self, path: &TreePath) -> Option<V> {
        self.remove_node(self.find(path)?)
    }

    /// Returns the node at a path, if it or a node below it has a value.
    pub fn find(&self, path: &TreePath) -> Option<NodeId> {
        path.names().try_fold(NodeId::ROOT, |node, name| self.child(node, name))
    }

    /// Returns the node at a path, and creates it if it does not exist. It must get a value, or be removed.
    ///
    /// # Errors
    /// Those of [`hold`](Self::hold).
    pub fn make(&mut self, path: &TreePath) -> Result<NodeId> {
        path.names().try_fold(NodeId::ROOT, |node, name| self.make_child(node, name))
    }

    /// Returns the node of this name in a directory.
    pub fn child(&self, parent: NodeId, name: &[u8]) -> Option<NodeId> {
        match self.slot(parent, name) {
            NameSlot::Taken(node) => Some(node),
            NameSlot::Free(_) => None,
        }
    }

    /// Returns the node of this name in a directory, or its hash.
    pub fn slot(&self, parent: NodeId, name: &[u8]) -> NameSlot {
        let hash = self.hash(parent.0, name);
        let is_it = |entry: &TableEntry| {
            entry.hash == hash && {
                let node = &self.nodes[entry.node as usize];
                node.parent == parent.0 && name_of(&self.names, node) == name
            }
        };
        match self.table.find(hash.for_table(), is_it) {
            Some(entry) => NameSlot::Taken(NodeId(entry.node)),
            None => NameSlot::Free(hash),
        }
    }

    fn hash(&self, parent: u32, name: &[u8]) -> NameHash {
        // Half of the bits are enough: the names are compared too.
        NameHash(self.hasher.hash_one((parent, name)) as u32)
    }

    /// Returns the node of this name in a directory, and creates it if it does not exist.
    ///
    /// # Errors
    /// Those of [`hold`](Self::hold).
    pub fn make_child(&mut self, parent: NodeId, name: &[u8]) -> Result<NodeId> {
        match self.slot(parent, name) {
            NameSlot::Taken(node) => Ok(node),
            NameSlot::Free(hash) => self.add_child(parent, name, hash),
        }
    }

    /// Creates the node of a name that the directory does not have. `name_hash` is that of its [`slot`](Self::slot). The
    /// node must get a value, or be removed.
    ///
    /// # Errors
    /// Those of [`hold`](Self::hold).
    pub fn add_child(&mut self, parent: NodeId, name: &[u8], name_hash: NameHash) -> Result<NodeId> {
        let length = u8::try_from(name.len())
            .map_err(|_| Error::integrity("the image has a name of more than 255 bytes"))?;
        self.hold(size_of::<Node<V>>() + TABLE_ENTRY_MEMORY + name.len())?;
        // `hold` has checked that it fits.
        let at = self.names.len() as u32;
        self.names.extend_from_slice(name);
        let first = self.nodes[parent.0 as usize].first;
        let id = self.allocate(Node::new(parent.0, first, at, length));
        if let Some(next) = self.nodes.get_mut(first as usize) {
            next.before = id;
        }
        self.nodes[parent.0 as usize].first = id;
        let entry = TableEntry { hash: name_hash, node: id };
        self.table.insert_unique(name_hash.for_table(), entry, |entry| entry.hash.for_table());
        Ok(NodeId(id))
    }

    fn allocate(&mut self, node: Node<V>) -> u32 {
        match self.free {
            NONE => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
            id => {
                self.free = self.nodes[id as usize].next;
                self.nodes[id as usize] = node;
                id
            }
        }
    }

    /// Returns the value of a node.
    pub fn value(&self, node: NodeId) -> Option<&V> {
        self.nodes[node.0 as usize].value.as_ref()
    }

    /// Returns the value of a node, to be changed.
    pub fn value_mut(&mut self, node: NodeId) -> &mut Option<V> {
        &mut self.nodes[node.0 as usize].value
    }

    /// Removes the value of a node, and the nodes that no longer lead to a value.
    pub fn remove_node(&mut self, node: NodeId) -> Option<V> {
        let value = self.nodes[node.0 as usize].value.take();
        let mut id = node.0;
        while id != ROOT && self.nodes[id as usize].value.is_none() && self.nodes[id as usize].first == NONE {
            let parent = self.nodes[id as usize].parent;
            self.unlink(id);
            id = parent;
        }
        value
    }

    fn unlink(&mut self, id: u32) {
        let Node { parent, next, before, .. } = self.nodes[id as usize];
        let hash = self.hash(parent, name_of(&self.names, &self.nodes[id as usize]));
        if let Ok(entry) = self.table.find_entry(hash.for_table(), |found| found.node == id) {
            entry.remove();
        }
        match self.nodes.get_mut(before as usize) {
            Some(before) => before.next = next,
            None => self.nodes[parent as usize].first = next,
        }
        if let Some(next) = self.nodes.get_mut(next as usize) {
            next.before = before;
        }
        // Its name stays in `names`, and remains counted.
        self.release(size_of::<Node<V>>() + TABLE_ENTRY_MEMORY);
        self.nodes[id as usize].next = self.free;
        self.free = id;
    }

    /// Returns whether a node has no children.
    pub fn is_leaf(&self, node: NodeId) -> bool {
        self.nodes[node.0 as usize].first == NONE
    }

    /// Returns the children of a node, in no particular order.
    pub fn children(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let id = |id: u32| (id != NONE).then_some(NodeId(id));
        let first = id(self.nodes[node.0 as usize].first);
        std::iter::successors(first, move |node| id(self.nodes[node.0 as usize].next))
    }

    /// Returns the parent of a node; `None` for the root.
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        Some(self.nodes[node.0 as usize].parent).filter(|parent| *parent != NONE).map(NodeId)
    }

    /// Returns the last name of a node's path.
    pub fn name(&self, node: NodeId) -> &[u8] {
        name_of(&self.names, &self.nodes[node.0 as usize])
    }

    /// Returns the path of a node.
    pub fn path(&self, node: NodeId) -> TreePath {
        let below_root = |node: &NodeId| *node != NodeId::ROOT;
        let nodes = std::iter::successors(Some(node), |node| self.parent(*node)).take_while(below_root);
        TreePath::of_names_upwards(nodes.map(|node| self.name(node)))
    }

    /// Returns the nodes below a directory with values of layers before this one, each before the directory that
    /// contains it.
    ///
    /// A directory is searched only once for each layer: the caller removes the nodes that are returned, and those that are
    /// added later belong to this layer.
    pub fn earlier(&mut self, directory: NodeId, layer: u32, layer_of: impl Fn(&V) -> u32) -> Vec<NodeId> {
        let mut found = Vec::new();
        let mut open = vec![directory];
        while let Some(node) = open.pop() {
            let node = &mut self.nodes[node.0 as usize];
            if std::mem::replace(&mut node.cleared_in, layer) == layer {
                continue;
            }
            let mut next = node.first;
            while let Some(child) = self.nodes.get(next as usize) {
                if child.value.as_ref().is_some_and(|value| layer_of(value) < layer) {
                    found.push(NodeId(next));
                }
                if child.first != NONE {
                    open.push(NodeId(next));
                }
                next = child.next;
            }
        }
        found.reverse();
        found
    }

    /// Returns a node and all nodes below it, in the order of [`TreePath`].
    pub fn walk(&self, from: NodeId) -> NodeWalk<'_, V> {
        NodeWalk { map: self, open: vec![vec![from]] }
    }
}

/// The error for an image with names and attributes that exceed a limit on memory, in bytes.
pub(crate) fn memory_exceeded(limit: u64) -> Error {
    Error::integrity(format!("names and attributes of the image take more than {limit} bytes of memory"))
        .with_hint("an image with some million files may honestly do so; --max-names allows more")
}

fn name_of<'a, V>(names: &'a [u8], node: &Node<V>) -> &'a [u8] {
    let from = node.at as usize;
    &names[from..from + usize::from(node.length)]
}

/// An iterator over nodes in the order of their paths.
pub(crate) struct NodeWalk<'a, V> {
    map: &'a PathMap<V>,
    /// The remaining nodes of each directory in the current path, last first.
    open: Vec<Vec<NodeId>>,
}

impl<V> Iterator for NodeWalk<'_, V> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        let node = loop {
            match self.open.last_mut()?.pop() {
                Some(node) => break node,
                None => _ = self.open.pop(),
            }
        };
        if !self.map.is_leaf(node) {
            let mut children: Vec<_> = self.map.children(node).collect();
            children.sort_unstable_by(|one, other| self.map.name(*other).cmp(self.map.name(*one)));
            self.open.push(children);
        }
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn all<V: Clone>(map: &PathMap<V>) -> Vec<(TreePath, V)> {
        let valued = |node| map.value(node).map(|value| (map.path(node), value.clone()));
        map.walk(NodeId::ROOT).filter_map(valued).collect()
    }

    #[test]
    fn nested_directories_take_memory_for_their_names_and_not_for_their_paths() {
        let mut map = PathMap::within(u64::MAX);
        let deep = path(&vec!["d".repeat(200); 2000].join("/"));
        map.insert(&deep, 1u32).unwrap();
        assert_eq!(map.get(&deep), Some(&1));
        assert!(map.held < 2000 * 300 && map.nodes.len() == 2001, "{}", map.held);
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        let mut map = PathMap::within(1000);
        let refused = (0..100).find(|number| map.insert(&path(&number.to_string()), ()).is_err());
        assert!((5..30).contains(&refused.unwrap()), "{refused:?}");
    }

    proptest! {
        #[test]
        fn a_path_map_has_the_contents_of_an_ordinary_map(
            steps in prop::collection::vec(("[ab./]{0,5}", 0..3u32, any::<u32>()), 0..300),
        ) {
            let (mut map, mut ordinary) = (PathMap::within(u64::MAX), BTreeMap::new());
            for (text, what, value) in steps {
                let Some(path) = TreePath::parse(text) else { continue };
                match what {
                    0 => prop_assert_eq!(map.remove(&path), ordinary.remove(&path)),
                    _ => prop_assert_eq!(map.insert(&path, value).unwrap(), ordinary.insert(path.clone(), value)),
                }
                prop_assert_eq!(map.get(&path), ordinary.get(&path));
            }
            prop_assert_eq!(all(&map), ordinary.into_iter().collect::<Vec<_>>());
            let leads_somewhere = |node| map.value(node).is_some() || !map.is_leaf(node) || node == NodeId::ROOT;
            prop_assert!(map.walk(NodeId::ROOT).all(leads_somewhere));
        }
    }
}
