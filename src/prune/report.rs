//! The result of a prune: what happened to each tag, and why.

use super::policy::KeepReason;
use crate::error::{Error, Kind};
use crate::oci::Digest;
use crate::transport::{Garbage, Refusal};
use jiff::Zoned;
use std::fmt;

/// The result of [`prune`](super::prune()).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pruned {
    /// All tags, in the order of their bytes.
    pub tags: Vec<PrunedTag>,
    /// The blobs of a layout that were deleted, or would have been.
    pub garbage: Garbage,
    /// The tags of [`Policy::tags`](super::Policy::tags) that do not exist.
    pub unknown_tags: Vec<String>,
}

/// A tag, and what happened to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PrunedTag {
    /// The tag, or the digest of a referrer without one that was removed from a layout.
    pub tag: String,
    /// The digest of its image; `None` if that was not read.
    pub digest: Option<Digest>,
    /// The time of its image; `None` if that has no time, or was not read.
    pub time: Option<Zoned>,
    /// Its fate.
    pub fate: Fate,
    /// The reasons, at least one.
    pub reasons: Vec<Reason>,
}

/// The fate of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is kept.
    Keep,
    /// It is removed.
    Remove,
}

/// The reason for the fate of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The policy keeps it.
    Policy(KeepReason),
    /// It was packed by the same command.
    JustPacked,
    /// It does not match the template.
    OtherGroup,
    /// The image says nothing about its time.
    NoTime,
    /// It is attached to the image with this digest.
    AttachedTo(Digest),
    /// The image is part of, or the subject of, an image that is kept.
    Needed,
    /// It meant another image, or something new, when it was to be removed.
    Moved,
    /// The registry removes images with all their tags only, and the image has these others.
    SharedWith(Vec<String>),
    /// The image that it means cannot be read.
    Unreadable(String),
    /// No rule keeps it.
    NoRule,
    /// The image is kept under this tag, which is newer.
    KeptAs(String),
    /// It did not exist any more.
    Gone,
    /// The registry refused to remove it.
    Refused(Refusal),
    /// It is attached to the image with this digest, which does not exist.
    Orphaned(Digest),
    /// It is attached to an image that does not exist here, and signed as one of another repository.
    AttachedElsewhere {
        /// The digest of the image.
        subject: Digest,
        /// The repository that the signature names.
        repository: String,
    },
}

impl Pruned {
    /// Returns the tags that are removed.
    pub fn removed(&self) -> impl Iterator<Item = &PrunedTag> {
        self.tags.iter().filter(|tag| tag.fate == Fate::Remove)
    }

    /// Returns the tags that the registry refused to remove, with its answers.
    pub fn refused(&self) -> impl Iterator<Item = (&PrunedTag, &Refusal)> {
        self.tags.iter().filter_map(|tag| Some((tag, tag.refusal()?)))
    }

    /// Returns an error if the registry refused to remove tags. It has the kind of all refusals, if they have the same.
    pub fn refusal(&self) -> Option<Error> {
        let (first, refusal) = self.refused().next()?;
        let count = self.refused().count();
        let what = match count {
            1 => format!("the registry refused to remove the tag {}", first.tag),
            _ => format!("the registry refused to remove {count} tags, the first of which is {}", first.tag),
        };
        let is_same = self.refused().all(|(_, other)| other.kind == refusal.kind);
        let error = Error::new(if is_same { refusal.kind } else { Kind::Failed }, what);
        let error = error.with_source(refusal.why.clone());
        Some(match &refusal.hint {
            Some(hint) if is_same => error.with_hint(hint.clone()),
            _ => error.with_hint("let the registry remove it, or keep it by a rule such as --keep-tag"),
        })
    }
}

impl PrunedTag {
    pub(super) fn new(tag: &str, fate: Fate, reason: Reason) -> Self {
        Self { tag: tag.to_owned(), digest: None, time: None, fate, reasons: vec![reason] }
    }

    /// Returns the answer of the registry, if it refused to remove the tag.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.reasons.iter().find_map(|reason| match reason {
            Reason::Refused(refusal) => Some(refusal),
            _ => None,
        })
    }

    /// Replaces the fate and the reasons.
    pub(super) fn decide(&mut self, fate: Fate, reason: Reason) {
        (self.fate, self.reasons) = (fate, vec![reason]);
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Remove => "remove",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(reason) => reason.fmt(f),
            Self::JustPacked => f.write_str("just packed"),
            Self::OtherGroup => f.write_str("does not match the template"),
            Self::NoTime => f.write_str("its image has no time"),
            Self::AttachedTo(digest) => write!(f, "attached to {digest}"),
            Self::Needed => f.write_str("an image that is kept needs it"),
            Self::Moved => f.write_str("changed meanwhile"),
            Self::SharedWith(tags) => {
                write!(f, "the registry removes only images, and this one is also {}", tags.join(", "))
            }
            Self::Unreadable(why) => write!(f, "cannot be read: {why}"),
            Self::NoRule => f.write_str("no rule keeps it"),
            Self::KeptAs(tag) => write!(f, "its image is kept as {tag}"),
            Self::Gone => f.write_str("was gone already"),
            Self::Refused(refusal) => write!(f, "the registry refused to remove it: {}", refusal.why),
            Self::Orphaned(digest) => write!(f, "attached to {digest}, which does not exist"),
            Self::AttachedElsewhere { subject, repository } => {
                write!(f, "attached to {subject}, which does not exist here, and signed for {repository}")
            }
        }
    }
}
