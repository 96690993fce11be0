//! Limits on requests and on manifests.

use super::{Site, assert_screen, str};
use crate::registry::{Refusal, noise};
use axum::http::Method;
use std::fs;

fn limit(status: u16) -> Refusal {
    let body = r#"{"errors":[{"code":"DENIED","message":"secondary rate limit"}]}"#.to_owned();
    let retry_after = Some("0".to_owned());
    Refusal { method: Method::GET, path: "/blobs/", status, body, retry_after, ..Refusal::default() }
}

#[test]
fn a_denial_with_a_delay_is_a_rate_limit() {
    let site = Site::new(|_| ());
    site.succeeds("push oci:layout:v1 HOST/a:v1");
    site.registry.behave(|behaviour| behaviour.refusals = vec![limit(403); 2]);
    let screen = site.screen("unpack --retry-delay 0 HOST/a:v1 out");
    assert!(screen.contains("trying again in 0.0 s (1 of 5)") && screen.ends_with("-- exit 0\n"), "{screen}");
    site.registry.behave(|behaviour| behaviour.refusals = vec![limit(403); 20]);
    assert_screen(
        site.screen("cat --retry 0 HOST/a:v1 /hello"),
        str![[r#"
-- stderr
error: cannot fetch sha256:[DIGEST] in HOST/a: HOST answers 403 Forbidden: DENIED: secondary rate limit
hint: HOST limits how often it is asked; try again later
-- exit 1

"#]],
    );
    // Uploads wait too.
    let refusal = Refusal { method: Method::PATCH, path: "/uploads/", ..limit(403) };
    site.registry.behave(|behaviour| behaviour.refusals = vec![refusal]);
    let screen = site.screen("pack --retry-delay 0 HOST/b:v1 tree");
    assert!(screen.ends_with("-- exit 0\n"), "{screen}");
}

#[test]
fn a_quota_that_is_used_up_is_not_taken_for_wrong_credentials() {
    let site = Site::new(|_| ());
    let message = "adding 12.0 MiB of storage resource will exceed the configured upper limit of 1.0 GiB";
    let body = format!(r#"{{"errors":[{{"code":"DENIED","message":"{message}"}}]}}"#);
    let (method, path) = (Method::PUT, "/manifests/v1");
    let refusal = Refusal { method, path, status: 403, body, ..Refusal::default() };
    site.registry.behave(|behaviour| behaviour.refusals = vec![refusal]);
    assert_screen(
        site.screen("push oci:layout:v1 HOST/a:v1"),
        str![[r#"
-- stderr
error: destination: cannot store the manifest v1 in HOST/a: HOST answers 403 Forbidden: DENIED: adding 12.0 MiB of storage resource will exceed the configured upper limit of 1.0 GiB
hint: a quota in HOST is used up: remove images there, as volio prune does, or have it raised
-- exit 5

"#]],
    );
}

#[test]
fn a_layer_above_the_limit_of_the_registry_gets_the_advice_to_make_smaller_ones() {
    let site = Site::new(|behaviour| behaviour.limits_blobs = Some(1 << 20));
    fs::write(site.place.path().join("tree/noise"), noise(3 << 20)).unwrap();
    site.succeeds("pack --compression none oci:large:v1 tree");
    let screen = site.screen("push --retry-delay 0 oci:large:v1 HOST/a:v1");
    assert!(screen.contains("413 Payload Too Large") && screen.contains("--layer-size"), "{screen}");
    assert!(screen.ends_with("-- exit 1\n"), "{screen}");
    assert_eq!(site.registry.open_uploads(), 0);
    assert!(site.registry.uploaded() < 12 << 20, "{} bytes were sent", site.registry.uploaded());
}

#[test]
fn a_manifest_above_the_limit_of_the_registry_is_explained() {
    let site = Site::new(|behaviour| behaviour.limits_manifests = Some(1000));
    let annotation = "x".repeat(2000);
    let screen = site.screen(&format!("pack --quiet --annotation a={annotation} HOST/a:v1 tree"));
    assert_screen(
        screen,
        str![[r#"
-- stderr
error: cannot store the manifest sha256:[DIGEST] in HOST/a: HOST answers 413 Payload Too Large: MANIFEST_INVALID: so says the test
hint: the manifest has 2875 bytes, and HOST or a proxy in front of it accepts fewer: pack with larger layers (--layer-size), and with fewer annotations
-- exit 1

"#]],
    );
    site.succeeds("pack --platform linux/amd64 HOST/a:v1 tree");
}
