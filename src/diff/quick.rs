//! Compares a directory with an image by metadata first: the content of a file whose size and mtime are those of the image
//! counts as equal, and is not read.

use super::walk_options;
use crate::error::{Error, Result};
use crate::image::{PathNote, identify};
use crate::progress::{Phase, Progress, TaskInfo};
use crate::tree::{Entry, EntryKind, MergedTree, Overlay, PathRange, PathSet, SourceSpec, TreePath, Walk};
use std::path::Path;
use std::sync::Arc;

/// Reads a directory, and of its files only those whose content may differ from that in the image.
pub(super) fn read_directory(
    directory: &Path,
    image: &MergedTree<PathNote>,
    progress: &dyn Progress,
) -> Result<MergedTree<PathNote>> {
    let mut overlay = Overlay::within(u64::MAX);
    for found in Walk::new(&[SourceSpec::new(directory)], &walk_options())?.metadata_only() {
        overlay.put(&found?.entry, PathNote::Described(None))?;
    }
    let mut tree = overlay.finish().with_first_names();
    let unread = compare_metadata(&mut tree, image);
    read_contents(directory, &mut tree, unread, progress)?;
    Ok(tree)
}

/// Notes the contents that count as equal to those in the image, and returns the files that have to be read, by the first
/// of their names.
fn compare_metadata(tree: &mut MergedTree<PathNote>, image: &MergedTree<PathNote>) -> PathSet {
    let mut unread = PathSet::default();
    let mut equal = Vec::new();
    for (entry, _) in tree.iter() {
        let Some((recorded, note)) = image.get(&entry.path) else { continue };
        let is_same_size = match (tree.resolved_kind(&entry), image.resolved_kind(&recorded)) {
            (EntryKind::File { size }, EntryKind::File { size: other }) => size == other,
            _ => false,
        };
        if !is_same_size {
            continue;
        }
        if entry.metadata.mtime == recorded.metadata.mtime {
            equal.push((first_name(entry), note.clone()));
        } else {
            unread.insert(first_name(entry));
        }
    }
    for (path, note) in equal {
        if let Some(known) = tree.get_mut(&path) {
            // Two files of the image are one here: it is at most one of them.
            if known.content().is_some() && *known != note {
                unread.insert(path);
            } else {
                *known = note;
            }
        }
    }
    unread
}

/// Returns the first name of a file that may have several.
fn first_name(entry: Entry) -> TreePath {
    match entry.kind {
        EntryKind::Hardlink { target } => target,
        _ => entry.path,
    }
}

fn read_contents(
    directory: &Path,
    tree: &mut MergedTree<PathNote>,
    mut unread: PathSet,
    progress: &dyn Progress,
) -> Result<()> {
    if unread.is_empty() {
        return Ok(());
    }
    let task = progress.begin(&TaskInfo::new(Phase::Reading).about(directory.display()));
    let range = PathRange { paths: Some(Arc::new(unread.clone())), ..PathRange::default() };
    for found in Walk::new(&[SourceSpec::new(directory)], &walk_options())?.within(&range) {
        let found = found?;
        let (EntryKind::File { size }, Some(mut file)) = (&found.entry.kind, found.file) else { continue };
        let content = identify(&found.entry, &mut file)?;
        task.advance(*size);
        task.advance_entries(1);
        if let Some(note) = tree.get_mut(&found.entry.path) {
            *note = PathNote::Described(content);
        }
        unread.remove(&found.entry.path);
    }
    match unread.iter().next() {
        None => Ok(()),
        Some(path) => {
            let what = format!("{}{path} was removed or replaced while it was compared", directory.display());
            Err(Error::failed(what).with_hint("compare again, or compare a snapshot"))
        }
    }
}
