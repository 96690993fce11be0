//! GitLab's registry, whose tokens are short-lived and have a right to delete of its own, as those of distribution.

use super::{Site, TOKENS};
use crate::registry::Refusal;
use axum::http::Method;

#[test]
fn the_right_to_delete_is_requested_for_removals_only() {
    let site = Site::new(|behaviour| behaviour.login = TOKENS);
    site.round_trip();
    let with_delete = || site.registry.requests().iter().filter(|one| one.path.contains("delete")).count();
    assert_eq!(with_delete(), 0);
    site.succeeds("rm HOST/a:v1");
    assert_eq!(with_delete(), 1);
    assert_eq!(site.registry.stored_tags("a"), Vec::<String>::new());
}

#[test]
fn an_account_without_the_right_to_delete_is_denied() {
    let site = Site::new(|behaviour| behaviour.login = TOKENS);
    site.succeeds("push oci:layout:v1 HOST/a:v1");
    let refusal = Refusal { method: Method::DELETE, path: "/manifests/", status: 401, ..Refusal::default() };
    site.registry.behave(|behaviour| behaviour.refusals = vec![refusal; 2]);
    let screen = site.screen("rm HOST/a:v1");
    assert!(screen.contains("volio login HOST") && screen.ends_with("-- exit 5\n"), "{screen}");
    assert_eq!(site.registry.stored_tags("a"), ["v1"]);
}
