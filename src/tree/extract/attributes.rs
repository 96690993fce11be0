//! Owner, permissions, extended attributes and mtime of something that was just made.

use super::ExtractOptions;
use crate::disk::directory::proc_path;
use crate::tree::dir_stack::SETGID;
use crate::tree::id_map::{ACLS, Unmapped, owning_group_permissions};
use crate::tree::xattr::travels;
use crate::tree::{Metadata, Time};
use rustix::fd::BorrowedFd;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fremovexattr, fsetxattr, fstat, futimens, openat, removexattr, setxattr, utimensat,
};
use rustix::io::{Errno, Result as Answer};
use std::borrow::Cow;

/// setuid and setgid: what gives the owner's rights to whoever runs a file.
const SPECIAL: u32 = 0o6000;

/// What gives rights of root's to whoever runs a file.
const CAPABILITY: &[u8] = b"security.capability";

/// What could not be restored because we may not, or because the file system has no such thing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    pub ownership: bool,
    pub mode: bool,
    pub xattrs: u64,
}

/// What failed, and how.
#[derive(Debug)]
pub(super) struct Failure {
    pub doing: &'static str,
    pub errno: Errno,
}

impl Failure {
    /// Whether somebody with more rights, or on a file system that can be written, would have succeeded.
    pub fn is_for_lack_of_rights(&self) -> bool {
        // BADF: the directory may be passed and not listed, so what is open is a mere place.
        matches!(self.errno, Errno::PERM | Errno::ACCESS | Errno::ROFS | Errno::BADF)
    }
}

/// What something shall have.
pub(super) struct Attributes<'a> {
    metadata: Cow<'a, Metadata>,
    /// Whether it gets another owner than the tree says, other than by a map: then it gives no rights away.
    is_given_away: bool,
    /// Whether ACLs that the tree does not have may have come from the directory above.
    pub may_inherit: bool,
    /// Whether the group may do what the owner may, whatever an ACL says.
    group_access: bool,
}

impl<'a> Attributes<'a> {
    /// These, as the options want them.
    ///
    /// # Errors
    /// The owner that the maps do not have.
    pub fn wanted(metadata: &'a Metadata, options: &ExtractOptions) -> Result<Self, Unmapped> {
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

    /// These and no others.
    pub fn exactly(metadata: &'a Metadata) -> Self {
        Self {
            metadata: Cow::Borrowed(metadata),
            is_given_away: false,
            may_inherit: true,
            group_access: false,
        }
    }

    /// The owner and the group.
    pub fn owner(&self) -> (u32, u32) {
        (self.metadata.uid, self.metadata.gid)
    }

    /// The mode, where that is all there is: no extended attributes, and no bits that give rights away.
    pub fn plain_mode(&self) -> Option<Mode> {
        let Metadata { mode, xattrs, .. } = &*self.metadata;
        (xattrs.is_empty() && mode & 0o7000 == 0).then(|| self.mode(0))
    }

    /// The mode without what is dropped: without its owner, a setuid file would give somebody else's rights away.
    fn mode(&self, dropped: u32) -> Mode {
        Mode::from_raw_mode(self.metadata.mode & 0o7777 & !dropped)
    }

    /// The mode bits of the group that only an ACL gave a meaning: where a file has one, they are its mask, the most that any
    /// user or group in it may do, and not what the owning group may do (acl(5)). A file without the ACL must not have them.
    fn masked_only(&self) -> u32 {
        let acl = self.metadata.xattrs.get(ACLS[0]).and_then(|acl| owning_group_permissions(acl));
        match acl {
            Some(permissions) if !self.group_access => 0o070 & !(permissions << 3),
            _ => 0,
        }
    }
}

/// What a new file has of that already.
#[derive(Clone, Copy, Default)]
pub(super) struct Given {
    pub owner: bool,
    pub mode: bool,
}

/// Gives an open file its attributes, as far as it was not made with them.
///
/// The order matters: a change of the owner takes setuid bits and capabilities away, an ACL changes the mode and the
/// mode an ACL, and extended attributes can be set only while the file may be written, which its final mode may forbid
/// even to its owner.
pub(super) fn apply(fd: BorrowedFd<'_>, wanted: &Attributes<'_>, given: Given) -> Result<Lost, Failure> {
    apply_open(fd, wanted, SPECIAL, given)
}

/// Gives an open directory its attributes. It keeps its setgid bit whosever it is: on a directory the bit gives no
/// rights away, and a group that shares a volume relies on it. `owner` is whose it is, where that is known.
pub(super) fn apply_to_directory(
    fd: BorrowedFd<'_>,
    wanted: &mut Attributes<'_>,
    owner: Option<(u32, u32)>,
    options: &ExtractOptions,
) -> Result<Lost, Failure> {
    if options.group_access {
        wanted.metadata.to_mut().mode |= SETGID;
    }
    let given = Given { owner: owner == Some(wanted.owner()), mode: false };
    apply_open(fd, wanted, 0, given)
}

fn apply_open(
    fd: BorrowedFd<'_>,
    wanted: &Attributes<'_>,
    special: u32,
    given: Given,
) -> Result<Lost, Failure> {
    let Metadata { uid, gid, mtime, .. } = &*wanted.metadata;
    let (uid, gid) = numbers(*uid, *gid);
    let ownership = !given.owner && is_lost(fchown(fd, uid, gid))?;
    let is_foreign = ownership || wanted.is_given_away;
    if wanted.may_inherit {
        drop_acls(wanted, |name| fremovexattr(fd, name))?;
    }
    let LostXattrs { count: xattrs, mode_bits } =
        set_xattrs(wanted, is_foreign, |name, value| fsetxattr(fd, name, value, XattrFlags::empty()))?;
    if !given.mode {
        let dropped = mode_bits | if is_foreign { special } else { 0 };
        fchmod(fd, wanted.mode(dropped)).map_err(failed("set the mode of"))?;
    }
    futimens(fd, &times(*mtime)).map_err(failed("set the mtime of"))?;
    Ok(Lost { ownership, xattrs, mode: false })
}

/// Gives an open directory that no entry has described the attributes of a plain one, but no other owner than it has
/// unless one was named.
pub(super) fn apply_plain(
    fd: BorrowedFd<'_>,
    may_inherit: bool,
    options: &ExtractOptions,
) -> Result<Lost, Failure> {
    let stat = fstat(fd).map_err(failed("look at"))?;
    let owner = (stat.st_uid, stat.st_gid);
    let mut plain = Metadata::implied_directory();
    (plain.uid, plain.gid) = (options.uid.unwrap_or(owner.0), options.gid.unwrap_or(owner.1));
    if options.group_access {
        plain.mode |= (plain.mode & 0o700) >> 3;
    }
    let mut wanted = Attributes { may_inherit, ..Attributes::exactly(&plain) };
    let lost = apply_to_directory(fd, &mut wanted, Some(owner), options)?;
    let is_owner_named = options.uid.or(options.gid).is_some();
    Ok(Lost { ownership: lost.ownership && is_owner_named, ..lost })
}

/// What was made under a name and cannot be opened: a fifo, a device or a symbolic link.
pub(super) struct Pinned<'a> {
    /// The thing itself, held by `O_PATH`: should somebody put a file of their own under its name, it is not that file
    /// that gets an owner and a mode.
    pub pin: BorrowedFd<'a>,
    /// Where it is, for kernels that cannot do everything by such a descriptor.
    pub directory: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a [u8],
    /// Links have no mode and no ACL.
    pub is_link: bool,
    /// What opens without a consequence, and not a device.
    pub is_fifo: bool,
}

/// Gives a fifo, a device or a symbolic link its attributes.
pub(super) fn apply_pinned(thing: &Pinned<'_>, wanted: &Attributes<'_>) -> Result<Lost, Failure> {
    let Metadata { uid, gid, mtime, .. } = &*wanted.metadata;
    let (uid, gid) = numbers(*uid, *gid);
    let ownership = is_lost(chownat(thing.pin, "", uid, gid, AtFlags::EMPTY_PATH))?;
    let is_foreign = ownership || wanted.is_given_away;
    // A descriptor of this kind can be used for little; its magic link in /proc leads to the thing itself.
    let path = proc_path(thing.pin);
    if wanted.may_inherit && !thing.is_link {
        drop_acls(wanted, |name| removexattr(&path, name))?;
    }
    let set = |name: &[u8], value: &[u8]| setxattr(&path, name, value, XattrFlags::empty());
    let LostXattrs { count: xattrs, mode_bits } = set_xattrs(wanted, is_foreign, set)?;
    let mode = wanted.mode(mode_bits | if is_foreign { SPECIAL } else { 0 });
    let mode = !thing.is_link && thing.set_mode(&path, mode).map_err(failed("set the mode of"))?;
    thing.set_mtime(*mtime).map_err(failed("set the mtime of"))?;
    Ok(Lost { ownership, xattrs, mode })
}

impl Pinned<'_> {
    /// Sets the mode; returns whether that was impossible.
    fn set_mode(&self, path: &str, mode: Mode) -> Answer<bool> {
        let stat = fstat(self.pin)?;
        if stat.st_mode & 0o7777 == mode.bits() {
            return Ok(false);
        }
        match chmodat(CWD, path, mode, AtFlags::empty()) {
            // There is no /proc. To open a device may do anything; a fifo, if it is still this one, does nothing.
            Err(Errno::NOENT) if self.is_fifo => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fifo = openat(self.directory, self.name, flags, Mode::empty())?;
                let now = fstat(&fifo)?;
                match (now.st_dev, now.st_ino) == (stat.st_dev, stat.st_ino) {
                    true => fchmod(fifo, mode).map(|()| false),
                    false => Err(Errno::STALE),
                }
            }
            Err(Errno::NOENT) => Ok(true),
            set => set.map(|()| false),
        }
    }

    fn set_mtime(&self, mtime: Time) -> Answer<()> {
        match utimensat(self.pin, "", &times(mtime), AtFlags::EMPTY_PATH) {
            // Linux before 5.8. By its name, then, and whatever has that name is not followed.
            Err(Errno::INVAL) => {
                utimensat(self.directory, self.name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
            }
            set => set,
        }
    }
}

fn failed(doing: &'static str) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { doing, errno }
}

/// The owner and the group, none of which is the highest number.
fn numbers(uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Whether the owner was not restored: we may not (`EPERM`), or the user namespace does not know it (`EINVAL`).
fn is_lost(answer: Answer<()>) -> Result<bool, Failure> {
    match answer {
        Ok(()) => Ok(false),
        Err(Errno::PERM | Errno::INVAL | Errno::NOTSUP) => Ok(true),
        Err(errno) => Err(failed("set the owner of")(errno)),
    }
}

/// Takes away the ACLs that the tree does not have: a directory hands its default ACL down to all that is made in it.
fn drop_acls(wanted: &Attributes<'_>, remove: impl Fn(&[u8]) -> Answer<()>) -> Result<(), Failure> {
    for name in ACLS.into_iter().filter(|name| !wanted.metadata.xattrs.contains_key(*name)) {
        match remove(name) {
            // ACCES: only directories have default ACLs. NOENT: there is no /proc.
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::ACCESS | Errno::NOENT) => {}
            Err(errno) => return Err(failed("remove the ACL of")(errno)),
        }
    }
    Ok(())
}

/// What was lost of extended attributes.
#[derive(Default)]
struct LostXattrs {
    count: u64,
    /// Mode bits that would give more rights away without them.
    mode_bits: u32,
}

/// Sets what belongs to the tree, and says which attributes were refused. What has another owner than the tree says gets no
/// capabilities.
fn set_xattrs(
    wanted: &Attributes<'_>,
    is_foreign: bool,
    set: impl Fn(&[u8], &[u8]) -> Answer<()>,
) -> Result<LostXattrs, Failure> {
    let mut lost = LostXattrs::default();
    for (name, value) in wanted.metadata.xattrs.iter().filter(|(name, _)| travels(name)) {
        let answer = match is_foreign && name == CAPABILITY {
            true => Err(Errno::PERM),
            false => set(name, value),
        };
        match answer {
            Ok(()) => continue,
            // NOENT: there is no /proc to reach by what cannot be opened. INVAL: there is no attribute of that kind. The
            // others: this file system has less room for them than the one where they come from.
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOENT | Errno::INVAL) => lost.count += 1,
            Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) => lost.count += 1,
            Err(errno) => return Err(failed("set the extended attributes of")(errno)),
        }
        if name == ACLS[0] {
            lost.mode_bits = wanted.masked_only();
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
