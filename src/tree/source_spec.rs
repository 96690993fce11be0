//! Sources of a tree as the user names them: `SOURCE[:PATH]`.

use super::{StoredTree, TreePath};
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// A directory or a file on disk, or the tree of an archive, with its path in the tree.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// The path on disk. A symbolic link here is followed, in contrast to links that a walk finds.
    pub path: PathBuf,
    /// The path in the tree of a directory's contents, or of a file. The default is the root, or the file's own name in it.
    pub at: Option<TreePath>,
    /// Set by a trailing slash: `at` is the directory for a file, and not its name.
    pub inside: bool,
    /// The tree of an archive; `path` is then its name in messages.
    pub stored: Option<Arc<StoredTree>>,
}

impl SourceSpec {
    /// A source with the root as its path in the tree.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), at: None, inside: false, stored: None }
    }

    /// Sets the path in the tree.
    #[must_use]
    pub fn at(self, at: TreePath) -> Self {
        Self { inside: at.is_root(), at: Some(at), ..self }
    }

    /// Returns whether this is the archive on standard input: `-`. A file with that name is `./-`.
    pub fn is_standard_input(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    /// Parses `SOURCE[:PATH]`, split at the last colon that is followed by an absolute path.
    ///
    /// # Errors
    /// When SOURCE is empty, or when PATH leads out of the tree.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        let Some(colon) = bytes.windows(2).rposition(|pair| pair == b":/") else {
            return Self::named(text, bytes);
        };
        let at = &bytes[colon + 1..];
        let inside = at.ends_with(b"/");
        let at = TreePath::parse(at).ok_or_else(|| {
            Error::usage(format!(
                "{text:?} puts {:?} outside of the tree",
                OsStr::from_bytes(&bytes[..colon])
            ))
            .with_hint("the path behind the colon is the one inside the image and has no `..`")
        })?;
        Ok(Self { at: Some(at), inside, ..Self::named(text, &bytes[..colon])? })
    }

    fn named(text: &OsStr, path: &[u8]) -> Result<Self> {
        if path.is_empty() {
            return Err(Error::usage(format!("{text:?} names no source"))
                .with_hint("SOURCE or SOURCE:/path/in/the/image; the current directory is `.`"));
        }
        Ok(Self::new(OsStr::from_bytes(path)))
    }

    /// Returns the path in the tree of a directory's contents.
    pub(super) fn path_of_directory(&self) -> TreePath {
        self.at.clone().unwrap_or_default()
    }

    /// Returns the path in the tree of a file.
    pub(super) fn path_of_file(&self) -> TreePath {
        let name = Path::file_name(&self.path).unwrap_or_default().as_bytes();
        match &self.at {
            Some(at) if !self.inside => at.clone(),
            Some(at) => at.join(name),
            None => TreePath::root().join(name),
        }
    }
}

impl FromStr for SourceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(OsStr::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (String, Option<String>) {
        let source: SourceSpec = text.parse().unwrap();
        (source.path.display().to_string(), source.at.map(|at| at.to_string()))
    }

    fn both(path: &str, at: &str) -> (String, Option<String>) {
        (path.to_owned(), Some(at.to_owned()))
    }

    #[test]
    fn the_last_colon_before_an_absolute_path_divides() {
        assert_eq!(parse("data"), ("data".to_owned(), None));
        assert_eq!(parse("data:/var/lib/mysql"), both("data", "/var/lib/mysql"));
        assert_eq!(parse("/data:/"), both("/data", "/"));
        assert_eq!(parse("12:30/a"), ("12:30/a".to_owned(), None));
        assert_eq!(parse("12:30:/a:b"), both("12:30", "/a:b"));
        assert_eq!(parse("a:/b:/c"), both("a:/b", "/c"));
    }

    #[test]
    fn a_path_outside_of_the_tree_and_an_empty_source_are_refused() {
        for text in ["a:/..", "a:/b/../../c", ":/b", ""] {
            assert_eq!(text.parse::<SourceSpec>().unwrap_err().kind(), crate::error::Kind::Usage, "{text:?}");
        }
    }

    #[test]
    fn a_file_takes_the_name_it_is_given_or_its_own_in_a_directory() {
        let path = |text: &str| text.parse::<SourceSpec>().unwrap().path_of_file().to_string();
        assert_eq!(path("a/b.conf"), "/b.conf");
        assert_eq!(path("a/b.conf:/etc/app.conf"), "/etc/app.conf");
        assert_eq!(path("a/b.conf:/etc/"), "/etc/b.conf");
        assert_eq!(path("a/b.conf:/"), "/b.conf");
    }
}
