//! The private directory of a target that is followed, `.volio.watch`: a lock, a note, and versions that nobody may see yet,
//! or any more.
//!
//! Everything in it is volio's own, because no other user can have created it. So what a killed run has left there needs
//! no other proof.

use super::note::Note;
use crate::disk::atomic_file::{AtomicFile, sweep};
use crate::disk::directory::{FileId, names_in};
use crate::disk::lock::FileLock;
use crate::disk::remove::{self, RemovalError, RemovalRules, Removed};
use crate::error::{Error, Result};
use crate::stream::CancelToken;
use crate::tree::WATCH_DIRECTORY;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, fchmod, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file with the note.
const NOTE: &str = "note.json";
/// The prefix of that file while it is written.
const NEW_NOTE: &str = ".note-";
/// The most bytes of a note.
const MAX_NOTE: u64 = 64 << 10;
/// The wait for another run to end: that of a container which is being replaced, for example.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval at which a lock is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// The open private directory of a target, which is locked.
pub(super) struct Workspace {
    target: PathBuf,
    root: OwnedFd,
    own: FileLock,
}

impl Workspace {
    /// Opens the private directory of a target, and creates both if they do not exist. Waits for a moment for another run.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when another run follows a tag there, or something else has the name of
    /// the private directory; otherwise those of the operating system.
    pub fn open(target: &Path, cancel: &CancelToken) -> Result<Self> {
        let shown = target.display();
        let created = DirBuilder::new().recursive(true).mode(0o755).create(target);
        created.map_err(|error| Error::io(format!("cannot make the directory {shown}"), error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, target, flags, Mode::empty())
            .map_err(|errno| Error::io(format!("cannot open {shown}"), errno))?;
        let own = open_own(root.as_fd(), target)?;
        let path = target.join(WATCH_DIRECTORY);
        for _ in 0..LOCK_TIMEOUT.as_millis() / LOCK_INTERVAL.as_millis() {
            let again = own
                .try_clone()
                .map_err(|error| Error::io(format!("cannot open {}", path.display()), error))?;
            match FileLock::try_exclusive(again.into()) {
                Ok(own) => return Ok(Self { target: target.to_owned(), root, own }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => cancel.sleep(LOCK_INTERVAL)?,
                Err(error) => return Err(Error::io(format!("cannot lock {}", path.display()), error)),
            }
        }
        Err(Error::refused(format!("another volio follows a tag in {shown}"))
            .with_hint("end it, or give each its own directory"))
    }

    /// Returns whether the path of the target still leads to this directory. It does not after a file system was mounted
    /// again, or a file server has forgotten the directory.
    pub fn is_current(&self) -> bool {
        let held = fstat(&*self.own).ok().map(|stat| FileId::from(&stat));
        held.is_some() && held == FileId::of(&self.path(""))
    }

    /// The path of the target.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The open target.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The open private directory.
    pub fn own(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }

    /// Returns the path of an entry of the private directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.target.join(WATCH_DIRECTORY).join(name)
    }

    /// Reads the note; an empty one if there is none that can be read.
    pub fn note(&self) -> Note {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat(self.own(), NOTE, flags, Mode::empty()) else { return Note::default() };
        let mut text = Vec::new();
        match File::from(file).take(MAX_NOTE).read_to_end(&mut text) {
            Ok(_) => serde_json::from_slice(&text).unwrap_or_default(),
            Err(_) => Note::default(),
        }
    }

    /// Replaces the note, which survives a power cut from then on.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn write_note(&self, note: &Note) -> Result<()> {
        let write = || -> io::Result<()> {
            sweep(self.own(), NEW_NOTE);
            let file = AtomicFile::begin(self.own(), NEW_NOTE, 0o600)?;
            file.file().write_all(&serde_json::to_vec(note)?)?;
            file.publish(self.own(), OsStr::new(NOTE))
        };
        write().map_err(|error| Error::io(format!("cannot write {}", self.path(NOTE).display()), error))
    }

    /// Removes the entries of the private directory that the function chooses by their names.
    ///
    /// # Errors
    /// Those of the operating system; [`Refused`](crate::error::Kind::Refused) when something is mounted in one of them.
    pub fn remove(&self, is_unneeded: impl Fn(&str) -> bool) -> Result<()> {
        let shown = |path: &[u8]| self.path("").join(OsStr::from_bytes(path)).display().to_string();
        let names =
            names_in(self.own()).map_err(|errno| Error::io(format!("cannot list {}", shown(b"")), errno))?;
        for name in names.iter().filter(|name| name.to_str().is_ok_and(&is_unneeded)) {
            match remove::entry(self.own(), name, &RemovalRules::EVERYTHING) {
                Ok(Removed { mounted: None, .. }) => {}
                Ok(Removed { mounted: Some(path), .. }) => {
                    return Err(Error::refused(format!(
                        "cannot remove {}: something is mounted there",
                        shown(&path)
                    ))
                    .with_hint("unmount it"));
                }
                Err(RemovalError { path, errno }) => {
                    return Err(Error::io(format!("cannot remove {}", shown(&path)), errno));
                }
            }
        }
        Ok(())
    }
}

/// Opens the private directory, and creates it if it does not exist.
fn open_own(root: BorrowedFd<'_>, target: &Path) -> Result<OwnedFd> {
    let path = target.join(WATCH_DIRECTORY);
    let failed = |what: &str, errno: Errno| Error::io(format!("cannot {what} {}", path.display()), errno);
    let is_made = match mkdirat(root, WATCH_DIRECTORY, Mode::RWXU) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(failed("make the directory", errno)),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let own = openat(root, WATCH_DIRECTORY, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::NOTDIR | Errno::LOOP => {
            Error::refused(format!("{} is in the way: it is not a directory", path.display()))
                .with_hint("volio records there what it follows: move it away")
        }
        errno => failed("open", errno),
    })?;
    let stat = fstat(&own).map_err(|errno| failed("open", errno))?;
    if !is_made && stat.st_uid != geteuid().as_raw() {
        return Err(Error::refused(format!("{} belongs to the user {}", path.display(), stat.st_uid)).with_hint(
            "run volio as that user; or remove it, after which versions that it has published are kept for good",
        ));
    }
    if stat.st_mode & 0o077 != 0 {
        // The kubelet gives volumes to a group when it mounts them (`fsGroup`).
        fchmod(&own, Mode::RWXU).map_err(|errno| failed("change the mode of", errno))?;
    }
    Ok(own)
}
