//! Whiteouts: how a layer says that something below it is gone (image-spec, "Representing changes").

use crate::tree::TreePath;

/// What every marker begins with; no file of an image can have such a name.
const PREFIX: &[u8] = b".wh.";
/// The marker that hides all that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What the names begin with under which aufs kept its own files: `.wh..wh.plnk`, `.wh..wh.orph`.
const AUFS: &[u8] = b".wh..wh.";

/// What is gone from the layers below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whiteout {
    /// This entry, with all below it.
    Entry(TreePath),
    /// All that was in this directory.
    Opaque(TreePath),
}

/// What a path in a layer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// What it says: an ordinary entry.
    Entry,
    /// Something below is gone.
    Whiteout(Whiteout),
    /// Nothing: aufs kept its own files under such names, and every engine passes over them.
    Nothing,
}

/// Reads a path of a layer.
///
/// # Errors
/// Why it can mean neither an entry nor a whiteout.
pub fn parse(path: &TreePath) -> Result<Meaning, &'static str> {
    let Some(parent) = path.parent() else { return Ok(Meaning::Entry) };
    if path.names().any(|name| name.starts_with(AUFS) && name != OPAQUE) {
        return Ok(Meaning::Nothing);
    }
    if parent.names().any(is_reserved) {
        return Err("it is below a whiteout");
    }
    let Some(name) = path.name().strip_prefix(PREFIX) else { return Ok(Meaning::Entry) };
    match name {
        _ if path.name() == OPAQUE => Ok(Meaning::Whiteout(Whiteout::Opaque(parent))),
        // The name behind the marker must stay one: `.wh...` would be the parent directory.
        b"" | b"." | b".." => Err("the name behind .wh. is no name of a file"),
        name => Ok(Meaning::Whiteout(Whiteout::Entry(parent.join(name)))),
    }
}

/// Whether a file of this name cannot be in an image.
pub fn is_reserved(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_from_files() {
        let path = |text: &str| TreePath::parse(text).unwrap();
        assert_eq!(parse(&path("a/.wh.b")), Ok(Meaning::Whiteout(Whiteout::Entry(path("a/b")))));
        assert_eq!(parse(&path("a/.wh..wh..opq")), Ok(Meaning::Whiteout(Whiteout::Opaque(path("a")))));
        assert_eq!(parse(&path(".wh..wh..opq")), Ok(Meaning::Whiteout(Whiteout::Opaque(TreePath::root()))));
        assert_eq!(parse(&path("a/b.wh.")), Ok(Meaning::Entry));
        assert_eq!(parse(&path("")), Ok(Meaning::Entry));
        assert_eq!(parse(&path(".wh..wh.plnk/1.2")), Ok(Meaning::Nothing));
        for bad in [".wh.", "a/.wh..", "a/.wh...", ".wh.a/b", ".wh..wh..opq/x"] {
            assert!(parse(&path(bad)).is_err(), "{bad}");
        }
    }
}
