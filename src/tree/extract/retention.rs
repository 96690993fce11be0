//! Detection of attributes that a file system accepts and does not keep.
//!
//! Some file systems have no owners, modes or precise times and report success when they are set: vfat and exFAT, SMB
//! shares, and network file systems with mapped users. So each value of an owner or a mode is read back the first time that
//! it is set on a file system, and mtimes until one was kept. On a file system that keeps everything this costs one `fstat`
//! for each owner and mode of the image, and not one for each file.

use crate::tree::Time;
use rustix::fs::Stat;
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};

/// The largest error of an mtime that counts as rounding, in seconds. FAT has a resolution of two seconds.
const MTIME_TOLERANCE: i64 = 2;

/// The most owners and modes that are remembered for a file system. Others are read back each time.
const MAX_VALUES: usize = 256;

/// The attributes that file systems keep, as far as they are known.
#[derive(Default)]
pub(super) struct Retention(HashMap<u64, Retained>);

/// The attributes that one file system keeps, as far as they are known.
#[derive(Default)]
pub(super) struct Retained {
    /// Owners, with `true` for those that are kept.
    owners: BTreeMap<(u32, u32), bool>,
    /// Modes, including the type of the file, with `true` for those that are kept.
    modes: BTreeMap<u32, bool>,
    /// Set when an mtime was kept.
    keeps_mtimes: bool,
}

/// Attributes that were set on a file without an error.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SetAttributes {
    pub owner: Option<(u32, u32)>,
    /// The mode, including the type of the file.
    pub mode: Option<u32>,
    pub mtime: Option<Time>,
}

/// The attributes of a file that were set and not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NotKept {
    pub owner: bool,
    pub mode: bool,
    pub mtime: bool,
}

impl Retention {
    /// Returns what is known about a file system.
    pub fn on(&mut self, device: u64) -> &mut Retained {
        self.0.entry(device).or_default()
    }
}

impl Retained {
    /// Returns which attributes of a file were not kept. `stat` is called if that is not known yet.
    pub fn check(
        &mut self,
        set: SetAttributes,
        stat: impl FnOnce() -> Result<Stat, Errno>,
    ) -> Result<NotKept, Errno> {
        let owner = set.owner.map(|owner| self.owners.get(&owner).copied());
        let mode = set.mode.map(|mode| self.modes.get(&mode).copied());
        let is_mtime_known = set.mtime.is_none() || self.keeps_mtimes;
        if is_mtime_known && owner != Some(None) && mode != Some(None) {
            let is_lost = |kept: Option<Option<bool>>| kept == Some(Some(false));
            return Ok(NotKept { owner: is_lost(owner), mode: is_lost(mode), mtime: false });
        }
        let found = stat()?;
        let mut not_kept = NotKept::default();
        if let Some(owner) = set.owner {
            not_kept.owner = owner != (found.st_uid, found.st_gid);
            remember(&mut self.owners, owner, !not_kept.owner);
        }
        if let Some(mode) = set.mode {
            not_kept.mode = mode != found.st_mode;
            remember(&mut self.modes, mode, !not_kept.mode);
        }
        if let Some(mtime) = set.mtime {
            not_kept.mtime = found.st_mtime.abs_diff(mtime.seconds) >= MTIME_TOLERANCE as u64;
            self.keeps_mtimes |= !not_kept.mtime;
        }
        Ok(not_kept)
    }
}

fn remember<K: Ord>(values: &mut BTreeMap<K, bool>, value: K, is_kept: bool) {
    if values.len() < MAX_VALUES {
        values.insert(value, is_kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A status with these values; the other fields are those of any file.
    fn status(owner: (u32, u32), mode: u32, seconds: i64) -> Stat {
        let mut stat = rustix::fs::stat("/").unwrap();
        (stat.st_uid, stat.st_gid) = owner;
        stat.st_mode = mode;
        stat.st_mtime = seconds;
        stat
    }

    fn set(uid: u32, mode: u32, seconds: i64) -> SetAttributes {
        let mtime = Some(Time { seconds, nanoseconds: 0 });
        SetAttributes { owner: Some((uid, 0)), mode: Some(mode), mtime }
    }

    #[test]
    fn a_file_system_that_keeps_attributes_is_asked_once_for_each_owner_and_mode() {
        let mut retained = Retained::default();
        let asked = Cell::new(0);
        let mut check = |uid, mode, seconds| {
            let found = retained.check(set(uid, mode, seconds), || {
                asked.set(asked.get() + 1);
                Ok(status((uid, 0), mode, seconds))
            });
            assert_eq!(found.unwrap(), NotKept::default());
            asked.get()
        };
        let asked: Vec<_> = [(0, 0o644, 1), (0, 0o644, 2), (5, 0o644, 3), (5, 0o600, 4), (0, 0o600, 5)]
            .map(|(uid, mode, seconds)| check(uid, mode, seconds))
            .into();
        assert_eq!(asked, [1, 1, 2, 3, 3]);
    }

    #[test]
    fn an_attribute_that_is_accepted_and_ignored_counts_for_each_entry_whose_value_is_lost() {
        let mut retained = Retained::default();
        let fat = |seconds| Ok(status((0, 0), 0o755, seconds));
        let lost = |owner, mode, mtime| NotKept { owner, mode, mtime };
        assert_eq!(retained.check(set(7, 0o644, 99), || fat(98)).unwrap(), lost(true, true, false));
        let unasked = || panic!("this is known");
        assert_eq!(retained.check(set(7, 0o644, 42), unasked).unwrap(), lost(true, true, false));
        assert_eq!(retained.check(set(0, 0o755, 42), || fat(42)).unwrap(), lost(false, false, false));
        assert_eq!(retained.check(set(0, 0o644, 42), unasked).unwrap(), lost(false, true, false));
    }

    #[test]
    fn mtimes_are_read_back_until_one_was_kept() {
        let mut retained = Retained::default();
        let only_mtime = |seconds| SetAttributes { mtime: set(0, 0, seconds).mtime, ..Default::default() };
        let mut is_lost = |wanted, found| {
            retained.check(only_mtime(wanted), || Ok(status((0, 0), 0, found))).unwrap().mtime
        };
        assert!(is_lost(0, 315_532_800), "FAT begins in 1980");
        assert!(is_lost(0, 315_532_800));
        assert!(!is_lost(1_000_000_001, 1_000_000_000), "FAT has even seconds");
    }
}
