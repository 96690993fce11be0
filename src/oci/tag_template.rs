//! Templates for tags, such as `{date}-{digest:.8}`: they make the tag of an image, and recognise tags that they made.
//!
//! | field | text |
//! |---|---|
//! | `{date}` | the date, `2026-11-29` |
//! | `{time}` | the time of day, `140503` |
//! | `{date:FORMAT}`, `{time:FORMAT}` | the same time as strftime(3) writes it, with `%Y %m %d %H %M %S %j %F` |
//! | `{digest}`, `{digest:.N}` | the digest in hexadecimal, or its first N digits |
//!
//! Every field has a fixed width, so that a tag can be read in one way only.

use super::Digest;
use super::reference::is_tag;
use crate::error::{Error, Result};
use jiff::civil::{Date, DateTime, Time};
use std::fmt;
use std::str::FromStr;

/// A template for tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagTemplate {
    text: String,
    pieces: Vec<Piece>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Number(Unit),
    /// This many digits of the digest; `None` for all.
    Digest(Option<usize>),
}

/// A part of a date or a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    DayOfYear,
}

impl Unit {
    /// Returns the number of digits.
    fn width(self) -> usize {
        match self {
            Self::Year => 4,
            Self::DayOfYear => 3,
            _ => 2,
        }
    }

    fn of(self, time: DateTime) -> i16 {
        match self {
            Self::Year => time.year(),
            Self::Month => time.month().into(),
            Self::Day => time.day().into(),
            Self::Hour => time.hour().into(),
            Self::Minute => time.minute().into(),
            Self::Second => time.second().into(),
            Self::DayOfYear => time.day_of_year(),
        }
    }
}

/// A tag that a template may have made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagMatch {
    /// The time in the tag, in the time zone in which it was made; `None` if the template has no year. Units that the
    /// template does not have are at their lowest.
    pub time: Option<DateTime>,
}

impl TagTemplate {
    /// Returns the tag of an image with this digest at this time.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) if that is not a tag, because it is too long or the year has not four digits.
    pub fn tag(&self, time: DateTime, digest: &Digest) -> Result<String> {
        let hex = digest.hex();
        let mut tag = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => tag += text,
                Piece::Number(unit) => tag += &format!("{:01$}", unit.of(time), unit.width()),
                Piece::Digest(length) => tag += &hex[..length.unwrap_or(hex.len()).min(hex.len())],
            }
        }
        if is_tag(&tag) {
            return Ok(tag);
        }
        Err(Error::usage(format!("the template {self} makes {tag:?}, which is not a tag"))
            .with_hint("a tag has at most 128 letters, digits and the characters _ . -"))
    }

    /// Returns the time in a tag that this template may have made; `None` for other tags.
    pub fn matches(&self, tag: &str) -> Option<TagMatch> {
        let (mut rest, mut numbers) = (tag, Vec::new());
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => rest = rest.strip_prefix(text.as_str())?,
                Piece::Number(unit) => {
                    let (digits, after) = rest.split_at_checked(unit.width())?;
                    let is_number = digits.bytes().all(|b| b.is_ascii_digit());
                    numbers.push((*unit, is_number.then(|| digits.parse().ok())??));
                    rest = after;
                }
                Piece::Digest(length) => {
                    // Without a length, it is the rest of the tag up to the last literal, of a known algorithm.
                    let widths = length.map_or(vec![128, 64], |length| vec![length]);
                    let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                    let mut splits = widths.into_iter().filter_map(|width| rest.split_at_checked(width));
                    rest = splits.find(|(hex, _)| is_hex(hex))?.1;
                }
            }
        }
        if !rest.is_empty() {
            return None;
        }
        Some(TagMatch { time: time_of(&numbers)? })
    }

    /// Returns whether tags have a date, so that they say when their images were made.
    pub fn has_date(&self) -> bool {
        self.pieces.contains(&Piece::Number(Unit::Year))
    }
}

/// Returns the time that these numbers are, or `Some(None)` without a year; `None` if there is no such time.
fn time_of(numbers: &[(Unit, i16)]) -> Option<Option<DateTime>> {
    let find = |unit, lowest| {
        let mut values = numbers.iter().filter(|(known, _)| *known == unit).map(|(_, value)| *value);
        let first = values.next();
        // A unit that occurs twice must have one value.
        values.all(|value| Some(value) == first).then(|| first.unwrap_or(lowest))
    };
    let small = |unit, lowest| find(unit, lowest).and_then(|value| i8::try_from(value).ok());
    let time = Time::new(small(Unit::Hour, 0)?, small(Unit::Minute, 0)?, small(Unit::Second, 0)?, 0).ok()?;
    let year = find(Unit::Year, 0)?;
    let has = |unit| numbers.iter().any(|(known, _)| *known == unit);
    let mut date = Date::new(year, small(Unit::Month, 1)?, small(Unit::Day, 1)?).ok()?;
    if has(Unit::DayOfYear) {
        let of_year = date.with().day_of_year(find(Unit::DayOfYear, 1)?).build().ok()?;
        let agrees = (!has(Unit::Month) || of_year.month() == date.month())
            && (!has(Unit::Day) || of_year.day() == date.day());
        date = agrees.then_some(of_year)?;
    }
    Some(has(Unit::Year).then(|| date.to_datetime(time)))
}

impl FromStr for TagTemplate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |why: String| {
            Error::usage(format!("{text:?} is not a template for tags: {why}")).with_hint(
                "its fields are {date}, {time}, {date:%Y-%m-%d}, {digest} and {digest:.8}, as in '{date}-{digest:.8}'",
            )
        };
        let (mut rest, mut pieces) = (text, Vec::new());
        while !rest.is_empty() {
            if let Some(field) = rest.strip_prefix('{') {
                let (field, after) =
                    field.split_once('}').ok_or_else(|| invalid("a { is not closed".into()))?;
                pieces.extend(parse_field(field).map_err(invalid)?);
                rest = after;
            } else {
                let end = rest.find('{').unwrap_or(rest.len());
                pieces.push(literal(&rest[..end]).map_err(invalid)?);
                rest = &rest[end..];
            }
        }
        if pieces.iter().all(|piece| matches!(piece, Piece::Literal(_))) {
            return Err(invalid("it has no field, so that every image would get the same tag".into()));
        }
        let template = Self { text: text.to_owned(), pieces };
        // Every image has the same form of tag, so that one of them shows whether it is a tag.
        template.tag(DateTime::constant(2000, 1, 1, 0, 0, 0, 0), &Digest::of(b""))?;
        Ok(template)
    }
}

/// Parses a field without its braces.
fn parse_field(field: &str) -> std::result::Result<Vec<Piece>, String> {
    let (name, format) = field.split_once(':').map_or((field, None), |(name, format)| (name, Some(format)));
    match (name, format) {
        ("date", None) => parse_format("%Y-%m-%d"),
        ("time", None) => parse_format("%H%M%S"),
        ("date" | "time", Some(format)) => parse_format(format),
        ("digest", None) => Ok(vec![Piece::Digest(None)]),
        ("digest", Some(format)) => {
            let length = format.strip_prefix('.').and_then(|length| length.parse().ok());
            let length = length.filter(|length| (1..=64).contains(length));
            let length =
                length.ok_or(format!("{{{field}}} should be like {{digest:.8}}, with 1 to 64 digits"))?;
            Ok(vec![Piece::Digest(Some(length))])
        }
        _ => Err(format!("there is no field {{{field}}}")),
    }
}

/// Parses a format of strftime(3).
fn parse_format(format: &str) -> std::result::Result<Vec<Piece>, String> {
    let (mut pieces, mut rest) = (Vec::new(), format);
    while !rest.is_empty() {
        let Some(conversion) = rest.strip_prefix('%') else {
            let end = rest.find('%').unwrap_or(rest.len());
            pieces.push(literal(&rest[..end])?);
            rest = &rest[end..];
            continue;
        };
        let unit = match conversion.chars().next() {
            Some('Y') => Unit::Year,
            Some('m') => Unit::Month,
            Some('d') => Unit::Day,
            Some('H') => Unit::Hour,
            Some('M') => Unit::Minute,
            Some('S') => Unit::Second,
            Some('j') => Unit::DayOfYear,
            Some('F') => {
                pieces.extend(parse_format("%Y-%m-%d")?);
                rest = &conversion[1..];
                continue;
            }
            other => {
                let other = other.map(String::from).unwrap_or_default();
                return Err(format!("%{other} is not one of %Y %m %d %H %M %S %j %F"));
            }
        };
        pieces.push(Piece::Number(unit));
        rest = &conversion[1..];
    }
    Ok(pieces)
}

/// Returns a piece of plain text.
fn literal(text: &str) -> std::result::Result<Piece, String> {
    match text.chars().find(|c| !c.is_ascii_alphanumeric() && !"_.-".contains(*c)) {
        Some(other) => Err(format!("{other:?} cannot be in a tag")),
        None => Ok(Piece::Literal(text.to_owned())),
    }
}

impl fmt::Display for TagTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::datetime;

    fn template(text: &str) -> TagTemplate {
        text.parse().unwrap()
    }

    #[test]
    fn a_tag_is_made_from_the_time_and_the_digest_and_recognised_again() {
        let (time, digest) = (datetime(2026, 2, 7, 4, 5, 6, 0), Digest::of(b""));
        for (text, tag, found) in [
            ("{date}-{digest:.8}", "2026-02-07-e3b0c442", datetime(2026, 2, 7, 0, 0, 0, 0)),
            ("{date}T{time}", "2026-02-07T040506", time),
            ("backup-{date:%Y%m%d.%H%M}", "backup-20260207.0405", datetime(2026, 2, 7, 4, 5, 0, 0)),
            ("{date:%F}_{time:%H-%M-%S}", "2026-02-07_04-05-06", time),
            ("{date:%Y-%j}", "2026-038", datetime(2026, 2, 7, 0, 0, 0, 0)),
            ("v{date:%Y.%m}", "v2026.02", datetime(2026, 2, 1, 0, 0, 0, 0)),
            ("{digest:.4}-{date:%Y}", "e3b0-2026", datetime(2026, 1, 1, 0, 0, 0, 0)),
        ] {
            let template = template(text);
            assert_eq!(template.tag(time, &digest).unwrap(), tag);
            assert_eq!(template.matches(tag), Some(TagMatch { time: Some(found) }), "{text}");
            assert!(template.has_date());
            assert_eq!(template.to_string(), text);
        }
        let whole = template("d-{digest}");
        let tag = whole.tag(time, &digest).unwrap();
        assert_eq!(whole.matches(&tag), Some(TagMatch { time: None }));
        assert!(!whole.has_date());
    }

    #[test]
    fn a_tag_of_another_form_does_not_match() {
        for (text, tags) in [
            (
                "{date}-{digest:.8}",
                &[
                    "latest",
                    "2026-02-07",
                    "2026-13-07-e3b0c442",
                    "2026-02-30-e3b0c442",
                    "2026-02-07-E3B0C442",
                    "2026-02-07-e3b0c4421",
                    "2026-02-07-e3b0c44",
                    "x2026-02-07-e3b0c442",
                    "+026-02-07-e3b0c442",
                ][..],
            ),
            ("{date}T{time}", &["2026-02-07T240000", "2026-02-07T006000", "2026-02-07T0405060"]),
            ("{date:%Y-%m-%d-%j}", &["2026-02-07-039", "2026-02-07-000", "2026-02-07-366"]),
            ("{date:%Y}{date:%Y}", &["20262025"]),
            ("{date:%H}-{digest:.4}", &["24-abcd", "é4-abcd"]),
        ] {
            for tag in tags {
                assert_eq!(template(text).matches(tag), None, "{text} {tag}");
            }
        }
        assert!(template("{date:%Y-%m-%d-%j}").matches("2026-02-07-038").is_some());
        assert!(template("{date:%Y}{date:%Y}").matches("20262026").is_some());
    }

    #[test]
    fn a_template_with_an_error_is_refused_with_its_reason() {
        for (text, why) in [
            ("{data}", "there is no field {data}"),
            ("{date", "not closed"),
            ("{}", "there is no field {}"),
            ("{date:%q}", "%q is not one of"),
            ("{date:%}", "% is not one of"),
            ("{date:%H:%M}", "':' cannot be in a tag"),
            ("{date}}", "'}' cannot be in a tag"),
            ("{date}/x", "'/' cannot be in a tag"),
            ("{digest:8}", "should be like {digest:.8}"),
            ("{digest:.0}", "1 to 64"),
            ("{digest:.65}", "1 to 64"),
            ("nightly", "no field"),
            ("", "no field"),
            ("-{date}", "not a tag"),
            ("{digest}-{digest}", "not a tag"),
        ] {
            let error = text.parse::<TagTemplate>().unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Usage);
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
    }
}
