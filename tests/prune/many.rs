//! `prune` of repositories with many tags. `VOLIO_TEST_TAGS` is another number of tags.

use super::keep_last;
use super::registry::{client, manifest, plant, registry, tags};
use crate::registry::{Deletes, Registry};
use axum::http::Method;
use std::collections::HashMap;
use volio::oci::{Digest, attachment_tags};
use volio::prune::{Effect, Options, prune};

fn number_of_tags(default: u32) -> u32 {
    std::env::var("VOLIO_TEST_TAGS").map_or(default, |text| text.parse().unwrap())
}

/// Adds images of so many minutes, and returns their tags.
fn plant_minutes(registry: &Registry, count: u32) -> Vec<String> {
    let tag = |minute: u32| {
        let (day, minute) = (minute / 1440, minute % 1440);
        let (year, month, day) = (2000 + day / 336, day / 28 % 12 + 1, day % 28 + 1);
        format!("d-{year}-{month:02}-{day:02}T{:02}{:02}", minute / 60, minute % 60)
    };
    let plant = |minute| {
        let tag = tag(minute);
        plant(registry, &tag, &manifest(&format!(r#""minute":"{minute}""#)));
        tag
    };
    (0..count).map(plant).collect()
}

fn options(keep: u32) -> Options {
    Options { template: Some("d-{date}T{time:%H%M}".parse().unwrap()), ..keep_last(keep) }
}

/// Returns how often each image was read, by its tag.
fn reads(registry: &Registry) -> HashMap<String, usize> {
    let mut reads = HashMap::new();
    for path in [Method::GET, Method::HEAD].into_iter().flat_map(|method| registry.paths(method)) {
        // Without the referrers API, referrers are looked for by a tag.
        if let Some((_, name)) = path.split_once("/manifests/").filter(|(_, name)| name.starts_with("d-")) {
            *reads.entry(name.to_owned()).or_default() += 1;
        }
    }
    reads
}

#[test]
fn the_number_of_requests_is_linear_in_the_number_of_tags() {
    let count = number_of_tags(300);
    for (deletes, removed) in
        [(Deletes::All, count / 2), (Deletes::Images(405), count / 2), (Deletes::Images(405), count - 1)]
    {
        let registry = registry(deletes, 0);
        let all = plant_minutes(&registry, count);
        for minute in [0, count - 1] {
            let image = manifest(&format!(r#""minute":"{minute}""#));
            let tag = attachment_tags(&Digest::of(&image))[0].clone();
            plant(&registry, &tag, &manifest(r#""signature":"""#));
        }
        let client = client(&registry);
        let pruned = prune(&client, &client, &options(count - removed)).unwrap();
        assert_eq!(pruned.removed().filter(|tag| tag.tag.starts_with("d-")).count(), removed as usize);
        let reads = reads(&registry);
        let kept: Vec<usize> =
            all[removed as usize..].iter().map(|tag| reads.get(tag).copied().unwrap_or_default()).collect();
        let total: usize = reads.values().sum();
        let all_requests = registry.requests().len();
        println!("{count} tags, {removed} removed: {all_requests} requests, {total} reads");
        // Each tag once to decide, once before the first removal, and once more before its own; and a few more to find out
        // what the registry can do. Of each removed image the referrers are listed, which takes two requests
        // here, and before it the tags and the one with another name.
        assert!(total <= 4 * count as usize + 40, "{total} reads");
        assert!(all_requests <= 9 * count as usize + 100, "{all_requests} requests");
        if removed <= count / 2 {
            assert!(kept.iter().all(|reads| *reads <= 3), "{kept:?}");
        }
    }
}

#[test]
fn a_dry_run_reads_each_tag_once() {
    let count = number_of_tags(300);
    let registry = registry(Deletes::All, 0);
    let all = plant_minutes(&registry, count);
    let client = client(&registry);
    let dry_run = Options { effect: Effect::DryRun, ..options(count - 3) };
    let pruned = prune(&client, &client, &dry_run).unwrap();
    assert_eq!(pruned.removed().count(), 3);
    let reads = reads(&registry);
    assert!(all.iter().all(|tag| reads[tag] == 1));
    assert_eq!(reads.len(), count as usize, "the one with another name is not read");
    assert_eq!(tags(&registry).len(), count as usize + 1);
}
