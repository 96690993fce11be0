use super::*;
use jiff::ToSpan;
use jiff::civil::{DateTime, datetime};
use jiff::tz::{Offset, TimeZone};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const HOUR: Period = Period::Hour;
const DAY: Period = Period::Day;
const WEEK: Period = Period::Week;
const MONTH: Period = Period::Month;
const YEAR: Period = Period::Year;

/// The present in tests where nothing is in the future.
const LATER: Timestamp = Timestamp::constant(4_000_000_000, 0);

fn count(period: Period, count: u32) -> Rule {
    Rule { period, limit: RuleLimit::Count(count) }
}

fn within(period: Period, span: &str) -> Rule {
    Rule { period, limit: RuleLimit::Within(span.parse().unwrap()) }
}

fn all(period: Period) -> Rule {
    Rule { period, limit: RuleLimit::Unlimited }
}

fn policy(rules: &[Rule]) -> Policy {
    Policy { rules: rules.to_vec(), tags: Vec::new() }
}

fn utc(time: &str) -> Zoned {
    let time: DateTime = time.parse().unwrap();
    time.to_zoned(TimeZone::UTC).unwrap()
}

/// Returns the reasons for images at these times, each of its own, in any order.
fn reasons(policy: &Policy, times: &[Zoned], now: Timestamp) -> Vec<(Zoned, Vec<String>)> {
    let mut times = times.to_vec();
    times.sort_by_key(|time| std::cmp::Reverse(time.timestamp()));
    let digests: Vec<Digest> = (0..times.len()).map(|number| Digest::of(&number.to_le_bytes())).collect();
    let candidates: Vec<_> =
        times.iter().zip(&digests).map(|(time, digest)| Candidate { digest, time, tags: &[] }).collect();
    let reasons = policy.apply(&candidates, now);
    let texts = reasons.iter().map(|reasons| reasons.iter().map(ToString::to_string).collect());
    times.iter().cloned().zip(texts).collect()
}

/// Returns what is kept, with the reasons in one line, the newest first.
fn kept(rules: &[Rule], times: &[&str]) -> Vec<(String, String)> {
    let times: Vec<Zoned> = times.iter().map(|time| utc(time)).collect();
    let kept = reasons(&policy(rules), &times, LATER).into_iter().filter(|(_, reasons)| !reasons.is_empty());
    kept.map(|(time, reasons)| (time.datetime().to_string(), reasons.join(", "))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(time, reason)| ((*time).to_owned(), (*reason).to_owned())).collect()
}

#[test]
fn twelve_sundays_leave_the_newest_four_days() {
    let first = datetime(2019, 9, 1, 11, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap();
    let sundays: Vec<Zoned> = (0..12).map(|week| &first + (week * 7).days()).collect();
    let result = reasons(&policy(&[count(DAY, 4)]), &sundays, LATER);
    let kept: Vec<String> =
        result.iter().filter(|(_, why)| *why == ["daily"]).map(|(time, _)| time.date().to_string()).collect();
    assert_eq!(kept, ["2019-11-17", "2019-11-10", "2019-11-03", "2019-10-27"]);
}

#[test]
fn a_hundred_years_of_daily_images_leave_days_weeks_months_and_years() {
    let last = datetime(2019, 11, 20, 11, 0, 0, 0).to_zoned(TimeZone::UTC).unwrap();
    let days: Vec<Zoned> = (0..36_524).map(|day| &last - day.days()).collect();
    let rules = [count(DAY, 7), count(WEEK, 5), count(MONTH, 12), count(YEAR, 75)];
    let result = reasons(&policy(&rules), &days, LATER);
    let with = |word: &str| {
        let found = result.iter().filter(|(_, why)| why.iter().any(|reason| reason == word));
        found.map(|(time, _)| time.date()).collect::<Vec<_>>()
    };
    assert_eq!(with("daily").len(), 7);
    // The newest image stands for its week, month and year, and all others are the last days of theirs.
    assert!(with("weekly")[1..].iter().all(|day| day.weekday() == jiff::civil::Weekday::Sunday));
    assert!(with("monthly")[1..].iter().all(|day| day.day() == day.days_in_month()));
    assert!(with("yearly")[1..].iter().all(|day| (day.month(), day.day()) == (12, 31)));
    assert_eq!(["weekly", "monthly", "yearly"].map(|word| with(word).len()), [5, 12, 75]);
    let kept = result.iter().filter(|(_, why)| !why.is_empty()).count();
    // The days have one Sunday, the newest image is in each list, and the last day of 2018 ends a month and a year.
    assert_eq!(kept, 7 + 5 - 2 + 12 - 1 + 75 - 1 - 1);
}

#[test]
fn only_periods_with_images_count_and_the_newest_of_each_stays() {
    let times = [
        "2026-03-01T09:00:00",
        "2026-03-01T10:15:00",
        "2026-03-01T10:45:00",
        "2026-03-04T00:00:00",
        "2026-03-04T23:59:59",
        "2026-04-30T12:00:00",
    ];
    let hourly = [
        ("2026-04-30T12:00:00", "hourly"),
        ("2026-03-04T23:59:59", "hourly"),
        ("2026-03-04T00:00:00", "hourly"),
    ];
    assert_eq!(kept(&[count(HOUR, 3)], &times), pairs(&hourly));
    let daily = [("2026-04-30T12:00:00", "daily"), ("2026-03-04T23:59:59", "daily")];
    assert_eq!(kept(&[count(DAY, 2)], &times), pairs(&daily));
    let monthly = [("2026-04-30T12:00:00", "monthly"), ("2026-03-04T23:59:59", "monthly")];
    assert_eq!(kept(&[count(MONTH, 2)], &times), pairs(&monthly));
    let last = [("2026-04-30T12:00:00", "last"), ("2026-03-04T23:59:59", "last")];
    assert_eq!(kept(&[count(Period::Each, 2)], &times), pairs(&last));
}

#[test]
fn weeks_are_those_of_iso_8601() {
    // Monday, December 30, 2024 is in the first week of 2025, and Sunday, January 3, 2027 in the last one of 2026.
    let times = [
        "2024-12-29T23:59:59",
        "2024-12-30T00:00:00",
        "2025-01-05T12:00:00",
        "2026-12-28T00:00:00",
        "2027-01-03T00:00:00",
    ];
    let weekly = [
        ("2027-01-03T00:00:00", "weekly"),
        ("2025-01-05T12:00:00", "weekly"),
        ("2024-12-29T23:59:59", "weekly"),
    ];
    assert_eq!(kept(&[count(WEEK, 3)], &times), pairs(&weekly));
}

#[test]
fn a_count_that_is_not_reached_keeps_the_oldest_too() {
    let times = ["2026-03-01T09:00:00", "2026-03-01T10:00:00", "2026-03-02T10:00:00"];
    let oldest = [
        ("2026-03-02T10:00:00", "daily"),
        ("2026-03-01T10:00:00", "daily"),
        ("2026-03-01T09:00:00", "oldest daily"),
    ];
    assert_eq!(kept(&[count(DAY, 3)], &times), pairs(&oldest));
    assert_eq!(kept(&[count(DAY, 2)], &times), pairs(&oldest[..2]), "the count is reached");
    assert_eq!(kept(&[all(DAY)], &times), pairs(&oldest));
    let year = [("2026-03-02T10:00:00", "yearly"), ("2026-03-01T09:00:00", "oldest yearly")];
    assert_eq!(kept(&[count(YEAR, 10)], &times), pairs(&year));
    let spans =
        [("2026-03-02T10:00:00", "yearly within 2d"), ("2026-03-01T09:00:00", "oldest yearly within 2d")];
    assert_eq!(kept(&[within(YEAR, "2d")], &times), pairs(&spans));
    assert_eq!(
        kept(&[within(YEAR, "1d1h")], &times),
        pairs(&[("2026-03-02T10:00:00", "yearly within 1d1h")])
    );
}

#[test]
fn rules_are_joined_by_or_and_every_reason_is_named() {
    let times = ["2025-12-31T10:00:00", "2026-01-31T10:00:00", "2026-02-01T10:00:00"];
    let rules = [count(Period::Each, 1), count(DAY, 1), count(MONTH, 2), count(YEAR, 2)];
    let expected = [
        ("2026-02-01T10:00:00", "last, daily, monthly, yearly"),
        ("2026-01-31T10:00:00", "monthly"),
        ("2025-12-31T10:00:00", "yearly"),
    ];
    assert_eq!(kept(&rules, &times), pairs(&expected));
}

#[test]
fn a_span_is_measured_from_the_newest_image_and_its_end_does_not_count() {
    let times = ["2026-03-01T10:00:00", "2026-03-01T10:00:01", "2026-03-05T09:00:00", "2026-03-08T10:00:00"];
    let expected = [
        ("2026-03-08T10:00:00", "within 7d"),
        ("2026-03-05T09:00:00", "within 7d"),
        ("2026-03-01T10:00:01", "within 7d"),
    ];
    assert_eq!(kept(&[within(Period::Each, "7d")], &times), pairs(&expected));
}

#[test]
fn images_in_the_future_do_not_move_the_span_and_are_kept_by_it() {
    let now = utc("2026-03-08T12:00:00").timestamp();
    let times =
        ["2026-03-01T11:00:00", "2026-03-05T09:00:00", "2026-03-08T10:00:00", "2027-01-01T00:00:00"].map(utc);
    let result = reasons(&policy(&[within(Period::Each, "3d2h")]), &times, now);
    let kept: Vec<_> =
        result.iter().filter(|(_, why)| !why.is_empty()).map(|(time, _)| time.date().to_string()).collect();
    assert_eq!(kept, ["2027-01-01", "2026-03-08", "2026-03-05"]);
    // A count has no notion of the present.
    let result = reasons(&policy(&[count(Period::Each, 1)]), &times, now);
    assert_eq!(result.iter().filter(|(_, why)| !why.is_empty()).count(), 1);
    assert_eq!(result[0].1, ["last"]);
    let future = [utc("2027-01-01T00:00:00"), utc("2028-01-01T00:00:00")];
    let result = reasons(&policy(&[within(Period::Each, "1h")]), &future, now);
    assert!(result.iter().all(|(_, why)| !why.is_empty()), "nothing is in the past");
}

#[test]
fn periods_are_those_of_the_time_zone_of_each_time() {
    let east = TimeZone::fixed(Offset::constant(13));
    // The same day in the east, and two days in UTC.
    let times: Vec<Zoned> = ["2026-03-01T23:00:00", "2026-03-02T08:00:00"]
        .iter()
        .map(|time| utc(time).with_time_zone(east.clone()))
        .collect();
    let newest = |times: &[Zoned]| {
        let result = reasons(&policy(&[count(DAY, 1)]), times, LATER);
        result.iter().filter(|(_, why)| !why.is_empty()).count()
    };
    assert_eq!(newest(&times), 1);
    let day = |time: &Zoned| Period::Day.number(time, 0);
    assert_eq!(day(&times[0]), day(&times[1]));
    assert_ne!(day(&utc("2026-03-01T23:00:00")), day(&utc("2026-03-02T08:00:00")));
}

#[test]
fn a_tag_is_kept_without_being_counted() {
    let digests = [Digest::of(b"new"), Digest::of(b"old")];
    let times = ["2026-03-02T10:00:00", "2026-03-01T10:00:00"].map(utc);
    let tags = [vec!["b".to_owned()], vec!["a".to_owned(), "golden".to_owned()]];
    let candidates: Vec<_> =
        (0..2).map(|n| Candidate { digest: &digests[n], time: &times[n], tags: &tags[n] }).collect();
    let policy = Policy { rules: vec![count(Period::Each, 1)], tags: vec!["golden".into(), "absent".into()] };
    let reasons = policy.apply(&candidates, LATER);
    assert_eq!(reasons[0], [KeepReason::Rule(count(Period::Each, 1))]);
    assert_eq!(reasons[1], [KeepReason::Tag("golden".into())]);
}

#[test]
fn an_image_with_several_tags_counts_once() {
    let [a, b, c] = ["a", "b", "c"].map(|text| Digest::of(text.as_bytes()));
    // Nothing changed for three days, and the day before that something did.
    let history = [(&c, 5), (&c, 4), (&c, 3), (&b, 2), (&a, 1)];
    let times: Vec<Zoned> = history.iter().map(|(_, day)| utc(&format!("2026-03-0{day}T10:00:00"))).collect();
    let candidates: Vec<_> =
        history.iter().zip(&times).map(|((digest, _), time)| Candidate { digest, time, tags: &[] }).collect();
    for rule in [count(DAY, 2), count(Period::Each, 2)] {
        let kept: Vec<bool> =
            policy(&[rule]).apply(&candidates, LATER).iter().map(|why| !why.is_empty()).collect();
        assert_eq!(kept, [true, false, false, true, false], "{rule}");
    }
    // An image whose newest tag is not the newest of its day is still the newest of an earlier day.
    let history = [(&b, "02T12:00:00"), (&a, "02T09:00:00"), (&a, "01T10:00:00"), (&c, "01T09:00:00")];
    let times: Vec<Zoned> = history.iter().map(|(_, time)| utc(&format!("2026-03-{time}"))).collect();
    let candidates: Vec<_> =
        history.iter().zip(&times).map(|((digest, _), time)| Candidate { digest, time, tags: &[] }).collect();
    let kept: Vec<bool> =
        policy(&[count(DAY, 2)]).apply(&candidates, LATER).iter().map(|why| !why.is_empty()).collect();
    assert_eq!(kept, [true, false, true, false]);
}

#[test]
fn a_policy_of_zeros_is_empty() {
    let zeros = [count(DAY, 0), within(YEAR, "0h"), count(Period::Each, 0)];
    assert!(policy(&zeros).is_empty() && policy(&[]).is_empty());
    assert!(!policy(&[count(DAY, 0), all(YEAR)]).is_empty());
    assert!(!Policy { rules: Vec::new(), tags: vec!["a".into()] }.is_empty());
}

/// A model of one rule, by sets: images of a period are compared with each other, and not with what was kept before.
/// `ends_list` says whether the last time is the oldest image of all.
fn model(rule: Rule, times: &[Zoned], now: Timestamp, ends_list: bool) -> BTreeSet<usize> {
    let start = match rule.limit {
        RuleLimit::Within(span) => {
            times.iter().filter(|time| time.timestamp() < now).max().and_then(|newest| span.before(newest))
        }
        _ => None,
    };
    let late: Vec<usize> =
        (0..times.len()).filter(|n| start.is_none_or(|start| times[*n].timestamp() > start)).collect();
    let key = |n: usize| {
        let (date, time) = (times[n].date(), times[n].time());
        match rule.period {
            Period::Each => format!("{n}"),
            Period::Hour => format!("{date} {}", time.hour()),
            Period::Day => date.to_string(),
            Period::Week => {
                // The week has the number of its Thursday's year.
                let monday =
                    date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).unwrap();
                monday.to_string()
            }
            Period::Month => format!("{} {}", date.year(), date.month()),
            Period::Year => date.year().to_string(),
        }
    };
    let mut newest: BTreeMap<String, usize> = BTreeMap::new();
    for n in late.iter().rev() {
        newest.insert(key(*n), *n);
    }
    let mut kept: Vec<usize> = newest.into_values().collect();
    kept.sort_unstable();
    let limit = if let RuleLimit::Count(count) = rule.limit { count as usize } else { usize::MAX };
    let is_filled = kept.len() >= limit;
    kept.truncate(limit);
    let oldest = late.last().copied().filter(|oldest| ends_list && !is_filled && oldest + 1 == times.len());
    kept.into_iter().chain(oldest).collect()
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let periods = [Period::Each, HOUR, DAY, WEEK, MONTH, YEAR];
    let span = (0u32..2, 0u32..14, 0u32..40, 0u32..30).prop_map(|(years, months, days, hours)| {
        RuleLimit::Within(CalendarSpan { years, months, days, hours })
    });
    let limit = prop_oneof![(0u32..9).prop_map(RuleLimit::Count), Just(RuleLimit::Unlimited), span];
    (proptest::sample::select(periods.to_vec()), limit).prop_map(|(period, limit)| Rule { period, limit })
}

/// Times that crowd in some hours, days, and weeks, the newest first.
fn any_times() -> impl Strategy<Value = Vec<Zoned>> {
    let time = prop_oneof![0i64..7_200, 0i64..400_000, 0i64..4_000_000, 0i64..90_000_000];
    proptest::collection::vec(time, 1..40).prop_map(|mut seconds| {
        seconds.sort_unstable();
        let newest = 1_798_761_600; // 2027-01-01
        let time = |second: &i64| Timestamp::from_second(newest - second).unwrap().to_zoned(TimeZone::UTC);
        seconds.iter().map(time).collect()
    })
}

/// The time before the newest one at which the rules are applied: also long before all, and long after.
fn any_now() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0i64..100_000, 1 => -9_000_000_000i64..9_000_000_000]
}

proptest! {
    #[test]
    fn each_rule_keeps_what_a_model_by_sets_keeps(rule in any_rule(), times in any_times(), now in any_now()) {
        prop_assume!(!rule.is_void());
        let now = Timestamp::from_second(1_798_761_600 - now).unwrap();
        let digests: Vec<Digest> = (0..times.len()).map(|n| Digest::of(&n.to_le_bytes())).collect();
        let candidates: Vec<_> =
            times.iter().zip(&digests).map(|(time, digest)| Candidate { digest, time, tags: &[] }).collect();
        let reasons = policy(&[rule]).apply(&candidates, now);
        let kept: BTreeSet<usize> = (0..times.len()).filter(|n| !reasons[*n].is_empty()).collect();
        prop_assert_eq!(kept, model(rule, &times, now, true));
    }

    #[test]
    fn a_rule_keeps_of_images_with_several_tags_what_it_keeps_without_their_older_ones(
        rule in any_rule(), times in any_times(), images in proptest::collection::vec(0u8..6, 40)
    ) {
        prop_assume!(!rule.is_void());
        let digests: Vec<Digest> = images.iter().map(|image| Digest::of(&[*image])).collect();
        let candidates: Vec<_> =
            times.iter().zip(&digests).map(|(time, digest)| Candidate { digest, time, tags: &[] }).collect();
        let reasons = policy(&[rule]).apply(&candidates, LATER);
        let is_kept = |n: &usize| !reasons[*n].is_empty();
        let is_passed = |n: usize| (0..n).any(|newer| is_kept(&newer) && images[newer] == images[n]);
        let seen: Vec<usize> = (0..times.len()).filter(|n| !is_passed(*n)).collect();
        let seen_times: Vec<Zoned> = seen.iter().map(|n| times[*n].clone()).collect();
        let ends_list = seen.last() == Some(&(times.len() - 1));
        let expected: BTreeSet<usize> =
            model(rule, &seen_times, LATER, ends_list).into_iter().map(|n| seen[n]).collect();
        let kept: BTreeSet<usize> = (0..times.len()).filter(is_kept).collect();
        prop_assert_eq!(kept, expected);
    }

    #[test]
    fn a_policy_keeps_what_any_of_its_rules_keeps(
        rules in proptest::collection::vec(any_rule(), 1..5), times in any_times()
    ) {
        let together = reasons(&policy(&rules), &times, LATER);
        let alone: Vec<_> = rules.iter().map(|rule| reasons(&policy(&[*rule]), &times, LATER)).collect();
        for (n, (_, why)) in together.iter().enumerate() {
            let by_any = alone.iter().any(|result| !result[n].1.is_empty());
            prop_assert_eq!(!why.is_empty(), by_any);
        }
    }
}
