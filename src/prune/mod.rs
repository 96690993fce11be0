//! Removes the images of a repository or a layout that no rule of retention keeps.
//!
//! 1. All tags are listed. A template selects those that belong together, the group; without one, all tags are the group.
//! 2. The images of the group are read, and get a time: the date in their tag, or else what they say themselves.
//! 3. The [`Policy`] decides which of them are kept. All others lose their tags ([`remove`]).
//! 4. In a layout, the blobs that no image needs are deleted.
//!
//! Attachments, such as signatures, are not images: they are kept as long as their image, and removed if it does not exist.
//! Images without a time are kept. The base of an image is not needed to read it: the image lists the layers of its base
//! itself, and these stay.

mod by_digest;
mod catalog;
mod orphans;
mod plan;
mod policy;
mod remove;
mod remover;
mod report;
mod span;
mod stored;

pub use policy::{Candidate, KeepReason, Period, Policy, Rule, RuleLimit};
pub use report::{Fate, Pruned, PrunedTag, Reason};
pub use span::CalendarSpan;
pub use stored::ensure_stored;

use crate::error::{Error, Result};
use crate::oci::{Digest, TagTemplate};
use crate::transport::{BulkRemoval, Garbage, Source};
use catalog::Catalog;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use remove::{doomed, protect_subjects, record_orphan};
use remover::{RegistryRemover, record};
use std::time::{Duration, SystemTime};

/// The options of [`prune`].
#[derive(Clone, Debug)]
pub struct Options {
    /// The rules by which images are kept.
    pub policy: Policy,
    /// The template of the tags that belong together, and that say when their images were made.
    pub template: Option<TagTemplate>,
    /// The time zone of the dates in tags.
    pub time_zone: TimeZone,
    /// The present.
    pub now: Timestamp,
    /// The reaction to rules that keep no image.
    pub empty_result: EmptyResult,
    /// The image that was just packed. It is kept.
    pub just_packed: Option<Digest>,
    /// The age that a blob of a layout must have to be deleted, if no image needs it and none of those that are removed
    /// had it. A program that does not lock the layout may be writing it.
    pub garbage_age: Duration,
    /// The effect of a run.
    pub effect: Effect,
}

/// The reaction to rules that keep no image of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyResult {
    /// Nothing is removed.
    Refuse,
    /// All images of the template are removed.
    Allow,
}

/// The effect of the decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tags are removed.
    Remove,
    /// Nothing is changed.
    DryRun,
}

impl Options {
    /// Returns options with these rules, at this moment.
    pub fn new(policy: Policy, now: Timestamp) -> Self {
        Self {
            policy,
            template: None,
            time_zone: TimeZone::UTC,
            now,
            empty_result: EmptyResult::Refuse,
            just_packed: None,
            garbage_age: Duration::from_secs(24 * 60 * 60),
            effect: Effect::Remove,
        }
    }

    /// Checks that the options cannot remove everything by mistake.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if no rule keeps anything, or all images of a place could be removed.
    pub fn check(&self) -> Result<()> {
        if self.empty_result == EmptyResult::Allow {
            if self.template.is_none() {
                return Err(Error::usage("all images of a place cannot be removed at once")
                    .with_hint("--allow-remove-all needs --tag-template, which says which images"));
            }
        } else if self.policy.is_empty() {
            return Err(Error::usage("no rule keeps anything").with_hint("give rules such as --keep-daily 7"));
        }
        Ok(())
    }
}

/// Removes the images that no rule keeps.
///
/// # Errors
/// Those of [`Options::check`], of reading, and of removing; [`Refused`](crate::error::Kind::Refused) if the rules keep
/// none of the images. A run that failed or was killed is completed by the next one.
pub fn prune(source: &dyn Source, removal: &dyn BulkRemoval, options: &Options) -> Result<Pruned> {
    options.check()?;
    let catalog = Catalog::new(source);
    let listed = source.tags()?;
    let mut tags = plan::decide(&catalog, &listed, options)?;
    let unknown = options.policy.tags.iter().filter(|tag| !listed.contains(tag));
    let unknown_tags = unknown.cloned().collect();
    let garbage = if removal.deletes_with_last_tag() {
        protect_subjects(&catalog, &mut tags)?;
        remove_from_layout(removal, &mut tags, options)?
    } else {
        let remover = RegistryRemover { source, removal, catalog: &catalog };
        remover.doom_attachments(&mut tags)?;
        remover.doom_orphans(&mut tags)?;
        if options.effect == Effect::Remove {
            remover.remove(&mut tags)?;
        }
        Garbage::default()
    };
    Ok(Pruned { tags, garbage, unknown_tags })
}

/// Removes tags from a layout, or looks what that would do, and then blobs that nothing needs.
fn remove_from_layout(
    removal: &dyn BulkRemoval,
    tags: &mut Vec<PrunedTag>,
    options: &Options,
) -> Result<Garbage> {
    let doomed = doomed(tags);
    let now = SystemTime::from(options.now);
    let before = now.checked_sub(options.garbage_age).unwrap_or(SystemTime::UNIX_EPOCH);
    let (removed, unneeded) = match options.effect {
        Effect::DryRun => (removal.preview(&doomed, before)?, Garbage::default()),
        Effect::Remove => (removal.remove_tags(&doomed)?, removal.collect_garbage(before)?),
    };
    for ((tag, _), outcome) in doomed.iter().zip(removed.outcomes) {
        record(tags, tag, outcome);
    }
    for tag in tags.iter_mut().filter(|tag| removed.attachments.contains(&tag.tag)) {
        tag.fate = Fate::Remove;
    }
    for orphan in removed.garbage.orphans.iter().chain(&unneeded.orphans) {
        record_orphan(tags, orphan);
    }
    Ok(Garbage {
        orphans: Vec::new(),
        blobs: removed.garbage.blobs + unneeded.blobs,
        bytes: removed.garbage.bytes.saturating_add(unneeded.bytes),
        left: removed.garbage.left.or(unneeded.left),
    })
}
