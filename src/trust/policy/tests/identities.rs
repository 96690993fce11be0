//! The names that signatures may claim.

use super::super::{Identity, ImageName};
use crate::transport::Location;

const D: &str = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const E: &str = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The kinds without a parameter that accept a signature.
const ALL: &str = "exact, digest, repository";
const DIGEST: &str = "digest, repository";
const REPOSITORY: &str = "repository";
const NONE: &str = "";

/// The name of an image, the name that its signature claims, and the kinds that accept it. D and E stand for digests.
const CASES: &[(&str, &str, &str)] = &[
    ("alpine:1", "alpine:1", ALL),
    ("h.io:5000/team/data:7.2-a", "h.io:5000/team/data:7.2-a", ALL),
    ("alpine@D", "alpine@D", ALL),
    // Names are completed.
    ("library/alpine:1", "alpine:1", ALL),
    ("alpine:1", "docker.io/library/alpine:1", ALL),
    ("index.docker.io/alpine:1", "docker.io/alpine:1", ALL),
    ("library/alpine@D", "alpine@D", ALL),
    // Another tag, another digest.
    ("alpine:1", "alpine:2", REPOSITORY),
    ("h.io/data:1", "h.io/data:1.0", REPOSITORY),
    ("alpine:1", "alpine@D", REPOSITORY),
    ("alpine@D", "alpine:1", DIGEST),
    ("alpine@D", "alpine@E", DIGEST),
    // Another repository, another registry.
    ("alpine:1", "alpines:1", NONE),
    ("alpine:1", "h.io/library/alpine:1", NONE),
    ("h.io/data:1", "h.io:443/data:1", NONE),
    ("h.io/data:1", "h.io/team/data:1", NONE),
    ("h.io/data@D", "h.io/other@D", NONE),
    // Neither a tag nor a digest: cosign signs so. No default tag is added.
    ("alpine:latest", "alpine", REPOSITORY),
    ("alpine@D", "alpine", REPOSITORY),
    ("alpine", "alpine:latest", REPOSITORY),
    ("alpine", "alpine@D", REPOSITORY),
    ("alpine", "alpine", REPOSITORY),
    ("h.io/data", "h.io/other", NONE),
    // Both.
    ("alpine:1@D", "alpine:1@D", ALL),
    ("alpine:1@D", "alpine:1@E", REPOSITORY),
    ("alpine:1@D", "alpine:2@D", REPOSITORY),
    ("alpine:1@D", "alpine:1", REPOSITORY),
    ("alpine:1@D", "alpine@D", REPOSITORY),
    ("alpine:1", "alpine:1@D", REPOSITORY),
    ("alpine@D", "alpine:1@D", DIGEST),
    ("alpine@D", "alpine:1@E", DIGEST),
];

/// Names that no signature may claim.
const INVALID: &[&str] = &[
    "",
    ":",
    "ALPINE:1",
    "h.io/Data:1",
    "alpine:",
    "alpine:1 ",
    "alpine:1\n",
    "\u{0}",
    "https://h.io/data:1",
    "docker://h.io/data:1",
    "h.io/data@sha256:12",
    "h.io/data@",
    "h.io//data:1",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "registry-1.docker.io/library/alpine:1",
];

fn name(text: &str) -> ImageName {
    ImageName::parse(&text.replace("@D", D).replace("@E", E)).unwrap()
}

fn location(text: &str) -> Location {
    text.replace("@D", D).parse().unwrap()
}

#[test]
fn each_kind_of_identity_accepts_the_names_that_it_is_for() {
    let kinds = [
        (Identity::Exact, "exact"),
        (Identity::RepositoryOfDigestOrExact, "digest"),
        (Identity::Repository, "repository"),
    ];
    for (image, claimed, accepting) in CASES {
        for (identity, kind) in &kinds {
            let accepted = identity.accepts_name(Some(name(image)), &name(claimed));
            assert_eq!(accepted, accepting.contains(kind), "{kind}: {image} signed as {claimed}");
        }
        // These kinds take a name from the policy, and do not look at that of the image.
        let other = Some(name("h.io/unrelated:1"));
        for (expected, claimed) in [(image, claimed), (claimed, image)] {
            let (expected, claimed) = (name(expected), name(claimed));
            let reference = Identity::ExactReference(expected.clone());
            assert_eq!(
                reference.accepts_name(other.clone(), &claimed),
                *accepting == ALL,
                "{image}, {claimed}"
            );
            let repository = Identity::ExactRepository(expected);
            assert_eq!(repository.accepts_name(None, &claimed), *accepting != NONE, "{image}, {claimed}");
        }
    }
}

#[test]
fn an_identity_is_compared_after_a_prefix_was_replaced() {
    // The prefix and its replacement, the image, and the name that is accepted in its signature; none if there is none.
    for (prefix, signed, image, accepted) in [
        ("mirror.io", "vendor.io", "mirror.io/team/data:1", "vendor.io/team/data:1"),
        ("mirror.io", "vendor.io", "mirror.io/data@D", "vendor.io/data:1"),
        ("mirror.io", "vendor.io/team", "mirror.io/data:1", "vendor.io/team/data:1"),
        ("mirror.io/a", "mirror.io/b", "mirror.io/a/data:1", "mirror.io/b/data:1"),
        ("mirror.io/a/data", "vendor.io/b", "mirror.io/a/data:1", "vendor.io/b:1"),
        ("mirror.io:5000", "vendor.io", "mirror.io:5000/data:1", "vendor.io/data:1"),
        ("mirror.io", "docker.io/library", "mirror.io/alpine:1", "alpine:1"),
        ("docker.io/library", "h.io/copies", "alpine:1", "h.io/copies/alpine:1"),
        ("docker.io", "h.io/copies", "alpine:1", "h.io/copies/library/alpine:1"),
        ("mirror.io", "vendor.io", "mirror.io/mirror.io/data:1", "vendor.io/mirror.io/data:1"),
        // Outside of the prefix the name stays.
        ("mirror.io", "vendor.io", "other.io/data:1", "other.io/data:1"),
        ("mirror.io", "vendor.io", "mirror.io:5000/data:1", "mirror.io:5000/data:1"),
        ("mirror.io:5000", "vendor.io", "mirror.io:50000/data:1", "mirror.io:50000/data:1"),
        ("mirror.io", "vendor.io", "mirror.io.example/data:1", "mirror.io.example/data:1"),
        ("mirror.io/a", "vendor.io", "mirror.io/ab/data:1", "mirror.io/ab/data:1"),
        ("mirror.io/a", "vendor.io", "mirror.io/b/a/data:1", "mirror.io/b/a/data:1"),
        ("alpine", "h.io/alpine", "alpine:1", "alpine:1"),
        // The result is not a complete name.
        ("mirror.io/a/data", "vendor.io:5000", "mirror.io/a/data:1", ""),
        ("mirror.io/a/data", "vendor", "mirror.io/a/data:1", ""),
        ("mirror.io/a", "vendor", "mirror.io/a/data:1", ""),
        ("mirror.io", "docker.io", "mirror.io/alpine:1", ""),
    ] {
        let identity = Identity::Remap { prefix: prefix.to_owned(), signed_prefix: signed.to_owned() };
        let names =
            ["vendor.io/data:1", "vendor:1", "docker.io/vendor:1", "alpine:1", "mirror.io/data:2", accepted];
        for claimed in names.into_iter().filter(|claimed| !claimed.is_empty()) {
            let is_accepted = identity.accepts_name(Some(name(image)), &name(claimed));
            let same = !accepted.is_empty() && name(accepted).to_string() == name(claimed).to_string();
            assert_eq!(is_accepted, same, "{prefix} to {signed}: {image} signed as {claimed}");
        }
    }
    // Without a replacement it is as without a prefix.
    let identity = Identity::Remap { prefix: "mirror.io".to_owned(), signed_prefix: "vendor.io".to_owned() };
    for (image, claimed, accepting) in CASES {
        let accepted = identity.accepts_name(Some(name(image)), &name(claimed));
        assert_eq!(accepted, accepting.contains("digest"), "{image} signed as {claimed}");
    }
}

#[test]
fn the_name_of_an_image_is_that_of_its_location() {
    for (image, claimed, accepted) in [
        ("h.io/data", "h.io/data:latest", true),
        ("h.io/data", "h.io/data", false),
        ("docker://h.io/data:1", "h.io/data:1", true),
        ("alpine:1", "alpine:1", true),
        ("docker-archive:a.tar:h.io/data:1", "h.io/data:1", true),
        ("docker-archive:a.tar:alpine", "alpine:latest", true),
        ("docker-archive:a.tar:h.io/data:1", "h.io/data:2", false),
        // With a digest the tag has no part in what is read.
        ("h.io/data:1@D", "h.io/data:2", true),
        ("h.io/data:1@D", "h.io/other:1", false),
        // No names of a registry.
        ("docker-archive:a.tar", "h.io/data:1", false),
        ("oci:h.io/data:1", "h.io/data:1", false),
        ("oci:layout:h.io/data:1", "h.io/data:1", false),
        ("oci-archive:a.tar:h.io/data:1", "h.io/data:1", false),
    ] {
        let identity = Identity::RepositoryOfDigestOrExact;
        assert_eq!(
            identity.accepts(&location(image), Some(claimed)),
            accepted,
            "{image} signed as {claimed}"
        );
    }
    let unnamed = location("oci:layout:v1");
    for identity in [
        Identity::Exact,
        Identity::Repository,
        Identity::Remap { prefix: "h.io".to_owned(), signed_prefix: "h.io".to_owned() },
    ] {
        assert!(!identity.accepts(&unnamed, Some("h.io/data:1")), "{identity}");
    }
    assert!(Identity::ExactReference(name("h.io/data:1")).accepts(&unnamed, Some("h.io/data:1")));
    assert!(Identity::ExactRepository(name("h.io/data")).accepts(&unnamed, Some("h.io/data:2")));
}

#[test]
fn a_signature_that_claims_no_valid_name_is_not_accepted() {
    let image = location("alpine:1");
    for claimed in INVALID {
        for identity in [
            Identity::Exact,
            Identity::RepositoryOfDigestOrExact,
            Identity::Repository,
            Identity::ExactReference(name("alpine:1")),
            Identity::ExactRepository(name("alpine")),
        ] {
            assert!(!identity.accepts(&image, Some(claimed)), "{identity}: {claimed:?}");
        }
        assert!(Identity::Any.accepts(&image, Some(claimed)));
    }
    // A bundle claims none.
    assert!(Identity::Any.accepts(&image, None));
    assert!(!Identity::ExactRepository(name("alpine")).accepts(&image, None));
}
