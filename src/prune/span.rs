//! Spans of calendar time, such as `2y5m7d3h`, in restic's syntax.

use crate::error::{Error, Result};
use jiff::{Timestamp, ToSpan, Zoned};
use std::fmt;
use std::str::FromStr;

/// A span of years, months, days and hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CalendarSpan {
    /// Years of the calendar.
    pub years: u32,
    /// Months of the calendar.
    pub months: u32,
    /// Days of the calendar.
    pub days: u32,
    /// Hours of 60 minutes.
    pub hours: u32,
}

impl CalendarSpan {
    /// Returns the moment that is this long before `time`. `None` if it is before the years that can be represented.
    ///
    /// A day that a month does not have is counted on into the next month, as restic does: one month before March 31 is
    /// "February 31", which is March 3, or March 2 in a leap year.
    pub fn before(self, time: &Zoned) -> Option<Timestamp> {
        let months = i64::from(time.year()) * 12 + i64::from(time.month())
            - 1
            - i64::from(self.years) * 12
            - i64::from(self.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
        let first = jiff::civil::Date::new(year.try_into().ok()?, month.try_into().ok()?, 1).ok()?;
        let days = i64::from(time.day()) - 1 - i64::from(self.days);
        let date = first.checked_add(days.days()).ok()?;
        let start = date.to_datetime(time.time()).to_zoned(time.time_zone().clone()).ok()?;
        start.timestamp().checked_sub(i64::from(self.hours).hours()).ok()
    }

    /// Returns whether the span has no length.
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
}

impl FromStr for CalendarSpan {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: &str| {
            Error::usage(format!("{text:?} is not a span of time: {why}")).with_hint(
                "write years, months, days and hours, such as 1y6m, 14d or 36h; m stands for months, and a week is 7d",
            )
        };
        let (mut span, mut rest) = (Self::default(), text);
        let mut seen = [false; 4];
        while !rest.is_empty() {
            let end =
                rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| invalid("a number has no unit"))?;
            let number = rest[..end].parse().map_err(|_| invalid("a unit has no number before it"))?;
            // Years beyond these are before the calendar that can be computed; everything is within such a span.
            let number: u32 = std::cmp::min(number, 9999u32 * 366 * 24);
            let (place, field) = match rest.as_bytes()[end] {
                b'y' => (0, &mut span.years),
                b'm' => (1, &mut span.months),
                b'd' => (2, &mut span.days),
                b'h' => (3, &mut span.hours),
                _ => return Err(invalid("its units are y, m, d and h")),
            };
            if std::mem::replace(&mut seen[place], true) {
                return Err(invalid("a unit is there twice"));
            }
            *field = number;
            rest = &rest[end + 1..];
        }
        if seen == [false; 4] { Err(invalid("it is empty")) } else { Ok(span) }
    }
}

impl fmt::Display for CalendarSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, unit) in [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')] {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        if self.is_zero() { f.write_str("0h") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::{Offset, TimeZone};

    #[test]
    fn a_span_is_read_and_written_as_restic_has_it() {
        let span: CalendarSpan = "2y5m7d3h".parse().unwrap();
        assert_eq!(span, CalendarSpan { years: 2, months: 5, days: 7, hours: 3 });
        assert_eq!("3h1y".parse::<CalendarSpan>().unwrap().to_string(), "1y3h");
        for text in ["", "7", "d", "1w", "1d1d", "-1d", "1 d", "99999999999d", "1é"] {
            assert!(text.parse::<CalendarSpan>().is_err(), "{text:?}");
        }
        assert!("0d".parse::<CalendarSpan>().unwrap().is_zero());
    }

    #[test]
    fn a_span_ends_at_the_calendars_day_or_is_counted_on_where_there_is_none() {
        for (span, time, before) in [
            ("1m", "2026-03-31T10:00:00Z", "2026-03-03T10:00:00Z"),
            ("1m", "2024-03-31T10:00:00Z", "2024-03-02T10:00:00Z"),
            ("1y", "2024-02-29T10:00:00Z", "2023-03-01T10:00:00Z"),
            ("1y2m3d4h", "2026-01-02T03:04:05Z", "2024-10-29T23:04:05Z"),
            ("13m", "2026-01-15T00:00:00Z", "2024-12-15T00:00:00Z"),
            ("36h", "2026-01-02T00:00:00Z", "2025-12-31T12:00:00Z"),
        ] {
            let time = time.parse::<Timestamp>().unwrap().to_zoned(TimeZone::UTC);
            let before: Timestamp = before.parse().unwrap();
            assert_eq!(span.parse::<CalendarSpan>().unwrap().before(&time), Some(before), "{span}");
        }
        let east = TimeZone::fixed(Offset::constant(10));
        let time = "2026-03-01T20:00:00Z".parse::<Timestamp>().unwrap().to_zoned(east);
        let month: CalendarSpan = "1m".parse().unwrap();
        assert_eq!(
            month.before(&time).unwrap().to_string(),
            "2026-02-01T20:00:00Z",
            "March 2 in its time zone"
        );
        assert_eq!(CalendarSpan { years: 20_000, ..month }.before(&time), None);
    }
}
