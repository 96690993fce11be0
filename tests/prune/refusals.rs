//! `prune` of a registry that refuses to remove some tags or images, or all.

use super::registry::{client, manifest, plant, plant_signature, registry, run, tags};
use super::{fates, keep_last};
use crate::registry::{Deletes, Refusal, Registry};
use axum::http::Method;
use std::process::{Command, Output};
use volio::Source;
use volio::error::Kind;
use volio::oci::{Descriptor, Digest, attachment_tags, media_type};
use volio::transport::BulkRemoval;

/// The answers of registries about a tag or an image that is immutable, protected or locked.
const STATUSES: [u16; 6] = [400, 403, 405, 409, 412, 423];

fn image(day: u32) -> Vec<u8> {
    manifest(&format!(r#""day":"{day}""#))
}

/// Lets the registry refuse to delete the images of these days, by their tags if it can delete tags,
/// and by their digests.
fn protect(registry: &Registry, days: &[u32], status: u16) {
    registry.behave(|behaviour| {
        for day in days {
            if behaviour.deletes == Deletes::All {
                behaviour.protects.push((format!("d-2026-01-{day:02}"), status));
            }
            behaviour.protects.push((Digest::of(&image(*day)).to_string(), status));
        }
    });
}

#[test]
fn a_tag_that_the_registry_refuses_to_remove_stays_with_its_signature_and_the_others_go() {
    for deletes in [Deletes::All, Deletes::Images(405)] {
        for status in STATUSES {
            let registry = registry(deletes, 6);
            // The last one is the first that is tried.
            protect(&registry, &[1, 3, 5], status);
            let name = format!("{}/data:v1", registry.host());
            let signatures = [1, 2, 3].map(|day| plant_signature(&registry, &image(day), &name));
            let pruned = run(&registry, &keep_last(1)).unwrap();
            let left = tags(&registry);
            let kept = ["d-2026-01-01", "d-2026-01-03", "d-2026-01-05", "d-2026-01-06", "release"];
            for tag in kept {
                assert!(left.iter().any(|other| other == tag), "{status}: {tag} in {left:?}");
            }
            assert_eq!(signatures.each_ref().map(|tag| left.contains(tag)), [true, false, true], "{left:?}");
            assert_eq!(left.len(), kept.len() + 2, "{status}: {left:?}");
            let refused: Vec<&str> = pruned.refused().map(|(tag, _)| tag.tag.as_str()).collect();
            assert_eq!(refused, ["d-2026-01-01", "d-2026-01-03", "d-2026-01-05"]);
            let line = fates(&pruned).remove(0);
            let answer = format!(" answers {status} ");
            assert!(
                line.starts_with("keep d-2026-01-01: the registry refused") && line.contains(&answer),
                "{line}"
            );
            let error = pruned.refusal().unwrap();
            assert_eq!(error.kind() == Kind::Denied, status == 403, "{error}");
            assert!(error.to_string().contains("3 tags, the first of which is d-2026-01-01"), "{error}");
            // The next run tries them again, and does not take the answer for one about all tags.
            plant(&registry, "d-2026-01-07", &image(7));
            run(&registry, &keep_last(1)).unwrap();
            let left = tags(&registry);
            assert!(!left.contains(&"d-2026-01-06".to_owned()), "{status}: {left:?}");
            assert!(left.contains(&"d-2026-01-05".to_owned()), "{status}: {left:?}");
        }
    }
}

#[test]
fn what_an_image_needs_that_the_registry_refused_to_remove_stays() {
    let registry = registry(Deletes::Images(405), 3);
    let part = image(2);
    let entry = Descriptor::of(media_type::MANIFEST, &part);
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().into_bytes();
    registry.plant("data", "d-2026-01-01", media_type::INDEX, index.clone());
    registry.behave(|behaviour| behaviour.protects.push((Digest::of(&index).to_string(), 409)));
    let pruned = run(&registry, &keep_last(1)).unwrap();
    assert!(fates(&pruned)[0].contains("409"), "{:?}", fates(&pruned));
    assert_eq!(fates(&pruned)[1], "keep d-2026-01-02: an image that is kept needs it");
    assert!(client(&registry).has_image(&Digest::of(&part)).unwrap());
}

#[test]
fn a_registry_that_refuses_everything_is_asked_few_times() {
    for (deletes, status, kind) in [
        (Deletes::All, 403, Kind::Denied),
        (Deletes::Images(405), 403, Kind::Denied),
        (Deletes::Nothing, 405, Kind::Failed),
    ] {
        let registry = registry(deletes, 30);
        if status == 403 {
            protect(&registry, &(1..=30).collect::<Vec<_>>(), status);
        }
        let error = run(&registry, &keep_last(1)).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(&status.to_string()), "{error}");
        let count = registry.count(&Method::DELETE);
        assert!(count <= 16, "{count} requests");
        assert_eq!(tags(&registry).len(), 31);
    }
}

#[test]
fn a_login_that_is_rejected_ends_the_run_at_once() {
    let registry = registry(Deletes::All, 4);
    let rejection = Refusal {
        method: Method::DELETE,
        path: "d-2026-01-02",
        status: 401,
        body: r#"{"errors":[{"code":"UNAUTHORIZED","message":"the token has expired"}]}"#.to_owned(),
        ..Refusal::default()
    };
    registry.behave(|behaviour| behaviour.refusals.push(rejection));
    let error = run(&registry, &keep_last(1)).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "{error}");
    assert!(tags(&registry).contains(&"d-2026-01-02".to_owned()));
}

#[test]
fn an_attachment_that_the_registry_refuses_to_remove_stays_with_what_is_attached_to_it() {
    for deletes in [Deletes::All, Deletes::Images(405)] {
        let registry = registry(deletes, 3);
        let [sbom, signature] = ["sbom", "signature"].map(|name| manifest(&format!(r#""name":"{name}""#)));
        let sbom_tag = attachment_tags(&Digest::of(&image(1)))[2].clone();
        plant(&registry, &sbom_tag, &sbom);
        let signature_tag = attachment_tags(&Digest::of(&sbom))[0].clone();
        plant(&registry, &signature_tag, &signature);
        registry.behave(|behaviour| {
            behaviour.protects = vec![(sbom_tag.clone(), 409), (Digest::of(&sbom).to_string(), 409)];
        });
        let pruned = run(&registry, &keep_last(1)).unwrap();
        let left = tags(&registry);
        assert!(left.contains(&sbom_tag) && left.contains(&signature_tag), "{left:?}");
        assert!(!left.contains(&"d-2026-01-01".to_owned()), "{left:?}");
        assert_eq!(pruned.refused().count(), 1);
    }
}

fn volio(registry: &Registry, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volio"));
    command.args(["prune", "--keep-last", "1", "--tag-template", "d-{date}"]).args(arguments);
    command.arg(format!("{}/data", registry.host())).env("TZ", "UTC").output().unwrap()
}

#[test]
fn the_program_fails_after_it_has_removed_the_others_and_says_which_were_refused() {
    let registry = registry(Deletes::All, 3);
    protect(&registry, &[1], 409);
    let output = volio(&registry, &["--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let refused: Vec<bool> = json["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag.get("refused").is_some_and(|refused| refused == true))
        .collect();
    assert_eq!(refused, [true, false, false, false], "{json}");
    assert_eq!(json["tags"][0]["action"], "keep");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("refused to remove the tag d-2026-01-01"), "{said}");
    assert!(said.contains("409 Conflict"), "{said}");
    assert_eq!(tags(&registry), ["d-2026-01-01", "d-2026-01-03", "release"]);
    let output = volio(&registry, &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.lines().next().unwrap().contains("the registry refused to remove it: "), "{text}");
    let dry_run = volio(&registry, &["--dry-run"]);
    assert_eq!(dry_run.status.code(), Some(0), "nothing was refused");
}

#[test]
fn everything_that_is_attached_goes_in_the_same_run() {
    for deletes in [Deletes::All, Deletes::Images(405)] {
        let registry = registry(deletes, 3);
        let plant_about = |subject: &[u8], place: usize, name: &str| {
            let attachment = manifest(&format!(r#""name":"{name}""#));
            let tag = attachment_tags(&Digest::of(subject))[place].clone();
            plant(&registry, &tag, &attachment);
            (attachment, tag)
        };
        let (sbom, first) = plant_about(&image(1), 2, "sbom");
        let (signature, second) = plant_about(&sbom, 0, "signature of the SBOM");
        let (_, third) = plant_about(&signature, 1, "attestation of the signature");
        // The same SBOM of two images, of which one stays, and of an image that does not exist.
        let (shared, fourth) = plant_about(&image(2), 2, "shared");
        let (_, fifth) = plant_about(&image(3), 2, "shared");
        let (_, sixth) = plant_about(&shared, 0, "signature of the shared SBOM");
        let (gone, seventh) = plant_about(&manifest(r#""name":"gone""#), 2, "SBOM of nothing");
        let (_, eighth) = plant_about(&gone, 0, "signature of that");
        let pruned = run(&registry, &keep_last(1)).unwrap();
        let left = client(&registry).tags().unwrap();
        let is_left = |tag: &String| left.contains(tag);
        assert_eq!([&first, &second, &third].map(is_left), [false; 3], "{left:?}");
        assert_eq!([&fifth, &sixth].map(is_left), [true; 2], "{left:?}");
        assert_eq!([&seventh, &eighth].map(is_left), [false; 2], "{left:?}");
        // A registry that removes images only keeps that of the image that is gone too.
        assert_eq!(is_left(&fourth), deletes != Deletes::All, "{left:?}");
        let removed = pruned.removed().filter(|tag| tag.tag.starts_with("sha256-")).count();
        assert_eq!(removed, if deletes == Deletes::All { 6 } else { 5 });
    }
}
