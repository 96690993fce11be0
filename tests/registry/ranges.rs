//! Ranges of blobs: only the requested bytes are transferred, and a registry without ranges is asked once.

use super::downloads::{filled, ranges};
use super::proxy::CuttingProxy;
use super::server::Ranges;
use super::{Damage, noise, patient};
use std::ops::Range;
use volio::error::Kind;
use volio::oci::Descriptor;
use volio::transport::{Access, Source, registry};
use volio::{Error, Result};

const MIB: u64 = 1 << 20;

fn part(client: &dyn Source, blob: &Descriptor, range: Range<u64>) -> Result<Vec<u8>> {
    let size = (range.end - range.start) as usize;
    let part = client.open_range(blob, range)?;
    part.ok_or_else(|| Error::usage("only whole blobs"))?.take_unverified(size)
}

fn cut(bytes: &[u8], range: &Range<u64>) -> Vec<u8> {
    bytes[range.start as usize..range.end as usize].to_vec()
}

#[test]
fn only_the_range_is_transferred_over_one_connection() {
    let bytes = noise(24 << 20);
    let (registry, blob) = filled(&bytes);
    let proxy = CuttingProxy::cutting(registry.host(), u64::MAX);
    let name = format!("{}/a:t", proxy.host()).parse().unwrap();
    let client = registry::Registry::new(name, &Access { client: patient(), ..Access::default() }).unwrap();
    for n in 0..20 {
        let range = n * MIB..n * MIB + 10_000;
        assert!(part(&client, &blob, range.clone()).unwrap() == cut(&bytes, &range));
    }
    assert!(proxy.down() < 400_000, "{} bytes", proxy.down());
    assert!(proxy.connections() < 5, "{} connections", proxy.connections());
}

#[test]
fn a_large_range_is_read_over_several_connections_that_break() {
    let bytes = noise(24 << 20);
    let (registry, blob) = filled(&bytes);
    let range = MIB + 3..20 * MIB + 5;
    assert!(part(&registry.client("a", "t"), &blob, range.clone()).unwrap() == cut(&bytes, &range));
    assert_eq!(ranges(&registry).iter().flatten().count(), 5);
    registry.behave(|behaviour| behaviour.cuts_blobs_after = Some(1_500_000));
    assert!(part(&registry.client("a", "t"), &blob, range.clone()).unwrap() == cut(&bytes, &range));
    for asked in ranges(&registry) {
        let asked = asked.unwrap();
        let (start, last) = asked.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let (start, end) = (start.parse::<u64>().unwrap(), last.parse::<u64>().unwrap() + 1);
        assert!(range.start <= start && end <= range.end, "{asked}");
    }
}

#[test]
fn an_interrupted_range_is_resumed() {
    let bytes = noise(3 << 20);
    let (registry, blob) = filled(&bytes);
    registry.behave(|behaviour| behaviour.cuts_blobs_after = Some(400_000));
    let range = MIB..2 * MIB;
    assert!(part(&registry.client("a", "t"), &blob, range.clone()).unwrap() == cut(&bytes, &range));
    let asked = ranges(&registry);
    assert!((3..=20).contains(&asked.len()), "{asked:?}");
    assert!(asked.iter().flatten().all(|range| range.ends_with("-2097151")), "{asked:?}");
}

#[test]
fn a_registry_that_sends_the_whole_blob_is_not_read_and_not_asked_again() {
    let bytes = noise(64 << 20);
    let (registry, blob) = filled(&bytes);
    registry.behave(|behaviour| behaviour.ranges = Ranges::Ignored);
    let proxy = CuttingProxy::cutting(registry.host(), u64::MAX);
    let name = format!("{}/a:t", proxy.host()).parse().unwrap();
    let client = registry::Registry::new(name, &Access { client: patient(), ..Access::default() }).unwrap();
    for range in [MIB..2 * MIB, 0..MIB, 5..6] {
        assert!(client.open_range(&blob, range).unwrap().is_none());
    }
    assert_eq!(ranges(&registry).len(), 1);
    assert!(proxy.down() < 32 << 20, "{} bytes", proxy.down());
    // The whole blob is not a range.
    assert!(part(&client, &blob, 0..blob.size).unwrap() == bytes);
}

#[test]
fn a_registry_that_stops_supporting_ranges_is_an_error_and_remembered() {
    let bytes = noise(3 << 20);
    let (registry, blob) = filled(&bytes);
    let client = registry.client("a", "t");
    registry.behave(|behaviour| behaviour.cuts_blobs_after = Some(400_000));
    let mut part = client.open_range(&blob, MIB..2 * MIB).unwrap().unwrap();
    registry.behave(|behaviour| behaviour.ranges = Ranges::Ignored);
    let error = part.take_unverified(1 << 20).unwrap_err();
    assert!(error.to_string().contains("whole blob"), "{error}");
    assert!(client.open_range(&blob, MIB..2 * MIB).unwrap().is_none());
}

#[test]
fn another_range_than_was_requested_is_an_integrity_error() {
    for wrong in [Ranges::Wrong, Ranges::Unsaid, Ranges::Longer] {
        let (registry, blob) = filled(&noise(3 << 20));
        registry.behave(|behaviour| behaviour.ranges = wrong);
        let error = registry.client("a", "t").open_range(&blob, MIB..2 * MIB).err().unwrap();
        assert_eq!(error.kind(), Kind::Integrity, "{error}");
        assert!(error.to_string().contains("another range"), "{error}");
        assert_eq!(ranges(&registry).len(), 1, "nothing is tried again");
    }
}

#[test]
fn after_half_of_a_range_the_other_half_is_requested() {
    let bytes = noise(3 << 20);
    let (registry, blob) = filled(&bytes);
    registry.behave(|behaviour| behaviour.ranges = Ranges::Short);
    let range = MIB..2 * MIB;
    assert!(part(&registry.client("a", "t"), &blob, range.clone()).unwrap() == cut(&bytes, &range));
}

#[test]
fn a_range_of_a_blob_with_another_size_is_an_integrity_error() {
    for damage in [Damage::Truncate, Damage::Extend] {
        let (registry, blob) = filled(&noise(3 << 20));
        registry.damage(&blob.digest, damage);
        let error = part(&registry.client("a", "t"), &blob, MIB..blob.size).unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity, "{damage:?} {error}");
    }
}

#[test]
fn a_busy_registry_is_asked_for_the_range_again() {
    let bytes = noise(3 << 20);
    let (registry, blob) = filled(&bytes);
    registry.behave(|behaviour| {
        let busy = super::Refusal {
            method: axum::http::Method::GET,
            path: "/blobs/",
            status: 503,
            ..Default::default()
        };
        behaviour.refusals = vec![busy.clone(), busy];
    });
    let range = MIB..2 * MIB;
    assert!(part(&registry.client("a", "t"), &blob, range.clone()).unwrap() == cut(&bytes, &range));
}

#[test]
fn a_redirect_is_reused_for_all_ranges() {
    let bytes = noise(3 << 20);
    let (registry, blob) = filled(&bytes);
    registry.behave(|behaviour| behaviour.blobs_elsewhere = true);
    let client = registry.client("a", "t");
    for n in 0..5 {
        let range = n * 1000..n * 1000 + 500;
        assert!(part(&client, &blob, range.clone()).unwrap() == cut(&bytes, &range));
    }
    let requests = registry.requests();
    let to_registry = requests
        .iter()
        .filter(|request| !request.elsewhere && request.method == "GET" && request.path.contains("/blobs/"));
    assert_eq!(to_registry.count(), 1);
}
