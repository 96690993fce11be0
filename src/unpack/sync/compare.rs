//! The comparison of a tree with a target, entry by entry in the order of paths.

use super::check::Check;
use super::compared::{Compared, HardLink};
use super::links::LinkGroups;
use super::plan::{OldFile, Plan, WantedFile, in_place, wanted_file};
use super::times::{RecordedTimes, is_racy};
use super::tree::SyncNote;
use super::walks::{TemporaryName, Walks};
use crate::disk::directory::FileId;
use crate::error::{Error, Result};
use crate::tree::TargetState;
use crate::tree::{
    ClosedDirectory, Entry, EntryKind, ExpectedAttributes, FoundEntry, MergedTree, Metadata, SeenAs,
    SyncMount, Target, TargetWalk, Time, TreePath, is_reserved_name,
};
use rustix::process::{Uid, geteuid};
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};

/// The most files whose content may be used for others.
const MAX_OLD_FILES: usize = 65_536;

/// The rules of a comparison.
pub(super) struct Rules<'a> {
    /// Reads the content of every file, whatever its metadata says.
    pub checksum: bool,
    /// The files and directories of the image itself, if it lies on this machine.
    pub image: Vec<FileId>,
    /// Accepts foreign contents of mount points.
    pub force: bool,
    /// The reaction to directories that their owner may not enter.
    pub closed: ClosedDirectory,
    /// The longest path of the image, in bytes.
    pub max_path: u64,
    pub expected: &'a ExpectedAttributes,
    pub target: &'a Target,
}

/// The entry of the image that covers entries of the target, or the extra entry that they are in.
enum Cover {
    /// It is removed with what is in it.
    Extra(TreePath),
    /// Another kind of entry takes its place.
    Replaced(TreePath),
    /// It stays with what is in it: a `lost+found`.
    Spared(TreePath),
}

/// A running comparison.
pub(super) struct Comparison<'a> {
    rules: Rules<'a>,
    /// The times in the records of the target and of what is mounted in it, by file system.
    recorded: HashMap<u64, RecordedTimes>,
    /// The newest mtime of a file of the image that is not in the future.
    newest: Option<Time>,
    /// The user whose files can be changed in place; `None` if all can.
    user: Option<u32>,
    links: LinkGroups,
    hard_links: Vec<HardLink>,
    checks: Vec<Check>,
    cover: Option<Cover>,
    /// Directories in extras that lead to mount points.
    kept: BTreeSet<TreePath>,
    /// Entries that cannot be created here.
    skipped: HashSet<TreePath>,
    temporary: TemporaryName,
    plan: Plan,
}

impl<'a> Comparison<'a> {
    /// Creates a comparison with a target that has this root, and this record.
    pub fn new(rules: Rules<'a>, root: &FoundEntry, record: Option<&TargetState>) -> Self {
        let recorded = record.and_then(RecordedTimes::of).map(|times| (root.id.device, times));
        Self {
            rules,
            recorded: recorded.into_iter().collect(),
            newest: None,
            user: Some(geteuid()).filter(|user| !user.is_root()).map(Uid::as_raw),
            links: LinkGroups::default(),
            hard_links: Vec::new(),
            checks: Vec::new(),
            cover: None,
            kept: BTreeSet::new(),
            skipped: HashSet::new(),
            temporary: TemporaryName::default(),
            plan: Plan::default(),
        }
    }

    /// Compares all entries. `found` are those of the target, the root first; `newest` is the newest mtime of a file of the
    /// image that is not in the future.
    ///
    /// # Errors
    /// Those of `found`; [`Refused`](crate::error::Kind::Refused) if the changes cannot be made.
    pub fn run(
        mut self,
        tree: &MergedTree<SyncNote>,
        newest: Option<Time>,
        found: impl Iterator<Item = Result<FoundEntry>>,
    ) -> Result<Compared> {
        self.newest = newest;
        let mut wanted = tree.iter().peekable();
        let mut found = Walks::of(found);
        loop {
            let order = match (wanted.peek(), found.peek()?) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((entry, _)), Some(found)) => entry.path.cmp(&found.path),
            };
            let entry = if order.is_le() { wanted.next() } else { None };
            let there = if order.is_ge() { found.take() } else { None };
            if let Some((entry, _)) = &entry {
                self.temporary.exclude(entry.path.name());
            }
            if let Some(there) = &there {
                self.temporary.exclude(there.path.name());
                self.links.note(there);
                self.ensure_not_image(there)?;
            }
            match (entry, there) {
                (Some((entry, note)), Some(there)) => {
                    if self.both(tree, &entry, note, &there)? {
                        found.mounts.push(self.enter_mount(&there)?);
                    }
                }
                (Some((entry, note)), None) => self.missing(&entry, note)?,
                // A part of an image need not have an entry for the root. The target stays as it is then.
                (None, Some(there)) if there.path.is_root() => self.plan.unchanged += 1,
                (None, Some(there)) => self.extra(&there)?,
                (None, None) => break,
            }
        }
        let Self { plan, checks, links, hard_links, temporary, .. } = self;
        Ok(Compared { plan, checks, links, hard_links, temporary: temporary.choose() })
    }

    /// Fails if an entry of the target belongs to the image that is read.
    fn ensure_not_image(&self, found: &FoundEntry) -> Result<()> {
        if !self.rules.image.contains(&found.id) {
            return Ok(());
        }
        let shown = self.rules.target.path().display();
        Err(Error::refused(format!("the image lies in {shown}, at {}, and would be removed", found.path))
            .with_hint("move it out of there; nothing was changed"))
    }

    /// Handles an entry that both have. Returns `true` if it is a mount point to be entered.
    fn both(
        &mut self,
        tree: &MergedTree<SyncNote>,
        entry: &Entry,
        note: &SyncNote,
        found: &FoundEntry,
    ) -> Result<bool> {
        let kind = tree.resolved_kind(entry);
        if !self.is_created(entry) {
            self.skipped.insert(entry.path.clone());
            self.extra(found)?;
            return Ok(false);
        }
        if found.is_mount_point {
            return self.mount_point(entry, &kind, note, found);
        }
        if found.is_directory() && kind != EntryKind::Directory {
            self.cover = Some(Cover::Replaced(found.path.clone()));
            self.plan.replaced_directories.insert(found.path.clone());
        } else if kind != EntryKind::Directory && found.kind != Some(kind) {
            self.note_old(found);
        }
        match &entry.kind {
            EntryKind::Directory if found.is_directory() => self.directory(entry, note, found)?,
            EntryKind::Directory => self.plan.directories.push(entry.path.clone()),
            EntryKind::Hardlink { target } => {
                let is_named = self.links.is_claimed_by(found, target);
                self.hard_links.push(HardLink { path: entry.path.clone(), first: target.clone(), is_named });
            }
            EntryKind::File { size } => self.file(entry, *size, note, found)?,
            _ => self.special(entry, found)?,
        }
        Ok(false)
    }

    /// Returns whether an entry can be created here, and is not another name of one that cannot.
    fn is_created(&self, entry: &Entry) -> bool {
        if self.is_reserved(&entry.path) {
            return false;
        }
        match &entry.kind {
            EntryKind::Hardlink { target } => !self.skipped.contains(target),
            kind => self.rules.expected.creates(kind),
        }
    }

    /// Returns whether the name of an entry is reserved for the record of the target, or of what is mounted in it.
    fn is_reserved(&self, path: &TreePath) -> bool {
        let has_record = |parent: &TreePath| {
            parent.is_root() || self.plan.mounts.iter().any(|mount| mount.path == *parent)
        };
        let is_reserved = |path: &TreePath| {
            is_reserved_name(path.name()) && path.parent().is_some_and(|parent| has_record(&parent))
        };
        // What is in a directory with such a name cannot be created either.
        is_reserved(path)
            || !self.skipped.is_empty() && path.parent().is_some_and(|parent| self.skipped.contains(&parent))
    }

    fn mount_point(
        &mut self,
        entry: &Entry,
        kind: &EntryKind,
        note: &SyncNote,
        found: &FoundEntry,
    ) -> Result<bool> {
        match (&entry.kind, found.is_directory()) {
            (EntryKind::Directory, true) => {
                self.directory(entry, note, found)?;
                Ok(true)
            }
            (EntryKind::Directory, false) | (_, true) => Err(self.in_the_way(&found.path)),
            _ => {
                // It cannot be replaced. If it has the attributes of the entry, it is taken for that.
                let is_same = found.kind.as_ref() == Some(kind)
                    && found.has_attributes(&self.rules.expected.of(entry, &found.metadata)?);
                if is_same {
                    self.plan.unchanged += 1;
                } else {
                    self.plan.kept_mounts.push(found.path.clone());
                }
                Ok(false)
            }
        }
    }

    fn in_the_way(&self, path: &TreePath) -> Error {
        Error::refused(format!("something is mounted on {}{path}", self.rules.target.path().display()))
            .with_hint("the image has another kind of entry there: unmount it; nothing was changed")
    }

    /// Begins to compare what is mounted in the target.
    fn enter_mount(&mut self, mount: &FoundEntry) -> Result<TargetWalk> {
        let (target, path) = (self.rules.target, &mount.path);
        let walk = TargetWalk::below(target, path, self.rules.closed, self.rules.max_path)?;
        let state = target.state_at(path);
        if let Some(times) = state.as_ref().and_then(RecordedTimes::of) {
            self.recorded.insert(mount.id.device, times);
        }
        // An incomplete record alone does not count: the image may have been extracted over files of the user.
        let is_ours = state.is_some_and(|state| state.may_be_removed());
        let is_foreign = !is_ours && !target.is_mount_empty(path);
        if is_foreign && !self.rules.force {
            return Err(Error::refused(format!(
                "{}{path} is a mount point with contents that volio did not write",
                target.path().display()
            ))
            .with_hint("unmount it, or accept that files in it are replaced with --force; none is removed"));
        }
        let mount = SyncMount { path: path.clone(), id: walk.mount(), is_foreign, is_changed: false };
        self.plan.mounts.push(mount);
        Ok(walk)
    }

    fn directory(&mut self, entry: &Entry, note: &SyncNote, found: &FoundEntry) -> Result<()> {
        let is_kept_as_is = entry.path.is_root() && matches!(note, SyncNote::Implied);
        let is_same = match note {
            _ if found.is_opened_up => false,
            _ if is_kept_as_is => true,
            SyncNote::Implied => {
                let implied = Entry {
                    metadata: Metadata {
                        uid: found.metadata.uid,
                        gid: found.metadata.gid,
                        ..Metadata::implied_directory()
                    },
                    ..entry.clone()
                };
                found.has_attributes(&self.rules.expected.of(&implied, &found.metadata)?)
            }
            _ => found.has_attributes(&self.rules.expected.of(entry, &found.metadata)?),
        };
        if is_same {
            self.plan.unchanged += 1;
        } else {
            self.plan.directory_attributes.push(entry.path.clone());
        }
        Ok(())
    }

    fn file(&mut self, entry: &Entry, size: u64, note: &SyncNote, found: &FoundEntry) -> Result<()> {
        let old = match found.kind {
            Some(EntryKind::File { size }) => Some(size),
            _ => None,
        };
        let has_inode = old.is_some() && self.is_own(found) && self.links.claim(found, &entry.path);
        let wanted = self.rules.expected.of(entry, &found.metadata)?;
        let has_attributes = found.has_attributes(&wanted);
        let SyncNote::File(at, content) = note else {
            match old {
                Some(0) if has_inode && has_attributes => self.plan.unchanged += 1,
                Some(0) if has_inode => self.plan.attributes.extend(in_place(found)),
                _ => self.plan.specials.push(entry.path.clone()),
            }
            return Ok(());
        };
        if old != Some(size) {
            let file = wanted_file(&entry.path, size, *at, content);
            self.write_over(file, old.is_some());
        } else if self.must_read(found, &wanted) || !has_inode {
            self.checks.push(Check {
                file: wanted_file(&entry.path, size, *at, content),
                has_attributes,
                in_place: in_place(found).filter(|_| has_inode),
                is_whole: true,
            });
        } else if has_attributes {
            self.plan.unchanged += 1;
        } else {
            self.plan.attributes.extend(in_place(found));
        }
        Ok(())
    }

    /// Returns whether the process may change the attributes of an entry. An entry of another user is replaced.
    fn is_own(&self, found: &FoundEntry) -> bool {
        self.user.is_none_or(|user| user == found.metadata.uid)
    }

    /// Adds a file to be written. An old version of a large one may have some of its chunks.
    fn write_over(&mut self, file: WantedFile, has_old: bool) {
        if has_old && file.content.whole().is_none() {
            self.checks.push(Check { file, has_attributes: false, in_place: None, is_whole: false });
        } else {
            self.plan.writes.push(file);
        }
    }

    /// Returns whether metadata says too little about the content of a file.
    fn must_read(&self, found: &FoundEntry, wanted: &Metadata) -> bool {
        let mtime = found.metadata.mtime;
        let recorded = self.recorded.get(&found.id.device);
        self.rules.checksum
            || mtime != wanted.mtime
            || is_racy(mtime, found.changed)
            // The source may have changed in the same tick after it was packed: the target has the later version if it
            // goes back to an older image, and the earlier one otherwise.
            || self.newest.is_some_and(|newest| is_racy(mtime, newest))
            // A change of the inode after the last run need not have been one of its attributes.
            || recorded.is_none_or(|times| found.changed >= times.finished_at || is_racy(mtime, times.newest))
    }

    fn special(&mut self, entry: &Entry, found: &FoundEntry) -> Result<()> {
        let is_same = found.kind.as_ref() == Some(&entry.kind)
            && self.is_own(found)
            && self.links.claim(found, &entry.path)
            && found.has_attributes(&self.rules.expected.of(entry, &found.metadata)?);
        if is_same {
            self.plan.unchanged += 1;
        } else {
            self.plan.specials.push(entry.path.clone());
        }
        Ok(())
    }

    /// Handles an entry that the target does not have.
    fn missing(&mut self, entry: &Entry, note: &SyncNote) -> Result<()> {
        if !self.is_created(entry) {
            self.skipped.insert(entry.path.clone());
            return Ok(());
        }
        let path = entry.path.clone();
        match (&entry.kind, note) {
            (EntryKind::Directory, _) => self.plan.directories.push(path),
            (EntryKind::Hardlink { target }, _) => {
                self.hard_links.push(HardLink { path, first: target.clone(), is_named: false });
            }
            (EntryKind::File { size }, SyncNote::File(at, content)) => {
                self.plan.writes.push(wanted_file(&path, *size, *at, content));
            }
            _ => self.plan.specials.push(path),
        }
        Ok(())
    }

    /// Handles an entry that the image does not have.
    fn extra(&mut self, found: &FoundEntry) -> Result<()> {
        match &self.cover {
            Some(Cover::Extra(top)) if found.path.is_in(top) => {
                if found.is_mount_point {
                    self.keep_mount_in_extra(&top.clone(), &found.path);
                } else {
                    self.plan.removed += 1;
                    self.note_old(found);
                }
                Ok(())
            }
            Some(Cover::Replaced(top)) if found.path.is_in(top) => {
                if found.is_mount_point {
                    return Err(self.in_the_way(&found.path));
                }
                self.plan.removed += 1;
                Ok(())
            }
            Some(Cover::Spared(top)) if found.path.is_in(top) => Ok(()),
            _ => self.extra_at(found),
        }
    }

    /// Returns whether an entry is a `lost+found` that `mkfs` or `fsck` made, or may have made.
    fn is_lost_and_found(&self, found: &FoundEntry) -> bool {
        let root = found.path.parent().unwrap_or_default();
        let is_in_mount = self.plan.mounts.iter().any(|mount| mount.path == root);
        found.path.name() == b"lost+found"
            && found.is_directory()
            && found.metadata.uid == 0
            && (is_in_mount || root.is_root())
            && (is_in_mount
                || self.rules.target.is_mount_point()
                || self.rules.target.is_empty_below(&found.path))
    }

    /// Handles an entry that is to be removed and in no other such entry.
    fn extra_at(&mut self, found: &FoundEntry) -> Result<()> {
        let foreign = self.plan.mounts.iter().filter(|mount| mount.is_foreign).map(|mount| &mount.path);
        // The innermost.
        let foreign = foreign.rev().find(|mount| found.path.is_in(mount));
        if found.is_mount_point {
            self.plan.kept_mounts.push(found.path.clone());
        } else if self.is_lost_and_found(found) {
            self.cover = Some(Cover::Spared(found.path.clone()));
        } else if let Some(mount) = foreign {
            if !self.plan.kept_mounts.contains(mount) {
                self.plan.kept_mounts.push(mount.clone());
            }
            // Nothing in it is removed.
        } else {
            self.plan.removed += 1;
            self.note_old(found);
            self.cover = Some(Cover::Extra(found.path.clone()));
            let seen = if found.is_directory() { SeenAs::Directory } else { SeenAs::Other };
            self.plan.extras.push((found.path.clone(), seen));
        }
        Ok(())
    }

    /// Keeps a mount point in an extra entry, and the directories that lead to it.
    fn keep_mount_in_extra(&mut self, top: &TreePath, mount: &TreePath) {
        self.plan.kept_mounts.push(mount.clone());
        let above = std::iter::successors(mount.parent(), TreePath::parent);
        for directory in above.take_while(|directory| directory.is_in(top)) {
            if self.kept.insert(directory) {
                self.plan.removed -= 1;
            }
        }
    }

    /// Notes a file that goes, for its content.
    fn note_old(&mut self, found: &FoundEntry) {
        if let Some(EntryKind::File { size: size @ 1.. }) = found.kind
            && self.plan.old_files.len() < MAX_OLD_FILES
        {
            self.plan.old_files.push(OldFile { path: found.path.clone(), size, content: None });
        }
    }
}
