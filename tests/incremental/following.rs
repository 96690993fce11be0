//! Directories that follow an image by `unpack --sync`.

use super::chain::{Chain, Plan};
use super::changes::{CHANGES, Change, HIDDEN};
use super::foreign::publish_random;
use super::judge::{assert_identical_by_script, assert_identical_with_holes};
use super::place::Place;
use super::random::{Random, with_seeds};
use super::tree::RandomTree;
use crate::engines::survey::Survey;
use serde_json::Value;
use std::path::Path;

/// The step of a tree that is later than every step of a chain.
const LATER: i64 = 100;

/// Changes that size, time or metadata show at any time. A change in the same tick shows only if it was recent when the
/// directory was filled.
fn visible() -> Vec<Change> {
    CHANGES.iter().copied().filter(|(name, _)| !name.contains("same tick")).collect()
}

fn sync(chain: &Chain, more: &[&str], image: usize, target: &str) -> Value {
    let image = &chain.images[image];
    chain.place.json(&[&["unpack", "--sync"], more, &[image, target]].concat())["sync"].clone()
}

#[test]
fn a_directory_follows_an_image_forwards_and_backwards() {
    with_seeds(3, |seed| {
        let chain = Chain::of(20_000 + seed, 4, Plan::default());
        let mut random = Random::new(seed);
        let target = chain.place.path("target");
        let mut walk: Vec<usize> = (0..4).chain([2, 0, 3, 1]).collect();
        walk.extend((0..3).map(|_| random.below(4)));
        for version in walk {
            sync(&chain, &[], version, "target");
            assert_identical_with_holes(&chain.fresh(version), &target);
        }
        assert_identical_by_script(&chain.fresh(3), &chain.fresh(3));
    });
}

#[test]
fn every_kind_of_change_is_synced_by_itself() {
    for (number, kind) in CHANGES.iter().enumerate() {
        let plan = Plan { kinds: vec![*kind], size: (15, 2), large_files: 0, ..Plan::default() };
        let chain = Chain::of(21_000 + number as u64, 2, plan);
        for version in [0, 1, 0] {
            sync(&chain, &[], version, "target");
            assert_identical_with_holes(&chain.fresh(version), &chain.place.path("target"));
        }
    }
}

#[test]
fn a_synced_directory_is_identical_by_the_script_too() {
    with_seeds(2, |seed| {
        let chain = Chain::of(22_000 + seed, 2, Plan::default());
        for version in [0, 1] {
            sync(&chain, &[], version, "target");
            assert_identical_by_script(&chain.fresh(version), &chain.place.path("target"));
        }
    });
}

#[test]
fn local_changes_are_undone() {
    with_seeds(3, |seed| {
        let chain = Chain::of(23_000 + seed, 2, Plan::default());
        let target = chain.place.path("target");
        sync(&chain, &[], 0, "target");
        for (step, version) in [0, 1, 1, 0].into_iter().enumerate() {
            let mut local = RandomTree::over(&target, seed + step as u64, LATER + step as i64);
            local.step_of(&visible(), 8);
            sync(&chain, &[], version, "target");
            assert_identical_with_holes(&chain.fresh(version), &target);
        }
    });
}

#[test]
fn local_changes_that_size_and_time_do_not_show_are_undone_with_checksum() {
    with_seeds(3, |seed| {
        let chain = Chain::of(24_000 + seed, 2, Plan::default());
        let target = chain.place.path("target");
        sync(&chain, &[], 0, "target");
        for version in [0, 1] {
            let mut local = RandomTree::over(&target, seed, LATER);
            let before = local.entries();
            local.apply(HIDDEN);
            local.settle(&before);
            sync(&chain, &["--checksum"], version, "target");
            assert_identical_with_holes(&chain.fresh(version), &target);
        }
    });
}

#[test]
fn a_second_sync_finds_nothing_to_do() {
    with_seeds(2, |seed| {
        let chain = Chain::of(25_000 + seed, 2, Plan::default());
        sync(&chain, &[], 0, "target");
        sync(&chain, &[], 1, "target");
        for more in [&[][..], &["--checksum"]] {
            let done = sync(&chain, more, 1, "target");
            for what in ["written", "attributes", "removed"] {
                assert_eq!(done[what], 0, "{what}: {done}");
            }
            assert!(done["fetched"].as_u64().unwrap() <= tables_of_contents(&chain, 1), "{done}");
        }
    });
}

/// The bytes of the tables of contents of an image.
fn tables_of_contents(chain: &Chain, image: usize) -> u64 {
    let layers = chain.layers(&chain.images[image]);
    let position = |layer: &Value| {
        let position = layer["annotations"]["io.volio.toc.position"].as_str()?;
        position.split(':').nth(1)?.parse::<u64>().ok()
    };
    layers.iter().filter_map(position).sum()
}

#[test]
fn a_dry_run_says_what_the_sync_does_and_changes_nothing() {
    with_seeds(3, |seed| {
        let chain = Chain::of(26_000 + seed, 3, Plan::default());
        let target = chain.place.path("target");
        sync(&chain, &[], 0, "target");
        for version in [1, 2, 0] {
            let before = Survey::of(&target);
            let planned = sync(&chain, &["--dry-run"], version, "target");
            before.assert_same(&Survey::of(&target));
            let done = sync(&chain, &[], version, "target");
            for what in ["written", "attributes", "removed", "unchanged"] {
                assert_eq!(planned[what], done[what], "{what}: {planned} {done}");
            }
        }
    });
}

#[test]
fn a_part_of_the_image_is_synced_like_a_part_of_it_is_unpacked() {
    with_seeds(3, |seed| {
        let plan = Plan { sources: &["tree:/data", "tree:/other/data"], ..Plan::default() };
        let chain = Chain::of(27_000 + seed, 3, plan);
        for (name, part) in [("subpath", ["--subpath", "/data"]), ("strip", ["--strip", "1"])] {
            std::fs::create_dir(chain.place.path(name)).unwrap();
            let (target, beside) = (format!("{name}/target"), chain.place.path(name).join("beside"));
            std::fs::write(&beside, "not of the target").unwrap();
            for version in [0, 2, 1] {
                sync(&chain, &part, version, &target);
                let fresh = format!("{name}-{version}");
                let image = &chain.images[version];
                chain.place.volio(&[&["unpack"], &part[..], &[image, &fresh]].concat()).succeeded();
                // The target itself is not in the image when a name was removed from all paths.
                let (fresh, target) =
                    [fresh, target.clone()].map(|name| Survey::of(&chain.place.path(&name))).into();
                fresh.below_the_root().assert_same(&target.below_the_root());
                assert!(Path::new(&beside).exists());
            }
        }
    });
}

#[test]
fn images_of_every_compression_and_with_several_layers_are_synced() {
    let options: [&[&str]; 5] = [
        &["--compression", "gzip"],
        &["--compression", "none"],
        &["--layer-size", "1M"],
        &["--layer-size", "1M", "--compression", "gzip"],
        &["--normalize"],
    ];
    for (number, options) in options.into_iter().enumerate() {
        let with_base = if number == 2 { &["--max-layers", "3"][..] } else { &[] };
        let chain = Chain::of(28_000 + number as u64, 3, Plan { options, with_base, ..Plan::default() });
        for version in [0, 1, 2, 0] {
            sync(&chain, &[], version, "target");
            assert_identical_with_holes(&chain.fresh(version), &chain.place.path("target"));
        }
    }
}

#[test]
fn directories_follow_images_with_whiteouts_of_other_programs() {
    with_seeds(10, |seed| {
        let (place, mut random) = (Place::new(), Random::new(seed));
        let names = ["0", "1", "2", "3"].map(|name| (name, publish_random(&place, &mut random, name)));
        for (name, _) in names.iter().filter(|(_, valid)| *valid) {
            place.volio(&["unpack", "--sync", &format!("oci:foreign:{name}"), "target"]).succeeded();
            // The layers have no entry for the root.
            let fresh = Survey::of(&place.path(&format!("fresh-{name}"))).below_the_root();
            fresh.assert_same(&Survey::of(&place.path("target")).below_the_root());
        }
    });
}
