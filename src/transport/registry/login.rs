//! Logging in and out: a password is tried before it is kept, and kept where docker would keep it.

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

/// Where a password is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In this file.
    File(PathBuf),
    /// With this program, which the file names.
    Helper(String),
}

/// What came of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// Where the password is.
    pub kept: Kept,
    /// Whether the registry looked at it: one that lets everybody in does not.
    pub verified: bool,
    /// Whether it was sent encrypted, and will be.
    pub encrypted: bool,
    /// A place that is asked earlier and knows the registry too, so that the password will not be used.
    pub hidden_by: Option<String>,
}

/// The host of a registry, as it stands in the names of images; `https://` and a slash at the end do no harm.
///
/// # Errors
/// When it is more than a host, or none.
pub fn host(text: &str) -> Result<String> {
    let host = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    // What can stand before a repository is a registry.
    match format!("{host}/a").parse::<Reference>() {
        Ok(reference) if reference.registry() == host && !host.contains('/') => Ok(host.to_owned()),
        _ => Err(Error::usage(format!("{text:?} is not the host of a registry"))
            .with_hint("write HOST[:PORT] as in the names of images, without a repository")),
    }
}

/// Tries a name and a password, and keeps them in the file or with the program that the file names.
///
/// # Errors
/// When the registry does not let them in; then nothing is kept.
pub fn login(
    registry: &str,
    username: &str,
    password: &Secret,
    file: &Path,
    access: &Access,
) -> Result<LoggedIn> {
    // What cannot be read or understood is told before anything happens.
    let ledger = AuthFileEditor::open(file)?;
    let hidden_by = first(registry, ledger.path(), access);
    let (verified, encrypted) = verify(registry, Credentials::new(username, password.reveal()), access)?;
    // Read anew: the registry has taken its time, and another login may have been faster.
    let mut ledger = AuthFileEditor::open_alone(file)?;
    let source = CredentialSource::File(ledger.path().to_owned());
    let known = AuthFile::read(&source)?;
    let kept = match known.as_ref().and_then(|file| file.helper(registry)) {
        Some(name) => {
            credential_helper::store(name, registry, username, password)?;
            ledger.enter(registry, None)?;
            Kept::Helper(name.to_owned())
        }
        None => {
            ledger.enter(registry, Some((username, password)))?;
            Kept::File(ledger.path().to_owned())
        }
    };
    ledger.save()?;
    Ok(LoggedIn { kept, verified, encrypted, hidden_by })
}

/// Forgets what the file, or the program that it names, knows of a registry.
///
/// # Errors
/// [`NotFound`](crate::error::Kind::NotFound) when that is nothing.
pub fn logout(registry: &str, file: &Path, access: &Access) -> Result<Kept> {
    // A directory is not made for a file that knows nothing.
    let mut ledger = match file.exists() {
        true => AuthFileEditor::open_alone(file)?,
        false => AuthFileEditor::open(file)?,
    };
    let source = CredentialSource::File(ledger.path().to_owned());
    let known = AuthFile::read(&source)?;
    let helper = known.as_ref().and_then(|file| file.helper(registry));
    let erased = match helper {
        Some(name) if credential_helper::get(name, registry)?.is_some() => {
            credential_helper::erase(name, registry)?;
            true
        }
        _ => false,
    };
    let struck = ledger.strike(registry)?;
    if struck {
        ledger.save()?;
    }
    match (erased, helper) {
        (true, Some(name)) => Ok(Kept::Helper(name.to_owned())),
        _ if struck => Ok(Kept::File(ledger.path().to_owned())),
        _ => {
            let error = Error::not_found(format!("not logged in to {registry}"))
                .with_source(format!("{} knows no credentials for it", ledger.path().display()));
            Err(match first(registry, ledger.path(), access) {
                Some(other) => error.with_hint(format!("{other} does; --authfile names another file")),
                None => error,
            })
        }
    }
}

/// The first place that knows the registry, unless that is the file itself.
fn first(registry: &str, file: &Path, access: &Access) -> Option<String> {
    for source in &access.credentials {
        let same = matches!(source, CredentialSource::File(path) | CredentialSource::Named(path) if is_same(path, file));
        if same {
            return None;
        }
        // One that cannot be read knows nothing.
        if let Ok(Some(known)) = AuthFile::read(source)
            && let Ok(Some(_)) = known.entry(registry, "")
        {
            return Some(known.name().to_owned());
        }
    }
    None
}

fn is_same(a: &Path, b: &Path) -> bool {
    match (super::auth_file::inside(a).canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Returns whether the registry looks at credentials and takes these, and whether they were sent encrypted.
fn verify(registry: &str, credentials: Credentials, access: &Access) -> Result<(bool, bool)> {
    let conf = Arc::new(RegistriesConf::read(&access.registries_conf)?);
    let tls = TlsConfig::read(access, registry, conf.trusts_anybody(registry)?, &conf)?;
    let base = url::base(registry, access.plain_http, tls.wanted)?;
    let encrypted = base.scheme() == "https";
    let auth = Auth::new(base.clone(), Keychain::of(credentials));
    let http = Http::new(tls, base.clone(), ProxyRules::new(access), access.client.clone());
    wait(async {
        let Some(shown) = auth.authorization(&http, &Scopes::default()).await? else {
            auth.check(None)?;
            return Ok((false, encrypted));
        };
        let mut request = Request::new(Method::GET, base, format!("log in to {registry}"));
        request.authorization = Some(shown);
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
    fn a_registry_is_a_host_and_nothing_more() {
        for (text, expected) in [
            ("r.io", "r.io"),
            ("https://r.io/", "r.io"),
            ("localhost:5000", "localhost:5000"),
            ("docker.io", "docker.io"),
        ] {
            assert_eq!(host(text).unwrap(), expected);
        }
        for text in ["", "r.io/team", "http://r.io", "me@r.io", "r.io:x", "library", "https://"] {
            assert!(host(text).is_err(), "{text:?}");
        }
    }
}
