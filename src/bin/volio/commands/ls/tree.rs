//! The drawing of `ls --tree`.

use super::{Columns, target};
use crate::human::{bytes, count, counts};
use crate::output;
use std::fmt;
use std::io::{self, Write};
use std::iter::Peekable;
use volio::{Entry, EntryKind, MergedTree, TreePath};

/// The part of a tree to draw.
pub struct Drawing<'t> {
    pub tree: &'t MergedTree,
    /// The top of the drawing.
    pub path: TreePath,
    /// The number of levels below the top that are drawn.
    pub levels: usize,
    /// The columns before each line; `None` for names only.
    pub columns: Option<Columns>,
}

/// The children of a directory that were not drawn yet.
type Children<'t> = Peekable<Box<dyn Iterator<Item = Entry> + 't>>;

impl<'t> Drawing<'t> {
    /// Writes the top, all that is below it down to the last level, and the totals.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let (tree, path) = (self.tree, &self.path);
        let top = tree.get(path).map(|(entry, ())| entry);
        let note = top.as_ref().map(target).unwrap_or_default();
        writeln!(out, "{}{path}{note}", self.columns(top.as_ref()))?;
        // One list of children for each directory on the way to the entry that is drawn.
        let mut open: Vec<Children<'t>> = self.children(path, 1).into_iter().collect();
        while let Some(children) = open.last_mut() {
            let Some(entry) = children.next() else {
                open.pop();
                continue;
            };
            let branch = if children.peek().is_some() { "├── " } else { "└── " };
            let above = open.len() - 1;
            write!(out, "{}", self.columns(Some(&entry)))?;
            for children in &mut open[..above] {
                write!(out, "{}", if children.peek().is_some() { "│   " } else { "    " })?;
            }
            let name = output::printable_bytes(entry.path.name());
            writeln!(out, "{branch}{name}{}", target(&entry))?;
            if entry.kind == EntryKind::Directory {
                open.extend(self.children(&entry.path, open.len() + 1));
            }
        }
        writeln!(out, "\n{}", Totals::of(tree, path))
    }

    /// Returns the children of a directory if their level is drawn.
    fn children(&self, directory: &TreePath, level: usize) -> Option<Children<'t>> {
        let children = || self.tree.children(directory).map(|(entry, ())| entry);
        (level <= self.levels).then(|| (Box::new(children()) as Box<dyn Iterator<Item = _>>).peekable())
    }

    /// Formats the columns before a line. The root has none if no layer describes it.
    fn columns(&self, entry: Option<&Entry>) -> String {
        let Some(columns) = &self.columns else { return String::new() };
        let columns = entry.map_or_else(|| columns.blank(), |entry| columns.format(entry));
        format!("{columns} ")
    }
}

/// The totals of all entries below a path, however many of them are drawn. A file with several names counts once in the
/// size.
#[derive(Default)]
struct Totals {
    directories: u64,
    files: u64,
    symlinks: u64,
    others: u64,
    size: u64,
}

impl Totals {
    fn of(tree: &MergedTree, path: &TreePath) -> Self {
        let mut totals = Self::default();
        for (entry, ()) in tree.below(path) {
            match entry.kind {
                EntryKind::Directory => totals.directories += u64::from(entry.path != *path),
                EntryKind::File { size } => {
                    totals.files += 1;
                    totals.size = totals.size.saturating_add(size);
                }
                EntryKind::Hardlink { .. } => totals.files += 1,
                EntryKind::Symlink { .. } => totals.symlinks += 1,
                _ => totals.others += 1,
            }
        }
        totals
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directories, files, symlinks, others, size } = *self;
        let directories = count(directories, "directory", "directories");
        write!(f, "{directories}, {}", count(files, "file", "files"))?;
        let rare = [(symlinks, "symbolic link", "symbolic links"), (others, "other entry", "other entries")];
        if let Some(rare) = counts(rare) {
            write!(f, ", {rare}")?;
        }
        write!(f, ", {}", bytes(size))
    }
}
