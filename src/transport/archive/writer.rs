//! An archive that grows blob by blob beside the file that it becomes, and takes that file's place when it is whole.

use super::Archive;
use super::header::{self, BLOCK};
use crate::disk::atomic_file;
use crate::disk::lock::LockFile;
use crate::error::{Error, Kind, Result};
use crate::oci::{Algorithm, Descriptor, Digest, Hasher};
use crate::stream::{Body, Written};
use crate::transport::is_sound;
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

/// What the names of unfinished archives begin with.
const TEMPORARY: &str = ".volio-archive-";
/// How long another writer may take to publish the archive: it copies all that it keeps of the old one.
const LOCK_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How much of a blob is read and written at once.
const AT_ONCE: usize = 256 << 10;

/// Writes one archive; what stands in it already stays.
pub struct ArchiveWriter {
    /// As it was named.
    path: PathBuf,
    /// What is replaced: where the path is a link, the file that it leads to.
    target: PathBuf,
    directory: PathBuf,
    /// The same, open.
    parent: OwnedFd,
    /// The archive as it was when this began, for as long as nothing was published.
    existing: Mutex<Option<Archive>>,
    /// The members that are to be found in `existing` when this is published: somebody was told that they are there.
    relied_on: Mutex<HashSet<String>>,
    /// The archive that comes to be, once something was written.
    draft: Mutex<Option<AtomicFile>>,
    /// What is in the draft. Not in it, because one blob may be on its way while others are asked for.
    members: Mutex<HashMap<String, Stretch>>,
}

/// Where in the draft the content of a member is, and its size.
#[derive(Clone, Copy)]
struct Stretch {
    offset: u64,
    size: u64,
}

/// All that an archive can be made of when it is published.
pub struct View<'a> {
    draft: &'a AtomicFile,
    added: &'a HashMap<String, Stretch>,
    /// The archive that is replaced, and the one that it was when the writer began.
    old: [Option<&'a Archive>; 2],
}

/// How an archive ends when it is published.
pub struct Composed {
    /// The last members: lists of what is in it.
    pub last: Vec<(String, Vec<u8>)>,
    /// Members of the old archive that are not carried over.
    pub left_out: HashSet<String>,
}

impl View<'_> {
    /// The archive that is replaced.
    pub fn old(&self) -> Option<&Archive> {
        self.old[0]
    }

    /// The whole content of a small member, be it new or old.
    ///
    /// # Errors
    /// As [`Archive::read`].
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        if let Some(Stretch { offset, size }) = self.added.get(name).filter(|found| found.size <= limit) {
            let mut bytes = vec![0; usize::try_from(*size).unwrap_or_default()];
            self.draft
                .file
                .file()
                .read_exact_at(&mut bytes, *offset)
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

/// An archive without its end.
struct AtomicFile {
    file: atomic_file::AtomicFile,
    /// Where the next header goes.
    end: u64,
}

impl ArchiveWriter {
    /// A writer for this file, which may exist; `fits` fails when what it holds is another kind of archive.
    ///
    /// # Errors
    /// [`NotFound`](crate::error::Kind::NotFound) when there is no such directory,
    /// [`Refused`](crate::error::Kind::Refused) when the file is no archive.
    pub fn create(path: &Path, fits: impl FnOnce(&Archive) -> Result<()>) -> Result<Self> {
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
        let parent = File::open(&directory)
            .map_err(|error| Error::io(format!("cannot open {}", directory.display()), error))?;
        let existing = open_if_there(path).map_err(|error| match error.kind() {
            Kind::Integrity => {
                Error::refused(format!("{} is no archive that can be added to", path.display()))
                    .with_source(error)
                    .with_hint("name another file, or remove this one")
            }
            _ => error,
        })?;
        existing.as_ref().map_or(Ok(()), fits)?;
        Ok(Self {
            path: path.to_owned(),
            target,
            directory,
            parent: parent.into(),
            existing: Mutex::new(existing),
            relied_on: Mutex::default(),
            draft: Mutex::default(),
            members: Mutex::default(),
        })
    }

    /// Returns `true` if there is a member of this name with this content.
    pub fn contains(&self, name: &str, blob: &Descriptor) -> Result<bool> {
        if lock(&self.members).get(name).is_some_and(|found| found.size == blob.size) {
            return Ok(true);
        }
        let found = match lock(&self.existing).as_ref() {
            Some(existing) => existing.find(name)?.filter(|found| found.len() == blob.size),
            None => None,
        };
        // A damaged one is not there: the right bytes will replace it.
        let found = found.map_or(Ok(false), |found| is_sound(found.unverified(), blob))?;
        if found {
            lock(&self.relied_on).insert(name.to_owned());
        }
        Ok(found)
    }

    /// Takes in a blob under the name that its digest gives it.
    ///
    /// One blob at a time goes straight into the archive; one that comes meanwhile waits in a nameless file, so that
    /// nobody who sends it is kept waiting.
    pub fn add(&self, mut body: Body, name: impl Fn(&Digest) -> String) -> Result<Written> {
        let algorithm = body.expected().map_or(Algorithm::Sha256, |expected| expected.digest.algorithm());
        let room = header::encode(&name(&example(algorithm)), 0)?.len() as u64;
        match self.draft.try_lock() {
            Ok(draft) => self.append(draft, body, room, name),
            Err(TryLockError::Poisoned(draft)) => self.append(draft.into_inner(), body, room, name),
            Err(TryLockError::WouldBlock) => {
                let cannot = |error| self.cannot("spool a blob beside", error);
                let mut spool = tempfile::tempfile_in(&self.directory).map_err(cannot)?;
                copy(&mut body, &spool).map_err(cannot)?;
                let written = body.finish()?;
                spool.rewind().map_err(cannot)?;
                self.append(lock(&self.draft), Spooled { file: spool, written }, room, name)
            }
        }
    }

    /// Writes a blob behind what is there, and its header, which says how long it is, before it.
    fn append(
        &self,
        mut draft: MutexGuard<'_, Option<AtomicFile>>,
        content: impl Content,
        room: u64,
        name: impl Fn(&Digest) -> String,
    ) -> Result<Written> {
        let draft = self.begun(&mut draft)?;
        let entered = draft.write(content, room).and_then(|written| {
            let name = name(&written.digest);
            let is_known = lock(&self.members).contains_key(&name);
            match is_known {
                true => draft.forget()?,
                false => {
                    let offset = draft.end + room;
                    draft.seal(&name, written.size)?;
                    // Not before: a member without its header is none.
                    lock(&self.members).insert(name, Stretch { offset, size: written.size });
                }
            }
            Ok(written)
        });
        entered.map_err(|error| {
            // The next blob is written over it; until then it is behind the end and does no harm.
            let _ = draft.forget();
            self.cannot("write a blob to", error)
        })
    }

    /// The draft, begun when it was not.
    fn begun<'a>(&self, draft: &'a mut Option<AtomicFile>) -> Result<&'a mut AtomicFile> {
        match draft {
            Some(draft) => Ok(draft),
            none => {
                atomic_file::sweep(self.parent.as_fd(), TEMPORARY);
                let file = atomic_file::AtomicFile::begin(self.parent.as_fd(), TEMPORARY, 0o666);
                let cannot =
                    |error| Error::io(format!("cannot create a file in {}", self.directory.display()), error);
                Ok(none.insert(AtomicFile { file: file.map_err(cannot)?, end: 0 }))
            }
        }
    }

    /// Keeps other writers of this archive waiting, by a file that no other user can lock.
    fn lock(&self, name: &OsStr) -> Result<LockFile> {
        // Two archives whose names differ at the end of very long ones may share it.
        let name = &name.as_bytes()[..name.len().min(200)];
        let file = OsString::from_vec([b".", name, b".volio-lock"].concat());
        LockFile::take(self.parent.as_fd(), &self.directory.join(file), LOCK_TIMEOUT)
    }

    /// Puts the archive in its place, with all that the old one has and this one has not, but for what `compose` leaves
    /// out. It also makes the last members.
    ///
    /// # Errors
    /// Then the old archive stays as it was, and what was added since is gone.
    pub fn publish(&self, compose: impl FnOnce(&View<'_>) -> Result<Composed>) -> Result<()> {
        let mut slot = lock(&self.draft);
        self.begun(&mut slot)?;
        let Some(mut draft) = slot.take() else { return Ok(()) };
        let added = std::mem::take(&mut *lock(&self.members));
        let relied_on = std::mem::take(&mut *lock(&self.relied_on));

        // It has a name since it was opened.
        let name = self.target.file_name().unwrap_or_default();
        let _lock = self.lock(name)?;
        // Another writer may have been here since.
        let current = open_if_there(&self.target)?;
        let existing = lock(&self.existing).take();
        let old = [current.as_ref(), existing.as_ref()];
        let Composed { last, left_out } = compose(&View { draft: &draft, added: &added, old })?;
        let cannot = |error: io::Error| self.cannot("write", error);
        let is_over = |name: &str| left_out.contains(name) || last.iter().any(|(other, _)| other == name);
        let mut present: HashSet<String> = added.into_keys().collect();
        if let Some(current) = &current {
            draft.carry_over(current, |name| !present.contains(name) && !is_over(name)).map_err(cannot)?;
            present.extend(relied_on.iter().filter(|name| current.has(name)).cloned());
        }
        if let Some(existing) = &existing {
            let lost = |name: &str| relied_on.contains(name) && !present.contains(name) && !is_over(name);
            draft.carry_over(existing, lost).map_err(cannot)?;
        }
        for (name, bytes) in &last {
            draft.put(name, bytes).map_err(cannot)?;
        }
        draft.close().map_err(cannot)?;
        if let Ok(found) = fs::symlink_metadata(&self.target)
            && found.is_file()
        {
            draft.file.file().set_permissions(found.permissions()).map_err(cannot)?;
        }
        draft.file.publish(self.parent.as_fd(), name).map_err(cannot)?;
        *lock(&self.existing) = open_if_there(&self.target)?;
        Ok(())
    }

    /// The file that this becomes, as it was named.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory in which it grows.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn cannot(&self, what: &str, error: io::Error) -> Error {
        Error::io(format!("cannot {what} {}", self.path.display()), error)
    }
}

impl AtomicFile {
    /// Writes content behind the room for its header, and says what it was.
    fn write(&mut self, mut content: impl Content, room: u64) -> io::Result<Written> {
        let mut file = self.file.file();
        file.seek(SeekFrom::Start(self.end + room))?;
        copy(&mut content, file)?;
        Ok(content.finish()?)
    }

    /// Gives what was written last its header.
    fn seal(&mut self, name: &str, size: u64) -> io::Result<()> {
        let header = header::encode(name, size)?;
        let file = self.file.file();
        file.write_all_at(&header, self.end)?;
        self.end = (self.end + header.len() as u64 + size).next_multiple_of(BLOCK as u64);
        file.set_len(self.end)
    }

    /// Takes back what was written last.
    fn forget(&mut self) -> io::Result<()> {
        self.file.file().set_len(self.end)
    }

    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let size = bytes.len() as u64;
        let room = header::encode(name, size)?.len() as u64;
        self.file.file().write_all_at(bytes, self.end + room)?;
        self.seal(name, size)
    }

    /// Copies the members that are wanted as they stand in the other archive, headers and all. The kernel does it, and
    /// where the file system can share blocks, nothing is copied.
    fn carry_over(&mut self, from: &Archive, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        let mut source: &File = &from.file;
        let mut target: &File = self.file.file();
        let counts = from.members.iter().enumerate().filter(|(at, member)| from.counts(*at, member));
        for (_, member) in counts.filter(|(_, member)| wanted(&member.name)) {
            let content_end = member.offset + member.size;
            let end = content_end.next_multiple_of(BLOCK as u64);
            source.seek(SeekFrom::Start(member.start))?;
            target.seek(SeekFrom::Start(self.end))?;
            let copied = io::copy(&mut source.take(end - member.start), &mut target)?;
            if copied < content_end - member.start {
                return Err(from.damaged("it was cut while it was copied").into());
            }
            self.end += end - member.start;
            // The last block of an archive without its closing ones may be short.
            target.set_len(self.end)?;
        }
        Ok(())
    }

    /// Ends the archive with two blocks of zeros.
    fn close(&mut self) -> io::Result<()> {
        self.file.file().set_len(self.end + 2 * BLOCK as u64)
    }
}

/// Bytes that know at their end what they were.
trait Content: Read {
    fn finish(self) -> Result<Written>;
}

impl Content for Body {
    fn finish(self) -> Result<Written> {
        self.finish()
    }
}

/// A blob that waited in a file.
struct Spooled {
    file: File,
    written: Written,
}

impl Content for Spooled {
    fn finish(self) -> Result<Written> {
        Ok(self.written)
    }
}

impl Read for Spooled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

/// Copies in large pieces: `io::copy` alone takes 8 KiB at a time.
fn copy(from: &mut impl Read, to: &File) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(AT_ONCE, to);
    io::copy(from, &mut to)?;
    to.flush()
}

/// The archive at this path; none where there is no file or an empty one, as `mktemp` makes it.
fn open_if_there(path: &Path) -> Result<Option<Archive>> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() && found.len() == 0 => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => Archive::open(path).map(Some),
    }
}

/// Some digest of this algorithm: all of them are equally long.
fn example(algorithm: Algorithm) -> Digest {
    Hasher::new(algorithm).finish()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic can leave behind is checked again by those who read it: digests and sizes.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
