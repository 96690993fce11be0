//! Mirrors: they are read first, skipped after a failure, and never written.

use super::{Damage, Registry, Warnings, access, noise};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use volio::oci::{Descriptor, media_type};
use volio::stream::Body;
use volio::transport::{Access, ClientOptions, Destination, Location, fetch};

const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "layers": []}"#;

/// Starts a registry with an image `mirror/a:t`, or with only its manifest.
fn holding(blob: bool) -> Registry {
    let registry = Registry::start();
    registry.plant("mirror/a", "t", media_type::MANIFEST, MANIFEST);
    if blob {
        registry.client("mirror/a", "t").upload(Body::new(&b"data"[..])).unwrap();
    }
    registry
}

/// Returns access with a `registries.conf` that names mirrors of `original/mirror`, and its warnings.
fn by_mirror(directory: &Path, original: &str, mirrors: &[&str]) -> (Access, Arc<Warnings>) {
    let file = directory.join("registries.conf");
    let mirrors: String = mirrors
        .iter()
        .map(|mirror| format!("[[registry.mirror]]\nlocation = \"{mirror}/mirror\"\n"))
        .collect();
    fs::write(&file, format!("[[registry]]\nlocation = \"{original}/mirror\"\n{mirrors}")).unwrap();
    let warnings = Arc::<Warnings>::default();
    let client = ClientOptions { progress: Arc::clone(&warnings) as _, ..super::patient() };
    (Access { registries_conf: vec![file], client, ..Access::default() }, warnings)
}

fn image(registry: &Registry) -> Location {
    registry.location("mirror/a", "t")
}

fn data() -> Descriptor {
    Descriptor::of("application/octet-stream", b"data")
}

#[test]
fn an_image_is_read_from_the_mirror_and_its_missing_blobs_from_the_registry() {
    let directory = tempfile::tempdir().unwrap();
    let (mirror, original) = (holding(false), holding(true));
    let (access, warnings) = by_mirror(directory.path(), original.host(), &[mirror.host()]);
    let source = image(&original).source(&access).unwrap();
    let before = original.requests().len();
    assert_eq!(source.resolve().unwrap().bytes(), MANIFEST);
    assert_eq!(original.requests().len(), before);
    assert_eq!(fetch(source.as_ref(), &data()).unwrap().bytes(), b"data");
    assert!(warnings.all().is_empty());
}

#[test]
fn a_mirror_that_fails_is_reported_once_and_skipped_from_then_on() {
    let directory = tempfile::tempdir().unwrap();
    let original = holding(true);
    let (access, warnings) = by_mirror(directory.path(), original.host(), &["localhost:1"]);
    let source = image(&original).source(&access).unwrap();
    assert_eq!(source.resolve().unwrap().bytes(), MANIFEST);
    assert_eq!(fetch(source.as_ref(), &data()).unwrap().bytes(), b"data");
    let warnings = warnings.all();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("the mirror localhost:1/mirror/a is passed over: "), "{warnings:?}");
}

#[test]
fn a_mirror_is_never_written_and_receives_no_credentials_of_the_registry() {
    let directory = tempfile::tempdir().unwrap();
    let (mirror, original) = (holding(true), holding(true));
    let (_credentials, with) = access(original.host(), "me:hunter2");
    mirror.behave(|behaviour| behaviour.login = super::Login::Basic { user: "me:hunter2" });
    original.behave(|behaviour| behaviour.login = super::Login::Basic { user: "me:hunter2" });
    let (access, warnings) = by_mirror(directory.path(), original.host(), &[mirror.host()]);
    let access = Access { credentials: with.credentials, ..access };
    let destination = image(&original).destination(&access).unwrap();
    destination.upload(Body::new(&b"more"[..])).unwrap();
    // It has received only the requests of this test's preparation.
    let before = mirror.requests().len();
    assert_eq!(image(&original).source(&access).unwrap().resolve().unwrap().bytes(), MANIFEST);
    assert!(mirror.requests().len() > before);
    assert!(mirror.requests().iter().all(|request| request.header("authorization").is_none()));
    assert_eq!(warnings.all().len(), 1);
}

/// Starts a registry with a blob in `mirror/a`.
fn with_blob(bytes: &[u8]) -> Registry {
    let registry = Registry::start();
    registry.client("mirror/a", "t").upload(Body::new(std::io::Cursor::new(bytes.to_vec()))).unwrap();
    registry
}

#[test]
fn after_a_mirror_fails_in_the_middle_of_a_blob_the_next_location_continues() {
    for size in [1_000_000, 13 << 20] {
        let (directory, bytes) = (tempfile::tempdir().unwrap(), noise(size));
        let (mirror, original) = (with_blob(&bytes), with_blob(&bytes));
        mirror.behave(|behaviour| {
            behaviour.cuts_blobs_after = Some(400_000);
            behaviour.limits_requests = Some(2);
        });
        let (access, warnings) = by_mirror(directory.path(), original.host(), &[mirror.host()]);
        let source = image(&original).source(&access).unwrap();
        let descriptor = Descriptor::of("application/octet-stream", &bytes);
        let before = original.requests().len();
        let mut body = source.open(&descriptor).unwrap().verify(&descriptor);
        assert_eq!(original.requests().len(), before, "the mirror is asked first");
        let mut read = Vec::new();
        body.read_to_end(&mut read).unwrap();
        assert!(read == bytes && body.finish().is_ok());
        let asked = original.requests().split_off(before);
        let ranges: Vec<_> = asked.iter().filter_map(|request| request.header("range")).collect();
        assert!(ranges[0].starts_with("bytes=") && !ranges[0].starts_with("bytes=0-"), "{ranges:?}");
        let warnings = warnings.all();
        let over: Vec<_> = warnings.iter().filter(|line| line.contains("is passed over")).collect();
        assert_eq!(over.len(), 1, "{warnings:?}");
    }
}

#[test]
fn the_bytes_of_a_mirror_and_the_registry_are_verified_together() {
    let (directory, bytes) = (tempfile::tempdir().unwrap(), noise(1_000_000));
    let (mirror, original) = (with_blob(&bytes), with_blob(&bytes));
    let descriptor = Descriptor::of("application/octet-stream", &bytes);
    let (access, _) = by_mirror(directory.path(), original.host(), &[mirror.host()]);
    let read =
        || image(&original).source(&access).unwrap().open(&descriptor).unwrap().verify(&descriptor).drain();
    // Missing bytes at the end are read from the next location; wrong bytes are an error.
    mirror.damage(&descriptor.digest, Damage::Truncate);
    assert!(read().is_ok());
    mirror.damage(&descriptor.digest, Damage::Flip);
    assert_eq!(read().unwrap_err().kind(), volio::error::Kind::Integrity);
}
