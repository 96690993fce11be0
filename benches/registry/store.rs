//! The blobs and manifests of the registry, and the traffic counters.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Repositories, with the contents of their blobs in files of one directory.
pub struct Store {
    directory: PathBuf,
    uploads: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    inside: Mutex<Inside>,
    marked: Mutex<Inside>,
}

#[derive(Clone, Default)]
struct Inside {
    /// By repository and digest: the upload that brought it.
    blobs: HashMap<(String, String), String>,
    /// By repository and tag or digest.
    manifests: HashMap<(String, String), Manifest>,
}

/// A manifest as it came.
#[derive(Clone)]
pub struct Manifest {
    pub media_type: String,
    pub digest: String,
    pub bytes: Vec<u8>,
}

impl Store {
    pub fn new(directory: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&directory)?;
        let (uploads, received, sent, inside, marked) = Default::default();
        Ok(Self { directory, uploads, received, sent, inside, marked })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn marked(&self) -> MutexGuard<'_, Inside> {
        self.marked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to what passed: bytes received and sent.
    pub fn count(&self, (received, sent): (u64, u64)) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// All that passed: bytes received and sent.
    pub fn traffic(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }

    /// Begins an upload.
    pub fn begin(&self) -> io::Result<String> {
        let upload = self.uploads.fetch_add(1, Ordering::Relaxed).to_string();
        File::create(self.directory.join(&upload))?;
        Ok(upload)
    }

    /// The file of an upload, to append to; `None` when there is no such upload.
    pub fn upload(&self, upload: &str) -> io::Result<Option<File>> {
        if upload.is_empty() || !upload.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(None);
        }
        match OpenOptions::new().append(true).open(self.directory.join(upload)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Forgets an upload.
    pub fn abandon(&self, upload: &str) {
        if matches!(self.upload(upload), Ok(Some(_))) {
            let _ = fs::remove_file(self.directory.join(upload));
        }
    }

    /// Makes a blob of an upload.
    pub fn seal(&self, upload: &str, repository: &str, digest: &str) {
        self.inside().blobs.insert((repository.to_owned(), digest.to_owned()), upload.to_owned());
    }

    /// The file with the content of a blob.
    pub fn blob(&self, repository: &str, digest: &str) -> Option<PathBuf> {
        let key = (repository.to_owned(), digest.to_owned());
        self.inside().blobs.get(&key).map(|upload| self.directory.join(upload))
    }

    /// Takes a manifest, under its digest and, if that is another name, under its tag. Says its digest.
    pub fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: String,
        bytes: Vec<u8>,
    ) -> io::Result<String> {
        let digest = digest_of(&bytes)?;
        let manifest = Manifest { media_type, digest: digest.clone(), bytes };
        let mut inside = self.inside();
        for name in [reference, &digest] {
            inside.manifests.insert((repository.to_owned(), name.to_owned()), manifest.clone());
        }
        Ok(digest)
    }

    /// The manifest with a tag or a digest.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Manifest> {
        self.inside().manifests.get(&(repository.to_owned(), reference.to_owned())).cloned()
    }

    /// Remembers the blobs and manifests of now for [`Self::rewind`].
    pub fn mark(&self) {
        *self.marked() = self.inside().clone();
    }

    /// Forgets all blobs and manifests that came after [`Self::mark`], and has those again that there were then.
    pub fn rewind(&self) -> io::Result<()> {
        let (mut inside, marked) = (self.inside(), self.marked());
        *inside = marked.clone();
        let kept: HashSet<&str> = marked.blobs.values().map(String::as_str).collect();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|upload| kept.contains(upload)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Forgets everything but the counters.
    pub fn clear(&self) -> io::Result<()> {
        *self.marked() = Inside::default();
        self.rewind()
    }
}

/// Computes the digest of a manifest with the program sha256sum, so that this file needs no crate and builds in two seconds.
fn digest_of(bytes: &[u8]) -> io::Result<String> {
    let mut program = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    program.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(bytes))?;
    let output = program.wait_with_output()?;
    let hex = String::from_utf8_lossy(&output.stdout);
    Ok(format!("sha256:{}", hex.split(' ').next().unwrap_or_default()))
}
