//! Signatures that are carried from one registry to another in a layout.

use super::bundle::bundles;
use super::debian13::Debian13;
use super::{OTHER, SIGNER, by_digest, manifests, pack, public, sign, signed_as, signed_by};
use crate::engines::fixture::Directory;
use crate::engines::program::volio;
use crate::engines::services::{repository, second_repository};
use serde_json::json;

#[test]
#[ignore = "needs docker-registry, Debian 13 and root: run tests/run"]
fn signatures_are_valid_in_another_registry_after_a_layout() {
    let programs = Debian13::new();
    let key = programs.key(&public(SIGNER));
    let (outside, inside) = (repository("gap/signed:v1"), second_repository("inner/signed:v1"));
    let digest = pack(&outside, "carried", &[]);
    sign(&outside, SIGNER);
    let work = Directory::empty();
    let stick = format!("oci:{}", work.join("stick:v1"));
    assert_eq!(volio(&["copy", "--referrers", &outside, &stick]).digest(), digest);
    assert_eq!(volio(&["copy", "--referrers", &stick, &inside]).digest(), digest);

    for place in [&stick, &inside] {
        assert_eq!(volio(&["verify", place, "--key", &key]).digest(), digest);
        volio(&["verify", place, "--key", &public(OTHER)]).failed_with(3);
    }

    // The signature names the registry outside, and each of these rules says so.
    let (host, _) = inside.split_once('/').expect("a host");
    let (original_host, _) = outside.split_once('/').expect("a host");
    let original = repository("gap/signed");
    for identity in [
        json!({ "type": "exactRepository", "dockerRepository": original }),
        json!({ "type": "exactReference", "dockerReference": outside }),
        json!({
            "type": "remapIdentity",
            "prefix": format!("{host}/inner"),
            "signedPrefix": format!("{original_host}/gap"),
        }),
    ] {
        for architecture in ["amd64", "arm64"] {
            programs.accept(&signed_as(&key, identity.clone()), &inside, architecture);
        }
        let policy = programs.require(&signed_as(&key, identity));
        assert_eq!(volio(&["verify", &inside, "--policy", &policy]).digest(), digest);
    }
    programs.refuse(&signed_by(&key), &inside, "amd64", "is not accepted");
    let policy = programs.require(&signed_by(&key));
    let shown = volio(&["verify", &inside, "--policy", &policy]).failed_with(3);
    assert!(shown.contains(&outside), "{shown}");

    for document in manifests(&inside).iter().chain([&digest]) {
        assert_eq!(bundles(&by_digest(&inside, document)).len(), 1, "{document}");
    }
    // A signature for the name inside is added to those that came with the image.
    let name = ["--sign-identity", &inside];
    volio(&[&["sign", &stick, "--key", SIGNER], &name[..]].concat()).succeeded();
    assert_eq!(volio(&["copy", "--referrers", &stick, &inside]).digest(), digest);
    programs.accept(&signed_by(&key), &inside, "arm64");
    // What is signed inside stays when the image comes again.
    sign(&inside, OTHER);
    assert_eq!(volio(&["copy", "--referrers", &stick, &inside]).digest(), digest);
    for signer in [&key, &programs.key(&public(OTHER))] {
        programs.accept(&signed_by(signer), &inside, "arm64");
    }
    let exactly = json!({ "type": "exactReference", "dockerReference": outside });
    programs.accept(&signed_as(&key, exactly), &inside, "arm64");
}

#[test]
#[ignore = "needs docker-registry, Debian 13 and root: run tests/run"]
fn signatures_are_added_to_those_that_were_made_inside_before() {
    let programs = Debian13::new();
    let (outside, inside) = (repository("merged:v1"), second_repository("merged:v1"));
    let digest = pack(&outside, "merged", &[]);
    let names = ["--sign-identity", &inside];
    volio(&[&["sign", &outside, "--key", SIGNER], &names[..]].concat()).succeeded();
    assert_eq!(volio(&["copy", &outside, &inside]).digest(), digest);
    sign(&inside, OTHER);
    assert_eq!(volio(&["copy", "--referrers", &outside, &inside]).digest(), digest);
    for signer in [SIGNER, OTHER] {
        let key = programs.key(&public(signer));
        for architecture in ["amd64", "arm64"] {
            programs.accept(&signed_by(&key), &inside, architecture);
        }
        assert_eq!(volio(&["verify", &inside, "--key", &key]).digest(), digest);
    }
}
