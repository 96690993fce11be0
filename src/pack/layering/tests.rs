//! Boundaries of layers move only near a change.

use super::*;
use crate::tree::Metadata;
use proptest::prelude::*;
use std::collections::BTreeSet;

const TARGET: u64 = 1 << 20;

fn path(path: &str) -> TreePath {
    TreePath::parse(path).unwrap()
}

fn entry(path: TreePath, kind: EntryKind) -> Entry {
    Entry { path, kind, metadata: Metadata::default() }
}

type Files = BTreeMap<TreePath, u64>;

/// Generates files in directories, with sizes from zero to several layers.
fn any_files() -> impl Strategy<Value = Files> {
    let size = prop_oneof![
        8 => 0..200_000u64,
        2 => 0..TARGET,
        1 => TARGET..4 * TARGET,
    ];
    prop::collection::btree_map("[a-c]{1,2}/[a-z]{1,4}", size, 1..150)
        .prop_map(|files| files.into_iter().map(|(name, size)| (path(&name), size)).collect())
}

/// Returns the plans of the layers with these files, without that of the directories.
fn plans(files: &Files) -> Vec<LayerPlan> {
    let mut planner = LayerPlanner::new(TARGET);
    for (path, size) in files {
        planner.add(&entry(path.clone(), EntryKind::File { size: *size }));
    }
    let mut plans = planner.finish();
    if plans.len() > 1 {
        assert!(plans.pop().unwrap().range.only_directories);
    }
    plans
}

/// Returns the files of each layer.
fn layers(files: &Files) -> BTreeSet<Vec<(TreePath, u64)>> {
    let content = |plan: &LayerPlan| {
        let content = files.iter().filter(|(path, _)| plan.range.contains(path));
        content.map(|(path, size)| (path.clone(), *size)).collect()
    };
    plans(files).iter().map(content).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn every_file_is_in_one_layer_and_counted_there(files in any_files()) {
        for plan in plans(&files) {
            let sizes = files.iter().filter(|(path, _)| plan.range.contains(path)).map(|(_, size)| size);
            prop_assert_eq!(plan.bytes, sizes.sum::<u64>());
        }
        let layers = layers(&files);
        prop_assert!(layers.iter().all(|layer| !layer.is_empty()));
        let mut all: Vec<_> = layers.into_iter().flatten().collect();
        all.sort();
        prop_assert_eq!(all, files.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn an_added_or_removed_file_changes_at_most_two_layers(
        files in any_files(),
        name in "[a-c]{1,2}/[a-z]{1,4}",
        size in prop_oneof![0..100_000u64, 0..4 * TARGET],
    ) {
        let mut more = files.clone();
        more.insert(path(&name), size);
        let mut less = more.clone();
        less.remove(&path(&name));
        let (less, more) = (layers(&less), layers(&more));
        prop_assert!(more.difference(&less).count() <= 2, "{:?}", more.difference(&less).collect::<Vec<_>>());
    }

    #[test]
    fn no_layer_is_much_smaller_than_half_the_target_unless_it_is_a_rest(files in any_files()) {
        let weight = |part: &LayerPlan| files.iter().filter(|(path, _)| part.range.contains(path))
            .map(|(_, size)| (size.div_ceil(HEADER) + 1) * HEADER).sum::<u64>();
        let stretches: Vec<_> =
            plans(&files).into_iter().filter(|part| !matches!(part.range.until, Bound::Included(_))).collect();
        if stretches.len() > 1 {
            prop_assert!(stretches.iter().all(|part| weight(part) >= TARGET / 2));
        }
    }
}

#[test]
fn the_size_of_a_new_file_does_not_move_the_boundary_of_a_third_layer() {
    let sizes = [
        ("a/a", 31_745),
        ("a/b", 158_721),
        ("a/c", 122_369),
        ("a/d", 126_977),
        ("a/e", 79_361),
        ("c/a", 523_265),
    ];
    let mut files: Files = sizes.into_iter().map(|(name, size)| (path(name), size)).collect();
    let before = layers(&files);
    files.insert(path("ac/q"), 523_265);
    assert!(layers(&files).difference(&before).count() <= 2);
}

#[test]
fn a_small_tree_is_one_layer_with_its_directories() {
    let files: Files = (0..900).map(|n| (path(&format!("{n}")), 512)).collect();
    assert_eq!(plans(&files), [LayerPlan { bytes: 900 * 512, ..LayerPlan::default() }]);
}

#[test]
fn layers_are_of_about_the_target_size() {
    let files: Files = (0..40_000).map(|n| (path(&format!("{n}")), 512)).collect();
    let count = plans(&files).len();
    assert!((28..56).contains(&count), "40 MiB in {count} layers");
}

#[test]
fn a_file_of_more_than_twice_the_target_is_a_layer_by_itself_and_moves_no_boundary() {
    let mut files: Files = (0..4000).map(|n| (path(&format!("{n}")), 2000)).collect();
    let before = layers(&files);
    files.insert(path("2-large"), 2 * TARGET + 1);
    let after = layers(&files);
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), [&vec![(path("2-large"), 2 * TARGET + 1)]]);
    assert_eq!(after.len(), before.len() + 1);
}

#[test]
fn there_are_never_more_than_64_layers() {
    for count in [40_000, 400_000] {
        let files: Files = (0..count).map(|n| (path(&format!("{n}")), 5000)).collect();
        let layers = plans(&files).len() + 1;
        assert!((20..=MAX_LAYERS).contains(&layers), "{layers}");
    }
    let large: Files = (0..100).map(|n| (path(&format!("{n}")), 5 * TARGET)).collect();
    assert!(plans(&large).len() < MAX_LAYERS);
}

#[test]
fn a_hard_link_goes_into_the_layer_of_its_file() {
    let mut planner = LayerPlanner::new(TARGET);
    planner.add(&entry(path("a"), EntryKind::File { size: 9 * TARGET }));
    planner.add(&entry(path("b"), EntryKind::File { size: 1 }));
    planner.add(&entry(path("c"), EntryKind::Hardlink { target: path("a") }));
    planner.add(&entry(path("d"), EntryKind::Hardlink { target: path("b") }));
    let plans = planner.finish();
    assert_eq!(plans.len(), 3);
    let in_range: Vec<Vec<_>> = plans
        .iter()
        .map(|plan| {
            ["a", "b", "c", "d"].into_iter().filter(|name| plan.range.contains(&path(name))).collect()
        })
        .collect();
    assert_eq!(in_range, [vec!["b", "d"], vec!["a"], vec![]]);
    assert_eq!(plans[1].links, BTreeMap::from([(path("a"), vec![path("c")])]));
    assert!(plans[0].links.is_empty());
}
