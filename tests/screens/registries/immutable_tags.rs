//! Tags that a registry does not let be changed.

use super::{Site, assert_screen, str};
use std::fs;

/// The answers of Amazon ECR and Harbor, and answers with other statuses.
const ECR: (u16, &str, &str) = (
    400,
    "TAG_INVALID",
    "The image tag 'v1' already exists in the 'a' repository and cannot be overwritten because the tag is immutable.",
);
const HARBOR: (u16, &str, &str) =
    (412, "PRECONDITION", "Failed to process request due to 'a:v1' configured as immutable.");
const OTHERS: [(u16, &str, &str); 2] =
    [(403, "DENIED", "tag immutability is enabled"), (409, "CONFLICT", "the tag is immutable")];

/// Returns a site with an image `a:v1` and other data in the tree.
fn with_other_data(answer: (u16, &'static str, &'static str)) -> Site {
    let site = Site::new(|behaviour| behaviour.immutable_tags = Some(answer));
    site.succeeds("pack HOST/a:v1 tree");
    fs::write(site.place.path().join("tree/hello"), "other\n").unwrap();
    site
}

#[test]
fn the_same_image_again_is_not_a_change() {
    for answer in [ECR, HARBOR] {
        let site = Site::new(|behaviour| behaviour.immutable_tags = Some(answer));
        site.succeeds("pack HOST/a:v1 tree");
        site.succeeds("pack HOST/a:v1 tree");
        site.succeeds("copy HOST/a:v1 HOST/a:v1");
    }
}

#[test]
fn a_tag_of_amazon_keeps_its_image_and_the_message_is_shown() {
    let site = with_other_data(ECR);
    assert_screen(
        site.screen("pack --quiet HOST/a:v1 tree"),
        str![[r#"
-- stderr
error: cannot store the manifest v1 in HOST/a: HOST answers 400 Bad Request: TAG_INVALID: The image tag 'v1' already exists in the 'a' repository and cannot be overwritten because the tag is immutable.
hint: the tag exists already, and HOST does not let it be changed or removed: use another tag, or change the rule of the repository
-- exit 6

"#]],
    );
    assert!(site.succeeds("cat HOST/a:v1 /hello").starts_with("hello\n"));
    site.succeeds("pack HOST/a:v2 tree");
}

#[test]
fn a_tag_of_harbor_is_neither_replaced_nor_removed() {
    let site = with_other_data(HARBOR);
    site.succeeds("pack HOST/a:v2 tree");
    for arguments in ["push oci:layout:v1 HOST/a:v2", "rm HOST/a:v1", "prune --keep-tag v2 HOST/a"] {
        let screen = site.screen(arguments);
        assert!(screen.contains("configured as immutable"), "{screen}");
        assert!(screen.ends_with("-- exit 6\n"), "{arguments}\n{screen}");
    }
    assert_eq!(site.registry.stored_tags("a"), ["v1", "v2"]);
    assert!(site.succeeds("cat HOST/a:v1 /hello").starts_with("hello\n"));
}

#[test]
fn the_words_count_and_not_the_status() {
    for answer in OTHERS {
        let site = with_other_data(answer);
        let screen = site.screen("pack --quiet HOST/a:v1 tree");
        assert!(screen.contains(answer.2) && screen.ends_with("-- exit 6\n"), "{screen}");
    }
    // The same status without the words is a denial.
    let site = with_other_data((403, "DENIED", "requested access to the resource is denied"));
    let screen = site.screen("pack --quiet HOST/a:v1 tree");
    assert!(screen.ends_with("-- exit 5\n"), "{screen}");
}

#[test]
fn the_rule_must_leave_out_the_tags_of_signatures() {
    let site = Site::new(|behaviour| behaviour.immutable_tags = Some(ECR));
    site.succeeds("pack HOST/a:v1 tree");
    site.succeeds("sign --key signer.pem HOST/a:v1");
    // The digests are those of trees with the time of the test.
    let screen = site.screen("sign --key other.pem HOST/a:v1");
    let (first, digest) = screen.split_once("sha256-").unwrap();
    assert_screen(
        format!("{first}sha256-[DIGEST]{}", &digest[64..]),
        str![[r#"
-- stderr
error: destination: cannot store the manifest sha256-[DIGEST].sig in HOST/a: HOST answers 400 Bad Request: TAG_INVALID: The image tag 'v1' already exists in the 'a' repository and cannot be overwritten because the tag is immutable.
hint: signatures and lists of them have tags that begin with sha256-, and change: the rule of HOST must leave these tags out
-- exit 6

"#]],
    );
}
