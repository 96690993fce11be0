//! Versions in directories of their own, and a symbolic link to one of them that is replaced atomically.
//!
//! | step | a run that is killed after it leaves |
//! |---|---|
//! | the version is unpacked into `next` in the private directory | a directory that the next run completes, or makes another version |
//! | it is renamed to the name of its digest | a version that the link does not name yet |
//! | a new link is created in the private directory | a link that the next run removes |
//! | the link is renamed over the old one | a version that the note does not have yet; the link itself says so |
//! | old versions are renamed into the private directory | directories that the next run removes |

use super::note::Note;
use super::workspace::Workspace;
use crate::disk::directory::names_in;
use crate::error::{Error, Result};
use crate::oci::Digest;
use crate::tree::{Target, WATCH_DIRECTORY};
use crate::unpack::recorded_digest;
use rustix::fs::{
    AtFlags, FileType, RenameFlags, fsync, readlinkat, renameat, renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::cmp::Reverse;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The directory in the private one in which a version is unpacked.
const NEXT: &str = "next";
/// The link in the private directory that is renamed over the old one.
const NEW_LINK: &str = "link";
/// The prefix of versions that are being removed.
const OLD: &str = "old-";

/// A link, by its name in a target, and the number of old versions that stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    /// The name of the link in the target.
    pub name: OsString,
    /// The number of old versions that are kept for readers that still use them.
    pub keep_previous: usize,
}

/// Returns the name of the directory of a version: the digest, with `-` instead of `:`.
pub fn version_name(digest: &Digest) -> String {
    digest.to_string().replacen(':', "-", 1)
}

/// Returns the digest that a directory is named after.
fn parse_version(name: &[u8]) -> Option<Digest> {
    let name = std::str::from_utf8(name).ok()?;
    let digest: Digest = name.replacen('-', ":", 1).parse().ok()?;
    (version_name(&digest) == name).then_some(digest)
}

impl LinkOptions {
    /// Fails unless the name is that of an entry which can be a link.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage).
    pub fn check(&self) -> Result<()> {
        let name = self.name.as_bytes();
        let is_path = name.is_empty() || name.contains(&b'/') || matches!(name, b"." | b"..");
        if is_path || name.contains(&0) {
            return Err(Error::usage(format!("{:?} is not the name of a link in a directory", self.name))
                .with_hint("give one name without slashes, such as current"));
        }
        if name == WATCH_DIRECTORY.as_bytes() || parse_version(name).is_some() {
            return Err(Error::usage(format!("{:?} is a name that volio uses itself", self.name))
                .with_hint("give another name, such as current"));
        }
        Ok(())
    }
}

/// Returns whether an error was caused by a lack of space on a disk.
fn is_disk_full(error: &Error) -> bool {
    let causes = std::iter::successors(error.cause(), |cause| cause.downcast_ref::<Error>()?.cause());
    let mut kinds = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kinds.any(|kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// The versions in a target, and the link to one of them.
pub(super) struct Versions<'a> {
    pub workspace: &'a Workspace,
    pub options: &'a LinkOptions,
}

impl Versions<'_> {
    /// Returns the version that the link names; `None` if there is no link yet.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when something else than such a link has its name.
    pub fn current(&self) -> Result<Option<Digest>> {
        let link = self.workspace.target().join(&self.options.name);
        let occupied = |what: &str| {
            Err(Error::refused(format!("{} is {what}, and not a link that volio has made", link.display()))
                .with_hint("move it away, or choose another name with --link"))
        };
        match readlinkat(self.workspace.root(), &*self.options.name, Vec::new()) {
            Ok(target) => match parse_version(target.to_bytes()) {
                Some(digest) => Ok(Some(digest)),
                None => occupied("a link to something else"),
            },
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::INVAL) => {
                let stat = statat(self.workspace.root(), &*self.options.name, AtFlags::SYMLINK_NOFOLLOW);
                let is_directory = stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir());
                occupied(if is_directory { "a directory" } else { "a file" })
            }
            Err(errno) => Err(Error::io(format!("cannot read the link {}", link.display()), errno)),
        }
    }

    /// Returns the path of a version.
    pub fn path(&self, version: &Digest) -> PathBuf {
        self.workspace.target().join(version_name(version))
    }

    /// Returns the path at which a version is unpacked.
    pub fn next(&self) -> PathBuf {
        self.workspace.path(NEXT)
    }

    /// Removes the version that is being unpacked if the disk is full, so that programs that write there can go on. After
    /// other errors it stays, to be completed.
    pub fn abandon_next(&self, error: &Error) {
        if is_disk_full(error) {
            // The next run removes it otherwise.
            let _ = self.workspace.remove(|name| name == NEXT);
        }
    }

    /// Returns whether the directory of a version exists.
    pub fn exists(&self, version: &Digest) -> bool {
        statat(self.workspace.root(), version_name(version), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Gives the version that was unpacked its name. It is whole. A directory that has the name is exchanged with it, so that
    /// a link to it names a whole version at every moment.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn place(&self, version: &Digest) -> Result<()> {
        let (own, root, name) = (self.workspace.own(), self.workspace.root(), version_name(version));
        let placed = if self.exists(version) {
            renameat_with(own, NEXT, root, &name, RenameFlags::EXCHANGE)
        } else {
            renameat(own, NEXT, root, &name)
        };
        let placed = placed.and_then(|()| fsync(root));
        placed.map_err(|errno| Error::io(format!("cannot rename {} to {name}", self.next().display()), errno))
    }

    /// Lets the link name a version.
    ///
    /// # Errors
    /// [`Refused`](crate::error::Kind::Refused) when something else has its name; those of the operating system.
    pub fn link(&self, version: &Digest) -> Result<()> {
        if self.current()?.as_ref() == Some(version) {
            return Ok(());
        }
        let (own, root) = (self.workspace.own(), self.workspace.root());
        let set = || {
            match unlinkat(own, NEW_LINK, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            symlinkat(version_name(version), own, NEW_LINK)?;
            renameat(own, NEW_LINK, root, &*self.options.name)?;
            fsync(root)
        };
        let link = self.workspace.target().join(&self.options.name);
        set().map_err(|errno| Error::io(format!("cannot set the link {}", link.display()), errno))
    }

    /// Removes a version that the link does not name.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn remove(&self, version: &Digest) -> Result<()> {
        let (name, old) = (version_name(version), format!("{OLD}{}", version_name(version)));
        // From an earlier attempt.
        self.workspace.remove(|entry| entry == old)?;
        match renameat(self.workspace.root(), &name, self.workspace.own(), &old) {
            Ok(()) => self.workspace.remove(|entry| entry == old),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::io(format!("cannot remove {}", self.path(version).display()), errno)),
        }
    }

    /// Removes what killed runs have left, and the versions that are older than those to be kept. Returns the versions that
    /// could not be removed.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn tidy(&self, note: &Note) -> Result<Vec<Error>> {
        self.workspace.remove(|name| name == NEXT || name == NEW_LINK || name.starts_with(OLD))?;
        let current = self.current()?;
        let target = self.workspace.target();
        let names = names_in(self.workspace.root())
            .map_err(|errno| Error::io(format!("cannot list {}", target.display()), errno))?;
        let mut old: Vec<Digest> = names.iter().filter_map(|name| parse_version(name.to_bytes())).collect();
        old.retain(|version| Some(version) != current.as_ref());
        old.sort_by_cached_key(|version| {
            (note.age(version).unwrap_or(usize::MAX), Reverse(self.changed(version)))
        });
        let unneeded = old.iter().skip(self.options.keep_previous).filter(|version| self.is_ours(version));
        Ok(unneeded.filter_map(|version| self.remove(version).err()).collect())
    }

    /// Returns the time of the last change of the directory of a version.
    fn changed(&self, version: &Digest) -> Option<(i64, u64)> {
        let stat = statat(self.workspace.root(), version_name(version), AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_ctime, stat.st_ctime_nsec as u64))
    }

    /// Returns whether volio has filled the directory of a version, with nothing else in it.
    pub fn is_ours(&self, version: &Digest) -> bool {
        let stat = statat(self.workspace.root(), version_name(version), AtFlags::SYMLINK_NOFOLLOW);
        if !stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir()) {
            return false;
        }
        let state = Target::open(&self.path(version)).ok().flatten().and_then(|target| target.own_state());
        state.is_some_and(|state| {
            state.may_be_removed() && recorded_digest(&state).is_some_and(|digest| digest == *version)
        })
    }
}
