//! Secrets in files, as Docker and Kubernetes mount them: the name of a file is the name of a variable.

use crate::output;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// The directory in which they are mounted.
pub const DIRECTORY: &str = "/run/secrets";
/// The maximum size of a secret in bytes, above the limits of Docker and Kubernetes.
const MAX_SIZE: u64 = 1 << 20;

/// Variables from files.
#[derive(Default)]
pub struct Secrets(BTreeMap<String, OsString>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    /// Reads the files in a directory. Without the directory there are no secrets.
    ///
    /// Directories and names that begin with a dot are skipped, because Kubernetes mounts both. Files with a name that is
    /// not valid for a variable, and files that cannot be read, are skipped with a warning.
    pub fn read(directory: &Path) -> Self {
        let Ok(entries) = fs::read_dir(directory) else { return Self::default() };
        let mut secrets = BTreeMap::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Links are followed: Kubernetes mounts each secret as a link to its current version.
            if name.starts_with('.') || !path.metadata().is_ok_and(|file| file.is_file()) {
                continue;
            }
            if !is_variable(&name) {
                output::warning(&format!(
                    "{} is passed over: no variable can have that name",
                    path.display()
                ));
                continue;
            }
            match content(&path) {
                Ok(content) => drop(secrets.insert(name, content)),
                Err(error) => output::warning(&format!("{} is passed over: {error}", path.display())),
            }
        }
        Self(secrets)
    }

    /// Returns the secret with this name.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str)
    }

    /// Returns all secrets.
    pub fn iter(&self) -> impl Iterator<Item = (OsString, OsString)> {
        self.0.iter().map(|(name, value)| (name.into(), value.clone()))
    }

    #[cfg(test)]
    pub fn with(variables: &[(&str, &str)]) -> Self {
        Self(variables.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect())
    }
}

/// Returns `true` for a valid name of a shell variable.
fn is_variable(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Returns the content of a file without the newlines at its end, as `$(cat FILE)` does.
fn content(path: &Path) -> io::Result<OsString> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    let end = bytes.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
    bytes.truncate(end);
    Ok(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn mounted_secrets_are_read_and_the_other_files_beside_them_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("kubernetes.io/serviceaccount")).unwrap();
        fs::create_dir(at("..2026_11_22")).unwrap();
        symlink("..2026_11_22", at("..data")).unwrap();
        fs::write(at("..data/REGISTRY_PASSWORD"), "hunter2\n\n").unwrap();
        symlink("..data/REGISTRY_PASSWORD", at("REGISTRY_PASSWORD")).unwrap();
        fs::write(at("EMPTY"), "\n").unwrap();
        fs::write(at("INNER"), "a\nb\n").unwrap();
        fs::write(at("my-secret"), "x").unwrap();
        fs::write(at("1st"), "x").unwrap();
        fs::write(at(".hidden"), "x").unwrap();
        symlink("nowhere", at("DANGLING")).unwrap();
        let secrets = Secrets::read(directory.path());
        let all: Vec<_> =
            secrets.0.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(all, [("EMPTY", ""), ("INNER", "a\nb"), ("REGISTRY_PASSWORD", "hunter2")]);
        assert!(Secrets::read(&at("missing")).0.is_empty());
        assert!(!format!("{secrets:?}").contains("hunter2"));
    }
}
