//! Retries: which errors, how often, and when.

use super::{Refusal, Registry, Warnings, noise, patient};
use axum::http::Method;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use volio::Error;
use volio::error::Kind;
use volio::oci::{Descriptor, media_type};
use volio::pack::{Options, pack};
use volio::progress::{Progress, Silent, Task, TaskInfo};
use volio::stream::CancelToken;
use volio::transport::{Access, Destination, Retry, Source, registry};
use volio::tree::SourceSpec;

const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "layers": []}"#;

fn refuse(registry: &Registry, status: u16, times: usize) {
    let refusal = Refusal { method: Method::GET, path: "/manifests/", status, ..Refusal::default() };
    registry.behave(|behaviour| behaviour.refusals = vec![refusal; times]);
}

fn asked(registry: &Registry) -> usize {
    registry.paths(Method::GET).iter().filter(|path| path.contains("/manifests/")).count()
}

fn with_manifest() -> Registry {
    let registry = Registry::start();
    registry.plant("a", "t", media_type::MANIFEST, MANIFEST);
    registry
}

#[test]
fn transient_statuses_are_retried() {
    for status in [408, 429, 499, 500, 502, 503, 504, 522] {
        let registry = with_manifest();
        refuse(&registry, status, 3);
        assert_eq!(registry.client("a", "t").resolve().unwrap().bytes(), MANIFEST, "{status}");
        assert_eq!(asked(&registry), 4, "{status}");
    }
}

#[test]
fn permanent_statuses_are_not_retried() {
    for status in [400, 403, 404, 405, 410, 413, 501] {
        let registry = with_manifest();
        refuse(&registry, status, 1);
        assert!(registry.client("a", "t").resolve().is_err(), "{status}");
        assert_eq!(asked(&registry), 1, "{status}");
    }
}

#[test]
fn the_number_of_retries_is_limited() {
    let registry = with_manifest();
    refuse(&registry, 503, 100);
    let client = registry.client_by("a", |client| client.retry.retries = 2);
    let error = client.resolve().unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    assert_eq!(asked(&registry), 3);
    let client = registry.client_by("a", |client| client.retry.retries = 0);
    assert!(client.resolve().is_err());
    assert_eq!(asked(&registry), 4);
}

#[test]
fn wrong_data_is_not_fetched_again() {
    let registry = with_manifest();
    registry.behave(|behaviour| behaviour.lies_about_digests = true);
    assert_eq!(registry.client("a", "t").resolve().unwrap_err().kind(), Kind::Integrity);
    assert_eq!(asked(&registry), 1);
}

#[test]
fn a_retry_is_reported_with_its_reason_and_waits_as_long_as_the_server_wants() {
    let registry = with_manifest();
    refuse(&registry, 429, 1);
    registry.behave(|behaviour| behaviour.refusals[0].retry_after = Some("1".to_owned()));
    let warnings = Arc::<Warnings>::default();
    let client = registry.client_by("a", |client| client.progress = Arc::clone(&warnings) as _);
    client.resolve().unwrap();
    let lines = warnings.all();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("429") && lines[0].ends_with("trying again in 1.0 s (1 of 5)"), "{lines:?}");
}

#[test]
fn a_host_that_never_answered_is_not_retried() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let warnings = Arc::<Warnings>::default();
    let mut client = patient();
    client.retry = Retry { retries: 3, delay: Duration::ZERO };
    client.progress = Arc::clone(&warnings) as _;
    let name = format!("127.0.0.1:{port}/a:t").parse().unwrap();
    let client = registry::Registry::new(name, &Access { client, ..Access::default() }).unwrap();
    assert!(client.resolve().is_err());
    assert_eq!(warnings.all().len(), 0);
}

#[test]
fn a_host_that_has_answered_is_retried() {
    let registry = with_manifest();
    let warnings = Arc::<Warnings>::default();
    let client = registry.client_by("a", |client| client.progress = Arc::clone(&warnings) as _);
    client.resolve().unwrap();
    drop(registry);
    assert!(client.resolve().is_err());
    assert_eq!(warnings.all().len(), 5);
}

#[test]
fn a_destination_says_when_to_retry_and_does_not_wait() {
    let registry = Registry::start();
    let cancel = CancelToken::default();
    let client = registry.client_by("a", |client| {
        client.retry = Retry { retries: 2, delay: Duration::from_secs(50) };
        client.cancel = cancel.clone();
    });
    let passing = Error::failed("the layer was lost").with_retry_after(Duration::ZERO);
    let begun = Instant::now();
    let retry = client.retry_delay(&passing, 1).unwrap();
    assert_eq!((retry.number, retry.limit), (2, 2));
    assert!(retry.delay >= Duration::from_secs(40) && begun.elapsed() < Duration::from_secs(30));
    assert!(client.retry_delay(&passing, 2).is_none());
    assert!(client.retry_delay(&Error::failed("no"), 0).is_none());
    cancel.cancel();
    assert!(client.retry_delay(&passing, 0).is_none());
}

/// Cancels everything when it receives a warning.
struct CancelOnWarning(CancelToken, Mutex<Vec<String>>);

impl Progress for CancelOnWarning {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        Silent.begin(info)
    }

    fn warn(&self, message: &str) {
        self.1.lock().unwrap().push(message.to_owned());
        self.0.cancel();
    }
}

#[test]
fn a_pack_that_waits_for_a_retry_can_be_cancelled() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.limits_bodies = Some(1 << 20));
    let progress = CancelOnWarning(CancelToken::default(), Mutex::default());
    let client = registry.client_by("a", |client| {
        client.retry = Retry { retries: 5, delay: Duration::from_secs(60) };
        client.cancel = progress.0.clone();
    });
    let tree = tempfile::tempdir().unwrap();
    std::fs::write(tree.path().join("file"), noise(5 << 20)).unwrap();
    let begun = Instant::now();
    pack(&client, &[SourceSpec::new(tree.path())], &Options::default(), &progress).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(30));
    let warnings = progress.1.lock().unwrap();
    assert!(matches!(warnings.as_slice(), [one] if one.ends_with(" s (1 of 5)")), "{warnings:?}");
}

#[test]
fn nothing_begins_after_a_cancellation() {
    let registry = with_manifest();
    let cancel = CancelToken::default();
    let client = registry.client_by("a", |client| client.cancel = cancel.clone());
    client.resolve().unwrap();
    let before = registry.requests().len();
    cancel.cancel();
    assert!(client.resolve().unwrap_err().to_string().contains("interrupted"));
    assert!(client.open(&Descriptor::of("x", b"x")).is_err());
    assert_eq!(registry.requests().len(), before);
}
