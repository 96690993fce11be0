//! Random trees that are extracted and walked.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The kind of a random entry. A hard link leads to one of the entries before it.
#[derive(Clone, Debug)]
enum Random {
    File(Vec<u8>),
    Directory,
    Symlink(Vec<u8>),
    Hardlink(usize),
    Fifo,
}

/// Names that sort unexpectedly, are not UTF-8, or have the maximal length.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let long = vec![b'x'; 255];
    let names: [&[u8]; 9] = [b"a", b"b", b"a.b", b"a-", b"-", b" \n", b"\xff\x80", b"...", &long];
    prop::sample::select(names.map(<[u8]>::to_vec).to_vec())
}

fn kind() -> impl Strategy<Value = Random> {
    prop_oneof![
        3 => vec(any::<u8>(), 0..40).prop_map(Random::File),
        2 => Just(Random::Directory),
        1 => vec(1..=255u8, 1..60).prop_map(Random::Symlink),
        2 => any::<usize>().prop_map(Random::Hardlink),
        1 => Just(Random::Fifo),
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let ids = if is_root() { vec![0, 1000, u32::MAX - 1] } else { vec![] };
    let uid = prop::sample::select([ids.clone(), vec![geteuid().as_raw()]].concat());
    let gid = prop::sample::select([ids, vec![getegid().as_raw()]].concat());
    // The range of ext4.
    let time = (-(1i64 << 31)..1 << 33, 0..1_000_000_000u32);
    let xattrs = prop::collection::btree_map("user\\.[a-c]", vec(any::<u8>(), 0..20), 0..2);
    (0..0o10000u32, uid, gid, time, xattrs).prop_map(|(mode, uid, gid, (seconds, nanoseconds), xattrs)| {
        let xattrs = xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        Metadata { mode, uid, gid, mtime: Time { seconds, nanoseconds }, xattrs }
    })
}

/// Trees in the order of a walk.
fn tree() -> impl Strategy<Value = Vec<Seen>> {
    vec((vec(name(), 0..5), kind(), metadata()), 1..40).prop_map(|random| {
        let mut tree = BTreeMap::new();
        for (names, kind, metadata) in random {
            add(&mut tree, path(names.join(&b'/')), kind, metadata);
        }
        let mut seen: Vec<Seen> = Vec::new();
        for (path, (kind, metadata)) in tree {
            let found = walked(&seen, path, kind, metadata);
            seen.push(found);
        }
        seen
    })
}

/// Adds an entry and the directories that it needs, unless one of them is another kind of entry.
fn add(tree: &mut BTreeMap<TreePath, (Random, Metadata)>, path: TreePath, kind: Random, metadata: Metadata) {
    let ancestors: Vec<_> = std::iter::successors(path.parent(), TreePath::parent).collect();
    let blocks = |path| tree.get(path).is_some_and(|(kind, _)| !matches!(kind, Random::Directory));
    if tree.contains_key(&path) || ancestors.iter().any(blocks) {
        return;
    }
    for ancestor in ancestors {
        tree.entry(ancestor).or_insert_with(|| (Random::Directory, metadata.clone()));
    }
    let kind = if path.is_root() { Random::Directory } else { kind };
    tree.insert(path, (kind, metadata));
}

/// Returns the entry that a walk yields, with the metadata that its kind can have.
fn walked(earlier: &[Seen], path: TreePath, kind: Random, mut metadata: Metadata) -> Seen {
    let first_names: Vec<_> = earlier
        .iter()
        .filter(|(entry, _)| !matches!(entry.kind, EntryKind::Directory | EntryKind::Hardlink { .. }))
        .collect();
    let (kind, content) = match kind {
        Random::Hardlink(n) if !first_names.is_empty() => {
            let target = &first_names[n % first_names.len()].0;
            metadata = target.metadata.clone();
            (EntryKind::Hardlink { target: target.path.clone() }, vec![])
        }
        Random::File(content) => (EntryKind::File { size: content.len() as u64 }, content),
        Random::Symlink(target) => (EntryKind::Symlink { target }, vec![]),
        Random::Fifo => (EntryKind::Fifo, vec![]),
        Random::Directory => (EntryKind::Directory, vec![]),
        Random::Hardlink(_) => (EntryKind::File { size: 0 }, vec![]),
    };
    match kind {
        EntryKind::Symlink { .. } => (metadata.mode, metadata.xattrs) = (0o777, BTreeMap::new()),
        EntryKind::Fifo => metadata.xattrs.clear(),
        // A user without root's rights must be able to read the files.
        EntryKind::Directory if !is_root() => metadata.mode |= 0o700,
        EntryKind::File { .. } if !is_root() => metadata.mode |= 0o400,
        _ => {}
    }
    (Entry { path, kind, metadata }, content)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_that_is_extracted_and_walked_is_the_same(seen in tree()) {
        let target = tempfile::tempdir().unwrap();
        extract(&seen, target.path()).unwrap();
        prop_assert_eq!(walk(target.path()), seen);
    }

    #[test]
    fn the_order_of_entries_matters_only_to_hard_links(seen in tree(), seed in any::<u64>()) {
        let mut shuffled = seen.clone();
        let noise = |path: &TreePath| path.as_bytes().iter().fold(seed | 1, |n, byte| {
            n.rotate_left(9).wrapping_mul(seed | 1).wrapping_add(u64::from(*byte))
        });
        shuffled.sort_by_key(|(entry, _)| (matches!(entry.kind, EntryKind::Hardlink { .. }), noise(&entry.path)));
        let target = tempfile::tempdir().unwrap();
        extract(&shuffled, target.path()).unwrap();
        prop_assert_eq!(walk(target.path()), seen);
    }

    #[test]
    fn extracting_a_tree_over_itself_changes_nothing(seen in tree()) {
        let target = tempfile::tempdir().unwrap();
        extract(&seen, target.path()).unwrap();
        extract(&seen, target.path()).unwrap();
        prop_assert_eq!(walk(target.path()), seen);
    }
}

#[test]
fn a_missing_target_is_created_and_a_missing_parent_is_an_implied_directory() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("new/target");
    let done = extract(&[file("a/b/c", "data")], &target).unwrap();
    assert_eq!((done.entries, done.bytes, done.ownership_not_restored), (1, 4, 0));
    let seen = walk(&target);
    assert_eq!(names(&seen), ["/a", "/a/b", "/a/b/c"]);
    assert_eq!((seen[1].0.metadata.mode, seen[1].0.metadata.mtime), (0o755, Time::default()));
}

#[test]
fn an_implied_directory_does_not_change_an_existing_one() {
    let target = tempfile::tempdir().unwrap();
    let (mut there, _) = directory("there");
    there.metadata.mode = 0o700;
    let implied = Entry::implied_directory(path("there"));
    extract(&[(there.clone(), vec![])], target.path()).unwrap();
    extract(&[(implied, vec![])], target.path()).unwrap();
    assert_eq!(walk(target.path())[1].0, there);
    let implied = Entry::implied_directory(path("new"));
    extract(&[(implied, vec![])], target.path()).unwrap();
    assert_eq!(walk(target.path())[1].0.metadata.mtime, Time::default());
}

#[test]
fn zeros_become_holes_as_the_options_say() {
    use std::os::unix::fs::MetadataExt;
    let zeros = 1 << 20;
    // A long run of zeros, one of the size of a block, and another long one.
    let block = [vec![1; 4096], vec![0; 4096], vec![1; 4096]].concat();
    let content = [vec![0; zeros], block, vec![0; zeros]].concat();
    let (sparse, _) = entry("sparse", EntryKind::File { size: content.len() as u64 });
    let mut taken = Vec::new();
    for holes in [Holes::All, Holes::Long, Holes::Never] {
        let target = tempfile::tempdir().unwrap();
        let mut extractor = Extractor::new(target.path(), ExtractOptions { holes, ..quick() }).unwrap();
        put(&mut extractor, &(sparse.clone(), content.clone())).unwrap();
        extractor.finish().unwrap();
        assert!(fs::read(target.path().join("sparse")).unwrap() == content);
        taken.push(fs::metadata(target.path().join("sparse")).unwrap().blocks());
    }
    assert!(taken[0] < taken[1] && taken[1] + 2 * zeros as u64 / 512 <= taken[2], "{taken:?} blocks");
}

#[test]
fn content_that_is_too_short_is_an_integrity_error() {
    let target = tempfile::tempdir().unwrap();
    let (entry, _) = entry("a\nb", EntryKind::File { size: 5 });
    let error = extract(&[(entry, b"four".to_vec())], target.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
}

#[test]
fn attributes_with_long_names_and_long_values_are_read_whole() {
    let temporary = tempfile::tempdir().unwrap();
    let mut seen = file("file", "");
    for length in [0, 255, 256, 257, 1500] {
        let name = format!("user.{:0100}", length);
        seen.0.metadata.xattrs.insert(name.into_bytes(), vec![7; length]);
    }
    extract(&[directory(""), seen.clone()], temporary.path()).unwrap();
    assert_eq!(walk(temporary.path())[1], seen);
}
