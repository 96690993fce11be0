//! Harbor, also as a proxy cache of another registry.

use super::{Site, assert_screen, str};
use crate::registry::{Deletes, Ranges, Refusal};
use axum::http::Method;

#[test]
fn a_proxy_cache_without_heads_lengths_and_ranges_is_read() {
    let site = Site::new(|_| ());
    site.succeeds("push oci:layout:v1 HOST/a:v1");
    site.succeeds("push oci:layout:v1 HOST/a:v2");
    site.registry.behave(|behaviour| {
        behaviour.head_status = Some(404);
        behaviour.hides_lengths = true;
        behaviour.ranges = Ranges::Ignored;
        behaviour.deletes = Deletes::Images(404);
    });
    site.succeeds("unpack HOST/a:v1 out");
    site.succeeds("copy HOST/a:v1 oci:copied:v1");
    site.succeeds("verify HOST/a:v1");
    for (arguments, result) in [("ls HOST/a:v1", "/hello\n"), ("cat HOST/a:v1 /hello", "hello\n")] {
        let screen = site.screen(arguments);
        assert!(screen.contains(result) && screen.ends_with("-- exit 0\n"), "{screen}");
    }
    // The other tag is found, although HEAD does not find it.
    let screen = site.screen("rm HOST/a:v1");
    assert!(screen.contains("also v2") && screen.ends_with("-- exit 6\n"), "{screen}");
    site.succeeds("rm --force HOST/a:v1");
    assert_eq!(site.registry.stored_tags("a"), Vec::<String>::new());
}

#[test]
fn an_image_that_may_not_be_read_because_of_its_vulnerabilities_is_replaced() {
    let site = Site::new(|_| ());
    site.succeeds("push oci:layout:v1 HOST/a:v1");
    site.registry.behave(|behaviour| behaviour.head_status = Some(412));
    site.succeeds("push oci:layout:v1 HOST/a:v1");
    site.succeeds("pack --compression gzip HOST/a:v1 tree");
    let body = r#"{"errors":[{"code":"PROJECTPOLICYVIOLATION","message":"current image with 2 vulnerabilities cannot be pulled"}]}"#;
    site.registry.behave(|behaviour| {
        let (method, path) = (Method::GET, "/manifests/");
        behaviour.refusals.push(Refusal {
            method,
            path,
            status: 412,
            body: body.to_owned(),
            ..Refusal::default()
        });
    });
    assert_screen(
        site.screen("unpack HOST/a:v1 out"),
        str![[r#"
-- stderr
error: cannot find HOST/a:v1: HOST answers 412 Precondition Failed: PROJECTPOLICYVIOLATION: current image with 2 vulnerabilities cannot be pulled
-- exit 1

"#]],
    );
}
