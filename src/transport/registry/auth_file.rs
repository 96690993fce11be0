//! Files with credentials: Docker's `config.json`, Podman's `auth.json` and a Kubernetes `.dockerconfigjson`, which have
//! one format, and Docker's older `.dockercfg`, which has only the entries.

use super::credential_keys::{is_key_of, specificity};
use super::credentials::{BASE64, Credentials};
use crate::error::{Error, Result};
use crate::transport::{CredentialSource, Secret};
use base64::Engine as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The names of the file in a directory that is named in its place.
const FILE_NAMES: [&str; 4] = ["config.json", ".dockerconfigjson", ".dockercfg", "auth.json"];

/// The entries of a file.
#[derive(Debug)]
pub(super) struct AuthFile {
    /// The name for errors.
    name: String,
    content: AuthConfig,
}

#[derive(Debug, Default, Deserialize)]
struct AuthConfig {
    #[serde(default)]
    auths: Option<BTreeMap<String, Option<AuthEntry>>>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct AuthEntry {
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

/// Deserializes a secret. Docker writes empty strings for missing ones.
fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.is_empty()).map(Secret::new))
}

impl AuthFile {
    /// Reads a file; `None` if it does not exist.
    ///
    /// # Errors
    /// When it exists and cannot be read or parsed.
    pub(super) fn read(source: &CredentialSource) -> Result<Option<Self>> {
        match source {
            CredentialSource::Text { name, text } => Self::parse(name, text.reveal().as_bytes()).map(Some),
            CredentialSource::File(path) | CredentialSource::Named(path) => {
                let path = resolve_directory(path);
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
            return Ok(Self { name: name.to_owned(), content: AuthConfig::default() });
        }
        // The parser's message would quote the content.
        let content = parse(bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            malformed(name, &format!("line {line}, column {column} is not what it should be"))
        })?;
        Ok(Self { name: name.to_owned(), content })
    }

    /// Returns the name for errors.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the credential helper for a registry, by the last part of its name. An empty name in `credHelpers` excludes
    /// a registry from `credsStore`.
    pub(super) fn helper(&self, registry: &str) -> Option<&str> {
        let mut own = self.content.helpers.iter().flatten();
        own.find(|(key, _)| is_key_of(key, registry))
            .map(|(_, helper)| helper)
            .or(self.content.store.as_ref())
            .map(String::as_str)
            .filter(|helper| !helper.is_empty())
    }

    /// Returns the credentials in the most specific entry for a repository.
    ///
    /// # Errors
    /// When that entry is malformed.
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

/// Returns whether an error says that a file or one of its directories does not exist.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Returns the file with credentials in a directory, or the path itself if it is not such a directory.
pub(super) fn resolve_directory(path: &Path) -> PathBuf {
    let usual = || FILE_NAMES.iter().map(|name| path.join(name)).find(|file| file.exists());
    path.is_dir().then(usual).flatten().unwrap_or_else(|| path.to_owned())
}

fn parse(bytes: &[u8]) -> serde_json::Result<AuthConfig> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Member {
        Entry(AuthEntry),
        Else(serde::de::IgnoredAny),
    }
    let content: AuthConfig = serde_json::from_slice(bytes)?;
    if content.auths.is_some() || content.store.is_some() || content.helpers.is_some() {
        return Ok(content);
    }
    // Without these keys it is a .dockercfg, or a config.json without registries. Other settings are skipped.
    let bare: BTreeMap<String, Member> = serde_json::from_slice(bytes)?;
    let entries = bare.into_iter().filter_map(|(key, member)| match member {
        Member::Entry(entry) => Some((key, Some(entry))),
        Member::Else(_) => None,
    });
    Ok(AuthConfig { auths: Some(entries.collect()), ..AuthConfig::default() })
}

/// Returns the error for a file that cannot be parsed.
pub(super) fn malformed(name: &str, why: &str) -> Error {
    Error::failed(format!("cannot understand the credentials in {name}: {why}"))
        .with_hint("it must be JSON such as docker login writes: {\"auths\": {\"HOST\": {\"auth\": \"…\"}}}")
}

impl AuthEntry {
    /// Returns the credentials of the entry; `None` if they are elsewhere, such as in a credential helper.
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

/// Decodes the user name and the password in `auth`.
fn decode(auth: &Secret) -> Option<(String, String)> {
    let decoded = String::from_utf8(BASE64.decode(auth.reveal().trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    // Old versions of Docker padded the password with zeros.
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::credential_keys::{DOCKER_HUB_KEY, key_of};
    use super::*;

    fn file(content: &str) -> AuthFile {
        AuthFile::parse("FILE", content.as_bytes()).unwrap()
    }

    /// Returns a file with these keys and users.
    fn keys(entries: &[(&str, &str)]) -> AuthFile {
        let entries = entries.iter().map(|(key, user)| {
            format!(r#""{key}": {{"auth": "{}"}}"#, BASE64.encode(format!("{user}:secret")))
        });
        file(&format!(r#"{{"auths": {{{}}}}}"#, entries.collect::<Vec<_>>().join(",")))
    }

    /// Returns the user name for `registry/repository`.
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
    fn a_registry_may_have_its_own_helper() {
        let file = file(
            r#"{"credsStore": "all", "credHelpers": {"https://r.io": "own", "docker.io": "hub", "x": ""}}"#,
        );
        for (registry, helper) in [
            ("r.io", Some("own")),
            ("index.docker.io", Some("hub")),
            ("other.io", Some("all")),
            // An empty name excludes a registry from the store.
            ("x", None),
        ] {
            assert_eq!(file.helper(registry), helper, "{registry}");
        }
    }

    #[test]
    fn other_settings_are_not_registries() {
        let file = file(r#"{"HttpHeaders": {"X": "y"}, "proxies": {"default": {}}, "detachKeys": "a"}"#);
        assert_eq!(found(&file, "HttpHeaders", "a"), None);
    }
}
