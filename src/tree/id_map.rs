//! Ownership: a single owner for everything, or maps between the uids and gids of an image and those of the host.

use super::Metadata;
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The extended attributes with POSIX ACLs. Their entries have uids and gids.
pub(super) const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// `UID:GID`, by number: a user name has no meaning on another machine.
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
        let numbers = text.split_once(':').and_then(|(uid, gid)| Some((id(uid)?, id(gid)?)));
        match numbers {
            Some((uid, gid)) => Ok(Self { uid, gid }),
            None => Err(Error::usage(format!("{text:?} is not an owner"))
                .with_hint("write UID:GID with numbers up to 4294967294, for example 1000:1000")),
        }
    }
}

/// `CONTAINER:HOST[:SIZE]`: SIZE consecutive ids, which begin at CONTAINER in images and at HOST on disk.
///
/// SIZE is 1 unless given. The order and the words are those of `user_namespaces(7)`, podman, buildah and umoci.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id in images.
    pub container: u32,
    /// The first id on disk.
    pub host: u32,
    /// The number of ids; at least one.
    pub size: u32,
}

impl IdRange {
    /// Returns whether two ranges have an id in common, in images or on disk.
    fn overlaps(&self, other: &Self) -> bool {
        let overlap = |a: u32, b: u32| if a <= b { b - a < self.size } else { a - b < other.size };
        overlap(self.container, other.container) || overlap(self.host, other.host)
    }
}

impl FromStr for IdRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || {
            Error::usage(format!("{text:?} is not a range of a map"))
                .with_hint("write CONTAINER:HOST:SIZE, for example 0:100000:65536")
        };
        let numbers: Option<Vec<u32>> = text.split(':').map(id).collect();
        let (container, host, size) = match numbers.as_deref() {
            Some([container, host]) => (*container, *host, 1),
            Some([container, host, size]) => (*container, *host, *size),
            _ => return Err(invalid()),
        };
        // The highest number is not an id: to chown(2) it means "no change".
        let fits = |first: u32| first.checked_add(size).is_some();
        if size > 0 && fits(container) && fits(host) {
            Ok(Self { container, host, size })
        } else {
            Err(invalid())
        }
    }
}

/// Parses a uid or gid.
fn id(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && *number != u32::MAX)
}

/// A map between the ids in images and on disk. Without a range, they are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap(Vec<IdRange>);

impl IdMap {
    /// A map of ranges in any order.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when ranges overlap.
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

    /// Returns whether no id changes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the id in images for an id on disk; `None` if the map does not have it.
    pub fn to_container(&self, host: u32) -> Option<u32> {
        self.find(host, |range| (range.host, range.container))
    }

    /// Returns the id on disk for an id in images; `None` if the map does not have it.
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

/// The ranges as they are parsed, separated by commas.
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
    /// The map of users.
    pub uid: IdMap,
    /// The map of groups.
    pub gid: IdMap,
}

/// An id that a map does not have.
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
    /// Maps with these ranges. If only one of them has any, it applies to users and groups, as in buildah.
    ///
    /// # Errors
    /// [`Usage`](crate::error::Kind::Usage) when ranges overlap.
    pub fn new(uid: impl Into<Vec<IdRange>>, gid: impl Into<Vec<IdRange>>) -> Result<Self> {
        let (uid, gid) = (IdMap::new(uid)?, IdMap::new(gid)?);
        Ok(match (uid.is_empty(), gid.is_empty()) {
            (true, false) => Self { uid: gid.clone(), gid },
            (false, true) => Self { gid: uid.clone(), uid },
            _ => Self { uid, gid },
        })
    }

    /// Returns whether no id changes.
    pub fn is_empty(&self) -> bool {
        self.uid.is_empty() && self.gid.is_empty()
    }

    /// Replaces the ids on disk, also those in ACLs, by the ids in images.
    ///
    /// # Errors
    /// The first id that the maps do not have; then nothing is replaced.
    pub fn to_container(&self, metadata: &mut Metadata) -> Result<(), Unmapped> {
        replace(metadata, |uid| self.uid.to_container(uid), |gid| self.gid.to_container(gid))
    }

    /// Replaces the ids in images, also those in ACLs, by the ids on disk.
    ///
    /// # Errors
    /// The first id that the maps do not have; then nothing is replaced.
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

/// The version at the beginning of an ACL as an extended attribute (`linux/posix_acl_xattr.h`). Entries of eight bytes
/// follow, in little-endian order: tag (2), permissions (2), id (4).
const ACL_VERSION: [u8; 4] = 2u32.to_le_bytes();
const ACL_USER: [u8; 2] = 2u16.to_le_bytes();
const ACL_OWNING_GROUP: [u8; 2] = 4u16.to_le_bytes();
const ACL_GROUP: [u8; 2] = 8u16.to_le_bytes();

/// Returns the permissions of the owning group in an ACL (`ACL_GROUP_OBJ`), as the lowest three bits.
pub(super) fn owning_group_permissions(acl: &[u8]) -> Option<u32> {
    let mut entries = acl.strip_prefix(&ACL_VERSION)?.chunks_exact(8);
    entries.find(|entry| entry.starts_with(&ACL_OWNING_GROUP)).map(|entry| u32::from(entry[2] & 0o7))
}

/// Returns an ACL with other ids. Bytes that are not an ACL stay as they are.
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
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let replaced = match [entry[0], entry[1]] {
            ACL_USER => uid(id)?,
            ACL_GROUP => gid(id)?,
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
        assert!("0:0:4294967295".parse::<IdRange>().is_err(), "that is not an id");
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
    fn an_id_is_mapped_in_both_directions_and_one_without_a_range_is_reported() {
        let map = map(&["0:1000:1", "1:100000:65536"]).unwrap();
        for (container, host) in [(0, 1000), (1, 100_000), (65_536, 165_535)] {
            assert_eq!(map.to_host(container), Some(host));
            assert_eq!(map.to_container(host), Some(container));
        }
        assert_eq!((map.to_host(65_537), map.to_container(0), map.to_container(165_536)), (None, None, None));
        assert_eq!(IdMap::default().to_host(7), Some(7));
    }

    #[test]
    fn ranges_that_overlap_are_refused() {
        for ranges in
            [["0:0:10", "9:100:1"], ["0:10:10", "100:19:5"], ["100:19:5", "0:10:10"], ["1:1", "1:1"]]
        {
            assert!(map(&ranges).is_err(), "{ranges:?}");
        }
        assert!(map(&["0:10:10", "10:0:10", "20:20"]).is_ok());
    }

    #[test]
    fn one_map_applies_to_users_and_groups_unless_both_are_given() {
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
    fn the_users_and_groups_in_acls_are_mapped_too() {
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
