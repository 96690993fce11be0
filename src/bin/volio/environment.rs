//! The environment of the process.

use std::ffi::OsString;
use std::path::PathBuf;
use volio::{Environment, Error, Result, Time};

/// The last second of the year 9999, the last year of RFC 3339, in which images have their time.
const LAST_SECOND: i64 = 253_402_300_799;

/// Returns all variables.
pub fn process() -> Environment {
    std::env::vars_os().collect()
}

/// Returns one variable. An empty variable counts as unset: Compose files and CI jobs pass variables on without knowing
/// whether they are set.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns the time in `SOURCE_DATE_EPOCH`. Newer times are recorded as this time.
///
/// # Errors
/// When it is not a number: an image that is silently not reproducible would be worse.
pub fn source_date_epoch(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Time>> {
    let Some(value) = variable("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let text = value.to_string_lossy();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(seconds) if digits && seconds <= LAST_SECOND => Ok(Some(Time { seconds, nanoseconds: 0 })),
        _ => Err(Error::usage(format!("SOURCE_DATE_EPOCH is {text:?}, which is not a time"))
            .with_hint("set it to seconds since 1970, for example $(git log -1 --format=%ct)")),
    }
}

/// Returns the directory for the state of the program, as the XDG specification has it; `None` without a home directory.
pub fn state(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let home = || Some(PathBuf::from(variable("HOME")?).join(".local/state"));
    // The specification says that relative paths are ignored.
    let named = variable("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(named.or_else(home)?.join("volio"))
}

/// Returns the directory for temporary files.
pub fn temporary(variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    variable("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    }

    #[test]
    fn source_date_epoch_is_digits_only() {
        let read = |text: &str| source_date_epoch(only(&[("SOURCE_DATE_EPOCH", text)]));
        assert_eq!(source_date_epoch(only(&[])).unwrap(), None);
        assert_eq!(read("0").unwrap(), Some(Time::default()));
        assert_eq!(read("253402300799").unwrap().map(|time| time.seconds), Some(LAST_SECOND));
        for bad in ["253402300800", "-1", "+1", "1.5", "today", " 1", "99999999999999999999"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_state_directory_is_that_of_xdg() {
        let find = |variables: &[(&str, &str)]| state(only(variables));
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[("HOME", "/h")]), Some("/h/.local/state/volio".into()));
        assert_eq!(find(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]), Some("/s/volio".into()));
        assert_eq!(find(&[("HOME", "/h"), ("XDG_STATE_HOME", "s")]), Some("/h/.local/state/volio".into()));
    }
}
