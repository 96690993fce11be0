//! Transfers of blobs and manifests: the requests and their URLs.

use super::{Locations, Refusal, Registry};
use axum::http::Method;
use std::io::Read;
use volio::error::Kind;
use volio::oci::{Descriptor, Digest, Document, media_type};
use volio::stream::{Body, Unverified};
use volio::transport::{Access, Destination, Origin, Source, fetch, registry};

const BLOB: &str = "application/octet-stream";
/// A manifest without references.
const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "layers": []}"#;

/// Uploads bytes of unknown digest, as pack does.
fn upload(client: &dyn Destination, bytes: &'static [u8]) -> Descriptor {
    client.upload(Body::new(bytes)).unwrap();
    Descriptor::of(BLOB, bytes)
}

fn read(client: &dyn Source, descriptor: &Descriptor) -> volio::Result<Vec<u8>> {
    fetch(client, descriptor).map(|document| document.bytes().to_vec())
}

fn methods(registry: &Registry) -> Vec<String> {
    registry.requests().iter().map(|request| request.method.to_string()).collect()
}

#[test]
fn a_blob_of_unknown_digest_is_uploaded_by_one_patch_without_a_range() {
    let registry = Registry::start();
    upload(&registry.client("a", "t"), b"data");
    assert_eq!(methods(&registry), ["GET", "POST", "PATCH", "PUT"]);
    let requests = registry.requests();
    assert_eq!(requests[1].header("content-length"), Some("0"));
    assert_eq!(requests[2].header("transfer-encoding"), Some("chunked"));
    assert_eq!(requests[2].header("content-range"), None);
    assert_eq!(requests[2].header("content-type"), Some(BLOB));
    assert_eq!(requests[3].header("content-length"), Some("0"));
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn a_blob_of_known_digest_is_uploaded_by_one_put_with_its_length() {
    let registry = Registry::start();
    let descriptor = Descriptor::of(BLOB, b"data");
    registry.client("a", "t").upload(Unverified::new(&b"data"[..]).verify(&descriptor)).unwrap();
    assert_eq!(methods(&registry), ["GET", "POST", "PUT"]);
    let put = &registry.requests()[2];
    assert_eq!(put.header("content-length"), Some("4"));
    assert_eq!(put.header("transfer-encoding"), None);
    assert_eq!(registry.blob("a", &descriptor.digest).unwrap(), b"data"[..]);
}

#[test]
fn an_upload_follows_every_form_of_location() {
    let registry = Registry::start();
    for locations in [Locations::Relative, Locations::Absolute, Locations::Elsewhere] {
        registry.behave(|behaviour| behaviour.locations = locations);
        let client = registry.client("a/b", "t");
        let descriptor = upload(&client, b"data");
        client.upload(Unverified::new(&b"data"[..]).verify(&descriptor)).unwrap();
        assert_eq!(registry.blob("a/b", &descriptor.digest).unwrap(), b"data"[..]);
        assert_eq!(registry.open_uploads(), 0);
    }
}

#[test]
fn an_upload_without_a_location_is_an_error() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.locations = Locations::Missing);
    let error = registry.client("a", "t").upload(Body::new(&b"data"[..])).unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.to_string().contains("does not say where the upload goes on"), "{error}");
}

#[test]
fn a_blob_may_be_downloaded_from_another_host() {
    let registry = Registry::start();
    let client = registry.client("a", "t");
    let descriptor = upload(&client, b"data");
    registry.behave(|behaviour| behaviour.blobs_elsewhere = true);
    assert_eq!(read(&client, &descriptor).unwrap(), b"data");
    assert!(registry.requests().last().unwrap().elsewhere);
    assert!(client.contains(&descriptor).unwrap());
}

#[test]
fn a_blob_is_mounted_without_an_upload() {
    let registry = Registry::start();
    let descriptor = upload(&registry.client("from", "t"), b"data");
    let (client, origin) = (registry.client("to", "t"), registry.client("from", "t").origin().unwrap());
    assert!(client.mount(&descriptor, &origin).unwrap());
    assert_eq!(registry.blob("to", &descriptor.digest).unwrap(), b"data"[..]);
}

#[test]
fn a_refused_mount_is_not_an_error_and_leaves_no_upload() {
    let registry = Registry::start();
    let (client, origin) = (registry.client("to", "t"), registry.client("from", "t").origin().unwrap());
    assert!(!client.mount(&Descriptor::of(BLOB, b"absent"), &origin).unwrap());
    let descriptor = upload(&registry.client("from", "t"), b"data");
    registry.behave(|behaviour| behaviour.refuses_mounts = true);
    assert!(!client.mount(&descriptor, &origin).unwrap());
    assert_eq!(registry.blob("to", &descriptor.digest), None);
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn nothing_is_mounted_from_another_registry() {
    let registry = Registry::start();
    let stranger = Origin { registry: "ghcr.io".to_owned(), repository: "from".to_owned() };
    assert!(!registry.client("to", "t").mount(&Descriptor::of(BLOB, b"data"), &stranger).unwrap());
    assert!(registry.requests().is_empty());
}

#[test]
fn a_registry_need_not_send_the_location_of_a_manifest() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.hides_manifests = true);
    let (client, document) =
        (registry.client("a", "t"), Document::new(media_type::MANIFEST, MANIFEST.to_vec()));
    client.put_manifest(&document).unwrap();
    client.commit(&document).unwrap();
    assert_eq!(client.resolve().unwrap(), document);
    assert_eq!(
        registry.paths(Method::PUT),
        [format!("/v2/a/manifests/{}", document.descriptor().digest), "/v2/a/manifests/t".to_owned()]
    );
}

#[test]
fn a_digest_takes_precedence_over_the_tag() {
    let registry = Registry::start();
    registry.plant("a", "t", media_type::MANIFEST, MANIFEST);
    registry.plant("a", "t", media_type::MANIFEST, &b"{}"[..]);
    let resolve = |digest: &Digest| {
        let name = format!("{}/a:t@{digest}", registry.host());
        registry::Registry::new(name.parse().unwrap(), &Access::default()).unwrap().resolve()
    };
    assert_eq!(resolve(&Digest::of(MANIFEST)).unwrap().bytes(), MANIFEST);
    assert_eq!(resolve(&Digest::of(b"absent")).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_blob_of_another_size_counts_as_missing() {
    let registry = Registry::start();
    let client = registry.client("a", "t");
    let descriptor = upload(&client, b"data");
    registry.damage(&descriptor.digest, super::Damage::Truncate);
    assert!(!client.contains(&descriptor).unwrap());
    // Another upload repairs it.
    upload(&client, b"data");
    assert!(client.contains(&descriptor).unwrap());
}

#[test]
fn an_abandoned_download_does_not_block_others() {
    let registry = Registry::start();
    let client = registry.client("a", "t");
    let bytes = vec![7; 20 << 20];
    let descriptor = Descriptor::of(BLOB, &bytes);
    client.upload(Body::new(std::io::Cursor::new(bytes))).unwrap();
    for _ in 0..20 {
        let mut body = client.open(&descriptor).unwrap().verify(&descriptor);
        body.read_exact(&mut [0; 10]).unwrap();
    }
    assert!(client.contains(&descriptor).unwrap());
}

/// goharbor/harbor#17097: if the other project does not exist, the status is 401 and not 202.
#[test]
fn after_a_denied_mount_the_blob_is_uploaded() {
    let registry = Registry::start();
    let client = registry.client("to", "t");
    // The blob exists, so that only the denial can be the reason.
    let descriptor = upload(&registry.client("from", "t"), b"data");
    let refusal = Refusal { method: Method::POST, path: "/uploads/", status: 401, ..Refusal::default() };
    registry.behave(|behaviour| behaviour.refusals.push(refusal));
    let origin = registry.client("from", "t").origin().unwrap();
    assert!(!client.mount(&descriptor, &origin).unwrap());
    assert!(client.mount(&descriptor, &origin).unwrap(), "without the denial it works");
}
