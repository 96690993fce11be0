//! Two trees side by side.

use super::nodes::{Node, Nodes};
use crate::tree::{Entry, Kind, Metadata, Time, TreePath};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
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

/// What differs, in the order of paths.
pub(super) fn compare(left: &Nodes, right: &Nodes, ignore: &BTreeSet<Attribute>) -> Vec<Difference> {
    let paths: BTreeSet<&TreePath> = left.paths().chain(right.paths()).collect();
    let mut differences = Vec::new();
    for path in paths {
        let mut differ = |change| differences.push(Difference { path: path.clone(), change });
        match (left.get(path), right.get(path)) {
            (Some(a), Some(b)) => compare_nodes((left, a), (right, b), |attribute, left, right| {
                if left != right && !is_ignored(&attribute, ignore) {
                    differ(Change::Changed { attribute, left, right });
                }
            }),
            // Every tree has a root, whether it says so or not.
            _ if path.is_root() => {}
            (Some(_), None) => differ(Change::Removed),
            (None, _) => differ(Change::Added),
        }
    }
    differences
}

fn is_ignored(attribute: &Attribute, ignore: &BTreeSet<Attribute>) -> bool {
    match attribute {
        Attribute::Xattr(_) => ignore.contains(&Attribute::Xattr(String::new())),
        // A content of another size is another content.
        Attribute::Size => ignore.contains(attribute) || ignore.contains(&Attribute::Content),
        attribute => ignore.contains(attribute),
    }
}

/// Tells every attribute of two nodes in its order.
fn compare_nodes(
    (lefts, left): (&Nodes, &Node),
    (rights, right): (&Nodes, &Node),
    mut tell: impl FnMut(Attribute, Option<String>, Option<String>),
) {
    let first_names = [left, right].map(|node| node.first_name().map(ToString::to_string));
    let is_told = first_names[0].is_some() && first_names[0] == first_names[1];
    let (left, right) = (lefts.itself(left), rights.itself(right));
    // What has several names is compared under the first of them.
    if !is_told && !left.implied && !right.implied {
        compare_attributes(left, right, first_names, tell);
    } else if !is_told {
        let [left, right] = [left, right].map(|node| Some(kind(&node.entry).to_owned()));
        tell(Attribute::Type, left, right);
    }
}

fn compare_attributes(
    left: &Node,
    right: &Node,
    [left_name, right_name]: [Option<String>; 2],
    mut tell: impl FnMut(Attribute, Option<String>, Option<String>),
) {
    let types = [left, right].map(|node| kind(&node.entry));
    if types[0] != types[1] {
        return tell(Attribute::Type, Some(types[0].to_owned()), Some(types[1].to_owned()));
    }
    let mut both = |attribute, of: &dyn Fn(&Node) -> Option<String>| tell(attribute, of(left), of(right));
    both(Attribute::Size, &size);
    if size(left) == size(right) {
        both(Attribute::Content, &|node| node.hash.as_ref().map(ToString::to_string));
    }
    both(Attribute::Target, &target);
    both(Attribute::Device, &device);
    both(Attribute::Mode, &mode);
    both(Attribute::Owner, &|node| {
        let Metadata { uid, gid, .. } = node.entry.metadata;
        Some(format!("{uid}:{gid}"))
    });
    both(Attribute::Mtime, &|node| Some(time(node.entry.metadata.mtime)));
    tell(Attribute::Hardlink, left_name, right_name);
    let names: BTreeSet<_> =
        [left, right].into_iter().flat_map(|node| xattrs(node).map(|(name, _)| name)).collect();
    for name in names {
        let value = |node| {
            let found = xattrs(node).find(|(found, _)| *found == name);
            found.map(|(_, value)| format!("0s{}", BASE64.encode(value)))
        };
        tell(Attribute::Xattr(escaped(name)), value(left), value(right));
    }
}

/// The extended attributes that belong to a tree.
fn xattrs(node: &Node) -> impl Iterator<Item = (&[u8], &[u8])> {
    node.entry.metadata.travelling_xattrs()
}

fn kind(entry: &Entry) -> &'static str {
    match &entry.kind {
        Kind::File { .. } => "file",
        Kind::Directory => "directory",
        Kind::Symlink { .. } => "symlink",
        Kind::Hardlink { .. } => "hardlink",
        Kind::Fifo => "fifo",
        Kind::CharDevice { .. } => "charDevice",
        Kind::BlockDevice { .. } => "blockDevice",
    }
}

fn size(node: &Node) -> Option<String> {
    match node.entry.kind {
        Kind::File { size } => Some(size.to_string()),
        _ => None,
    }
}

fn target(node: &Node) -> Option<String> {
    match &node.entry.kind {
        Kind::Symlink { target } => Some(escaped(target)),
        _ => None,
    }
}

fn device(node: &Node) -> Option<String> {
    match node.entry.kind {
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            Some(format!("{major},{minor}"))
        }
        _ => None,
    }
}

fn mode(node: &Node) -> Option<String> {
    match node.entry.kind {
        Kind::Symlink { .. } => None,
        _ => Some(format!("{:04o}", node.entry.metadata.mode)),
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
