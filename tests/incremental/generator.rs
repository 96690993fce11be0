//! The random trees and the comparison themselves. Without these tests the others would prove nothing.

use super::changes::{CHANGES, Change, HIDDEN};
use super::judge::assert_identical;
use super::random::with_seeds;
use super::tree::{Kind, RandomTree, is_root};
use crate::engines::survey::Survey;
use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn every_kind_of_change_is_seen_by_the_comparison() {
    let place = tempfile::tempdir().unwrap();
    let owners = |name: &str| name == "the owner" || name == "the number of a device";
    let kinds = CHANGES.iter().chain([&HIDDEN]).filter(|(name, _)| is_root() || !owners(name));
    for (number, change) in kinds.enumerate() {
        let seen = (0..20).any(|seed| is_seen(&place.path().join(format!("{number}-{seed}")), seed, *change));
        assert!(seen, "no tree has an entry for this change: {}", change.0);
    }
}

/// Returns whether there was an entry for the change. If there was, it must be seen.
fn is_seen(root: &std::path::Path, seed: u64, change: Change) -> bool {
    let mut tree = RandomTree::make(root, seed, 30, 2);
    let (entries, before) = (tree.entries(), Survey::of(root));
    let applied = tree.apply(change);
    tree.settle(&entries);
    // An attribute or a mode may be set to the same value, and empty files may be exchanged.
    applied && before != Survey::of(root)
}

#[test]
fn the_same_seed_makes_the_same_trees_and_a_copy_is_identical() {
    with_seeds(4, |seed| {
        let place = tempfile::tempdir().unwrap();
        let mut trees = ["one", "other"].map(|name| RandomTree::make(&place.path().join(name), seed, 25, 2));
        for step in 0..3 {
            trees.iter_mut().for_each(|tree| tree.step(6));
            assert_identical(trees[0].root(), trees[1].root());
            let copy = place.path().join(format!("copy-{step}"));
            let copied = Command::new("cp").arg("-a").arg(trees[0].root()).arg(&copy).status().unwrap();
            assert!(copied.success());
            assert_identical(trees[0].root(), &copy);
        }
        assert_eq!(trees[0].log, trees[1].log);
    });
}

#[test]
fn the_trees_have_every_kind_of_entry() {
    let (mut kinds, mut several_names, mut large, mut empty) = (BTreeSet::new(), false, false, false);
    for seed in 0..8 {
        let place = tempfile::tempdir().unwrap();
        let tree = RandomTree::make(&place.path().join("tree"), seed, 25, 2);
        for entry in tree.entries() {
            kinds.insert(format!("{:?}", entry.kind));
            several_names |= entry.kind != Kind::Directory && entry.names > 1;
            large |= entry.size > 1 << 20;
            empty |= entry.kind == Kind::File && entry.size == 0;
        }
    }
    let expected = Kind::ALL.iter().filter(|kind| is_root() || **kind != Kind::Device);
    assert_eq!(kinds, expected.map(|kind| format!("{kind:?}")).collect());
    assert!(several_names && large && empty);
}
