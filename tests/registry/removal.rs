//! Removing tags and images, from registries that can and from those that cannot.

use super::{Deletes, Refusal, Registry};
use axum::http::Method;
use volio::error::Kind;
use volio::oci::{Digest, media_type};
use volio::transport::{Access, Removal, Removed, Source, registry};

const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "layers": []}"#;
const OTHER: &[u8] = br#"{"schemaVersion": 2, "layers": [ ]}"#;

/// A registry in which two tags mean one image and a third another.
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
fn a_tag_goes_alone_where_the_registry_can_do_that() {
    let registry = registry(Deletes::All);
    assert_eq!(remove(&registry, ":a", false).unwrap().tags, ["a"]);
    assert_eq!(tags(&registry), ["b", "c"]);
    assert_eq!(registry.paths(Method::DELETE), ["/v2/data/manifests/a"]);
}

#[test]
fn an_image_with_other_tags_is_kept_where_they_would_vanish_unless_forced() {
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
fn by_its_digest_an_image_goes_with_its_tag_but_not_with_several() {
    let registry = registry(Deletes::All);
    let (one, several) = (format!("@{}", Digest::of(OTHER)), format!("@{}", Digest::of(MANIFEST)));
    assert_eq!(remove(&registry, &several, false).unwrap_err().kind(), Kind::Refused);
    assert_eq!(remove(&registry, &one, false).unwrap().tags, ["c"]);
    assert_eq!(remove(&registry, &several, true).unwrap().tags, ["a", "b"]);
}

#[test]
fn a_tag_that_has_moved_on_is_not_removed() {
    let registry = registry(Deletes::All);
    let error = remove(&registry, &format!(":a@{}", Digest::of(OTHER)), true).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert_eq!(tags(&registry), ["a", "b", "c"]);
    remove(&registry, &format!(":a@{}", Digest::of(MANIFEST)), false).unwrap();
    assert_eq!(tags(&registry), ["b", "c"]);
}

#[test]
fn too_many_tags_to_look_at_are_not_looked_at() {
    let registry = registry(Deletes::Images(405));
    for number in 0..100 {
        registry.plant("data", &format!("t{number}"), media_type::MANIFEST, OTHER);
    }
    assert_eq!(remove(&registry, ":a", false).unwrap_err().kind(), Kind::Refused);
    assert!(registry.paths(Method::HEAD).is_empty());
    assert_eq!(remove(&registry, ":a", true).unwrap().tags, ["a"]);
}

#[test]
fn a_registry_that_deletes_nothing_says_so_with_a_hint() {
    let registry = registry(Deletes::Nothing);
    let error = remove(&registry, ":c", false).unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.hint().unwrap().contains("DELETE_ENABLED"), "{error}");
}

#[test]
fn what_is_not_there_is_not_found() {
    let registry = registry(Deletes::All);
    for name in [":absent", &format!("@{}", Digest::of(b"absent"))] {
        assert_eq!(remove(&registry, name, true).unwrap_err().kind(), Kind::NotFound);
    }
}

#[test]
fn a_tag_that_is_gone_although_nobody_said_so_takes_nothing_else_with_it() {
    let registry = registry(Deletes::All);
    registry.behave(|behaviour| {
        let (method, path) = (Method::DELETE, "/manifests/");
        behaviour.refusals.push(Refusal { method, path, status: 504, after: true, ..Refusal::default() });
    });
    assert_eq!(registry.client("data", "c").remove(false).unwrap().tags, ["c"]);
    assert_eq!(registry.paths(Method::DELETE), ["/v2/data/manifests/c"; 2], "the image itself is left alone");
}
