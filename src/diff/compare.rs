//! Two trees side by side.

use super::content::Learned;
use crate::oci::Digest;
use crate::tree::{Entry, EntryKind, MergedTree, Time, TreePath};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

/// What there is to compare, in the order in which it is told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// File, directory, symbolic link, fifo, device.
    Type,
    /// The length of a file in bytes. Where it differs, the content is not mentioned.
    Size,
    /// What is in a file, by its digest.
    Content,
    /// What a symbolic link says.
    Target,
    /// The numbers of a device.
    Device,
    /// The permissions; those of symbolic links mean nothing and are not compared.
    Mode,
    /// Owner and group.
    Owner,
    /// The time of the last change, with nanoseconds.
    Mtime,
    /// Of what other, earlier path this is another name.
    Hardlink,
    /// An extended attribute by its name; the empty name stands for all of them where they are ignored.
    Xattr(String),
}

/// A path at which two trees differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub path: TreePath,
    /// How.
    pub change: Change,
}

/// How two trees differ at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the second one has it.
    Added,
    /// Only the first one has it.
    Removed,
    /// Both have it, and one attribute is not the same.
    Changed {
        /// Which one.
        attribute: Attribute,
        /// What it is in the first tree; `None` where there is none.
        left: Option<String>,
        /// What it is in the second tree.
        right: Option<String>,
    },
}

/// An entry of one tree, and what is known of it.
type Found<'a> = (Entry, &'a Learned);

/// What differs, in the order of paths.
pub(super) fn compare<'a>(
    left: &'a MergedTree<Learned>,
    right: &'a MergedTree<Learned>,
    ignore: &'a BTreeSet<Attribute>,
) -> impl Iterator<Item = Difference> + 'a {
    pairs(left, right).flat_map(move |(a, b)| {
        let path = a.as_ref().or(b.as_ref()).map(|(entry, _)| entry.path.clone()).unwrap_or_default();
        let mut changes = Vec::new();
        match (a, b) {
            (Some(a), Some(b)) => compare_entries((left, a), (right, b), |attribute, left, right| {
                if left != right && !is_ignored(&attribute, ignore) {
                    changes.push(Change::Changed { attribute, left, right });
                }
            }),
            // Every tree has a root, whether it says so or not.
            _ if path.is_root() => {}
            (Some(_), None) => changes.push(Change::Removed),
            (None, _) => changes.push(Change::Added),
        }
        changes.into_iter().map(move |change| Difference { path: path.clone(), change })
    })
}

/// The entries of both trees side by side, in the order of paths.
pub(super) fn pairs<'a>(
    left: &'a MergedTree<Learned>,
    right: &'a MergedTree<Learned>,
) -> impl Iterator<Item = (Option<Found<'a>>, Option<Found<'a>>)> + 'a {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.path.cmp(&b.path),
        };
        let a = if order.is_le() { left.next() } else { None };
        let b = if order.is_ge() { right.next() } else { None };
        Some((a, b))
    })
}

fn is_ignored(attribute: &Attribute, ignore: &BTreeSet<Attribute>) -> bool {
    match attribute {
        Attribute::Xattr(_) => ignore.contains(&Attribute::Xattr(String::new())),
        // A content of another size is another content.
        Attribute::Size => ignore.contains(attribute) || ignore.contains(&Attribute::Content),
        attribute => ignore.contains(attribute),
    }
}

/// Tells every attribute of two entries in its order.
fn compare_entries(
    (lefts, (left, left_learned)): (&MergedTree<Learned>, Found<'_>),
    (rights, (right, right_learned)): (&MergedTree<Learned>, Found<'_>),
    tell: impl FnMut(Attribute, Option<String>, Option<String>),
) {
    let first_names = [&left, &right].map(first_name);
    // What has several names is compared under the first of them.
    if first_names[0].is_some() && first_names[0] == first_names[1] {
        return;
    }
    let itself =
        |tree: &MergedTree<Learned>, entry: Entry| Entry { kind: tree.resolved_kind(&entry), ..entry };
    let (left, right) = (itself(lefts, left), itself(rights, right));
    match (left_learned, right_learned) {
        (Learned::Told(a), Learned::Told(b)) => {
            compare_attributes((&left, a.as_ref()), (&right, b.as_ref()), first_names, tell);
        }
        _ => tell_types(&left, &right, tell),
    }
}

/// Of what other, earlier path this is another name.
fn first_name(entry: &Entry) -> Option<String> {
    match &entry.kind {
        EntryKind::Hardlink { target } => Some(target.to_string()),
        _ => None,
    }
}

fn tell_types(left: &Entry, right: &Entry, mut tell: impl FnMut(Attribute, Option<String>, Option<String>)) {
    tell(Attribute::Type, Some(kind(left).to_owned()), Some(kind(right).to_owned()));
}

fn compare_attributes(
    (left, left_content): (&Entry, Option<&Digest>),
    (right, right_content): (&Entry, Option<&Digest>),
    [left_name, right_name]: [Option<String>; 2],
    mut tell: impl FnMut(Attribute, Option<String>, Option<String>),
) {
    if kind(left) != kind(right) {
        return tell_types(left, right, tell);
    }
    tell(Attribute::Size, size(left), size(right));
    if size(left) == size(right) {
        let text = |content: Option<&Digest>| content.map(ToString::to_string);
        tell(Attribute::Content, text(left_content), text(right_content));
    }
    let mut both = |attribute, of: &dyn Fn(&Entry) -> Option<String>| tell(attribute, of(left), of(right));
    both(Attribute::Target, &target);
    both(Attribute::Device, &device);
    both(Attribute::Mode, &mode);
    both(Attribute::Owner, &|entry| Some(format!("{}:{}", entry.metadata.uid, entry.metadata.gid)));
    both(Attribute::Mtime, &|entry| Some(time(entry.metadata.mtime)));
    tell(Attribute::Hardlink, left_name, right_name);
    let names: BTreeSet<_> =
        [left, right].into_iter().flat_map(|entry| xattrs(entry).map(|(name, _)| name)).collect();
    for name in names {
        let value = |entry| {
            let found = xattrs(entry).find(|(found, _)| *found == name);
            found.map(|(_, value)| format!("0s{}", BASE64.encode(value)))
        };
        tell(Attribute::Xattr(escaped(name)), value(left), value(right));
    }
}

/// The extended attributes that belong to a tree.
fn xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    entry.metadata.portable_xattrs()
}

fn kind(entry: &Entry) -> &'static str {
    match &entry.kind {
        EntryKind::File { .. } => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink { .. } => "symlink",
        EntryKind::Hardlink { .. } => "hardlink",
        EntryKind::Fifo => "fifo",
        EntryKind::CharDevice { .. } => "charDevice",
        EntryKind::BlockDevice { .. } => "blockDevice",
    }
}

fn size(entry: &Entry) -> Option<String> {
    match entry.kind {
        EntryKind::File { size } => Some(size.to_string()),
        _ => None,
    }
}

fn target(entry: &Entry) -> Option<String> {
    match &entry.kind {
        EntryKind::Symlink { target } => Some(escaped(target)),
        _ => None,
    }
}

fn device(entry: &Entry) -> Option<String> {
    match entry.kind {
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            Some(format!("{major},{minor}"))
        }
        _ => None,
    }
}

fn mode(entry: &Entry) -> Option<String> {
    match entry.kind {
        EntryKind::Symlink { .. } => None,
        _ => Some(format!("{:04o}", entry.metadata.mode)),
    }
}

/// A time in UTC with nanoseconds; seconds since 1970 for one that no calendar has.
fn time(time: Time) -> String {
    match jiff::Timestamp::new(time.seconds, time.nanoseconds.cast_signed()) {
        Ok(moment) => format!("{moment:.9}"),
        Err(_) => format!("@{}.{:09}", time.seconds, time.nanoseconds),
    }
}

/// Bytes as text, in which two that differ look different.
fn escaped(bytes: &[u8]) -> String {
    bytes.utf8_chunks().fold(String::new(), |mut text, chunk| {
        for c in chunk.valid().chars() {
            match c == '\\' || crate::error::is_harmful(c) {
                true => text.extend(c.escape_default()),
                false => text.push(c),
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
        text
    })
}

/// The word for an attribute, as options and documents have it.
impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Type => "type",
            Self::Size => "size",
            Self::Content => "content",
            Self::Target => "target",
            Self::Device => "device",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Mtime => "mtime",
            Self::Hardlink => "hardlink",
            Self::Xattr(_) => "xattr",
        })
    }
}

/// One line: `+ PATH`, `- PATH`, or `~ PATH ATTRIBUTE LEFT RIGHT` with `-` for what is not there; an extended attribute has
/// its name behind `xattr`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.change {
            Change::Added => write!(f, "+ {path}"),
            Change::Removed => write!(f, "- {path}"),
            Change::Changed { attribute, left, right } => {
                write!(f, "~ {path} {attribute}")?;
                if let Attribute::Xattr(name) = attribute {
                    write!(f, " {name}")?;
                }
                let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
                write!(f, " {} {}", value(left), value(right))
            }
        }
    }
}
