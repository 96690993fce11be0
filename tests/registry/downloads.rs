//! Downloads of blobs: interrupted, in ranges, and from URLs that expire.

use super::proxy::CuttingProxy;
use super::server::Ranges;
use super::{Damage, Registry, noise, patient};
use std::io::Read;
use volio::error::Kind;
use volio::oci::Descriptor;
use volio::stream::Unverified;
use volio::transport::{Access, Destination, Source, registry};
use volio::{Error, Result};

const BLOB: &str = "application/octet-stream";

pub fn filled(bytes: &[u8]) -> (Registry, Descriptor) {
    let registry = Registry::start();
    let descriptor = Descriptor::of(BLOB, bytes);
    let body = Unverified::new(std::io::Cursor::new(bytes.to_vec())).verify(&descriptor);
    registry.client("a", "t").upload(body).unwrap();
    (registry, descriptor)
}

fn read(client: &dyn Source, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut body = client.open(descriptor)?.verify(descriptor);
    body.read_to_end(&mut bytes).map_err(|error| Error::io("cannot read", error))?;
    body.finish()?;
    Ok(bytes)
}

/// Returns the ranges of the requests for blobs.
pub fn ranges(registry: &Registry) -> Vec<Option<String>> {
    let requests = registry.requests().into_iter();
    let blobs = requests.filter(|request| request.method == "GET" && request.path.contains("/blobs/sha256"));
    blobs.map(|request| request.header("range").map(str::to_owned)).collect()
}

#[test]
fn after_a_broken_connection_the_rest_is_requested() {
    let bytes = noise(1_000_000);
    let (registry, descriptor) = filled(&bytes);
    registry.behave(|behaviour| behaviour.cuts_blobs_after = Some(400_000));
    assert!(read(&registry.client("a", "t"), &descriptor).unwrap() == bytes);
    // Bytes that arrived before the connection broke are not requested again.
    let asked = ranges(&registry);
    assert_eq!(asked[0], None);
    for range in &asked[1..] {
        assert!(range.as_deref().is_some_and(|range| range.ends_with("-999999")), "{asked:?}");
    }
    assert!((3..=20).contains(&asked.len()), "{asked:?}");
}

#[test]
fn a_registry_without_ranges_sends_the_blob_again_a_limited_number_of_times() {
    let bytes = noise(1_000_000);
    let (registry, descriptor) = filled(&bytes);
    registry.behave(|behaviour| {
        behaviour.ranges = Ranges::Ignored;
        behaviour.cuts_blobs_after = Some(400_000);
    });
    let error = read(&registry.client("a", "t"), &descriptor).unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    assert!(ranges(&registry).len() < 20, "{:?}", ranges(&registry));
    registry.behave(|behaviour| behaviour.cuts_blobs_after = None);
    assert!(read(&registry.client("a", "t"), &descriptor).unwrap() == bytes);
}

#[test]
fn a_range_that_was_not_requested_is_not_used() {
    let bytes = noise(1_000_000);
    let (registry, descriptor) = filled(&bytes);
    registry.behave(|behaviour| {
        behaviour.ranges = Ranges::Wrong;
        behaviour.cuts_blobs_after = Some(400_000);
    });
    let error = read(&registry.client("a", "t"), &descriptor).unwrap_err();
    assert!(error.to_string().contains("another range"), "{error}");
}

#[test]
fn after_half_a_range_the_other_half_is_requested() {
    let bytes = noise(13 << 20);
    let (registry, descriptor) = filled(&bytes);
    registry.behave(|behaviour| behaviour.ranges = Ranges::Short);
    assert!(read(&registry.client("a", "t"), &descriptor).unwrap() == bytes);
}

#[test]
fn a_large_blob_is_downloaded_in_parts_and_read_in_order() {
    let bytes = noise((13 << 20) + 5);
    let (registry, descriptor) = filled(&bytes);
    assert!(read(&registry.client("a", "t"), &descriptor).unwrap() == bytes);
    assert_eq!(ranges(&registry).iter().flatten().count(), 4);
    let one = registry.client_by("a", |client| client.concurrency = 1);
    assert!(read(&one, &descriptor).unwrap() == bytes);
    assert_eq!(ranges(&registry).iter().flatten().count(), 4, "one connection needs no ranges");
}

#[test]
fn interrupted_parts_are_resumed() {
    let bytes = noise(13 << 20);
    let (registry, descriptor) = filled(&bytes);
    registry.behave(|behaviour| behaviour.cuts_blobs_after = Some(1_500_000));
    assert!(read(&registry.client("a", "t"), &descriptor).unwrap() == bytes);
}

#[test]
fn a_large_blob_from_a_registry_without_ranges_is_downloaded_whole() {
    let bytes = noise(13 << 20);
    let (registry, descriptor) = filled(&bytes);
    registry.behave(|behaviour| behaviour.ranges = Ranges::Ignored);
    assert!(read(&registry.client("a", "t"), &descriptor).unwrap() == bytes);
    assert_eq!(ranges(&registry).len(), 1);
}

#[test]
fn a_large_damaged_blob_is_never_accepted() {
    for damage in [Damage::Flip, Damage::Truncate, Damage::Extend] {
        let (registry, descriptor) = filled(&noise(13 << 20));
        registry.damage(&descriptor.digest, damage);
        let error = read(&registry.client("a", "t"), &descriptor).unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity, "{damage:?} {error}");
    }
}

#[test]
fn a_redirect_is_reused_until_it_expires() {
    let bytes = noise(13 << 20);
    let (registry, descriptor) = filled(&bytes);
    registry.behave(|behaviour| behaviour.blobs_elsewhere = true);
    let client = registry.client("a", "t");
    let to_registry = || {
        let requests = registry.requests().into_iter();
        requests
            .filter(|request| {
                !request.elsewhere && request.method == "GET" && request.path.contains("/blobs/")
            })
            .count()
    };
    assert!(read(&client, &descriptor).unwrap() == bytes);
    assert_eq!(to_registry(), 1, "four parts, and one question where they are");
    registry.behave(|behaviour| behaviour.expired_links = 1);
    assert!(read(&client, &descriptor).unwrap() == bytes);
    assert!((2..=4).contains(&to_registry()), "parts may find out side by side that the address is over");
}

#[test]
fn a_body_can_begin_in_the_middle() {
    let bytes = noise(13 << 20);
    let (registry, descriptor) = filled(&bytes);
    let client = registry.client("a", "t");
    let mut body = client.open(&descriptor).unwrap().verify(&descriptor);
    assert_eq!(body.prefill(&bytes[..10_000_000]).unwrap(), 10_000_000);
    assert_eq!(body.drain().unwrap().digest, descriptor.digest);
    assert!(
        ranges(&registry).contains(&Some("bytes=10000000-13631487".to_owned())),
        "{:?}",
        ranges(&registry)
    );
}

#[test]
fn a_network_that_cuts_every_connection_costs_few_bytes() {
    let bytes = noise(24 << 20);
    let (registry, descriptor) = filled(&bytes);
    let proxy = CuttingProxy::cutting(registry.host(), 3 << 20);
    let name = format!("{}/a:t", proxy.host()).parse().unwrap();
    let client = registry::Registry::new(name, &Access { client: patient(), ..Access::default() }).unwrap();
    assert!(read(&client, &descriptor).unwrap() == bytes);
    assert!(proxy.connections() > 8);
    assert!(proxy.down() < (bytes.len() as u64) * 11 / 10, "{} bytes", proxy.down());
}

#[test]
fn a_complete_blob_is_not_requested() {
    let bytes = noise(8 << 20);
    let (registry, descriptor) = filled(&bytes);
    let client = registry.client("a", "t");
    let mut body = client.open(&descriptor).unwrap().verify(&descriptor);
    assert_eq!(body.prefill(&bytes[..]).unwrap(), bytes.len() as u64);
    assert_eq!(body.drain().unwrap().digest, descriptor.digest);
    assert_eq!(ranges(&registry), [None]);
}

#[test]
fn a_registry_that_stops_supporting_ranges_does_not_send_everything_for_each_part() {
    let bytes = noise(40 << 20);
    let (registry, descriptor) = filled(&bytes);
    registry.behave(|behaviour| behaviour.ranges = Ranges::SentAtFirst);
    let proxy = CuttingProxy::cutting(registry.host(), u64::MAX);
    let name = format!("{}/a:t", proxy.host()).parse().unwrap();
    let client = registry::Registry::new(name, &Access { client: patient(), ..Access::default() }).unwrap();
    assert!(read(&client, &descriptor).unwrap() == bytes);
    assert!(proxy.down() < 3 * bytes.len() as u64, "{} bytes", proxy.down());
    assert!(ranges(&registry).len() <= 5, "{:?}", ranges(&registry));
}

#[test]
fn parallel_downloads_share_the_connections() {
    let registry = Registry::start();
    let blobs: Vec<_> = (0..4).map(|number| noise((20 << 20) + number)).collect();
    let proxy = CuttingProxy::cutting(registry.host(), u64::MAX);
    let name = format!("{}/a:t", proxy.host()).parse().unwrap();
    let mut client = patient();
    client.concurrency = 4;
    let client = registry::Registry::new(name, &Access { client, ..Access::default() }).unwrap();
    let upload = registry.client("a", "t");
    for bytes in &blobs {
        upload.upload(volio::stream::Body::new(std::io::Cursor::new(bytes.clone()))).unwrap();
    }
    let descriptors: Vec<_> = blobs.iter().map(|bytes| Descriptor::of(BLOB, bytes)).collect();
    std::thread::scope(|scope| {
        for (descriptor, bytes) in descriptors.iter().zip(&blobs) {
            let client = &client;
            scope.spawn(move || assert!(read(client, descriptor).unwrap() == *bytes));
        }
    });
    // One connection for each, one more in advance, and a few new ones. Without sharing, each would have four.
    assert!(proxy.connections() <= 12, "{}", proxy.connections());
}
