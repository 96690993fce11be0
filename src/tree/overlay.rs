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

use super::resolution::{Blocked, Moved, Resolution, Step};
use super::{Entry, Kind, Metadata, TreePath};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::rc::Rc;

/// Layers over layers, in memory; with each entry stands what was learned when it came.
#[derive(Debug)]
pub struct Overlay<T = ()> {
    layer: u32,
    nodes: BTreeMap<TreePath, Node<T>>,
    moved: Moved,
}

/// Something that has a name.
#[derive(Debug)]
struct Node<T> {
    /// The layer that mentioned it last.
    layer: u32,
    /// Whether it is the name of something that had a name already.
    is_link: bool,
    what: Rc<What<T>>,
}

/// What names are for.
#[derive(Debug)]
struct What<T> {
    kind: Kind,
    metadata: Metadata,
    learned: T,
}

impl<T> Node<T> {
    fn is_directory(&self) -> bool {
        self.what.kind == Kind::Directory
    }
}

impl<T> Default for Overlay<T> {
    fn default() -> Self {
        Self { layer: 0, nodes: BTreeMap::new(), moved: Moved::default() }
    }
}

impl<T: Clone + Default> Overlay<T> {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// What comes from now on belongs to the next layer.
    pub fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// Puts an entry where it belongs, in place of what was there. What was learned of a hard link is what was learned
    /// of the entry that it leads to, and the default of `T` of a directory that only a path below it mentions.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when the entry makes no sense there.
    pub fn put(&mut self, entry: &Entry, learned: T) -> Result<()> {
        let Entry { path, kind, metadata } = entry;
        if let Some(why) = entry.impossible() {
            return Err(Error::integrity(format!("{path} {why}")));
        }
        if path.is_root() && *kind != Kind::Directory {
            return Err(Error::integrity("the root of the image is not a directory"));
        }
        let located = self.locate(path).and_then(|place| self.moved.count(path, place));
        let path = &located.map_err(|blocked| blocked.error(path))?;
        self.make_parents(path);
        let what = match kind {
            Kind::Hardlink { target } => self.linked(path, target)?,
            kind => Rc::new(What { kind: kind.clone(), metadata: metadata.clone(), learned }),
        };
        if *kind != Kind::Directory {
            self.clear_directory(path)?;
        }
        let is_link = matches!(kind, Kind::Hardlink { .. });
        self.nodes.insert(path.clone(), Node { layer: self.layer, is_link, what });
        Ok(())
    }

    /// Removes what earlier layers have at `path` and below.
    pub fn whiteout(&mut self, path: &TreePath) {
        let Ok(path) = &self.locate(path) else { return };
        self.remove_below(path);
        if self.nodes.get(path).is_some_and(|node| node.layer < self.layer) {
            self.remove(path);
        }
    }

    /// Removes what earlier layers have in the directory `path`.
    pub fn opaque(&mut self, path: &TreePath) {
        if let Ok(directory) = self.resolve(path) {
            self.remove_below(&directory);
        }
    }

    fn remove_below(&mut self, path: &TreePath) {
        let earlier = self.below(path).filter(|(_, node)| node.layer < self.layer);
        let earlier: Vec<_> = earlier.map(|(path, _)| path.clone()).collect();
        earlier.iter().rev().for_each(|path| self.remove(path));
    }

    /// All entries, in the order of their paths. Of several names of one thing, one has it and the others are hard links to that.
    pub fn finish(self) -> Vec<(Entry, T)> {
        let mut first: HashMap<*const What<T>, TreePath> = HashMap::new();
        let shared = || self.nodes.iter().filter(|(_, node)| Rc::strong_count(&node.what) > 1);
        for (path, node) in shared().filter(|(_, node)| !node.is_link) {
            first.insert(Rc::as_ptr(&node.what), path.clone());
        }
        // What had the first name is gone; the next one in order takes its place.
        for (path, node) in shared() {
            first.entry(Rc::as_ptr(&node.what)).or_insert_with(|| path.clone());
        }
        let entry = |(path, node): (TreePath, Node<T>)| {
            let What { kind, metadata, learned } = &*node.what;
            let kind = match first.get(&Rc::as_ptr(&node.what)) {
                Some(target) if *target != path => Kind::Hardlink { target: target.clone() },
                _ => kind.clone(),
            };
            (Entry { path, kind, metadata: metadata.clone() }, learned.clone())
        };
        self.nodes.into_iter().map(entry).collect()
    }

    /// What is in a directory, at any depth.
    fn below<'a>(&'a self, directory: &'a TreePath) -> impl Iterator<Item = (&'a TreePath, &'a Node<T>)> {
        let below = (Bound::Excluded(directory), Bound::Unbounded);
        self.nodes.range::<TreePath, _>(below).take_while(|(path, _)| path.is_in(directory))
    }

    /// The place of an entry after the links that lead to it.
    ///
    /// # Errors
    /// When it leads through something else than directories and links to them.
    pub(crate) fn locate(&self, path: &TreePath) -> Result<TreePath, Blocked> {
        match path.parent() {
            Some(parent) if !self.is_directory(&parent) => Ok(self.resolve(&parent)?.join(path.name())),
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
                    match self.nodes.get(&next).map(|node| &node.what.kind) {
                        Some(Kind::Directory) => next,
                        Some(Kind::Symlink { target }) => {
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

    fn is_directory(&self, path: &TreePath) -> bool {
        path.is_root() || self.nodes.get(path).is_some_and(Node::is_directory)
    }

    /// Makes plain directories of what is missing above a path.
    fn make_parents(&mut self, path: &TreePath) {
        let mut above = path.parent();
        while let Some(directory) = above.filter(|directory| !self.is_directory(directory)) {
            above = directory.parent();
            let metadata = Metadata::plain_directory();
            let what = Rc::new(What { kind: Kind::Directory, metadata, learned: T::default() });
            self.nodes.insert(directory, Node { layer: self.layer, is_link: false, what });
        }
    }

    /// What a hard link is another name of.
    fn linked(&self, path: &TreePath, target: &TreePath) -> Result<Rc<What<T>>> {
        let senseless = |why: &str| Error::integrity(format!("{path} is a hard link to {target}, {why}"));
        let target = &self.locate(target).map_err(|blocked| senseless(blocked.of_hard_link()))?;
        match self.nodes.get(target) {
            _ if target.is_in(path) => Err(senseless("which it would replace")),
            None => Err(senseless("which is not there")),
            Some(node) if node.is_directory() => Err(senseless("which is a directory")),
            Some(node) => Ok(Rc::clone(&node.what)),
        }
    }

    /// Makes room for something that is no directory.
    fn clear_directory(&mut self, path: &TreePath) -> Result<()> {
        if !self.nodes.get(path).is_some_and(Node::is_directory) {
            return Ok(());
        }
        if self.below(path).any(|(_, node)| node.layer == self.layer) {
            return Err(Error::integrity(format!(
                "the image has {path} twice: as a directory and as a file"
            ))
            .hint("it was made wrongly"));
        }
        let below: Vec<_> = self.below(path).map(|(path, _)| path.clone()).collect();
        below.iter().rev().for_each(|path| self.remove(path));
        Ok(())
    }

    /// Removes something; a directory only when nothing is in it.
    fn remove(&mut self, path: &TreePath) {
        if self.below(path).next().is_none() {
            self.nodes.remove(path);
        }
    }
}
