//! Upload sessions that another process can resume, each in a separate file.
//!
//! A file contains only the URL of the session at the registry. A URL on another host is not saved, because it contains a
//! signature, which gives access.

use super::super::ClientOptions;
use crate::disk::lock::FileLock;
use crate::oci::{Digest, Reference};
use reqwest::Url;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

/// The maximum length of a URL in bytes.
const URL_LIMIT: u64 = 16 << 10;

/// The saved session of one upload. It is locked, so that no other process resumes it.
pub(super) struct SavedSession {
    file: FileLock,
    path: PathBuf,
}

impl SavedSession {
    /// Opens and locks the saved session of a blob's upload. Returns `None` if sessions are not saved, if another
    /// process has the lock, or if the file cannot be written: the upload is possible without it.
    pub(super) fn open(options: &ClientOptions, reference: &Reference, digest: &Digest) -> Option<Self> {
        let directory = options.state.as_ref()?.join("uploads");
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).ok()?;
        let name = Digest::of(format!("{}@{digest}", reference.name()).as_bytes());
        let path = directory.join(name.hex());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .ok()?;
        let file = FileLock::try_exclusive(file).ok().filter(FileLock::is_held)?;
        Some(Self { file, path })
    }

    /// Returns the saved URL.
    pub(super) fn url(&mut self) -> Option<Url> {
        let mut text = String::new();
        self.file.rewind().ok()?;
        (&*self.file).take(URL_LIMIT).read_to_string(&mut text).ok()?;
        Url::parse(&text).ok()
    }

    /// Saves the URL of the next request; errors are ignored. `None` clears it.
    pub(super) fn save(&mut self, url: Option<&Url>) {
        let text = url.map(Url::as_str).unwrap_or_default();
        let _ = self
            .file
            .rewind()
            .and_then(|()| self.file.set_len(0))
            .and_then(|()| self.file.write_all(text.as_bytes()));
    }

    /// Deletes the file after the end of the upload.
    pub(super) fn delete(self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_session_is_saved_for_its_owner_and_for_one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let options = ClientOptions { state: Some(directory.path().to_owned()), ..ClientOptions::default() };
        let reference: Reference = "r.io/a:t".parse().unwrap();
        let open = |content: &[u8]| SavedSession::open(&options, &reference, &Digest::of(content));
        let url = Url::parse("https://r.io/v2/a/blobs/uploads/1?_state=a%2F").unwrap();
        let mut first = open(b"a").unwrap();
        assert_eq!(first.url(), None);
        first.save(Some(&Url::parse("https://r.io/another/and/longer/one/than/that/which/follows").unwrap()));
        first.save(Some(&url));
        assert!(open(b"a").is_none());
        assert_eq!(open(b"b").unwrap().url(), None);
        let mode = fs::metadata(&first.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        let mut second = open(b"a").unwrap();
        assert_eq!(second.url(), Some(url));
        second.save(None);
        assert_eq!(second.url(), None);
        second.delete();
        assert_eq!(open(b"a").unwrap().url(), None);
    }
}
