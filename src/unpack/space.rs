//! The space that the files of an image need, which is checked before an empty target is filled.

use super::{Options, PathFilter};
use crate::error::{Error, Result};
use crate::image::{LiveContent, LiveFiles};
use crate::layer::{Budget, Item, Limits, TocBytes, TocReader};
use crate::tree::{ClosedDirectory, EntryKind, Holes, Target, TargetWalk, TreePath};
use std::path::{Path, PathBuf};

/// The size of a block of a file system, in bytes.
pub(super) const BLOCK: u64 = 4 << 10;

/// The space in an empty target.
pub(super) struct FreeSpace<'a> {
    target: PathBuf,
    /// The number of free bytes.
    free: u64,
    holes: Holes,
    filter: &'a PathFilter,
    limits: Limits,
}

impl<'a> FreeSpace<'a> {
    /// Returns the space in a target that is empty except for mount points; `None` if it is not known, or if the files may
    /// be written to something that is mounted in the target.
    pub fn of(target: &Target, options: &'a Options) -> Option<Self> {
        let free = target.free_space(&TreePath::root())?;
        let mut walk =
            TargetWalk::below(target, &TreePath::root(), ClosedDirectory::Fail, options.limits.max_path)
                .ok()?;
        let has_mounts = walk.any(|found| found.is_ok_and(|found| found.is_mount_point));
        let Options { filter, limits, tree, .. } = options;
        let target = target.path().to_owned();
        (!has_mounts).then_some(Self { target, free, holes: tree.holes, filter, limits: *limits })
    }

    /// Fails if the live files of an image need more.
    ///
    /// # Errors
    /// Those of the tables of contents.
    pub fn ensure_for(&self, live: &LiveContent) -> Result<()> {
        let mut needed = 0u64;
        for (number, toc) in live.tocs().iter().enumerate() {
            let entries = toc.entries(Budget::new(self.limits))?;
            needed = needed.saturating_add(self.needed(entries, live.files(number))?);
        }
        self.ensure(needed)
    }

    /// Fails if the files of the first layer need more.
    ///
    /// # Errors
    /// Those of the table of contents.
    pub fn ensure_for_first(&self, entries: TocReader<TocBytes>) -> Result<()> {
        self.ensure(self.needed(entries, None)?)
    }

    /// Returns the number of bytes that the selected files of a layer need, without holes.
    fn needed(&self, mut entries: TocReader<TocBytes>, live: Option<&LiveFiles>) -> Result<u64> {
        let (mut needed, mut number) = (0u64, 0);
        while let Some(listed) = entries.next_entry()? {
            let Item::Entry(entry) = listed.item else { continue };
            let is_live = live.is_none_or(|files| files.contains(number));
            number += 1;
            let EntryKind::File { size } = entry.kind else { continue };
            if !is_live || self.filter.target_path_of(&entry).is_none() {
                continue;
            }
            let mut stored = if self.holes == Holes::Never { size } else { 0 };
            while self.holes != Holes::Never
                && let Some(chunk) = entries.next_chunk()?
            {
                stored += if chunk.zeros { 0 } else { chunk.size };
            }
            needed = needed.saturating_add(stored.next_multiple_of(BLOCK));
        }
        Ok(needed)
    }

    fn ensure(&self, needed: u64) -> Result<()> {
        if needed <= self.free {
            return Ok(());
        }
        let hint = "free some space there; no file was written";
        Err(too_little(&self.target, self.free, needed).with_hint(hint))
    }
}

/// The error for a file system with too little space.
pub(super) fn too_little(place: &Path, free: u64, needed: u64) -> Error {
    let shown = place.display();
    Error::failed(format!(
        "{shown} has {free} bytes free, and the new files need {needed}: No space left on device"
    ))
}
