//! Images that volio signed, where the policy of skopeo and podman requires a signature.

use super::debian13::Debian13;
use super::{OTHER, SIGNER, by_digest, manifests, pack, public, sign, signed_as, signed_by};
use crate::engines::fixture::Directory;
use crate::engines::program::volio;
use crate::engines::services::repository;
use serde_json::json;

/// The messages of skopeo and podman.
const MISSING: &str = "A signature was required, but no signature exists";
const OTHER_KEY: &str = "cryptographic signature verification failed";
const OTHER_NAME: &str = "is not accepted";

#[test]
#[ignore = "needs docker-registry, Debian 13 and root: run tests/run"]
fn an_image_is_accepted_by_tag_by_digest_and_for_each_platform_and_no_other_key_is() {
    let programs = Debian13::new();
    let (key, other) = (programs.key(&public(SIGNER)), programs.key(&public(OTHER)));
    let image = repository("signed-policy:v1");
    let digest = pack(&image, "signed", &[]);
    programs.refuse(&signed_by(&key), &image, "amd64", MISSING);
    sign(&image, SIGNER);
    for name in [&image, &by_digest(&image, &digest)] {
        for architecture in ["amd64", "arm64"] {
            programs.accept(&signed_by(&key), name, architecture);
            programs.refuse(&signed_by(&other), name, architecture, OTHER_KEY);
        }
    }
    for (manifest, architecture) in manifests(&image).iter().zip(["amd64", "arm64"]) {
        programs.accept(&signed_by(&key), &by_digest(&image, manifest), architecture);
    }
    programs.require(&signed_by(&key));
    programs.fetch_all(&image).succeeded();
    let reject = json!({ "type": "reject" });
    programs.refuse(&reject, &image, "amd64", "is rejected by policy");
}

#[test]
#[ignore = "needs docker-registry, Debian 13 and root: run tests/run"]
fn layers_of_zstd_are_accepted_too() {
    let programs = Debian13::new();
    let key = programs.key(&public(SIGNER));
    let image = repository("signed-zstd:v1");
    let source = Directory::filled_portable();
    volio(&["pack", "--compression", "zstd", &image, source.text()]).succeeded();
    sign(&image, SIGNER);
    programs.accept(&signed_by(&key), &image, "arm64");
    // The index says that there is zstd, so skopeo does not have to change it.
    programs.require(&signed_by(&key));
    programs.fetch_all(&image).succeeded();
}

#[test]
#[ignore = "needs docker-registry, Debian 13 and root: run tests/run"]
fn an_image_is_accepted_for_the_names_that_were_signed_only() {
    let programs = Debian13::new();
    let key = programs.key(&public(SIGNER));
    let repository = repository("signed-names");
    let tag = |tag: &str| format!("{repository}:{tag}");
    let digest = pack(&tag("v1"), "names", &[]);
    sign(&tag("v1"), SIGNER);
    volio(&["copy", &tag("v1"), &tag("v2")]).succeeded();
    programs.refuse(&signed_by(&key), &tag("v2"), "amd64", OTHER_NAME);
    // By digest the tag of the signature does not matter.
    programs.accept(&signed_by(&key), &by_digest(&tag("v2"), &digest), "amd64");
    programs.accept(&signed_as(&key, json!({ "type": "matchRepository" })), &tag("v2"), "amd64");
    programs.refuse(&signed_as(&key, json!({ "type": "matchExact" })), &tag("v2"), "amd64", OTHER_NAME);

    sign(&tag("v2"), SIGNER);
    for name in ["v1", "v2"] {
        programs.accept(&signed_by(&key), &tag(name), "amd64");
        programs.accept(&signed_as(&key, json!({ "type": "matchExact" })), &tag(name), "arm64");
    }
}

#[test]
#[ignore = "needs docker-registry, Debian 13 and root: run tests/run"]
fn signatures_of_two_keys_are_beside_each_other() {
    let programs = Debian13::new();
    let (key, other) = (programs.key(&public(SIGNER)), programs.key(&public(OTHER)));
    let image = repository("signed-twice:v1");
    pack(&image, "two keys", &[]);
    for signer in [SIGNER, OTHER, SIGNER] {
        sign(&image, signer);
    }
    let shown = volio(&["sign", &image, "--key", OTHER]).failed_with(0);
    assert!(shown.contains("0 signatures added"), "{shown}");
    for signer in [&key, &other] {
        programs.accept(&signed_by(signer), &image, "amd64");
    }
}

#[test]
#[ignore = "needs docker-registry, Debian 13 and root: run tests/run"]
fn another_image_under_the_tag_is_refused() {
    let programs = Debian13::new();
    let key = programs.key(&public(SIGNER));
    let image = repository("signed-changed:v1");
    let digest = pack(&image, "before", &[]);
    sign(&image, SIGNER);
    programs.accept(&signed_by(&key), &image, "amd64");
    pack(&image, "after", &[]);
    programs.refuse(&signed_by(&key), &image, "amd64", MISSING);
    programs.accept(&signed_by(&key), &by_digest(&image, &digest), "amd64");
    // The same file on one platform only: the documents are others.
    pack(&image, "before", &["--platform", "linux/amd64", "--label", "a=b"]);
    programs.refuse(&signed_by(&key), &image, "amd64", MISSING);
}

#[test]
#[ignore = "needs docker-registry, Debian 13 and root: run tests/run"]
fn a_platform_whose_manifest_is_not_signed_is_refused() {
    let programs = Debian13::new();
    let key = programs.key(&public(SIGNER));
    let image = repository("signed-platform:v1");
    pack(&image, "platforms", &[]);
    sign(&image, SIGNER);
    let signatures = manifests(&image)[1].replace(':', "-");
    volio(&["rm", &format!("{}:{signatures}.sig", repository("signed-platform"))]).succeeded();
    programs.refuse(&signed_by(&key), &image, "arm64", MISSING);
    programs.accept(&signed_by(&key), &image, "amd64");
    programs.require(&signed_by(&key));
    let shown = programs.fetch_all(&image).failed_with(1);
    assert!(shown.contains(MISSING), "{shown}");
}

#[test]
#[ignore = "needs docker-registry, Debian 13 and root: run tests/run"]
fn an_image_in_the_format_of_docker_is_accepted() {
    let programs = Debian13::new();
    let (key, other) = (programs.key(&public(SIGNER)), programs.key(&public(OTHER)));
    let (from, image) = (repository("signed-oci:v1"), repository("signed-docker:v1"));
    pack(&from, "docker", &[]);
    programs.copy(&["--all", "--format=v2s2"], &from, &image).succeeded();
    let name = format!("docker://{image}");
    let raw = programs.skopeo(&["inspect", "--raw", "--tls-verify=false", &name]).succeeded();
    assert!(raw.contains("application/vnd.docker.distribution.manifest.list.v2+json"), "{raw}");
    sign(&image, SIGNER);
    for architecture in ["amd64", "arm64"] {
        programs.accept(&signed_by(&key), &image, architecture);
        programs.refuse(&signed_by(&other), &image, architecture, OTHER_KEY);
    }
    programs.require(&signed_by(&key));
    programs.fetch_all(&image).succeeded();
}

#[test]
#[ignore = "needs docker-registry, Debian 13 and root: run tests/run"]
fn an_image_that_pack_signs_is_accepted() {
    let programs = Debian13::new();
    let (key, other) = (programs.key(&public(SIGNER)), programs.key(&public(OTHER)));
    let image = repository("signed-pack:v1");
    let digest = pack(&image, "packed and signed", &["--sign-key", SIGNER]);
    for name in [&image, &by_digest(&image, &digest)] {
        for architecture in ["amd64", "arm64"] {
            programs.accept(&signed_by(&key), name, architecture);
            programs.refuse(&signed_by(&other), name, architecture, OTHER_KEY);
        }
    }
    programs.require(&signed_by(&key));
    programs.fetch_all(&image).succeeded();
}
