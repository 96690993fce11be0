//! Changes to a file with credentials. Other programs keep their settings in the same file, so everything that is not about
//! the registry keeps its bytes and its order.

use super::auth_file::{is_absent, malformed, resolve_directory};
use super::credential_keys::{is_key_of, key_of};
use super::credentials::BASE64;
use crate::disk::atomic_file;
use crate::disk::lock::{FileLock, LOCK_TIMEOUT};
use crate::error::{Error, Kind, Result};
use crate::transport::Secret;
use base64::Engine as _;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// A JSON object. Its members keep their order and their bytes.
type Members = Vec<(String, Box<RawValue>)>;

/// A file with credentials that is being changed.
pub(super) struct AuthFileEditor {
    path: PathBuf,
    members: Members,
    /// The lock on the file's directory.
    _lock: Option<FileLock>,
}

impl AuthFileEditor {
    /// Reads a file, which need not exist.
    ///
    /// # Errors
    /// When it cannot be read or parsed. Replacing it would lose the settings of other programs.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = follow_links(&resolve_directory(path))?;
        let members = match fs::read(&path) {
            Ok(bytes) if bytes.trim_ascii().is_empty() => Members::new(),
            Ok(bytes) => parse(&bytes).ok_or_else(|| {
                malformed(&path.display().to_string(), "it is not a JSON object, and was left as it is")
            })?,
            Err(error) if is_absent(&error) => Members::new(),
            Err(error) => {
                return Err(Error::io(format!("cannot read the credentials in {}", path.display()), error));
            }
        };
        Ok(Self { path, members, _lock: None })
    }

    /// Locks and reads a file. Other logins of volio wait until the editor is dropped, because they would overwrite the
    /// change.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when the directory cannot be created.
    pub(super) fn open_locked(path: &Path) -> Result<Self> {
        let path = follow_links(&resolve_directory(path))?;
        make_directory(&path)?;
        let directory = directory_of(&path);
        // A directory that cannot be locked does not prevent the login.
        let lock = match File::open(directory) {
            Ok(file) => match FileLock::exclusive(file, directory, LOCK_TIMEOUT) {
                Err(error) if error.kind() == Kind::Refused => return Err(error),
                lock => lock.ok(),
            },
            Err(_) => None,
        };
        Ok(Self { _lock: lock, ..Self::open(&path)? })
    }

    /// Returns the path of the file, with all links followed.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the entry of a registry to a user name and a password, or to the empty entry that Docker writes for a helper.
    pub(super) fn set(&mut self, registry: &str, credentials: Option<(&str, &Secret)>) -> Result<()> {
        let entry = match credentials {
            Some((username, password)) => {
                let auth = BASE64.encode(format!("{username}:{}", password.reveal()));
                format!("{{\n\t\t\t\"auth\": \"{auth}\"\n\t\t}}")
            }
            None => "{}".to_owned(),
        };
        let mut entries = self.entries()?;
        entries.retain(|(key, _)| !is_key_of(key, registry) || key == key_of(registry));
        set_member(&mut entries, key_of(registry), raw(entry)?);
        self.replace(&entries)
    }

    /// Removes the entries of a registry, and returns whether there were any.
    pub(super) fn remove(&mut self, registry: &str) -> Result<bool> {
        let mut entries = self.entries()?;
        let before = entries.len();
        entries.retain(|(key, _)| !is_key_of(key, registry));
        let found = entries.len() < before;
        if found {
            self.replace(&entries)?;
        }
        Ok(found)
    }

    /// Replaces the file atomically.
    pub(super) fn save(&self) -> Result<()> {
        let cannot = |error| cannot_write(&self.path, error);
        make_directory(&self.path)?;
        atomic_file::replace(&self.path, object(&self.members, "").as_bytes(), 0o600).map_err(cannot)
    }

    fn entries(&self) -> Result<Members> {
        let auths = self.members.iter().find(|(key, _)| key == "auths").map(|(_, auths)| auths.get());
        match auths {
            None | Some("null") => Ok(Members::new()),
            Some(auths) => parse(auths.as_bytes()).ok_or_else(|| {
                malformed(
                    &self.path.display().to_string(),
                    "\"auths\" is not an object; the file was left as it is",
                )
            }),
        }
    }

    fn replace(&mut self, entries: &Members) -> Result<()> {
        let auths = raw(object(entries, "\t"))?;
        set_member(&mut self.members, "auths", auths);
        Ok(())
    }
}

fn directory_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}

fn make_directory(file: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory_of(file));
    made.map_err(|error| cannot_write(file, error))
}

fn cannot_write(file: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot write the credentials to {}", file.display()), error)
}

/// Follows links, so that a link to the file stays a link.
fn follow_links(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        match fs::read_link(&path) {
            // Joining an absolute target replaces the whole path.
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) if path.parent() == Some(Path::new("")) => return Ok(Path::new(".").join(path)),
            Err(_) => return Ok(path),
        }
    }
    Err(Error::failed(format!("{} is a link to itself", path.display())))
}

fn set_member(members: &mut Members, key: &str, value: Box<RawValue>) {
    match members.iter_mut().find(|(known, _)| known == key) {
        Some(known) => known.1 = value,
        None => members.push((key.to_owned(), value)),
    }
}

fn raw(text: String) -> Result<Box<RawValue>> {
    RawValue::from_string(text).map_err(|_| Error::failed("cannot write the credentials as JSON"))
}

/// Writes an object in Docker's format: one member per line, indented by tabs. Values keep their bytes.
fn object(members: &Members, indent: &str) -> String {
    let lines: Vec<_> = members
        .iter()
        .map(|(key, value)| format!("{indent}\t{}: {}", serde_json::Value::from(key.as_str()), value.get()))
        .collect();
    if lines.is_empty() { "{}".to_owned() } else { format!("{{\n{}\n{indent}}}", lines.join(",\n")) }
}

fn parse(bytes: &[u8]) -> Option<Members> {
    struct MembersVisitor;
    impl<'de> Visitor<'de> for MembersVisitor {
        type Value = Members;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
            let mut members = Members::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let members = json.deserialize_map(MembersVisitor).ok()?;
    json.end().ok()?;
    Some(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::fs::symlink;

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs::write(&path, content).unwrap();
        (directory, path)
    }

    fn set(path: &Path, registry: &str) {
        let mut editor = AuthFileEditor::open(path).unwrap();
        editor.set(registry, Some(("me", &Secret::new("hunter2")))).unwrap();
        editor.save().unwrap();
    }

    #[test]
    fn settings_of_other_programs_keep_their_bytes() {
        let (_directory, path) = file(
            "{\n  \"z\": {\"big\": 1e999, \"b\":  [1,2]},\n  \"auths\": {\"b.io\": {\"auth\": \"x\", \"email\": \"e\"}, \
             \"https://a.io/v1/\": {}},\n  \"A\": \"\\u00e9\"}",
        );
        set(&path, "a.io");
        let expected = "{\n\t\"z\": {\"big\": 1e999, \"b\":  [1,2]},\n\t\"auths\": {\n\t\t\"b.io\": {\"auth\": \"x\", \
             \"email\": \"e\"},\n\t\t\"a.io\": {\n\t\t\t\"auth\": \"bWU6aHVudGVyMg==\"\n\t\t}\n\t},\n\t\"A\": \"\\u00e9\"\n}";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        set(&path, "a.io");
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_new_file_is_readable_by_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker/config.json");
        set(&path, "docker.io");
        assert!(fs::read_to_string(&path).unwrap().contains("\"https://index.docker.io/v1/\""));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_of_another_user_keeps_its_owner() {
        use std::os::unix::fs::{MetadataExt as _, chown};
        if !rustix::process::geteuid().is_root() {
            return crate::disk::tests::skipped("a login by root for another user, because that takes root");
        }
        let (_directory, path) = file("{}");
        chown(&path, Some(1234), Some(2345)).unwrap();
        set(&path, "r.io");
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (1234, 2345, 0o600));
        assert!(fs::read_to_string(&path).unwrap().contains("r.io"));
    }

    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let (directory, path) = file("{}");
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        symlink("second", &first).unwrap();
        symlink(&path, &second).unwrap();
        set(&first, "r.io");
        assert!(fs::symlink_metadata(&first).unwrap().is_symlink());
        assert!(fs::read_to_string(&path).unwrap().contains("r.io"));
        symlink("loop", directory.path().join("loop")).unwrap();
        assert!(AuthFileEditor::open(&directory.path().join("loop")).is_err());
    }

    #[test]
    fn all_spellings_of_a_registry_are_removed_and_no_other_registry() {
        let (_directory, path) = file(
            r#"{"auths": {"https://r.io/v1/": {}, "r.io": {}, "r.io/team": {}, "r.io:5000": {}, "x.io": null}}"#,
        );
        let mut editor = AuthFileEditor::open(&path).unwrap();
        assert!(editor.remove("r.io").unwrap());
        assert!(!editor.remove("r.io").unwrap());
        let keys: Vec<_> = editor.entries().unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["r.io/team", "r.io:5000", "x.io"]);
    }

    #[test]
    fn a_file_that_cannot_be_parsed_is_not_changed() {
        for content in ["[]", "{\"auths\": 1}", "{} x", "hunter2"] {
            let (_directory, path) = file(content);
            let error =
                AuthFileEditor::open(&path).and_then(|mut editor| editor.set("r.io", None)).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"));
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
