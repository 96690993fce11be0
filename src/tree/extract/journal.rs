//! The journal of an extraction: the paths that it created, so that a later run can remove them, and nothing else.
//!
//! Each file system of a target has a journal in its topmost directory while the target is incomplete. It has the time
//! when it was begun, then the paths below that directory in the order of their creation, each followed by a NUL byte.
//! Each path is one `write`, made before the entry's content: a run that is killed at any moment leaves a journal that
//! lacks at most its last entry. Writes are not collected in memory, because a killed process would take them along;
//! the entries that are missing could then not be distinguished from files of the user. Nothing is synced: after a
//! power cut, entries that are missing in the journal stay where they are.
//!
//! A finished file has an mtime from the image. A later run takes it for a file of this one if the mtime is before the
//! beginning. While one thread writes all files, only the last one can be unfinished. A file that is handed over to another
//! thread gets its identity into the journal, in the same `write` as its path: its inode number and the time of its birth,
//! which no other file has. When the file is finished, the journal gets the identity once more. So a later run
//! knows the unfinished files. It removes such a file if it is the one that was created, and if nobody has changed it: if its
//! ctime, which no program can set, is not more than two seconds after the journal was last written to.
//!
//! These notes are fields of their own that begin with a slash, which no path does: `/+IDENTITY` for a file that was handed over,
//! `/-IDENTITY` when it is finished, and `/=` where a run continues the journal of another one, whose files are not
//! recognised as unfinished any more.

use crate::disk::directory::ensure_owner_access;
use crate::tree::TreePath;
use crate::tree::dir_stack::DirStack;
use crate::tree::target_state::JOURNAL;
use rustix::fd::BorrowedFd;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Statx, StatxFlags, fstat, openat, statat, statx, unlinkat,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec, write};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The seconds after the last write to the journal in which the run may still have changed a file.
const MAX_SILENCE: i64 = 2;

/// An open journal.
pub(super) struct Journal {
    file: File,
    /// Set when a part of a field was written. Nothing is added to it any more.
    is_torn: AtomicBool,
}

/// The identity of a file as the journal has it.
pub(super) struct FileIdentity(String);

/// A file in the journal that is not finished.
pub(super) struct JournaledFile {
    journal: Arc<Journal>,
    identity: FileIdentity,
}

impl Journal {
    /// Begins a journal in a directory, or continues that of an interrupted run. `None` if none can be written: then a later
    /// run removes nothing.
    pub fn begin(directory: BorrowedFd<'_>) -> Option<Self> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(directory, JOURNAL, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).ok()?;
        let stat = fstat(&file).ok().filter(is_plain_file)?;
        match stat.st_size {
            0 => {
                let begun = format!("{}.{:09}\0", stat.st_mtime, stat.st_mtime_nsec);
                write(&file, begun.as_bytes()).ok()?
            }
            _ => write(&file, b"\0/=\0").ok()?,
        };
        Some(Self { file: file.into(), is_torn: AtomicBool::new(false) })
    }

    /// Adds a path. An error means only that the entry will not be removed.
    pub fn add(&self, path: &TreePath) {
        self.append(&[path.as_bytes(), b"\0"].concat());
    }

    /// Adds the path of a file that will be finished later.
    pub fn add_file(self: &Arc<Self>, path: &TreePath, identity: FileIdentity) -> JournaledFile {
        self.append(&[path.as_bytes(), b"\0/+", identity.0.as_bytes(), b"\0"].concat());
        JournaledFile { journal: Arc::clone(self), identity }
    }

    fn append(&self, fields: &[u8]) {
        if self.is_torn.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(1..) = write(&self.file, fields).map(|written| fields.len() - written) {
            self.is_torn.store(true, Ordering::Relaxed);
        }
    }
}

impl JournaledFile {
    /// Notes that the file has its content and its attributes.
    pub fn finish(&self) {
        self.journal.append(&[b"/-", self.identity.0.as_bytes(), b"\0"].concat());
    }
}

/// Returns the identity of an open file; `None` where the file system has no birth times: inode numbers alone are given to
/// other files again.
pub(super) fn identity(file: BorrowedFd<'_>) -> Option<FileIdentity> {
    identity_of(&statx(file, "", AtFlags::EMPTY_PATH, IDENTITY).ok()?)
}

const IDENTITY: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

fn identity_of(status: &Statx) -> Option<FileIdentity> {
    let has_birth = StatxFlags::from_bits_retain(status.stx_mask).contains(IDENTITY);
    let born = status.stx_btime;
    (has_birth && (born.tv_sec, born.tv_nsec) != (0, 0))
        .then(|| FileIdentity(format!("{:x}.{:x}.{:x}", status.stx_ino, born.tv_sec, born.tv_nsec)))
}

fn is_plain_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_nlink == 1
}

/// Removes the journal of a directory.
pub(super) fn remove(directory: BorrowedFd<'_>) {
    let _ = unlinkat(directory, JOURNAL, AtFlags::empty());
}

/// Removes the entries in the journal of a directory, unless they were changed since. A directory that holds something else
/// now stays. Returns the number of removed entries.
///
/// # Errors
/// The path that failed, and the error of the operating system.
pub(super) fn remove_entries(directory: BorrowedFd<'_>) -> Result<u64, (TreePath, Errno)> {
    let at_root = |errno| (TreePath::root(), errno);
    let Some(Recorded { begun, ended, text }) = read(directory) else { return Ok(0) };
    let unfinished = unfinished(&text);
    let root = fcntl_dupfd_cloexec(directory, 0).map_err(at_root)?;
    let device = fstat(&root).map_err(at_root)?.st_dev;
    let mut stack = DirStack::new(root);
    let mut removed = 0;
    // The last entry may not have its times yet.
    let mut is_last = true;
    let mut identity = None;
    for field in text.split(|byte| *byte == 0).rev().filter(|field| !field.is_empty()) {
        if field.starts_with(b"/") {
            identity = field.strip_prefix(b"/+");
            continue;
        }
        let identity = identity.take();
        let Some(path) = TreePath::parse(field) else { continue };
        let proof = match identity {
            Some(identity) if unfinished.contains(identity) => Proof::IdentityOrAge(identity, ended),
            None if is_last => Proof::Path,
            _ => Proof::Age,
        };
        is_last = false;
        let parent = path.parent().unwrap_or_default();
        match stack.goto(&parent).and_then(|()| remove_entry(&mut stack, &path, begun, proof, device)) {
            Ok(is_removed) => removed += u64::from(is_removed),
            // It is gone, or was replaced, or is in use.
            Err(
                Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY,
            ) => {}
            Err(errno) => return Err((path, errno)),
        }
    }
    remove(directory);
    Ok(removed)
}

/// A time in seconds and nanoseconds.
type Timestamp = (i64, i64);

/// What proves that an entry is the one in the journal, besides its path.
enum Proof<'a> {
    /// Nothing.
    Path,
    /// An mtime before the run began.
    Age,
    /// The same, or this identity and no change after this time.
    IdentityOrAge(&'a [u8], Timestamp),
}

/// The contents of a journal.
struct Recorded {
    /// The time when it was begun.
    begun: Timestamp,
    /// The time when it was last written to.
    ended: Timestamp,
    /// The fields, each followed by a NUL byte.
    text: Vec<u8>,
}

fn read(directory: BorrowedFd<'_>) -> Option<Recorded> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, JOURNAL, flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok().filter(is_plain_file)?;
    let mut text = Vec::new();
    File::from(file).read_to_end(&mut text).ok()?;
    let end = text.iter().position(|byte| *byte == 0)?;
    let (seconds, nanoseconds) = str::from_utf8(&text[..end]).ok()?.split_once('.')?;
    let begun = (seconds.parse().ok()?, nanoseconds.parse().ok()?);
    // A field without its end was not written as a whole.
    let length = text.iter().rposition(|byte| *byte == 0)?;
    text.truncate(length);
    Some(Recorded {
        begun,
        ended: (stat.st_mtime, stat.st_mtime_nsec as i64),
        text: text.split_off(end.min(length)),
    })
}

/// Returns the identities of the files that the last run has not finished.
fn unfinished(text: &[u8]) -> HashSet<&[u8]> {
    let mut unfinished = HashSet::new();
    for field in text.split(|byte| *byte == 0) {
        match field {
            [b'/', b'+', identity @ ..] => _ = unfinished.insert(identity),
            [b'/', b'-', identity @ ..] => _ = unfinished.remove(identity),
            b"/=" => unfinished.clear(),
            _ => {}
        }
    }
    unfinished
}

/// Removes one entry; returns `false` if it is not the one that the run created.
fn remove_entry(
    stack: &mut DirStack,
    path: &TreePath,
    begun: Timestamp,
    proof: Proof<'_>,
    device: u64,
) -> Result<bool, Errno> {
    let here = stack.here()?;
    let stat = statat(here, path.name(), AtFlags::SYMLINK_NOFOLLOW)?;
    if fstat(here)?.st_dev != device || stat.st_dev != device {
        return Ok(false);
    }
    let is_directory = FileType::from_raw_mode(stat.st_mode).is_dir();
    // A file with a time from an image is older than the run; a newer one was written by another program.
    let is_old = || (stat.st_mtime, stat.st_mtime_nsec as i64) < begun;
    let is_ours = match proof {
        Proof::Path => true,
        Proof::Age => is_old(),
        Proof::IdentityOrAge(identity, ended) => is_old() || is_unchanged(here, path.name(), identity, ended),
    };
    if !is_directory && !is_ours {
        return Ok(false);
    }
    // The directory may be closed to its owner.
    ensure_owner_access(here);
    let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    unlinkat(here, path.name(), flags).map(|()| true)
}

/// Returns whether a name leads to the file with an identity, and nobody has changed that since a run ended.
fn is_unchanged(here: BorrowedFd<'_>, name: &[u8], identity: &[u8], ended: Timestamp) -> bool {
    let Ok(status) = statx(here, name, AtFlags::SYMLINK_NOFOLLOW, IDENTITY) else { return false };
    let changed = (status.stx_ctime.tv_sec, i64::from(status.stx_ctime.tv_nsec));
    FileType::from_raw_mode(status.stx_mode.into()).is_file()
        && identity_of(&status).is_some_and(|found| found.0.as_bytes() == identity)
        && changed <= (ended.0.saturating_add(MAX_SILENCE), ended.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;
    use rustix::fs::{Timespec, Timestamps, UTIME_OMIT, futimens};
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, SystemTime};
    use tempfile::TempDir;

    /// A target with a journal.
    struct Target {
        directory: TempDir,
        open: File,
        journal: Arc<Journal>,
    }

    impl Target {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let open = File::open(directory.path()).unwrap();
            let journal = Arc::new(Journal::begin(open.as_fd()).unwrap());
            Self { directory, open, journal }
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.directory.path().join(name)
        }

        /// Creates a file that is handed over.
        fn create(&self, name: &str) -> JournaledFile {
            let file = File::create_new(self.path(name)).unwrap();
            let identity = identity(file.as_fd()).expect("a file system with birth times");
            self.journal.add_file(&TreePath::parse(name).unwrap(), identity)
        }

        /// Sets the time of the last write to the journal back.
        fn ended_before(&self, seconds: i64) {
            let stat = fstat(&self.journal.file).unwrap();
            let ended = Timespec { tv_sec: stat.st_mtime - seconds, tv_nsec: stat.st_mtime_nsec as _ };
            let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let times = Timestamps { last_access: omitted, last_modification: ended };
            futimens(&self.journal.file, &times).unwrap();
        }

        /// Lets a later run remove what it recognises, and returns the names of the rest.
        fn left(&self) -> Vec<String> {
            remove_entries(self.open.as_fd()).unwrap();
            let entries = fs::read_dir(self.directory.path()).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn make_old(path: &Path) {
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(1_000)).unwrap();
    }

    #[test]
    fn unfinished_files_are_removed_and_those_that_others_put_in_their_place_stay() {
        let target = Target::new();
        let names = ["empty", "written", "replaced", "renamed-over"];
        let unfinished = names.map(|name| target.create(name));
        fs::write(target.path("written"), "data").unwrap();
        fs::remove_file(target.path("replaced")).unwrap();
        fs::write(target.path("replaced"), "precious").unwrap();
        fs::write(target.path("precious"), "precious").unwrap();
        fs::rename(target.path("precious"), target.path("renamed-over")).unwrap();
        drop(unfinished);
        assert_eq!(target.left(), ["renamed-over", "replaced"]);
    }

    #[test]
    fn an_unfinished_file_that_was_changed_after_the_run_stays() {
        let target = Target::new();
        let unfinished = ["a", "b"].map(|name| target.create(name));
        target.ended_before(MAX_SILENCE + 1);
        drop(unfinished);
        assert_eq!(target.left(), ["a", "b"]);
    }

    #[test]
    fn a_finished_file_is_removed_only_with_an_mtime_from_the_image() {
        let target = Target::new();
        for name in ["old", "changed"] {
            let file = target.create(name);
            make_old(&target.path(name));
            file.finish();
        }
        fs::write(target.path("changed"), "precious").unwrap();
        let unfinished = target.create("unfinished");
        drop(unfinished);
        assert_eq!(target.left(), ["changed"]);
    }

    #[test]
    fn unfinished_files_of_a_run_before_the_last_one_stay() {
        let target = Target::new();
        let unfinished = target.create("a");
        let journal = Journal::begin(target.open.as_fd()).unwrap();
        drop((journal, unfinished));
        assert_eq!(target.left(), ["a"]);
    }

    #[test]
    fn the_last_entry_without_an_identity_is_removed_whatever_its_times_are() {
        let target = Target::new();
        for name in ["first", "last"] {
            fs::write(target.path(name), "").unwrap();
            target.journal.add(&TreePath::parse(name).unwrap());
        }
        assert_eq!(target.left(), ["first"]);
    }

    #[test]
    fn a_field_without_its_end_does_not_count() {
        let target = Target::new();
        fs::write(target.path("part"), "precious").unwrap();
        target.journal.append(b"part");
        assert_eq!(target.left(), ["part"]);
    }
}
