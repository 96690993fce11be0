//! Packs that were killed or interrupted, and sources that were lost: what the next run does.

use super::eventually;
use super::program::{Place, Running, digest, run};
use crate::incremental::random::Random;
use crate::registry::{Refusal, Registry};
use axum::http::Method;
use rustix::process::Signal;
use std::fs;
use std::process::Command;
use volio::pack::{EarlierRun, Options, Packed, pack};
use volio::progress::Silent;
use volio::transport::Access;
use volio::{Compression, SourceSpec};

/// The number of layers of the tree: each file is one, and so are the directories.
const LAYERS: usize = 17;
/// The number of other blobs of an image: the configurations for two platforms.
const CONFIGS: usize = 2;

/// Makes a tree of large files that cannot be compressed.
fn fill(place: &Place) {
    fs::remove_file(place.path("tree/file")).unwrap();
    let mut random = Random::new(22);
    for number in 1..LAYERS {
        let content = random.bytes((2 << 20) + 4096);
        fs::write(place.path("tree").join(format!("file-{number:02}")), content).unwrap();
    }
}

/// The number of requests after which the registry is down: some layers are sent then.
const REQUESTS: usize = 20;

/// Returns the number of blobs that were uploaded completely.
fn uploaded_blobs(registry: &Registry) -> usize {
    let manifests = registry.paths(Method::PUT).iter().filter(|path| path.contains("/manifests/")).count();
    registry.answers(201) - manifests
}

fn image_in(registry: &Registry) -> String {
    registry.location("team/data", "v1").to_string()
}

/// `volio pack --every 1h`, with a layer for each file.
fn scheduled(place: &Place, more: &[&str], image: &str) -> Command {
    place.pack(&[&["--every", "1h", "--layer-size", "1M", "--compression", "none"], more].concat(), image)
}

/// m-lab/jostler#354 and metal-stack/backup-restore-sidecar#29: an export was killed at the end of the grace period, and
/// each next one began from nothing.
#[test]
fn layers_that_were_sent_before_a_kill_are_skipped_by_the_next_start() {
    let (place, registry) = (Place::new(), Registry::start());
    fill(&place);
    let image = image_in(&registry);
    registry.behave(|behaviour| behaviour.limits_requests = Some(REQUESTS));
    let running = Running::start(scheduled(&place, &[], &image));
    eventually("the outage", || registry.answers(503) > 0);
    running.signal(Signal::KILL);
    running.end();
    registry.behave(|behaviour| behaviour.limits_requests = None);
    assert!(digest(&image).is_none());
    let (before, uploaded) = (uploaded_blobs(&registry), registry.uploaded());
    assert!((1..LAYERS).contains(&before), "{before}");

    let running = Running::start(scheduled(&place, &[], &image));
    eventually("the summary", || running.said().contains("packed "));
    let said = running.said();
    running.signal(Signal::TERM);
    running.end();
    assert!(digest(&image).is_some() && said.contains(&format!("; {before} layer")), "{said}");
    assert_eq!(uploaded_blobs(&registry), LAYERS + CONFIGS, "{said}");
    assert!(registry.uploaded() - uploaded < ((LAYERS - before) as u64 * 2 + 1) << 20, "{said}");

    // What ended by itself is not looked at again.
    fs::write(place.path("tree/file-01"), "short").unwrap();
    let heads = registry.paths(Method::HEAD).len();
    let (code, said) = run(place.pack(&["--layer-size", "1M", "--after", "true"], &image));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(registry.paths(Method::HEAD).len(), heads + CONFIGS, "{said}");
}

#[test]
fn a_last_pack_at_sigterm_skips_the_layers_that_the_interrupted_one_has_sent() {
    let (place, registry) = (Place::new(), Registry::start());
    fill(&place);
    let image = image_in(&registry);
    registry.behave(|behaviour| behaviour.limits_requests = Some(REQUESTS));
    let running = Running::start(scheduled(&place, &["--on-exit", "--grace", "60s"], &image));
    eventually("the outage", || registry.answers(503) > 0);
    running.signal(Signal::TERM);
    eventually("the last run", || running.said().contains("a last run begins"));
    let before = uploaded_blobs(&registry);
    registry.behave(|behaviour| behaviour.limits_requests = None);
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(digest(&image).is_some() && said.contains(&format!("; {before} layer")), "{said}");
    assert_eq!(uploaded_blobs(&registry), LAYERS + CONFIGS, "{said}");
}

#[test]
fn a_run_that_failed_does_not_make_the_next_one_look_for_its_layers() {
    let (place, registry) = (Place::new(), Registry::start());
    let image = image_in(&registry);
    let refusal = Refusal { method: Method::PUT, path: "manifests", status: 400, ..Refusal::default() };
    registry.behave(|behaviour| behaviour.refusals = vec![refusal]);
    let (code, said) = run(place.pack(&["--after", "true"], &image));
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = run(place.pack(&["--after", "true"], &image));
    assert!(code == Some(0) && !said.contains("sent before"), "{said}");
}

fn pack_again(place: &Place, registry: &Registry) -> Packed {
    let location = registry.location("team/data", "v1");
    let options = Options {
        earlier_run: EarlierRun::Interrupted,
        layer_size: 1 << 20,
        compression: Compression::None,
        ..Options::default()
    };
    let sources = [SourceSpec::new(place.path("tree"))];
    pack(&*location.destination(&Access::default()).unwrap(), &sources, &options, &Silent).unwrap()
}

#[test]
fn a_registry_that_says_it_has_layers_which_it_deleted_gets_them_again() {
    let (place, registry) = (Place::new(), Registry::start());
    fill(&place);
    let packed = pack_again(&place, &registry);
    assert_eq!((packed.layers.len(), packed.layers_found), (LAYERS, 0));
    let again = pack_again(&place, &registry);
    assert_eq!((again.layers_found, again.bytes_of_new_layers()), (LAYERS as u64, 0));
    registry.behave(|behaviour| behaviour.remembers_forgotten_blobs = true);
    for layer in packed.layers.iter().take(3) {
        registry.forget_blob("team/data", &layer.digest);
    }
    let again = pack_again(&place, &registry);
    assert_eq!((&again.digest, again.layers_found), (&packed.digest, 0));
    assert!(packed.layers.iter().all(|layer| registry.blob("team/data", &layer.digest).is_some()));
}

/// offen/docker-volume-backup#283: a source that was empty, or not mounted, replaced the last good backup.
#[test]
fn a_schedule_without_incremental_refuses_a_source_that_lost_more_than_ninety_percent_since_the_last_run() {
    let place = Place::new();
    for number in 0..19 {
        fs::write(place.path("tree").join(number.to_string()), "data").unwrap();
    }
    let start =
        |more: &[&str]| Running::start(place.pack(&[&["--every", "1s"], more].concat(), &place.image()));
    let end = |running: Running| {
        running.signal(Signal::TERM);
        running.end().1
    };
    let running = start(&[]);
    eventually("the first image", || place.digest().is_some());
    let first = place.digest();
    for number in 0..19 {
        fs::remove_file(place.path("tree").join(number.to_string())).unwrap();
    }
    eventually("the refusal", || running.said().contains("error: "));
    let said = end(running);
    let line = "the last run packed 20 files and the source has 1: it lost more than 90 %";
    assert!(said.contains(line) && said.contains("--allow-shrink"), "{said}");
    assert_eq!(place.digest(), first);

    // The state knows it after a restart, and an empty source is refused with any limit.
    fs::remove_file(place.path("tree/file")).unwrap();
    let running = start(&["--max-shrink", "100"]);
    eventually("the refusal", || running.said().contains("the source has no files"));
    end(running);
    assert_eq!(place.digest(), first);

    let running = start(&["--allow-shrink"]);
    eventually("the new image", || place.digest() != first);
    end(running);
}

#[test]
fn a_single_pack_by_hand_replaces_an_image_whatever_the_source_has_lost() {
    let place = Place::new();
    let (code, said) = run(place.pack(&["--after", "true"], &place.image()));
    assert_eq!(code, Some(0), "{said}");
    fs::remove_file(place.path("tree/file")).unwrap();
    let (code, said) = run(place.pack(&["--after", "true"], &place.image()));
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(place.pack(&["--max-shrink", "50"], &place.image()));
    assert!(code == Some(2) && said.contains("--every"), "{said}");
}
