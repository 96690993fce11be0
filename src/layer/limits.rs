//! How much an image may make us remember. Content is not limited here: it goes to the disk and is not kept.

use crate::error::{Error, Result};
use crate::tree::{Entry, Kind, TreePath};

/// Limits that no honest image meets and that bound the memory and the time of whoever reads a hostile one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The headers and PAX records of one entry, in bytes. Go's reader, and with it docker and containerd, takes 1 MiB.
    pub metadata: u64,
    /// A path in bytes: sixteen times what Linux takes in one call.
    pub path: u64,
    /// How many directories may be nested: what 1 byte names make of a path that Linux takes in one call.
    pub depth: u64,
    /// Entries in all layers together, whiteouts among them: as many files as an ext4 of 150 GiB can hold.
    pub entries: u64,
    /// Bytes of names, links and extended attributes in all layers together: 200 for each of those entries.
    pub names: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { metadata: 1 << 20, path: 64 << 10, depth: 2048, entries: 10_000_000, names: 2_000_000_000 }
    }
}

/// What of the limits is used up by the layers that were read.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    limits: Limits,
    entries: u64,
    names: u64,
    /// Where the last entry was: the directories that lead there are known.
    last: TreePath,
}

impl Budget {
    /// Nothing is used up.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// What this is the budget for.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts one more entry, and insists that it is one that a tree can hold.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) when it cannot be, or is one too many.
    pub fn admit(&mut self, entry: &Entry) -> Result<()> {
        self.pass(&entry.path)?;
        if let Some(why) = entry.impossible() {
            return Err(Error::integrity(format!("the layer's entry {} {why}", shortened(&entry.path))));
        }
        let link = match &entry.kind {
            Kind::Symlink { target } => target.len(),
            Kind::Hardlink { target } => target.as_bytes().len(),
            _ => 0,
        };
        let xattrs: usize = entry.metadata.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.remember(link + xattrs)
    }

    /// Counts one more path, of a whiteout or of an entry.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn pass(&mut self, path: &TreePath) -> Result<()> {
        let Limits { path: longest, depth: deepest, entries, .. } = self.limits;
        let too = |what: &str, most: u64, option: &str| {
            Err(Error::integrity(format!("the layer's entry {} {what}, and at most {most}", shortened(path)))
                .hint(format!("no honest image has that; {option} allows more")))
        };
        if path.as_bytes().len() as u64 > longest {
            return too("has a longer path than is allowed", longest, "--max-path");
        }
        if path.names().count() as u64 > deepest {
            return too("is in more directories than are allowed", deepest, "--max-depth");
        }
        self.entries += 1;
        if self.entries > entries {
            return too("is one more than are allowed", entries, "--max-entries");
        }
        let new = new_directories(&self.last, path);
        self.last = path.clone();
        self.remember(new + path.as_bytes().len())
    }

    fn remember(&mut self, bytes: usize) -> Result<()> {
        self.names = self.names.saturating_add(bytes as u64);
        match self.names > self.limits.names {
            true => Err(Error::integrity(format!(
                "the image has more than {} bytes of names and attributes",
                self.limits.names
            ))
            .hint("no honest image has that; --max-names allows more")),
            false => Ok(()),
        }
    }
}

/// How many bytes the paths of those directories have that lead to `path` and did not lead to `last`: if no entry is
/// theirs, they are made and remembered all the same.
fn new_directories(last: &TreePath, path: &TreePath) -> usize {
    let mut end = 0;
    let mut bytes = 0;
    let mut known = true;
    let mut last = last.names();
    for name in path.parent().unwrap_or_default().names() {
        end += name.len() + 1;
        known = known && last.next() == Some(name);
        bytes += if known { 0 } else { end };
    }
    bytes
}

/// A path for a message; one that is too long for a tree is too long for a message as well.
fn shortened(path: &TreePath) -> String {
    let text = path.to_string();
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Metadata;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn directory(text: &str) -> Entry {
        Entry { path: path(text), kind: Kind::Directory, metadata: Metadata::plain_directory() }
    }

    #[test]
    fn directories_that_no_entry_describes_are_counted_once() {
        assert_eq!(new_directories(&path(""), &path("ab/c/d")), 3 + 5);
        assert_eq!(new_directories(&path("ab/c/x"), &path("ab/c/d")), 0);
        assert_eq!(new_directories(&path("ab/c"), &path("ab/c/d")), 0);
        assert_eq!(new_directories(&path("ab/d"), &path("ab/c/d")), 5);
        assert_eq!(new_directories(&path("x/c"), &path("ab/c/d")), 8);
    }

    #[test]
    fn each_limit_holds_what_it_says_and_nothing_more() {
        let limits = Limits { metadata: 0, path: 8, depth: 3, entries: 3, names: 22 };
        let fails = |paths: &[&str]| {
            let mut budget = Budget::new(limits);
            paths.iter().position(|path| budget.admit(&directory(path)).is_err())
        };
        assert_eq!(fails(&["12345678"]), None);
        assert_eq!(fails(&["123456789"]), Some(0));
        assert_eq!(fails(&["a/b/c"]), None);
        assert_eq!(fails(&["a/b/c/d"]), Some(0));
        assert_eq!(fails(&["a", "b", "c", "d"]), Some(3));
        assert_eq!(fails(&["a/b/cdef", "a/b/ghij"]), None, "2, 4, 8 and 8 bytes");
        assert_eq!(fails(&["a/b/cdef", "x/b/ghij"]), Some(1), "two directories more");
    }
}
