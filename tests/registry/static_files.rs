//! Incomplete registries: static file servers, and proxies that support only a part of HTTP.

use super::{Login, Registry};
use volio::oci::{Descriptor, media_type};
use volio::stream::Body;
use volio::transport::{Destination, Source};

const INDEX: &str = r#"{"schemaVersion": 2, "manifests": []}"#;

#[test]
fn an_image_is_read_from_a_static_file_server() {
    for root in [200, 403, 404, 405] {
        for media_type in ["", "application/octet-stream", "binary/octet-stream", "text/html"] {
            let registry = Registry::start();
            registry.plant("a", "t", media_type::INDEX, INDEX);
            registry.behave(|behaviour| {
                behaviour.root_status = Some(root);
                behaviour.manifest_type = Some(media_type);
            });
            let document = registry.client("a", "t").resolve().unwrap();
            assert_eq!(document.descriptor().media_type, media_type::INDEX, "{root} {media_type}");
        }
    }
}

#[test]
fn a_server_without_the_root_and_the_image_is_not_a_registry() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.root_status = Some(404));
    let client = registry.client("a", "t");
    for error in [client.resolve().unwrap_err(), client.tags().unwrap_err()] {
        assert!(error.to_string().contains("is not a registry: it does not know /v2/"), "{error}");
    }
    assert_eq!(registry.requests().iter().filter(|request| request.path == "/v2/").count(), 1);
    // After one success, a missing image is only not found.
    registry.plant("a", "t", media_type::INDEX, INDEX);
    client.resolve().unwrap();
    let error = client.open(&Descriptor::of("application/octet-stream", b"x")).err().unwrap();
    assert_eq!(error.kind(), volio::error::Kind::NotFound, "{error}");
}

#[test]
fn a_registry_without_the_root_may_require_authentication() {
    let registry = Registry::start();
    registry.plant("a", "t", media_type::INDEX, INDEX);
    registry.behave(|behaviour| {
        behaviour.root_status = Some(404);
        behaviour.login = Login::Token { user: "me:hunter2", anonymous_pull: true, expires_in: 300 };
    });
    assert_eq!(registry.client("a", "t").resolve().unwrap().bytes(), INDEX.as_bytes());
}

#[test]
fn blobs_are_found_without_head_requests() {
    for status in [405, 501] {
        let registry = Registry::start();
        let client = registry.client("a", "t");
        client.upload(Body::new(&b"data"[..])).unwrap();
        registry.plant("a", "t", media_type::INDEX, INDEX);
        registry.behave(|behaviour| behaviour.head_status = Some(status));
        let blob = |bytes: &[u8]| Descriptor::of("application/octet-stream", bytes);
        assert!(client.contains(&blob(b"data")).unwrap(), "{status}");
        assert!(!client.contains(&blob(b"more")).unwrap(), "{status}");
        assert!(client.contains(&Descriptor::of(media_type::INDEX, INDEX.as_bytes())).unwrap(), "{status}");
    }
}
