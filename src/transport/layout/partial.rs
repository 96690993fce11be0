//! Blobs that came in part: what is there is not fetched again, not even by another process.
//!
//! Such a file is called after its blob, and locked by whoever fills it. It stays when the network fails or the
//! process dies, and is swept away when its blob has come in another way, or when nobody has continued it for a day and
//! an image gets or loses its name. What it holds is believed no more than what comes from outside: it is hashed from its
//! first byte.

use super::Layout;
use super::place::Missing;
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

/// What their names begin with, before the digest. Not what other drafts begin with: those nobody can continue.
const PARTIAL: &str = ".volio.partial-";
/// Blobs below this size are fetched again, in bytes.
const WORTH_KEEPING: u64 = 1 << 20;
/// Who has not come back after this time will not: a job that is run every night has been run again.
const LOCK_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// A blob that is not whole yet.
pub(super) struct Partial {
    file: FileLock,
    name: CString,
    path: PathBuf,
}

fn partial_name(digest: &Digest) -> CString {
    // No digest has a zero byte.
    CString::new(format!("{PARTIAL}{}-{}", digest.algorithm().name(), digest.hex())).unwrap_or_default()
}

/// The blob of which this file is a part, by its path.
fn blob_of(name: &OsStr, layout: &Path) -> Option<PathBuf> {
    let (algorithm, hex) = name.to_str()?.strip_prefix(PARTIAL)?.split_once('-')?;
    Some(layout.join("blobs").join(algorithm).join(hex))
}

impl Layout {
    /// Removes parts of blobs that are there by now. Needs the lock.
    pub(super) fn sweep_partials(&self) {
        self.sweep(|blob, _| blob.exists());
    }

    /// Removes parts of blobs that nobody has continued for long, counted from when this file was written: the clock is
    /// that of the file system, which may be another machine's. Needs the lock.
    pub(super) fn sweep_forgotten_partials(&self, written_now: &Path) {
        let Ok(now) = fs::metadata(written_now).and_then(|found| found.modified()) else { return };
        let is_old = |then: SystemTime| now.duration_since(then).is_ok_and(|age| age > LOCK_TIMEOUT);
        self.sweep(|_, part| part.metadata().and_then(|found| found.modified()).is_ok_and(is_old));
    }

    /// Removes those parts that nobody holds and that are `over`, with the path of the blob asked for.
    fn sweep(&self, over: impl Fn(&Path, &File) -> bool) {
        let Ok(place) = self.opened() else { return };
        for name in names_in(place.root()).unwrap_or_default() {
            if let Some(blob) = blob_of(OsStr::from_bytes(name.to_bytes()), &self.directory)
                && let Some(part) = claim(place.root(), &name)
                && over(&blob, &part)
            {
                // A file that cannot be removed is waste and no harm.
                let _ = unlinkat(place.root(), &name, AtFlags::empty());
            }
        }
    }

    /// Whether this is the name of a part of a blob.
    pub(super) fn is_partial(name: &OsStr) -> bool {
        name.as_encoded_bytes().starts_with(PARTIAL.as_bytes())
    }

    /// What is there of a blob, or room for it; `None` where it is not worth it, or somebody else is at it.
    pub(super) fn partial(&self, body: &Body) -> Result<Option<Partial>> {
        let Some(Written { digest, size }) = body.expected().filter(|_| body.comes_again()) else {
            return Ok(None);
        };
        if *size < WORTH_KEEPING {
            return Ok(None);
        }
        let name = partial_name(digest);
        let path = self.partial_path(digest);
        let root = self.changing()?.root();
        let _lock = self.lock()?;
        // Whatever stands there already is claimed, or left alone: whoever made the layout may have put a link there.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match openat(root, &name, flags, Mode::from_raw_mode(0o666)).map(drop) {
            Err(errno) if errno != Errno::EXIST => Err(self.cannot("write", &path, errno.into())),
            made => match claim(root, &name) {
                Some(file) => Ok(Some(Partial { file, name, path })),
                None => {
                    // Without locks nobody could tell whether somebody fills it.
                    if made.is_ok() {
                        let _ = unlinkat(root, &name, AtFlags::empty());
                    }
                    Ok(None)
                }
            },
        }
    }

    fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(OsStr::from_bytes(partial_name(digest).to_bytes()))
    }

    /// Takes in the rest of a blob.
    pub(super) fn complete(&self, mut partial: Partial, mut body: Body) -> Result<Written> {
        let place = self.changing()?;
        let written = match partial.fill(&mut body).and_then(|()| body.finish()) {
            Ok(written) => written,
            Err(error) => {
                // Only what a better network would complete is kept: neither a lie, nor what fills up a disk.
                if error.kind() == Kind::Integrity || error.retry_after().is_none() {
                    let _ = unlinkat(place.root(), &partial.name, AtFlags::empty());
                }
                return Err(error);
            }
        };
        let name = self.blob(&written.digest);
        partial.file.sync_all().map_err(|error| self.cannot("write", &partial.path, error))?;
        let directory = place.blobs_of(written.digest.algorithm().name(), Missing::Make)?;
        // Under the lock, so that nobody opens the file as a part, and locks it as the blob that it is by then.
        let _lock = self.lock()?;
        let publish = || {
            renameat(place.root(), &partial.name, &directory, written.digest.hex())?;
            sync(directory.as_fd())
        };
        publish().map_err(|error| self.cannot("write", &name, error))?;
        Ok(written)
    }
}

impl Partial {
    fn fill(&mut self, body: &mut Body) -> Result<()> {
        let cannot = |error: io::Error| Error::io(format!("cannot write {}", self.path.display()), error);
        let mut file = &*self.file;
        let here = body.begin_with(file)?;
        // What stands behind it was not hashed.
        file.set_len(here).map_err(cannot)?;
        file.seek(SeekFrom::Start(here)).map_err(cannot)?;
        io::copy(body, &mut file).map(drop).map_err(cannot)
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
            Err(Error::failed("broken").with_retry_after(Default::default()).into())
        }
    }

    /// A blob of which only the first half comes.
    fn half_of(bytes: &[u8]) -> (Body, Descriptor) {
        let (descriptor, half) = (Descriptor::of("x", bytes), bytes[..bytes.len() / 2].to_vec());
        let half_again = half.clone();
        let again = move |offset: u64| -> Result<Box<dyn Read + Send>> {
            Ok(Box::new(Cursor::new(half_again[offset as usize..].to_vec()).chain(Broken)))
        };
        let body = Unverified::new(Cursor::new(half).chain(Broken)).reopenable(again);
        (body.verify(&descriptor), descriptor)
    }

    /// The same blob from a place where only its second half can be read.
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
    fn a_link_that_somebody_put_in_the_place_of_a_part_is_not_written_through() {
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
    fn a_part_that_nobody_continues_for_a_day_is_swept_and_a_younger_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let part = |age: u64| {
            let path = directory.path().join(format!("{PARTIAL}sha256-{age:064}"));
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
        assert!(old.exists(), "whoever comes back may want to go on");
        let document = crate::oci::Document::new(crate::oci::media_type::MANIFEST, b"{}".to_vec());
        layout.put_manifest(&document).unwrap();
        layout.commit(&document).unwrap();
        assert_eq!([&old, &held, &young].map(|path| path.exists()), [false, true, true]);
        drop(_held);
        layout.remove(false).unwrap();
        assert_eq!([&old, &held, &young].map(|path| path.exists()), [false, false, true]);
    }

    #[test]
    fn many_who_fetch_the_same_blob_at_once_all_have_it() {
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
