//! The result of comparing a tree with a target by metadata, and its completion when contents are known.

use super::check::Check;
use super::links::LinkGroups;
use super::plan::{Plan, Reuse, WantedFile, wanted_file};
use super::tree::SyncNote;
use crate::tree::{Entry, EntryKind, MergedTree, TreePath};
use std::collections::HashSet;

/// A name of a file that has several.
pub(super) struct HardLink {
    pub path: TreePath,
    pub first: TreePath,
    /// Set if the target has this name for the inode in which the first one stays.
    pub is_named: bool,
}

/// The result of a comparison by metadata.
pub(super) struct Compared {
    pub plan: Plan,
    /// Files whose content must be read.
    pub checks: Vec<Check>,
    pub links: LinkGroups,
    pub hard_links: Vec<HardLink>,
    /// A name that no entry has.
    pub temporary: Vec<u8>,
}

impl Compared {
    /// Completes the plan when the contents of the checked files are known: hard links to files that are replaced are
    /// made again, and files with names outside of the target are replaced instead of changed.
    pub fn finish(mut self, tree: &MergedTree<SyncNote>) -> Plan {
        let plan = &mut self.plan;
        for file in std::mem::take(&mut plan.attributes) {
            if !self.links.leads_out(file.seen.id) {
                plan.attributes.push(file);
                continue;
            }
            match tree.get(&file.path) {
                Some((Entry { kind: EntryKind::File { size }, .. }, SyncNote::File(at, content))) => {
                    let reuse = Some(Reuse::whole(file.path.clone()));
                    let wanted = wanted_file(&file.path, size, *at, content);
                    plan.writes.push(WantedFile { reuse, ..wanted });
                }
                _ => plan.specials.push(file.path),
            }
        }
        let replaced: HashSet<&TreePath> =
            plan.writes.iter().map(|file| &file.path).chain(&plan.specials).collect();
        let changed: HashSet<&TreePath> = plan.attributes.iter().map(|file| &file.path).collect();
        for HardLink { path, first, is_named } in self.hard_links {
            if is_named && !replaced.contains(&first) {
                plan.unchanged += 1;
                if changed.contains(&first) {
                    plan.kept_links.push((path, first));
                }
            } else {
                plan.links.push((path, first));
            }
        }
        self.plan
    }
}
