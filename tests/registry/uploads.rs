//! Uploads in several requests: interrupted, too large, deleted by the registry, and resumed.

use super::proxy::CuttingProxy;
use super::server::{Broken, StatusRanges};
use super::{Lengths, Login, Refusal, Registry, access, noise, patient};
use axum::http::Method;
use std::io::{Cursor, Read};
use std::path::Path;
use std::time::Duration;
use volio::Result;
use volio::oci::Descriptor;
use volio::stream::{Body, CancelToken, Unverified};
use volio::transport::{Access, Destination, registry};

const MIB: usize = 1 << 20;

/// Returns a body that can be opened again, like a file.
fn on_disk(bytes: &[u8]) -> (Body, Descriptor) {
    let descriptor = Descriptor::of("application/octet-stream", bytes);
    let again = bytes.to_vec();
    let body = Unverified::new(Cursor::new(bytes.to_vec()))
        .reopenable(move |offset| Ok(Box::new(Cursor::new(again[offset as usize..].to_vec()))));
    (body.verify(&descriptor), descriptor)
}

/// Uploads a body that can be opened again, and checks the stored blob.
fn upload_and_check(client: &dyn Destination, registry: &Registry, bytes: &[u8]) {
    let (body, descriptor) = on_disk(bytes);
    client.upload(body).unwrap();
    assert!(registry.blob("a", &descriptor.digest).unwrap() == bytes);
    assert_eq!(registry.open_uploads(), 0);
}

fn chunks(registry: &Registry) -> Vec<String> {
    let patches = registry.requests().into_iter().filter(|request| request.method == Method::PATCH);
    patches.filter_map(|request| request.header("content-range").map(str::to_owned)).collect()
}

fn through(proxy: &CuttingProxy) -> registry::Registry {
    let name = format!("{}/a:t", proxy.host()).parse().unwrap();
    registry::Registry::new(name, &Access { client: patient(), ..Access::default() }).unwrap()
}

#[test]
fn a_blob_is_uploaded_in_chunks_on_request() {
    let registry = Registry::start();
    let client = registry.client_by("a", |client| client.chunk_size = Some(400_000));
    upload_and_check(&client, &registry, &noise(1_000_000));
    assert_eq!(chunks(&registry), ["0-399999", "400000-799999", "800000-999999"]);
    // A body that can be read only once, and a body that ends with a chunk.
    for size in [1_000_000, 800_000, 0] {
        let bytes = noise(size);
        client.upload(Body::new(Cursor::new(bytes.clone()))).unwrap();
        assert!(registry.blob("a", &Descriptor::of("x", &bytes).digest).unwrap() == bytes);
        upload_and_check(&client, &registry, &bytes);
    }
}

#[test]
fn a_wrong_blob_is_never_complete_in_chunks_either() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.believes_digests = true);
    let client = registry.client_by("a", |client| client.chunk_size = Some(400_000));
    let (promised, lie) = (noise(1_000_000), vec![8; 1_000_000]);
    let descriptor = Descriptor::of("x", &promised);
    assert!(client.upload(Unverified::new(Cursor::new(lie)).verify(&descriptor)).is_err());
    assert_eq!(registry.blob("a", &descriptor.digest), None);
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn a_proxy_that_limits_bodies_gets_smaller_chunks_and_is_remembered() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.limits_bodies = Some(MIB));
    let client = registry.client("a", "t");
    upload_and_check(&client, &registry, &noise(5 * MIB));
    let refused = registry.requests().len();
    upload_and_check(&client, &registry, &noise(5 * MIB + 1));
    let later = registry.requests().split_off(refused);
    assert!(
        later
            .iter()
            .all(|request| request.method != Method::PUT || request.header("content-length") == Some("0"))
    );
    // A body that can be read only once is buffered by chunks.
    let bytes = noise(3 * MIB);
    client.upload(Body::new(Cursor::new(bytes.clone()))).unwrap();
    assert!(registry.blob("a", &Descriptor::of("x", &bytes).digest).unwrap() == bytes);
}

#[test]
fn a_body_that_can_be_read_only_once_and_is_too_large_is_retryable() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.limits_bodies = Some(MIB));
    let client = registry.client("a", "t");
    let bytes = noise(5 * MIB);
    let error = client.upload(Body::new(Cursor::new(bytes.clone()))).unwrap_err();
    assert!(error.to_string().contains("413") && client.retry_delay(&error, 0).is_some(), "{error}");
    client.upload(Body::new(Cursor::new(bytes))).unwrap();
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn ghcr_answers_416_to_large_requests() {
    let registry = Registry::start();
    registry
        .behave(|behaviour| (behaviour.limits_bodies, behaviour.limit_status) = (Some(4 * MIB), Some(416)));
    upload_and_check(&registry.client("a", "t"), &registry, &noise(9 * MIB));
}

#[test]
fn acr_requires_the_length_of_a_patch() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.lengths = Lengths::Patches);
    let (client, bytes) = (registry.client("a", "t"), noise(MIB));
    let error = client.upload(Body::new(Cursor::new(bytes.clone()))).unwrap_err();
    assert!(client.retry_delay(&error, 0).is_some(), "{error}");
    client.upload(Body::new(Cursor::new(bytes))).unwrap();
}

#[test]
fn ecr_answers_201_to_a_chunk_with_outdated_ranges() {
    let registry = Registry::start();
    registry.behave(|behaviour| {
        behaviour.patch_status = Some(201);
        behaviour.status_ranges = StatusRanges::Stale;
    });
    let client = registry.client_by("a", |client| client.chunk_size = Some(400_000));
    let refusal = Refusal { method: Method::PATCH, path: "/uploads/", status: 500, ..Refusal::default() };
    registry.behave(|behaviour| behaviour.refusals = vec![refusal; 2]);
    upload_and_check(&client, &registry, &noise(1_000_000));
}

#[test]
fn an_interrupted_upload_continues_at_the_offset_of_the_registry() {
    for style in [StatusRanges::Inclusive, StatusRanges::Counted] {
        let registry = Registry::start();
        registry
            .behave(|behaviour| (behaviour.broken_uploads, behaviour.status_ranges) = (Broken::Kept, style));
        let proxy = CuttingProxy::cutting(registry.host(), 3 * MIB as u64);
        upload_and_check(&through(&proxy), &registry, &noise(16 * MIB));
        assert!(proxy.up() < 20 * MIB as u64, "{} bytes", proxy.up());
    }
}

#[test]
fn a_registry_that_notices_a_lost_connection_late_is_asked_for_the_offset_again() {
    for (late, questions) in [(0, 1), (3, 4)] {
        let registry = Registry::start();
        registry.behave(|behaviour| {
            (behaviour.broken_uploads, behaviour.notices_late) = (Broken::Kept, late);
        });
        // One query is enough, because the rest fits into the second connection.
        let proxy = CuttingProxy::cutting(registry.host(), 9 * MIB as u64);
        upload_and_check(&through(&proxy), &registry, &noise(16 * MIB));
        let asked = registry.paths(Method::GET).iter().filter(|path| path.contains("/uploads/")).count();
        assert_eq!(asked, questions, "{late}");
        assert!(proxy.up() < 17 * MIB as u64, "{} bytes", proxy.up());
    }
}

#[test]
fn a_registry_with_an_old_offset_is_not_asked_for_ever() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.notices_late = usize::MAX);
    let proxy = CuttingProxy::cutting(registry.host(), 9 * MIB as u64);
    upload_and_check(&through(&proxy), &registry, &noise(16 * MIB));
    let asked = registry.paths(Method::GET).iter().filter(|path| path.contains("/uploads/")).count();
    assert_eq!(asked, 5);
}

#[test]
fn chunks_of_a_body_that_can_be_read_only_once_are_limited() {
    let registry = Registry::start();
    let client = registry.client_by("a", |client| client.chunk_size = Some(1 << 40));
    let bytes = noise(65 * MIB);
    client.upload(Body::new(Cursor::new(bytes.clone()))).unwrap();
    assert_eq!(chunks(&registry), ["0-67108863", "67108864-68157439"]);
    upload_and_check(&client, &registry, &bytes);
}

#[test]
fn distribution_2_8_deletes_interrupted_uploads_and_gets_smaller_chunks() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.broken_uploads = Broken::Fatal);
    let proxy = CuttingProxy::cutting(registry.host(), 10 * MIB as u64);
    let client = through(&proxy);
    upload_and_check(&client, &registry, &noise(32 * MIB));
    assert!(proxy.up() < 48 * MIB as u64, "{} bytes", proxy.up());
    // The next upload uses the chunk size that was learned.
    let before = proxy.up();
    upload_and_check(&client, &registry, &noise(32 * MIB + 1));
    assert!(proxy.up() - before < 33 * MIB as u64, "{} bytes", proxy.up() - before);
}

#[test]
fn after_a_lost_chunk_a_new_upload_begins() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.loses_a_chunk = true);
    let client = registry.client_by("a", |client| client.chunk_size = Some(400_000));
    upload_and_check(&client, &registry, &noise(1_000_000));
}

#[test]
fn google_rejects_chunks_and_gets_the_whole_blob_again() {
    let registry = Registry::start();
    registry.behave(|behaviour| {
        behaviour.whole_only = true;
        let refusal = Refusal { method: Method::PUT, path: "/uploads/", status: 503, ..Refusal::default() };
        behaviour.refusals = vec![refusal; 2];
    });
    upload_and_check(&registry.client("a", "t"), &registry, &noise(MIB));
    assert!(chunks(&registry).is_empty());
}

#[test]
fn after_a_lost_response_the_blob_is_looked_up() {
    let registry = Registry::start();
    let bytes = noise(MIB);
    // The last request is handled and its response is lost.
    for body in [on_disk(&bytes).0, Body::new(Cursor::new(bytes.clone()))] {
        let refusal = Refusal {
            method: Method::PUT,
            path: "/uploads/",
            status: 504,
            after: true,
            ..Refusal::default()
        };
        registry.behave(|behaviour| behaviour.refusals = vec![refusal]);
        let before = registry.paths(Method::PUT).len();
        registry.client("a", "t").upload(body).unwrap();
        assert_eq!(registry.paths(Method::PUT).len() - before, 1, "it is there already");
        assert_eq!(registry.open_uploads(), 0);
    }
}

#[test]
fn a_token_may_expire_during_an_upload_that_can_be_repeated() {
    let registry = Registry::start();
    let refusal = Refusal { method: Method::PUT, path: "/uploads/", status: 503, ..Refusal::default() };
    registry.behave(|behaviour| behaviour.refusals = vec![refusal]);
    upload_and_check(&registry.client("a", "t"), &registry, &noise(MIB));
}

fn with_state(
    registry: &Registry,
    state: &Path,
    change: impl FnOnce(&mut volio::transport::ClientOptions),
) -> registry::Registry {
    registry.client_by("a", |client| {
        (client.state, client.chunk_size) = (Some(state.to_owned()), Some(MIB as u64));
        client.retry.retries = 0;
        change(client);
    })
}

/// Interrupts an upload. Returns the registry, and the directory with the saved session.
fn interrupted(bytes: &[u8]) -> (Registry, tempfile::TempDir) {
    let (registry, state) = (Registry::start(), tempfile::tempdir().unwrap());
    registry.behave(|behaviour| behaviour.limits_requests = Some(5));
    assert!(with_state(&registry, state.path(), |_| {}).upload(on_disk(bytes).0).is_err());
    registry.behave(|behaviour| behaviour.limits_requests = None);
    assert_eq!(registry.open_uploads(), 1);
    (registry, state)
}

#[test]
fn another_process_resumes_an_upload() {
    let bytes = noise(8 * MIB);
    let (registry, state) = interrupted(&bytes);
    let before = registry.uploaded();
    assert!(before >= 3 * MIB as u64);
    upload_and_check(&with_state(&registry, state.path(), |_| {}), &registry, &bytes);
    assert!(registry.uploaded() <= 8 * MIB as u64 + MIB as u64, "{}", registry.uploaded());
    assert_eq!(std::fs::read_dir(state.path().join("uploads")).unwrap().count(), 0);
}

#[test]
fn an_upload_that_the_registry_has_deleted_begins_again() {
    let bytes = noise(8 * MIB);
    let (registry, state) = interrupted(&bytes);
    registry.forget_uploads();
    upload_and_check(&with_state(&registry, state.path(), |_| {}), &registry, &bytes);
}

#[test]
fn a_cancellation_aborts_an_upload_at_the_registry() {
    struct Cancelling(CancelToken, usize);
    impl Read for Cancelling {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1 += 1;
            if self.1 == 20 {
                self.0.cancel();
            }
            buffer.fill(7);
            Ok(buffer.len())
        }
    }
    // This also works if the token has expired by then and the abort needs a new one.
    for (chunk_size, expires_in) in [(None, 300), (Some(MIB as u64), 300), (None, 1)] {
        let registry = Registry::start();
        let cancel = CancelToken::default();
        let user = "me:hunter2";
        registry.behave(|behaviour| {
            behaviour.login = Login::Token { user, anonymous_pull: false, expires_in };
        });
        let (_directory, mut access) = access(registry.host(), user);
        access.client = super::patient();
        (access.client.cancel, access.client.chunk_size) = (cancel.clone(), chunk_size);
        let client = registry.client_with("a", "t", &access);
        let error = client.upload(Body::new(Cancelling(cancel.clone(), 0))).unwrap_err();
        assert!(error.to_string().contains("interrupted"), "{error}");
        assert_eq!(registry.open_uploads(), 0);
        cancel.wait_for_guards(Duration::from_secs(600)); // nothing is left to wait for
    }
}

#[test]
fn a_failed_upload_returns_its_own_error() -> Result<()> {
    let registry = Registry::start();
    let refusal = Refusal { method: Method::PUT, path: "/uploads/", status: 400, ..Refusal::default() };
    registry.behave(|behaviour| behaviour.refusals = vec![refusal]);
    let error = registry.client("a", "t").upload(on_disk(&noise(10)).0).unwrap_err();
    assert!(error.to_string().contains("400"), "{error}");
    assert_eq!(registry.open_uploads(), 0);
    Ok(())
}
