//! The walk over one or several sources, which yields every entry once and in the order of [`TreePath`].
//!
//! Each source is a branch: a directory ([`directory`]), a single file, or the entries of an archive ([`stored`]). Every
//! branch yields its entries in order, so the walk merges them by taking the smallest path next. Two entries with the
//! same path are an error, except for directories that lead to another source: these are made up where no source has
//! them.

mod branch;
mod directory;
mod filter;
mod listing;
mod moved;
mod skip_list;
mod stat;
mod stored;
mod summary;

pub use filter::rule_lines;
pub(super) use listing::display_root;
pub use moved::ListedDirectories;
pub use skip_list::SkipList;
pub(super) use stat::entry_kind;
pub use summary::{LeftOut, LeftOutReason, Summary};

use super::id_map::{IdMaps, Owner};
use super::path_range::PathRange;
use super::source_spec::SourceSpec;
use super::{Entry, EntryKind, FileContent, OnChange, Time, TreePath};
use crate::error::{Error, Result};
use branch::Branch;
use listing::display_root as displayed;
use std::collections::{BTreeSet, btree_set};
use std::ffi::OsString;
use std::iter::{FusedIterator, Peekable};
use std::path::{self, Path};

/// An entry found by a walk.
#[derive(Debug)]
pub struct WalkedEntry {
    /// The entry.
    pub entry: Entry,
    /// The content of a regular file, from its beginning; `None` for all else, also for a hard link to an earlier entry.
    pub file: Option<FileContent>,
}

/// The parts of an entry that a walk over a directory reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WalkDetail {
    /// Metadata and content.
    Content,
    /// Metadata.
    Metadata,
    /// The size, and the metadata of directories.
    Sizes,
}

/// The configuration of a walk.
#[derive(Clone, Debug, Default)]
pub struct WalkOptions {
    /// Rules of gitignore for entries that are left out. They apply after those in `.volioignore`.
    pub exclude: Vec<OsString>,
    /// The meaning of `.volioignore` at the root of a source.
    pub rule_files: RuleFiles,
    /// Reduces directories that are marked as caches, by a `CACHEDIR.TAG`, to that file.
    pub exclude_caches: bool,
    /// Leaves out the contents of mount points.
    pub one_file_system: bool,
    /// Replaces everything that depends on the machine and its users: the owner becomes 0:0, the mode 0644, or 0755 for
    /// directories and executable files, and the mtime becomes this one. Extended attributes are left out: they are
    /// grants to users of this machine (ACLs), labels, or data of the tools that made the files.
    pub normalize: Option<Time>,
    /// The latest mtime; a later one is replaced by it, as with `tar --clamp-mtime`.
    pub clamp_mtime: Option<Time>,
    /// The owner of every entry. ACLs stay as they are.
    pub chown: Option<Owner>,
    /// Maps for the owners on disk, also for those in ACLs. They do not apply with `chown`.
    pub id_maps: IdMaps,
    /// Leaves out entries that cannot be read. A directory is then in the tree, without its contents.
    pub skip_unreadable: bool,
    /// The reaction to a file that changes while it is read.
    pub on_change: OnChange,
}

/// The meaning of `.volioignore` at the root of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuleFiles {
    /// An ordinary file. This is for trees that others can write to: otherwise they could decide what is packed.
    #[default]
    Ignore,
    /// Rules of gitignore, which leave entries out. This is for trees that their owner wants to be packed by these rules.
    Apply,
}

/// The entries of one or several sources in the order of [`TreePath`]: a directory comes before its contents.
///
/// The walk ends after the first error.
pub struct Walk {
    branches: Vec<Branch>,
    /// The directories that lead to the sources.
    ancestors: Peekable<btree_set::IntoIter<TreePath>>,
    is_failed: bool,
}

impl Walk {
    /// Opens all sources.
    ///
    /// # Errors
    /// When a source is missing, cannot be opened, or is neither a directory nor a file; when two sources have the same
    /// path in the tree; when an exclude rule is invalid.
    pub fn new(sources: &[SourceSpec], options: &WalkOptions) -> Result<Self> {
        Self::skipping(sources, options, &SkipList::default())
    }

    /// Opens all sources for a walk that leaves out the entries of a skip list.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn skipping(sources: &[SourceSpec], options: &WalkOptions, skip_list: &SkipList) -> Result<Self> {
        let open = |source| Branch::open(source, options, skip_list);
        let branches = sources.iter().map(open).collect::<Result<Vec<_>>>()?;
        for (n, branch) in branches.iter().enumerate() {
            if let Some(other) = branches[..n].iter().find(|other| other.at == branch.at) {
                return Err(collision(other, branch, &branch.at));
            }
        }
        let mut ancestors = BTreeSet::new();
        for branch in &branches {
            let mut above = branch.at.parent();
            while let Some(directory) = above {
                above = directory.parent();
                ancestors.insert(directory);
            }
        }
        let ancestors = ancestors.into_iter().peekable();
        Ok(Self { branches, ancestors, is_failed: false })
    }

    /// Ensures that no source contains `written`, a directory that is written while the sources are read, unless a rule
    /// leaves it out. A tree that grows while it is read has no end and never the same digest twice.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage), naming the source.
    pub fn ensure_excludes(&self, written: &Path) -> Result<()> {
        let contains = |branch: &&Branch| {
            below(&branch.source, written).is_some_and(|path| branch.contains_directory(&path))
        };
        match self.branches.iter().find(contains) {
            None => Ok(()),
            Some(branch) => Err(Error::usage(format!(
                "{} is in {} and would be packed into itself",
                displayed(written),
                branch.shown
            ))
            .with_hint("write the image to another place, or leave that directory out with --exclude")),
        }
    }

    /// Restricts the walk to a range of the tree.
    #[must_use]
    pub fn within(mut self, range: &PathRange) -> Self {
        for branch in &mut self.branches {
            branch.restrict_to(range);
        }
        if let Some(paths) = &range.paths {
            let ancestors: BTreeSet<_> =
                self.ancestors.filter(|path| paths.contains_or_leads_to(path)).collect();
            self.ancestors = ancestors.into_iter().peekable();
        }
        self
    }

    /// Makes the walk yield sizes only: entries other than directories have no metadata, and no file is opened.
    #[must_use]
    pub fn sizes_only(self) -> Self {
        self.with_detail(WalkDetail::Sizes)
    }

    /// Makes the walk yield entries with all their metadata and without content: no file in a directory is read.
    #[must_use]
    pub fn metadata_only(self) -> Self {
        self.with_detail(WalkDetail::Metadata)
    }

    fn with_detail(mut self, detail: WalkDetail) -> Self {
        for branch in &mut self.branches {
            branch.set_detail(detail);
        }
        self
    }

    /// Returns what was left out so far, and the newest mtime; both are complete at the end of the walk.
    pub fn summary(&self) -> Summary {
        self.branches.iter().map(Branch::summary).fold(Summary::default(), Summary::and)
    }

    /// Returns the directories that were listed, to be checked when nothing more is read from the sources.
    pub fn into_listed(self) -> ListedDirectories {
        ListedDirectories(self.branches.into_iter().filter_map(Branch::into_listed).collect())
    }

    fn advance(&mut self) -> Result<Option<WalkedEntry>> {
        for branch in &mut self.branches {
            branch.fill_head()?;
        }
        let Some(next) = self.first_branch()? else {
            // A source that is a file may be left out; the directories that lead to it are entries nevertheless.
            return Ok(self.ancestors.next().map(implied_directory));
        };
        let Some(found) = self.branches[next].head.take() else { return Ok(None) };
        let path = &found.entry.path;
        match self.ancestors.next_if(|ancestor| ancestor <= path) {
            Some(ancestor) if ancestor < *path => {
                self.branches[next].head = Some(found);
                Ok(Some(implied_directory(ancestor)))
            }
            Some(ancestor) if found.entry.kind != EntryKind::Directory => {
                Err(self.not_a_directory(&self.branches[next], &ancestor))
            }
            _ => Ok(Some(found)),
        }
    }

    /// Returns the number of the branch with the smallest path.
    ///
    /// # Errors
    /// When two branches have that path.
    fn first_branch(&self) -> Result<Option<usize>> {
        let mut first: Option<(usize, &TreePath)> = None;
        for (n, branch) in self.branches.iter().enumerate() {
            let Some(WalkedEntry { entry, .. }) = &branch.head else { continue };
            match first {
                Some((other, path)) if *path == entry.path => {
                    return Err(collision(&self.branches[other], branch, path));
                }
                Some((_, path)) if *path < entry.path => {}
                _ => first = Some((n, &entry.path)),
            }
        }
        Ok(first.map(|(n, _)| n))
    }

    /// The error for an entry of `branch` that is not a directory, although another source is below it.
    fn not_a_directory(&self, branch: &Branch, path: &TreePath) -> Error {
        let other = self.branches.iter().find(|other| other.at != *path && other.at.is_in(path));
        match other {
            Some(other) => collision(branch, other, path),
            None => Error::usage(format!("{path} of {} is not a directory", branch.shown)),
        }
    }
}

impl Iterator for Walk {
    type Item = Result<WalkedEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_failed {
            return None;
        }
        let next = self.advance();
        self.is_failed = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

impl FusedIterator for Walk {}

/// Returns the path of `path`, which need not exist yet, below a directory.
fn below(directory: &Path, path: &Path) -> Option<TreePath> {
    let path = path::absolute(path).ok()?;
    let (above, real) = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)))?;
    let real = real.join(path.strip_prefix(above).ok()?);
    let inside = real.strip_prefix(directory.canonicalize().ok()?).ok()?;
    TreePath::parse(inside.as_os_str().as_encoded_bytes())
}

fn implied_directory(path: TreePath) -> WalkedEntry {
    WalkedEntry { entry: Entry::implied_directory(path), file: None }
}

fn collision(one: &Branch, other: &Branch, path: &TreePath) -> Error {
    Error::usage(format!("both {} and {} have something at {path}", one.shown, other.shown))
        .with_hint("give one of them another place with SOURCE:/PATH, or leave it out of one of them")
}
