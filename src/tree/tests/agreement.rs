//! Agreement of the extractor and the overlay, which implement the same rules on disk and in memory.

use super::*;
use crate::tree::Overlay;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Mutation {
    Put(Entry),
    Whiteout(TreePath),
    Opaque(TreePath),
}

/// Paths of few names, so that they collide.
fn any_path() -> impl Strategy<Value = TreePath> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4)
        .prop_map(|names| path(names.join("/")))
}

/// Targets of symbolic links: above, beside or below the link, or from the root.
fn any_target() -> impl Strategy<Value = String> {
    let names = prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "..", "."]), 1..4);
    (any::<bool>(), names)
        .prop_map(|(absolute, names)| format!("{}{}", if absolute { "/" } else { "" }, names.join("/")))
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let kind = prop_oneof![
        2 => Just(EntryKind::File { size: 0 }),
        3 => Just(EntryKind::Directory),
        2 => any_target().prop_map(|target| EntryKind::Symlink { target: target.into_bytes() }),
        2 => any_path().prop_map(|target| EntryKind::Hardlink { target }),
        1 => Just(EntryKind::Fifo),
    ];
    (any_path(), kind, 0..0o1000u32).prop_map(|(path, kind, mode)| {
        let (mut made, _) = entry(path.as_bytes(), kind);
        // The mode distinguishes entries with the same path. Root and the owner can read every one of them.
        made.metadata.mode = match made.kind {
            EntryKind::Symlink { .. } => 0o777,
            _ => mode | 0o600 | if made.kind == EntryKind::Directory { 0o100 } else { 0 },
        };
        made
    })
}

fn any_layers() -> impl Strategy<Value = Vec<Vec<Mutation>>> {
    let change = prop_oneof![
        8 => any_entry().prop_map(Mutation::Put),
        1 => any_path().prop_map(Mutation::Whiteout),
        1 => any_path().prop_map(Mutation::Opaque),
    ];
    prop::collection::vec(prop::collection::vec(change, 0..8), 1..4)
}

/// Returns all changes in order, each with the number of its layer.
fn in_order(layers: &[Vec<Mutation>]) -> Vec<(usize, &Mutation)> {
    layers
        .iter()
        .enumerate()
        .flat_map(|(number, layer)| layer.iter().map(move |change| (number, change)))
        .collect()
}

/// Returns the number of changes before the first one that is invalid, and the resulting tree.
fn overlaid(changes: &[(usize, &Mutation)]) -> (usize, crate::Result<Vec<Entry>>) {
    let mut overlay = Overlay::within(u64::MAX);
    let mut layer = usize::MAX;
    for (done, (number, change)) in changes.iter().enumerate() {
        if *number != layer {
            layer = *number;
            overlay.begin_layer();
        }
        let result = match change {
            Mutation::Put(entry) => overlay.put(entry, ()),
            Mutation::Whiteout(path) => {
                overlay.whiteout(path);
                Ok(())
            }
            Mutation::Opaque(path) => {
                overlay.opaque(path);
                Ok(())
            }
        };
        if let Err(error) = result {
            return (done, Err(error));
        }
    }
    (changes.len(), Ok(overlay.finish().iter().map(|(entry, ())| entry).collect()))
}

/// The same on disk, and the number of entries that were counted.
fn extracted(changes: &[(usize, &Mutation)], layers: usize) -> (usize, crate::Result<(Vec<Entry>, u64)>) {
    let target = tempfile::tempdir().unwrap();
    let opened = Target::open_or_create(target.path()).unwrap();
    let mut extractor = Extractor::over(opened, quick(), layers).unwrap();
    let mut layer = usize::MAX;
    for (done, (number, change)) in changes.iter().enumerate() {
        if *number != layer {
            layer = *number;
            extractor.begin_layer();
        }
        let result = match change {
            Mutation::Put(entry) => extractor.put(entry, &mut std::io::empty()),
            Mutation::Whiteout(path) => extractor.whiteout(path),
            Mutation::Opaque(path) => extractor.opaque(path),
        };
        if let Err(error) = result {
            return (done, Err(error));
        }
    }
    let counted = extractor.finish().unwrap().entries;
    (changes.len(), Ok((walk(target.path()).into_iter().map(|(entry, _)| entry).collect(), counted)))
}

/// Returns entries in a form that can be compared: without the metadata of implied directories, and with each hard link
/// to the first name in order.
fn comparable(entries: Vec<Entry>) -> Vec<Entry> {
    let mut first: std::collections::BTreeMap<TreePath, TreePath> = std::collections::BTreeMap::new();
    let kinds: std::collections::BTreeMap<TreePath, EntryKind> =
        entries.iter().map(|entry| (entry.path.clone(), entry.kind.clone())).collect();
    let named = |entry: &Entry| match &entry.kind {
        EntryKind::Hardlink { target } => target.clone(),
        _ => entry.path.clone(),
    };
    for entry in &entries {
        first.entry(named(entry)).or_insert_with(|| entry.path.clone());
    }
    let comparable = |mut entry: Entry| {
        let inode = named(&entry);
        entry.kind = if first[&inode] == entry.path {
            kinds[&inode].clone()
        } else {
            EntryKind::Hardlink { target: first[&inode].clone() }
        };
        if entry.metadata.mtime == Time::default() {
            entry.metadata = Metadata::implied_directory();
        }
        entry
    };
    entries.into_iter().filter(|entry| !entry.path.is_root()).map(comparable).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]
    #[test]
    fn an_overlay_equals_the_same_layers_on_disk(layers in any_layers()) {
        let changes = in_order(&layers);
        let (good, overlaid_all) = overlaid(&changes);
        let (done, extracted_all) = extracted(&changes, layers.len());
        prop_assert_eq!(good, done, "{:?} but {:?}", overlaid_all.err(), extracted_all.err());
        let kinds = (overlaid_all.err().map(|error| error.kind()), extracted_all.err().map(|error| error.kind()));
        let expected = (good < changes.len()).then_some(ErrorKind::Integrity);
        prop_assert_eq!(kinds, (expected, expected));
        // The trees before the invalid change are equal too.
        let (_, overlay) = overlaid(&changes[..good]);
        let (_, target) = extracted(&changes[..good], layers.len());
        let (overlay, (target, counted)) = (overlay.unwrap(), target.unwrap());
        if layers.len() > 1 {
            // Entries that a layer describes: directories that only lead to others have no time.
            let described = overlay.iter().filter(|entry| entry.metadata.mtime != Time::default());
            prop_assert_eq!(counted, described.count() as u64);
        }
        prop_assert_eq!(comparable(overlay), comparable(target));
    }
}
