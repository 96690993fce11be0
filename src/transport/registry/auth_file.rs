//! Files with credentials: docker's `config.json`, podman's `auth.json` and a Kubernetes `.dockerconfigjson`, which
//! are written alike, and `.dockercfg`, which is what docker's file once was: the entries and nothing around them.

use super::credentials::Credentials;
use crate::error::{Error, Result};
use crate::transport::{CredentialSource, Secret};
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
/// The one that docker uses.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What the file is called in a directory that is named in its place.
const USUAL_NAMES: [&str; 4] = ["config.json", ".dockerconfigjson", ".dockercfg", "auth.json"];

/// Base64 as programs have written it: with and without padding.
pub(super) const SECRETS: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

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
        own.find(|(key, _)| specificity(key, registry, "") == Some(0))
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

/// The key under which docker keeps the credentials for a registry, in files and in programs.
pub(super) fn key_of(registry: &str) -> &str {
    if DOCKER_HUB.contains(&registry) { DOCKER_HUB_KEY } else { registry }
}

/// Whether a key stands for the registry as a whole, in any spelling.
pub(super) fn is_key_of(key: &str, registry: &str) -> bool {
    specificity(key, registry, "") == Some(0)
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
            let username = pair.map(|(username, _)| username).filter(|name| !name.is_empty());
            let username = username.unwrap_or_else(|| "<token>".to_owned());
            return Ok(Some(Credentials::Identity { username, token: token.clone() }));
        }
        Ok(pair.map(|(username, password)| Credentials::new(username, password)))
    }
}

/// A name and a password out of `auth`.
fn decode(auth: &Secret) -> Option<(String, String)> {
    let decoded = String::from_utf8(SECRETS.decode(auth.reveal().trim()).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    // Old versions of docker padded with zeros.
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> AuthFile {
        AuthFile::parse("FILE", content.as_bytes()).unwrap()
    }

    /// A file with these keys and users.
    fn keys(entries: &[(&str, &str)]) -> AuthFile {
        let entries = entries.iter().map(|(key, user)| {
            format!(r#""{key}": {{"auth": "{}"}}"#, SECRETS.encode(format!("{user}:secret")))
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
