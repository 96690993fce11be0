//! Azure Container Registry.

use super::{Site, TOKENS};
use crate::registry::{Deletes, Tokens};

#[test]
fn a_token_without_its_usual_name_and_without_a_lifetime_is_used_for_a_minute() {
    let site = Site::new(|behaviour| (behaviour.login, behaviour.tokens) = (TOKENS, Tokens::Azure));
    site.round_trip();
    let requests = || site.registry.requests().iter().filter(|one| one.path.starts_with("/token")).count();
    let before = requests();
    site.succeeds("unpack HOST/a:v1 again");
    assert_eq!(requests() - before, 1);
}

#[test]
fn an_identity_token_is_exchanged_for_such_a_token() {
    let site = Site::new(|behaviour| {
        (behaviour.login, behaviour.tokens, behaviour.identity) = (TOKENS, Tokens::Azure, Some("identity"));
    });
    let entry = r#"{"username":"00000000-0000-0000-0000-000000000000","identitytoken":"identity"}"#;
    for arguments in ["pack HOST/a:v1 tree", "unpack HOST/a:v1 out"] {
        let screen = site.screen_with(arguments, entry);
        assert!(screen.ends_with("-- exit 0\n"), "{screen}");
    }
    assert!(!site.registry.exchanges().is_empty());
}

#[test]
fn images_are_deleted_by_digest_only() {
    let site = Site::new(|behaviour| {
        (behaviour.login, behaviour.tokens) = (TOKENS, Tokens::Azure);
        behaviour.deletes = Deletes::Images(405);
    });
    for (tag, compression) in [("v1", "zstd"), ("v2", "gzip")] {
        site.succeeds(&format!("pack --compression {compression} HOST/a:{tag} tree"));
    }
    site.succeeds("prune --keep-tag v2 HOST/a");
    assert_eq!(site.registry.stored_tags("a"), ["v2"]);
}
