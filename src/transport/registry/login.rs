//! Login and logout. A password is checked with the registry before it is stored, and stored where Docker would store it.

use super::auth::Auth;
use super::auth_file::AuthFile;
use super::auth_file_editor::AuthFileEditor;
use super::credential_helper;
use super::credentials::Credentials;
use super::http::{Http, Request, wait};
use super::keychain::Keychain;
use super::proxies::ProxyRules;
use super::registries_conf::RegistriesConf;
use super::tls::TlsConfig;
use super::token::Scopes;
use super::url;
use crate::error::{Error, Kind, Result};
use crate::oci::Reference;
use crate::transport::{Access, CredentialSource, Secret};
use reqwest::Method;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The storage of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredIn {
    /// This file.
    File(PathBuf),
    /// This credential helper, which the file names.
    Helper(String),
}

/// The result of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// The storage of the password.
    pub stored_in: StoredIn,
    /// Set if the registry checked the password. A registry without authentication does not.
    pub verified: bool,
    /// Set if the password was sent, and will be sent, encrypted.
    pub encrypted: bool,
    /// A source of credentials that takes precedence and has an entry for the registry, so that the new password is not
    /// used.
    pub hidden_by: Option<String>,
}

/// Parses the host of a registry, as in the names of images. `https://` before it and slashes after it are ignored.
///
/// # Errors
/// When it is not a host with an optional port.
pub fn parse_host(text: &str) -> Result<String> {
    let host = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    // A text that can precede a repository is a registry.
    match format!("{host}/a").parse::<Reference>() {
        Ok(reference) if reference.registry() == host && !host.contains('/') => Ok(host.to_owned()),
        _ => Err(Error::usage(format!("{text:?} is not the host of a registry"))
            .with_hint("write HOST[:PORT] as in the names of images, without a repository")),
    }
}

/// Checks a name and a password with the registry, and stores them in the file or with the helper that the file names.
///
/// # Errors
/// When the registry rejects them; then nothing is stored.
pub fn login(
    registry: &str,
    username: &str,
    password: &Secret,
    file: &Path,
    access: &Access,
) -> Result<LoggedIn> {
    // A file that cannot be read or parsed is reported before anything is sent.
    let editor = AuthFileEditor::open(file)?;
    let hidden_by = earlier_source(registry, editor.path(), access);
    let (verified, encrypted) = verify(registry, Credentials::new(username, password.reveal()), access)?;
    // The file is read again: another login may have changed it while the registry checked the password.
    let mut editor = AuthFileEditor::open_locked(file)?;
    let source = CredentialSource::File(editor.path().to_owned());
    let known = AuthFile::read(&source)?;
    let stored_in = match known.as_ref().and_then(|file| file.helper(registry)) {
        Some(name) => {
            let credentials = (username, password);
            credential_helper::store(name, registry, credentials, &access.helper_environment)?;
            editor.set(registry, None)?;
            StoredIn::Helper(name.to_owned())
        }
        None => {
            editor.set(registry, Some((username, password)))?;
            StoredIn::File(editor.path().to_owned())
        }
    };
    editor.save()?;
    Ok(LoggedIn { stored_in, verified, encrypted, hidden_by })
}

/// Removes the credentials for a registry from the file, or from the helper that the file names.
///
/// # Errors
/// [`NotFound`](crate::error::Kind::NotFound) when there are none.
pub fn logout(registry: &str, file: &Path, access: &Access) -> Result<StoredIn> {
    // Locking would create the directory of a file that does not exist.
    let mut editor =
        if file.exists() { AuthFileEditor::open_locked(file)? } else { AuthFileEditor::open(file)? };
    let source = CredentialSource::File(editor.path().to_owned());
    let known = AuthFile::read(&source)?;
    let helper = known.as_ref().and_then(|file| file.helper(registry));
    let environment = &access.helper_environment;
    let erased = match helper {
        Some(name) if credential_helper::get(name, registry, environment)?.is_some() => {
            credential_helper::erase(name, registry, environment)?;
            true
        }
        _ => false,
    };
    let removed = editor.remove(registry)?;
    if removed {
        editor.save()?;
    }
    match helper.filter(|_| erased) {
        Some(name) => Ok(StoredIn::Helper(name.to_owned())),
        None if removed => Ok(StoredIn::File(editor.path().to_owned())),
        None => {
            let error = Error::not_found(format!("not logged in to {registry}"))
                .with_source(format!("{} knows no credentials for it", editor.path().display()));
            Err(match earlier_source(registry, editor.path(), access) {
                Some(other) => error.with_hint(format!("{other} does; --authfile names another file")),
                None => error,
            })
        }
    }
}

/// Returns the name of a source that has an entry for the registry and takes precedence over the file.
fn earlier_source(registry: &str, file: &Path, access: &Access) -> Option<String> {
    for source in &access.credentials {
        let is_file = matches!(source, CredentialSource::File(path) | CredentialSource::Named(path) if is_same_file(path, file));
        if is_file {
            return None;
        }
        // A source that cannot be read has no entry.
        if let Ok(Some(known)) = AuthFile::read(source)
            && let Ok(Some(_)) = known.entry(registry, "")
        {
            return Some(known.name().to_owned());
        }
    }
    None
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    match (super::auth_file::resolve_directory(a).canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Returns whether the registry checked the credentials, and whether they were sent encrypted.
///
/// # Errors
/// When the registry rejects the credentials.
fn verify(registry: &str, credentials: Credentials, access: &Access) -> Result<(bool, bool)> {
    let conf = Arc::new(RegistriesConf::read(&access.registries_conf)?);
    let tls = TlsConfig::read(access, registry, conf.is_insecure(registry)?, &conf)?;
    let base = url::base(registry, access.plain_http, tls.required)?;
    let encrypted = base.scheme() == "https";
    let auth = Auth::new(base.clone(), Keychain::of(credentials));
    let http = Http::new(tls, base.clone(), ProxyRules::new(access), access.client.clone());
    wait(async {
        let Some(authorization) = auth.authorization(&http, &Scopes::default()).await? else {
            auth.check_is_registry(None)?;
            return Ok((false, encrypted));
        };
        let mut request = Request::new(Method::GET, base, format!("log in to {registry}"));
        request.authorization = Some(authorization);
        http.send(&request).await?.success().await?;
        Ok((true, encrypted))
    })
    .map_err(|error| match error.kind() {
        Kind::Denied => error.with_hint(
            "are the name and the password right? Nothing was kept; some registries want a token in the password's place",
        ),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_a_host_without_a_repository() {
        for (text, expected) in [
            ("r.io", "r.io"),
            ("https://r.io/", "r.io"),
            ("localhost:5000", "localhost:5000"),
            ("docker.io", "docker.io"),
        ] {
            assert_eq!(parse_host(text).unwrap(), expected);
        }
        for text in ["", "r.io/team", "http://r.io", "me@r.io", "r.io:x", "library", "https://"] {
            assert!(parse_host(text).is_err(), "{text:?}");
        }
    }
}
