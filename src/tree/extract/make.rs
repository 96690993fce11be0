//! Creation of each kind of entry.

use super::attributes::{self, AttributeFailure, Attributes, Lost, Pinned, is_unsupported};
use super::content::WriteFailure;
use super::creation_defaults::CreationDefaults;
use super::file_writers::SmallFile;
use super::small_files::Writer;
use super::{Extractor, PendingDirectory, Skipped, attributes_of, io_error};
use crate::disk::directory::ensure_owner_access;
use crate::error::{Error, Result};
use crate::tree::dir_stack::open_directory;
use crate::tree::entry::xattrs_memory;
use crate::tree::{Content, Entry, EntryKind, TreePath};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, fgetxattr, fstat, mkdirat, mknodat, openat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::fs::File;

/// The ACL that a directory passes on to what is created in it.
const DEFAULT_ACL: &str = "system.posix_acl_default";

impl Extractor {
    /// Creates an entry by `create`, and records it. If its name exists, that is removed first.
    pub(super) fn make<T>(
        &mut self,
        path: &TreePath,
        create: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T> {
        let created = self.make_unrecorded(path, create)?;
        self.note_created(path);
        Ok(created)
    }

    fn make_unrecorded<T>(
        &mut self,
        path: &TreePath,
        create: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T> {
        let mut created = self.stack.here().and_then(|here| create(here, path.name()));
        if matches!(created, Err(Errno::EXIST)) {
            self.ensure_spelling(path)?;
            self.clear(path)?;
            created = self.stack.here().and_then(|here| create(here, path.name()));
        }
        created.map_err(|errno| self.io_error("make", path, errno))
    }

    /// Removes an entry by its name. A symbolic link is removed itself.
    fn clear(&mut self, path: &TreePath) -> Result<()> {
        self.finish_small_file(path);
        let removed = self.stack.here().and_then(|here| unlinkat(here, path.name(), AtFlags::empty()));
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => self.remove_directory(path),
            Err(errno) => Err(self.io_error("replace", path, errno)),
        }
    }

    /// Notes the attributes of the target itself.
    pub(super) fn put_root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryKind::Directory {
            return Err(Error::integrity("the root of the image is not a directory"));
        }
        self.describe(entry, self.target.is_created, true)
    }

    pub(super) fn put_directory(&mut self, entry: &Entry) -> Result<()> {
        let path = &entry.path;
        let here = self.stack.here().map_err(|errno| io_error("enter", &self.target.shown, path, errno))?;
        // In this order because most directories are new.
        match mkdirat(here, path.name(), Mode::RWXU) {
            Ok(()) => {
                self.note_created(path);
                let may_inherit = self.passes_acls_on();
                self.describe(entry, true, may_inherit)
            }
            Err(Errno::EXIST) => match open_directory(here, path.name()) {
                Ok(fd) => {
                    self.ensure_spelling(path)?;
                    self.keep_directory(entry, fd.as_fd())
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.make(path, |here, name| mkdirat(here, name, Mode::RWXU))?;
                    let may_inherit = self.passes_acls_on();
                    self.describe(entry, true, may_inherit)
                }
                Err(errno) => Err(self.io_error("enter", path, errno)),
            },
            Err(errno) => Err(self.io_error("make", path, errno)),
        }
    }

    /// Takes over a directory that exists, with its contents.
    fn keep_directory(&mut self, entry: &Entry, directory: BorrowedFd<'_>) -> Result<()> {
        let known = self.directories.get(&entry.path);
        let (is_created, may_inherit) =
            known.map_or((false, true), |known| (known.is_created, known.may_inherit));
        if self.is_exclusive {
            // An interrupted run has created it.
            self.provenance.record(&entry.path);
        } else {
            self.provenance.mention(&entry.path);
        }
        self.describe(entry, is_created, may_inherit)?;
        if !self.user.is_root() && self.directories.get(&entry.path).is_some() {
            ensure_owner_access(directory);
        }
        Ok(())
    }

    /// Notes the attributes of a directory for the end. An implied one has none for a directory that was in the target.
    fn describe(&mut self, entry: &Entry, is_created: bool, may_inherit: bool) -> Result<()> {
        if is_created || !entry.is_implied_directory() {
            self.directories.hold(xattrs_memory(&entry.metadata.xattrs))?;
            let metadata = Some(entry.metadata.clone());
            self.directories.insert(&entry.path, PendingDirectory { metadata, is_created, may_inherit })?;
        }
        Ok(())
    }

    pub(super) fn put_file(&mut self, entry: &Entry, size: u64, content: &mut dyn Content) -> Result<()> {
        let path = &entry.path;
        let attributes = self.new_attributes(entry)?;
        let private = Mode::RUSR | Mode::WUSR;
        let mode = self.defaults.as_ref().map_or(private, |defaults| defaults.creation_mode(&attributes));
        let file = self.make_unrecorded(path, |here, name| create(here, name, mode))?;
        let writer = self.note_created_file(path, &file, size);
        // The removal of an obstacle may have led to another directory, with other defaults.
        let defaults = self.defaults.as_mut().filter(|defaults| defaults.path == *self.stack.path());
        let given = defaults.map(|defaults| defaults.given(file.as_fd(), &attributes, mode));
        let given = given.transpose().map_err(|errno| self.io_error("look at", path, errno))?;
        let given = given.unwrap_or_default();
        let written = match writer {
            Writer::Extractor => self.content.write(&file, size, content),
            Writer::Any { recorded } => {
                let file = SmallFile::new(path, file, recorded, (attributes, given), self.ownership().device);
                return self.hand_over(file, size, content);
            }
        };
        written.map_err(|failure| self.write_error(path, failure))?;
        self.extracted.bytes += size;
        self.apply(path, &file, &attributes, given)
    }

    /// The error for a file whose content could not be written.
    pub(super) fn write_error(&self, path: &TreePath, failure: WriteFailure) -> Error {
        match failure {
            WriteFailure::Source(error) => Error::io(format!("cannot read the content of {path}"), error),
            WriteFailure::Disk(error) => io_error("write", &self.target.shown, path, error),
        }
    }

    /// Gives a file that was just created its attributes.
    pub(super) fn apply(
        &mut self,
        path: &TreePath,
        file: &File,
        attributes: &Attributes<'_>,
        given: attributes::Given,
    ) -> Result<()> {
        let retained = self.retention.on(self.ownership().device);
        let lost = attributes::apply(file.as_fd(), attributes, given, retained);
        self.count_lost(path, lost)
    }

    /// Returns the attributes for a new entry in the current directory.
    pub(super) fn new_attributes<'a>(&mut self, entry: &'a Entry) -> Result<Attributes<'a>> {
        let mut attributes = attributes_of(&entry.metadata, &entry.path, &self.options)?;
        attributes.may_inherit = self.passes_acls_on();
        Ok(attributes)
    }

    /// Returns whether new entries of the current directory inherit an ACL from it.
    pub(super) fn passes_acls_on(&mut self) -> bool {
        let path = self.stack.path();
        if let Some(defaults) = self.defaults.as_ref().filter(|defaults| defaults.path == *path) {
            return defaults.inherits_acl;
        }
        let path = path.clone();
        let created = self.directories.get(&path).filter(|directory| directory.is_created);
        let (is_ours, may_inherit) =
            (created.is_some(), created.is_none_or(|directory| directory.may_inherit));
        // A directory that inherited no ACL has none to pass on yet: its own is set at the end.
        let inherits_acl = (may_inherit || !self.is_here_ours()) && self.has_default_acl();
        let ownership = self.ownership();
        let previous = self.defaults.take();
        self.defaults = Some(CreationDefaults::new(path, inherits_acl, is_ours, ownership, previous));
        inherits_acl
    }

    /// Returns whether the current directory belongs to the user of this process. Another user could have put a directory
    /// with an ACL under the name of one that was created here.
    pub(super) fn is_here_ours(&self) -> bool {
        self.stack.ownership().is_some_and(|ownership| ownership.owner.0 == self.user.as_raw())
    }

    /// Returns whether the current directory has an ACL for new entries.
    fn has_default_acl(&mut self) -> bool {
        let asked = self.stack.here().and_then(|here| fgetxattr(here, DEFAULT_ACL, &mut [0u8; 0][..]));
        !matches!(asked, Err(Errno::NODATA | Errno::NOTSUP))
    }

    pub(super) fn put_symlink(&mut self, entry: &Entry, target: &[u8]) -> Result<()> {
        let is_made = self.make(&entry.path, |here, name| if_supported(symlinkat(target, here, name)))?;
        if is_made { self.pin(entry, FileType::Symlink) } else { self.skip(&entry.path, Skipped::Symlink) }
    }

    /// Creates a fifo or a device.
    pub(super) fn put_node(&mut self, entry: &Entry, file_type: FileType, device: u64) -> Result<()> {
        let is_fifo = file_type == FileType::Fifo;
        // The kernel lets every user create the device 0:0, which to overlayfs means "deleted". Root in a user namespace may
        // not create devices.
        let may_make = is_fifo || (self.user.is_root() && self.options.devices);
        let is_made = self.make(&entry.path, |here, name| {
            if may_make {
                if_supported(mknodat(here, name, file_type, Mode::RUSR | Mode::WUSR, device))
            } else {
                Ok(false)
            }
        })?;
        if is_made {
            self.pin(entry, file_type)
        } else {
            self.skip(&entry.path, if is_fifo { Skipped::Fifo } else { Skipped::Device })
        }
    }

    /// Counts an entry that was not created.
    pub(super) fn skip(&mut self, path: &TreePath, what: Skipped) -> Result<()> {
        match what {
            Skipped::Device => self.extracted.devices_skipped += 1,
            Skipped::Fifo => self.extracted.fifos_skipped += 1,
            Skipped::Symlink => self.extracted.symlinks_skipped += 1,
        }
        self.skipped.insert(path, what)?;
        Ok(())
    }

    /// Gives an entry that was just created and cannot be opened its attributes, if its name still leads to it.
    fn pin(&mut self, entry: &Entry, file_type: FileType) -> Result<()> {
        let path = &entry.path;
        let attributes = self.new_attributes(entry)?;
        let device = self.ownership().device;
        let here = self.stack.here().map_err(|errno| io_error("enter", &self.target.shown, path, errno))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (pin, stat) = openat(here, path.name(), flags, Mode::empty())
            .and_then(|pin| fstat(&pin).map(|stat| (pin, stat)))
            .map_err(|errno| io_error("look at", &self.target.shown, path, errno))?;
        if FileType::from_raw_mode(stat.st_mode) != file_type || stat.st_nlink > 1 {
            let what = format!("{}{path} was replaced while it was extracted", self.target.shown);
            return Err(Error::failed(what));
        }
        let pinned = Pinned { pin: pin.as_fd(), directory: here, name: path.name(), file_type };
        let lost = attributes::apply_pinned(&pinned, &attributes, self.retention.on(device));
        self.count_lost(path, lost)
    }

    /// Counts the attributes that an entry lost.
    fn count_lost(&mut self, path: &TreePath, lost: Result<Lost, AttributeFailure>) -> Result<()> {
        let lost = lost.map_err(|failure| self.io_error(failure.doing, path, failure.errno))?;
        self.count(lost);
        Ok(())
    }
}

/// Returns `false` if the file system does not have this kind of entry.
fn if_supported(made: Result<(), Errno>) -> Result<bool, Errno> {
    match made {
        Err(errno) if is_unsupported(errno) => Ok(false),
        made => made.map(|()| true),
    }
}

/// Creates an empty file under a free name.
pub(super) fn create(here: BorrowedFd<'_>, name: &[u8], mode: Mode) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(here, name, flags, mode).map(File::from)
}
