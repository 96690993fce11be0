//! Names and passwords from docker's `config.json`, and from podman's `auth.json`, which is written alike.

use crate::error::{Error, Result};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The names under which people and programs have stored credentials for Docker Hub.
const DOCKER_HUB: [&str; 4] =
    ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// Base64 as programs have written it: with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A name and a password. There is no `Debug`: what cannot be printed does not end up in a log.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    username: String,
    password: String,
}

impl Credentials {
    /// The value of an `Authorization` header.
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", BASE64.encode(format!("{}:{}", self.username, self.password)))
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    auths: Option<BTreeMap<String, Option<Entry>>>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
}

/// The credentials for a repository: from the first file that knows any, there from the most specific entry.
///
/// # Errors
/// When a file is there and cannot be read or understood: going on without it would end in a refusal that
/// nobody could explain.
pub(super) fn find(files: &[PathBuf], registry: &str, repository: &str) -> Result<Option<Credentials>> {
    for path in files {
        let Some(file) = read(path)? else { continue };
        let mut entries: Vec<_> = file
            .auths
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(key, entry)| Some((specificity(&key, registry, repository)?, key, entry?)))
            .collect();
        entries.sort_by_key(|(specificity, ..)| std::cmp::Reverse(*specificity));
        for (_, key, entry) in entries {
            if let Some(credentials) = entry.credentials(path, &key)? {
                return Ok(Some(credentials));
            }
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Option<File>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => {
            return Err(Error::io(format!("cannot read the credentials in {}", path.display()), error));
        }
    };
    // The parser's own message would quote the content.
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        malformed(path, &format!("line {}, column {} is not what it should be", error.line(), error.column()))
    })
}

fn malformed(path: &Path, why: &str) -> Error {
    Error::failed(format!("cannot understand the credentials in {}: {why}", path.display()))
        .hint("it must be JSON such as docker login writes: {\"auths\": {\"HOST\": {\"auth\": \"…\"}}}")
}

/// How closely an entry's key fits, in components of the name; `None` when it is for somebody else.
///
/// Docker writes `host`, `https://host` or `https://host/v1/`, podman also `host/repository` and any part of
/// it: a path counts only where no scheme stands before it, and the protocol's versions never count.
fn specificity(key: &str, registry: &str, repository: &str) -> Option<usize> {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = match bare.unwrap_or(key).trim_end_matches('/').split_once('/') {
        Some((host, path)) => (host, path),
        None => (bare.unwrap_or(key).trim_end_matches('/'), ""),
    };
    let is_hub = |name: &str| DOCKER_HUB.contains(&name);
    let is_ours = host.eq_ignore_ascii_case(registry) || (is_hub(host) && is_hub(registry));
    if !is_ours {
        return None;
    }
    if path.is_empty() || bare.is_some() || matches!(path, "v1" | "v2") {
        return Some(0);
    }
    let mut components = repository.split('/');
    let mut count = 0;
    for component in path.split('/') {
        if components.next() != Some(component) {
            return None;
        }
        count += 1;
    }
    Some(count)
}

impl Entry {
    /// What the entry holds; nothing when the credentials are elsewhere, such as in a credential helper.
    fn credentials(self, path: &Path, key: &str) -> Result<Option<Credentials>> {
        if let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) {
            let decoded = BASE64.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
            let (username, password) = pair.ok_or_else(|| {
                malformed(path, &format!("\"auth\" of {key:?} is not NAME:PASSWORD in base64"))
            })?;
            // Old versions of docker padded with zeros.
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Credentials { username: username.to_owned(), password }));
        }
        Ok(match (self.username, self.password) {
            (Some(username), Some(password)) if !username.is_empty() => {
                Some(Credentials { username, password })
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(contents: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let directory = tempfile::tempdir().unwrap();
        let paths = contents.iter().enumerate().map(|(number, content)| {
            let path = directory.path().join(number.to_string());
            fs::write(&path, content).unwrap();
            path
        });
        let paths = paths.collect();
        (directory, paths)
    }

    /// The name that is found for `registry/repository`.
    fn found(contents: &[&str], registry: &str, repository: &str) -> Option<String> {
        let (_directory, paths) = files(contents);
        find(&paths, registry, repository).unwrap().map(|credentials| credentials.username)
    }

    fn file(entries: &[(&str, &str)]) -> String {
        let entries = entries.iter().map(|(key, user)| {
            format!(r#""{key}": {{"auth": "{}"}}"#, BASE64.encode(format!("{user}:secret")))
        });
        format!(r#"{{"auths": {{{}}}}}"#, entries.collect::<Vec<_>>().join(","))
    }

    #[test]
    fn keys_may_have_a_scheme_and_a_path() {
        for key in
            ["r.io:5000", "https://r.io:5000", "http://r.io:5000/", "https://r.io:5000/v1/", "r.io:5000/v2/"]
        {
            assert_eq!(found(&[&file(&[(key, "me")])], "r.io:5000", "a").as_deref(), Some("me"), "{key}");
        }
        for key in
            ["r.io", "r.io:5001", "xr.io:5000", "r.io:5000.evil.io", "r.io:5000/b", "r.io:5000/a/b", ""]
        {
            assert_eq!(found(&[&file(&[(key, "me")])], "r.io:5000", "a"), None, "{key}");
        }
    }

    #[test]
    fn docker_hub_is_found_under_its_old_name() {
        let file = file(&[("https://index.docker.io/v1/", "me")]);
        assert_eq!(found(&[&file], "docker.io", "library/alpine").as_deref(), Some("me"));
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let file =
            file(&[("r.io", "host"), ("r.io/a", "part"), ("r.io/a/b", "whole"), ("r.io/a/bc", "other")]);
        assert_eq!(found(&[&file], "r.io", "a/b").as_deref(), Some("whole"));
        assert_eq!(found(&[&file], "r.io", "a/x").as_deref(), Some("part"));
        assert_eq!(found(&[&file], "r.io", "x").as_deref(), Some("host"));
    }

    #[test]
    fn the_first_file_that_knows_the_registry_wins() {
        let empty_entry = r#"{"auths": {"r.io": {}}, "credsStore": "desktop"}"#;
        let (first, second) = (file(&[("r.io", "first")]), file(&[("r.io", "second")]));
        assert_eq!(found(&["{}", empty_entry, &first, &second], "r.io", "a").as_deref(), Some("first"));
        assert_eq!(found(&[r#"{"auths": null}"#, r#"{"auths": {"r.io": null}}"#], "r.io", "a"), None);
    }

    #[test]
    fn a_name_and_a_password_may_stand_in_the_clear() {
        let content = r#"{"auths": {"r.io": {"username": "me", "password": "se:cret"}}}"#;
        let (_directory, paths) = files(&[content]);
        let credentials = find(&paths, "r.io", "a").unwrap().unwrap();
        assert_eq!(credentials.basic(), "Basic bWU6c2U6Y3JldA==");
    }

    #[test]
    fn a_missing_file_is_no_error_and_a_broken_one_is_told_without_its_content() {
        assert!(find(&["/does/not/exist/config.json".into()], "r.io", "a").unwrap().is_none());
        for broken in [
            r#"{"auths": {"r.io": {"auth": {"hunter2": 1}}}}"#,
            r#"{"auths": "hunter2"}"#,
            r#"{"auths": {"r.io": {"auth": "hunter2"}}}"#,
            "hunter2",
        ] {
            let (_directory, paths) = files(&[broken]);
            let error = find(&paths, "r.io", "a").err().unwrap().to_string();
            assert!(error.contains(paths[0].to_str().unwrap()), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
