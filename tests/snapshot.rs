//! A snapshot of a tree by `lstat`, `listxattr` and the content of files. It shares no code with volio.

use rustix::fs::{lgetxattr, llistxattr};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The metadata of one path, with a digest of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub rdev: u64,
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path with the same inode, so that hard links are compared too.
    pub same_as: PathBuf,
}

/// Returns a directory and everything below it, by the relative path.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        if metadata.is_dir() {
            open.extend(fs::read_dir(&full).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
        }
        seen.insert(path.clone(), see(&full, &metadata));
        let first = inodes.entry((metadata.dev(), metadata.ino())).or_insert_with(|| path.clone());
        *first = first.clone().min(path);
    }
    for (path, seen) in &mut seen {
        let metadata = fs::symlink_metadata(root.join(path)).unwrap();
        seen.same_as = inodes[&(metadata.dev(), metadata.ino())].clone();
    }
    seen
}

fn see(path: &Path, metadata: &fs::Metadata) -> Seen {
    let kind = metadata.file_type();
    let (kind, content) = match () {
        () if kind.is_dir() => ("directory", Vec::new()),
        () if kind.is_file() => ("file", fs::read(path).unwrap()),
        () if kind.is_symlink() => ("symlink", fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()),
        () if kind.is_fifo() => ("fifo", Vec::new()),
        () if kind.is_char_device() => ("character device", Vec::new()),
        () if kind.is_block_device() => ("block device", Vec::new()),
        () => ("socket", Vec::new()),
    };
    Seen {
        kind,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        rdev: metadata.rdev(),
        content,
        xattrs: xattrs(path),
        same_as: PathBuf::new(),
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let Ok(length) = llistxattr(path, &mut names[..]) else { return BTreeMap::new() };
    names[..length]
        .split(|byte| *byte == 0)
        // The host's label and volio's own state are not part of the tree.
        .filter(|name| !name.is_empty() && *name != b"security.selinux")
        .filter(|name| !name.starts_with(b"user.volio.") && !name.starts_with(b"trusted.volio."))
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
            (name.to_vec(), value[..length].to_vec())
        })
        .collect()
}

/// Fails with the paths that differ, instead of two whole trees.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    let (left, right) = (snapshot(left), snapshot(right));
    let paths = left.keys().chain(right.keys());
    let differ: BTreeMap<_, _> = paths
        .filter(|path| left.get(*path) != right.get(*path))
        .map(|path| (path, (left.get(path), right.get(path))))
        .collect();
    assert!(differ.is_empty(), "{} paths differ: {:#?}", differ.len(), differ.iter().next());
}
