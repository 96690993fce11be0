//! The requirements that are chosen for an image.

use super::super::{Identity, Requirement, SignaturePolicy, scope};
use super::{OTHER, SIGNER, key, parse};
use crate::transport::Location;
use serde_json::{Map, Value, json};
use std::fs;
use std::os::unix::fs::symlink;

fn image(text: &str) -> Location {
    text.parse().unwrap()
}

/// A policy for one transport whose scopes can be told apart: each accepts the repository `SCOPE'S NUMBER.io/x`.
fn numbered(transport: &str, scopes: &[&str]) -> SignaturePolicy {
    let requirement = |number: usize| {
        let identity = json!({"type": "exactRepository", "dockerRepository": format!("{number}.io/x")});
        json!([{"type": "sigstoreSigned", "keyPath": "/signer.pub", "signedIdentity": identity}])
    };
    let scopes = scopes.iter().enumerate().map(|(number, scope)| ((*scope).to_owned(), requirement(number)));
    let scopes = Value::Object(scopes.collect::<Map<_, _>>());
    parse(&json!({"default": [{"type": "reject"}], "transports": {transport: scopes}}).to_string()).unwrap()
}

/// Returns the number of the scope that is chosen, or `None` for the default of the policy.
fn chosen(policy: &SignaturePolicy, location: &Location, scopes: usize) -> Option<usize> {
    let [requirement] = policy.requirements_for(location).unwrap() else { panic!("one requirement") };
    match requirement {
        Requirement::Signed { identity, .. } => {
            (0..scopes).find(|number| identity.accepts(location, Some(&format!("{number}.io/x:1"))))
        }
        _ => None,
    }
}

#[test]
fn the_scopes_of_an_image_in_a_registry_go_from_its_name_to_the_domains_of_its_host() {
    let digest = format!("@sha256:{}", "a".repeat(64));
    let at_digest = format!("h.io/data{digest}");
    let tag_and_digest = format!("h.io/data:1{digest}");
    for (name, scopes) in [
        (
            "a.b.example:8443/team/data:1",
            vec![
                "a.b.example:8443/team/data:1",
                "a.b.example:8443/team/data",
                "a.b.example:8443/team",
                "a.b.example:8443",
                "*.b.example",
                "*.example",
            ],
        ),
        ("localhost/data", vec!["localhost/data:latest", "localhost/data", "localhost"]),
        ("localhost:5000/data:1", vec!["localhost:5000/data:1", "localhost:5000/data", "localhost:5000"]),
        (
            "alpine",
            vec![
                "docker.io/library/alpine:latest",
                "docker.io/library/alpine",
                "docker.io/library",
                "docker.io",
                "*.io",
            ],
        ),
        (&at_digest, vec![&*at_digest, "h.io/data", "h.io", "*.io"]),
        (&tag_and_digest, vec![&*at_digest, "h.io/data", "h.io", "*.io"]),
    ] {
        let location = image(name);
        let mut found = scope::scopes(&location).unwrap();
        assert_eq!(found.pop().as_deref(), Some(""));
        assert_eq!(found, scopes);
        // The first scope that the policy has counts.
        let mut left: Vec<&str> = scopes.clone();
        left.push("");
        while !left.is_empty() {
            let policy = numbered("docker", &left);
            assert_eq!(chosen(&policy, &location, left.len()), Some(0), "{name}: {left:?}");
            left.remove(0);
        }
        assert_eq!(chosen(&numbered("oci", &[""]), &location, 1), None, "of another transport");
        assert_eq!(chosen(&numbered("docker", &[]), &location, 0), None);
    }
}

#[test]
fn a_scope_matches_whole_components_only() {
    let scopes =
        ["h.io/te", "h.io/team/data2", "h.io/team/data:12", "h.io:5000", "*.h.io", "*.o", "sub.h.io"];
    let policy = numbered("docker", &scopes);
    assert_eq!(chosen(&policy, &image("h.io/team/data:1"), scopes.len()), None);
}

#[test]
fn the_scopes_of_a_layout_are_its_real_path_and_the_directories_above() {
    let directory = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(directory.path()).unwrap();
    let (layout, link) = (root.join("a/layout"), root.join("link"));
    fs::create_dir_all(&layout).unwrap();
    symlink(&layout, &link).unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();

    let mut expected: Vec<_> = layout.ancestors().map(text).collect();
    assert_eq!(expected.pop().as_deref(), Some("/"), "which is not a scope");
    expected.push(String::new());
    for transport in ["oci", "oci-archive"] {
        for path in [&layout, &link, &root.join("a/../a/./layout")] {
            let location = image(&format!("{transport}:{}:v1", path.display()));
            assert_eq!(scope::scopes(&location).unwrap(), expected);
            let scopes: Vec<_> = expected.iter().map(String::as_str).collect();
            assert_eq!(chosen(&numbered(transport, &scopes), &location, scopes.len()), Some(0));
            // A link is not a scope.
            assert_eq!(chosen(&numbered(transport, &[&text(&link)]), &location, 1), None);
            assert_eq!(chosen(&numbered(transport, &[&text(&root)]), &location, 1), Some(0));
        }
        let missing = image(&format!("{transport}:{}:v1", root.join("missing").display()));
        let error = numbered(transport, &[""]).requirements_for(&missing).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::NotFound);
    }
}

#[test]
fn an_archive_for_docker_has_the_scope_of_its_transport_only() {
    for text in ["docker-archive:a.tar", "docker-archive:a.tar:h.io/data:1"] {
        assert_eq!(chosen(&numbered("docker-archive", &[""]), &image(text), 1), Some(0));
        assert_eq!(chosen(&numbered("docker", &["h.io", ""]), &image(text), 2), None);
    }
}

#[test]
fn all_requirements_of_a_scope_are_returned() {
    let policy = parse(
        r#"{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {"h.io": [
            {"type": "sigstoreSigned", "keyPaths": ["/signer.pub", "/other.pub"]},
            {"type": "insecureAcceptAnything"},
            {"type": "reject"},
            {"type": "sigstoreSigned", "keyPath": "/other.pub", "signedIdentity": {"type": "matchRepository"}}
        ]}}}"#,
    )
    .unwrap();
    let (signer, other) = (key(SIGNER), key(OTHER));
    let expected = [
        Requirement::Signed {
            keys: vec![signer, other.clone()],
            identity: Identity::RepositoryOfDigestOrExact,
        },
        Requirement::AcceptAnything,
        Requirement::Reject,
        Requirement::Signed { keys: vec![other], identity: Identity::Repository },
    ];
    assert_eq!(policy.requirements_for(&image("h.io/data")).unwrap(), expected);
    assert_eq!(policy.requirements_for(&image("i.io/data")).unwrap(), [Requirement::AcceptAnything]);
}

#[test]
fn a_policy_of_keys_is_the_same_for_every_image() {
    let keys = vec![key(SIGNER), key(OTHER)];
    let policy = SignaturePolicy::from_keys(keys.clone());
    let expected = [Requirement::Signed { keys: keys.clone(), identity: Identity::Any }];
    for text in ["h.io/data", "oci:missing:v1", "docker-archive:a.tar"] {
        assert_eq!(policy.requirements_for(&image(text)).unwrap(), expected);
    }
}
