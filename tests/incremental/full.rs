//! Random trees, packed and unpacked in full. What fails here is not the fault of an incremental pack.

use super::judge::{assert_identical, assert_identical_by_script, assert_identical_with_holes};
use super::place::Place;
use super::random::with_seeds;

#[test]
fn a_random_tree_comes_back_after_every_change() {
    with_seeds(3, |seed| {
        let place = Place::new();
        let mut tree = place.tree(seed, 25, 2);
        for (step, compression) in ["zstd", "gzip", "none"].into_iter().enumerate() {
            let (image, target) = (format!("oci:layout:{step}"), format!("target-{step}"));
            place.volio(&["pack", "--compression", compression, &image, "tree"]).succeeded();
            place.volio(&["unpack", &image, &target]).succeeded();
            assert_identical(tree.root(), &place.path(&target));
            place.volio(&["diff", &image, "tree"]).succeeded();
            tree.step(8);
            place.volio(&["diff", &image, "tree"]).failed_with(7);
        }
        place.volio(&["unpack", "oci:layout:2", "again"]).succeeded();
        assert_identical_with_holes(&place.path("target-2"), &place.path("again"));
        assert_identical_by_script(&place.path("target-2"), &place.path("again"));
    });
}
