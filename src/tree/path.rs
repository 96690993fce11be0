//! Paths of entries below the root of their tree.

use crate::error::is_harmful;
use memchr::{memchr, memchr_iter};
use std::borrow::Borrow;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path that cannot leave its tree: names joined by `/`, none of them empty, `.` or `..`, without a leading or
/// trailing `/`; bytes, not text. The empty path is the root.
///
/// Paths are ordered depth first, names by their bytes: the contents of a directory follow it directly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root of the tree.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Parses a path as archives and users write it: `./a//b/`, `/a/b` and `a/b` are the same.
    ///
    /// `None` if it has a `..`, which could lead out of the tree, or a NUL, which no file system can hold.
    pub fn parse(path: impl AsRef<[u8]>) -> Option<Self> {
        let path = path.as_ref();
        if is_clean(path) {
            return Some(Self(path.to_vec()));
        }
        let mut clean = Vec::with_capacity(path.len());
        for name in path.split(|b| *b == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return None,
                name if name.contains(&0) => return None,
                name => {
                    if !clean.is_empty() {
                        clean.push(b'/');
                    }
                    clean.extend_from_slice(name);
                }
            }
        }
        Some(Self(clean))
    }

    /// The path with these names, the last one first. Each must be one that a directory can hold.
    pub(super) fn of_names_upwards<'a>(names: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let length = names.clone().map(|name| name.len() + 1).sum::<usize>().saturating_sub(1);
        let mut path = vec![b'/'; length];
        let mut end = length;
        for name in names {
            let begin = end - name.len();
            path[begin..end].copy_from_slice(name);
            end = begin.saturating_sub(1);
        }
        Self(path)
    }

    /// Returns the path of `name` in this directory. The name must be one that a directory can hold.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Self {
        let mut path = Vec::with_capacity(self.0.len() + 1 + name.len());
        path.extend_from_slice(&self.0);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self(path)
    }

    /// Returns this path followed by another one.
    #[must_use]
    pub fn append(&self, below: &TreePath) -> Self {
        if below.is_root() { self.clone() } else { self.join(&below.0) }
    }

    /// Returns whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the directory that contains this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(slash) => Some(Self(self.0[..slash].to_vec())),
            None if self.is_root() => None,
            None => Some(Self::root()),
        }
    }

    /// Returns the end of the paths below this one, in the order of paths. It is not the path of an entry. `None` for
    /// the root.
    pub(super) fn end(&self) -> Option<Self> {
        let is_last = [self.as_bytes(), b"\0"].concat();
        (!self.is_root()).then_some(Self(is_last))
    }

    /// The last name; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }

    /// Returns the names from the root downwards; none for the root.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|name| !name.is_empty())
    }

    /// Returns the number of names.
    pub fn depth(&self) -> usize {
        if self.is_root() { 0 } else { 1 + memchr_iter(b'/', &self.0).count() }
    }

    /// Returns whether this is `directory` or below it.
    pub fn is_in(&self, directory: &TreePath) -> bool {
        directory.is_root()
            || self.0.strip_prefix(directory.0.as_slice()).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
    }

    /// Returns whether this is a direct child of `directory`.
    pub fn is_child_of(&self, directory: &TreePath) -> bool {
        let (path, above) = (self.as_bytes(), directory.as_bytes());
        match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => path[..slash] == *above,
            None => above.is_empty() && !self.is_root(),
        }
    }

    /// Returns this path relative to `directory`; `None` if it is not in that directory.
    pub fn below(&self, directory: &TreePath) -> Option<Self> {
        if directory.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(directory.0.as_slice())? {
            [] => Some(Self::root()),
            [b'/', rest @ ..] => Some(Self(rest.to_vec())),
            _ => None,
        }
    }

    /// The bytes, with `/` between the names.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as a relative path of the operating system.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

/// Returns whether bytes are the path of an entry as they are; `false` for some that are, too.
fn is_clean(path: &[u8]) -> bool {
    // Nearly all paths of a table of contents begin with a name and have no name that begins with a dot.
    let begins_or_ends = |byte| path.first() == Some(&byte) || path.last() == Some(&byte);
    !begins_or_ends(b'/')
        && path.first() != Some(&b'.')
        && memchr(0, path).is_none()
        && memchr_iter(b'/', path).all(|at| !matches!(path.get(at + 1), Some(b'/' | b'.')))
}

impl Borrow<[u8]> for TreePath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (one, other) = (self.as_bytes(), other.as_bytes());
        if one == other {
            return std::cmp::Ordering::Equal;
        }
        // The first difference decides, and the end of a name comes before every byte of a longer one.
        let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
        match one.iter().zip(other).find(|(one, other)| one != other) {
            Some((one, other)) => rank(one).cmp(&rank(other)),
            None => one.len().cmp(&other.len()),
        }
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// For messages: with a leading `/`. Characters that could control a terminal or mislead a reader are escaped.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/")?;
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if is_harmful(c) {
                    write!(f, "{}", c.escape_default())?;
                } else {
                    write!(f, "{c}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    #[test]
    fn a_path_has_one_spelling_and_never_leaves_its_tree() {
        assert_eq!(path("./a//b/"), path("/a/b"));
        assert!(path("./").is_root());
        assert_eq!(path("..a/...").as_bytes(), b"..a/...");
        for bad in ["..", "a/../b", "/..", "a/..", "a\0b"] {
            assert!(TreePath::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_is_parsed_name_by_name() {
        let texts = [
            "", "a", "a/b", "/", "a//b", "a/", "/a", ".", "./a", ".a/b", "a/.b", "a/./b", "a./b.", "a/.",
            "a/../b",
        ];
        for text in texts {
            let names: Vec<&str> = text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
            let expected = (!names.contains(&"..")).then(|| names.join("/"));
            let parsed = TreePath::parse(text);
            assert_eq!(
                parsed.as_ref().map(TreePath::as_bytes),
                expected.as_deref().map(str::as_bytes),
                "{text}"
            );
            let depth = parsed.as_ref().map(TreePath::depth);
            assert_eq!(depth, expected.map(|_| names.len()), "{text}");
        }
    }

    #[test]
    fn the_contents_of_a_directory_follow_it_directly() {
        let mut paths = ["a.b", "a/c", "a", "a-b", "", "a/b/c", "b"].map(path);
        paths.sort();
        assert_eq!(paths.map(|p| p.to_string()), ["/", "/a", "/a/b/c", "/a/c", "/a-b", "/a.b", "/b"]);
    }

    #[test]
    fn the_order_of_paths_is_that_of_their_names() {
        let names: [&[u8]; 7] = [b"a", b"a\0", b"a\x01", b"a-", b"aa", b"\xff", b"."];
        let mut paths = vec![TreePath::root()];
        for one in names {
            paths.push(TreePath::of_names_upwards([one].into_iter()));
            paths.extend(names.map(|two| TreePath::of_names_upwards([two, one].into_iter())));
            paths.extend(names.map(|three| TreePath::of_names_upwards([three, b"a", one].into_iter())));
        }
        for (one, other) in paths.iter().flat_map(|one| paths.iter().map(move |other| (one, other))) {
            assert_eq!(one.cmp(other), one.names().cmp(other.names()), "{one} and {other}");
        }
    }

    #[test]
    fn a_name_is_not_below_a_directory_that_has_a_prefix_of_it() {
        assert!(path("a/b").is_in(&path("a")) && path("a").is_in(&path("a")) && path("a").is_in(&path("")));
        assert!(!path("ab").is_in(&path("a")));
        assert_eq!(path("a/b/c").below(&path("a")), Some(path("b/c")));
        assert_eq!(
            (path("a").below(&path("a")), path("a").below(&path(""))),
            (Some(path("")), Some(path("a")))
        );
        assert_eq!((path("ab").below(&path("a")), path("a").below(&path("a/b"))), (None, None));
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("").parent(), None);
    }

    #[test]
    fn names_are_escaped_for_terminals() {
        let escaped = TreePath::parse(b"a\x1b[31m\n\xff").unwrap().to_string();
        assert_eq!(escaped, "/a\\u{1b}[31m\\n\\xff");
        assert_eq!(path("\u{202e}gpj.exe").to_string(), "/\\u{202e}gpj.exe");
    }
}
