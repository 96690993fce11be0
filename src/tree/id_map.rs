//! Whose things are: one owner for all, or numbers that mean others inside of an image than outside.

use super::Metadata;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The extended attributes that hold POSIX ACLs: their entries name users and groups by number.
pub(super) const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// `UID:GID`, by number: what a user is called here says nothing about who it is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl FromStr for Owner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once(':').and_then(|(uid, gid)| Some((number(uid)?, number(gid)?)));
        match numbers {
            Some((uid, gid)) => Ok(Self { uid, gid }),
            None => Err(Error::usage(format!("{text:?} is not an owner"))
                .with_hint("write UID:GID with numbers up to 4294967294, for example 1000:1000")),
        }
    }
}

/// `CONTAINER:HOST[:SIZE]`: numbers that follow one another, inside from CONTAINER on and outside from HOST on.
///
/// SIZE is 1 unless given. The order and the words are those of `user_namespaces(7)`, podman, buildah and umoci.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first number inside, in images.
    pub container: u32,
    /// The first number outside, on disk.
    pub host: u32,
    /// How many there are; at least one.
    pub size: u32,
}

impl IdRange {
    /// Whether both have a number inside or outside in common.
    fn overlaps(&self, other: &Self) -> bool {
        let both = |a: u32, b: u32| match a <= b {
            true => b - a < self.size,
            false => a - b < other.size,
        };
        both(self.container, other.container) || both(self.host, other.host)
    }
}

impl FromStr for IdRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || {
            Error::usage(format!("{text:?} is not a range of a map"))
                .with_hint("write CONTAINER:HOST:SIZE, for example 0:100000:65536")
        };
        let numbers: Option<Vec<u32>> = text.split(':').map(number).collect();
        let (container, host, size) = match numbers.as_deref() {
            Some([container, host]) => (*container, *host, 1),
            Some([container, host, size]) => (*container, *host, *size),
            _ => return Err(invalid()),
        };
        // The highest number is none: to chown(2) it means "leave it as it is".
        let fits = |first: u32| first.checked_add(size).is_some();
        match size > 0 && fits(container) && fits(host) {
            true => Ok(Self { container, host, size }),
            false => Err(invalid()),
        }
    }
}

/// A number that an owner can have.
fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && *number != u32::MAX)
}

/// What numbers mean inside and outside. Without a range, the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap(Vec<IdRange>);

impl IdMap {
    /// A map of ranges in any order.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when a number has two meanings.
    pub fn new(ranges: impl Into<Vec<IdRange>>) -> Result<Self> {
        let ranges = ranges.into();
        for (n, range) in ranges.iter().enumerate() {
            if let Some(other) = ranges[..n].iter().find(|other| other.overlaps(range)) {
                return Err(Error::usage(format!("the ranges {other} and {range} of a map overlap"))
                    .with_hint("give every number one meaning"));
            }
        }
        Ok(Self(ranges))
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number inside for one outside; `None` when it has none.
    pub fn to_container(&self, host: u32) -> Option<u32> {
        self.find(host, |range| (range.host, range.container))
    }

    /// The number outside for one inside; `None` when it has none.
    pub fn to_host(&self, container: u32) -> Option<u32> {
        self.find(container, |range| (range.container, range.host))
    }

    fn find(&self, id: u32, ends: impl Fn(&IdRange) -> (u32, u32)) -> Option<u32> {
        if self.is_empty() {
            return Some(id);
        }
        self.0.iter().find_map(|range| {
            let (from, to) = ends(range);
            let offset = id.checked_sub(from).filter(|offset| *offset < range.size)?;
            Some(to + offset)
        })
    }
}

/// The ranges as they are written, with commas between them.
impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, range) in self.0.iter().enumerate() {
            write!(f, "{}{range}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.container, self.host, self.size)
    }
}

/// A map for users and one for groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// What the numbers of users mean.
    pub uid: IdMap,
    /// What the numbers of groups mean.
    pub gid: IdMap,
}

/// A number that a map does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmapped {
    /// A user.
    Uid(u32),
    /// A group.
    Gid(u32),
}

impl fmt::Display for Unmapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => write!(f, "the user {uid} is in no range of the map"),
            Self::Gid(gid) => write!(f, "the group {gid} is in no range of the map"),
        }
    }
}

impl IdMaps {
    /// Maps of these ranges. Where only one of them has any, it counts for users and groups, as buildah has it.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when a number has two meanings.
    pub fn new(uid: impl Into<Vec<IdRange>>, gid: impl Into<Vec<IdRange>>) -> Result<Self> {
        let (uid, gid) = (IdMap::new(uid)?, IdMap::new(gid)?);
        Ok(match (uid.is_empty(), gid.is_empty()) {
            (true, false) => Self { uid: gid.clone(), gid },
            (false, true) => Self { gid: uid.clone(), uid },
            _ => Self { uid, gid },
        })
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.uid.is_empty() && self.gid.is_empty()
    }

    /// Replaces the numbers of the disk, in ACLs too, by those that an image shall have.
    ///
    /// # Errors
    /// The first number that has no other; then nothing is replaced.
    pub fn to_container(&self, metadata: &mut Metadata) -> Result<(), Unmapped> {
        replace(metadata, |uid| self.uid.to_container(uid), |gid| self.gid.to_container(gid))
    }

    /// Replaces the numbers of an image, in ACLs too, by those that the disk shall have.
    ///
    /// # Errors
    /// The first number that has no other; then nothing is replaced.
    pub fn to_host(&self, metadata: &mut Metadata) -> Result<(), Unmapped> {
        replace(metadata, |uid| self.uid.to_host(uid), |gid| self.gid.to_host(gid))
    }
}

fn replace(
    metadata: &mut Metadata,
    uid: impl Fn(u32) -> Option<u32>,
    gid: impl Fn(u32) -> Option<u32>,
) -> Result<(), Unmapped> {
    let uid = |id| uid(id).ok_or(Unmapped::Uid(id));
    let gid = |id| gid(id).ok_or(Unmapped::Gid(id));
    let owner = (uid(metadata.uid)?, gid(metadata.gid)?);
    let mut acls = Vec::new();
    for name in ACLS {
        if let Some(acl) = metadata.xattrs.get(name) {
            acls.push((name.to_vec(), replace_in_acl(acl, uid, gid)?));
        }
    }
    (metadata.uid, metadata.gid) = owner;
    metadata.xattrs.extend(acls);
    Ok(())
}

/// An ACL as an extended attribute begins with its version (`linux/posix_acl_xattr.h`). Entries of eight bytes follow: what kind
/// (2), what is allowed (2), whom (4), little-endian.
const ACL_VERSION: [u8; 4] = 2u32.to_le_bytes();
const ACL_USER: [u8; 2] = 2u16.to_le_bytes();
const ACL_OWNING_GROUP: [u8; 2] = 4u16.to_le_bytes();
const ACL_GROUP: [u8; 2] = 8u16.to_le_bytes();

/// What an ACL allows the owning group, as the lowest three bits (ACL_GROUP_OBJ).
pub(super) fn owning_group_permissions(acl: &[u8]) -> Option<u32> {
    let mut entries = acl.strip_prefix(&ACL_VERSION)?.chunks_exact(8);
    entries.find(|entry| entry.starts_with(&ACL_OWNING_GROUP)).map(|entry| u32::from(entry[2] & 0o7))
}

/// The same ACL with other numbers. What is none stays as it is.
fn replace_in_acl(
    acl: &[u8],
    uid: impl Fn(u32) -> Result<u32, Unmapped>,
    gid: impl Fn(u32) -> Result<u32, Unmapped>,
) -> Result<Vec<u8>, Unmapped> {
    let mut acl = acl.to_vec();
    if !acl.starts_with(&ACL_VERSION) {
        return Ok(acl);
    }
    for entry in acl[ACL_VERSION.len()..].chunks_exact_mut(8) {
        let whom = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let replaced = match [entry[0], entry[1]] {
            ACL_USER => uid(whom)?,
            ACL_GROUP => gid(whom)?,
            _ => continue,
        };
        entry[4..].copy_from_slice(&replaced.to_le_bytes());
    }
    Ok(acl)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[&str]) -> Result<IdMap> {
        IdMap::new(ranges.iter().map(|range| range.parse()).collect::<Result<Vec<_>>>()?)
    }

    #[test]
    fn a_range_has_two_ends_and_a_size_that_may_be_left_out() {
        let range: IdRange = "0:100000:65536".parse().unwrap();
        assert_eq!(range, IdRange { container: 0, host: 100_000, size: 65_536 });
        assert_eq!("1:2".parse::<IdRange>().unwrap().size, 1);
        assert!("0:0:4294967295".parse::<IdRange>().is_err(), "that is no number of an owner");
        assert!("0:0:4294967294".parse::<IdRange>().is_ok() && "4294967294:0:1".parse::<IdRange>().is_ok());
        for bad in
            ["", "0", "0:1:0", "0:1:2:3", "a:1:1", "-1:0:1", "+1:0:1", "0:4294967294:2", "0:1:", "@0:1:1"]
        {
            assert!(bad.parse::<IdRange>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_owner_is_two_numbers() {
        assert_eq!("0:4294967294".parse::<Owner>().unwrap(), Owner { uid: 0, gid: u32::MAX - 1 });
        for bad in ["", "1000", "1000:", ":1000", "root:root", "1:2:3", "-1:0", "4294967295:0"] {
            assert!(bad.parse::<Owner>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_goes_in_comes_out_and_what_has_no_meaning_is_told() {
        let map = map(&["0:1000:1", "1:100000:65536"]).unwrap();
        for (container, host) in [(0, 1000), (1, 100_000), (65_536, 165_535)] {
            assert_eq!(map.to_host(container), Some(host));
            assert_eq!(map.to_container(host), Some(container));
        }
        assert_eq!((map.to_host(65_537), map.to_container(0), map.to_container(165_536)), (None, None, None));
        assert_eq!(IdMap::default().to_host(7), Some(7));
    }

    #[test]
    fn no_number_has_two_meanings() {
        for ranges in
            [["0:0:10", "9:100:1"], ["0:10:10", "100:19:5"], ["100:19:5", "0:10:10"], ["1:1", "1:1"]]
        {
            assert!(map(&ranges).is_err(), "{ranges:?}");
        }
        assert!(map(&["0:10:10", "10:0:10", "20:20"]).is_ok());
    }

    #[test]
    fn one_map_counts_for_both_unless_both_are_given() {
        let range = |text: &str| vec![text.parse::<IdRange>().unwrap()];
        let maps = IdMaps::new(range("0:1000:1"), vec![]).unwrap();
        assert_eq!((maps.uid.to_host(0), maps.gid.to_host(0)), (Some(1000), Some(1000)));
        let maps = IdMaps::new(vec![], range("0:1000:1")).unwrap();
        assert_eq!((maps.uid.to_host(0), maps.gid.to_host(0)), (Some(1000), Some(1000)));
        let maps = IdMaps::new(range("0:1000:1"), range("0:100:1")).unwrap();
        assert_eq!((maps.uid.to_host(0), maps.gid.to_host(0)), (Some(1000), Some(100)));
        assert!(IdMaps::default().is_empty() && !maps.is_empty());
    }

    #[test]
    fn acls_name_users_and_groups_too() {
        let entry = |tag: u16, perm: u16, id: u32| {
            [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let acl = |user: u32, group: u32| {
            let entries =
                [entry(1, 6, u32::MAX), entry(2, 4, user), entry(8, 4, group), entry(0x20, 0, u32::MAX)];
            [2u32.to_le_bytes().to_vec(), entries.concat()].concat()
        };
        let with = |uid: u32, gid: u32| Metadata {
            uid,
            gid,
            xattrs: [(ACLS[0].to_vec(), acl(uid, gid)), (ACLS[1].to_vec(), vec![1, 2])].into(),
            ..Metadata::default()
        };
        let range = |text: &str| vec![text.parse::<IdRange>().unwrap()];
        let maps = IdMaps::new(range("5:100:10"), range("50:200:10")).unwrap();
        let mut metadata = with(101, 202);
        maps.to_container(&mut metadata).unwrap();
        assert_eq!(metadata, with(6, 52));
        maps.to_host(&mut metadata).unwrap();
        assert_eq!(metadata, with(101, 202));
        let mut foreign = Metadata { gid: 200, uid: 100, ..with(101, 7) };
        let before = foreign.clone();
        assert_eq!(maps.to_container(&mut foreign), Err(Unmapped::Gid(7)), "of the ACL");
        assert_eq!(foreign, before);
    }
}
