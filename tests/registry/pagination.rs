//! Lists of tags in pages.

use super::{Login, Pages, Registry, access};
use volio::error::Kind;
use volio::oci::media_type;
use volio::transport::Source;

const MANIFEST: &[u8] = br#"{"schemaVersion": 2, "layers": []}"#;

/// Starts a registry with five tags.
fn registry() -> Registry {
    let registry = Registry::start();
    for tag in ["c", "a", "e", "b", "d"] {
        registry.plant("team/data", tag, media_type::MANIFEST, MANIFEST);
    }
    registry.plant("team/data/more", "other", media_type::MANIFEST, MANIFEST);
    registry
}

fn tags(registry: &Registry, pages: Pages) -> volio::Result<Vec<String>> {
    registry.behave(|behaviour| behaviour.pages = pages);
    registry.client("team/data", "t").tags()
}

#[test]
fn all_pages_are_requested_from_the_same_server() {
    let registry = registry();
    assert_eq!(tags(&registry, Pages::OfTwo).unwrap(), ["a", "b", "c", "d", "e"]);
    let asked: Vec<_> = registry.requests().iter().map(|request| request.path.clone()).collect();
    assert_eq!(asked.len(), 4, "the ping and three pages: {asked:?}");
    assert_eq!(tags(&registry, Pages::Whole).unwrap().len(), 5);
}

#[test]
fn every_page_is_requested_with_authorization() {
    let registry = registry();
    let user = "u:p";
    registry.behave(|behaviour| {
        behaviour.login = Login::Token { user, anonymous_pull: false, expires_in: 60 };
        behaviour.pages = Pages::OfTwo;
    });
    let (_directory, access) = access(registry.host(), user);
    assert_eq!(registry.client_with("team/data", "t", &access).tags().unwrap().len(), 5);
}

#[test]
fn pages_in_a_circle_are_an_error() {
    for pages in [Pages::InCircles, Pages::Barren] {
        let registry = registry();
        let error = tags(&registry, pages).unwrap_err();
        assert_eq!(error.kind(), Kind::Failed);
        assert!(error.to_string().contains("in circles"), "{error}");
        assert!(registry.requests().len() < 20);
    }
}

#[test]
fn an_endless_list_is_an_error() {
    for pages in [Pages::Endless, Pages::EndlessAddresses] {
        let error = tags(&registry(), pages).unwrap_err();
        assert!(error.to_string().contains("larger than"), "{error}");
    }
}

#[test]
fn a_repository_without_tags_has_an_empty_list() {
    assert!(tags(&registry(), Pages::Null).unwrap().is_empty());
}

#[test]
fn a_missing_repository_is_not_found() {
    let error = Registry::start().client("absent", "t").tags().unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("NAME_UNKNOWN"), "{error}");
}
