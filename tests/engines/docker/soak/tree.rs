//! A directory as the model of the soak test knows it, and the operations of containers on it.

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// The directory in a volume on which others mount something. It is not compared.
pub const MOUNT_POINT: &str = "mnt";

/// Everything below a directory by its relative path, without the directory itself and without [`MOUNT_POINT`].
pub type Tree = BTreeMap<String, Entry>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    File { meta: Meta, size: u64, sha256: String },
    Directory { meta: Meta },
    Link { target: String },
}

/// The mode, the user and the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta(pub u32, pub u32, pub u32);

/// A file that a container has without doing anything.
const FILE: Meta = Meta(0o644, 0, 0);
const DIRECTORY: Meta = Meta(0o755, 0, 0);

impl Entry {
    pub fn file(content: &[u8]) -> Self {
        Self::File { meta: FILE, size: content.len() as u64, sha256: sha256(content) }
    }

    pub fn directory() -> Self {
        Self::Directory { meta: DIRECTORY }
    }
}

pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a directory of this machine.
pub fn read(root: &Path) -> std::io::Result<Tree> {
    let mut tree = Tree::new();
    let mut open = vec![String::new()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            let name = entry.file_name().into_string().expect("UTF-8");
            if directory.is_empty() && name == MOUNT_POINT {
                continue;
            }
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            let found = entry.metadata()?;
            let meta = Meta(found.mode() & 0o7777, found.uid(), found.gid());
            let read = if found.is_dir() {
                open.push(path.clone());
                Entry::Directory { meta }
            } else if found.is_symlink() {
                Entry::Link { target: fs::read_link(entry.path())?.display().to_string() }
            } else {
                let content = fs::read(entry.path())?;
                Entry::File { meta, size: content.len() as u64, sha256: sha256(&content) }
            };
            tree.insert(path, read);
        }
    }
    Ok(tree)
}

/// The function of a shell that prints a directory for [`parse`].
pub const LIST: &str = r#"list() {
    cd "$1" || return
    find . -name mnt -prune -o -print | while read -r path; do
        if [ -L "$path" ]; then echo "l $(readlink "$path") $path"
        elif [ -d "$path" ]; then echo "d $(stat -c '%a %u %g' "$path") $path"
        else echo "f $(stat -c '%a %u %g %s' "$path") $(sha256sum <"$path" | cut -c1-64) $path"
        fi
    done
    echo complete
}
"#;

/// Parses the output of a container; `None` if it is incomplete.
pub fn parse(text: &str) -> Option<Tree> {
    let lines = text.strip_suffix("complete\n")?.lines();
    Some(lines.filter_map(parse_line).collect())
}

/// Parses a line; `None` for the root, and for an entry that another container has removed meanwhile.
fn parse_line(line: &str) -> Option<(String, Entry)> {
    let fields: Vec<&str> = line.split(' ').collect();
    let meta = || {
        let mode = u32::from_str_radix(fields[1], 8).ok()?;
        Some(Meta(mode, fields[2].parse().ok()?, fields[3].parse().ok()?))
    };
    let entry = match (fields[0], fields.len()) {
        ("l", 3) => Entry::Link { target: fields[1].to_owned() },
        ("d", 5) => Entry::Directory { meta: meta()? },
        ("f", 7) => {
            Entry::File { meta: meta()?, size: fields[4].parse().ok()?, sha256: fields[5].to_owned() }
        }
        _ => return None,
    };
    let path = fields.last()?.strip_prefix("./")?;
    Some((path.to_owned(), entry))
}

/// An operation of a container in a volume.
#[derive(Clone, Debug)]
pub enum Op {
    /// Writes a file, over an old one of that name.
    Write {
        path: String,
        content: Arc<[u8]>,
    },
    /// Writes the number of the run into a file: a container may run more than once.
    Stamp {
        path: String,
    },
    Remove {
        path: String,
    },
    /// Makes a directory and a file in it.
    Nested {
        directory: String,
        name: String,
        content: Arc<[u8]>,
    },
    Link {
        path: String,
        target: String,
    },
    /// Creates an empty file, if it does not exist, and changes its mode.
    Chmod {
        path: String,
        mode: u32,
    },
    /// Makes the directory on which others mount something.
    MountPoint,
}

/// A possible entry at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Is(Entry),
    /// A file whose writing was interrupted.
    PrefixOf(Arc<[u8]>),
}

impl Expect {
    fn matches(&self, found: Option<&Entry>) -> bool {
        match (self, found) {
            (Self::Absent, None) => true,
            (Self::Is(entry), Some(found)) => entry == found,
            (Self::PrefixOf(content), Some(Entry::File { meta, size, sha256: found })) => {
                *meta == FILE
                    && content.get(..*size as usize).is_some_and(|written| sha256(written) == *found)
            }
            _ => false,
        }
    }
}

impl Op {
    /// The paths that it may change.
    pub fn paths(&self) -> Vec<String> {
        match self {
            Self::Write { path, .. }
            | Self::Stamp { path }
            | Self::Remove { path }
            | Self::Link { path, .. }
            | Self::Chmod { path, .. } => vec![path.clone()],
            Self::Nested { directory, name, .. } => vec![directory.clone(), format!("{directory}/{name}")],
            Self::MountPoint => vec![],
        }
    }

    /// Returns the possible entries at its paths when it is done, and also those after an interruption.
    fn effects(&self, run: usize) -> Vec<(String, Expect, Vec<Expect>)> {
        match self {
            Self::Write { path, content } => vec![written(path.clone(), content)],
            Self::Stamp { path } => vec![written(path.clone(), &stamp(run).into_bytes().into())],
            Self::Remove { path } => vec![(path.clone(), Expect::Absent, vec![])],
            Self::Nested { directory, name, content } => vec![
                (directory.clone(), Expect::Is(Entry::directory()), vec![]),
                written(format!("{directory}/{name}"), content),
            ],
            Self::Link { path, target } => {
                let link = Expect::Is(Entry::Link { target: target.clone() });
                vec![(path.clone(), link, vec![Expect::Absent])]
            }
            Self::Chmod { path, mode } => {
                let with = |mode| {
                    let meta = Meta(mode, 0, 0);
                    Expect::Is(Entry::File { meta, size: 0, sha256: sha256(b"") })
                };
                vec![(path.clone(), with(*mode), vec![with(0o644)])]
            }
            Self::MountPoint => vec![],
        }
    }

    /// Returns the shell command for it; the content of a file is in `input`.
    pub fn command(&self, root: &str, input: &str) -> String {
        match self {
            Self::Write { path, .. } => format!("cat {input} >{root}/{path}"),
            Self::Stamp { path } => format!("echo run $run >{root}/{path}"),
            Self::Remove { path } => format!("rm -f {root}/{path}"),
            Self::Nested { directory, name, .. } => {
                format!("mkdir -p {root}/{directory} && cat {input} >{root}/{directory}/{name}")
            }
            Self::Link { path, target } => format!("rm -f {root}/{path} && ln -s {target} {root}/{path}"),
            Self::Chmod { path, mode } => {
                format!("{{ [ -e {root}/{path} ] || : >{root}/{path}; }} && chmod {mode:o} {root}/{path}")
            }
            Self::MountPoint => format!("mkdir -p {root}/{MOUNT_POINT}"),
        }
    }

    /// Returns the content that it writes.
    pub fn content(&self) -> Option<&[u8]> {
        match self {
            Self::Write { content, .. } | Self::Nested { content, .. } => Some(content),
            _ => None,
        }
    }
}

fn stamp(run: usize) -> String {
    format!("run {run}\n")
}

fn written(path: String, content: &Arc<[u8]>) -> (String, Expect, Vec<Expect>) {
    (path, Expect::Is(Entry::file(content)), vec![Expect::PrefixOf(Arc::clone(content))])
}

/// The known content of a directory: at some paths there are several possibilities.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub tree: Tree,
    open: BTreeMap<String, Vec<Expect>>,
}

impl Known {
    pub fn exactly(tree: Tree) -> Self {
        Self { tree, open: BTreeMap::new() }
    }

    fn expects(&self, path: &str) -> Vec<Expect> {
        self.open.get(path).cloned().unwrap_or_else(|| match self.tree.get(path) {
            Some(entry) => vec![Expect::Is(entry.clone())],
            None => vec![Expect::Absent],
        })
    }

    /// Notes an operation that was begun, and perhaps done.
    pub fn apply(&mut self, op: &Op, run: usize, is_done: bool) {
        for (path, after, between) in op.effects(run) {
            let expects = if is_done {
                vec![after]
            } else {
                let mut expects = self.expects(&path);
                expects.extend(between);
                expects.push(after);
                expects
            };
            self.open.insert(path, expects);
        }
    }

    /// The differences between what is known and a directory, apart from some paths.
    pub fn differences(&self, found: &Tree, apart_from: &BTreeSet<String>) -> Vec<String> {
        let paths: BTreeSet<&String> = self.tree.keys().chain(self.open.keys()).chain(found.keys()).collect();
        let paths = paths.into_iter().filter(|path| !apart_from.contains(*path));
        paths
            .filter_map(|path| {
                let (expects, entry) = (self.expects(path), found.get(path));
                let is_right = expects.iter().any(|expect| expect.matches(entry));
                (!is_right).then(|| format!("{path}: {entry:?} instead of {}", shown(&expects)))
            })
            .collect()
    }

    /// Updates the known content from a listing, which proves nothing for some paths.
    pub fn seen(&self, found: &Tree, apart_from: &BTreeSet<String>) -> Self {
        let mut tree = found.clone();
        tree.retain(|path, _| !apart_from.contains(path));
        let others = self.tree.iter().filter(|(path, _)| apart_from.contains(*path));
        tree.extend(others.map(|(path, entry)| (path.clone(), entry.clone())));
        let mut open = self.open.clone();
        open.retain(|path, _| apart_from.contains(path));
        Self { tree, open }
    }

    pub fn accepts(&self, found: &Tree) -> bool {
        self.differences(found, &BTreeSet::new()).is_empty()
    }
}

fn shown(expects: &[Expect]) -> String {
    let shown: Vec<String> = expects
        .iter()
        .map(|expect| match expect {
            Expect::Absent => "nothing".to_owned(),
            Expect::Is(entry) => format!("{entry:?}"),
            Expect::PrefixOf(content) => format!("a beginning of {} bytes", content.len()),
        })
        .collect();
    shown.join(" or ")
}
