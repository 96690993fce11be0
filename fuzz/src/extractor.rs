//! The whole extractor against an oracle in memory: the same layers become the same tree, or fail at the same entry.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use volio::error::Kind as ErrorKind;
use volio::tree::{
    Entry, EntryKind, ExtractOptions, Extractor, Metadata, Overlay, SourceSpec, Target, Time, TreePath, Walk,
    WalkOptions,
};

enum Change {
    Layer,
    Put(Entry),
    Whiteout(TreePath),
    Opaque(TreePath),
}

/// Bytes as changes to a tree: one says what, the next ones where.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Few names, so that they meet: two bits each, up to four of them.
    fn path(&mut self) -> Option<TreePath> {
        let byte = self.byte()?;
        let length = usize::from(byte & 3) + 1;
        let more = if length > 3 { self.byte()? } else { 0 };
        let names = [byte >> 2, byte >> 4, byte >> 6, more];
        let names: Vec<&str> =
            names[..length].iter().map(|name| ["a", "b", "c", "long name"][usize::from(name & 3)]).collect();
        TreePath::parse(names.join("/"))
    }

    fn change(&mut self) -> Option<Change> {
        let what = self.byte()?;
        let kind = match what & 15 {
            0 => return Some(Change::Layer),
            1 => return Some(Change::Whiteout(self.path()?)),
            2 => return Some(Change::Opaque(self.path()?)),
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
        Some(Change::Put(Entry { path: self.path()?, kind, metadata }))
    }
}

/// Whoever runs this: what a file belongs to is not the question here.
fn own_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(0, |it| it.uid())
}

fn own_gid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map_or(0, |it| it.gid())
}

/// The content of a file is known from the rest of it, half of it zeros.
fn content(entry: &Entry) -> Vec<u8> {
    let EntryKind::File { size } = entry.kind else { return Vec::new() };
    let byte = entry.metadata.mode as u8 | 1;
    (0..size).map(|at| if at % 140_000 < 70_000 { byte } else { 0 }).collect()
}

/// Runs the changes up to the first that fails; how many went well, and how it failed.
fn run(
    changes: &[Change],
    mut apply: impl FnMut(&Change) -> volio::Result<()>,
) -> (usize, Option<ErrorKind>) {
    for (done, change) in changes.iter().enumerate() {
        if let Err(error) = apply(change) {
            return (done, Some(error.kind()));
        }
    }
    (changes.len(), None)
}

fn overlay(changes: &[Change]) -> ((usize, Option<ErrorKind>), Vec<Entry>) {
    let mut overlay = Overlay::within(u64::MAX);
    overlay.begin_layer();
    let outcome = run(changes, |change| {
        match change {
            Change::Layer => overlay.begin_layer(),
            Change::Put(entry) => overlay.put(entry, ())?,
            Change::Whiteout(path) => overlay.whiteout(path),
            Change::Opaque(path) => overlay.opaque(path),
        }
        Ok(())
    });
    (outcome, overlay.finish().iter().map(|(entry, ())| entry).collect())
}

fn extract(changes: &[Change], target: &Path) -> (usize, Option<ErrorKind>) {
    let layers = 1 + changes.iter().filter(|change| matches!(change, Change::Layer)).count();
    let options = ExtractOptions { sync: false, ..ExtractOptions::default() };
    let mut extractor = Extractor::over(Target::open_or_create(target).unwrap(), options, layers).unwrap();
    extractor.begin_layer();
    let outcome = run(changes, |change| match change {
        Change::Layer => {
            extractor.begin_layer();
            Ok(())
        }
        Change::Put(entry) => extractor.put(entry, &mut content(entry).as_slice()),
        Change::Whiteout(path) => extractor.whiteout(path),
        Change::Opaque(path) => extractor.opaque(path),
    });
    if outcome.1.is_none() {
        extractor.finish().unwrap();
    }
    outcome
}

/// What is on disk; the content of every file is the one that its entry says.
fn walk(target: &Path) -> Vec<Entry> {
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

/// The same in a form that does not depend on which of several names of one thing has it.
fn comparable(entries: Vec<Entry>) -> Vec<Entry> {
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
        let thing = named(&entry);
        entry.kind = match first[&thing] == entry.path {
            true => kinds[&thing].clone(),
            false => EntryKind::Hardlink { target: first[&thing].clone() },
        };
        // Nobody said whose a directory is that only leads somewhere.
        if entry.metadata.mtime == Time::default() {
            entry.metadata = Metadata::implied_directory();
        }
        entry
    };
    entries.into_iter().filter(|entry| !entry.path.is_root()).map(same).collect()
}

pub fn extractor(bytes: &[u8]) {
    let mut script = Script(&bytes[..bytes.len().min(400)]);
    let changes: Vec<Change> = std::iter::from_fn(|| script.change()).collect();
    // In memory nothing waits for a disk.
    let place = match Path::new("/dev/shm").is_dir() {
        true => tempfile::TempDir::new_in("/dev/shm"),
        false => tempfile::TempDir::new(),
    };
    let place = place.unwrap();
    let (target, canary) = (place.path().join("target"), place.path().join("canary"));
    std::fs::write(&canary, "alive").unwrap();
    let (expected, _) = overlay(&changes);
    assert_eq!(extract(&changes, &target), expected);
    assert!(expected.1.is_none_or(|kind| kind == ErrorKind::Integrity));
    // What came before the change that made no sense is the same too.
    let good = &changes[..expected.0];
    let again = match expected.1 {
        None => target,
        Some(_) => {
            let again = place.path().join("again");
            assert_eq!(extract(good, &again), (good.len(), None));
            again
        }
    };
    assert_eq!(comparable(walk(&again)), comparable(overlay(good).1));
    assert_eq!(std::fs::read_to_string(canary).unwrap(), "alive");
}
