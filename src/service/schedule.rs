//! Schedules: a period, or a line of cron.

use super::zone::Zone;
use crate::error::{Error, Result};
use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Year};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use std::time::{Duration, SystemTime};

/// The shortest period.
const MIN_PERIOD: Duration = Duration::from_secs(1);
/// The longest period: longer ones are mistakes.
const MAX_PERIOD: Duration = Duration::from_secs(366 * 86_400);
/// The time within which clocks are set back by one change, so that hours that were skipped are found.
const DAY: SignedDuration = SignedDuration::from_hours(25);
/// The maximum number of candidates for the next time: more than the seconds of an hour that occurs twice.
const MAX_CANDIDATES: usize = 10_000;

/// The times at which runs begin.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// Again after this time, from beginning to beginning, measured by a clock that never jumps.
    Every(Duration),
    /// At the times of a line of cron.
    Cron(Box<CronLine>),
}

/// A line of cron in a time zone.
///
/// A line that names hours runs once for each of them: a time that does not exist, because clocks are put forward, is
/// replaced by the one that is as much later, and a time that exists twice is the first of both. A line for every hour
/// runs in each hour that passes.
#[derive(Clone, Debug)]
pub struct CronLine {
    cron: Cron,
    zone: Zone,
}

impl Schedule {
    /// Creates a schedule with a period of one second to a year.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if the period is shorter or longer.
    pub fn every(period: Duration) -> Result<Self> {
        if !(MIN_PERIOD..=MAX_PERIOD).contains(&period) {
            return Err(Error::usage(format!("{} s is not a period for runs", period.as_secs_f64()))
                .with_hint("write one second to a year, for example 15m"));
        }
        Ok(Self::Every(period))
    }

    /// Creates a schedule from a line of 5 or 6 fields, of which the first of 6 is seconds, or a name such as `@daily`.
    /// `now` is the time from which it must occur.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if the line is not understood, or never occurs.
    pub fn cron(line: &str, zone: Zone, now: SystemTime) -> Result<Self> {
        let wrong = |why: String| {
            Error::usage(format!("--cron {line:?}: {why}")).with_hint(
                "write minute, hour, day of month, month and day of week, such as \"30 2 * * *\", or @daily; \
                 with seconds before them if there are six",
            )
        };
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let cron = parser.parse(line).map_err(|error| match error {
            CronError::ComponentError(why) | CronError::InvalidPattern(why) => wrong(why),
            error => wrong(error.to_string()),
        })?;
        let cron = CronLine { cron, zone };
        match cron.next(now) {
            Some(_) => Ok(Self::Cron(Box::new(cron))),
            None => Err(wrong("there is no such time: it would never run".to_owned())),
        }
    }
}

impl CronLine {
    /// Returns the zone of the line.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Returns the first time after another one.
    pub fn next(&self, after: SystemTime) -> Option<SystemTime> {
        let after = Timestamp::try_from(after).ok()?;
        let next = if self.is_for_every_hour() {
            self.cron.find_next_occurrence(&after.to_zoned(self.zone.0.clone()), false).ok()?.timestamp()
        } else {
            self.next_by_the_clock(after)?
        };
        // A line that was answered by a time that has passed would run without end.
        (next > after).then(|| SystemTime::from(next))
    }

    /// Returns the first time after another one, of those that clocks on the wall show.
    fn next_by_the_clock(&self, after: Timestamp) -> Option<Timestamp> {
        let zone = &self.zone.0;
        let day_before = after.checked_sub(DAY).ok()?;
        let gained = zone.to_offset(after).duration_since(zone.to_offset(day_before));
        // A time that was skipped since then has become a later one, which may be still to come.
        let start: DateTime = zone.to_datetime(after);
        let start = start.checked_sub(gained.max(SignedDuration::ZERO)).ok()?;
        let mut shown: Zoned = start.to_zoned(TimeZone::UTC).ok()?;
        for _ in 0..MAX_CANDIDATES {
            shown = self.cron.find_next_occurrence(&shown, false).ok()?;
            // The default of jiff is the later one of a gap, and the first one of two.
            let candidate = zone.to_timestamp(shown.datetime()).ok()?;
            if candidate > after {
                return Some(candidate);
            }
        }
        None
    }

    fn is_for_every_hour(&self) -> bool {
        (0..24).all(|hour| self.cron.pattern.hour_match(hour).unwrap_or(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn line(line: &str, zone: &str) -> CronLine {
        let zone = Zone::find(Some(OsStr::new(zone))).unwrap();
        match Schedule::cron(line, zone, at("2026-01-01T00:00:00Z")).unwrap() {
            Schedule::Cron(line) => *line,
            Schedule::Every(_) => panic!(),
        }
    }

    /// The next times, in UTC without the year and the seconds.
    fn times(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let cron = line(cron, zone);
        let mut time = at(from);
        let next = || {
            time = cron.next(time).unwrap();
            Timestamp::try_from(time).unwrap().strftime("%m-%d %H:%M").to_string()
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn lines_have_five_or_six_fields_or_a_name() {
        let times = |cron| times(cron, "UTC", "2026-01-01T00:00:00Z", 2);
        assert_eq!(times("30 2 * * *"), ["01-01 02:30", "01-02 02:30"]);
        assert_eq!(times("15 30 2 * * *"), ["01-01 02:30", "01-02 02:30"]);
        assert_eq!(times("@daily"), ["01-02 00:00", "01-03 00:00"]);
        assert_eq!(times("@hourly"), ["01-01 01:00", "01-01 02:00"]);
        assert_eq!(times("0 0 29 2 *"), ["02-29 00:00", "02-29 00:00"]);
        assert_eq!(times("0 9 * * MON-FRI"), ["01-01 09:00", "01-02 09:00"]);
    }

    #[test]
    fn a_line_that_never_occurs_or_is_not_understood_is_refused() {
        for wrong in [
            "0 0 31 2 *",
            "0 0 30 2 *",
            "",
            "x",
            "* * * *",
            "60 * * * *",
            "0 0 1 1 * 2020 1",
            "@never",
            "0 0 * * * 1999 *",
        ] {
            let zone = Zone::find(None).unwrap();
            let error = Schedule::cron(wrong, zone, at("2026-01-01T00:00:00Z")).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Usage, "{wrong}: {error}");
        }
    }

    #[test]
    fn an_hour_that_is_skipped_runs_once() {
        // Clocks in Berlin go from 02:00 to 03:00 on 29 March 2026, which is 01:00 in UTC.
        let times = |cron, count| times(cron, "Europe/Berlin", "2026-03-28T12:00:00Z", count);
        assert_eq!(times("30 2 * * *", 3), ["03-29 01:30", "03-30 00:30", "03-31 00:30"]);
        assert_eq!(
            times("0,30 2,14 * * *", 7)[2..],
            ["03-29 01:00", "03-29 01:30", "03-29 12:00", "03-29 12:30", "03-30 00:00"]
        );
        assert_eq!(times("0 3 * * *", 2), ["03-29 01:00", "03-30 01:00"]);
    }

    #[test]
    fn an_hour_that_occurs_twice_runs_once_unless_every_hour_does() {
        // Clocks in Berlin go from 03:00 to 02:00 on 25 October 2026, which is 01:00 in UTC.
        let times = |cron, count| times(cron, "Europe/Berlin", "2026-10-24T23:00:00Z", count);
        assert_eq!(times("30 2 * * *", 2), ["10-25 00:30", "10-26 01:30"]);
        assert_eq!(times("0,30 2 * * *", 3), ["10-25 00:00", "10-25 00:30", "10-26 01:00"]);
        assert_eq!(times("0 2,14 * * *", 3), ["10-25 00:00", "10-25 13:00", "10-26 01:00"]);
        assert_eq!(times("0 * * * *", 4), ["10-25 00:00", "10-25 01:00", "10-25 02:00", "10-25 03:00"]);
        assert_eq!(times("*/30 * * * *", 4), ["10-24 23:30", "10-25 00:00", "10-25 00:30", "10-25 01:00"]);
    }

    #[test]
    fn a_day_that_is_skipped_runs_once() {
        // Samoa had no 30 December 2011.
        let times = times("0 12 * * *", "Pacific/Apia", "2011-12-28T23:00:00Z", 3);
        assert_eq!(times, ["12-29 22:00", "12-30 22:00", "12-31 22:00"]);
    }

    #[test]
    fn a_zone_is_a_name_or_a_rule() {
        let format = |tz: &str| Zone::find(Some(OsStr::new(tz))).unwrap().format(at("2026-07-01T00:00:00Z"));
        assert_eq!(format("UTC"), "2026-07-01 00:00:00 +00:00");
        assert_eq!(format("Europe/Berlin"), "2026-07-01 02:00:00 +02:00");
        assert_eq!(format("CET-1CEST,M3.5.0,M10.5.0/3"), "2026-07-01 02:00:00 +02:00");
        assert!(Zone::find(Some(OsStr::new("Europe/Atlantis"))).is_err());
    }
}
