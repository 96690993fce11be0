//! gcr.io and Google Artifact Registry.

use super::{Site, TOKENS, assert_screen, str};
use crate::registry::{Locations, NoReferrers};
use axum::http::Method;

#[test]
fn a_rejection_without_a_challenge_is_answered_by_that_of_the_root() {
    let site = Site::new(|behaviour| (behaviour.login, behaviour.hides_challenges) = (TOKENS, true));
    site.round_trip();
    assert_screen(
        site.screen_with("ls HOST/a:v1", r#"{"username":"me","password":"wrong"}"#),
        str![[r#"
-- stderr
error: cannot get a token for HOST from HOST: HOST answers 401 Unauthorized: incorrect username or password
hint: log in with volio login HOST, or put credentials that allow this into docker's config.json
-- exit 5

"#]],
    );
}

#[test]
fn an_upload_at_a_long_address_outside_of_v2_has_the_authorization() {
    let site = Site::new(|behaviour| (behaviour.login, behaviour.locations) = (TOKENS, Locations::Outside));
    site.round_trip();
    let puts = site.registry.paths(Method::PUT);
    assert!(puts.iter().any(|path| path.starts_with("/artifacts-uploads/a/blobs/uploads/")), "{puts:?}");
}

#[test]
fn a_login_page_in_place_of_the_referrers_is_not_a_list() {
    let site = Site::new(|behaviour| behaviour.no_referrers = NoReferrers::LoginPage);
    site.sign_and_verify();
    assert_eq!(site.referrers_tags().len(), 3);
    site.succeeds("copy --referrers HOST/a:v1 oci:copied:v1");
    site.succeeds("verify --key signer.pub oci:copied:v1");
}
