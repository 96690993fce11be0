//! Compares two trees, each of them an image or a directory: by path and by attribute.

mod compare;
mod quick;
#[cfg(test)]
mod tests;

pub use compare::{Attribute, Change, Difference};

use crate::error::{Error, Result};
use crate::image::{ContentIds, Image, PathNote, ReadOptions, identify};
use crate::progress::{Phase, Progress, TaskInfo};
use crate::transport::Source;
use crate::tree::{EntryKind, MergedTree, Overlay, RuleFiles, SourceSpec, Walk, WalkOptions};
use std::collections::BTreeSet;
use std::path::Path;

/// One of the two trees.
#[derive(Clone, Copy)]
pub enum Side<'a> {
    /// An image: all its layers applied.
    Image(&'a dyn Source),
    /// A directory as `pack` reads it: without what its `.volioignore` excludes.
    Directory(&'a Path),
}

/// The options of [`diff`].
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The options for reading images. The limit on names is shared by both.
    pub read: ReadOptions,
    /// The attributes that are not compared.
    pub ignore: BTreeSet<Attribute>,
    /// The files of a directory whose content is read.
    pub contents: ContentComparison,
}

/// The files of a directory whose content is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentComparison {
    /// All.
    #[default]
    All,
    /// Those whose size is that of the file in the image, and whose mtime is another. If both are the same, the content
    /// counts as equal.
    IfMtimeDiffers,
}

/// Two trees, and the differences between them.
#[derive(Debug)]
pub struct Compared {
    left: MergedTree<PathNote>,
    right: MergedTree<PathNote>,
    ignore: BTreeSet<Attribute>,
}

impl Compared {
    /// Returns the differences in the order of paths, those of one path in the order of [`Attribute`]. They are computed
    /// each time.
    pub fn differences(&self) -> impl Iterator<Item = Difference> + '_ {
        compare::compare(&self.left, &self.right, &self.ignore)
    }

    /// Returns the number of paths with a difference.
    pub fn paths(&self) -> u64 {
        let mut last = None;
        let is_new = |difference: &Difference| {
            last.replace(difference.path.clone()).as_ref() != Some(&difference.path)
        };
        self.differences().filter(is_new).count() as u64
    }

    /// Returns the number of paths on either side.
    pub fn entries(&self) -> u64 {
        compare::pairs(&self.left, &self.right).count() as u64
    }
}

/// Compares two trees. The digests of contents are compared, and attributes; only these are kept of an entry.
///
/// The content of each file of a directory is read, unless [`Options::contents`] says otherwise. Of layers with a table of contents nothing else is fetched, if the source serves ranges; it has the digests of the
/// contents. All other layers are streamed and verified as a whole.
///
/// # Errors
/// When a side cannot be read; [`Integrity`](crate::error::Kind::Integrity) if an image is not what it says; those of
/// [`Image::open`].
///
/// ```
/// use volio::{Memory, SourceSpec, diff::{self, Side}, pack, progress::Silent};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # std::fs::write(directory.path().join("file"), "text").unwrap();
/// # let image = Memory::default();
/// # pack::pack(&image, &[SourceSpec::new(directory.path())], &pack::Options::default(), &Silent)?;
/// std::fs::write(directory.path().join("new"), "").unwrap();
/// let sides = (Side::Image(&image), Side::Directory(directory.path()));
/// let compared = diff::diff(sides.0, sides.1, &diff::Options::default(), &Silent)?;
/// assert!(compared.differences().any(|line| line.to_string() == "+ /new"));
/// # Ok::<(), volio::Error>(())
/// ```
pub fn diff(left: Side<'_>, right: Side<'_>, options: &Options, progress: &dyn Progress) -> Result<Compared> {
    let images = [left, right].iter().filter(|side| matches!(side, Side::Image(_))).count() as u64;
    let mut read = options.read.clone();
    read.limits.max_names /= images.max(1);
    let read_side = |side| match side {
        Side::Image(source) => read_image(source, &read, progress),
        Side::Directory(directory) => read_directory(directory, progress),
    };
    let (left, right) = match (options.contents, left, right) {
        (ContentComparison::All, ..) => (read_side(left)?, read_side(right)?),
        (ContentComparison::IfMtimeDiffers, Side::Image(_), Side::Directory(directory)) => {
            ensure_directory(directory)?;
            let left = read_side(left)?;
            let right = quick::read_directory(directory, &left, progress)?;
            (left, right)
        }
        (ContentComparison::IfMtimeDiffers, Side::Directory(directory), Side::Image(_)) => {
            ensure_directory(directory)?;
            let right = read_side(right)?;
            (quick::read_directory(directory, &right, progress)?, right)
        }
        (ContentComparison::IfMtimeDiffers, ..) => {
            return Err(Error::usage("only a directory and an image are compared by metadata first")
                .with_hint("compare without --quick"));
        }
    };
    Ok(Compared { left, right, ignore: options.ignore.clone() })
}

fn read_image(
    source: &dyn Source,
    options: &ReadOptions,
    progress: &dyn Progress,
) -> Result<MergedTree<PathNote>> {
    let image = Image::open(source, options, progress)?;
    // Archives may have the names of a file in any order.
    Ok(image.tree_with(&mut ContentIds)?.with_first_names())
}

fn read_directory(directory: &Path, progress: &dyn Progress) -> Result<MergedTree<PathNote>> {
    ensure_directory(directory)?;
    let task = progress.begin(&TaskInfo::new(Phase::Reading).about(directory.display()));
    // The directory is the user's own, so its names may take any memory.
    let mut tree = Overlay::within(u64::MAX);
    for found in Walk::new(&[SourceSpec::new(directory)], &walk_options())? {
        let found = found?;
        let content = match found.file {
            Some(mut content) => identify(&found.entry, &mut content)?,
            None => None,
        };
        if let EntryKind::File { size } = found.entry.kind {
            task.advance(size);
        }
        task.advance_entries(1);
        tree.put(&found.entry, PathNote::Described(content))?;
    }
    Ok(tree.finish().with_first_names())
}

fn ensure_directory(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    Err(Error::not_found(format!("there is no directory {}", directory.display())))
}

/// Returns the options by which a directory is read as `pack` reads it.
fn walk_options() -> WalkOptions {
    WalkOptions { rule_files: RuleFiles::Apply, ..WalkOptions::default() }
}
