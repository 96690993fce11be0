//! Files that get their names when they are whole.
//!
//! A draft stands beside its target, so that one `rename` puts it there. It is locked for as long as it is open: the draft
//! of a writer that was killed is locked by nobody, and the next writer sweeps it away. Where a file system knows no locks,
//! nobody sweeps. Everything is reached from open directories, so that no symbolic link leads elsewhere.

use super::directory::{names_in, reopen};
use super::lock::FileLock;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, fchown, fstat, fsync, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::{CStr, OsStr, OsString};
use std::fs::{File, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A file that has not got its name yet; removed when it is dropped.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    file: FileLock,
    directory: OwnedFd,
    /// The name until then; `None` once it has got the other one.
    name: Option<OsString>,
}

impl AtomicFile {
    /// Makes one in a directory, under a name that begins so. The mode is as the umask leaves it: what others are meant to
    /// read must not become private.
    pub fn begin(directory: BorrowedFd<'_>, prefix: &str, mode: u32) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let name = OsString::from(format!("{prefix}{:016x}", RandomState::new().hash_one(prefix)));
            let file = match openat(directory, &name, flags, Mode::from_raw_mode(mode)) {
                Err(Errno::EXIST) => continue,
                file => File::from(file?),
            };
            // A sweep may find it before it is locked, and take it away.
            match FileLock::try_shared(file) {
                Ok(file) if fstat(&*file)?.st_nlink > 0 => {
                    let directory = directory.try_clone_to_owned()?;
                    return Ok(Self { file, directory, name: Some(name) });
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    let _ = unlinkat(directory, &name, AtFlags::empty());
                    return Err(error);
                }
                _ => {}
            }
        }
    }

    /// The file, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts the file in its place, for good: it survives a power cut from here on. Where root replaces a file of another
    /// user, the new one is that user's too.
    pub fn publish(mut self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        if let Ok(old) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            && geteuid().is_root()
            && FileType::from_raw_mode(old.st_mode).is_file()
        {
            let own = fstat(self.file())?;
            if (own.st_uid, own.st_gid) != (old.st_uid, old.st_gid) {
                // A file system that has no owners has none to keep.
                let _ = fchown(self.file(), Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)));
            }
        }
        self.file().sync_all()?;
        if let Some(draft) = &self.name {
            renameat(&self.directory, draft, directory, name)?;
        }
        self.name = None;
        sync(directory)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // A file that cannot be removed is waste and no harm.
            let _ = unlinkat(&self.directory, name, AtFlags::empty());
        }
    }
}

/// Replaces a file as a whole, for good: who reads it, also after a crash, finds the old content or the new one. The
/// name must not be that of a link that is to stay.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::ISDIR.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let directory = openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let prefix = format!(".volio-{}-", name.to_string_lossy());
    sweep(directory.as_fd(), &prefix);
    let draft = AtomicFile::begin(directory.as_fd(), &prefix, mode)?;
    draft.file().set_permissions(Permissions::from_mode(mode))?;
    draft.file().write_all(content)?;
    draft.publish(directory.as_fd(), name)
}

/// Removes drafts under names that begin so, and that nobody holds any more.
pub(crate) fn sweep(directory: BorrowedFd<'_>, prefix: &str) {
    for name in names_in(directory).unwrap_or_default() {
        if name.to_bytes().starts_with(prefix.as_bytes())
            && let Some(_claimed) = claim(directory, &name)
        {
            // A file that cannot be removed is waste and no harm.
            let _ = unlinkat(directory, &name, AtFlags::empty());
        }
    }
}

/// Opens and locks a file that is to be continued or removed; `None` while somebody holds it, and for all that is
/// not a regular file under one name: what is written through a link lands somewhere else.
pub(crate) fn claim(directory: BorrowedFd<'_>, name: &CStr) -> Option<FileLock> {
    // For writing also where nothing is written: some file systems lock nothing else.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = openat(directory, name, flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let is_plain = FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_nlink == 1;
    FileLock::try_exclusive(File::from(file)).ok().filter(|file| is_plain && file.is_held())
}

/// Opens a file that somebody else may have put there: where it is a named pipe, nobody must wait for a writer.
pub(crate) fn open_nonblocking(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Has the disk know what was made, renamed or removed in a directory.
pub(crate) fn sync(directory: BorrowedFd<'_>) -> io::Result<()> {
    // It may be open as a mere place.
    Ok(fsync(reopen(directory)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, chown, symlink};

    #[test]
    fn what_is_not_a_regular_file_under_one_name_is_not_claimed() {
        let directory = tempfile::tempdir().unwrap();
        let fd = File::open(directory.path()).unwrap();
        let at = |name: &str| directory.path().join(name);
        let claim = |name| claim(fd.as_fd(), name);
        fs::write(at("precious"), "x").unwrap();
        symlink("precious", at("soft")).unwrap();
        rustix::fs::mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for name in [c"soft", c"pipe", c"absent", c"."] {
            assert!(claim(name).is_none(), "{name:?}");
        }
        let first = claim(c"precious").unwrap();
        assert!(claim(c"precious").is_none(), "somebody holds it");
        drop(first);
        fs::hard_link(at("precious"), at("hard")).unwrap();
        assert!(claim(c"hard").is_none());
    }

    #[test]
    fn a_sweep_takes_no_draft_that_is_at_work() {
        let directory = tempfile::tempdir().unwrap();
        let fd = File::open(directory.path()).unwrap();
        fs::write(directory.path().join(".draft-dead"), "x").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..50 {
                        let draft = AtomicFile::begin(fd.as_fd(), ".draft-", 0o666).unwrap();
                        sweep(fd.as_fd(), ".draft-");
                        draft.publish(fd.as_fd(), OsStr::new(&format!("name{number}"))).unwrap();
                    }
                });
            }
        });
        drop(AtomicFile::begin(fd.as_fd(), ".draft-", 0o666).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 50);
    }

    #[test]
    fn a_file_of_another_user_stays_that_users_when_root_replaces_it() {
        if !geteuid().is_root() {
            return super::super::tests::skipped("owners, because that takes root");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for content in ["old", "new"] {
            replace(&path, content.as_bytes(), 0o600).unwrap();
            let found = fs::metadata(&path).unwrap();
            let expected = if content == "old" { (0, 0) } else { (1234, 2345) };
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (expected.0, expected.1, 0o600));
            chown(&path, Some(1234), Some(2345)).unwrap();
        }
        // A link that somebody has put there is replaced, and not what it leads to.
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::remove_file(&path).unwrap();
        symlink(outside.path(), &path).unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!((fs::read(outside.path()).unwrap(), fs::read(&path).unwrap()), (vec![], b"new".to_vec()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
