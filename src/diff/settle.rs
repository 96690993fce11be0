//! Reads the contents that their digests alone do not compare: those that two tables of contents cut differently.

use super::ComparedTree;
use super::compare::{Settled, pairs};
use super::content::{PathNote, whole_digest};
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::tree::{Entry, EntryKind, TreePath};

/// Reads the contents that cannot be compared otherwise, and returns their digests.
///
/// # Errors
/// Those of the images.
pub(super) fn settle(left: &ComparedTree<'_>, right: &ComparedTree<'_>) -> Result<Settled> {
    let paths = unsettled(left, right);
    if paths.is_empty() {
        return Ok(Settled::new());
    }
    let (lefts, rights) = (left.whole_digests(&paths)?, right.whole_digests(&paths)?);
    Ok(paths.into_iter().zip(lefts.into_iter().zip(rights).map(|(left, right)| [left, right])).collect())
}

/// Returns the paths at which both trees have a file of the same size, but no kind of digest in common.
fn unsettled(left: &ComparedTree<'_>, right: &ComparedTree<'_>) -> Vec<TreePath> {
    let mut paths = Vec::new();
    for (a, b) in pairs(&left.tree, &right.tree) {
        let (Some((a, a_note)), Some((b, b_note))) = (a, b) else { continue };
        let (Some(a_content), Some(b_content)) = (a_note.content(), b_note.content()) else { continue };
        if left.size(&a) == right.size(&b) && a_content.comparable(b_content).is_none() {
            paths.push(a.path);
        }
    }
    paths
}

impl ComparedTree<'_> {
    fn size(&self, entry: &Entry) -> Option<u64> {
        match self.tree.resolved_kind(entry) {
            EntryKind::File { size } => Some(size),
            _ => None,
        }
    }

    /// Returns the digests of the contents at these paths. Those that are not known are read.
    fn whole_digests(&self, paths: &[TreePath]) -> Result<Vec<Digest>> {
        let known: Vec<_> = paths.iter().map(|path| self.known_digest(path)).collect();
        let missing: Vec<_> =
            paths.iter().zip(&known).filter(|(_, digest)| digest.is_none()).map(|(path, _)| path).collect();
        let mut read = Vec::new();
        if let Some(image) = self.image.as_ref().filter(|_| !missing.is_empty()) {
            let tree = image.file_tree()?;
            let locate = |path: &&TreePath| {
                let (entry, location) = tree.get(path).ok_or_else(|| cannot_compare(path))?;
                Ok((location.clone(), self.size(&entry).unwrap_or_default()))
            };
            let files = missing.iter().map(locate).collect::<Result<Vec<_>>>()?;
            image.read_files(&files, |_, content| {
                read.push(whole_digest(content)?);
                Ok(())
            })?;
        }
        let mut read = read.into_iter();
        let digests = known.into_iter().zip(paths);
        digests
            .map(|(known, path)| known.or_else(|| read.next()).ok_or_else(|| cannot_compare(path)))
            .collect()
    }

    fn known_digest(&self, path: &TreePath) -> Option<Digest> {
        self.tree.get(path).and_then(|(_, note)| PathNote::content(note)?.whole().cloned())
    }
}

fn cannot_compare(path: &TreePath) -> Error {
    Error::failed(format!("the content of {path} cannot be compared; this is a bug in volio"))
}
