//! Programs that are killed at random moments, and then run again.
//!
//! `VOLIO_TEST_KILLS` says how often; 200 take some minutes.

use super::chain::{Chain, Plan};
use super::random::{Random, number_from};
use crate::engines::program::Finished;
use crate::registry::Registry;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub fn kills() -> u64 {
    number_from("VOLIO_TEST_KILLS").unwrap_or(10)
}

/// Kills the command after a random part of the time that it takes, or a little later.
pub fn kill_after_a_part_of(time: Duration, random: &mut Random, mut command: Command) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let moment = time * u32::try_from(random.below(1100)).unwrap() / 1000;
    let begun = Instant::now();
    while begun.elapsed() < moment && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The names of volio's own files in a directory and below it.
pub fn own_files(directory: &Path) -> Vec<String> {
    let found = Command::new("find").arg(directory).args(["-name", ".volio*"]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Kills packs of changes to this image, whose name must always mean the old or the new one.
fn kill_packs(chain: &Chain, image: &str, leftovers: &Path) {
    let base = &chain.images[0];
    let reset = || chain.place.volio(&["copy", base, image]).succeeded();
    reset();
    let begun = Instant::now();
    let new = chain.pack(&["--incremental"], image).digest();
    let (time, mut random) = (begun.elapsed(), Random::new(2));
    let digest = || chain.place.json(&["inspect", image])["digest"].as_str().unwrap().to_owned();
    for _ in 0..kills() {
        reset();
        let old = digest();
        let arguments = ["pack", "--allow-shrink", "--max-dead", "100", "--incremental", image, "tree"];
        kill_after_a_part_of(time, &mut random, chain.place.command(&arguments));
        let found = digest();
        assert!(found == old || found == new, "{found} is neither {old} nor {new}");
        chain.place.volio(&["verify", image]).succeeded();
        let again: Finished = chain.place.volio(&arguments);
        assert_eq!(again.digest(), new);
        assert_eq!(own_files(leftovers), Vec::<String>::new());
    }
}

#[test]
fn a_killed_pack_leaves_the_old_image_or_the_new() {
    let mut chain = Chain::start(31_000, Plan { size: (40, 20), large_files: 4, ..Plan::default() });
    chain.tree.step(20);
    let registry = Registry::start();
    let remote = registry.location("team/data", "v1").to_string();
    for (image, place) in [("oci:killed:v", "killed"), ("oci-archive:in/a.tar:v", "in"), (&remote, "in")] {
        let place = chain.place.path(place);
        let _ = fs::create_dir(&place);
        kill_packs(&chain, image, &place);
    }
}
