//! A tree in memory whose contents are in one file: what an archive says, before it is a tree in its order.

use super::file::FileContent;
use super::path_range::{PathRange, Place};
use super::walk::{Filter, Observer, Summary, WalkOptions, WalkedEntry};
use super::{Content, Entry, EntryKind, Metadata, TreePath};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

/// The entries of an archive, each once and in the order of paths.
///
/// Of entries with the same path, the last one counts, as when the archive is extracted. Directories that no entry
/// describes are 0755, 0:0 and from 1970. Which of several names of a file comes first in the archive makes no difference.
#[derive(Debug)]
pub struct StoredTree {
    names: BTreeMap<TreePath, usize>,
    nodes: Vec<Node>,
    contents: Arc<File>,
    end: u64,
}

/// What one or several names stand for.
#[derive(Debug)]
struct Node {
    kind: EntryKind,
    metadata: Metadata,
    /// Where the content of a file begins.
    offset: u64,
    /// How many names there are.
    names: usize,
}

impl StoredTree {
    /// An empty tree, which keeps contents in this file.
    pub fn new(contents: File) -> Self {
        Self { names: BTreeMap::new(), nodes: Vec::new(), contents: Arc::new(contents), end: 0 }
    }

    /// Adds the next entry of the archive.
    ///
    /// # Errors
    /// Those of reading the content and of keeping it; [`Integrity`](crate::error::Kind::Integrity) where no tree can have
    /// this entry beside those before.
    pub fn add(&mut self, entry: Entry, content: &mut impl Content) -> Result<()> {
        let Entry { path, kind, metadata } = entry;
        let is_directory = kind == EntryKind::Directory;
        if let Some(&before) = self.names.get(&path) {
            if (self.nodes[before].kind == EntryKind::Directory) != is_directory && self.has_children(&path) {
                return Err(contradiction(&path));
            }
            self.nodes[before].names -= 1;
        }
        let node = match &kind {
            EntryKind::Hardlink { target } => match self.names.get(target) {
                Some(&node) if self.nodes[node].kind != EntryKind::Directory => node,
                _ => {
                    return Err(Error::integrity(format!(
                        "the archive's entry {path} is another name of {target}, which is not a file before it"
                    )));
                }
            },
            _ => {
                let offset = self.end;
                if let EntryKind::File { size } = kind {
                    self.keep(content, size).map_err(|error| match error.downcast::<Error>() {
                        Ok(error) => error,
                        Err(error) => Error::io(format!("cannot keep the content of {path}"), error)
                            .with_hint("set TMPDIR to a directory with room for the contents of the archive"),
                    })?;
                }
                self.nodes.push(Node { kind, metadata, offset, names: 0 });
                self.nodes.len() - 1
            }
        };
        self.nodes[node].names += 1;
        self.names.insert(path, node);
        Ok(())
    }

    /// Copies content to the end of the file; holes become holes.
    fn keep(&mut self, content: &mut impl Content, size: u64) -> io::Result<()> {
        let mut file = &*self.contents;
        let end = self.end + size;
        let mut buffer = vec![0; 64 << 10];
        file.seek(SeekFrom::Start(self.end))?;
        while self.end < end {
            match content.skip_hole() {
                0 => {
                    let read = content.read(&mut buffer)?;
                    if read == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    file.write_all(&buffer[..read])?;
                    self.end += read as u64;
                }
                hole => {
                    self.end += hole;
                    file.seek(SeekFrom::Start(self.end))?;
                }
            }
        }
        // A hole at the end is there only if the file is as long.
        file.set_len(end)
    }

    fn has_children(&self, path: &TreePath) -> bool {
        let mut below = self.names.range(path.clone()..).map(|(path, _)| path).filter(|other| *other != path);
        below.next().is_some_and(|next| next.is_in(path))
    }

    /// Ends the tree: adds the directories that lead to its entries.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) where something that is not a directory has something below it.
    pub fn finish(mut self) -> Result<Self> {
        let mut missing = BTreeSet::from([TreePath::root()]);
        let mut known = None;
        for path in self.names.keys() {
            let mut above = path.parent();
            if above == known {
                continue;
            }
            known = above.clone();
            while let Some(directory) = above {
                match self.names.get(&directory) {
                    Some(&node) if self.nodes[node].kind == EntryKind::Directory => break,
                    Some(_) => return Err(contradiction(&directory)),
                    None if missing.contains(&directory) => break,
                    None => above = directory.parent(),
                }
                missing.insert(directory);
            }
        }
        for path in missing {
            let nodes = &mut self.nodes;
            self.names.entry(path).or_insert_with(|| {
                let metadata = Metadata::implied_directory();
                nodes.push(Node { kind: EntryKind::Directory, metadata, offset: 0, names: 1 });
                nodes.len() - 1
            });
        }
        Ok(self)
    }
}

fn contradiction(path: &TreePath) -> Error {
    Error::integrity(format!("the archive has {path} as a directory and as something else"))
}

/// The walk over a stored tree.
pub(super) struct StoredWalk {
    tree: Arc<StoredTree>,
    at: TreePath,
    /// What was told last.
    last: Option<TreePath>,
    filter: Filter,
    range: PathRange,
    observer: Observer,
    /// The first names of what has several.
    links: HashMap<usize, TreePath>,
}

impl StoredWalk {
    /// The walk over a tree whose entries are told as being below `at`.
    pub fn new(tree: Arc<StoredTree>, at: TreePath, options: &WalkOptions) -> Result<Self> {
        Ok(Self {
            tree,
            at,
            last: None,
            filter: Filter::of_options(options)?,
            range: PathRange::default(),
            observer: Observer::new(options),
            links: HashMap::new(),
        })
    }

    /// Tells only what is in this range.
    pub fn limit(&mut self, range: PathRange) {
        self.range = range;
    }

    /// What was passed over so far.
    pub fn summary(&self) -> Summary {
        self.observer.summary.clone()
    }

    /// The next entry; `None` at the end.
    pub fn advance(&mut self) -> Result<Option<WalkedEntry>> {
        let tree = self.tree.clone();
        let mut skipped: Option<TreePath> = None;
        let from = self.last.clone();
        let start = from.as_ref().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        for (path, &node) in tree.names.range::<TreePath, _>((start, std::ops::Bound::Unbounded)) {
            if skipped.as_ref().is_some_and(|above| path.is_in(above)) {
                continue;
            }
            let is_directory = tree.nodes[node].kind == EntryKind::Directory;
            match self.range.place(&self.at.append(path)) {
                Place::Behind => break,
                Place::Outside => continue,
                Place::Inside => {}
            }
            if !path.is_root() && self.filter.excludes(path, is_directory) {
                self.observer.summary.excluded += 1;
                skipped = Some(path.clone());
                continue;
            }
            if self.range.only_directories && !is_directory {
                continue;
            }
            self.last = Some(path.clone());
            return self.found(path, node).map(Some);
        }
        self.last = tree.names.last_key_value().map(|(path, _)| path.clone());
        Ok(None)
    }

    fn found(&mut self, path: &TreePath, number: usize) -> Result<WalkedEntry> {
        let tree = self.tree.clone();
        let node = &tree.nodes[number];
        let place = self.at.append(path);
        let kind = match self.links.get(&number) {
            Some(target) => EntryKind::Hardlink { target: target.clone() },
            None => node.kind.clone(),
        };
        if node.names > 1 && node.kind != EntryKind::Directory {
            self.links.entry(number).or_insert_with(|| place.clone());
        }
        let file = match kind {
            EntryKind::File { size } => Some(FileContent::stored(tree.contents.clone(), node.offset, size)),
            _ => None,
        };
        let entry = self.observer.recorded(place, kind, &node.kind, node.metadata.clone());
        let entry = entry.map_err(|unmapped| {
            Error::usage(format!("cannot pack {path}: {unmapped}"))
                .with_hint("add a range to --uid-map or --gid-map, or give everything one owner with --chown")
        })?;
        match entry.kind == EntryKind::Directory && self.range.shares_directories() {
            true => self.observer.note_again(&entry),
            false => self.observer.note(&entry),
        }
        Ok(WalkedEntry { entry, file })
    }
}
