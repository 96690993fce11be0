//! Blobs that came in part: what is there is not fetched again, not even by another process.
//!
//! Such a file is called after its blob, and locked by whoever fills it. It stays when the network fails or the
//! process dies, and is swept away when its blob has come in another way. What it holds is believed no more than what
//! comes from outside: it is hashed from its first byte.

use super::super::draft::open_without_waiting;
use super::Layout;
use crate::error::{Error, Kind, Result};
use crate::oci::Digest;
use crate::stream::{Body, Written};
use rustix::fs::{FlockOperation, flock};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What their names begin with, before the digest. Not what other drafts begin with: those nobody can continue.
const PARTIAL: &str = ".volio.partial-";
/// Blobs below this size are fetched again, in bytes.
const WORTH_KEEPING: u64 = 1 << 20;

/// A blob that is not whole yet.
pub(super) struct Partial {
    file: File,
    path: PathBuf,
}

/// The blob of which this file is a part, by its path.
fn blob_of(name: &OsStr, layout: &Path) -> Option<PathBuf> {
    let (algorithm, hex) = name.to_str()?.strip_prefix(PARTIAL)?.split_once('-')?;
    Some(layout.join("blobs").join(algorithm).join(hex))
}

impl Layout {
    /// Removes parts of blobs that are there by now. Needs the lock.
    pub(super) fn sweep_partials(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            if blob_of(&entry.file_name(), &self.directory).is_some_and(|blob| blob.exists())
                && let Ok(file) = open_without_waiting(&entry.path())
                && flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
            {
                // A file that cannot be removed is waste and no harm.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// What is there of a blob, or room for it; `None` where it is not worth it, or somebody else is at it.
    pub(super) fn partial(&self, body: &Body) -> Result<Option<Partial>> {
        let Some(Written { digest, size }) = body.expected().filter(|_| body.comes_again()) else {
            return Ok(None);
        };
        if *size < WORTH_KEEPING {
            return Ok(None);
        }
        let path = self.partial_path(digest);
        let _lock = self.drafts().lock()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| self.cannot("write", &path, error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Partial { file, path })),
            Err(_) => Ok(None),
        }
    }

    fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(format!("{PARTIAL}{}-{}", digest.algorithm().name(), digest.hex()))
    }

    /// Takes in the rest of a blob.
    pub(super) fn complete(&self, mut partial: Partial, mut body: Body) -> Result<Written> {
        let written = match partial.fill(&mut body).and_then(|()| body.finish()) {
            Ok(written) => written,
            Err(error) => {
                // Only what a better network would complete is kept: neither a lie, nor what fills up a disk.
                if error.kind() == Kind::Integrity || error.again().is_none() {
                    let _ = fs::remove_file(&partial.path);
                }
                return Err(error);
            }
        };
        let name = self.blob(&written.digest);
        let publish = || {
            partial.file.sync_all()?;
            fs::rename(&partial.path, &name)?;
            File::open(name.parent().unwrap_or(&self.directory))?.sync_all()
        };
        publish().map_err(|error| self.cannot("write", &name, error))?;
        Ok(written)
    }
}

impl Partial {
    fn fill(&mut self, body: &mut Body) -> Result<()> {
        let cannot = |error: io::Error| Error::io(format!("cannot write {}", self.path.display()), error);
        let here = body.begin_with(&self.file)?;
        // What stands behind it was not hashed.
        self.file.set_len(here).map_err(cannot)?;
        (&self.file).seek(SeekFrom::Start(here)).map_err(cannot)?;
        io::copy(body, &mut &self.file).map(drop).map_err(cannot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Descriptor;
    use crate::stream::Unverified;
    use crate::transport::{Destination, Source};
    use std::io::{Cursor, Read};

    /// A connection that is no more.
    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(Error::failed("broken").again_after(Default::default()).into())
        }
    }

    /// A blob of which only the first half comes.
    fn half_of(bytes: &[u8]) -> (Body, Descriptor) {
        let (descriptor, half) = (Descriptor::of("x", bytes), bytes[..bytes.len() / 2].to_vec());
        let half_again = half.clone();
        let again = move |offset: u64| -> Result<Box<dyn Read + Send>> {
            Ok(Box::new(Cursor::new(half_again[offset as usize..].to_vec()).chain(Broken)))
        };
        let body = Unverified::new(Cursor::new(half).chain(Broken)).again(again);
        (body.verify(&descriptor), descriptor)
    }

    /// The same blob from a place where only its second half can be read.
    fn rest_of(bytes: &[u8], descriptor: &Descriptor) -> Body {
        let bytes = bytes.to_vec();
        let again = move |offset: u64| -> Result<Box<dyn Read + Send>> {
            assert!(offset as usize >= bytes.len() / 2, "fetched again from {offset}");
            Ok(Box::new(Cursor::new(bytes[offset as usize..].to_vec())))
        };
        Unverified::new(io::empty()).again(again).verify(descriptor)
    }

    fn bytes() -> Vec<u8> {
        (0..3_000_000u32).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn the_rest_of_a_blob_completes_it() {
        let (directory, bytes) = (tempfile::tempdir().unwrap(), bytes());
        let (half, descriptor) = half_of(&bytes);
        let layout = || Layout::create(directory.path(), None).unwrap();
        assert!(layout().upload(half).is_err());
        assert!(!layout().contains(&descriptor).unwrap());
        // Another blob comes and goes: the sweep spares the part.
        layout().upload(Body::new(&b"data"[..])).unwrap();
        layout().upload(rest_of(&bytes, &descriptor)).unwrap();
        assert!(layout().open(&descriptor).unwrap().verify(&descriptor).drain().is_ok());
        assert!(!layout().partial_path(&descriptor.digest).exists());
    }

    #[test]
    fn a_part_that_is_wrong_is_thrown_away() {
        let (directory, bytes) = (tempfile::tempdir().unwrap(), bytes());
        let (half, descriptor) = half_of(&bytes);
        let layout = Layout::create(directory.path(), None).unwrap();
        assert!(layout.upload(half).is_err());
        let path = layout.partial_path(&descriptor.digest);
        let mut wrong = fs::read(&path).unwrap();
        wrong[7] ^= 1;
        fs::write(&path, wrong).unwrap();
        assert_eq!(layout.upload(rest_of(&bytes, &descriptor)).unwrap_err().kind(), Kind::Integrity);
        assert!(!path.exists() && !layout.contains(&descriptor).unwrap());
    }

    #[test]
    fn who_comes_second_fetches_for_himself_and_the_part_is_swept() {
        let (directory, bytes) = (tempfile::tempdir().unwrap(), bytes());
        let (half, descriptor) = half_of(&bytes);
        let layout = Layout::create(directory.path(), None).unwrap();
        layout.prepare().unwrap();
        let first = layout.partial(&half).unwrap().unwrap();
        let second = Unverified::new(Cursor::new(bytes)).verify(&descriptor);
        layout.upload(second).unwrap();
        assert!(first.path.exists());
        assert!(layout.partial(&half).unwrap().is_none());
        drop(first);
        layout.prepare().unwrap();
        assert!(!layout.partial_path(&descriptor.digest).exists());
    }
}
