//! Atomic replacement of files.
//!
//! A file is written under a temporary name and renamed when it is complete. It is locked while it is open. The
//! temporary file of a killed writer is not locked, and the next writer removes it; where the file system has no locks,
//! it stays. Everything is reached from open directories, so that no symbolic link leads elsewhere.

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

/// A file under a temporary name, which is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    file: FileLock,
    directory: OwnedFd,
    /// The temporary name; `None` after the file was renamed.
    name: Option<OsString>,
}

impl AtomicFile {
    /// Creates a file in a directory, under a name with this prefix. The umask applies to the mode: a file that others
    /// are meant to read must not become private.
    pub fn begin(directory: BorrowedFd<'_>, prefix: &str, mode: u32) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let name = OsString::from(format!("{prefix}{:016x}", RandomState::new().hash_one(prefix)));
            let file = match openat(directory, &name, flags, Mode::from_raw_mode(mode)) {
                Err(Errno::EXIST) => continue,
                file => File::from(file?),
            };
            // `sweep` may find it before it is locked, and remove it.
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

    /// Syncs the file and renames it: it survives a power cut from here on. If root replaces a file of another user,
    /// the new one belongs to that user too.
    pub fn publish(self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        self.sync_for(directory, name)?;
        self.rename(directory, name)?;
        sync(directory)
    }

    /// Syncs the file, which is complete, and gives it the owner of the file that it is to replace.
    pub fn sync_for(&self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        if let Ok(old) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            && geteuid().is_root()
            && FileType::from_raw_mode(old.st_mode).is_file()
        {
            let own = fstat(self.file())?;
            if (own.st_uid, own.st_gid) != (old.st_uid, old.st_gid) {
                // The file system may have no owners.
                let _ = fchown(self.file(), Some(Uid::from_raw(old.st_uid)), Some(Gid::from_raw(old.st_gid)));
            }
        }
        self.file().sync_all()
    }

    /// Renames the file, after it was synced. The name survives a power cut after the directory was synced too.
    pub fn rename(mut self, directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        if let Some(temporary) = &self.name {
            renameat(&self.directory, temporary, directory, name)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // A file that cannot be removed wastes space and does no harm.
            let _ = unlinkat(&self.directory, name, AtFlags::empty());
        }
    }
}

/// Replaces a file atomically: a reader finds the old or the new content, also after a crash. A symbolic link is replaced
/// itself.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::ISDIR.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let directory = openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let prefix = format!(".volio-{}-", name.to_string_lossy());
    sweep(directory.as_fd(), &prefix);
    let file = AtomicFile::begin(directory.as_fd(), &prefix, mode)?;
    file.file().set_permissions(Permissions::from_mode(mode))?;
    file.file().write_all(content)?;
    file.publish(directory.as_fd(), name)
}

/// Removes temporary files with this prefix that no writer holds any more.
pub(crate) fn sweep(directory: BorrowedFd<'_>, prefix: &str) {
    for name in names_in(directory).unwrap_or_default() {
        if name.to_bytes().starts_with(prefix.as_bytes())
            && let Some(_claimed) = claim(directory, &name)
        {
            // A file that cannot be removed wastes space and does no harm.
            let _ = unlinkat(directory, &name, AtFlags::empty());
        }
    }
}

/// Opens and locks a file that is to be continued or removed. `None` while another process holds it, and for everything
/// but a regular file with one name: bytes that are written through a link end up elsewhere.
pub(crate) fn claim(directory: BorrowedFd<'_>, name: &CStr) -> Option<FileLock> {
    // For writing, even if nothing is written: some file systems lock only files that are open for writing.
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = openat(directory, name, flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let is_plain = FileType::from_raw_mode(stat.st_mode).is_file() && stat.st_nlink == 1;
    FileLock::try_exclusive(File::from(file)).ok().filter(|file| is_plain && file.is_held())
}

/// Opens a file that another user may have created: if it is a named pipe, the call does not wait for a writer.
pub(crate) fn open_nonblocking(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Syncs a directory after files in it were created, renamed or removed.
pub(crate) fn sync(directory: BorrowedFd<'_>) -> io::Result<()> {
    // It may be open by O_PATH.
    Ok(fsync(reopen(directory)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, chown, symlink};

    #[test]
    fn only_a_regular_file_with_one_name_is_claimed() {
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
        assert!(claim(c"precious").is_none(), "it is held");
        drop(first);
        fs::hard_link(at("precious"), at("hard")).unwrap();
        assert!(claim(c"hard").is_none());
    }

    #[test]
    fn a_temporary_file_in_use_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let fd = File::open(directory.path()).unwrap();
        fs::write(directory.path().join(".temporary-dead"), "x").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..50 {
                        let file = AtomicFile::begin(fd.as_fd(), ".temporary-", 0o666).unwrap();
                        sweep(fd.as_fd(), ".temporary-");
                        file.publish(fd.as_fd(), OsStr::new(&format!("name{number}"))).unwrap();
                    }
                });
            }
        });
        drop(AtomicFile::begin(fd.as_fd(), ".temporary-", 0o666).unwrap());
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
        // A link that another user has created is replaced, and not the file that it leads to.
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::remove_file(&path).unwrap();
        symlink(outside.path(), &path).unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!((fs::read(outside.path()).unwrap(), fs::read(&path).unwrap()), (vec![], b"new".to_vec()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
