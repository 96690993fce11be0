//! Syncs that are killed at random moments, and then run again.

use super::chain::{Chain, Plan};
use super::judge::assert_identical_with_holes;
use super::killed::{kill_after_a_part_of, kills, own_files};
use super::random::Random;
use crate::engines::survey::Survey;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// The record of a target.
fn record(target: &Path) -> Option<Value> {
    let mut value = [0; 4096];
    let length = rustix::fs::getxattr(target, "user.volio.image", &mut value[..]).ok()?;
    serde_json::from_slice(&value[..length]).ok()
}

#[test]
fn a_killed_sync_leaves_the_old_directory_or_the_new_or_one_that_says_incomplete() {
    let chain = Chain::of(30_000, 3, Plan { size: (40, 20), large_files: 4, ..Plan::default() });
    fs::create_dir(chain.place.path("within")).unwrap();
    let target = chain.place.path("within/target");
    let digests: Vec<Value> =
        chain.images.iter().map(|image| chain.place.json(&["inspect", image])["digest"].clone()).collect();
    let begun = Instant::now();
    for version in [0, 2] {
        chain.place.volio(&["unpack", "--sync", &chain.images[version], "within/target"]).succeeded();
    }
    let (time, mut random, mut old) = (begun.elapsed() / 2, Random::new(1), 2);
    for _ in 0..kills() {
        let new = (old + 1 + random.below(2)) % 3;
        let arguments = ["unpack", "--sync", &chain.images[new], "within/target"];
        kill_after_a_part_of(time, &mut random, chain.place.command(&arguments));
        let record = record(&target).expect("a record");
        if record["complete"] == true {
            let version = digests.iter().position(|digest| *digest == record["content"]["digest"]);
            let version = version.unwrap_or_else(|| panic!("{record} of {digests:?}"));
            assert!(version == old || version == new, "{old} to {new}: {record}");
            let expected = Survey::of(&chain.fresh(version));
            expected.assert_same(&without_own_files(Survey::of(&target)));
        }
        chain.place.volio(&arguments).succeeded();
        assert_identical_with_holes(&chain.fresh(new), &target);
        assert_eq!(own_files(&chain.place.path("within")), Vec::<String>::new());
        old = new;
    }
}

/// A killed run may leave files of its own, which the next one removes.
fn without_own_files(survey: Survey) -> Survey {
    survey.without(|path| path.to_string_lossy().contains(".volio"))
}
