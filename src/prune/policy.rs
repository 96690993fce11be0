//! The rules of retention, with the semantics of `restic forget`.
//!
//! - A rule for a period (`--keep-daily 7`) counts only periods that have images. It keeps the newest image of each.
//! - Periods are those of the calendar, in the time zone of each image's time. Weeks are those of ISO 8601.
//! - An image is kept if any rule keeps it.
//! - If a rule reaches the oldest image with some of its count left, it keeps that one too.
//! - A rule for a span of time (`--keep-within 7d`) counts back from the newest image that is not in the future. It keeps
//!   images in the future.
//!
//! restic's snapshots are images here. An image that has several tags with different times is a candidate for each of them.
//! A rule passes over the candidates of an image that it keeps already, as if they did not exist.

use super::span::CalendarSpan;
use crate::oci::Digest;
use jiff::{Timestamp, Zoned};
use std::collections::HashSet;
use std::fmt;

/// The rules by which images are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The rules by time.
    pub rules: Vec<Rule>,
    /// The tags with which an image is kept in any case.
    pub tags: Vec<String>,
}

/// A rule by time: the newest image of each period, within a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The period.
    pub period: Period,
    /// The limit.
    pub limit: RuleLimit,
}

/// The limit of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleLimit {
    /// The newest images, this many.
    Count(u32),
    /// All images.
    Unlimited,
    /// The images that are younger than this, measured from the newest image.
    Within(CalendarSpan),
}

/// A period of which one image is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// No period: every image counts.
    Each,
    /// An hour of the day.
    Hour,
    /// A day.
    Day,
    /// A week from Monday to Sunday.
    Week,
    /// A month.
    Month,
    /// A year.
    Year,
}

/// An image at a time.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The digest of the image.
    pub digest: &'a Digest,
    /// The time, in its own time zone.
    pub time: &'a Zoned,
    /// The tags of the image that have this time.
    pub tags: &'a [String],
}

/// The reason why an image is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepReason {
    /// It has this tag.
    Tag(String),
    /// A rule keeps it.
    Rule(Rule),
    /// A rule keeps it because it is the oldest one, and the rule's count is not reached.
    Oldest(Rule),
}

impl Period {
    /// Returns a number that is the same for all times of one period. `place` is the place in the list.
    fn number(self, time: &Zoned, place: usize) -> i64 {
        let (year, month, day) = (i64::from(time.year()), i64::from(time.month()), i64::from(time.day()));
        match self {
            Self::Each => place as i64,
            Self::Hour => ((year * 100 + month) * 100 + day) * 100 + i64::from(time.hour()),
            Self::Day => (year * 100 + month) * 100 + day,
            Self::Week => {
                let week = time.date().iso_week_date();
                i64::from(week.year()) * 100 + i64::from(week.week())
            }
            Self::Month => year * 100 + month,
            Self::Year => year,
        }
    }

    fn adverb(self) -> &'static str {
        match self {
            Self::Each => "last",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }
}

impl Rule {
    /// Returns whether the rule keeps anything at all.
    fn is_void(self) -> bool {
        match self.limit {
            RuleLimit::Count(count) => count == 0,
            RuleLimit::Within(span) => span.is_zero(),
            RuleLimit::Unlimited => false,
        }
    }
}

impl Policy {
    /// Returns whether the policy keeps nothing, whatever there is.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.rules.iter().all(|rule| rule.is_void())
    }

    /// Returns the reasons for which each candidate is kept: none if it is not. The candidates are sorted, the newest
    /// first. `now` says which of them are in the future.
    pub fn apply(&self, candidates: &[Candidate<'_>], now: Timestamp) -> Vec<Vec<KeepReason>> {
        let newest = candidates.iter().map(|candidate| candidate.time).find(|time| time.timestamp() < now);
        let mut reasons: Vec<Vec<KeepReason>> = candidates
            .iter()
            .map(|candidate| {
                let tags = self.tags.iter().filter(|tag| candidate.tags.contains(tag));
                tags.cloned().map(KeepReason::Tag).collect()
            })
            .collect();
        for rule in self.rules.iter().filter(|rule| !rule.is_void()) {
            for (place, reason) in rule.kept(candidates, newest) {
                reasons[place].push(reason);
            }
        }
        reasons
    }
}

impl Rule {
    /// Returns the places of the candidates that this rule keeps. `newest` is the time of the newest one that is not in the
    /// future.
    fn kept(self, candidates: &[Candidate<'_>], newest: Option<&Zoned>) -> Vec<(usize, KeepReason)> {
        let (mut left, start) = match self.limit {
            RuleLimit::Count(count) => (Some(count), None),
            RuleLimit::Unlimited => (None, None),
            RuleLimit::Within(span) => (None, newest.and_then(|newest| span.before(newest))),
        };
        let (mut kept, mut kept_images, mut last) = (Vec::new(), HashSet::new(), None);
        for (place, candidate) in candidates.iter().enumerate() {
            let is_early = start.is_some_and(|start| candidate.time.timestamp() <= start);
            if left == Some(0) || is_early || kept_images.contains(candidate.digest) {
                continue;
            }
            let period = Some(self.period.number(candidate.time, place));
            let is_oldest = place + 1 == candidates.len();
            if period == last && !is_oldest {
                continue;
            }
            kept.push((
                place,
                if period == last { KeepReason::Oldest(self) } else { KeepReason::Rule(self) },
            ));
            kept_images.insert(candidate.digest);
            last = period;
            left = left.map(|left| left - 1);
        }
        kept
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.period, self.limit) {
            (Period::Each, RuleLimit::Within(span)) => write!(f, "within {span}"),
            (period, RuleLimit::Within(span)) => write!(f, "{} within {span}", period.adverb()),
            (period, _) => f.write_str(period.adverb()),
        }
    }
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Rule(rule) => rule.fmt(f),
            Self::Oldest(rule) => write!(f, "oldest {rule}"),
        }
    }
}

#[cfg(test)]
mod tests;
