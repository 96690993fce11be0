//! The options of an incremental pack: how files are compared, and the limits on the image and on what a source may lose.

use super::base::BaseTree;
use super::changes::{Changes, DeltaEntries, TreeSize};
use super::layering::MAX_LAYERS;
use super::report::FullReason;
use crate::error::{Error, Result};
use crate::layer::Limits;
use std::path::PathBuf;

/// The length of the prefix of whiteouts, in bytes.
const WHITEOUT_PREFIX: u64 = 4;

/// Options of [`pack_incremental`](super::pack_incremental).
#[derive(Clone, Debug)]
pub struct IncrementalOptions {
    /// The files whose contents are compared.
    pub content_check: ContentCheck,
    /// The most layers of an image; one that would have more is packed in full.
    pub max_layers: usize,
    /// The most bytes of an image, in percent, that belong to entries which higher layers have replaced or removed. If there
    /// are more, the whole tree is packed.
    pub max_dead: u8,
    /// The smallest tree that may take the place of the base.
    pub shrink_rule: ShrinkRule,
    /// The effect on the destination.
    pub effect: Effect,
    /// The directory for unnamed files with large tables of contents; without one they stay in memory.
    pub temporary: Option<PathBuf>,
    /// The limits on the metadata of the base.
    pub limits: Limits,
}

impl Default for IncrementalOptions {
    fn default() -> Self {
        Self {
            content_check: ContentCheck::WhereUncertain,
            max_layers: MAX_LAYERS,
            max_dead: 50,
            shrink_rule: ShrinkRule::AtMost(90),
            effect: Effect::Write,
            temporary: None,
            limits: Limits::default(),
        }
    }
}

/// The files whose contents are compared with those of the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentCheck {
    /// Those with equal metadata that proves nothing, because the mtime is too young, or is not the file's own.
    WhereUncertain,
    /// All with equal metadata.
    Always,
}

/// The smallest tree that may take the place of the base. A disk that is not mounted looks like an empty directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShrinkRule {
    /// Any tree.
    Any,
    /// One that has files, and lost at most so many percent of the files and bytes of the base.
    AtMost(u8),
}

/// The tree that a pack replaces, by its size, and what may be lost of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Predecessor {
    /// The number of its entries that are not directories.
    pub files: u64,
    /// The size of its files together, in bytes.
    pub bytes: u64,
    /// The smallest tree that may take its place.
    pub rule: ShrinkRule,
}

/// The effect of a pack on its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The image is stored.
    Write,
    /// Everything is read and computed, and nothing is stored.
    DryRun,
}

/// The size of the layers of a delta.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeltaSize {
    pub layers: usize,
    /// The size of their archives together, in bytes, about.
    pub stored: u64,
}

impl IncrementalOptions {
    /// Returns the reason for which the whole tree is packed instead of a delta.
    pub(super) fn reason_for_full_pack(
        &self,
        base: &BaseTree,
        changes: &Changes,
        entries: &DeltaEntries,
        delta: DeltaSize,
    ) -> Option<FullReason> {
        // All of the base would be dead.
        if changes.unchanged == 0 && self.max_dead < 100 {
            return Some(FullReason::EverythingDiffers);
        }
        let mut removed = entries.removed.values().flatten();
        if removed.any(|path| path.as_bytes().len() as u64 + WHITEOUT_PREFIX > Limits::default().max_path) {
            let why = "a path that was removed is too long for a whiteout".to_owned();
            return Some(FullReason::Unusable { why });
        }
        let layers = base.image.layers.len() + delta.layers;
        if layers > self.max_layers {
            return Some(FullReason::TooManyLayers { layers, limit: self.max_layers });
        }
        let all = base.stored.saturating_add(delta.stored);
        let dead = all.saturating_sub(changes.tree.stored);
        let is_too_much = u128::from(dead) * 100 > u128::from(all) * u128::from(self.max_dead);
        is_too_much.then_some(FullReason::TooMuchDead { limit: self.max_dead })
    }
}

impl Predecessor {
    /// Fails if a tree with so many files and bytes has lost too much to take the place of this one.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused).
    pub(super) fn ensure_replaceable_by(&self, files: u64, bytes: u64) -> Result<()> {
        self.rule.ensure_allows_sizes("the last run packed", (self.files, self.bytes), (files, bytes))
    }
}

impl ShrinkRule {
    /// Fails if a tree has lost too much of the base to take its place.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused).
    pub(super) fn ensure_allows(self, base: &BaseTree, tree: TreeSize) -> Result<()> {
        self.ensure_allows_sizes("the base has", (base.files, base.bytes), (tree.files, tree.bytes))
    }

    /// Fails if a tree with so many files and bytes may not take the place of another one. `has` begins the error.
    fn ensure_allows_sizes(self, has: &str, before: (u64, u64), now: (u64, u64)) -> Result<()> {
        let Self::AtMost(percent) = self else { return Ok(()) };
        if before.0 > 0 && now.0 == 0 {
            return self.ensure_allows_empty();
        }
        let lost = [(before.0, now.0, "files"), (before.1, now.1, "bytes of files")];
        let has_lost = |(before, now, _): &(u64, u64, &str)| {
            u128::from(before.saturating_sub(*now)) * 100 > u128::from(*before) * u128::from(percent)
        };
        match lost.into_iter().find(has_lost) {
            None => Ok(()),
            Some((before, now, what)) => Err(Error::refused(format!(
                "{has} {before} {what} and the source has {now}: it lost more than {percent} %"
            ))
            .with_hint("--allow-shrink packs it nevertheless; --max-shrink sets the limit")),
        }
    }

    /// Fails if a tree without files may not take the place of a base.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused).
    pub(super) fn ensure_allows_empty(self) -> Result<()> {
        match self {
            Self::Any => Ok(()),
            Self::AtMost(_) => Err(Error::refused("the source has no files")
                .with_hint("look whether its disk is mounted; --allow-shrink packs it nevertheless")),
        }
    }
}
