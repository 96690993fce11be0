//! Sizes, rates, times and counts for people.

use std::time::Duration;

/// Formats bytes in binary units with one decimal: `512 B`, `1.2 GiB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // 1023.96 would print as 1024.0, so it takes the next unit.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Formats bytes per second; `None` for a time below half a second, which is too short to measure.
pub fn rate(count: u64, time: Duration) -> Option<String> {
    let seconds = time.as_secs_f64();
    (seconds >= 0.5).then(|| format!("{}/s", bytes((count as f64 / seconds) as u64)))
}

/// Formats a time: `0.4 s`, `2 min 5 s`, `3 h 0 min`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64().min(59.9)),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Formats a time of a progress bar: `0:05`, `12:30`, `3:00:00`.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Formats a number of things: `1 entry`, `2 entries`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Formats those numbers of things that are not 0, separated by commas; `None` if all are 0.
pub fn counts<'a>(numbers: impl IntoIterator<Item = (u64, &'a str, &'a str)>) -> Option<String> {
    let counted: Vec<String> = numbers
        .into_iter()
        .filter(|(number, ..)| *number > 0)
        .map(|(number, one, many)| count(number, one, many))
        .collect();
    (!counted.is_empty()).then(|| counted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_the_unit_that_fits() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_use_two_units_at_most() {
        for (millis, text) in
            [(0, "0.0 s"), (59_990, "59.9 s"), (60_000, "1 min 0 s"), (3_725_000, "1 h 2 min")]
        {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn numbers_of_things_that_are_zero_are_left_out() {
        let things = |sockets, mounts| counts([(sockets, "socket", "sockets"), (mounts, "mount", "mounts")]);
        assert_eq!(things(1, 2).as_deref(), Some("1 socket, 2 mounts"));
        assert_eq!(things(0, 1).as_deref(), Some("1 mount"));
        assert_eq!(things(0, 0), None);
    }

    #[test]
    fn a_clock_shows_hours_only_when_there_are_some() {
        for (seconds, text) in [(5, "0:05"), (750, "12:30"), (10_800, "3:00:00")] {
            assert_eq!(clock(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_rate_needs_some_time() {
        assert_eq!(rate(1 << 20, Duration::from_millis(500)).as_deref(), Some("2.0 MiB/s"));
        assert_eq!(rate(1, Duration::ZERO), None);
    }
}
