//! Tests of walking and extracting, on real directories.

mod agreement;
mod attributes;
mod changing;
mod creation_defaults;
mod file_threads;
mod hostile;
mod layers;
mod limits;
mod merging;
mod roundtrip;
mod sparse;
mod targets;
mod users;
mod volumes;
mod walking;

use super::*;
use crate::disk::tests::skipped;
use crate::error::Kind as ErrorKind;
use rustix::process::{getegid, geteuid};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An entry, with its content if it is a file.
type Seen = (Entry, Vec<u8>);

fn path(text: impl AsRef<[u8]>) -> TreePath {
    TreePath::parse(text).unwrap()
}

fn is_root() -> bool {
    geteuid().is_root()
}

/// An entry that belongs to the user of this process.
fn entry(name: impl AsRef<[u8]>, kind: EntryKind) -> Seen {
    let mode = match kind {
        EntryKind::Directory => 0o755,
        EntryKind::Symlink { .. } => 0o777,
        _ => 0o644,
    };
    let metadata = Metadata {
        mode,
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        mtime: Time { seconds: 1_000_000_000, nanoseconds: 987_654_321 },
        ..Metadata::default()
    };
    (Entry { path: path(name), kind, metadata }, Vec::new())
}

fn file(name: impl AsRef<[u8]>, content: &str) -> Seen {
    let (entry, _) = entry(name, EntryKind::File { size: content.len() as u64 });
    (entry, content.into())
}

fn directory(name: impl AsRef<[u8]>) -> Seen {
    entry(name, EntryKind::Directory)
}

fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Seen {
    entry(name, EntryKind::Symlink { target: target.as_ref().to_vec() })
}

fn hardlink(name: impl AsRef<[u8]>, target: &str) -> Seen {
    entry(name, EntryKind::Hardlink { target: path(target) })
}

/// Returns all entries of a directory.
fn walk(directory: &Path) -> Vec<Seen> {
    walk_with(&[SourceSpec::new(directory)], &WalkOptions::default()).unwrap().0
}

fn walk_with(sources: &[SourceSpec], options: &WalkOptions) -> crate::Result<(Vec<Seen>, Summary)> {
    walk_skipping(sources, options, &SkipList::default())
}

fn walk_skipping(
    sources: &[SourceSpec],
    options: &WalkOptions,
    skip_list: &SkipList,
) -> crate::Result<(Vec<Seen>, Summary)> {
    let mut walk = Walk::skipping(sources, options, skip_list)?;
    let mut seen = Vec::new();
    for found in &mut walk {
        let WalkedEntry { entry, file } = found?;
        assert_eq!(file.is_some(), matches!(entry.kind, EntryKind::File { .. }), "{}", entry.path);
        let mut content = Vec::new();
        file.map(|mut file| file.read_to_end(&mut content).unwrap());
        seen.push((entry, content));
    }
    Ok((seen, walk.summary()))
}

/// Returns the paths of entries, without the root.
fn names(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(|(entry, _)| entry.path.to_string()).filter(|path| path != "/").collect()
}

/// Options for tests, without syncs.
fn quick() -> ExtractOptions {
    ExtractOptions { sync: false, ..ExtractOptions::default() }
}

/// An extractor of several layers.
fn layered_extractor(target: &Path) -> crate::Result<Extractor> {
    Extractor::over(Target::open_or_create(target)?, quick(), 2)
}

fn put(extractor: &mut Extractor, (entry, content): &Seen) -> crate::Result<()> {
    extractor.put(entry, &mut &content[..])
}

fn extract(seen: &[Seen], target: &Path) -> crate::Result<Extracted> {
    let mut extractor = Extractor::new(target, quick())?;
    seen.iter().try_for_each(|seen| put(&mut extractor, seen))?;
    extractor.finish()
}

/// Runs the test `name` of these modules again in another process.
fn again(name: &str, prepare: impl FnOnce(&Path, Command) -> Command) -> Option<PathBuf> {
    crate::disk::tests::again(&whole(name), prepare)
}

/// Runs the test `name` of these modules again in a mount namespace.
fn again_with_mounts(name: &str) -> Option<PathBuf> {
    crate::disk::tests::again_with_mounts(&whole(name))
}

/// Returns the name of a test with the modules that contain it.
fn whole(name: &str) -> String {
    let module = module_path!().split_once("::").unwrap().1;
    format!("{module}::{name}")
}

/// Mounts a file system of 1 MiB and 1000 files.
fn mount_small(directory: &Path) {
    let options = ["-t", "tmpfs", "-o", "size=1m,nr_inodes=1000", "none"];
    assert!(Command::new("mount").args(options).arg(directory).status().unwrap().success());
}
