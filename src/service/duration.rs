//! Durations as options have them.

use crate::error::{Error, Result};
use std::time::Duration;

/// Parses a time: a number and a unit of `s`, `m`, `h` or `d`, such as `90s` or `1d`, also several: `1h30m`.
///
/// # Errors
/// [`Usage`](crate::error::Kind::Usage) for anything else.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::usage(format!("{text:?} is not a duration"))
            .with_hint("write a number and a unit: 90s, 15m, 6h, 1d")
    };
    let (mut sum, mut rest) = (Duration::ZERO, text);
    if rest == "0" {
        return Ok(sum);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let (unit, tail) = if let Some(tail) = tail.strip_prefix("ms") {
            (Duration::from_millis(1), tail)
        } else {
            let seconds = match tail.as_bytes()[0] {
                b's' => 1,
                b'm' => 60,
                b'h' => 3600,
                b'd' => 86_400,
                _ => return Err(wrong()),
            };
            (Duration::from_secs(seconds), &tail[1..])
        };
        let number: u32 = number.parse().map_err(|_| wrong())?;
        sum = unit.checked_mul(number).and_then(|part| sum.checked_add(part)).ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_units() {
        for (text, seconds) in [
            ("90s", 90.0),
            ("15m", 900.0),
            ("6h", 21_600.0),
            ("1d", 86_400.0),
            ("1h30m", 5400.0),
            ("250ms", 0.25),
            ("0", 0.0),
        ] {
            assert_eq!(parse_duration(text).unwrap().as_secs_f64(), seconds, "{text}");
        }
        for wrong in ["", "s", "5", "-1s", "1.5h", "1w", "1 h", "5µs", "99999999999d", "1s2"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
