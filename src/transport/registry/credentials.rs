//! Who we are to a registry, and where that is found out: in files, and in the programs that files name.
//!
//! Files are read at once, so that a broken one is noticed before anything has happened. The programs run when a
//! registry asks who we are: many images are there for everybody, and a program may take its time, or be missing.

use super::auth_file::{AuthFile, SECRETS};
use super::credential_helper;
use crate::error::Result;
use crate::transport::{CredentialSource, Secret};
use base64::Engine as _;

/// What identifies us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token for the token server, which gives tokens for the registry in return.
    Identity {
        /// The name that stands beside it, for servers that want it as a password.
        username: String,
        /// The token.
        token: Secret,
    },
    /// A token for the registry itself.
    Registry(Secret),
}

/// The name that says that the password is a token for the token server.
const TOKEN: &str = "<token>";

impl Credentials {
    /// A name and its password, which by a convention of docker's may be a token.
    pub(super) fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        let (username, secret) = (username.into(), Secret::new(password));
        match username == TOKEN {
            true => Self::Identity { username, token: secret },
            false => Self::Password { username, password: secret },
        }
    }

    /// The value of an `Authorization` header, for the registry or its token server.
    pub(super) fn header(&self) -> String {
        match self {
            Self::Password { username, password: secret } | Self::Identity { username, token: secret } => {
                format!("Basic {}", SECRETS.encode(format!("{username}:{}", secret.reveal())))
            }
            Self::Registry(token) => format!("Bearer {}", token.reveal()),
        }
    }
}

/// The places where credentials for one repository may be.
#[derive(Debug, Default)]
pub(super) struct Keychain {
    files: Vec<AuthFile>,
    given: Option<Credentials>,
    registry: String,
    repository: String,
    /// The first file that could not be read.
    doubt: Option<String>,
}

/// Who we are, as far as that could be found out.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    pub(super) credentials: Option<Credentials>,
    /// The first thing that was in the way.
    pub(super) doubt: Option<String>,
}

impl Keychain {
    /// Reads all files. One that cannot be read or understood is passed over, and told when a registry asks who we
    /// are: it may be that of somebody else, and many images are there for everybody.
    ///
    /// # Errors
    /// When that is a file that was asked for.
    pub(super) fn read(sources: &[CredentialSource], registry: &str, repository: &str) -> Result<Self> {
        let mut keychain =
            Self { registry: registry.to_owned(), repository: repository.to_owned(), ..Self::default() };
        for source in sources {
            match AuthFile::read(source) {
                Ok(file) => keychain.files.extend(file),
                Err(error) if matches!(source, CredentialSource::Named(_)) => return Err(error),
                Err(error) => _ = keychain.doubt.get_or_insert(error.to_string()),
            }
        }
        Ok(keychain)
    }

    /// A keychain that knows these and nothing else.
    pub(super) fn of(credentials: Credentials) -> Self {
        Self { given: Some(credentials), ..Self::default() }
    }

    /// The credentials from the first file that knows any, past entries that make no sense and programs that do not
    /// work. Blocks while a program looks for them.
    pub(super) fn find(&self) -> Identity {
        let mut found = Identity { credentials: self.given.clone(), doubt: self.doubt.clone() };
        for file in &self.files {
            // As docker does it: what a program keeps counts more than what the file holds.
            let helper = || {
                file.helper(&self.registry)
                    .map_or(Ok(None), |name| credential_helper::get(name, &self.registry))
            };
            let entry = || file.entry(&self.registry, &self.repository);
            for look in [&helper as &dyn Fn() -> Result<Option<Credentials>>, &entry] {
                if found.credentials.is_some() {
                    return found;
                }
                match look() {
                    Ok(credentials) => found.credentials = credentials,
                    Err(error) => _ = found.doubt.get_or_insert(error.to_string()),
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    fn text(text: &str) -> CredentialSource {
        CredentialSource::Text { name: "TEXT".to_owned(), text: Secret::new(text) }
    }

    /// What is found for `registry/a`, as the header that it becomes.
    fn found(contents: &[&str], registry: &str) -> Option<String> {
        let sources: Vec<_> = contents.iter().map(|content| text(content)).collect();
        let credentials = Keychain::read(&sources, registry, "a").unwrap().find().credentials?;
        let header = credentials.header();
        let Some(encoded) = header.strip_prefix("Basic ") else { return Some(header) };
        Some(String::from_utf8(SECRETS.decode(encoded).unwrap()).unwrap())
    }

    #[test]
    fn the_first_place_that_knows_the_registry_wins() {
        let entry = |user: &str| {
            format!(r#"{{"auths": {{"r.io": {{"auth": "{}"}}}}}}"#, SECRETS.encode(format!("{user}:x")))
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
    fn a_file_is_found_in_a_directory_under_its_usual_names() {
        for name in ["config.json", ".dockerconfigjson", ".dockercfg", "auth.json"] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(name), r#"{"auths": {"r.io": {"auth": "bWU6eA=="}}}"#).unwrap();
            let sources = [CredentialSource::File(directory.path().to_owned())];
            assert!(Keychain::read(&sources, "r.io", "a").unwrap().find().credentials.is_some(), "{name}");
        }
    }

    #[test]
    fn a_missing_file_is_no_doubt_and_a_broken_one_is_told_without_its_content() {
        let missing = [CredentialSource::File("/does/not/exist/config.json".into())];
        let found = Keychain::read(&missing, "r.io", "a").unwrap().find();
        assert!(found.credentials.is_none() && found.doubt.is_none());
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
                let told = match Keychain::read(&[source], "r.io", "a") {
                    Ok(keychain) => keychain.find().doubt.unwrap(),
                    Err(error) => format!("{error} {error:?} {:?}", error.hint()),
                };
                assert!(told.contains(name.to_str().unwrap()), "{told}");
                assert!(!told.contains("hunter2"), "{told}");
            }
        }
    }

    #[test]
    fn what_is_broken_is_passed_over_unless_it_was_asked_for() {
        let good = r#"{"auths": {"r.io": {"auth": "bWU6eA=="}}}"#;
        let helper = r#"{"credsStore": "volio-test-is-not-there", "auths": {"r.io": {"auth": "bWU6eA=="}}}"#;
        for sources in [vec![text("hunter2"), text(good)], vec![text(helper)]] {
            let found = Keychain::read(&sources, "r.io", "a").unwrap().find();
            assert!(found.credentials.is_some() && found.doubt.is_some(), "{found:?}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, "hunter2").unwrap();
        assert!(Keychain::read(&[CredentialSource::Named(path.clone()), text(good)], "r.io", "a").is_err());
        fs::write(&path, " \n").unwrap();
        let found = Keychain::read(&[CredentialSource::Named(path)], "r.io", "a").unwrap().find();
        assert!(found.credentials.is_none() && found.doubt.is_none(), "{found:?}");
    }

    #[test]
    fn nothing_that_is_secret_can_be_printed() {
        let file = r#"{"auths": {"r.io": {"username": "me", "password": "hunter2"},
            "a.io": {"auth": "aHVudGVyMjpodW50ZXIy", "identitytoken": "hunter2", "registrytoken": "hunter2"}}}"#;
        let keychain = Keychain::read(&[text(file)], "r.io", "a").unwrap();
        let found = keychain.find().credentials.unwrap();
        for secret in ["hunter2", "aHVudGVyMj"] {
            assert!(!format!("{keychain:?} {found:?}").contains(secret), "{keychain:?} {found:?}");
        }
    }
}
