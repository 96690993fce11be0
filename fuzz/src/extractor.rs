//! Compares the extractor with an oracle in memory: the same layers give the same tree, or fail at the same entry.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use volio::error::Kind as ErrorKind;
use volio::tree::{
    Entry, EntryKind, ExtractOptions, Extractor, Metadata, Overlay, SourceSpec, Target, Time, TreePath, Walk,
    WalkOptions,
};

/// A change to a tree.
pub(super) enum LayerChange {
    Layer,
    Put(Entry),
    Whiteout(TreePath),
    Opaque(TreePath),
}

/// A decoder of bytes into changes: one byte for the kind of change, and the following ones for its path.
pub(super) struct Script<'a>(pub(super) &'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Returns a path of up to four names. There are only four names, so that paths collide.
    fn path(&mut self) -> Option<TreePath> {
        let byte = self.byte()?;
        let length = usize::from(byte & 3) + 1;
        let more = if length > 3 { self.byte()? } else { 0 };
        let names = [byte >> 2, byte >> 4, byte >> 6, more];
        let names: Vec<&str> =
            names[..length].iter().map(|name| ["a", "b", "c", "long name"][usize::from(name & 3)]).collect();
        TreePath::parse(names.join("/"))
    }

    pub(super) fn change(&mut self) -> Option<LayerChange> {
        let what = self.byte()?;
        let kind = match what & 15 {
            0 => return Some(LayerChange::Layer),
            1 => return Some(LayerChange::Whiteout(self.path()?)),
            2 => return Some(LayerChange::Opaque(self.path()?)),
            3..=6 => EntryKind::Directory,
            7 => EntryKind::Symlink { target: self.path()?.as_bytes().to_vec() },
            8 => EntryKind::Symlink { target: [b"../", self.path()?.as_bytes()].concat() },
            9..=11 => EntryKind::Hardlink { target: self.path()? },
            12 => EntryKind::Fifo,
            _ => EntryKind::File { size: u64::from(self.byte()?) * 700 },
        };
        let mode = match kind {
            EntryKind::Symlink { .. } => 0o777,
            EntryKind::Directory => 0o700 | u32::from(what >> 4),
            _ => 0o600 | u32::from(what >> 4),
        };
        let metadata = Metadata {
            mode,
            uid: own_uid(),
            gid: own_gid(),
            mtime: Time { seconds: 1_000_000 + i64::from(what), nanoseconds: 5 },
            ..Metadata::default()
        };
        Some(LayerChange::Put(Entry { path: self.path()?, kind, metadata }))
    }
}

/// Returns the user of this process, so that files need not be given to another one.
fn own_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(0, |it| it.uid())
}

fn own_gid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(0, |it| it.gid())
}

/// Returns the content of a file, which depends on its entry. Half of it is zeros.
pub(super) fn content(entry: &Entry) -> Vec<u8> {
    let EntryKind::File { size } = entry.kind else { return Vec::new() };
    let byte = entry.metadata.mode as u8 | 1;
    (0..size).map(|at| if at % 140_000 < 70_000 { byte } else { 0 }).collect()
}

/// Applies changes up to the first that fails. Returns the number of changes before it, and its error.
fn apply_all(
    changes: &[LayerChange],
    mut apply: impl FnMut(&LayerChange) -> volio::Result<()>,
) -> (usize, Option<ErrorKind>) {
    for (done, change) in changes.iter().enumerate() {
        if let Err(error) = apply(change) {
            return (done, Some(error.kind()));
        }
    }
    (changes.len(), None)
}

fn overlay(changes: &[LayerChange]) -> ((usize, Option<ErrorKind>), Vec<Entry>) {
    let mut overlay = Overlay::within(u64::MAX);
    overlay.begin_layer();
    let outcome = apply_all(changes, |change| {
        match change {
            LayerChange::Layer => overlay.begin_layer(),
            LayerChange::Put(entry) => overlay.put(entry, ())?,
            LayerChange::Whiteout(path) => overlay.whiteout(path),
            LayerChange::Opaque(path) => overlay.opaque(path),
        }
        Ok(())
    });
    (outcome, overlay.finish().iter().map(|(entry, ())| entry).collect())
}

fn extract(changes: &[LayerChange], target: &Path) -> (usize, Option<ErrorKind>) {
    let layers = 1 + changes.iter().filter(|change| matches!(change, LayerChange::Layer)).count();
    let options = ExtractOptions { sync: false, ..ExtractOptions::default() };
    let mut extractor = Extractor::over(Target::open_or_create(target).unwrap(), options, layers).unwrap();
    extractor.begin_layer();
    let outcome = apply_all(changes, |change| match change {
        LayerChange::Layer => {
            extractor.begin_layer();
            Ok(())
        }
        LayerChange::Put(entry) => extractor.put(entry, &mut content(entry).as_slice()),
        LayerChange::Whiteout(path) => extractor.whiteout(path),
        LayerChange::Opaque(path) => extractor.opaque(path),
    });
    if outcome.1.is_none() {
        extractor.finish().unwrap();
    }
    outcome
}

/// Returns the entries on disk, and checks the content of every file.
pub(super) fn walk(target: &Path) -> Vec<Entry> {
    let found = Walk::new(&[SourceSpec::new(target)], &WalkOptions::default()).unwrap();
    let see = |found: volio::Result<volio::tree::WalkedEntry>| {
        let found = found.unwrap();
        if let Some(mut file) = found.file {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            assert!(bytes == content(&found.entry), "{} has another content", found.entry.path);
        }
        found.entry
    };
    found.map(see).collect()
}

/// Returns entries in a form that does not depend on which name of a hard-linked file comes first.
pub(super) fn comparable(entries: Vec<Entry>) -> Vec<Entry> {
    let kinds: BTreeMap<TreePath, EntryKind> =
        entries.iter().map(|entry| (entry.path.clone(), entry.kind.clone())).collect();
    let named = |entry: &Entry| match &entry.kind {
        EntryKind::Hardlink { target } => target.clone(),
        _ => entry.path.clone(),
    };
    let mut first: BTreeMap<TreePath, TreePath> = BTreeMap::new();
    for entry in &entries {
        first.entry(named(entry)).or_insert_with(|| entry.path.clone());
    }
    let same = |mut entry: Entry| {
        let target = named(&entry);
        entry.kind = if first[&target] == entry.path {
            kinds[&target].clone()
        } else {
            EntryKind::Hardlink { target: first[&target].clone() }
        };
        // The owner of an implied directory is not defined.
        if entry.metadata.mtime == Time::default() {
            entry.metadata = Metadata::implied_directory();
        }
        entry
    };
    entries.into_iter().filter(|entry| !entry.path.is_root()).map(same).collect()
}

/// Extracts layers and compares the result with the oracle.
pub fn extractor(bytes: &[u8]) {
    let mut script = Script(&bytes[..bytes.len().min(400)]);
    let changes: Vec<LayerChange> = std::iter::from_fn(|| script.change()).collect();
    // A file system in memory is faster than a disk.
    let shm = Path::new("/dev/shm");
    let directory =
        if shm.is_dir() { tempfile::TempDir::new_in(shm) } else { tempfile::TempDir::new() }.unwrap();
    let (target, canary) = (directory.path().join("target"), directory.path().join("canary"));
    std::fs::write(&canary, "alive").unwrap();
    let (expected, _) = overlay(&changes);
    assert_eq!(extract(&changes, &target), expected);
    assert!(expected.1.is_none_or(|kind| kind == ErrorKind::Integrity));
    // The changes before the first invalid one give the same tree, too.
    let good = &changes[..expected.0];
    let again = match expected.1 {
        None => target,
        Some(_) => {
            let again = directory.path().join("again");
            assert_eq!(extract(good, &again), (good.len(), None));
            again
        }
    };
    assert_eq!(comparable(walk(&again)), comparable(overlay(good).1));
    assert_eq!(std::fs::read_to_string(canary).unwrap(), "alive");
}
