//! Whiteouts: how a layer says that something below it is gone (image-spec, "Representing changes").

use crate::tree::TreePath;

/// What every marker begins with; no file of an image can have such a name.
const PREFIX: &[u8] = b".wh.";
/// The marker that hides all that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a path in a layer says about the layers below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whiteout {
    /// This entry is gone, with all below it.
    Entry(TreePath),
    /// All that was in this directory is gone.
    Opaque(TreePath),
}

/// Reads a path of a layer as a whiteout. `None`: it is an ordinary entry; an error: it is neither.
pub fn parse(path: &TreePath) -> Result<Option<Whiteout>, &'static str> {
    let Some(parent) = path.parent() else { return Ok(None) };
    if parent.names().any(is_reserved) {
        return Err("it is below a whiteout");
    }
    let Some(name) = path.name().strip_prefix(PREFIX) else { return Ok(None) };
    match name {
        _ if path.name() == OPAQUE => Ok(Some(Whiteout::Opaque(parent))),
        // The name behind the marker must stay one: `.wh...` would be the parent directory.
        b"" | b"." | b".." => Err("the name behind .wh. is no name of a file"),
        // aufs kept its own files under such names; engines skip or refuse them.
        name if name.starts_with(PREFIX) => Err("it is a whiteout of a whiteout"),
        name => Ok(Some(Whiteout::Entry(parent.join(name)))),
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
        assert_eq!(parse(&path("a/.wh.b")), Ok(Some(Whiteout::Entry(path("a/b")))));
        assert_eq!(parse(&path("a/.wh..wh..opq")), Ok(Some(Whiteout::Opaque(path("a")))));
        assert_eq!(parse(&path(".wh..wh..opq")), Ok(Some(Whiteout::Opaque(TreePath::root()))));
        assert_eq!(parse(&path("a/b.wh.")), Ok(None));
        assert_eq!(parse(&path("")), Ok(None));
        for bad in [".wh.", "a/.wh..", "a/.wh...", ".wh.a/b", ".wh..wh.aufs", ".wh..wh..opq/x"] {
            assert!(parse(&path(bad)).is_err(), "{bad}");
        }
    }
}
