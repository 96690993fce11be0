//! `unpack --sync` over random trees gives what a fresh unpack gives.

use super::judge::{assert_identical_by_script, assert_identical_with_holes};
use super::place::Place;
use super::random::with_seeds;
use super::tree::RandomTree;
use serde_json::Value;

/// Syncs, and returns the numbers.
fn sync(place: &Place, image: &str, more: &[&str]) -> Value {
    let arguments = [&["unpack", "--sync", "--format", "json"], more, &[image, "target"]].concat();
    let synced = place.volio(&arguments).succeeded();
    serde_json::from_str::<Value>(&synced).unwrap()["sync"].clone()
}

#[test]
fn a_sync_of_one_random_tree_over_another_is_a_fresh_unpack() {
    with_seeds(6, |seed| {
        let place = Place::new();
        let mut tree = place.tree(seed, 30, 2);
        place.volio(&["pack", "oci:layout:0", "tree"]).succeeded();
        place.volio(&["unpack", "oci:layout:0", "target"]).succeeded();
        for (step, compression) in ["zstd", "gzip", "zstd", "none", "zstd"].into_iter().enumerate() {
            tree.step(if step % 2 == 0 { 8 } else { 40 });
            let (image, fresh) = (format!("oci:layout:{}", step + 1), format!("fresh-{step}"));
            place.volio(&["pack", "--compression", compression, &image, "tree"]).succeeded();
            place.volio(&["unpack", &image, &fresh]).succeeded();
            let planned = sync(&place, &image, &["--dry-run"]);
            let synced = sync(&place, &image, &[]);
            assert_eq!(planned, synced, "a dry run says what is done then, step {step}: {:?}", tree.log);
            assert_identical_with_holes(&place.path(&fresh), &place.path("target"));
            if step == 4 {
                assert_identical_by_script(&place.path(&fresh), &place.path("target"));
            }
            let again = sync(&place, &image, &[]);
            for number in ["written", "attributes", "removed", "reused"] {
                assert_eq!(again[number], 0, "{number} of {again} at step {step}: {:?}", tree.log);
            }
        }
    });
}

#[test]
fn whatever_happened_to_a_target_a_sync_restores_it() {
    with_seeds(6, |seed| {
        let place = Place::new();
        place.tree(seed, 30, 2);
        place.volio(&["pack", "oci:layout:0", "tree"]).succeeded();
        for name in ["fresh", "target"] {
            place.volio(&["unpack", "oci:layout:0", name]).succeeded();
        }
        for step in 0..4u64 {
            let mut target = RandomTree::over(&place.path("target"), seed * 100 + step, 100);
            target.step(12);
            sync(&place, "oci:layout:0", &[]);
            assert_identical_with_holes(&place.path("fresh"), &place.path("target"));
        }
    });
}
