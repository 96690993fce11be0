//! `volio ls`: lists the entries of an image.

mod tree;

use crate::args::{Format, OutputArgs, RegistryArgs, location, tree_path};
use crate::limit_args::{ContentLimitArg, LimitArgs};
use crate::progress::Display;
use crate::signature_args::VerificationArgs;
use crate::{environment, output};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::io::{self, Write};
use tree::Drawing;
use volio::list::list;
use volio::{
    Entry, EntryKind, Error, Location, MergedTree, Metadata, Platform, ReadOptions, Result, SignedPart, Time,
    TreePath,
};

const EXAMPLES: &str = "\
Examples:
  volio ls registry.example/data:v1
  volio ls -l oci:backup:monday /etc
  volio ls --tree --depth 2 registry.example/data:v1
  volio ls -R --format json oci:backup:monday | jq -r '.entries[] | select(.size > 1000000) | .path'

The contents of PATH are listed, after all layers of the image were merged. The default of PATH is /. With -R, PATH itself \
and everything below it are listed. Links are shown and not followed.

--tree draws PATH and everything below it as tree(1) does, and with -l the columns of -l before each line. Its last line \
counts all that is below PATH, also what --depth leaves out. A file with several names counts once in the size.

Of zstd layers that volio made, only the tables of contents are fetched. Other layers are read completely, with a warning.";

/// List what is in an image
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Ls {
    /// The image: HOST/REPOSITORY:TAG, oci:DIR[:TAG], oci-archive:FILE[:TAG] or
    /// docker-archive:FILE[:REF]
    #[arg(value_parser = location())]
    image: Location,

    /// List the contents of this directory, or this file [default: /]
    #[arg(value_parser = tree_path())]
    path: Option<TreePath>,

    /// List the directory itself and all that is below it
    #[arg(short = 'R', long)]
    recursive: bool,

    /// Draw the directory and all that is below it as a tree; not with --format json
    #[arg(long)]
    tree: bool,

    /// With -R or --tree, show only N levels below PATH
    #[arg(long, value_name = "N", value_parser = levels)]
    depth: Option<usize>,

    /// Show modes, owners, sizes, times and the targets of links
    #[arg(short, long)]
    long: bool,

    /// Take the image for this platform [default: the host's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,

    /// Recognise layers by their first bytes instead of their media types
    #[arg(long)]
    any_media_type: bool,

    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    content: ContentLimitArg,
    #[command(flatten)]
    signatures: VerificationArgs,
    #[command(flatten)]
    registries: RegistryArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Ls {
    /// Prints the list.
    pub fn run(self) -> Result<()> {
        self.check()?;
        let progress = Display::start("ls", self.output.quiet);
        let access = self.registries.access(&progress)?;
        let part = SignedPart::Platform(self.platform.clone());
        let source = self.signatures.source(&self.image, &access, part)?;
        let options = ReadOptions {
            platform: self.platform.clone(),
            limits: self.limits.limits(),
            connections: access.client.concurrency,
            temporary: Some(environment::temporary(environment::variable)),
            max_content: self.content.max_content,
            any_media_type: self.any_media_type,
        };
        let tree = list(source.as_ref(), &options, progress.as_ref())?;
        drop(progress);

        let selection = self.select(&tree)?;
        match self.output.format {
            Format::Json => output::json(&LsDocument { entries: Rows(&selection) }),
            Format::Text if self.tree => {
                let columns = self.long.then(|| Columns::of(&selection));
                let levels = self.depth.unwrap_or(usize::MAX);
                let drawing = Drawing { tree: &tree, path: selection.path.clone(), levels, columns };
                output::results(|out| drawing.write(out))
            }
            Format::Text if self.long => output::results(|out| long(out, &selection)),
            Format::Text => output::results(|out| {
                selection.entries().try_for_each(|entry| writeln!(out, "{}", entry.path))
            }),
        }
    }

    /// Fails for options that contradict each other.
    fn check(&self) -> Result<()> {
        if self.tree && self.output.format == Format::Json {
            return Err(Error::usage("--tree is a drawing, and has no form in JSON")
                .with_hint("-R --format json lists the same entries"));
        }
        if self.depth.is_some() && !self.tree && !self.recursive {
            return Err(Error::usage("--depth is for -R and --tree: without them, only one level is listed")
                .with_hint("add -R or --tree"));
        }
        Ok(())
    }

    /// Selects the entries to list.
    fn select<'t>(&self, tree: &'t MergedTree) -> Result<Selection<'t>> {
        let path = self.path.clone().unwrap_or_default();
        let found = tree.get(&path);
        if found.is_none() && !path.is_root() {
            return Err(Error::not_found(format!("{path} is not in {}", self.image))
                .with_hint("volio ls -R lists all that is there; links in a path are not followed"));
        }
        let is_directory = found.is_none_or(|(entry, ())| entry.kind == EntryKind::Directory);
        let scope = if is_directory && !self.recursive && !self.tree {
            Scope::Children
        } else {
            Scope::Below { depth: self.depth.map(|levels| path.depth().saturating_add(levels)) }
        };
        Ok(Selection { tree, path, scope })
    }
}

/// The entries of a tree to list. They are built for each pass, because all of them together would take more memory than
/// the tree.
struct Selection<'t> {
    tree: &'t MergedTree,
    path: TreePath,
    scope: Scope,
}

/// The entries that are listed for a path.
enum Scope {
    /// The children of the path.
    Children,
    /// The path and all entries below it that have at most this many names in their paths.
    Below { depth: Option<usize> },
}

impl Selection<'_> {
    fn entries(&self) -> Box<dyn Iterator<Item = Entry> + '_> {
        match self.scope {
            Scope::Children => Box::new(self.tree.children(&self.path).map(|(entry, ())| entry)),
            Scope::Below { depth } => {
                let is_listed = move |entry: &Entry| depth.is_none_or(|depth| entry.path.depth() <= depth);
                Box::new(self.tree.below(&self.path).map(|(entry, ())| entry).filter(is_listed))
            }
        }
    }
}

/// Parses a number of levels, at least 1.
fn levels(text: &str) -> Result<usize> {
    text.parse().ok().filter(|levels| *levels > 0).ok_or_else(|| {
        Error::usage(format!("{text:?} is not a number of levels")).with_hint("write 1 or more")
    })
}

/// Writes entries as `ls -l` does: mode, owner and group by number, size, time in UTC, path.
fn long(out: &mut dyn Write, selection: &Selection<'_>) -> io::Result<()> {
    let columns = Columns::of(selection);
    for entry in selection.entries() {
        writeln!(out, "{} {}{}", columns.format(&entry), entry.path, target(&entry))?;
    }
    Ok(())
}

/// The columns before a name: mode, owner and group, size, time. The widths are those of all entries that are listed.
struct Columns {
    owners: usize,
    sizes: usize,
}

impl Columns {
    fn of(selection: &Selection<'_>) -> Self {
        selection.entries().fold(Self { owners: 0, sizes: 0 }, |most, entry| Self {
            owners: most.owners.max(owner(&entry).len()),
            sizes: most.sizes.max(size(&entry).len()),
        })
    }

    fn format(&self, entry: &Entry) -> String {
        let Self { owners, sizes } = self;
        let time = time(entry.metadata.mtime, 0);
        format!("{} {:owners$} {:>sizes$} {time}", mode(entry), owner(entry), size(entry))
    }

    /// Formats empty columns.
    fn blank(&self) -> String {
        let Self { owners, sizes } = self;
        format!("{:10} {:owners$} {:sizes$} {:20}", "", "", "", "")
    }
}

/// Formats the owner and the group of an entry by number.
fn owner(entry: &Entry) -> String {
    format!("{}:{}", entry.metadata.uid, entry.metadata.gid)
}

/// Formats what follows the name of a link; empty for anything else.
fn target(entry: &Entry) -> String {
    match &entry.kind {
        EntryKind::Symlink { target } => format!(" -> {}", output::printable_bytes(target)),
        EntryKind::Hardlink { target } => format!(" link to {target}"),
        _ => String::new(),
    }
}

/// Formats the column for sizes: bytes, or the numbers of a device.
fn size(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::File { size } => size.to_string(),
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            format!("{major},{minor}")
        }
        _ => "-".to_owned(),
    }
}

/// Formats a mode: `drwxr-xr-x`, with setuid, setgid and sticky as `ls` shows them.
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

/// Formats a time in UTC with a number of decimals. A time outside of the calendar becomes `@` and seconds since 1970.
fn time(time: Time, decimals: usize) -> String {
    match jiff::Timestamp::new(time.seconds, time.nanoseconds as i32) {
        Ok(moment) => format!("{moment:.decimals$}"),
        Err(_) => format!("@{}", time.seconds),
    }
}

/// The list as JSON.
#[derive(Serialize)]
struct LsDocument<'a> {
    entries: Rows<'a>,
}

/// The entries as JSON. They are serialised one at a time, because all of them may be larger than memory.
struct Rows<'a>(&'a Selection<'a>);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.entries().map(|entry| Row::new(&entry)))
    }
}

/// One entry as JSON. A name that is not UTF-8 has a second field with its bytes in base64.
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

/// Returns the name of an entry's kind in JSON.
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

/// Returns a path with a slash before it.
pub(super) fn absolute(path: &TreePath) -> Vec<u8> {
    [b"/", path.as_bytes()].concat()
}

/// Returns bytes as text, and also as base64 if they are not UTF-8.
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
