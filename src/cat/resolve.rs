//! Which file a path means: links are followed as a shell in the image would follow them, whose `/` is the image's root.

use super::{Place, Tree};
use crate::error::{Error, Result};
use crate::tree::{EntryKind, Resolution, Step, TreePath};

/// Where the content of the file is that this path means, and how many bytes it has.
///
/// # Errors
/// [`NotFound`](crate::error::Kind::NotFound) when there is none, [`Usage`](crate::error::Kind::Usage) when it is something
/// else.
pub(super) fn file(tree: &Tree, path: &TreePath) -> Result<(Place, u64)> {
    let mut at = TreePath::root();
    let mut steps = Resolution::of(path);
    while let Some(step) = steps.next() {
        let next = match step {
            Step::Root => {
                at = TreePath::root();
                continue;
            }
            Step::Up => {
                at = at.parent().unwrap_or_default();
                continue;
            }
            Step::Enter { name, .. } => at.join(&name),
        };
        let Some((entry, place)) = tree.get(&next) else { return Err(missing(path, &next)) };
        // Another name of a symbolic link is that link.
        match &tree.resolved_kind(&entry) {
            EntryKind::Directory => at = next,
            EntryKind::Symlink { target } => steps.follow(target).map_err(|_| {
                Error::not_found(format!("the symbolic links at {path} are too many or lead in a circle"))
            })?,
            _ if !steps.is_done() => {
                return Err(Error::not_found(format!(
                    "{path} is not in the image: {next} is not a directory"
                )));
            }
            EntryKind::File { size } => return Ok((place.clone(), *size)),
            other => return Err(no_file(path, other)),
        }
    }
    Err(no_file(path, &EntryKind::Directory))
}

fn missing(path: &TreePath, next: &TreePath) -> Error {
    let what = match next == path {
        true => format!("{path} is not in the image"),
        false => format!("{path} is not in the image: there is no {next}"),
    };
    Error::not_found(what).with_hint("`volio ls -R` shows what it has")
}

fn no_file(path: &TreePath, kind: &EntryKind) -> Error {
    let what = match kind {
        EntryKind::Directory => "a directory",
        EntryKind::Fifo => "a named pipe",
        EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => "a device",
        _ => "no file",
    };
    let error = Error::usage(format!("{path} is {what}, which has no content to show"));
    match kind {
        EntryKind::Directory => error.with_hint("`volio ls` lists it; `volio unpack --subpath` unpacks it"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::At;
    use super::*;
    use crate::error::Kind as ErrorKind;
    use crate::tree::{Entry, Metadata, Overlay};

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    /// A tree from lines: `name/`, `name->target`, or `name`, whose content has the number of its line.
    fn tree(lines: &[&str]) -> Overlay<Place> {
        let mut tree = Overlay::within(u64::MAX);
        for (number, line) in lines.iter().enumerate() {
            let (name, kind, place) = match (line.split_once("->"), line.ends_with('/')) {
                (Some((name, target)), _) => {
                    (name, EntryKind::Symlink { target: target.into() }, Place::Nowhere)
                }
                (None, true) => (*line, EntryKind::Directory, Place::Nowhere),
                (None, false) => {
                    let place = Place::Listed(At { layer: 0, number: number as u64 });
                    (*line, EntryKind::File { size: 1 }, place)
                }
            };
            put(&mut tree, name, kind, place);
        }
        tree
    }

    fn put(tree: &mut Overlay<Place>, name: &str, kind: EntryKind, place: Place) {
        tree.put(&Entry { path: path(name), kind, metadata: Metadata::default() }, place).unwrap();
    }

    #[test]
    fn links_are_followed_as_a_shell_in_the_image_would() {
        let mut tree = tree(&[
            "a/",
            "a/file",
            "top",
            "to-a->a",
            "absolute->/a/file",
            "a/up->../top",
            "a/far-up->../../../../top",
            "a/b/",
            "a/b/dots->.././/file",
            "chain->to-a/up",
            "a/b/through->../../to-a/b/../file",
        ]);
        put(&mut tree, "also-to-a", EntryKind::Hardlink { target: path("to-a") }, Place::Nowhere);
        let tree = tree.finish();
        let found = |text: &str| match file(&tree, &path(text)).unwrap().0 {
            Place::Listed(at) => at.number,
            place => panic!("{place:?}"),
        };
        for text in
            ["a/file", "to-a/file", "also-to-a/file", "absolute", "a/b/dots", "a/b/through", "to-a/b/through"]
        {
            assert_eq!(found(text), 1, "{text}");
        }
        for text in ["top", "a/up", "to-a/up", "a/far-up", "chain"] {
            assert_eq!(found(text), 2, "{text}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_not_found_and_what_is_no_file_is_a_usage_error() {
        let mut tree =
            tree(&["a/", "file", "gone->a/gone", "round->round", "x->y", "y->x", "dir->a", "out->.."]);
        put(&mut tree, "fifo", EntryKind::Fifo, Place::Nowhere);
        put(&mut tree, "null", EntryKind::CharDevice { major: 1, minor: 3 }, Place::Nowhere);
        put(&mut tree, "also-fifo", EntryKind::Hardlink { target: path("fifo") }, Place::Nowhere);
        let tree = tree.finish();
        for text in ["b", "a/b", "gone", "round", "x", "file/x", "file/x/y", "fifo/x", "dir/gone"] {
            assert_eq!(file(&tree, &path(text)).unwrap_err().kind(), ErrorKind::NotFound, "{text}");
        }
        for text in ["", "a", "dir", "out", "fifo", "null", "also-fifo"] {
            assert_eq!(file(&tree, &path(text)).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }
}
