//! Writing an archive. It grows in a temporary file, blob by blob, and replaces the old archive when it is complete.
//!
//! The digest of a blob is known after its last byte, and its header stands before its first byte. So the space for the
//! header is left free, which is possible because the length of the header depends on the length of the name only, and
//! all digests of an algorithm have the same length. The header is written when the blob is complete.

use super::header::{self, BLOCK};
use super::{Section, TarArchive};
use crate::disk::atomic_file::{self, AtomicFile};
use crate::disk::lock::LockFile;
use crate::error::{Error, Kind, Result};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher};
use crate::stream::{Body, Written};
use crate::transport::is_intact;
use rustix::fd::{AsFd, OwnedFd};
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// The prefix of the names of temporary files.
const TEMPORARY_PREFIX: &str = ".volio-archive-";
/// The longest wait for another writer that publishes the archive, which copies all members that it keeps.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The size of the buffer for copying, in bytes. `io::copy` alone takes 8 KiB.
const BUFFER_SIZE: usize = 256 << 10;

/// A writer of one archive. The members of an existing archive are kept.
pub struct ArchiveWriter {
    /// The path as it was given.
    path: PathBuf,
    /// The path of the file that is replaced: the target if `path` is a symbolic link.
    target: PathBuf,
    directory: PathBuf,
    directory_fd: OwnedFd,
    /// The archive when the writer was created; `None` after it was published.
    existing: Mutex<Option<TarArchive>>,
    /// The members of `existing` that `contains` has reported. They must be in the published archive.
    relied_on: Mutex<HashSet<String>>,
    /// The new archive, after the first write.
    growing: Mutex<Option<GrowingArchive>>,
    /// The members of the new archive. They have another lock, so that `contains` does not wait for an upload.
    added: Mutex<HashMap<String, ContentRange>>,
}

/// The content of a member of the growing archive.
#[derive(Clone, Copy)]
struct ContentRange {
    offset: u64,
    size: u64,
}

/// The members that are available to an archive that is published.
pub struct Contents<'a> {
    growing: &'a GrowingArchive,
    added: &'a HashMap<String, ContentRange>,
    /// The archive that is replaced, and the archive when the writer was created.
    old: [Option<&'a TarArchive>; 2],
}

/// The end of an archive that is published.
pub struct Closing {
    /// The last members, with their contents: lists of the images.
    pub last: Vec<(String, Vec<u8>)>,
    /// The members of the old archive that are not kept.
    pub dropped: HashSet<String>,
}

impl Contents<'_> {
    /// Returns the archive that is replaced.
    pub fn old(&self) -> Option<&TarArchive> {
        self.old[0]
    }

    /// Reads a small member, a new or an old one. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// Those of [`TarArchive::read`].
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        if let Some(content) = self.added.get(name).filter(|content| content.size <= limit) {
            let mut bytes = vec![0; usize::try_from(content.size).unwrap_or_default()];
            let file = self.growing.file.file();
            file.read_exact_at(&mut bytes, content.offset)
                .map_err(|error| Error::io(format!("cannot read {name} again"), error))?;
            return Ok(Some(bytes));
        }
        for old in self.old.into_iter().flatten() {
            if let Some(bytes) = old.read(name, limit)? {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// An archive without its closing blocks, in a temporary file.
struct GrowingArchive {
    file: AtomicFile,
    /// The offset of the next header.
    end: u64,
}

impl ArchiveWriter {
    /// Creates a writer for a file, which need not exist. `check` fails if the existing archive is of another kind.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) if the directory does not exist,
    /// [`Refused`](crate::error::Kind::Refused) if the file is not an archive.
    pub fn create(path: &Path, check: impl FnOnce(&TarArchive) -> Result<()>) -> Result<Self> {
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let Some(name) = target.file_name() else {
            return Err(Error::usage(format!("{} is not the name of a file", path.display())));
        };
        let directory = match target.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let target = directory.join(name);
        if !directory.is_dir() {
            return Err(Error::not_found(format!("there is no directory {}", directory.display()))
                .with_hint("make it first"));
        }
        let directory_fd = File::open(&directory)
            .map_err(|error| Error::io(format!("cannot open {}", directory.display()), error))?;
        let existing = open_existing(path).map_err(|error| match error.kind() {
            Kind::Integrity => {
                Error::refused(format!("{} is not an archive that can be added to", path.display()))
                    .with_source(error)
                    .with_hint("name another file, or remove this one")
            }
            _ => error,
        })?;
        existing.as_ref().map_or(Ok(()), check)?;
        Ok(Self {
            path: path.to_owned(),
            target,
            directory,
            directory_fd: directory_fd.into(),
            existing: Mutex::new(existing),
            relied_on: Mutex::default(),
            growing: Mutex::default(),
            added: Mutex::default(),
        })
    }

    /// Calls `read` with the archive that is replaced, if there is one: as it was when the writer was created, or after the
    /// last time that it was published.
    pub fn read_existing<T>(&self, read: impl FnOnce(Option<&TarArchive>) -> Result<T>) -> Result<T> {
        read(lock(&self.existing).as_ref())
    }

    /// Returns whether there is a member with this name and the content of this blob, which is read.
    pub fn contains(&self, name: &str, blob: &Descriptor) -> Result<bool> {
        // A damaged blob counts as missing, so that it is replaced.
        self.find(name, blob, |section| is_intact(section.unverified(), blob))
    }

    /// Returns whether there is a member with this name and the size of this blob.
    pub fn exists(&self, name: &str, blob: &Descriptor) -> Result<bool> {
        self.find(name, blob, |_| Ok(true))
    }

    fn find(
        &self,
        name: &str,
        blob: &Descriptor,
        is_good: impl FnOnce(Section) -> Result<bool>,
    ) -> Result<bool> {
        if lock(&self.added).get(name).is_some_and(|content| content.size == blob.size) {
            return Ok(true);
        }
        let section = match lock(&self.existing).as_ref() {
            Some(existing) => existing.find(name)?.filter(|section| section.len() == blob.size),
            None => None,
        };
        let Some(section) = section else { return Ok(false) };
        let is_good = is_good(section)?;
        if is_good {
            lock(&self.relied_on).insert(name.to_owned());
        }
        Ok(is_good)
    }

    /// Adds a blob under the name that `name` makes of its digest.
    ///
    /// One blob at a time is written to the archive directly. Blobs that are uploaded at the same time are written to
    /// unnamed files first, so that no upload waits for another one.
    pub fn add(&self, mut body: Body, name: impl Fn(&Digest) -> String) -> Result<Written> {
        let algorithm = body.expected().map_or(Algorithm::Sha256, |expected| expected.digest.algorithm());
        let header_len = header::encode(&name(&any_digest(algorithm)), 0)?.len() as u64;
        match self.growing.try_lock() {
            Ok(growing) => self.append(growing, body, header_len, name),
            Err(TryLockError::Poisoned(growing)) => self.append(growing.into_inner(), body, header_len, name),
            Err(TryLockError::WouldBlock) => {
                let io_error = |error| self.io_error("spool a blob beside", error);
                let mut file = tempfile::tempfile_in(&self.directory).map_err(io_error)?;
                copy(&mut body, &file).map_err(io_error)?;
                let written = body.finish()?;
                file.rewind().map_err(io_error)?;
                self.append(lock(&self.growing), SpooledBlob { file, written }, header_len, name)
            }
        }
    }

    /// Appends a blob and writes its header before it.
    fn append(
        &self,
        mut growing: MutexGuard<'_, Option<GrowingArchive>>,
        content: impl BlobContent,
        header_len: u64,
        name: impl Fn(&Digest) -> String,
    ) -> Result<Written> {
        let growing = self.begin(&mut growing)?;
        let appended = growing.write_content(content, header_len).and_then(|written| {
            let name = name(&written.digest);
            let is_known = lock(&self.added).contains_key(&name);
            if is_known {
                growing.discard_content()?;
            } else {
                let offset = growing.end + header_len;
                growing.write_header(&name, written.size)?;
                // The member exists from here on.
                lock(&self.added).insert(name, ContentRange { offset, size: written.size });
            }
            Ok(written)
        });
        appended.map_err(|error| {
            // Content after the end is harmless, and the next blob overwrites it.
            let _ = growing.discard_content();
            self.io_error("write a blob to", error)
        })
    }

    /// Returns the growing archive, which is created if it does not exist.
    fn begin<'a>(&self, growing: &'a mut Option<GrowingArchive>) -> Result<&'a mut GrowingArchive> {
        match growing {
            Some(growing) => Ok(growing),
            none => {
                atomic_file::sweep(self.directory_fd.as_fd(), TEMPORARY_PREFIX);
                let file = AtomicFile::begin(self.directory_fd.as_fd(), TEMPORARY_PREFIX, 0o666).map_err(
                    |error| Error::io(format!("cannot create a file in {}", self.directory.display()), error),
                )?;
                Ok(none.insert(GrowingArchive { file, end: 0 }))
            }
        }
    }

    /// Locks the archive against other writers, by a lock file that other users cannot lock.
    fn lock(&self, name: &OsStr) -> Result<LockFile> {
        // Archives with very long names that differ at their ends share a lock file, which is harmless.
        let name = &name.as_bytes()[..name.len().min(200)];
        let file = OsString::from_vec([b".", name, b".volio-lock"].concat());
        LockFile::take(self.directory_fd.as_fd(), &self.directory.join(file), LOCK_TIMEOUT)
    }

    /// Replaces the old archive with the new one, to which the other members of the old one are copied. `close` decides
    /// which members are not copied, and makes the last members.
    ///
    /// # Errors
    /// Those of reading and writing. The old archive is unchanged then, and the added blobs are lost.
    pub fn publish(&self, close: impl FnOnce(&Contents<'_>) -> Result<Closing>) -> Result<()> {
        let mut slot = lock(&self.growing);
        self.begin(&mut slot)?;
        let Some(mut growing) = slot.take() else { return Ok(()) };
        let added = std::mem::take(&mut *lock(&self.added));
        let relied_on = std::mem::take(&mut *lock(&self.relied_on));

        let name = self.target.file_name().unwrap_or_default();
        let _lock = self.lock(name)?;
        // Another writer may have published an archive since this one was created.
        let current = open_existing(&self.target)?;
        let existing = lock(&self.existing).take();
        let old = [current.as_ref(), existing.as_ref()];
        let Closing { last, dropped } = close(&Contents { growing: &growing, added: &added, old })?;
        let io_error = |error: io::Error| self.io_error("write", error);
        let is_dropped = |name: &str| dropped.contains(name) || last.iter().any(|(other, _)| other == name);
        let mut present: HashSet<String> = added.into_keys().collect();
        if let Some(current) = &current {
            let is_kept = |name: &str| !present.contains(name) && !is_dropped(name);
            growing.copy_members(current, is_kept).map_err(io_error)?;
            present.extend(relied_on.iter().filter(|name| current.has(name)).cloned());
        }
        if let Some(existing) = &existing {
            // The other writer may have dropped members that this one relies on.
            let is_lost =
                |name: &str| relied_on.contains(name) && !present.contains(name) && !is_dropped(name);
            growing.copy_members(existing, is_lost).map_err(io_error)?;
        }
        for (name, content) in &last {
            growing.add_small(name, content).map_err(io_error)?;
        }
        growing.close().map_err(io_error)?;
        if let Ok(metadata) = fs::symlink_metadata(&self.target)
            && metadata.is_file()
        {
            growing.file.file().set_permissions(metadata.permissions()).map_err(io_error)?;
        }
        growing.file.publish(self.directory_fd.as_fd(), name).map_err(io_error)?;
        *lock(&self.existing) = open_existing(&self.target)?;
        Ok(())
    }

    /// Returns the path of the archive, as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory of the archive.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn io_error(&self, what: &str, error: io::Error) -> Error {
        Error::io(format!("cannot {what} {}", self.path.display()), error)
    }
}

impl GrowingArchive {
    /// Writes content after the space for its header.
    fn write_content(&mut self, mut content: impl BlobContent, header_len: u64) -> io::Result<Written> {
        let mut file = self.file.file();
        file.seek(SeekFrom::Start(self.end + header_len))?;
        copy(&mut content, file)?;
        Ok(content.finish()?)
    }

    /// Writes the header of the content that was written last, which makes it a member.
    fn write_header(&mut self, name: &str, size: u64) -> io::Result<()> {
        let header = header::encode(name, size)?;
        let file = self.file.file();
        file.write_all_at(&header, self.end)?;
        self.end = (self.end + header.len() as u64 + size).next_multiple_of(BLOCK as u64);
        file.set_len(self.end)
    }

    /// Discards content without a header.
    fn discard_content(&mut self) -> io::Result<()> {
        self.file.file().set_len(self.end)
    }

    /// Adds a member with content in memory.
    fn add_small(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let size = content.len() as u64;
        let header_len = header::encode(name, size)?.len() as u64;
        self.file.file().write_all_at(content, self.end + header_len)?;
        self.write_header(name, size)
    }

    /// Copies members of another archive with their headers. The kernel copies them, and shares their blocks on file
    /// systems that can do that.
    fn copy_members(&mut self, from: &TarArchive, is_wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        let mut source: &File = &from.file;
        let mut target: &File = self.file.file();
        let current = from.members.iter().enumerate().filter(|(at, member)| from.is_current(*at, member));
        for (_, member) in current.filter(|(_, member)| is_wanted(&member.name)) {
            let content_end = member.offset + member.size;
            let end = content_end.next_multiple_of(BLOCK as u64);
            source.seek(SeekFrom::Start(member.start))?;
            target.seek(SeekFrom::Start(self.end))?;
            let copied = io::copy(&mut source.take(end - member.start), &mut target)?;
            if copied < content_end - member.start {
                return Err(from.damaged("it was cut while it was copied").into());
            }
            self.end += end - member.start;
            // In an archive without closing blocks, the padding of the last member may be missing.
            target.set_len(self.end)?;
        }
        Ok(())
    }

    /// Writes the closing blocks: two blocks of zeros.
    fn close(&mut self) -> io::Result<()> {
        self.file.file().set_len(self.end + 2 * BLOCK as u64)
    }
}

/// The content of a blob, with its digest and its size after the end.
trait BlobContent: Read {
    fn finish(self) -> Result<Written>;
}

impl BlobContent for Body {
    fn finish(self) -> Result<Written> {
        self.finish()
    }
}

/// A blob in an unnamed file.
struct SpooledBlob {
    file: File,
    written: Written,
}

impl BlobContent for SpooledBlob {
    fn finish(self) -> Result<Written> {
        Ok(self.written)
    }
}

impl Read for SpooledBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

fn copy(from: &mut impl Read, to: &File) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(BUFFER_SIZE, to);
    io::copy(from, &mut to)?;
    to.flush()
}

/// Opens the archive with this path. Returns `None` if there is no file, or an empty one as `mktemp` creates it.
fn open_existing(path: &Path) -> Result<Option<TarArchive>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => TarArchive::open(path).map(Some),
    }
}

/// Returns a digest of this algorithm, for its length.
fn any_digest(algorithm: Algorithm) -> Digest {
    Hasher::new(algorithm).finish()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // After a panic, digests and sizes still prove everything that is read.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
