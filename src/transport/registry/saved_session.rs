//! Uploads that another process may continue: where each goes on, in a file of its own.
//!
//! The file holds an address at the registry and nothing else. One that leads elsewhere holds a signature, which lets
//! in whoever has it, so it is not written down.

use super::super::ClientOptions;
use crate::disk::lock::FileLock;
use crate::oci::{Digest, Reference};
use reqwest::Url;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

/// The longest address that is read, in bytes.
const LIMIT: u64 = 16 << 10;

/// The memory of one upload; locked, so that nobody else continues the same one.
pub(super) struct SavedSession {
    file: FileLock,
    path: PathBuf,
}

impl SavedSession {
    /// The memory of the upload of a blob. There is none where none is wanted, where another process has it, or
    /// where it cannot be written: an upload that cannot be continued is still an upload.
    pub(super) fn of(options: &ClientOptions, reference: &Reference, digest: &Digest) -> Option<Self> {
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

    /// Where the upload goes on.
    pub(super) fn address(&mut self) -> Option<Url> {
        let mut text = String::new();
        self.file.rewind().ok()?;
        (&*self.file).take(LIMIT).read_to_string(&mut text).ok()?;
        Url::parse(&text).ok()
    }

    /// Remembers where the upload goes on. What cannot be written is not remembered.
    pub(super) fn remember(&mut self, url: Option<&Url>) {
        let text = url.map(Url::as_str).unwrap_or_default();
        let _ = self
            .file
            .rewind()
            .and_then(|()| self.file.set_len(0))
            .and_then(|()| self.file.write_all(text.as_bytes()));
    }

    /// Forgets the upload: it has ended.
    pub(super) fn forget(self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_address_is_remembered_for_its_owner_only_and_for_one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let options = ClientOptions { state: Some(directory.path().to_owned()), ..ClientOptions::default() };
        let reference: Reference = "r.io/a:t".parse().unwrap();
        let open = |content: &[u8]| SavedSession::of(&options, &reference, &Digest::of(content));
        let url = Url::parse("https://r.io/v2/a/blobs/uploads/1?_state=a%2F").unwrap();
        let mut first = open(b"a").unwrap();
        assert_eq!(first.address(), None);
        first.remember(Some(
            &Url::parse("https://r.io/another/and/longer/one/than/that/which/follows").unwrap(),
        ));
        first.remember(Some(&url));
        assert!(open(b"a").is_none());
        assert_eq!(open(b"b").unwrap().address(), None);
        let mode = fs::metadata(&first.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        let mut second = open(b"a").unwrap();
        assert_eq!(second.address(), Some(url));
        second.remember(None);
        assert_eq!(second.address(), None);
        second.forget();
        assert_eq!(open(b"a").unwrap().address(), None);
    }
}
