//! One tree with all that is compared: entries, the digests of their contents, and which of them are one.

use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::stream::HashingWriter;
use crate::tree::{Entry, Kind, Metadata, TreePath};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// The digest of a content; `None` where there is none.
pub type Hash = Option<Digest>;

/// How much of a content is read before it is hashed: large enough that calls cost nothing, and it fits the cache.
const BUFFER: usize = 256 << 10;

/// What was learned about a path when it was read.
#[derive(Clone, Debug, Default)]
pub enum Learned {
    /// Only that it is there: a path below it says so.
    #[default]
    Implied,
    /// All.
    Told(Hash),
}

/// What is known about one path.
#[derive(Clone, Debug)]
pub struct Node {
    pub entry: Entry,
    pub hash: Hash,
    /// Whether nothing but a path below it says that it is there: then nothing is known about it.
    pub implied: bool,
}

impl Node {
    pub fn new(entry: Entry, learned: Learned) -> Self {
        match learned {
            Learned::Implied => Self { entry, hash: None, implied: true },
            Learned::Told(hash) => Self { entry, hash, implied: false },
        }
    }

    /// The first of the names of what has several, if this is not it.
    pub fn first_name(&self) -> Option<&TreePath> {
        match &self.entry.kind {
            Kind::Hardlink { target } => Some(target),
            _ => None,
        }
    }
}

/// One tree.
#[derive(Clone, Debug, Default)]
pub struct Nodes(BTreeMap<TreePath, Node>);

impl Nodes {
    pub fn paths(&self) -> impl Iterator<Item = &TreePath> {
        self.0.keys()
    }

    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.0.get(path)
    }

    /// What a node is: for a further name, what its first name is.
    pub fn itself<'a>(&'a self, node: &'a Node) -> &'a Node {
        node.first_name().and_then(|first| self.get(first)).unwrap_or(node)
    }

    /// Adds the directories that nothing but a path below them mentions, as images of other tools have them.
    fn imply_ancestors(&mut self) {
        let mut missing = BTreeMap::new();
        for path in self.0.keys() {
            let mut above = path.parent();
            while let Some(directory) = above.filter(|above| !self.0.contains_key(above)) {
                above = directory.parent();
                let metadata = Metadata::plain_directory();
                let entry = Entry { path: directory.clone(), kind: Kind::Directory, metadata };
                missing.insert(directory, Node { entry, hash: None, implied: true });
            }
        }
        self.0.append(&mut missing);
    }

    /// Makes the least of all names of a file its first one: archives may have them in any order.
    fn order_names(&mut self) {
        let mut names: BTreeMap<TreePath, Vec<TreePath>> = BTreeMap::new();
        for (path, node) in &self.0 {
            if let Some(target) = node.first_name().and_then(|target| self.end_of(target)) {
                names.entry(target).or_default().push(path.clone());
            }
        }
        for (target, others) in names {
            let first = others.iter().chain([&target]).min().cloned().unwrap_or_default();
            let Some(node) = self.0.get(&target).cloned() else { continue };
            for path in others.into_iter().chain([target]) {
                let kind = match path == first {
                    true => node.entry.kind.clone(),
                    false => Kind::Hardlink { target: first.clone() },
                };
                let entry = Entry { path: path.clone(), kind, metadata: node.entry.metadata.clone() };
                self.0.insert(path, Node { entry, hash: node.hash.clone(), implied: false });
            }
        }
    }

    /// Where a chain of hard links ends; `None` when it ends nowhere.
    fn end_of(&self, target: &TreePath) -> Option<TreePath> {
        let mut target = target;
        // A link leads to an earlier entry; a chain that is longer than the tree goes round in circles.
        for _ in 0..=self.0.len() {
            match self.0.get(target)?.first_name() {
                Some(next) => target = next,
                None => return Some(target.clone()),
            }
        }
        None
    }
}

impl FromIterator<Node> for Nodes {
    fn from_iter<I: IntoIterator<Item = Node>>(nodes: I) -> Self {
        let mut nodes = Self(nodes.into_iter().map(|node| (node.entry.path.clone(), node)).collect());
        nodes.imply_ancestors();
        nodes.order_names();
        nodes
    }
}

/// Hashes contents, one after the other.
pub struct Hasher(Box<[u8]>);

impl Default for Hasher {
    fn default() -> Self {
        Self(vec![0; BUFFER].into_boxed_slice())
    }
}

impl Hasher {
    /// The digest of the content of an entry, if it is a file.
    ///
    /// # Errors
    /// Those of reading.
    pub fn hash(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<Hash> {
        if !matches!(entry.kind, Kind::File { .. }) {
            return Ok(None);
        }
        let cannot_read = |error| Error::io(format!("cannot read {}", entry.path), error);
        let mut hashed = HashingWriter::new(io::sink());
        loop {
            match content.read(&mut self.0) {
                Ok(0) => return Ok(Some(hashed.finish().1.digest)),
                Ok(read) => hashed.write_all(&self.0[..read]).map_err(cannot_read)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(cannot_read(error)),
            }
        }
    }
}
