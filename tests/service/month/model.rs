//! The rules of `restic forget`, in the form of its own program: one pass over the snapshots, the newest first, with a
//! counter and the last period of each rule.

use std::collections::BTreeSet;
use volio::Digest;
use volio::prune::{CalendarSpan, Period, Policy, Rule, RuleLimit};

/// A tag with the time in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub time: jiff::civil::DateTime,
    pub tag: String,
    pub digest: Digest,
    /// The time of the newest file of the tree, in seconds, which decides between tags with the same time.
    pub created: u64,
}

/// The rules of the month: 3 of any time, 7 of days, 3 of weeks, 2 of months, and those of the last day.
pub fn policy() -> Policy {
    let count = |period, count| Rule { period, limit: RuleLimit::Count(count) };
    let day: CalendarSpan = "1d".parse().unwrap();
    let rules = vec![
        count(Period::Each, 3),
        count(Period::Day, 7),
        count(Period::Week, 3),
        count(Period::Month, 2),
        Rule { period: Period::Each, limit: RuleLimit::Within(day) },
    ];
    Policy { rules, tags: Vec::new() }
}

struct Bucket {
    count: u32,
    period: fn(&Snapshot, usize) -> String,
    last: String,
    /// An image with several tags counts once for each rule.
    images: BTreeSet<String>,
}

/// Returns the tags that these rules keep. That of the image that was just packed stays in any case.
pub fn keep(mut snapshots: Vec<Snapshot>, now: jiff::civil::DateTime, packed: &Digest) -> BTreeSet<String> {
    let rank = |one: &Snapshot| (one.time, one.digest == *packed, one.created, one.tag.clone());
    snapshots.sort_by_key(|snapshot| std::cmp::Reverse(rank(snapshot)));
    let bucket = |count, period| Bucket { count, period, last: String::new(), images: BTreeSet::new() };
    let mut buckets = [
        bucket(3, |_, place| place.to_string()),
        bucket(7, |snapshot, _| snapshot.time.strftime("%F").to_string()),
        bucket(3, |snapshot, _| snapshot.time.strftime("%G-%V").to_string()),
        bucket(2, |snapshot, _| snapshot.time.strftime("%Y-%m").to_string()),
    ];
    let mut kept = BTreeSet::new();
    let newest = snapshots.iter().map(|snapshot| snapshot.time).find(|time| *time < now);
    let start = newest.map(|newest| newest - jiff::Span::new().days(1));
    let mut young = BTreeSet::new();
    for (place, snapshot) in snapshots.iter().enumerate() {
        let digest = snapshot.digest.to_string();
        if start.is_none_or(|start| snapshot.time > start) && young.insert(digest.clone()) {
            kept.insert(snapshot.tag.clone());
        }
        for bucket in buckets.iter_mut().filter(|bucket| bucket.count > 0) {
            let period = (bucket.period)(snapshot, place);
            let is_oldest = place + 1 == snapshots.len();
            if !bucket.images.contains(&digest) && (period != bucket.last || is_oldest) {
                kept.insert(snapshot.tag.clone());
                bucket.images.insert(digest.clone());
                bucket.last = period;
                bucket.count -= 1;
            }
        }
    }
    let of_packed: Vec<&Snapshot> = snapshots.iter().filter(|snapshot| snapshot.digest == *packed).collect();
    if !of_packed.iter().any(|snapshot| kept.contains(&snapshot.tag)) {
        kept.extend(of_packed.first().map(|snapshot| snapshot.tag.clone()));
    }
    kept
}
