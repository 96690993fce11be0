//! Finds the file that a path names. Symbolic links are followed as a shell in the image would follow them: `/` is the
//! root of the image.

use crate::error::{Error, Result};
use crate::image::{FileLocation, WantedFile};
use crate::tree::{EntryKind, MergedTree, Resolution, Step, TreePath};

/// Returns the file that a path names.
///
/// # Errors
/// [`NotFound`](crate::error::Kind::NotFound) if nothing is there, [`Usage`](crate::error::Kind::Usage) if it is not a
/// file.
pub(super) fn file(tree: &MergedTree<FileLocation>, path: &TreePath) -> Result<WantedFile> {
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
        let Some((entry, location)) = tree.get(&next) else { return Err(missing(path, &next)) };
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
            EntryKind::File { size } => return Ok((location.clone(), *size)),
            other => return Err(not_a_file(path, other)),
        }
    }
    Err(not_a_file(path, &EntryKind::Directory))
}

fn missing(path: &TreePath, next: &TreePath) -> Error {
    let reason = if next == path { String::new() } else { format!(": there is no {next}") };
    Error::not_found(format!("{path} is not in the image{reason}"))
        .with_hint("`volio ls -R` shows what it has")
}

fn not_a_file(path: &TreePath, kind: &EntryKind) -> Error {
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
    use super::*;
    use crate::error::Kind as ErrorKind;
    use crate::image::EntryPosition;
    use crate::tree::{Entry, Metadata, Overlay};

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    /// A tree from lines: `name/`, `name->target`, or `name`. The location of a file has the number of its line.
    fn tree(lines: &[&str]) -> Overlay<FileLocation> {
        let mut tree = Overlay::within(u64::MAX);
        for (number, line) in lines.iter().enumerate() {
            let (name, kind, location) = match (line.split_once("->"), line.ends_with('/')) {
                (Some((name, target)), _) => {
                    (name, EntryKind::Symlink { target: target.into() }, FileLocation::Empty)
                }
                (None, true) => (*line, EntryKind::Directory, FileLocation::Empty),
                (None, false) => {
                    let location = FileLocation::Indexed(EntryPosition { layer: 0, number: number as u64 });
                    (*line, EntryKind::File { size: 1 }, location)
                }
            };
            put(&mut tree, name, kind, location);
        }
        tree
    }

    fn put(tree: &mut Overlay<FileLocation>, name: &str, kind: EntryKind, location: FileLocation) {
        tree.put(&Entry { path: path(name), kind, metadata: Metadata::default() }, location).unwrap();
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
        put(&mut tree, "also-to-a", EntryKind::Hardlink { target: path("to-a") }, FileLocation::Empty);
        let tree = tree.finish();
        let found = |text: &str| match file(&tree, &path(text)).unwrap().0 {
            FileLocation::Indexed(at) => at.number,
            other => panic!("{other:?}"),
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
    fn a_broken_link_is_not_found_and_anything_but_a_file_is_a_usage_error() {
        let mut tree =
            tree(&["a/", "file", "gone->a/gone", "round->round", "x->y", "y->x", "dir->a", "out->.."]);
        put(&mut tree, "fifo", EntryKind::Fifo, FileLocation::Empty);
        put(&mut tree, "null", EntryKind::CharDevice { major: 1, minor: 3 }, FileLocation::Empty);
        put(&mut tree, "also-fifo", EntryKind::Hardlink { target: path("fifo") }, FileLocation::Empty);
        let tree = tree.finish();
        for text in ["b", "a/b", "gone", "round", "x", "file/x", "file/x/y", "fifo/x", "dir/gone"] {
            assert_eq!(file(&tree, &path(text)).unwrap_err().kind(), ErrorKind::NotFound, "{text}");
        }
        for text in ["", "a", "dir", "out", "fifo", "null", "also-fifo"] {
            assert_eq!(file(&tree, &path(text)).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }
}
