//! Whiteouts, by which a layer removes entries of lower layers (image-spec, "Representing Changes"). volio reads explicit
//! and opaque whiteouts, and writes explicit ones only: readers disagree about the effect of opaque ones on entries of the
//! same layer.

use crate::error::{Error, Result};
use crate::tree::{Entry, EntryKind, Metadata, TreePath};
use memchr::memmem;

/// The prefix of every whiteout. A file of an image cannot have such a name.
const PREFIX: &[u8] = b".wh.";
/// The whiteout that removes all that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The prefix of the names of aufs's internal files, such as `.wh..wh.plnk` and `.wh..wh.orph`.
const AUFS: &[u8] = b".wh..wh.";

/// A removal from lower layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whiteout {
    /// This entry with everything below it.
    Entry(TreePath),
    /// Everything in this directory, but not the directory.
    Opaque(TreePath),
}

/// The meaning of a path in a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMeaning {
    /// An ordinary entry.
    Entry,
    /// A whiteout.
    Whiteout(Whiteout),
    /// An internal file of aufs, which every engine ignores.
    Ignored,
}

/// Parses a path of a layer.
///
/// # Errors
/// The reason why it is neither an entry nor a whiteout.
pub fn parse(path: &TreePath) -> std::result::Result<PathMeaning, &'static str> {
    if memmem::find(path.as_bytes(), PREFIX).is_none() {
        return Ok(PathMeaning::Entry);
    }
    let Some(parent) = path.parent() else { return Ok(PathMeaning::Entry) };
    if path.names().any(|name| name.starts_with(AUFS) && name != OPAQUE) {
        return Ok(PathMeaning::Ignored);
    }
    if parent.names().any(is_reserved) {
        return Err("it is below a whiteout");
    }
    let Some(name) = path.name().strip_prefix(PREFIX) else { return Ok(PathMeaning::Entry) };
    match name {
        _ if path.name() == OPAQUE => Ok(PathMeaning::Whiteout(Whiteout::Opaque(parent))),
        // The name after the prefix must be a valid one: `.wh...` would be the parent directory.
        b"" | b"." | b".." => Err("the name after .wh. is not a valid name of a file"),
        name => Ok(PathMeaning::Whiteout(Whiteout::Entry(parent.join(name)))),
    }
}

/// Returns the entry of the archive that removes `path` from lower layers: an empty file beside it. Its attributes have no
/// meaning, and are all zero as those that docker writes, except for the time, which docker takes from the clock: the same
/// removal must have the same bytes.
///
/// # Errors
/// Fails if `path` is the root, or is or leads through a name that an image cannot have.
pub fn removal_of(path: &TreePath) -> Result<Entry> {
    let parent = path.parent().filter(|_| !path.names().any(is_reserved));
    let parent = parent.ok_or_else(|| Error::failed(format!("{path} cannot be removed by a whiteout")))?;
    Ok(Entry {
        path: parent.join(&[PREFIX, path.name()].concat()),
        kind: EntryKind::File { size: 0 },
        metadata: Metadata::default(),
    })
}

/// Returns whether a file with this name cannot be in an image.
pub fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_are_distinguished_from_files() {
        let path = |text: &str| TreePath::parse(text).unwrap();
        assert_eq!(parse(&path("a/.wh.b")), Ok(PathMeaning::Whiteout(Whiteout::Entry(path("a/b")))));
        assert_eq!(parse(&path("a/.wh..wh..opq")), Ok(PathMeaning::Whiteout(Whiteout::Opaque(path("a")))));
        assert_eq!(
            parse(&path(".wh..wh..opq")),
            Ok(PathMeaning::Whiteout(Whiteout::Opaque(TreePath::root())))
        );
        assert_eq!(parse(&path("a/b.wh.")), Ok(PathMeaning::Entry));
        assert_eq!(parse(&path("")), Ok(PathMeaning::Entry));
        assert_eq!(parse(&path(".wh..wh.plnk/1.2")), Ok(PathMeaning::Ignored));
        for bad in [".wh.", "a/.wh..", "a/.wh...", ".wh.a/b", ".wh..wh..opq/x"] {
            assert!(parse(&path(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_written_whiteout_is_read_as_the_removal_of_the_same_path() {
        let path = |text: &str| TreePath::parse(text).unwrap();
        for removed in ["a", "a/b", "a/.hidden", "a/...", &format!("d/{}", "n".repeat(255))] {
            let written = removal_of(&path(removed)).unwrap();
            assert_eq!(parse(&written.path), Ok(PathMeaning::Whiteout(Whiteout::Entry(path(removed)))));
        }
        for impossible in ["", ".wh.a", "a/.wh..wh..opq", ".wh.a/b"] {
            assert!(removal_of(&path(impossible)).is_err(), "{impossible}");
        }
    }
}
