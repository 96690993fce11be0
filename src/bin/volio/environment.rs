//! What the environment says. An empty variable counts as one that is not set, because Compose files and CI jobs
//! pass variables on without knowing whether they are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use volio::tree::Time;
use volio::{Error, Result};

/// The last second of the year 9999: RFC 3339 has no later one, and an image says its time in RFC 3339.
const LAST_SECOND: i64 = 253_402_300_799;

/// A variable of this process.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The moment that all newer times are set to, where `SOURCE_DATE_EPOCH` names one.
///
/// # Errors
/// When it is not a number: an image that is silently not reproducible is worse than none.
pub fn source_date_epoch(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Time>> {
    let Some(value) = variable("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let text = value.to_string_lossy();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(seconds) if digits && seconds <= LAST_SECOND => Ok(Some(Time { seconds, nanoseconds: 0 })),
        _ => Err(Error::usage(format!("SOURCE_DATE_EPOCH is {text:?}, which is not a time"))
            .hint("set it to seconds since 1970, for example $(git log -1 --format=%ct)")),
    }
}

/// The files with credentials, in the order in which they are asked.
///
/// A file that was named, by `--authfile` or `REGISTRY_AUTH_FILE`, is the only one. Otherwise these are Docker's
/// where `DOCKER_CONFIG` moved it, Podman's two, and Docker's in the home directory unless it was moved.
///
/// # Errors
/// When a file that was named is not there: going on without credentials would end in a denial far from its cause.
pub fn credential_files(
    authfile: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<PathBuf>> {
    let path = |name: &str| variable(name).map(PathBuf::from);
    if let Some(named) = authfile.map(Path::to_owned).or_else(|| path("REGISTRY_AUTH_FILE")) {
        return match is_there(&named) {
            true => Ok(vec![named]),
            false => Err(Error::usage(format!("{} is not there", named.display()))
                .hint("--authfile and REGISTRY_AUTH_FILE name a file like docker's config.json")),
        };
    }
    let home = path("HOME");
    let moved = path("DOCKER_CONFIG");
    let configuration = path("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let usual = match moved {
        Some(_) => None,
        None => home.map(|home| home.join(".docker/config.json")),
    };
    let candidates = [
        moved.map(|directory| directory.join("config.json")),
        path("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")),
        configuration.map(|directory| directory.join("containers/auth.json")),
        usual,
    ];
    Ok(candidates.into_iter().flatten().filter(|file| is_there(file)).collect())
}

/// The directory that remembers what has not ended, as the XDG specification places it; `None` without a home.
pub fn state(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let home = || Some(PathBuf::from(variable("HOME")?).join(".local/state"));
    // Relative paths are to be ignored, says the specification.
    let named = variable("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(named.or_else(home)?.join("volio"))
}

/// Whether there is such a file. One that cannot be looked at counts: reading it will say why.
fn is_there(file: &Path) -> bool {
    file.try_exists().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn only<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
    }

    #[test]
    fn a_time_is_digits_and_nothing_else() {
        let read = |text: &str| source_date_epoch(only(&[("SOURCE_DATE_EPOCH", text)]));
        assert_eq!(source_date_epoch(only(&[])).unwrap(), None);
        assert_eq!(read("0").unwrap(), Some(Time::default()));
        assert_eq!(read("253402300799").unwrap().map(|time| time.seconds), Some(LAST_SECOND));
        for bad in ["253402300800", "-1", "+1", "1.5", "today", " 1", "99999999999999999999"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_has_not_ended_is_remembered_where_xdg_says() {
        let find = |variables: &[(&str, &str)]| state(only(variables));
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[("HOME", "/h")]), Some("/h/.local/state/volio".into()));
        assert_eq!(find(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]), Some("/s/volio".into()));
        assert_eq!(find(&[("HOME", "/h"), ("XDG_STATE_HOME", "s")]), Some("/h/.local/state/volio".into()));
    }

    #[test]
    fn a_named_file_is_the_only_one_and_must_be_there() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("auth.json");
        fs::write(&file, "{}").unwrap();
        let missing = home.path().join("missing");
        let named = [("REGISTRY_AUTH_FILE", missing.to_str().unwrap())];
        assert_eq!(credential_files(Some(&file), only(&named)).unwrap(), [file]);
        assert!(credential_files(None, only(&named)).is_err());
    }

    #[test]
    fn files_are_looked_for_where_docker_and_podman_write_them() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let file = home.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "{}").unwrap();
            file
        };
        let docker = file(".docker/config.json");
        let podman = file(".config/containers/auth.json");
        let moved = file("moved/config.json");
        let home = home.path().to_str().unwrap();
        let elsewhere = format!("{home}/moved");
        assert_eq!(credential_files(None, only(&[("HOME", home)])).unwrap(), [podman.clone(), docker]);
        assert_eq!(
            credential_files(None, only(&[("HOME", home), ("DOCKER_CONFIG", &elsewhere)])).unwrap(),
            [moved, podman]
        );
        assert!(credential_files(None, only(&[])).unwrap().is_empty());
    }
}
