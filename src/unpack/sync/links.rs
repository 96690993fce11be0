//! Hard links of a target, beside those of the image.

use crate::disk::directory::FileId;
use crate::tree::{FoundEntry, TreePath};
use std::collections::HashMap;

/// The inodes of a target that have several names.
#[derive(Debug, Default)]
pub(super) struct LinkGroups(HashMap<FileId, Group>);

#[derive(Debug)]
struct Group {
    /// The path of the image's file that stays in this inode.
    claimed_by: Option<TreePath>,
    /// The number of names that were found.
    found: u64,
    /// The number of names that the inode has.
    links: u64,
}

impl LinkGroups {
    /// Notes a name of an inode.
    pub fn note(&mut self, found: &FoundEntry) {
        if found.links > 1 && !found.is_directory() {
            let new = Group { claimed_by: None, found: 0, links: found.links };
            self.0.entry(found.id).or_insert(new).found += 1;
        }
    }

    /// Lets a file of the image stay in an inode. Returns `false` if another one does.
    pub fn claim(&mut self, found: &FoundEntry, path: &TreePath) -> bool {
        match self.0.get_mut(&found.id) {
            Some(group) => *group.claimed_by.get_or_insert_with(|| path.clone()) == *path,
            None => true,
        }
    }

    /// Returns whether a file of the image stays in the inode of an entry.
    pub fn is_claimed_by(&self, found: &FoundEntry, path: &TreePath) -> bool {
        self.0.get(&found.id).is_some_and(|group| group.claimed_by.as_ref() == Some(path))
    }

    /// Returns whether an inode has names that were not found: they are outside of the target. All names must have been
    /// noted.
    pub fn leads_out(&self, id: FileId) -> bool {
        self.0.get(&id).is_some_and(|group| group.found < group.links)
    }
}
