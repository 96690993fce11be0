//! Removal of tags and images from registries with different abilities.

use super::{Deletes, Refusal, Registry};
use axum::http::Method;
use volio::error::Kind;
use volio::oci::{Digest, media_type};
use volio::transport::{Access, Removal, Removed, Source, registry};

const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "layers": []}"#;
const OTHER: &[u8] = br#"{"schemaVersion": 2, "layers": [ ]}"#;

/// Starts a registry in which two tags point to one image and a third to another.
fn registry(deletes: Deletes) -> Registry {
    let registry = Registry::start();
    for (tag, manifest) in [("a", MANIFEST), ("b", MANIFEST), ("c", OTHER)] {
        registry.plant("data", tag, media_type::MANIFEST, manifest);
    }
    registry.behave(|behaviour| behaviour.deletes = deletes);
    registry
}

fn remove(registry: &Registry, name: &str, force: bool) -> volio::Result<Removed> {
    let name = format!("{}/data{name}", registry.host());
    registry::Registry::new(name.parse().unwrap(), &Access::default()).unwrap().remove(force)
}

fn tags(registry: &Registry) -> Vec<String> {
    registry.client("data", "t").tags().unwrap()
}

#[test]
fn a_tag_is_removed_alone_if_the_registry_supports_it() {
    let registry = registry(Deletes::All);
    assert_eq!(remove(&registry, ":a", false).unwrap().tags, ["a"]);
    assert_eq!(tags(&registry), ["b", "c"]);
    assert_eq!(registry.paths(Method::DELETE), ["/v2/data/manifests/a"]);
}

#[test]
fn an_image_with_other_tags_is_removed_only_if_forced() {
    for status in [400, 404, 405] {
        let registry = registry(Deletes::Images(status));
        let error = remove(&registry, ":a", false).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().ends_with("also b"), "{error}");
        assert_eq!(tags(&registry), ["a", "b", "c"]);
        assert_eq!(remove(&registry, ":c", false).unwrap().tags, ["c"], "the only tag of its image");
        assert_eq!(remove(&registry, ":a", true).unwrap().tags, ["a", "b"]);
        assert_eq!(registry.client("data", "b").resolve().unwrap_err().kind(), Kind::NotFound);
    }
}

#[test]
fn an_image_is_removed_by_digest_with_one_tag_but_not_with_several() {
    let registry = registry(Deletes::All);
    let (one, several) = (format!("@{}", Digest::of(OTHER)), format!("@{}", Digest::of(MANIFEST)));
    assert_eq!(remove(&registry, &several, false).unwrap_err().kind(), Kind::Refused);
    assert_eq!(remove(&registry, &one, false).unwrap().tags, ["c"]);
    assert_eq!(remove(&registry, &several, true).unwrap().tags, ["a", "b"]);
}

#[test]
fn a_tag_that_has_moved_is_not_removed() {
    let registry = registry(Deletes::All);
    let error = remove(&registry, &format!(":a@{}", Digest::of(OTHER)), true).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(tags(&registry), ["a", "b", "c"]);
    remove(&registry, &format!(":a@{}", Digest::of(MANIFEST)), false).unwrap();
    assert_eq!(tags(&registry), ["b", "c"]);
}

#[test]
fn too_many_tags_are_not_compared() {
    let registry = registry(Deletes::Images(405));
    for number in 0..100 {
        registry.plant("data", &format!("t{number}"), media_type::MANIFEST, OTHER);
    }
    assert_eq!(remove(&registry, ":a", false).unwrap_err().kind(), Kind::Refused);
    assert!(registry.paths(Method::HEAD).is_empty());
    assert_eq!(remove(&registry, ":a", true).unwrap().tags, ["a"]);
}

#[test]
fn a_registry_without_deletion_is_an_error_with_a_hint() {
    let registry = registry(Deletes::Nothing);
    let error = remove(&registry, ":c", false).unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.hint().unwrap().contains("DELETE_ENABLED"), "{error}");
}

#[test]
fn a_missing_tag_is_not_found() {
    let registry = registry(Deletes::All);
    for name in [":absent", &format!("@{}", Digest::of(b"absent"))] {
        assert_eq!(remove(&registry, name, true).unwrap_err().kind(), Kind::NotFound);
    }
}

#[test]
fn a_deletion_with_a_lost_response_removes_nothing_else() {
    let registry = registry(Deletes::All);
    registry.behave(|behaviour| {
        let (method, path) = (Method::DELETE, "/manifests/");
        behaviour.refusals.push(Refusal { method, path, status: 504, after: true, ..Refusal::default() });
    });
    assert_eq!(registry.client("data", "c").remove(false).unwrap().tags, ["c"]);
    assert_eq!(registry.paths(Method::DELETE), ["/v2/data/manifests/c"; 2], "the image itself is left alone");
}
