//! Optional parts of the distribution specification.

use super::{Site, assert_screen, str};
use crate::registry::noise;
use axum::http::Method;
use std::fs;

#[test]
fn chunks_have_the_minimum_size_that_the_registry_announces() {
    let site = Site::new(|behaviour| behaviour.min_chunk = Some(1_500_000));
    fs::write(site.place.path().join("tree/noise"), noise(4_000_000)).unwrap();
    site.succeeds("pack --compression none oci:large:v1 tree");
    site.succeeds("push --chunk-size 1M oci:large:v1 HOST/a:v1");
    let chunks = || -> Vec<_> {
        let requests = site.registry.requests().into_iter().filter(|request| request.method == Method::PATCH);
        requests.map(|request| request.header("content-length").unwrap().parse::<u64>().unwrap()).collect()
    };
    assert!(chunks().iter().filter(|size| **size == 1_500_000).count() >= 2, "{:?}", chunks());
    site.succeeds("pack --chunk-size 1M HOST/b:v1 tree");
    site.succeeds("unpack HOST/b:v1 out");
}

#[test]
fn a_warning_of_the_registry_is_shown_once() {
    let site = Site::new(|_| ());
    site.succeeds("push oci:layout:v1 HOST/a:v1");
    site.registry.behave(|behaviour| {
        behaviour.headers = vec![("warning", "299 - \"this registry closes in \\\"May\\\"\"")];
    });
    assert_screen(
        site.screen("cat HOST/a:v1 /hello"),
        str![[r#"
hello
-- stderr
warning: HOST says: this registry closes in "May"
-- exit 0

"#]],
    );
    assert!(!site.screen("cat --quiet HOST/a:v1 /hello").contains("May"));
}

#[test]
fn no_command_needs_the_digest_in_headers() {
    let site = Site::new(|behaviour| behaviour.hides_digests = true);
    site.round_trip();
    site.sign_and_verify();
    site.succeeds("pack --incremental HOST/a:v1 tree");
    site.succeeds("pack --compression gzip HOST/a:v2 tree");
    site.succeeds("rm HOST/b:v1");
    site.succeeds("prune --keep-tag v2 HOST/a");
    assert_eq!(site.registry.stored_tags("a"), ["v2"]);
}

#[test]
fn referrers_of_all_types_are_requested_so_that_no_filter_is_applied() {
    let site = Site::new(|behaviour| behaviour.lists_referrers = true);
    site.sign_and_verify();
    site.succeeds("copy --referrers HOST/a:v1 oci:copied:v1");
    site.succeeds("verify --key signer.pub oci:copied:v1");
    let requests = site.registry.requests();
    assert!(requests.iter().all(|request| !request.path.contains("artifactType")));
}
