//! Comparison of two trees by the metadata of their entries.
//!
//! One tree is recorded, such as that of an image, and the other one is found on disk. Their entries are brought together by
//! path ([`pairs`]), and two entries with the same path are compared without their contents ([`compare`]). Times are compared
//! for equality, and never by which is later: a clock may be wrong.

use super::{Entry, EntryKind, Metadata, TreePath, WalkedEntry};
use crate::error::Result;
use std::cmp::Ordering;

/// A value with the path of an entry.
pub trait AtPath {
    /// The path.
    fn path(&self) -> &TreePath;
}

impl AtPath for Entry {
    fn path(&self) -> &TreePath {
        &self.path
    }
}

impl AtPath for WalkedEntry {
    fn path(&self) -> &TreePath {
        &self.entry.path
    }
}

impl<T> AtPath for (Entry, T) {
    fn path(&self) -> &TreePath {
        &self.0.path
    }
}

/// The entries of two trees at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryPair<L, R> {
    /// Only the left tree has the path.
    Left(L),
    /// Only the right tree has the path.
    Right(R),
    /// Both trees have the path.
    Both(L, R),
}

/// Returns the entries of two trees by path, in the order of paths. Each tree must have that order.
///
/// # Errors
/// Those of either tree; the sequence ends after the first one.
pub fn pairs<L: AtPath, R: AtPath>(
    left: impl IntoIterator<Item = Result<L>>,
    right: impl IntoIterator<Item = Result<R>>,
) -> impl Iterator<Item = Result<EntryPair<L, R>>> {
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    let mut is_failed = false;
    std::iter::from_fn(move || {
        if is_failed {
            return None;
        }
        let order = match (left.peek(), right.peek()) {
            (None, None) => return None,
            (Some(Ok(one)), Some(Ok(other))) => one.path().cmp(other.path()),
            // An error is taken from its side at once.
            (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
            (_, Some(_)) => Ordering::Greater,
        };
        let taken = (
            if order.is_le() { left.next().transpose() } else { Ok(None) },
            if order.is_ge() { right.next().transpose() } else { Ok(None) },
        );
        let pair = match taken {
            (Ok(Some(one)), Ok(Some(other))) => Ok(EntryPair::Both(one, other)),
            (Ok(Some(one)), Ok(None)) => Ok(EntryPair::Left(one)),
            (Ok(None), Ok(Some(other))) => Ok(EntryPair::Right(other)),
            (Ok(None), Ok(None)) => return None,
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        is_failed = pair.is_err();
        Some(pair)
    })
}

/// The result of comparing two entries with the same path by everything but their contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Kind and metadata are equal.
    Equal,
    /// Kind and metadata are equal, but the record has the mtime in whole seconds only, as archives without PAX records do.
    EqualToTheSecond,
    /// Mode, owner, extended attributes, or the mtime of an entry other than a file differ.
    Metadata,
    /// The size or the mtime of a file differs, so that its content may differ.
    Content,
    /// The kind differs, or the target of a link, or the numbers of a device.
    Kind,
}

/// Compares the recorded entry of a path with the one that was found there. Hard links are equal if they lead to the same
/// path; their metadata is that of the entry they lead to. The mode of symbolic links has no effect and is not compared.
pub fn compare(recorded: &Entry, found: &Entry) -> Comparison {
    let is_equal_kind = match (&recorded.kind, &found.kind) {
        (EntryKind::File { .. }, EntryKind::File { .. }) => true,
        (EntryKind::Hardlink { target }, EntryKind::Hardlink { target: other }) if target == other => {
            return Comparison::Equal;
        }
        (recorded, found) => recorded == found,
    };
    if !is_equal_kind {
        return Comparison::Kind;
    }
    let (Metadata { mtime: recorded_mtime, .. }, Metadata { mtime, .. }) =
        (&recorded.metadata, &found.metadata);
    let is_whole = recorded_mtime.nanoseconds == 0 && recorded_mtime.seconds == mtime.seconds;
    let is_equal_mtime = recorded_mtime == mtime || is_whole;
    let is_file = matches!(found.kind, EntryKind::File { .. });
    if is_file && (recorded.kind != found.kind || !is_equal_mtime) {
        Comparison::Content
    } else if !is_equal_mtime || !has_equal_attributes(recorded, found) {
        Comparison::Metadata
    } else if recorded_mtime == mtime {
        Comparison::Equal
    } else {
        Comparison::EqualToTheSecond
    }
}

/// Returns whether mode, owner and the extended attributes that belong to a tree are equal.
fn has_equal_attributes(recorded: &Entry, found: &Entry) -> bool {
    let (one, other) = (&recorded.metadata, &found.metadata);
    let has_mode = !matches!(found.kind, EntryKind::Symlink { .. });
    (one.mode == other.mode || !has_mode)
        && (one.uid, one.gid) == (other.uid, other.gid)
        && one.portable_xattrs().eq(other.portable_xattrs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::tree::Time;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        let mtime = Time { seconds: 1_700_000_000, nanoseconds: 5 };
        let metadata = Metadata { mode: 0o644, mtime, ..Metadata::default() };
        Entry { path: TreePath::parse(path).unwrap(), kind, metadata }
    }

    fn file(path: &str) -> Entry {
        entry(path, EntryKind::File { size: 1 })
    }

    #[test]
    fn entries_of_two_trees_are_brought_together_by_path() {
        let tree = |paths: &[&str]| paths.iter().map(|path| Ok(file(path))).collect::<Vec<_>>();
        let found: Vec<_> =
            pairs(tree(&["a", "a/b", "c"]), tree(&["a/b", "a.b"])).map(Result::unwrap).collect();
        let expected = [
            EntryPair::Left(file("a")),
            EntryPair::Both(file("a/b"), file("a/b")),
            EntryPair::Right(file("a.b")),
            EntryPair::Left(file("c")),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_follows_an_error_of_either_tree() {
        for is_left in [true, false] {
            let good = vec![Ok(file("a")), Ok(file("b"))];
            let bad = vec![Ok(file("a")), Err(Error::failed("cannot read")), Ok(file("b"))];
            let (left, right) = if is_left { (bad, good) } else { (good, bad) };
            let found: Vec<_> = pairs(left, right).collect();
            assert_eq!(found.len(), 2);
            assert!(found[1].is_err());
        }
    }

    #[test]
    fn each_attribute_makes_a_difference_of_its_kind() {
        let recorded = file("a");
        let changed = |change: &dyn Fn(&mut Entry)| {
            let mut found = file("a");
            change(&mut found);
            compare(&recorded, &found)
        };
        assert_eq!(changed(&|_| {}), Comparison::Equal);
        assert_eq!(changed(&|found| found.kind = EntryKind::File { size: 2 }), Comparison::Content);
        assert_eq!(changed(&|found| found.metadata.mtime.nanoseconds += 1), Comparison::Content);
        assert_eq!(changed(&|found| found.metadata.mtime.seconds -= 9), Comparison::Content);
        assert_eq!(changed(&|found| found.metadata.mode = 0o600), Comparison::Metadata);
        assert_eq!(changed(&|found| found.metadata.uid = 1), Comparison::Metadata);
        assert_eq!(changed(&|found| found.metadata.gid = 1), Comparison::Metadata);
        assert_eq!(changed(&|found| found.kind = EntryKind::Fifo), Comparison::Kind);
        let xattr = |name: &[u8]| (name.to_vec(), b"1".to_vec());
        assert_eq!(changed(&|found| found.metadata.xattrs = [xattr(b"user.a")].into()), Comparison::Metadata);
        let label = |found: &mut Entry| found.metadata.xattrs = [xattr(b"security.selinux")].into();
        assert_eq!(changed(&label), Comparison::Equal);
    }

    #[test]
    fn a_record_in_whole_seconds_is_equal_to_the_second() {
        let found = file("a");
        let mut recorded = file("a");
        recorded.metadata.mtime.nanoseconds = 0;
        assert_eq!(compare(&recorded, &found), Comparison::EqualToTheSecond);
        // The precision is that of the record and not that of the file system.
        assert_eq!(compare(&found, &recorded), Comparison::Content);
    }

    #[test]
    fn links_and_directories_differ_by_their_own_attributes() {
        let link = |target: &str| entry("a", EntryKind::Symlink { target: target.into() });
        assert_eq!(compare(&link("x"), &link("y")), Comparison::Kind);
        let mut other_mode = link("x");
        other_mode.metadata.mode = 0o777;
        assert_eq!(compare(&link("x"), &other_mode), Comparison::Equal);
        let hard =
            |target: &str| entry("b", EntryKind::Hardlink { target: TreePath::parse(target).unwrap() });
        assert_eq!(compare(&hard("a"), &hard("a")), Comparison::Equal);
        assert_eq!(compare(&hard("a"), &hard("c")), Comparison::Kind);
        let mut later = entry("d", EntryKind::Directory);
        later.metadata.mtime.seconds += 1;
        assert_eq!(compare(&entry("d", EntryKind::Directory), &later), Comparison::Metadata);
    }
}
