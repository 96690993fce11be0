//! Several sources as one tree.

use crate::tree::path_range::{PathRange, Place};
use crate::tree::race::Changed;
mod directory;
mod filter;
mod listing;
mod moved;
mod stat;

pub(super) use filter::Filter;
pub use filter::rule_lines;
pub(super) use listing::shown;
pub use moved::ListedDirectories;
pub use stat::{LeftOut, LeftOutReason, RuleFiles, Summary, WalkOptions, WalkedEntry};
pub(super) use stat::{Observer, kind};

use crate::error::{Error, Result};
use crate::tree::source_spec::SourceSpec;
use crate::tree::stored::StoredWalk;
use crate::tree::{Content, Entry, EntryKind, Metadata, TreePath};
use directory::{DirectoryWalk, trouble};
use listing::{place, without_lease};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, stat};
use rustix::io::Errno;
use stat::{Answer, Failure};
use std::collections::{BTreeSet, btree_set};
use std::io::Read as _;
use std::iter::{FusedIterator, Peekable};
use std::path::{self, Path, PathBuf};

/// The entries of one or several sources in the order of [`TreePath`], so that a directory comes before what is in it.
///
/// It ends after the first error.
pub struct Walk {
    branches: Vec<Branch>,
    /// The directories that lead to the sources. What no source has is invented.
    ancestors: Peekable<btree_set::IntoIter<TreePath>>,
    failed: bool,
}

impl WalkOptions {
    /// Reads the tree without keeping anything, and learns everything that changes meanwhile: making a layer anew for
    /// one file after the other would take as many attempts as there are such files.
    ///
    /// # Errors
    /// Those of reading that another walk would meet too.
    pub fn survey(&mut self, sources: &[SourceSpec]) -> Result<()> {
        let mut buffer = vec![0; 256 << 10];
        for found in Walk::new(sources, self)? {
            let WalkedEntry { entry, file: Some(mut content) } = found? else { continue };
            let error = loop {
                content.skip_hole();
                match content.read(&mut buffer) {
                    Ok(0) => break None,
                    Ok(_) => {}
                    Err(error) => break Some(Error::io(format!("cannot read {}", entry.path), error)),
                }
            };
            match error {
                Some(error) if !self.learn(&error, 0) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// One source, and the entry of it that comes next.
struct Branch {
    source: PathBuf,
    shown: String,
    at: TreePath,
    walk: SourceWalk,
    head: Option<WalkedEntry>,
}

enum SourceWalk {
    Directory(Box<DirectoryWalk>),
    File(Box<Option<WalkedEntry>>, Summary),
    Stored(Box<StoredWalk>),
}

impl Walk {
    /// Opens all sources.
    ///
    /// # Errors
    /// When a source is missing, cannot be opened, or is neither a directory nor a file; when two of them have the
    /// same place; when a rule for what is left out makes no sense.
    pub fn new(sources: &[SourceSpec], options: &WalkOptions) -> Result<Self> {
        let branches =
            sources.iter().map(|source| Branch::open(source, options)).collect::<Result<Vec<_>>>()?;
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
        Ok(Self { branches, ancestors, failed: false })
    }

    /// Insists that none of the sources has this directory, which is written while they are read, unless a rule
    /// leaves it out: a tree that grows as it is read has no end, and never the same digest twice.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage), naming the source.
    pub fn ensure_excludes(&self, written: &Path) -> Result<()> {
        let holds = |branch: &&Branch| match &branch.walk {
            SourceWalk::Directory(walk) => {
                below(&branch.source, written).is_some_and(|path| !walk.leaves_out(&path))
            }
            SourceWalk::File(..) | SourceWalk::Stored(_) => false,
        };
        match self.branches.iter().find(holds) {
            None => Ok(()),
            Some(branch) => Err(Error::usage(format!(
                "{} is in {} and would be packed into itself",
                shown(written),
                branch.shown
            ))
            .with_hint("write the image to another place, or leave that directory out with --exclude")),
        }
    }

    /// The same walk, but only over this part of the tree.
    #[must_use]
    pub fn within(mut self, range: &PathRange) -> Self {
        for branch in &mut self.branches {
            match &mut branch.walk {
                SourceWalk::Directory(walk) => walk.limit(range.clone()),
                SourceWalk::Stored(walk) => walk.limit(range.clone()),
                SourceWalk::File(found, _) => {
                    if range.only_directories || range.place(&branch.at) != Place::Inside {
                        **found = None;
                    }
                }
            }
        }
        self
    }

    /// The same walk, but without content: what is no directory is told with its size and nothing else, and read
    /// neither are files nor attributes.
    #[must_use]
    pub fn sizes_only(mut self) -> Self {
        for branch in &mut self.branches {
            if let SourceWalk::Directory(walk) = &mut branch.walk {
                walk.sizes_only();
            }
        }
        self
    }

    /// What was passed over so far, and the newest mtime; complete at the end of the walk.
    pub fn summary(&self) -> Summary {
        self.branches.iter().map(|branch| branch.walk.summary()).fold(Summary::default(), Summary::and)
    }

    /// What was listed, to be checked when nothing more is read of the sources.
    pub fn into_listed(self) -> ListedDirectories {
        let directories = self.branches.into_iter().filter_map(|branch| match branch.walk {
            SourceWalk::Directory(walk) => Some(walk.into_listed(branch.source)),
            SourceWalk::File(..) | SourceWalk::Stored(_) => None,
        });
        ListedDirectories(directories.collect())
    }

    fn advance(&mut self) -> Result<Option<WalkedEntry>> {
        for branch in &mut self.branches {
            if branch.head.is_none() {
                branch.head = branch.walk.advance()?;
            }
        }
        let Some(next) = self.first_branch()? else {
            // A source that is a file may be left out, and the directories that lead to it are still there.
            return Ok(self.ancestors.next().map(invented));
        };
        let Some(found) = self.branches[next].head.take() else { return Ok(None) };
        let path = &found.entry.path;
        match self.ancestors.next_if(|ancestor| ancestor <= path) {
            Some(ancestor) if ancestor < *path => {
                self.branches[next].head = Some(found);
                Ok(Some(invented(ancestor)))
            }
            Some(ancestor) if found.entry.kind != EntryKind::Directory => {
                Err(self.blocked(&self.branches[next], &ancestor))
            }
            _ => Ok(Some(found)),
        }
    }

    /// The branch whose entry comes next, if it is the only one with that path.
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

    /// The error for something that is no directory where another source needs one.
    fn blocked(&self, branch: &Branch, path: &TreePath) -> Error {
        let other = self.branches.iter().find(|other| other.at != *path && other.at.is_in(path));
        match other {
            Some(other) => collision(branch, other, path),
            None => Error::usage(format!("{path} of {} is no directory", branch.shown)),
        }
    }
}

impl Iterator for Walk {
    type Item = Result<WalkedEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        self.failed = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

impl FusedIterator for Walk {}

impl Branch {
    fn open(source: &SourceSpec, options: &WalkOptions) -> Result<Self> {
        let shown = shown(&source.path);
        let root = TreePath::root();
        let failed = |errno| match errno {
            Errno::NOENT => Error::not_found(format!("there is no {}", source.path.display())).with_hint(
                "SOURCE is a directory or a file; `SOURCE:/PATH` says where it lands in the image",
            ),
            errno => trouble("open", &shown, &root, errno.into()),
        };
        if let Some(stored) = &source.stored {
            let at = source.place_of_directory();
            let walk = StoredWalk::new(stored.clone(), at.clone(), options)?;
            let walk = SourceWalk::Stored(Box::new(walk));
            return Ok(Self { source: source.path.clone(), shown, at, walk, head: None });
        }
        // What the user names is followed where it is a link: `pack IMAGE current` means what `current` points to.
        let status = stat(&source.path).map_err(failed)?;
        let (at, walk) = match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => {
                let fd = open(&source.path, OFlags::DIRECTORY).map_err(failed)?;
                let at = source.place_of_directory();
                let walk = DirectoryWalk::new(&source.path, fd, at.clone(), options)?;
                (at, SourceWalk::Directory(Box::new(walk)))
            }
            FileType::RegularFile => {
                let at = source.place_of_file();
                let (found, summary) = single(&source.path, &at, options)?;
                (at, SourceWalk::File(Box::new(found), summary))
            }
            _ => {
                let what = format!("{} is neither a directory nor a file", source.path.display());
                return Err(Error::usage(what).with_hint("pack the directory that it is in"));
            }
        };
        Ok(Self { source: source.path.clone(), shown, at, walk, head: None })
    }
}

impl SourceWalk {
    fn advance(&mut self) -> Result<Option<WalkedEntry>> {
        match self {
            Self::Directory(walk) => walk.advance(),
            Self::File(found, _) => Ok(found.take()),
            Self::Stored(walk) => walk.advance(),
        }
    }

    fn summary(&self) -> Summary {
        match self {
            Self::Directory(walk) => walk.summary(),
            Self::File(_, summary) => summary.clone(),
            Self::Stored(walk) => walk.summary(),
        }
    }
}

/// A file that is a source by itself. No rule leaves it out: the user named it.
fn single(source: &Path, at: &TreePath, options: &WalkOptions) -> Result<(Option<WalkedEntry>, Summary)> {
    let mut observer = Observer::new(options);
    let place = place(&shown(source), &TreePath::root());
    if observer.leaves_out(at) {
        return Ok((None, observer.summary));
    }
    for attempt in 1.. {
        let read = (|| {
            let fd = without_lease(|| open(source, OFlags::NONBLOCK))?;
            let status = fstat(&fd)?;
            match FileType::from_raw_mode(status.st_mode) {
                FileType::RegularFile => observer.file(at.clone(), fd, &status, place.clone()),
                _ => Err(Errno::STALE.into()),
            }
        })();
        match read {
            Ok(found) => {
                observer.note(&found.entry);
                return Ok((Some(found), observer.summary));
            }
            Err(failure) => match observer.answer(at, failure, attempt) {
                Ok(Answer::Again) => {}
                Ok(Answer::LeftOut) => break,
                Err(Failure::Changed(change)) => {
                    return Err(Changed { path: at.clone(), change }.into_error(&place));
                }
                Err(failure) => return Err(trouble("read", &place, &TreePath::root(), failure)),
            },
        }
    }
    Ok((None, observer.summary))
}

fn open(path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(CWD, path, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Where `path`, which need not exist yet, is below a directory.
fn below(directory: &Path, path: &Path) -> Option<TreePath> {
    let path = path::absolute(path).ok()?;
    let (above, real) = path.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)))?;
    let real = real.join(path.strip_prefix(above).ok()?);
    let inside = real.strip_prefix(directory.canonicalize().ok()?).ok()?;
    TreePath::parse(inside.as_os_str().as_encoded_bytes())
}

fn invented(path: TreePath) -> WalkedEntry {
    let entry = Entry { path, kind: EntryKind::Directory, metadata: Metadata::implied_directory() };
    WalkedEntry { entry, file: None }
}

fn collision(one: &Branch, other: &Branch, path: &TreePath) -> Error {
    Error::usage(format!("both {} and {} have something at {path}", one.shown, other.shown))
        .with_hint("give one of them another place with SOURCE:/PATH, or leave it out of one of them")
}
