//! How much an image may make us remember. Content is not limited here: it goes to the disk and is not kept; for commands
//! that write nothing there is [`Meter`](super::Meter).

use crate::error::{Error, Result};
use crate::tree::{Entry, TreePath};

/// Limits that honest images meet and that bound the memory and the time of whoever reads a hostile one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The headers and PAX records of one entry, in bytes. Go's reader, and with it docker and containerd, takes 1 MiB.
    pub metadata: u64,
    /// A path in bytes: what Linux takes in one call.
    pub path: u64,
    /// How many directories may be nested.
    pub depth: u64,
    /// Entries in all layers together, whiteouts among them: as many files as an ext4 of 150 GiB can hold.
    pub entries: u64,
    /// The memory for what is held of all layers together, in bytes: names, links, extended attributes, and what else is
    /// known of each entry. Some 110 bytes an entry where a tree is held, and almost nothing where it is extracted.
    pub names: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { metadata: 1 << 20, path: 4096, depth: 256, entries: 10_000_000, names: 128 << 20 }
    }
}

impl Limits {
    /// The most that tables of contents may take in all layers together, compressed, in bytes. They are held in a file.
    pub fn listings(&self) -> u64 {
        self.names.saturating_mul(2)
    }
}

/// What of the limits is used up by the layers that were read.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    limits: Limits,
    entries: u64,
}

impl Budget {
    /// Nothing is used up.
    pub fn new(limits: Limits) -> Self {
        Self { limits, entries: 0 }
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
        match entry.impossible() {
            Some(why) => Err(Error::integrity(format!("the layer's entry {} {why}", shortened(&entry.path)))),
            None => Ok(()),
        }
    }

    /// Counts one more path, of a whiteout or of an entry.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn pass(&mut self, path: &TreePath) -> Result<()> {
        let Limits { path: longest, depth: deepest, entries, .. } = self.limits;
        let too = |what: &str, most: u64, option: &str| {
            Err(Error::integrity(format!("the layer's entry {} {what}, and at most {most}", shortened(path)))
                .with_hint(format!("few honest images have that; {option} allows more")))
        };
        if path.as_bytes().len() as u64 > longest {
            return too("has a longer path than is allowed", longest, "--max-path");
        }
        if path.names().count() as u64 > deepest {
            return too("is in more directories than are allowed", deepest, "--max-depth");
        }
        self.entries += 1;
        match self.entries > entries {
            true => too("is one more than are allowed", entries, "--max-entries"),
            false => Ok(()),
        }
    }
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
    use crate::tree::{EntryKind, Metadata};

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn directory(text: &str) -> Entry {
        Entry { path: path(text), kind: EntryKind::Directory, metadata: Metadata::implied_directory() }
    }

    #[test]
    fn each_limit_holds_what_it_says_and_nothing_more() {
        let limits = Limits { metadata: 0, path: 8, depth: 3, entries: 3, names: 0 };
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
