//! The lookup of credentials in files, and in the credential helpers that the files name.
//!
//! Files are read in advance, so that a broken one is reported before any work is done. Helpers run only when the registry
//! asks for credentials: many images are public, and a helper may be slow or missing.

use super::auth_file::AuthFile;
use super::credential_helper;
use super::credentials::Credentials;
use crate::error::Result;
use crate::transport::{Access, CredentialSource, Environment};

/// The sources of credentials for one repository.
#[derive(Debug, Default)]
pub(super) struct Keychain {
    files: Vec<AuthFile>,
    /// Credentials that are used without a lookup.
    given: Option<Credentials>,
    registry: String,
    repository: String,
    helper_environment: Environment,
    /// The error of the first file that could not be read.
    problem: Option<String>,
}

/// The result of a lookup.
#[derive(Clone, Debug, Default)]
pub(super) struct FoundCredentials {
    pub(super) credentials: Option<Credentials>,
    /// The file, the variable or the helper that has them.
    pub(super) origin: Option<String>,
    /// The first error of the lookup.
    pub(super) problem: Option<String>,
}

impl Keychain {
    /// Reads all files. The error of one that cannot be read or parsed is reported when the registry asks for credentials:
    /// the file may belong to another user, and many images are public.
    ///
    /// # Errors
    /// When a file that the user named cannot be read or parsed.
    pub(super) fn read(access: &Access, registry: &str, repository: &str) -> Result<Self> {
        let mut keychain = Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            helper_environment: access.helper_environment.clone(),
            ..Self::default()
        };
        for source in &access.credentials {
            match AuthFile::read(source) {
                Ok(file) => keychain.files.extend(file),
                Err(error) if matches!(source, CredentialSource::Named(_)) => return Err(error),
                Err(error) => _ = keychain.problem.get_or_insert(error.to_string()),
            }
        }
        Ok(keychain)
    }

    /// Returns a keychain with only these credentials.
    pub(super) fn of(credentials: Credentials) -> Self {
        Self { given: Some(credentials), ..Self::default() }
    }

    /// Returns the credentials from the first file that has any. Entries that make no sense and helpers that fail are
    /// skipped. Blocks while a helper runs.
    pub(super) fn find(&self) -> FoundCredentials {
        let mut found = FoundCredentials {
            credentials: self.given.clone(),
            problem: self.problem.clone(),
            ..FoundCredentials::default()
        };
        for file in &self.files {
            // The order within a file is Docker's: the helper first, then the entry.
            let helper = || {
                file.helper(&self.registry).map_or(Ok(None), |name| {
                    credential_helper::get(name, &self.registry, &self.helper_environment)
                })
            };
            let entry = || file.entry(&self.registry, &self.repository);
            let named = file.helper(&self.registry).unwrap_or_default();
            let origins = [format!("docker-credential-{named} ({})", file.name()), file.name().to_owned()];
            let look_ups = [&helper as &dyn Fn() -> Result<Option<Credentials>>, &entry];
            for (look_up, origin) in look_ups.into_iter().zip(origins) {
                if found.credentials.is_some() {
                    return found;
                }
                match look_up() {
                    Ok(credentials) => {
                        found.origin = credentials.is_some().then_some(origin);
                        found.credentials = credentials;
                    }
                    Err(error) => _ = found.problem.get_or_insert(error.to_string()),
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::credentials::BASE64;
    use super::*;
    use crate::transport::Secret;
    use base64::Engine as _;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn text(text: &str) -> CredentialSource {
        CredentialSource::Text { name: "TEXT".to_owned(), text: Secret::new(text) }
    }

    fn read(sources: &[CredentialSource], registry: &str, repository: &str) -> Result<Keychain> {
        let access = Access { credentials: sources.to_vec(), ..Access::default() };
        Keychain::read(&access, registry, repository)
    }

    /// Returns the header for `registry/a`.
    fn found(contents: &[&str], registry: &str) -> Option<String> {
        let sources: Vec<_> = contents.iter().map(|content| text(content)).collect();
        let credentials = read(&sources, registry, "a").unwrap().find().credentials?;
        let header = credentials.header();
        let Some(encoded) = header.strip_prefix("Basic ") else { return Some(header) };
        Some(String::from_utf8(BASE64.decode(encoded).unwrap()).unwrap())
    }

    #[test]
    fn the_first_source_with_an_entry_for_the_registry_wins() {
        let entry = |user: &str| {
            format!(r#"{{"auths": {{"r.io": {{"auth": "{}"}}}}}}"#, BASE64.encode(format!("{user}:x")))
        };
        let empty = r#"{"auths": {"r.io": {}}}"#;
        assert_eq!(found(&["{}", empty, &entry("1"), &entry("2")], "r.io").as_deref(), Some("1:x"));
        assert_eq!(found(&[r#"{"auths": null}"#, r#"{"auths": {"r.io": null}}"#], "r.io"), None);
    }

    #[test]
    fn every_kind_of_credentials_is_found() {
        for (entry, header) in [
            (r#"{"username": "me", "password": "se:cret"}"#, "me:se:cret"),
            (r#"{"auth": "bWU6c2VjcmV0AAA="}"#, "me:secret"),
            (r#"{"auth": "bWU6c2VjcmV0AAA"}"#, "me:secret"),
            (r#"{"auth": "MDAwMDo=", "identitytoken": "i"}"#, "0000:i"),
            (r#"{"identitytoken": "i"}"#, "<token>:i"),
            (r#"{"auth": "bWU6c2VjcmV0", "registrytoken": "r"}"#, "Bearer r"),
            (r#"{"username": "<token>", "password": "i"}"#, "<token>:i"),
        ] {
            let file = format!(r#"{{"auths": {{"r.io": {entry}}}}}"#);
            assert_eq!(found(&[&file], "r.io").as_deref(), Some(header), "{entry}");
            let legacy = format!(r#"{{"https://r.io/v1/": {entry}}}"#);
            assert_eq!(found(&[&legacy], "r.io").as_deref(), Some(header), "{entry} in a .dockercfg");
        }
    }

    #[test]
    fn a_file_is_found_in_a_directory_by_its_usual_names() {
        for name in ["config.json", ".dockerconfigjson", ".dockercfg", "auth.json"] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(name), r#"{"auths": {"r.io": {"auth": "bWU6eA=="}}}"#).unwrap();
            let sources = [CredentialSource::File(directory.path().to_owned())];
            assert!(read(&sources, "r.io", "a").unwrap().find().credentials.is_some(), "{name}");
        }
    }

    #[test]
    fn a_missing_file_is_not_a_problem_and_a_broken_one_is_reported_without_its_content() {
        let missing = [CredentialSource::File("/does/not/exist/config.json".into())];
        let found = read(&missing, "r.io", "a").unwrap().find();
        assert!(found.credentials.is_none() && found.problem.is_none());
        let directory = tempfile::tempdir().unwrap();
        let path: PathBuf = directory.path().join("config.json");
        for broken in [
            r#"{"auths": {"r.io": {"auth": {"hunter2": 1}}}}"#,
            r#"{"auths": "hunter2"}"#,
            r#"{"auths": {"r.io": {"auth": "hunter2"}}}"#,
            r#"{"credHelpers": {"hunter2": 3}}"#,
            "[\"hunter2\"]",
            "hunter2",
        ] {
            fs::write(&path, broken).unwrap();
            for (source, name) in [
                (CredentialSource::File(path.clone()), path.as_path()),
                (CredentialSource::File(directory.path().to_owned()), path.as_path()),
                (CredentialSource::Named(path.clone()), path.as_path()),
                (text(broken), Path::new("TEXT")),
            ] {
                let message = match read(&[source], "r.io", "a") {
                    Ok(keychain) => keychain.find().problem.unwrap(),
                    Err(error) => format!("{error} {error:?} {:?}", error.hint()),
                };
                assert!(message.contains(name.to_str().unwrap()), "{message}");
                assert!(!message.contains("hunter2"), "{message}");
            }
        }
    }

    #[test]
    fn a_broken_source_is_skipped_unless_the_user_named_it() {
        let good = r#"{"auths": {"r.io": {"auth": "bWU6eA=="}}}"#;
        let helper = r#"{"credsStore": "volio-test-is-not-there", "auths": {"r.io": {"auth": "bWU6eA=="}}}"#;
        for sources in [vec![text("hunter2"), text(good)], vec![text(helper)]] {
            let found = read(&sources, "r.io", "a").unwrap().find();
            assert!(found.credentials.is_some() && found.problem.is_some(), "{found:?}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, "hunter2").unwrap();
        assert!(read(&[CredentialSource::Named(path.clone()), text(good)], "r.io", "a").is_err());
        fs::write(&path, " \n").unwrap();
        let found = read(&[CredentialSource::Named(path)], "r.io", "a").unwrap().find();
        assert!(found.credentials.is_none() && found.problem.is_none(), "{found:?}");
    }

    #[test]
    fn secrets_are_not_shown_in_debug_output() {
        let file = r#"{"auths": {"r.io": {"username": "me", "password": "hunter2"},
            "a.io": {"auth": "aHVudGVyMjpodW50ZXIy", "identitytoken": "hunter2", "registrytoken": "hunter2"}}}"#;
        let keychain = read(&[text(file)], "r.io", "a").unwrap();
        let found = keychain.find().credentials.unwrap();
        for secret in ["hunter2", "aHVudGVyMj"] {
            assert!(!format!("{keychain:?} {found:?}").contains(secret), "{keychain:?} {found:?}");
        }
    }
}
