//! Limits on what an image may make volio hold in memory. Content is not limited here: it is written to disk and not kept.
//! For commands that write nothing there is [`Meter`](super::Meter).

use crate::error::{Error, Result};
use crate::tree::{Entry, TreePath};

/// Limits that honest images respect, and that bound the memory and the time for a hostile one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The headers and PAX records of one entry, in bytes. Go's reader, which docker and containerd use, allows 1 MiB.
    pub max_metadata: u64,
    /// The length of a path in bytes. The default is the longest path that Linux accepts in one call.
    pub max_path: u64,
    /// The number of nested directories.
    pub max_depth: u64,
    /// The number of entries in all layers together, including whiteouts. The default is the number of files that an ext4
    /// file system of 150 GiB can hold.
    pub max_entries: u64,
    /// The memory for names, links, extended attributes and other data about the entries of all layers, in bytes. A tree
    /// that is held takes about 110 bytes an entry, a tree that is extracted almost nothing.
    pub max_names: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_metadata: 1 << 20,
            max_path: 4096,
            max_depth: 256,
            max_entries: 10_000_000,
            max_names: 128 << 20,
        }
    }
}

impl Limits {
    /// Returns the limit on the tables of contents of all layers together, compressed, in bytes. They are held in a file.
    pub fn max_tocs(&self) -> u64 {
        self.max_names.saturating_mul(2)
    }
}

/// The limits of an image, with the number of entries that were read so far.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    limits: Limits,
    entries: u64,
}

impl Budget {
    /// Creates a budget of which nothing is used.
    pub fn new(limits: Limits) -> Self {
        Self { limits, entries: 0 }
    }

    /// Returns the limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Counts an entry, and checks that a tree can hold it.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if the entry is impossible or exceeds a limit.
    pub fn admit(&mut self, entry: &Entry) -> Result<()> {
        self.count_path(&entry.path)?;
        match entry.impossible() {
            Some(why) => Err(Error::integrity(format!("the layer's entry {} {why}", shortened(&entry.path)))),
            None => Ok(()),
        }
    }

    /// Counts the path of an entry or of a whiteout.
    ///
    /// # Errors
    /// [`Integrity`](crate::error::Kind::Integrity) if it exceeds a limit.
    pub fn count_path(&mut self, path: &TreePath) -> Result<()> {
        let Limits { max_path, max_depth, max_entries, .. } = self.limits;
        let exceeded = |what: &str, max: u64, option: &str| {
            Err(Error::integrity(format!("the layer's entry {} {what}, and at most {max}", shortened(path)))
                .with_hint(raise_limit(option)))
        };
        if path.as_bytes().len() as u64 > max_path {
            return exceeded("has a longer path than is allowed", max_path, "--max-path");
        }
        if path.depth() as u64 > max_depth {
            return exceeded("is in more directories than are allowed", max_depth, "--max-depth");
        }
        self.entries += 1;
        if self.entries > max_entries {
            return Err(Error::integrity(format!("the image has more than {max_entries} entries"))
                .with_hint(raise_limit("--max-entries")));
        }
        Ok(())
    }
}

/// Returns the hint of an error about a limit.
pub fn raise_limit(option: &str) -> String {
    format!("raise the limit with {option} if you trust this image")
}

/// Returns a path for a message, shortened if it is very long.
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
    use crate::tree::{EntryKind, Metadata};

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn directory(text: &str) -> Entry {
        Entry { path: path(text), kind: EntryKind::Directory, metadata: Metadata::implied_directory() }
    }

    #[test]
    fn each_limit_allows_its_value_and_not_more() {
        let limits = Limits { max_metadata: 0, max_path: 8, max_depth: 3, max_entries: 3, max_names: 0 };
        let fails = |paths: &[&str]| {
            let mut budget = Budget::new(limits);
            paths.iter().position(|path| budget.admit(&directory(path)).is_err())
        };
        assert_eq!(fails(&["12345678"]), None);
        assert_eq!(fails(&["123456789"]), Some(0));
        assert_eq!(fails(&["a/b/c"]), None);
        assert_eq!(fails(&["a/b/c/d"]), Some(0));
        assert_eq!(fails(&["a", "b", "c", "d"]), Some(3));
    }
}
