//! Files with credentials: docker's `config.json`, podman's `auth.json` and a Kubernetes `.dockerconfigjson`, which
//! are written alike, and `.dockercfg`, which is what docker's file once was: the entries and nothing around them.

use super::credential_keys::{is_key_of, specificity};
use super::credentials::{BASE64, Credentials};
use crate::error::{Error, Result};
use crate::transport::{CredentialSource, Secret};
use base64::Engine as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// What the file is called in a directory that is named in its place.
const USUAL_NAMES: [&str; 4] = ["config.json", ".dockerconfigjson", ".dockercfg", "auth.json"];

/// What a file says about registries.
#[derive(Debug)]
pub(super) struct AuthFile {
    /// What to call it in an error.
    name: String,
    content: Content,
}

#[derive(Debug, Default, Deserialize)]
struct Content {
    #[serde(default)]
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Entry {
    #[serde(default, deserialize_with = "secret")]
    auth: Option<Secret>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    password: Option<Secret>,
    #[serde(default, rename = "identitytoken", deserialize_with = "secret")]
    identity_token: Option<Secret>,
    #[serde(default, rename = "registrytoken", deserialize_with = "secret")]
    registry_token: Option<Secret>,
}

/// An empty text is none: docker writes such.
fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.is_empty()).map(Secret::new))
}

impl AuthFile {
    /// Reads a file; `None` when it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be read or understood.
    pub(super) fn read(source: &CredentialSource) -> Result<Option<Self>> {
        match source {
            CredentialSource::Text { name, text } => Self::parse(name, text.reveal().as_bytes()).map(Some),
            CredentialSource::File(path) | CredentialSource::Named(path) => {
                let path = inside(path);
                match fs::read(&path) {
                    Ok(bytes) => Self::parse(&path.display().to_string(), &bytes).map(Some),
                    Err(error) if is_absent(&error) => Ok(None),
                    Err(error) => {
                        Err(Error::io(format!("cannot read the credentials in {}", path.display()), error))
                    }
                }
            }
        }
    }

    fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Self { name: name.to_owned(), content: Content::default() });
        }
        // The parser's own message would quote the content.
        let content = parse(bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            malformed(name, &format!("line {line}, column {column} is not what it should be"))
        })?;
        Ok(Self { name: name.to_owned(), content })
    }

    /// What to call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The program that keeps the credentials for a registry, by the last part of its name.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        let mut own = self.content.helpers.iter().flatten();
        own.find(|(key, _)| is_key_of(key, registry))
            .map(|(_, helper)| helper)
            .or(self.content.store.as_ref())
            .map(String::as_str)
            .filter(|helper| !helper.is_empty())
    }

    /// The credentials in the entry that fits the repository most closely.
    ///
    /// # Errors
    /// When that entry makes no sense.
    pub(super) fn entry(&self, registry: &str, repository: &str) -> Result<Option<Credentials>> {
        let mut entries: Vec<_> = self
            .content
            .auths
            .iter()
            .flatten()
            .filter_map(|(key, entry)| Some((specificity(key, registry, repository)?, key, entry.as_ref()?)))
            .collect();
        entries.sort_by_key(|(specificity, ..)| std::cmp::Reverse(*specificity));
        for (_, key, entry) in entries {
            if let Some(credentials) = entry.credentials(&self.name, key)? {
                return Ok(Some(credentials));
            }
        }
        Ok(None)
    }
}

/// Whether a file, or a part of the way to it, does not exist.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The file that is meant when a directory is named.
pub(super) fn inside(path: &Path) -> PathBuf {
    let usual = || USUAL_NAMES.iter().map(|name| path.join(name)).find(|file| file.exists());
    path.is_dir().then(usual).flatten().unwrap_or_else(|| path.to_owned())
}

fn parse(bytes: &[u8]) -> serde_json::Result<Content> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Other {
        Entry(Entry),
        Else(serde::de::IgnoredAny),
    }
    let content: Content = serde_json::from_slice(bytes)?;
    if content.auths.is_some() || content.store.is_some() || content.helpers.is_some() {
        return Ok(content);
    }
    // What is not an entry is some other setting, of a config.json that knows no registry yet.
    let bare: BTreeMap<String, Other> = serde_json::from_slice(bytes)?;
    let entries = bare.into_iter().filter_map(|(key, other)| match other {
        Other::Entry(entry) => Some((key, Some(entry))),
        Other::Else(_) => None,
    });
    Ok(Content { auths: Some(entries.collect()), ..Content::default() })
}

pub(super) fn malformed(name: &str, why: &str) -> Error {
    Error::failed(format!("cannot understand the credentials in {name}: {why}"))
        .with_hint("it must be JSON such as docker login writes: {\"auths\": {\"HOST\": {\"auth\": \"…\"}}}")
}

impl Entry {
    /// What the entry holds; nothing when the credentials are elsewhere, such as in a credential helper.
    fn credentials(&self, file: &str, key: &str) -> Result<Option<Credentials>> {
        if let Some(token) = &self.registry_token {
            return Ok(Some(Credentials::Registry(token.clone())));
        }
        let pair = match &self.auth {
            Some(auth) => Some(decode(auth).ok_or_else(|| {
                malformed(file, &format!("\"auth\" of {key:?} is not NAME:PASSWORD in base64"))
            })?),
            None => {
                let password = self.password.as_ref().map(|password| password.reveal().to_owned());
                self.username.clone().filter(|name| !name.is_empty()).zip(password)
            }
        };
        if let Some(token) = &self.identity_token {
            let username = pair.map(|(username, _)| username);
            return Ok(Some(Credentials::identity(username, token.clone())));
        }
        Ok(pair.map(|(username, password)| Credentials::new(username, password)))
    }
}

/// A name and a password out of `auth`.
fn decode(auth: &Secret) -> Option<(String, String)> {
    let decoded = String::from_utf8(BASE64.decode(auth.reveal().trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    // Old versions of docker padded with zeros.
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::credential_keys::{DOCKER_HUB_KEY, key_of};
    use super::*;

    fn file(content: &str) -> AuthFile {
        AuthFile::parse("FILE", content.as_bytes()).unwrap()
    }

    /// A file with these keys and users.
    fn keys(entries: &[(&str, &str)]) -> AuthFile {
        let entries = entries.iter().map(|(key, user)| {
            format!(r#""{key}": {{"auth": "{}"}}"#, BASE64.encode(format!("{user}:secret")))
        });
        file(&format!(r#"{{"auths": {{{}}}}}"#, entries.collect::<Vec<_>>().join(",")))
    }

    /// The name that is found for `registry/repository`.
    fn found(file: &AuthFile, registry: &str, repository: &str) -> Option<String> {
        match file.entry(registry, repository).unwrap()? {
            Credentials::Password { username, .. } => Some(username),
            _ => None,
        }
    }

    #[test]
    fn keys_may_have_a_scheme_and_a_path() {
        for key in
            ["r.io:5000", "https://r.io:5000", "http://r.io:5000/", "https://r.io:5000/v1/", "r.io:5000/v2/"]
        {
            assert_eq!(found(&keys(&[(key, "me")]), "r.io:5000", "a").as_deref(), Some("me"), "{key}");
        }
        for key in
            ["r.io", "r.io:5001", "xr.io:5000", "r.io:5000.evil.io", "r.io:5000/b", "r.io:5000/a/b", ""]
        {
            assert_eq!(found(&keys(&[(key, "me")]), "r.io:5000", "a"), None, "{key}");
        }
    }

    #[test]
    fn docker_hub_is_found_under_its_old_name() {
        let file = keys(&[(DOCKER_HUB_KEY, "me")]);
        assert_eq!(found(&file, "docker.io", "library/alpine").as_deref(), Some("me"));
        assert_eq!((key_of("docker.io"), key_of("r.io")), (DOCKER_HUB_KEY, "r.io"));
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let file =
            keys(&[("r.io", "host"), ("r.io/a", "part"), ("r.io/a/b", "whole"), ("r.io/a/bc", "other")]);
        assert_eq!(found(&file, "r.io", "a/b").as_deref(), Some("whole"));
        assert_eq!(found(&file, "r.io", "a/x").as_deref(), Some("part"));
        assert_eq!(found(&file, "r.io", "x").as_deref(), Some("host"));
    }

    #[test]
    fn a_registry_may_have_a_program_of_its_own() {
        let file = file(
            r#"{"credsStore": "all", "credHelpers": {"https://r.io": "own", "docker.io": "hub", "x": ""}}"#,
        );
        for (registry, helper) in [
            ("r.io", Some("own")),
            ("index.docker.io", Some("hub")),
            ("other.io", Some("all")),
            // An empty name takes a registry out of the store.
            ("x", None),
        ] {
            assert_eq!(file.helper(registry), helper, "{registry}");
        }
    }

    #[test]
    fn other_settings_are_no_registries() {
        let file = file(r#"{"HttpHeaders": {"X": "y"}, "proxies": {"default": {}}, "detachKeys": "a"}"#);
        assert_eq!(found(&file, "HttpHeaders", "a"), None);
    }
}
