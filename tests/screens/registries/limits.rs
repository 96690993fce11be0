//! Limits on requests and on manifests.

use super::{Site, assert_screen, str};
use crate::registry::Refusal;
use axum::http::Method;

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
