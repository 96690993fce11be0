//! `volio ls`: what is in an image.

use crate::args::{Format, Registries, Report, location, tree_path};
use crate::limits::{Bounds, ContentBound};
use crate::{environment, output, progress};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::io::{self, Write};
use volio::list::{Options, list};
use volio::oci::Platform;
use volio::transport::Location;
use volio::tree::{Entry, EntryKind, MergedTree, Metadata, Time, TreePath};
use volio::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  volio ls registry.example/data:v1
  volio ls -l oci:backup:monday /etc
  volio ls -R --format json oci:backup:monday | jq -r '.entries[] | select(.size > 1000000) | .path'

What is listed is what is in PATH, which is / unless given, over all layers of the image; with -R, PATH itself and all below
it. Links are shown and not followed.

Of layers that volio made with zstd, only their tables of contents are fetched. Other layers are read whole, which a warning
says.";

/// List what is in an image
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Ls {
    /// Where the image is: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]
    #[arg(value_parser = location())]
    image: Location,

    /// List what is in this directory, or this file [default: /]
    #[arg(value_parser = tree_path())]
    path: Option<TreePath>,

    /// List the directory itself and all that is below it
    #[arg(short = 'R', long)]
    recursive: bool,

    /// Show modes, owners, sizes, times and where links lead
    #[arg(short, long)]
    long: bool,

    /// Take the image for this platform [default: the host's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,

    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    content: ContentBound,
    #[command(flatten)]
    registries: Registries,
    #[command(flatten)]
    report: Report,
}

impl Ls {
    /// Lists.
    pub fn run(self) -> Result<()> {
        let access = self.registries.access()?;
        let source = self.image.source(&access)?;
        let options = Options {
            platform: self.platform.clone(),
            limits: self.bounds.limits(),
            connections: access.transfer.concurrency,
            temporary: Some(environment::temporary(environment::variable)),
            content: self.content.max_content,
        };
        let progress = progress::start("ls", self.report.quiet);
        let tree = list(source.as_ref(), &options, progress.as_ref())?;
        drop(progress);

        let wanted = self.wanted(&tree)?;
        match self.report.format {
            Format::Json => output::json(&Listing { entries: Rows(&wanted) }),
            Format::Text if self.long => output::results(|out| long(out, &wanted)),
            Format::Text => {
                output::results(|out| wanted.entries().try_for_each(|entry| writeln!(out, "{}", entry.path)))
            }
        }
    }
}

impl Ls {
    /// What of the tree is listed.
    fn wanted<'t>(&self, tree: &'t MergedTree) -> Result<Wanted<'t>> {
        let path = self.path.clone().unwrap_or_default();
        let found = tree.get(&path);
        if found.is_none() && !path.is_root() {
            return Err(Error::not_found(format!("{path} is not in {}", self.image))
                .with_hint("volio ls -R lists all that is there; links in a path are not followed"));
        }
        let is_directory = found.is_none_or(|(entry, ())| entry.kind == EntryKind::Directory);
        Ok(Wanted { tree, path, only_children: is_directory && !self.recursive })
    }
}

/// What is listed of a tree. The entries are made anew each time: all of them at once would take more memory than the tree.
struct Wanted<'t> {
    tree: &'t MergedTree,
    path: TreePath,
    /// Whether what is in `path` is listed, or `path` and all below it.
    only_children: bool,
}

impl Wanted<'_> {
    fn entries(&self) -> Box<dyn Iterator<Item = Entry> + '_> {
        match self.only_children {
            true => Box::new(self.tree.children(&self.path).map(|(entry, ())| entry)),
            false => Box::new(self.tree.below(&self.path).map(|(entry, ())| entry)),
        }
    }
}

/// Writes entries as `ls -l` does: mode, owner and group by number, size, time in UTC, path.
fn long(out: &mut dyn Write, wanted: &Wanted<'_>) -> io::Result<()> {
    let owner = |entry: &Entry| format!("{}:{}", entry.metadata.uid, entry.metadata.gid);
    let widths = wanted.entries().map(|entry| (owner(&entry).len(), size(&entry).len()));
    let (owners, sizes) = widths.fold((0, 0), |most, entry| (most.0.max(entry.0), most.1.max(entry.1)));
    for entry in &mut *wanted.entries() {
        write!(
            out,
            "{} {:owners$} {:>sizes$} {} {}",
            mode(&entry),
            owner(&entry),
            size(&entry),
            time(entry.metadata.mtime, 0),
            entry.path
        )?;
        match &entry.kind {
            EntryKind::Symlink { target } => writeln!(out, " -> {}", output::printable_bytes(target))?,
            EntryKind::Hardlink { target } => writeln!(out, " link to {target}")?,
            _ => writeln!(out)?,
        }
    }
    Ok(())
}

/// What stands in the column for sizes: bytes, or the numbers of a device.
fn size(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::File { size } => size.to_string(),
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            format!("{major},{minor}")
        }
        _ => "-".to_owned(),
    }
}

/// `drwxr-xr-x`, with setuid, setgid and sticky in the places where `ls` shows them.
fn mode(entry: &Entry) -> String {
    let Metadata { mode, .. } = entry.metadata;
    let kind = match entry.kind {
        EntryKind::File { .. } => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::Hardlink { .. } => 'h',
        EntryKind::Fifo => 'p',
        EntryKind::CharDevice { .. } => 'c',
        EntryKind::BlockDevice { .. } => 'b',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
        });
    }
    text
}

/// A time in UTC with that many decimals; seconds since 1970 for one that no calendar has.
fn time(time: Time, decimals: usize) -> String {
    match jiff::Timestamp::new(time.seconds, time.nanoseconds as i32) {
        Ok(moment) => format!("{moment:.decimals$}"),
        Err(_) => format!("@{}", time.seconds),
    }
}

/// The whole listing as JSON.
#[derive(Serialize)]
struct Listing<'a> {
    entries: Rows<'a>,
}

/// The entries as JSON, one after the other.
struct Rows<'a>(&'a Wanted<'a>);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.entries().map(|entry| Row::new(&entry)))
    }
}

/// One entry as JSON. What need not be text has a second field in base64 where it is none.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_raw: Option<String>,
    #[serde(rename = "type")]
    kind: &'static str,
    mode: String,
    uid: u32,
    gid: u32,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_raw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<[u32; 2]>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
}

impl Row {
    fn new(entry: &Entry) -> Self {
        let Metadata { mode, uid, gid, mtime, xattrs } = &entry.metadata;
        let (path, path_raw) = text(&absolute(&entry.path));
        let (target, target_raw) = match &entry.kind {
            EntryKind::Symlink { target } => Some(text(target)).unzip(),
            EntryKind::Hardlink { target } => Some(text(&absolute(target))).unzip(),
            _ => (None, None),
        };
        Self {
            path,
            path_raw,
            kind: kind(&entry.kind),
            mode: format!("{mode:04o}"),
            uid: *uid,
            gid: *gid,
            mtime: time(*mtime, 9),
            size: match entry.kind {
                EntryKind::File { size } => Some(size),
                _ => None,
            },
            target,
            target_raw: target_raw.flatten(),
            device: match entry.kind {
                EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                    Some([major, minor])
                }
                _ => None,
            },
            xattrs: xattrs
                .iter()
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), BASE64.encode(value)))
                .collect(),
        }
    }
}

/// The word for what an entry is.
fn kind(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File { .. } => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink { .. } => "symlink",
        EntryKind::Hardlink { .. } => "hardlink",
        EntryKind::Fifo => "fifo",
        EntryKind::CharDevice { .. } => "charDevice",
        EntryKind::BlockDevice { .. } => "blockDevice",
    }
}

pub(super) fn absolute(path: &TreePath) -> Vec<u8> {
    [b"/", path.as_bytes()].concat()
}

/// Bytes as text, and as base64 where the text does not say all.
pub(super) fn text(bytes: &[u8]) -> (String, Option<String>) {
    match str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(BASE64.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryKind, mode: u32) -> Entry {
        Entry { path: TreePath::root(), kind, metadata: Metadata { mode, ..Metadata::default() } }
    }

    #[test]
    fn modes_look_as_ls_shows_them() {
        for (bits, text) in [
            (0o755, "-rwxr-xr-x"),
            (0o4755, "-rwsr-xr-x"),
            (0o4644, "-rwSr--r--"),
            (0o2070, "----rws---"),
            (0o1777, "-rwxrwxrwt"),
            (0o1000, "---------T"),
        ] {
            assert_eq!(mode(&entry(EntryKind::File { size: 0 }, bits)), text);
        }
    }

    #[test]
    fn times_are_utc_and_never_fail() {
        let at = |seconds, nanoseconds| Time { seconds, nanoseconds };
        assert_eq!(time(at(0, 5), 0), "1970-01-01T00:00:00Z");
        assert_eq!(time(at(-1, 500_000_000), 9), "1969-12-31T23:59:59.500000000Z");
        assert_eq!(time(at(i64::MAX, 0), 0), format!("@{}", i64::MAX));
    }

    #[test]
    fn names_that_are_not_text_keep_their_bytes_in_json() {
        let entry = Entry { path: TreePath::parse(b"a\xff").unwrap(), ..entry(EntryKind::Directory, 0o755) };
        let row = serde_json::to_value(Row::new(&entry)).unwrap();
        assert_eq!(row["path"], "/a\u{fffd}");
        assert_eq!(row["pathRaw"], BASE64.encode(b"/a\xff"));
    }
}
