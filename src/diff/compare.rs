//! Compares two trees path by path.

use crate::image::PathNote;
use crate::tree::{Entry, EntryKind, MergedTree, Time, TreePath};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

/// An attribute that is compared. Differences are reported in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attribute {
    /// File, directory, symbolic link, fifo, device.
    Type,
    /// The size of a file in bytes. If it differs, the content is not reported.
    Size,
    /// The content of a file, by its digest.
    Content,
    /// The target of a symbolic link.
    Target,
    /// The numbers of a device.
    Device,
    /// The permissions. Those of symbolic links have no effect and are not compared.
    Mode,
    /// Owner and group.
    Owner,
    /// The modification time, with nanoseconds.
    Mtime,
    /// The first path of a file with several names, if this is not the first.
    Hardlink,
    /// An extended attribute by its name. In a list of ignored attributes the empty name stands for all of them.
    Xattr(String),
}

/// A path at which two trees differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The path.
    pub path: TreePath,
    /// The difference.
    pub change: Change,
}

/// A difference at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only the second one has it.
    Added,
    /// Only the first one has it.
    Removed,
    /// Both have it, and one attribute is not the same.
    Changed {
        /// The attribute.
        attribute: Attribute,
        /// Its value in the first tree, if it has one.
        left: Option<String>,
        /// Its value in the second tree, if it has one.
        right: Option<String>,
    },
}

/// An entry of one tree with its note.
type NotedEntry<'a> = (Entry, &'a PathNote);

/// Returns the differences, in the order of paths.
pub(super) fn compare<'a>(
    left: &'a MergedTree<PathNote>,
    right: &'a MergedTree<PathNote>,
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
            // Every tree has a root, also if no entry describes it.
            _ if path.is_root() => {}
            (Some(_), None) => changes.push(Change::Removed),
            (None, _) => changes.push(Change::Added),
        }
        changes.into_iter().map(move |change| Difference { path: path.clone(), change })
    })
}

/// Returns the entries of both trees by path, in the order of paths.
pub(super) fn pairs<'a>(
    left: &'a MergedTree<PathNote>,
    right: &'a MergedTree<PathNote>,
) -> impl Iterator<Item = (Option<NotedEntry<'a>>, Option<NotedEntry<'a>>)> + 'a {
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
        // Contents of different sizes differ.
        Attribute::Size => ignore.contains(attribute) || ignore.contains(&Attribute::Content),
        attribute => ignore.contains(attribute),
    }
}

/// Calls `report` with the values of each attribute of two entries.
fn compare_entries(
    (left_tree, (left, left_note)): (&MergedTree<PathNote>, NotedEntry<'_>),
    (right_tree, (right, right_note)): (&MergedTree<PathNote>, NotedEntry<'_>),
    report: impl FnMut(Attribute, Option<String>, Option<String>),
) {
    let first_names = [&left, &right].map(first_name);
    // A file with several names is compared under the first of them.
    if first_names[0].is_some() && first_names[0] == first_names[1] {
        return;
    }
    let resolved =
        |tree: &MergedTree<PathNote>, entry: Entry| Entry { kind: tree.resolved_kind(&entry), ..entry };
    let (left, right) = (resolved(left_tree, left), resolved(right_tree, right));
    if [left_note, right_note].contains(&&PathNote::Implied) {
        return report_types(&left, &right, report);
    }
    let contents = digests(left_note, right_note);
    compare_attributes(&left, &right, contents, first_names, report);
}

/// Returns the digests by which two contents are compared. They differ if the contents have no kind in common.
fn digests(left: &PathNote, right: &PathNote) -> [Option<String>; 2] {
    let (Some(left), Some(right)) = (left.content(), right.content()) else { return [None, None] };
    let digests = left.comparable(right).unwrap_or_else(|| [left.any(), right.any()]);
    digests.map(|digest| Some(digest.to_string()))
}

/// Returns the first path of a file with several names, if this entry is not the first.
fn first_name(entry: &Entry) -> Option<String> {
    match &entry.kind {
        EntryKind::Hardlink { target } => Some(target.to_string()),
        _ => None,
    }
}

fn report_types(
    left: &Entry,
    right: &Entry,
    mut report: impl FnMut(Attribute, Option<String>, Option<String>),
) {
    report(Attribute::Type, Some(kind(left).to_owned()), Some(kind(right).to_owned()));
}

fn compare_attributes(
    left: &Entry,
    right: &Entry,
    [left_content, right_content]: [Option<String>; 2],
    [left_name, right_name]: [Option<String>; 2],
    mut report: impl FnMut(Attribute, Option<String>, Option<String>),
) {
    if kind(left) != kind(right) {
        return report_types(left, right, report);
    }
    report(Attribute::Size, size(left), size(right));
    if size(left) == size(right) {
        report(Attribute::Content, left_content, right_content);
    }
    let mut both = |attribute, of: &dyn Fn(&Entry) -> Option<String>| report(attribute, of(left), of(right));
    both(Attribute::Target, &target);
    both(Attribute::Device, &device);
    both(Attribute::Mode, &mode);
    both(Attribute::Owner, &|entry| Some(format!("{}:{}", entry.metadata.uid, entry.metadata.gid)));
    both(Attribute::Mtime, &|entry| Some(time(entry.metadata.mtime)));
    report(Attribute::Hardlink, left_name, right_name);
    let names: BTreeSet<_> =
        [left, right].into_iter().flat_map(|entry| xattrs(entry).map(|(name, _)| name)).collect();
    for name in names {
        let value = |entry| {
            let found = xattrs(entry).find(|(found, _)| *found == name);
            found.map(|(_, value)| format!("0s{}", BASE64.encode(value)))
        };
        report(Attribute::Xattr(escaped(name)), value(left), value(right));
    }
}

/// Returns the extended attributes that belong to a tree, and not to a host.
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

/// Formats a time in UTC with nanoseconds; as seconds since 1970 if no calendar has it.
fn time(time: Time) -> String {
    match jiff::Timestamp::new(time.seconds, time.nanoseconds.cast_signed()) {
        Ok(moment) => format!("{moment:.9}"),
        Err(_) => format!("@{}.{:09}", time.seconds, time.nanoseconds),
    }
}

/// Formats bytes as text so that different bytes look different.
fn escaped(bytes: &[u8]) -> String {
    bytes.utf8_chunks().fold(String::new(), |mut text, chunk| {
        for c in chunk.valid().chars() {
            if c == '\\' || crate::error::is_harmful(c) {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
        text
    })
}

/// The name of an attribute in options and documents.
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

/// One line: `+ PATH`, `- PATH`, or `~ PATH ATTRIBUTE LEFT RIGHT` with `-` for a value that is missing. The name of an
/// extended attribute follows `xattr`.
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
