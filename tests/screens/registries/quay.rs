//! Quay.

use super::{Site, TOKENS};
use crate::registry::{Pages, Tokens};

#[test]
fn a_token_server_that_does_not_know_the_right_to_delete_is_asked_without_it() {
    let site = Site::new(|behaviour| {
        (behaviour.login, behaviour.tokens, behaviour.pages) = (TOKENS, Tokens::Quay, Pages::Opaque);
    });
    for tag in 1..=4 {
        site.succeeds(&format!("pack --annotation number={tag} HOST/a:v{tag} tree"));
    }
    site.succeeds("rm HOST/a:v1");
    site.succeeds("prune --keep-tag v4 HOST/a");
    assert_eq!(site.registry.stored_tags("a"), ["v4"]);
    let with_delete = site.registry.requests().into_iter().filter(|request| request.path.contains("delete"));
    assert_eq!(with_delete.count(), 2, "once for each command");
}
