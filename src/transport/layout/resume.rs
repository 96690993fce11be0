//! Resumed downloads: the part of a blob that arrived is not transferred again, not even by another process.
//!
//! The part is in a file with the name of its blob, which is locked by the process that writes it. The file stays when the
//! network fails or the process dies. It is removed when the blob has arrived in another way, or, whenever an image gets or
//! loses its name, if no process has continued it for a day. Its content is not trusted: it is hashed from its first byte.

use super::directory::IfMissing;
use super::{Layout, io_error};
use crate::disk::atomic_file::{claim, sync};
use crate::disk::directory::names_in;
use crate::disk::lock::FileLock;
use crate::error::{Error, Kind, Result};
use crate::oci::Digest;
use crate::stream::{Body, Written};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The prefix of the files' names; the digest follows. It differs from the prefix of temporary files, which are removed
/// when their writers are gone.
const PREFIX: &str = ".volio.partial-";
/// The size in bytes below which blobs are transferred again.
const MIN_SIZE: u64 = 1 << 20;
/// The age at which a part is removed. A job that runs every night has run again by then.
const STALE_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// The part of a blob that has arrived, locked.
pub(super) struct PartialBlob {
    file: FileLock,
    name: CString,
    path: PathBuf,
}

fn partial_name(digest: &Digest) -> CString {
    // No digest contains a zero byte.
    CString::new(format!("{PREFIX}{}-{}", digest.algorithm().name(), digest.hex())).unwrap_or_default()
}

/// Returns the path of the blob that this file is a part of.
fn blob_path_of(name: &OsStr, layout: &Path) -> Option<PathBuf> {
    let (algorithm, hex) = name.to_str()?.strip_prefix(PREFIX)?.split_once('-')?;
    Some(layout.join("blobs").join(algorithm).join(hex))
}

/// Returns whether this is the name of a part of a blob.
pub(super) fn is_partial(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

impl Layout {
    /// Removes parts of blobs that exist. The layout must be locked.
    pub(super) fn remove_completed_partials(&self) {
        self.remove_partials(|blob, _| blob.exists());
    }

    /// Removes parts of blobs that no process has continued for a day. The age is measured against the time of
    /// `written_now`, a file that was just written, because the clock of a file server may differ. The layout must be locked.
    pub(super) fn remove_stale_partials(&self, written_now: &Path) {
        let Ok(now) = fs::metadata(written_now).and_then(|metadata| metadata.modified()) else { return };
        let is_stale = |then: SystemTime| now.duration_since(then).is_ok_and(|age| age > STALE_AGE);
        self.remove_partials(|_, part| {
            part.metadata().and_then(|metadata| metadata.modified()).is_ok_and(is_stale)
        });
    }

    /// Removes the parts that are not locked and that `is_obsolete` selects by the path of the blob and the open part.
    fn remove_partials(&self, is_obsolete: impl Fn(&Path, &File) -> bool) {
        let Ok(directory) = self.open_directory() else { return };
        for name in names_in(directory.root()).unwrap_or_default() {
            if let Some(blob) = blob_path_of(OsStr::from_bytes(name.to_bytes()), &self.path)
                && let Some(part) = claim(directory.root(), &name)
                && is_obsolete(&blob, &part)
            {
                // A file that cannot be removed only takes space.
                let _ = unlinkat(directory.root(), &name, AtFlags::empty());
            }
        }
    }

    /// Opens or creates the part of a blob. Returns `None` if the body cannot be resumed, the blob is small, or another
    /// process is downloading it.
    pub(super) fn partial(&self, body: &Body) -> Result<Option<PartialBlob>> {
        let Some(Written { digest, size }) = body.expected().filter(|_| body.can_rewind()) else {
            return Ok(None);
        };
        if *size < MIN_SIZE {
            return Ok(None);
        }
        let name = partial_name(digest);
        let path = self.partial_path(digest);
        let root = self.existing_directory()?.root();
        let _lock = self.lock()?;
        // `claim` checks what has the name: another user may have put a link there.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let created = match openat(root, &name, flags, Mode::from_raw_mode(0o666)) {
            Ok(_) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(io_error("write", &path, errno.into())),
        };
        if let Some(file) = claim(root, &name) {
            return Ok(Some(PartialBlob { file, name, path }));
        }
        // Without locks, no process could tell whether another one writes to it.
        if created {
            let _ = unlinkat(root, &name, AtFlags::empty());
        }
        Ok(None)
    }

    fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.path.join(OsStr::from_bytes(partial_name(digest).to_bytes()))
    }

    /// Stores a blob after its first part has arrived earlier.
    pub(super) fn complete(&self, mut partial: PartialBlob, mut body: Body) -> Result<Written> {
        let directory = self.existing_directory()?;
        let written = match partial.fill(&mut body).and_then(|()| body.finish()) {
            Ok(written) => written,
            Err(error) => {
                // The part stays only after a network error: neither if it is wrong, nor if the disk is full.
                if error.kind() == Kind::Integrity || error.retry_after().is_none() {
                    let _ = unlinkat(directory.root(), &partial.name, AtFlags::empty());
                }
                return Err(error);
            }
        };
        let blob = self.blob_path(&written.digest);
        partial.file.sync_all().map_err(|error| io_error("write", &partial.path, error))?;
        let blobs = directory.blobs_of(written.digest.algorithm().name(), IfMissing::Create)?;
        // The lock keeps other processes from opening the file as a part, and locking what is the blob by then.
        let _lock = self.lock()?;
        let publish = || {
            renameat(directory.root(), &partial.name, &blobs, written.digest.hex())?;
            sync(blobs.as_fd())
        };
        publish().map_err(|error| io_error("write", &blob, error))?;
        Ok(written)
    }
}

impl PartialBlob {
    fn fill(&mut self, body: &mut Body) -> Result<()> {
        let io_error = |error: io::Error| Error::io(format!("cannot write {}", self.path.display()), error);
        let mut file = &*self.file;
        let hashed = body.prefill(file)?;
        // Bytes after that were not hashed.
        file.set_len(hashed).map_err(io_error)?;
        file.seek(SeekFrom::Start(hashed)).map_err(io_error)?;
        io::copy(body, &mut file).map(drop).map_err(io_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Descriptor;
    use crate::stream::Unverified;
    use crate::transport::{Destination, Removal, Source};
    use std::io::{Cursor, Read};

    /// A connection that fails.
    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(Error::failed("broken").with_retry_after(Default::default()).into())
        }
    }

    /// A blob with a second half that does not arrive.
    fn half_of(bytes: &[u8]) -> (Body, Descriptor) {
        let (descriptor, half) = (Descriptor::of("x", bytes), bytes[..bytes.len() / 2].to_vec());
        let half_again = half.clone();
        let again = move |offset: u64| -> Result<Box<dyn Read + Send>> {
            Ok(Box::new(Cursor::new(half_again[offset as usize..].to_vec()).chain(Broken)))
        };
        let body = Unverified::new(Cursor::new(half).chain(Broken)).reopenable(again);
        (body.verify(&descriptor), descriptor)
    }

    /// The same blob from a source that must not be asked for the first half.
    fn rest_of(bytes: &[u8], descriptor: &Descriptor) -> Body {
        let bytes = bytes.to_vec();
        let again = move |offset: u64| -> Result<Box<dyn Read + Send>> {
            assert!(offset as usize >= bytes.len() / 2, "fetched again from {offset}");
            Ok(Box::new(Cursor::new(bytes[offset as usize..].to_vec())))
        };
        Unverified::new(io::empty()).reopenable(again).verify(descriptor)
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
        // An upload of another blob keeps the part.
        layout().upload(Body::new(&b"data"[..])).unwrap();
        layout().upload(rest_of(&bytes, &descriptor)).unwrap();
        assert!(layout().open(&descriptor).unwrap().verify(&descriptor).drain().is_ok());
        assert!(!layout().partial_path(&descriptor.digest).exists());
    }

    #[test]
    fn a_part_with_wrong_content_is_removed() {
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
    fn a_link_with_the_name_of_a_part_is_not_written_through() {
        let (directory, bytes) = (tempfile::tempdir().unwrap(), bytes());
        let (half, descriptor) = half_of(&bytes);
        let layout = Layout::create(directory.path(), None).unwrap();
        layout.prepare().unwrap();
        let precious = tempfile::NamedTempFile::new().unwrap();
        fs::write(precious.path(), "precious").unwrap();
        std::os::unix::fs::symlink(precious.path(), layout.partial_path(&descriptor.digest)).unwrap();
        assert!(layout.upload(half).is_err());
        layout.upload(Unverified::new(Cursor::new(bytes)).verify(&descriptor)).unwrap();
        assert_eq!(fs::read(precious.path()).unwrap(), b"precious");
        assert!(layout.contains(&descriptor).unwrap());
    }

    #[test]
    fn a_part_that_is_not_continued_for_a_day_is_removed_and_a_younger_one_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let part = |age: u64| {
            let path = directory.path().join(format!("{PREFIX}sha256-{age:064}"));
            let then = SystemTime::now() - Duration::from_secs(age * 60 * 60);
            File::create(&path).unwrap().set_modified(then).unwrap();
            path
        };
        let (old, held, young) = (part(30), part(31), part(20));
        let root = File::open(directory.path()).unwrap();
        let _held =
            claim(root.as_fd(), &CString::new(held.file_name().unwrap().as_bytes()).unwrap()).unwrap();
        let layout = Layout::create(directory.path(), None).unwrap();
        layout.upload(Body::new(&b"data"[..])).unwrap();
        assert!(old.exists(), "an upload of another blob does not remove it");
        let document = crate::oci::Document::new(crate::oci::media_type::MANIFEST, b"{}".to_vec());
        layout.put_manifest(&document).unwrap();
        layout.commit(&document).unwrap();
        assert_eq!([&old, &held, &young].map(|path| path.exists()), [false, true, true]);
        drop(_held);
        layout.remove(false).unwrap();
        assert_eq!([&old, &held, &young].map(|path| path.exists()), [false, false, true]);
    }

    #[test]
    fn concurrent_downloads_of_the_same_blob_all_succeed() {
        let bytes: Vec<u8> = bytes()[..1_100_000].to_vec();
        let descriptor = Descriptor::of("x", &bytes);
        for _ in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let layout = Layout::create(directory.path(), None).unwrap();
                        let again = bytes.clone();
                        let again = move |offset: u64| -> Result<Box<dyn Read + Send>> {
                            Ok(Box::new(Cursor::new(again[offset as usize..].to_vec())))
                        };
                        let body = Unverified::new(Cursor::new(bytes.clone())).reopenable(again);
                        layout.upload(body.verify(&descriptor)).unwrap();
                        assert!(layout.contains(&descriptor).unwrap());
                    });
                }
            });
        }
    }

    #[test]
    fn a_second_download_does_not_wait_for_the_part_and_the_part_is_removed() {
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
