//! The tree that a target is to have: the selected part of the image, with the place and the identity of each content.

use super::super::PathFilter;
use crate::error::{Error, Result};
use crate::image::{ContentId, ContentIds, EntryPosition, EntryVisitor};
use crate::layer::{Chunk, Item, Limits, TocEntry};
use crate::tree::{Content, Entry, EntryKind, MergedTree, Overlay, TargetState, Time, TreePath};
use std::collections::{HashMap, HashSet};

/// A note about an entry.
#[derive(Clone, Debug, Default)]
pub(super) enum SyncNote {
    /// No entry describes the directory.
    #[default]
    Implied,
    /// An entry without content.
    Described(EntryPosition),
    /// A file with content.
    File(EntryPosition, ContentId),
}

/// Notes the place and the identity of each content.
#[derive(Default)]
pub(super) struct SyncNotes {
    /// A time that is not in the future.
    until: Option<Time>,
    /// The newest mtime of a file in any layer that is not after that time. The image was packed later.
    pub newest: Option<Time>,
}

impl SyncNotes {
    /// Creates a visitor for a target with this record.
    pub fn for_target(state: Option<&TargetState>) -> Self {
        let until = state.and_then(|state| state.finished_at).map(Time::from);
        Self { until, newest: None }
    }

    fn note_mtime(&mut self, entry: &Entry) {
        if self.until.is_some_and(|until| entry.metadata.mtime <= until) {
            self.newest = self.newest.max(Some(entry.metadata.mtime));
        }
    }
}

impl EntryVisitor for SyncNotes {
    type Note = SyncNote;

    fn indexed(
        &mut self,
        at: EntryPosition,
        entry: &TocEntry,
        chunks: &mut dyn FnMut() -> Result<Option<Chunk>>,
    ) -> Result<SyncNote> {
        match &entry.item {
            Item::Entry(listed) if has_content(listed) => {
                self.note_mtime(listed);
                let id = ContentIds.indexed(at, entry, chunks)?;
                Ok(id.content().map_or(SyncNote::Described(at), |id| SyncNote::File(at, id.clone())))
            }
            _ => Ok(SyncNote::Described(at)),
        }
    }

    fn streamed(&mut self, at: EntryPosition, entry: &Entry, content: &mut dyn Content) -> Result<SyncNote> {
        if !has_content(entry) {
            return Ok(SyncNote::Described(at));
        }
        self.note_mtime(entry);
        let id = ContentIds.streamed(at, entry, content)?;
        Ok(id.content().map_or(SyncNote::Described(at), |id| SyncNote::File(at, id.clone())))
    }
}

fn has_content(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::File { size: 1.. })
}

impl SyncNote {
    /// The position of the entry.
    pub fn position(&self) -> Option<EntryPosition> {
        match self {
            Self::Implied => None,
            Self::Described(at) | Self::File(at, _) => Some(*at),
        }
    }
}

/// Returns the selected part of a tree, with the paths in the target.
///
/// # Errors
/// [`NotFound`](crate::error::Kind::NotFound) if nothing is selected.
pub(super) fn select(
    tree: MergedTree<SyncNote>,
    filter: &PathFilter,
    limits: &Limits,
) -> Result<MergedTree<SyncNote>> {
    if *filter == PathFilter::All {
        return Ok(tree.with_first_names());
    }
    let tree = tree.with_first_names();
    let mut selected = Overlay::within(limits.max_names);
    // Files that are not selected, with the first selected hard link to each, which becomes the file.
    let mut promoted: HashMap<TreePath, TreePath> = HashMap::new();
    let mut is_found = false;
    // With `--strip`, several entries may have one path. The entry of the last layer counts, as in an unpack.
    let mut positions: HashMap<TreePath, EntryPosition> = HashMap::new();
    let mut lost: HashSet<TreePath> = HashSet::new();
    for (entry, note) in tree.iter() {
        let Some(path) = filter.target_path_of(&entry) else { continue };
        is_found = true;
        if let (PathFilter::Strip(_), Some(at)) = (filter, note.position()) {
            match positions.get(&path) {
                Some(other) if *other > at => {
                    lost.insert(entry.path);
                    continue;
                }
                _ => _ = positions.insert(path.clone(), at),
            }
        }
        let kind = match &entry.kind {
            EntryKind::Hardlink { target } => {
                let first = filter.target_path(target).filter(|_| !lost.contains(target));
                match first.or_else(|| promoted.get(target).cloned()) {
                    Some(first) => EntryKind::Hardlink { target: first },
                    None => {
                        promoted.insert(target.clone(), path.clone());
                        tree.resolved_kind(&entry)
                    }
                }
            }
            kind => kind.clone(),
        };
        selected.put(&Entry { path, kind, metadata: entry.metadata }, note.clone())?;
    }
    filter.ensure_found(is_found)?;
    Ok(selected.finish().with_first_names())
}

/// Fails if a tree has nothing in it, because a sync would then remove all that a target holds.
///
/// # Errors
/// [`Refused`](crate::error::Kind::Refused).
pub(super) fn ensure_not_empty(tree: &MergedTree<SyncNote>) -> Result<()> {
    if tree.entries().any(|entry| !entry.path.is_root()) {
        return Ok(());
    }
    Err(Error::refused("the image, or the wanted part of it, has no entries: everything would be removed")
        .with_hint("--force removes everything"))
}
