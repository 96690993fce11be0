//! Amazon Elastic Container Registry.

use super::{Site, assert_screen, str};
use crate::registry::{NoReferrers, Pages};
use axum::http::Method;

#[test]
fn a_registry_that_only_claims_to_list_referrers_gets_an_index_of_them() {
    let site = Site::new(|behaviour| behaviour.no_referrers = NoReferrers::Claimed);
    site.sign_and_verify();
    assert_eq!(site.referrers_tags().len(), 3);
    // cosign 4 reads the bundles only, which are found by the index.
    site.succeeds("copy --referrers HOST/a:v1 oci:copied:v1");
    let asked = site.registry.paths(Method::GET).into_iter().filter(|path| path.contains("/referrers/"));
    assert!(asked.count() < 20, "whether it lists referrers is asked once");
}

#[test]
fn a_registry_that_lists_referrers_is_asked_once_whether_it_does() {
    let site = Site::new(|behaviour| behaviour.lists_referrers = true);
    site.succeeds("pack HOST/a:v1 tree");
    let before = site.registry.requests().len();
    site.succeeds("sign --key signer.pem HOST/a:v1");
    assert_eq!(site.referrers_tags(), Vec::<String>::new());
    let signing = site.registry.requests().split_off(before);
    let puts: Vec<_> = signing.iter().filter(|request| request.method == Method::PUT).collect();
    assert!(puts.len() > 3);
    let last = signing.iter().rposition(|request| request.path.contains("/referrers/")).unwrap();
    let stored = signing.iter().position(|request| request.path == puts[puts.len() - 1].path).unwrap();
    assert!(last < stored);
    site.succeeds("verify --key signer.pub HOST/a:v1");
}

#[test]
fn a_repository_that_does_not_exist_is_named_in_the_hint() {
    let site = Site::new(|behaviour| behaviour.creates_no_repositories = true);
    assert_screen(
        site.screen("push oci:layout:v1 HOST/team/a:v1"),
        str![[r#"
-- stderr
error: destination: cannot upload sha256:[DIGEST] to HOST/team/a: HOST answers 404 Not Found: NAME_UNKNOWN: so says the test
hint: does the repository team/a exist? Amazon ECR and Google's registries do not create it with the first push
-- exit 4

"#]],
    );
}

#[test]
fn tags_are_requested_in_pages_of_at_most_a_thousand() {
    let site = Site::new(|behaviour| behaviour.pages = Pages::Opaque);
    for tag in 1..=5 {
        site.succeeds(&format!("push oci:layout:v1 HOST/a:v{tag}"));
    }
    assert_screen(
        site.screen("tags HOST/a"),
        str![[r#"
v1
v2
v3
v4
v5
-- exit 0

"#]],
    );
}
