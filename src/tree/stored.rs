//! The tree of an archive: its entries in memory, and the contents of its files in one file on disk.
//!
//! An archive has its entries in any order, and a layer has them in one, so that they are stored before they are walked.

use super::{Content, Entry, EntryKind, Metadata, TreePath};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

/// The entries of an archive, each once and in the order of paths.
///
/// Of entries with the same path, the last one counts, as when the archive is extracted. Directories that no entry
/// describes are [implied](Entry::implied_directory). It makes no difference which of several names of a file comes first in
/// the archive.
#[derive(Debug)]
pub struct StoredTree {
    pub(super) names: BTreeMap<TreePath, usize>,
    pub(super) nodes: Vec<StoredNode>,
    pub(super) contents: Arc<File>,
    /// The length of `contents` so far.
    end: u64,
}

/// An inode: one or several names lead to it.
#[derive(Debug)]
pub(super) struct StoredNode {
    pub kind: EntryKind,
    pub metadata: Metadata,
    /// The position of a file's content in `contents`.
    pub offset: u64,
    /// The number of names.
    pub names: usize,
}

impl StoredTree {
    /// An empty tree, which stores contents in this file.
    pub fn new(contents: File) -> Self {
        Self { names: BTreeMap::new(), nodes: Vec::new(), contents: Arc::new(contents), end: 0 }
    }

    /// Adds the next entry of the archive.
    ///
    /// # Errors
    /// Those of reading and of storing the content; [`Integrity`](crate::error::Kind::Integrity) when the entry contradicts
    /// those before.
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
                    self.store(content, size).map_err(|error| match error.downcast::<Error>() {
                        Ok(error) => error,
                        Err(error) => Error::io(format!("cannot keep the content of {path}"), error)
                            .with_hint("set TMPDIR to a directory with room for the contents of the archive"),
                    })?;
                }
                self.nodes.push(StoredNode { kind, metadata, offset, names: 0 });
                self.nodes.len() - 1
            }
        };
        self.nodes[node].names += 1;
        self.names.insert(path, node);
        Ok(())
    }

    /// Appends content to the file; holes become holes.
    fn store(&mut self, content: &mut impl Content, size: u64) -> io::Result<()> {
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
        // A hole at the end exists only if the file is that long.
        file.set_len(end)
    }

    fn has_children(&self, path: &TreePath) -> bool {
        let mut below = self.names.range(path.clone()..).map(|(path, _)| path).filter(|other| *other != path);
        below.next().is_some_and(|next| next.is_in(path))
    }

    /// Completes the tree: adds the directories that lead to its entries.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when an entry is below one that is not a directory.
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
            self.names.entry(path).or_insert_with_key(|path| {
                let Entry { kind, metadata, .. } = Entry::implied_directory(path.clone());
                nodes.push(StoredNode { kind, metadata, offset: 0, names: 1 });
                nodes.len() - 1
            });
        }
        Ok(self)
    }
}

fn contradiction(path: &TreePath) -> Error {
    Error::integrity(format!("the archive has {path} as a directory and as something else"))
}
