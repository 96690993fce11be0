//! Which part of an image is wanted, and where it lands in the target.

use super::links::Links;
use crate::error::{Error, Result};
use crate::layer::{Item, Whiteout};
use crate::tree::{Content, Entry, EntryKind, Extractor, TreePath};
use std::collections::{BTreeSet, HashMap};

/// What of an image is unpacked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Everything, each entry at its place.
    #[default]
    All,
    /// What is at this path: a directory's contents land in the root of the target, anything else lands there under its
    /// own name.
    Subpath(TreePath),
    /// What is more than this many directories deep, without so many names at the beginning of its path.
    Strip(usize),
}

impl Part {
    /// Where something of the image lands; `None` when it is not wanted. A subpath itself lands in the root, as a
    /// directory does.
    fn place(&self, path: &TreePath) -> Option<TreePath> {
        match self {
            Self::All => Some(path.clone()),
            Self::Subpath(part) => path.below(part),
            Self::Strip(count) => {
                let names: Vec<&[u8]> = path.names().skip(*count).collect();
                (!names.is_empty()).then(|| TreePath::parse(names.join(&b'/'))).flatten()
            }
        }
    }

    /// Where an entry lands.
    fn place_of(&self, entry: &Entry) -> Option<TreePath> {
        match self {
            Self::Subpath(part) if entry.path == *part && entry.kind != EntryKind::Directory => {
                Some(TreePath::root().join(part.name()))
            }
            _ => self.place(&entry.path),
        }
    }
}

/// The wanted part of an image, layer by layer.
pub(super) struct Selection<'a> {
    part: &'a Part,
    /// Whether the subpath was a directory when it was last met.
    is_directory: Option<bool>,
    /// Whether anything was wanted.
    found: bool,
    /// Whether anything of the current layer was, which no whiteout of that layer takes away.
    found_in_layer: bool,
    /// Where paths of earlier layers were that were stripped: their whiteouts name directories that are not there.
    stripped: BTreeSet<TreePath>,
    /// What a hard link of this layer leads to although it is not wanted itself, and where it lands instead.
    instead: HashMap<TreePath, StandIn>,
    /// Further names of this layer that are not wanted, and what they are names of.
    aliases: HashMap<TreePath, TreePath>,
    links: Links,
}

/// The place of a hard link that becomes the file itself.
struct StandIn {
    place: TreePath,
    /// Whether it has: what is in another layer never comes by.
    is_there: bool,
}

impl<'a> Selection<'a> {
    /// The selection of a part, for which so many bytes of memory may be taken.
    pub fn new(part: &'a Part, memory: u64) -> Self {
        Self {
            part,
            is_directory: None,
            found: false,
            found_in_layer: false,
            stripped: BTreeSet::new(),
            instead: HashMap::new(),
            aliases: HashMap::new(),
            links: Links::within(memory),
        }
    }

    /// Whether a layer must be read once before it is extracted.
    pub fn needs_survey(&self) -> bool {
        *self.part != Part::All
    }

    /// The next item of a layer with its paths as they are in the tree, which is what all else here is asked about; `None` for a
    /// whiteout of nothing.
    pub fn resolve(&mut self, item: Item) -> Option<Item> {
        match self.needs_survey() {
            true => self.links.resolve(item),
            false => Some(item),
        }
    }

    /// Goes back to the beginning of the layer, which is read once more.
    pub fn rewind(&mut self) {
        self.links.rewind();
    }

    /// Reads a layer for the first time: finds the hard links whose other name is not wanted: the first of them becomes the file itself.
    pub fn survey(&mut self, mut next: impl FnMut() -> Result<Option<Item>>) -> Result<()> {
        self.instead.clear();
        self.aliases.clear();
        self.links.begin_layer();
        self.found_in_layer = false;
        while let Some(item) = next()? {
            let Some(Item::Entry(entry)) = self.links.note(item)? else { continue };
            let EntryKind::Hardlink { target } = &entry.kind else { continue };
            if self.part.place(target).is_some() {
                continue;
            }
            // A link to a link that is not wanted leads to what that one leads to.
            let target = self.aliases.get(target).unwrap_or(target).clone();
            match self.part.place_of(&entry) {
                Some(place) => {
                    self.instead.entry(target).or_insert(StandIn { place, is_there: false });
                }
                None => drop(self.aliases.insert(entry.path, target)),
            }
        }
        self.rewind();
        Ok(())
    }

    /// Whether so little may be wanted that it is better fetched by itself.
    pub fn is_small(&self) -> bool {
        matches!(self.part, Part::Subpath(part) if !part.is_root())
    }

    /// Whether the content of an entry will be extracted, for all that is known of its layer.
    pub fn wants(&self, entry: &Entry) -> bool {
        self.part.place_of(entry).is_some() || self.instead.contains_key(&entry.path)
    }

    /// Extracts an entry if it is wanted.
    pub fn put(&mut self, entry: Entry, content: &mut dyn Content, extractor: &mut Extractor) -> Result<()> {
        if *self.part == Part::All {
            return extractor.put(&entry, content);
        }
        self.replace(&entry, extractor)?;
        let Some(place) = self.part.place_of(&entry) else {
            return match self.instead.get_mut(&entry.path) {
                Some(stand_in) if !matches!(entry.kind, EntryKind::Hardlink { .. }) => {
                    stand_in.is_there = true;
                    (self.found, self.found_in_layer) = (true, true);
                    extractor.put(&Entry { path: stand_in.place.clone(), ..entry }, content)
                }
                _ => Ok(()),
            };
        };
        (self.found, self.found_in_layer) = (true, true);
        if let Part::Strip(_) = self.part {
            self.stripped.insert(entry.path.clone());
        }
        let kind = match &entry.kind {
            EntryKind::Hardlink { target } => match self.target(&entry, target)? {
                // It is the one that became the file.
                target if target == place => return Ok(()),
                target => EntryKind::Hardlink { target },
            },
            kind => kind.clone(),
        };
        extractor.put(&Entry { path: place, kind, metadata: entry.metadata }, content)
    }

    /// Where that which a hard link leads to is in the target.
    fn target(&self, entry: &Entry, target: &TreePath) -> Result<TreePath> {
        let is_wanted = match self.part {
            Part::Subpath(part) if target == part => Some(TreePath::root().join(part.name())),
            part => part.place(target),
        };
        let first = self.aliases.get(target).unwrap_or(target);
        let stand_in = self.instead.get(first).filter(|stand_in| stand_in.is_there);
        is_wanted.or_else(|| stand_in.map(|stand_in| stand_in.place.clone())).ok_or_else(|| {
            Error::failed(format!(
                "{} is a hard link to {target}, which is not in the wanted part",
                entry.path
            ))
            .with_hint("it is in another layer; take a part of the image that has both")
        })
    }

    /// Where an entry takes the place of what lower layers had at the subpath or above, that is gone.
    fn replace(&mut self, entry: &Entry, extractor: &mut Extractor) -> Result<()> {
        let Part::Subpath(part) = self.part else { return Ok(()) };
        let is_directory = entry.kind == EntryKind::Directory;
        if entry.path == *part {
            if self.is_directory.replace(is_directory).is_some_and(|before| before != is_directory) {
                extractor.opaque(&TreePath::root())?;
                if is_directory {
                    extractor.take_back(&TreePath::root().join(part.name()))?;
                }
            }
        } else if entry.path.is_in(part) {
            // No entry need describe the directory that this is in.
            self.is_directory = Some(true);
        } else if part.is_in(&entry.path) && !is_directory {
            self.hide_all(extractor)?;
        }
        Ok(())
    }

    fn hide_all(&mut self, extractor: &mut Extractor) -> Result<()> {
        if !self.found_in_layer {
            (self.found, self.is_directory) = (false, None);
        }
        extractor.opaque(&TreePath::root())
    }

    /// Takes away what a whiteout names, as far as it was wanted.
    pub fn whiteout(&mut self, whiteout: &Whiteout, extractor: &mut Extractor) -> Result<()> {
        let (Whiteout::Entry(path) | Whiteout::Opaque(path)) = whiteout;
        let is_opaque = matches!(whiteout, Whiteout::Opaque(_));
        match self.part {
            Part::Subpath(part) if part.is_in(path) && !(is_opaque && path == part) => {
                self.hide_all(extractor)
            }
            Part::Strip(count) if path.names().count() <= *count => {
                let below: Vec<_> = self.stripped.iter().filter(|known| known.is_in(path)).cloned().collect();
                below
                    .iter()
                    .filter_map(|path| self.part.place(path))
                    .try_for_each(|path| extractor.whiteout(&path))
            }
            part => match part.place(path) {
                Some(path) if is_opaque => extractor.opaque(&path),
                Some(path) => extractor.whiteout(&path),
                None => Ok(()),
            },
        }
    }

    /// Insists that there was something.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound).
    pub fn finish(&self) -> Result<()> {
        match self.part {
            Part::Subpath(path) if !self.found => Err(Error::not_found(format!("the image has no {path}"))
                .with_hint("`volio ls` shows what it has; links in a path are not followed")),
            Part::Strip(count) if !self.found => {
                Err(Error::not_found(format!("nothing in the image is more than {count} directories deep"))
                    .with_hint("`volio ls` shows what it has"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_knows_where_things_land() {
        let path = |text: &str| TreePath::parse(text).unwrap();
        let place = |part: &Part, text: &str| part.place(&path(text)).map(|path| path.to_string());
        let subpath = Part::Subpath(path("a/b"));
        assert_eq!(place(&subpath, "a/b/c").as_deref(), Some("/c"));
        assert_eq!(place(&subpath, "a/b").as_deref(), Some("/"));
        assert_eq!((place(&subpath, "a"), place(&subpath, "a/bc")), (None, None));
        let strip = Part::Strip(1);
        assert_eq!(place(&strip, "a/b/c").as_deref(), Some("/b/c"));
        assert_eq!((place(&strip, "a"), place(&strip, "")), (None, None));
        assert_eq!(place(&Part::All, "a").as_deref(), Some("/a"));
    }
}
