//! The part of an image that is unpacked, and the paths of its entries in the target.

use super::links::Links;
use crate::error::{Error, Result};
use crate::layer::{Item, Whiteout};
use crate::tree::{Content, Entry, EntryKind, Extractor, TreePath};
use std::collections::{BTreeSet, HashMap};

/// The part of an image that is unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathFilter {
    /// Everything.
    #[default]
    All,
    /// The entry at this path: the contents of a directory land in the root of the target, any other entry lands there
    /// under its own name.
    Subpath(TreePath),
    /// Entries that are more than this many directories deep, without so many names at the beginning of their paths.
    Strip(usize),
}

impl PathFilter {
    /// Returns the path in the target, or `None` if the path is not selected. A subpath itself becomes the root, as a
    /// directory does.
    pub(super) fn target_path(&self, path: &TreePath) -> Option<TreePath> {
        match self {
            Self::All => Some(path.clone()),
            Self::Subpath(part) => path.below(part),
            Self::Strip(count) => {
                let names: Vec<&[u8]> = path.names().skip(*count).collect();
                (!names.is_empty()).then(|| TreePath::parse(names.join(&b'/'))).flatten()
            }
        }
    }

    /// Returns the path of an entry in the target.
    pub(super) fn target_path_of(&self, entry: &Entry) -> Option<TreePath> {
        match self {
            Self::Subpath(part) if entry.path == *part && entry.kind != EntryKind::Directory => {
                Some(TreePath::root().join(part.name()))
            }
            _ => self.target_path(&entry.path),
        }
    }

    /// Returns an error if nothing was `found` for this filter.
    pub(super) fn ensure_found(&self, found: bool) -> Result<()> {
        match self {
            Self::Subpath(path) if !found => Err(Error::not_found(format!("the image has no {path}"))
                .with_hint("`volio ls` shows what it has; links in a path are not followed")),
            Self::Strip(count) if !found => {
                Err(Error::not_found(format!("nothing in the image is more than {count} directories deep"))
                    .with_hint("`volio ls` shows what it has"))
            }
            _ => Ok(()),
        }
    }
}

/// The selected part of an image, layer by layer.
pub(super) struct Selection<'a> {
    filter: &'a PathFilter,
    /// Set if the subpath was a directory in the last entry for it.
    is_directory: Option<bool>,
    /// Set if an entry was selected.
    found: bool,
    /// Set if an entry of the current layer was selected, which no whiteout of that layer removes.
    found_in_layer: bool,
    /// The paths of earlier layers that were stripped: their whiteouts name directories that are not in the target.
    stripped: BTreeSet<TreePath>,
    /// Files of the current layer that are not selected, but to which a selected hard link leads. The link becomes the
    /// file.
    promoted: HashMap<TreePath, PromotedLink>,
    /// Further names of the current layer that are not selected, with the names that they are links to.
    aliases: HashMap<TreePath, TreePath>,
    links: Links,
}

/// The path of a hard link that becomes the file.
struct PromotedLink {
    place: TreePath,
    /// Set when the file was extracted. It is not if the file is in another layer.
    is_extracted: bool,
}

impl<'a> Selection<'a> {
    /// Creates a selection that may hold so many bytes of memory.
    pub fn new(filter: &'a PathFilter, memory: u64) -> Self {
        Self {
            filter,
            is_directory: None,
            found: false,
            found_in_layer: false,
            stripped: BTreeSet::new(),
            promoted: HashMap::new(),
            aliases: HashMap::new(),
            links: Links::within(memory),
        }
    }

    /// Returns `true` if each layer has to be read once before it is extracted.
    pub fn needs_survey(&self) -> bool {
        *self.filter != PathFilter::All
    }

    /// Returns the next item of a layer with its paths in the tree, as the other functions expect it; `None` for a
    /// whiteout of nothing.
    pub fn resolve(&mut self, item: Item) -> Option<Item> {
        if self.needs_survey() { self.links.resolve(item) } else { Some(item) }
    }

    /// Goes back to the beginning of the layer, which is read again.
    pub fn rewind(&mut self) {
        self.links.rewind();
    }

    /// Reads a layer for the first time, and finds the hard links to files that are not selected. The first link to
    /// such a file becomes the file.
    pub fn survey(&mut self, mut next: impl FnMut() -> Result<Option<Item>>) -> Result<()> {
        self.promoted.clear();
        self.aliases.clear();
        self.links.begin_layer();
        self.found_in_layer = false;
        while let Some(item) = next()? {
            let Some(Item::Entry(entry)) = self.links.note(item)? else { continue };
            let EntryKind::Hardlink { target } = &entry.kind else { continue };
            if self.filter.target_path(target).is_some() {
                continue;
            }
            // The target of a link to a link that is not selected is that of the latter.
            let target = self.aliases.get(target).unwrap_or(target).clone();
            match self.filter.target_path_of(&entry) {
                Some(place) => {
                    self.promoted.entry(target).or_insert(PromotedLink { place, is_extracted: false });
                }
                None => drop(self.aliases.insert(entry.path, target)),
            }
        }
        self.rewind();
        Ok(())
    }

    /// Returns `true` if the selection may be so small that ranges are fetched instead of layers.
    pub fn is_small(&self) -> bool {
        matches!(self.filter, PathFilter::Subpath(part) if !part.is_root())
    }

    /// Returns `true` if the content of an entry may be needed.
    pub fn wants(&self, entry: &Entry) -> bool {
        self.filter.target_path_of(entry).is_some() || self.promoted.contains_key(&entry.path)
    }

    /// Extracts an entry if it is selected.
    pub fn put(&mut self, entry: Entry, content: &mut dyn Content, extractor: &mut Extractor) -> Result<()> {
        if *self.filter == PathFilter::All {
            return extractor.put(&entry, content);
        }
        self.remove_replaced(&entry, extractor)?;
        let Some(place) = self.filter.target_path_of(&entry) else {
            return match self.promoted.get_mut(&entry.path) {
                Some(link) if !matches!(entry.kind, EntryKind::Hardlink { .. }) => {
                    link.is_extracted = true;
                    (self.found, self.found_in_layer) = (true, true);
                    extractor.put(&Entry { path: link.place.clone(), ..entry }, content)
                }
                _ => Ok(()),
            };
        };
        (self.found, self.found_in_layer) = (true, true);
        if let PathFilter::Strip(_) = self.filter {
            self.stripped.insert(entry.path.clone());
        }
        let kind = match &entry.kind {
            EntryKind::Hardlink { target } => match self.link_target(&entry, target)? {
                // This link has become the file.
                target if target == place => return Ok(()),
                target => EntryKind::Hardlink { target },
            },
            kind => kind.clone(),
        };
        extractor.put(&Entry { path: place, kind, metadata: entry.metadata }, content)
    }

    /// Returns the path in the target of a hard link's target.
    fn link_target(&self, entry: &Entry, target: &TreePath) -> Result<TreePath> {
        let selected = match self.filter {
            PathFilter::Subpath(part) if target == part => Some(TreePath::root().join(part.name())),
            part => part.target_path(target),
        };
        let first = self.aliases.get(target).unwrap_or(target);
        let link = self.promoted.get(first).filter(|link| link.is_extracted);
        selected.or_else(|| link.map(|link| link.place.clone())).ok_or_else(|| {
            Error::failed(format!(
                "{} is a hard link to {target}, which is not in the wanted part",
                entry.path
            ))
            .with_hint("it is in another layer; take a part of the image that has both")
        })
    }

    /// Removes the entries of lower layers that an entry replaces at the subpath or above it.
    fn remove_replaced(&mut self, entry: &Entry, extractor: &mut Extractor) -> Result<()> {
        let PathFilter::Subpath(part) = self.filter else { return Ok(()) };
        let is_directory = entry.kind == EntryKind::Directory;
        if entry.path == *part {
            if self.is_directory.replace(is_directory).is_some_and(|before| before != is_directory) {
                extractor.opaque(&TreePath::root())?;
                if is_directory {
                    extractor.take_back(&TreePath::root().join(part.name()))?;
                }
            }
        } else if entry.path.is_in(part) {
            // The directory need not have an entry.
            self.is_directory = Some(true);
        } else if part.is_in(&entry.path) && !is_directory {
            self.remove_all(extractor)?;
        }
        Ok(())
    }

    fn remove_all(&mut self, extractor: &mut Extractor) -> Result<()> {
        if !self.found_in_layer {
            (self.found, self.is_directory) = (false, None);
        }
        extractor.opaque(&TreePath::root())
    }

    /// Applies a whiteout to the selected part.
    pub fn whiteout(&mut self, whiteout: &Whiteout, extractor: &mut Extractor) -> Result<()> {
        let (Whiteout::Entry(path) | Whiteout::Opaque(path)) = whiteout;
        let is_opaque = matches!(whiteout, Whiteout::Opaque(_));
        match self.filter {
            PathFilter::Subpath(part) if part.is_in(path) && !(is_opaque && path == part) => {
                self.remove_all(extractor)
            }
            PathFilter::Strip(count) if path.names().count() <= *count => {
                let below: Vec<_> = self.stripped.iter().filter(|known| known.is_in(path)).cloned().collect();
                below
                    .iter()
                    .filter_map(|path| self.filter.target_path(path))
                    .try_for_each(|path| extractor.whiteout(&path))
            }
            part => match part.target_path(path) {
                Some(path) if is_opaque => extractor.opaque(&path),
                Some(path) => extractor.whiteout(&path),
                None => Ok(()),
            },
        }
    }

    /// Returns an error if no entry was selected.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound).
    pub fn ensure_found(&self) -> Result<()> {
        self.filter.ensure_found(self.found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_knows_where_things_land() {
        let path = |text: &str| TreePath::parse(text).unwrap();
        let place =
            |part: &PathFilter, text: &str| part.target_path(&path(text)).map(|path| path.to_string());
        let subpath = PathFilter::Subpath(path("a/b"));
        assert_eq!(place(&subpath, "a/b/c").as_deref(), Some("/c"));
        assert_eq!(place(&subpath, "a/b").as_deref(), Some("/"));
        assert_eq!((place(&subpath, "a"), place(&subpath, "a/bc")), (None, None));
        let strip = PathFilter::Strip(1);
        assert_eq!(place(&strip, "a/b/c").as_deref(), Some("/b/c"));
        assert_eq!((place(&strip, "a"), place(&strip, "")), (None, None));
        assert_eq!(place(&PathFilter::All, "a").as_deref(), Some("/a"));
    }
}
