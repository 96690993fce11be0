//! Owner, permissions, extended attributes and mtime of an entry that was just created.
//!
//! A file system may not have one of them (vfat, SMB), or not allow it to be set (NFS with mapped users). Then it is counted
//! as lost, and the extraction goes on. Other errors, such as `EIO`, `ENOSPC` and `EROFS`, end it.

use super::ExtractOptions;
use super::retention::{Retained, SetAttributes};
use crate::disk::directory::proc_path;
use crate::tree::dir_stack::SETGID;
use crate::tree::entry::xattrs_memory;
use crate::tree::id_map::{ACLS, Unmapped, owning_group_permissions};
use crate::tree::xattr::{XattrReader, XattrSource, is_portable};
use crate::tree::{Metadata, Time};
use rustix::fd::BorrowedFd;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fremovexattr, fsetxattr, fstat, futimens, openat, removexattr, setxattr,
    utimensat,
};
use rustix::io::{Errno, Result as SysResult};
use rustix::process::{getegid, geteuid, getgroups};
use std::borrow::Cow;

/// The setuid and setgid bits: they give the owner's rights to every user that runs a file.
const SPECIAL: u32 = 0o6000;

/// The attribute that gives rights of root to every user that runs a file.
const CAPABILITY: &[u8] = b"security.capability";

/// The attributes that could not be restored, for lack of rights or because the file system does not have them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    pub ownership: bool,
    pub mode: bool,
    pub mtime: bool,
    pub xattrs: u64,
}

/// An operation on attributes that failed.
#[derive(Debug)]
pub(super) struct AttributeFailure {
    pub doing: &'static str,
    pub errno: Errno,
}

impl AttributeFailure {
    /// Returns whether a user with more rights, or a writable file system, would have made a difference.
    pub fn is_for_lack_of_rights(&self) -> bool {
        // BADF: the directory may be entered and not listed, so that it is open by O_PATH only.
        matches!(self.errno, Errno::PERM | Errno::ACCESS | Errno::ROFS | Errno::BADF)
    }
}

/// Returns whether an error says that a file system does not have a kind of entry or attribute. FUSE file systems return
/// `ENOSYS` for operations that they do not implement, vfat and exFAT return `EPERM`, and SMB returns `EOPNOTSUPP`.
pub(super) fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::PERM | Errno::NOTSUP | Errno::NOSYS)
}

/// The attributes that an entry is to have.
pub(super) struct Attributes<'a> {
    metadata: Cow<'a, Metadata>,
    /// Set when the owner is another one than in the tree, other than by a map. Then the owner's rights are not passed on.
    is_given_away: bool,
    /// Set when the file may have inherited ACLs from the directory above that are not in the tree.
    pub may_inherit: bool,
    /// Set when the group gets the permissions of the owner, whatever an ACL says.
    group_access: bool,
}

/// The rights of this process to set attributes.
pub(super) struct Rights {
    is_root: bool,
    user: u32,
    groups: Vec<u32>,
}

impl Rights {
    /// The rights of the user of this process.
    pub fn of_process() -> Self {
        let groups = getgroups().unwrap_or_default().into_iter().chain([getegid()]);
        Self {
            is_root: geteuid().is_root(),
            user: geteuid().as_raw(),
            groups: groups.map(|group| group.as_raw()).collect(),
        }
    }

    /// Returns whether files of this user can be given this owner and group.
    fn may_give_to(&self, (uid, gid): (u32, u32)) -> bool {
        self.is_root || (uid == self.user && self.groups.contains(&gid))
    }
}

impl<'a> Attributes<'a> {
    /// The attributes of an entry, as the options want them.
    ///
    /// # Errors
    /// The owner that the maps do not have.
    pub fn new(metadata: &'a Metadata, options: &ExtractOptions) -> Result<Self, Unmapped> {
        let mut metadata = Cow::Borrowed(metadata);
        if !options.maps.is_empty() {
            options.maps.to_host(metadata.to_mut())?;
        }
        let owner = (options.uid.unwrap_or(metadata.uid), options.gid.unwrap_or(metadata.gid));
        let is_given_away = owner != (metadata.uid, metadata.gid);
        if is_given_away {
            let metadata = metadata.to_mut();
            (metadata.uid, metadata.gid) = owner;
        }
        if options.group_access {
            let metadata = metadata.to_mut();
            metadata.mode |= (metadata.mode & 0o700) >> 3;
        }
        Ok(Self { metadata, is_given_away, may_inherit: true, group_access: options.group_access })
    }

    /// Exactly these attributes, without any options.
    pub fn exactly(metadata: &'a Metadata) -> Self {
        let metadata = Cow::Borrowed(metadata);
        Self { metadata, is_given_away: false, may_inherit: true, group_access: false }
    }

    /// Returns them without the borrow.
    pub fn into_owned(self) -> Attributes<'static> {
        Attributes { metadata: Cow::Owned(self.metadata.into_owned()), ..self }
    }

    /// Returns the memory of the extended attributes, in bytes.
    pub fn xattrs_memory(&self) -> usize {
        xattrs_memory(&self.metadata.xattrs)
    }

    /// The owner and the group.
    pub fn owner(&self) -> (u32, u32) {
        (self.metadata.uid, self.metadata.gid)
    }

    /// Returns the mode, if there are neither extended attributes nor special bits, which have to be set in an order.
    pub fn plain_mode(&self) -> Option<Mode> {
        let Metadata { mode, xattrs, .. } = &*self.metadata;
        (xattrs.is_empty() && mode & 0o7000 == 0).then(|| self.mode(0))
    }

    /// The mode without the dropped bits: without its owner, a setuid file would give the rights of another user.
    fn mode(&self, dropped: u32) -> Mode {
        Mode::from_raw_mode(self.metadata.mode & 0o7777 & !dropped)
    }

    /// Returns the metadata that an entry has on disk when it was extracted. Where the owner cannot be set, it is the one
    /// that was found.
    pub fn on_disk(mut self, is_directory: bool, found: &Metadata, rights: &Rights) -> Metadata {
        let is_lost = !rights.may_give_to(self.owner());
        let is_foreign = is_lost || self.is_given_away;
        if self.group_access && is_directory {
            self.metadata.to_mut().mode |= SETGID;
        }
        let metadata = self.metadata.to_mut();
        if is_lost {
            (metadata.uid, metadata.gid) = (found.uid, found.gid);
        }
        if is_foreign && !is_directory {
            metadata.mode &= !SPECIAL;
        }
        metadata.xattrs.retain(|name, _| is_portable(name) && !(is_foreign && name == CAPABILITY));
        if !rights.is_root {
            let is_privileged =
                |name: &Vec<u8>| name.starts_with(b"trusted.") || name.starts_with(b"security.");
            metadata.xattrs.retain(|name, _| !is_privileged(name));
            let kept = found.xattrs.iter().filter(|(name, _)| is_privileged(name));
            metadata.xattrs.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
        }
        self.metadata.into_owned()
    }

    /// Returns the group bits of the mode that depend on the ACL. In a file with an ACL these bits are its mask, the
    /// most that any user or group in it may do, and not the permissions of the owning group (acl(5)). A file that lost
    /// its ACL must not have them.
    fn masked_only(&self) -> u32 {
        let acl = self.metadata.xattrs.get(ACLS[0]).and_then(|acl| owning_group_permissions(acl));
        match acl {
            Some(permissions) if !self.group_access => 0o070 & !(permissions << 3),
            _ => 0,
        }
    }
}

/// Removes the extended attributes of an open file that the tree does not have, except for ACLs, which [`apply`] removes.
pub(super) fn drop_others(fd: BorrowedFd<'_>, wanted: &Metadata) -> SysResult<()> {
    let found = XattrReader::new().read(XattrSource::Open(fd))?;
    let is_other = |name: &&Vec<u8>| !wanted.xattrs.contains_key(*name) && !ACLS.contains(&name.as_slice());
    for name in found.keys().filter(is_other) {
        match fremovexattr(fd, name.as_slice()) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(errno) if is_unsupported(errno) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// The attributes that a new file has already.
#[derive(Clone, Copy, Default)]
pub(super) struct Given {
    pub owner: bool,
    pub mode: bool,
}

/// Gives an open file its attributes, except for those that it has already.
///
/// The order matters: a change of the owner clears setuid bits and capabilities, an ACL changes the mode and the mode
/// an ACL, and extended attributes can be set only while the file may be written, which its final mode may forbid even
/// to its owner.
pub(super) fn apply(
    fd: BorrowedFd<'_>,
    attributes: &Attributes<'_>,
    given: Given,
    retained: &mut Retained,
) -> Result<Lost, AttributeFailure> {
    apply_open(fd, attributes, given, OpenKind::File, retained)
}

/// The circumstances in which a directory gets its attributes.
pub(super) struct DirectoryContext<'a> {
    /// The owner that the directory has, if that is known.
    pub owner: Option<(u32, u32)>,
    /// Set when this extraction has created the directory.
    pub is_created: bool,
    pub retained: &'a mut Retained,
    pub options: &'a ExtractOptions,
}

/// Gives an open directory its attributes. It keeps its setgid bit whatever its owner is: on a directory the bit gives no
/// rights away, and a group that shares a volume relies on it.
pub(super) fn apply_to_directory(
    fd: BorrowedFd<'_>,
    attributes: &mut Attributes<'_>,
    context: DirectoryContext<'_>,
) -> Result<Lost, AttributeFailure> {
    if context.options.group_access {
        attributes.metadata.to_mut().mode |= SETGID;
    }
    let given = Given { owner: context.owner == Some(attributes.owner()), mode: false };
    let kind = OpenKind::Directory { is_created: context.is_created };
    apply_open(fd, attributes, given, kind, context.retained)
}

/// Gives an open directory that no entry has described the attributes of an implied one. It keeps its owner unless the
/// options name one.
pub(super) fn apply_implied(
    fd: BorrowedFd<'_>,
    may_inherit: bool,
    context: DirectoryContext<'_>,
) -> Result<Lost, AttributeFailure> {
    let stat = fstat(fd).map_err(failed("look at"))?;
    let owner = (stat.st_uid, stat.st_gid);
    let options = context.options;
    let mut metadata = Metadata::implied_directory();
    (metadata.uid, metadata.gid) = (options.uid.unwrap_or(owner.0), options.gid.unwrap_or(owner.1));
    if options.group_access {
        metadata.mode |= (metadata.mode & 0o700) >> 3;
    }
    let mut attributes = Attributes { may_inherit, ..Attributes::exactly(&metadata) };
    let context = DirectoryContext { owner: Some(owner), ..context };
    let lost = apply_to_directory(fd, &mut attributes, context)?;
    let is_owner_named = options.uid.or(options.gid).is_some();
    Ok(Lost { ownership: lost.ownership && is_owner_named, ..lost })
}

/// The kind of an open file that gets attributes.
#[derive(Clone, Copy)]
enum OpenKind {
    File,
    Directory { is_created: bool },
}

fn apply_open(
    fd: BorrowedFd<'_>,
    attributes: &Attributes<'_>,
    given: Given,
    kind: OpenKind,
    retained: &mut Retained,
) -> Result<Lost, AttributeFailure> {
    let (special, file_type, is_ours) = match kind {
        OpenKind::File => (SPECIAL, FileType::RegularFile, true),
        OpenKind::Directory { is_created } => (0, FileType::Directory, is_created),
    };
    // The owner of a directory that was in the target may forbid these; that is not the fault of the file system.
    let is_lost = |answer: SysResult<()>, doing| match answer {
        Err(errno) if is_ours && is_unsupported(errno) => Ok(true),
        answer => answer.map(|()| false).map_err(failed(doing)),
    };
    let mtime = attributes.metadata.mtime;
    let (uid, gid) = ids(attributes.owner());
    let ownership = !given.owner && is_owner_lost(fchown(fd, uid, gid))?;
    let is_foreign = ownership || attributes.is_given_away;
    if attributes.may_inherit {
        drop_acls(attributes, |name| fremovexattr(fd, name))?;
    }
    let LostXattrs { count: xattrs, mode_bits } =
        set_xattrs(attributes, is_foreign, |name, value| fsetxattr(fd, name, value, XattrFlags::empty()))?;
    let mode = attributes.mode(mode_bits | if is_foreign { special } else { 0 });
    let mode_lost = !given.mode && is_lost(fchmod(fd, mode), "set the mode of")?;
    let mtime_lost = is_lost(futimens(fd, &times(mtime)), "set the mtime of")?;
    let set = SetAttributes {
        owner: (!given.owner && !ownership).then(|| attributes.owner()),
        mode: (!given.mode && !mode_lost).then(|| with_type(mode, file_type)),
        mtime: (!mtime_lost).then_some(mtime),
    };
    let not_kept = retained.check(set, || fstat(fd)).map_err(failed("look at"))?;
    Ok(Lost {
        ownership: ownership || not_kept.owner,
        mode: mode_lost || not_kept.mode,
        mtime: mtime_lost || not_kept.mtime,
        xattrs,
    })
}

/// A fifo, a device or a symbolic link that was just created. None of them can be opened.
pub(super) struct Pinned<'a> {
    /// The inode itself, held by `O_PATH`. If another process puts a file under its name, that file does not get its owner
    /// and mode.
    pub pin: BorrowedFd<'a>,
    /// The directory, for kernels that cannot do everything by such a descriptor.
    pub directory: BorrowedFd<'a>,
    /// The name in the directory.
    pub name: &'a [u8],
    pub file_type: FileType,
}

/// Gives a fifo, a device or a symbolic link its attributes.
pub(super) fn apply_pinned(
    pinned: &Pinned<'_>,
    attributes: &Attributes<'_>,
    retained: &mut Retained,
) -> Result<Lost, AttributeFailure> {
    let mtime = attributes.metadata.mtime;
    let (uid, gid) = ids(attributes.owner());
    let ownership = is_owner_lost(chownat(pinned.pin, "", uid, gid, AtFlags::EMPTY_PATH))?;
    let is_foreign = ownership || attributes.is_given_away;
    // Few calls take a descriptor of this kind; its magic link in /proc leads to the inode itself.
    let path = proc_path(pinned.pin);
    let is_symlink = pinned.file_type == FileType::Symlink;
    if attributes.may_inherit && !is_symlink {
        drop_acls(attributes, |name| removexattr(&path, name))?;
    }
    let set = |name: &[u8], value: &[u8]| setxattr(&path, name, value, XattrFlags::empty());
    let LostXattrs { count: xattrs, mode_bits } = set_xattrs(attributes, is_foreign, set)?;
    let mode = attributes.mode(mode_bits | if is_foreign { SPECIAL } else { 0 });
    // Symbolic links have no mode.
    let mode_lost = !is_symlink && pinned.set_mode(&path, mode).map_err(failed("set the mode of"))?;
    let mtime_lost = match pinned.set_mtime(mtime) {
        Err(errno) if is_unsupported(errno) => true,
        set => set.map(|()| false).map_err(failed("set the mtime of"))?,
    };
    let set = SetAttributes {
        owner: (!ownership).then(|| attributes.owner()),
        mode: (!is_symlink && !mode_lost).then(|| with_type(mode, pinned.file_type)),
        mtime: (!mtime_lost).then_some(mtime),
    };
    let not_kept = retained.check(set, || fstat(pinned.pin)).map_err(failed("look at"))?;
    Ok(Lost {
        ownership: ownership || not_kept.owner,
        mode: mode_lost || not_kept.mode,
        mtime: mtime_lost || not_kept.mtime,
        xattrs,
    })
}

impl Pinned<'_> {
    /// Sets the mode; returns `true` if that was impossible.
    fn set_mode(&self, path: &str, mode: Mode) -> SysResult<bool> {
        let stat = fstat(self.pin)?;
        if stat.st_mode & 0o7777 == mode.bits() {
            return Ok(false);
        }
        match chmodat(CWD, path, mode, AtFlags::empty()) {
            // There is no /proc. Opening a device may have any effect; opening a fifo has none, if it is still this one.
            Err(Errno::NOENT) if self.file_type == FileType::Fifo => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fifo = openat(self.directory, self.name, flags, Mode::empty())?;
                let now = fstat(&fifo)?;
                if (now.st_dev, now.st_ino) != (stat.st_dev, stat.st_ino) {
                    return Err(Errno::STALE);
                }
                fchmod(fifo, mode).map(|()| false)
            }
            Err(Errno::NOENT) => Ok(true),
            Err(errno) if is_unsupported(errno) => Ok(true),
            set => set.map(|()| false),
        }
    }

    fn set_mtime(&self, mtime: Time) -> SysResult<()> {
        match utimensat(self.pin, "", &times(mtime), AtFlags::EMPTY_PATH) {
            // Linux before 5.8. There it is set by the name, without following a link.
            Err(Errno::INVAL) => {
                utimensat(self.directory, self.name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
            }
            set => set,
        }
    }
}

fn failed(doing: &'static str) -> impl Fn(Errno) -> AttributeFailure {
    move |errno| AttributeFailure { doing, errno }
}

/// Returns the owner and the group for a system call. Neither is the highest number, which means "no change".
fn ids((uid, gid): (u32, u32)) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Returns the mode as `st_mode` has it.
fn with_type(mode: Mode, file_type: FileType) -> u32 {
    file_type.as_raw_mode() | mode.bits()
}

/// Returns whether the owner was not restored: for lack of rights (`EPERM`), because the user namespace does not have it
/// (`EINVAL`), or because the file system has no owners.
fn is_owner_lost(answer: SysResult<()>) -> Result<bool, AttributeFailure> {
    match answer {
        Ok(()) => Ok(false),
        Err(errno) if errno == Errno::INVAL || is_unsupported(errno) => Ok(true),
        Err(errno) => Err(failed("set the owner of")(errno)),
    }
}

/// Removes the ACLs that are not in the tree: a directory passes its default ACL on to everything that is created in it.
fn drop_acls(
    attributes: &Attributes<'_>,
    remove: impl Fn(&[u8]) -> SysResult<()>,
) -> Result<(), AttributeFailure> {
    for name in ACLS.into_iter().filter(|name| !attributes.metadata.xattrs.contains_key(*name)) {
        match remove(name) {
            // ACCES: only directories have default ACLs. NOENT: there is no /proc.
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::NOSYS | Errno::ACCESS | Errno::NOENT) => {}
            Err(errno) => return Err(failed("remove the ACL of")(errno)),
        }
    }
    Ok(())
}

/// The extended attributes that were lost.
#[derive(Default)]
struct LostXattrs {
    count: u64,
    /// Mode bits that would give more rights without those attributes.
    mode_bits: u32,
}

/// Sets the extended attributes of the tree, and returns those that were refused. A file with another owner than in the tree
/// gets no capabilities.
fn set_xattrs(
    attributes: &Attributes<'_>,
    is_foreign: bool,
    set: impl Fn(&[u8], &[u8]) -> SysResult<()>,
) -> Result<LostXattrs, AttributeFailure> {
    let mut lost = LostXattrs::default();
    for (name, value) in attributes.metadata.xattrs.iter().filter(|(name, _)| is_portable(name)) {
        let answer = if is_foreign && name == CAPABILITY { Err(Errno::PERM) } else { set(name, value) };
        match answer {
            Ok(()) => continue,
            Err(errno) if is_unsupported(errno) => lost.count += 1,
            // NOENT: there is no /proc for files that cannot be opened. INVAL: the kernel does not know such an attribute.
            // The others: this file system has less room for attributes than the one that they come from.
            Err(Errno::NOENT | Errno::INVAL | Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) => {
                lost.count += 1;
            }
            Err(errno) => return Err(failed("set the extended attributes of")(errno)),
        }
        if name == ACLS[0] {
            lost.mode_bits = attributes.masked_only();
        }
    }
    Ok(lost)
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_ability_of_a_file_system_is_told_from_an_error_that_ends_the_run() {
        for errno in [Errno::PERM, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS] {
            assert!(is_unsupported(errno), "{errno}");
        }
        for errno in [Errno::IO, Errno::NOSPC, Errno::ROFS, Errno::DQUOT, Errno::ACCESS, Errno::NOENT] {
            assert!(!is_unsupported(errno), "{errno}");
        }
    }
}
