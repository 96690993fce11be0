//! Policies that are refused, and the places that the errors name.

use super::super::SignaturePolicy;
use super::{OTHER, SIGNER, base64, parse};
use crate::error::Kind;
use crate::trust::PublicKey;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs;

/// A policy that has every member that volio knows, but for two sources of keys.
fn complete() -> Value {
    let identities = [
        json!({"type": "matchExact"}),
        json!({"type": "matchRepoDigestOrExact"}),
        json!({"type": "matchRepository"}),
        json!({"type": "exactReference", "dockerReference": "h.io/data:1"}),
        json!({"type": "exactRepository", "dockerRepository": "h.io/data"}),
        json!({"type": "remapIdentity", "prefix": "h.io:5000/team", "signedPrefix": "vendor.io"}),
    ];
    let signed = identities.map(
        |identity| json!({"type": "sigstoreSigned", "keyPath": "/signer.pub", "signedIdentity": identity}),
    );
    json!({
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {"": [{"type": "insecureAcceptAnything"}], "h.io/team": signed},
            "oci": {"/srv/images": [
                {"type": "sigstoreSigned", "keyPaths": ["/signer.pub", "/other.pub"]},
                {"type": "sigstoreSigned", "keyData": base64(SIGNER)},
                {"type": "sigstoreSigned", "keyDatas": [base64(SIGNER), base64(OTHER)]}
            ]},
            "docker-archive": {"": [{"type": "reject"}]},
            "containers-storage": {"[overlay@/var/lib]h.io/x": [{"type": "reject"}]},
            "dir": {}
        }
    })
}

/// Returns a policy with this requirement for h.io.
fn with(requirement: &str) -> String {
    format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"h.io":[{requirement}]}}}}}}"#)
}

/// Returns a policy with this identity.
fn with_identity(identity: &str) -> String {
    with(&format!(r#"{{"type":"sigstoreSigned","keyPath":"/signer.pub","signedIdentity":{identity}}}"#))
}

/// Parses a policy that is invalid. Returns the message and the hint.
fn refused(json: &str) -> String {
    let error = match parse(json) {
        Ok(_) => panic!("accepted: {json}"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), Kind::Usage, "{json}: {error}");
    format!("{error}; {}", error.hint().unwrap_or_default())
}

/// Collects the places (RFC 6901) of the objects that have a fixed set of members. The others have names of transports and
/// scopes.
fn fixed_objects(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            if members.contains_key("type") || members.contains_key("default") {
                found.push(place.to_owned());
            }
            for (name, value) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                fixed_objects(value, &format!("{place}/{name}"), found);
            }
        }
        Value::Array(elements) => {
            for (number, value) in elements.iter().enumerate() {
                fixed_objects(value, &format!("{place}/{number}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn a_policy_with_every_member_is_accepted() {
    parse(&complete().to_string()).unwrap();
    parse(&format!(" \n{:#}\t\n", complete())).unwrap();
    parse(r#"{"default":[{"type":"reject"}]}"#).unwrap();
    parse(r#"{"transports":{},"default":[{"type":"reject"}]}"#).unwrap();
}

#[test]
fn each_requirement_that_volio_does_not_evaluate_is_named_with_its_place() {
    let place = r#"transports.docker["h.io"][0]"#;
    let signed =
        |member: &str| with(&format!(r#"{{"type":"sigstoreSigned",{member},"keyPath":"/signer.pub"}}"#));
    for (policy, named) in [
        (with(r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/a"}"#), "signedBy"),
        (with(r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#), "signedBaseLayer"),
        (with(r#"{"type":"notationSigned"}"#), "\"notationSigned\""),
        (with(r#"{"type":"Reject"}"#), "\"Reject\""),
        (with(r#"{"type":""}"#), "\"\""),
        (with_identity(r#"{"type":"matchAnything"}"#), "\"matchAnything\""),
        (signed(r#""fulcio":{"caPath":"/ca","oidcIssuer":"https://i","subjectEmail":"a@b"}"#), "fulcio"),
        (signed(r#""pki":{"caRootsPath":"/ca","subjectEmail":"a@b"}"#), "pki"),
        (signed(r#""rekorPublicKeyPath":"/rekor.pub""#), "rekorPublicKeyPath"),
        (signed(r#""rekorPublicKeyPaths":["/rekor.pub"]"#), "rekorPublicKeyPaths"),
        (signed(r#""rekorPublicKeyData":"eA==""#), "rekorPublicKeyData"),
        (signed(r#""rekorPublicKeyDatas":["eA=="]"#), "rekorPublicKeyDatas"),
        (signed(r#""keyType":"GPGKeys""#), "keyType"),
        (signed(r#""KeyPath":"/a""#), "\"KeyPath\""),
        (signed(r#""threshold":2"#), "\"threshold\""),
    ] {
        let message = refused(&policy);
        assert!(message.contains(place) && message.contains(named), "{policy}: {message}");
    }
    // Such a requirement is an error also where it is not the one of the image.
    assert!(
        refused(r#"{"default":[{"type":"reject"},{"type":"signedBy"}]}"#).starts_with("default[1].type: ")
    );
}

#[test]
fn a_requirement_that_is_incomplete_or_contradicts_itself_is_refused() {
    let signed = |members: &str| with(&format!(r#"{{"type":"sigstoreSigned"{members}}}"#));
    let data = base64(SIGNER);
    let certificate = base64("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n");
    for (policy, named) in [
        (with(r#"{"keyPath":"/signer.pub"}"#), "\"type\" is missing"),
        (with(r#"{"type":null}"#), "not a string"),
        (with("null"), "not an object"),
        (with("[]"), "not an object"),
        (with(""), "no requirement"),
        (signed(""), "exactly one"),
        (signed(&format!(r#","keyPath":"/signer.pub","keyData":"{data}""#)), "exactly one"),
        (signed(r#","keyPath":"/signer.pub","keyPaths":["/signer.pub"]"#), "exactly one"),
        (signed(r#","keyPath":"""#), "empty"),
        (signed(r#","keyPath":["/signer.pub"]"#), "not a string"),
        (signed(r#","keyPath":null"#), "not a string"),
        (signed(r#","keyPaths":[]"#), "no key"),
        (signed(r#","keyPaths":"/signer.pub""#), "not an array"),
        (signed(r#","keyPaths":["/signer.pub",1]"#), "keyPaths[1]: it is not a string"),
        (signed(r#","keyDatas":[]"#), "no key"),
        (signed(r#","keyData":"""#), "not a public key"),
        (signed(r#","keyData":"!""#), "not base64"),
        (signed(r#","keyData":"/w==""#), "not text"),
        (signed(&format!(r#","keyData":"{certificate}""#)), "openssl x509"),
        (signed(&format!(r#","keyDatas":["{data}","eA=="]"#)), "keyDatas[1]"),
        (with_identity("null"), "not an object"),
        (with_identity(r#""matchExact""#), "not an object"),
        (with_identity("{}"), "\"type\" is missing"),
        (with_identity(r#"{"type":"exactReference"}"#), "dockerReference"),
        (with_identity(r#"{"type":"exactReference","dockerReference":"h.io/data"}"#), "neither"),
        (with_identity(r#"{"type":"exactReference","dockerReference":"h.io/Data:1"}"#), "dockerReference"),
        (with_identity(r#"{"type":"exactRepository"}"#), "dockerRepository"),
        (with_identity(r#"{"type":"exactRepository","dockerRepository":""}"#), "dockerRepository"),
        (with_identity(r#"{"type":"remapIdentity","prefix":"h.io"}"#), "signedPrefix"),
        (with_identity(r#"{"type":"remapIdentity","prefix":"","signedPrefix":"h.io"}"#), "prefix"),
        (with_identity(r#"{"type":"remapIdentity","prefix":"h.io/","signedPrefix":"h.io"}"#), "prefix"),
        (with_identity(r#"{"type":"remapIdentity","prefix":"h.io/a:1","signedPrefix":"h.io"}"#), "prefix"),
        (with_identity(r#"{"type":"remapIdentity","prefix":"h.io","signedPrefix":"*.io"}"#), "signedPrefix"),
    ] {
        let message = refused(&policy);
        assert!(message.contains(r#"transports.docker["h.io"]"#), "{policy}: {message}");
        assert!(message.contains(named), "{policy}: {message}");
    }
    for policy in
        ["", "null", "[]", "{}", "&", r#"{"default":null}"#, r#"{"default":[]}"#, r#"{"default":{}}"#]
    {
        refused(policy);
    }
    refused(&format!("{} x", complete()));
    refused(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
    refused(&format!(r#"{{"default":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)));
}

#[test]
fn a_scope_that_no_image_can_have_is_refused() {
    let digest = format!("h.io/data@sha256:{}", "a".repeat(64));
    let both = digest.replace('@', ":1@");
    for (transport, scope, is_valid) in [
        ("docker", "", true),
        ("docker", "h.io", true),
        ("docker", "h.io:5000/team", true),
        ("docker", "h.io/data", true),
        ("docker", "h.io/data:1", true),
        ("docker", &digest, true),
        ("docker", "localhost", true),
        ("docker", "localhost/data", true),
        ("docker", "docker.io", true),
        ("docker", "docker.io/library", true),
        ("docker", "docker.io/library/alpine:1", true),
        ("docker", "docker.io/me", true),
        ("docker", "10.0.0.1:5000", true),
        ("docker", "*.com", true),
        ("docker", "*.example.com", true),
        ("docker", &both, false),
        ("docker", "*", false),
        ("docker", "*.", false),
        ("docker", "*.example.com:5000", false),
        ("docker", "*.example.com/team", false),
        ("docker", "a.*.com", false),
        ("docker", "h.io/*", false),
        ("docker", "h.io/", false),
        ("docker", "h.io//data", false),
        ("docker", "h.io/Data", false),
        ("docker", "https://h.io", false),
        ("docker", "alpine", false),
        ("docker", "alpine:latest", false),
        ("docker", "library/alpine", false),
        ("docker", "docker.io/alpine:1", false),
        ("docker", "index.docker.io", false),
        ("docker", "index.docker.io/me", false),
        ("docker", "registry-1.docker.io/me/data:1", false),
        ("oci", "/srv", true),
        ("oci-archive", "/srv/a b.tar", true),
        ("oci", "/", false),
        ("oci", "srv", false),
        ("oci", "/srv/", false),
        ("oci", "/srv//a", false),
        ("oci-archive", "/srv/../a", false),
        ("oci", "/./srv", false),
        ("docker-archive", "", true),
        ("docker-archive", "/srv/a.tar", false),
        ("dir", "anything", true),
        ("dockr", "", false),
        ("Docker", "h.io", false),
        ("", "", false),
    ] {
        let policy = json!({"default": [{"type": "reject"}], "transports": {transport: {scope: [{"type": "reject"}]}}});
        let result = parse(&policy.to_string());
        assert_eq!(result.is_ok(), is_valid, "{transport} {scope}: {result:?}");
        if let Err(error) = result {
            assert!(error.to_string().starts_with("transports"), "{error}");
        }
    }
    let policy = json!({"default": [{"type": "reject"}], "transports": {"docker": {"alpine:latest": [{"type": "reject"}]}}});
    assert!(refused(&policy.to_string()).contains("write docker.io/library/alpine:latest"));
}

#[test]
fn a_member_that_occurs_twice_is_refused_wherever_it_stands() {
    let text = complete().to_string();
    let mut members = 0;
    for (end, _) in text.match_indices("\":") {
        let start = text[..end].rfind('"').unwrap();
        let member = &text[start..=end];
        // The same name with an escape is the same name.
        let escaped = match member.chars().nth(1) {
            Some(first) if first != '"' => {
                format!("\"\\u{:04x}{}", first as u32, &member[1 + first.len_utf8()..])
            }
            _ => member.to_owned(),
        };
        for name in [member, escaped.as_str()] {
            let twice = format!("{}{name}:[],{}", &text[..start], &text[start..]);
            assert!(refused(&twice).contains("occurs twice"), "{twice}");
        }
        members += 1;
    }
    assert!(members > 30, "{members}");
}

#[test]
fn files_and_keys_are_limited() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("key.pub"), SIGNER).unwrap();
    let signed = json!([{"type": "sigstoreSigned", "keyPath": at("key.pub")}]);
    fs::write(at("policy.json"), json!({"default": signed}).to_string()).unwrap();
    let policy = SignaturePolicy::read(&at("policy.json")).unwrap();
    let location = "h.io/data".parse().unwrap();
    assert_eq!(policy.requirements_for(&location).unwrap().len(), 1);

    fs::remove_file(at("key.pub")).unwrap();
    let error = SignaturePolicy::read(&at("policy.json")).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    for part in ["policy.json", "default[0].keyPath", "key.pub"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(SignaturePolicy::read(&at("missing.json")).unwrap_err().kind(), Kind::NotFound);
    fs::write(at("large.json"), format!(r#"{{"default":[{{"type":"reject"}}]}}{}"#, " ".repeat(4 << 20)))
        .unwrap();
    let error = SignaturePolicy::read(&at("large.json")).unwrap_err().to_string();
    assert!(error.contains("4194304"), "{error}");

    let many = |keys: usize| {
        let paths = vec!["/signer.pub"; keys];
        json!({"default": [{"type": "sigstoreSigned", "keyPaths": paths}]}).to_string()
    };
    parse(&many(1000)).unwrap();
    assert!(refused(&many(1001)).contains("1000 keys"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn a_policy_with_an_unknown_member_anywhere_is_refused(
        at in any::<prop::sample::Index>(),
        name in "[a-zA-Z]{0,12}|signedIdentity|Type|type |keyPath|keyData|fulcio|.{0,4}",
        value in prop_oneof![Just(Value::Null), Just(json!("x")), Just(json!([])), Just(json!({"type": "reject"}))],
    ) {
        let mut policy = complete();
        let mut places = Vec::new();
        fixed_objects(&policy, "", &mut places);
        assert_eq!(places.len(), 20);
        let members = policy.pointer_mut(&places[at.index(places.len())]).unwrap().as_object_mut().unwrap();
        // `signedIdentity` is optional, so it is not unknown where it is missing.
        let is_known = name == "signedIdentity" && members.get("type") == Some(&json!("sigstoreSigned"));
        prop_assume!(!members.contains_key(&name) && !is_known);
        members.insert(name, value);
        prop_assert!(parse(&policy.to_string()).is_err(), "{policy}");
    }

    #[test]
    fn a_policy_that_is_changed_anywhere_is_refused_or_as_strict(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = complete().to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let read_key = |_: &std::path::Path| PublicKey::from_pem(SIGNER);
        if let Ok(policy) = SignaturePolicy::from_json(&bytes, &read_key) {
            let location = "h.io/team/data:1".parse().unwrap();
            assert!(!policy.requirements_for(&location).unwrap().is_empty());
        }
    }
}
