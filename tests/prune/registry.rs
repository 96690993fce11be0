//! `prune` of a repository in a registry.

use super::{fates, keep_last};
use crate::registry::{Deletes, Registry};
use axum::http::Method;
use std::io::Cursor;
use std::time::SystemTime;
use volio::error::Kind;
use volio::oci::{Descriptor, Digest, attachment_tags, media_type};
use volio::prune::{Effect, EmptyResult, Options, Pruned, prune};
use volio::stream::Body;
use volio::transport::{
    Access, BulkRemoval, Destination, Garbage, RemovalOutcome, Source, TagsRemoved, registry,
};
use volio::{Error, Result};

pub fn manifest(text: &str) -> Vec<u8> {
    let config = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;
    format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"annotations":{{{text}}}}}"#).into_bytes()
}

pub fn index_of(children: &[&[u8]]) -> Vec<u8> {
    let entry = |child: &&[u8]| {
        let (kind, digest) = (media_type::MANIFEST, Digest::of(child));
        format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{}}}"#, child.len())
    };
    let entries: Vec<String> = children.iter().map(entry).collect();
    format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(",")).into_bytes()
}

/// Starts a registry with an image for each of the first days of 2026, and one with another tag.
pub fn registry(deletes: Deletes, days: u32) -> Registry {
    let registry = Registry::start();
    for day in 1..=days {
        plant(&registry, &format!("d-2026-01-{day:02}"), &manifest(&format!(r#""day":"{day}""#)));
    }
    plant(&registry, "release", &manifest(r#""day":"release""#));
    registry.behave(|behaviour| behaviour.deletes = deletes);
    registry
}

pub fn plant(registry: &Registry, tag: &str, manifest: &[u8]) {
    registry.plant("data", tag, media_type::MANIFEST, manifest.to_vec());
}

pub fn client(registry: &Registry) -> registry::Registry {
    let name = format!("{}/data", registry.host());
    registry::Registry::new(name.parse().unwrap(), &Access::default()).unwrap()
}

pub fn run(registry: &Registry, options: &Options) -> Result<Pruned> {
    let client = client(registry);
    prune(&client, &client, options)
}

pub fn tags(registry: &Registry) -> Vec<String> {
    client(registry).tags().unwrap()
}

#[test]
fn tags_of_another_form_are_kept_and_listed_and_only_tags_are_removed() {
    let registry = registry(Deletes::All, 3);
    let dry_run = Options { effect: Effect::DryRun, ..keep_last(2) };
    let expected = [
        "remove d-2026-01-01: no rule keeps it",
        "keep d-2026-01-02: last",
        "keep d-2026-01-03: last",
        "keep release: does not match the template",
    ];
    assert_eq!(fates(&run(&registry, &dry_run).unwrap()), expected);
    assert!(registry.paths(Method::DELETE).is_empty());
    assert_eq!(fates(&run(&registry, &keep_last(2)).unwrap()), expected);
    assert_eq!(registry.paths(Method::DELETE), ["/v2/data/manifests/d-2026-01-01"]);
    assert_eq!(tags(&registry), ["d-2026-01-02", "d-2026-01-03", "release"]);
    assert!(!registry.paths(Method::GET).iter().any(|path| path.ends_with("release")), "it need not be read");
    // Again: nothing is left to do.
    assert_eq!(run(&registry, &keep_last(2)).unwrap().removed().count(), 0);
}

#[test]
fn rules_that_keep_nothing_are_refused_unless_that_is_wanted() {
    let registry = registry(Deletes::All, 2);
    let mut typo = keep_last(0);
    assert_eq!(run(&registry, &typo).unwrap_err().kind(), Kind::Usage, "no rule keeps anything");
    typo.policy.tags = vec!["d-2026-1-2".into()];
    let error = run(&registry, &typo).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    let everywhere = Options { empty_result: EmptyResult::Allow, template: None, ..typo.clone() };
    assert_eq!(run(&registry, &everywhere).unwrap_err().kind(), Kind::Usage);
    assert_eq!(tags(&registry).len(), 3);
    let all = Options { empty_result: EmptyResult::Allow, ..typo };
    let pruned = run(&registry, &all).unwrap();
    assert_eq!(pruned.unknown_tags, ["d-2026-1-2"]);
    assert_eq!(tags(&registry), ["release"]);
}

#[test]
fn an_image_with_a_tag_that_stays_is_not_removed_by_its_digest() {
    let registry = registry(Deletes::Images(405), 4);
    plant(&registry, "stable", &manifest(r#""day":"2""#));
    let pruned = run(&registry, &keep_last(1)).unwrap();
    let expected = [
        "remove d-2026-01-01: no rule keeps it",
        "keep d-2026-01-02: the registry removes only images, and this one is also stable",
        "remove d-2026-01-03: no rule keeps it",
        "keep d-2026-01-04: last",
        "keep release: does not match the template",
        "keep stable: does not match the template",
    ];
    assert_eq!(fates(&pruned), expected);
    assert_eq!(tags(&registry), ["d-2026-01-02", "d-2026-01-04", "release", "stable"]);
}

#[test]
fn manifests_that_an_index_with_another_tag_lists_stay_and_others_go_with_their_index() {
    let registry = registry(Deletes::Images(405), 0);
    let [shared, own, part] = ["shared", "own", "part"].map(|name| manifest(&format!(r#""name":"{name}""#)));
    let plant_index = |tag: &str, children: &[&[u8]]| {
        children.iter().for_each(|child| {
            registry.plant("data", &Digest::of(child).to_string(), media_type::MANIFEST, child.to_vec())
        });
        registry.plant("data", tag, media_type::INDEX, index_of(children));
    };
    plant_index("d-2026-01-01", &[&shared, &own]);
    plant(&registry, "d-2026-01-02", &part);
    plant_index("stable", &[&shared, &part]);
    plant(&registry, "d-2026-01-03", &manifest(""));
    let pruned = run(&registry, &keep_last(1)).unwrap();
    assert_eq!(
        fates(&pruned)[..2],
        ["remove d-2026-01-01: no rule keeps it", "keep d-2026-01-02: an image that is kept needs it"]
    );
    let exists = |manifest: &[u8]| client(&registry).has_image(&Digest::of(manifest)).unwrap();
    assert_eq!([&shared, &own, &part].map(|manifest| exists(manifest)), [true, false, true]);
}

#[test]
fn a_registry_that_cannot_remove_anything_is_an_error_with_a_hint() {
    let registry = registry(Deletes::Nothing, 3);
    let error = run(&registry, &keep_last(1)).unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    assert!(error.hint().unwrap().contains("DELETE_ENABLED"), "{error}");
    assert_eq!(tags(&registry).len(), 4);
}

#[test]
fn signatures_go_with_their_image_and_stay_with_one_that_has_another_tag() {
    for deletes in [Deletes::All, Deletes::Images(405)] {
        let registry = registry(deletes, 3);
        let signature_of = |day: u32| {
            let tag = attachment_tags(&Digest::of(&manifest(&format!(r#""day":"{day}""#))))[0].clone();
            plant(&registry, &tag, &manifest(&format!(r#""signature":"{day}""#)));
            tag
        };
        let [first, second, third] = [1, 2, 3].map(signature_of);
        plant(&registry, "stable", &manifest(r#""day":"2""#));
        run(&registry, &keep_last(1)).unwrap();
        let left = tags(&registry);
        assert_eq!([&first, &second, &third].map(|tag| left.contains(tag)), [false, true, true], "{left:?}");
        assert!(!left.contains(&"d-2026-01-01".to_owned()) && left.contains(&"stable".to_owned()));
    }
}

/// Plants a signature of an image, and returns its tag.
pub fn plant_signature(registry: &Registry, image: &[u8], name: &str) -> String {
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{name}"}},"image":{{"docker-manifest-digest":"{}"}},"type":"cosign container image signature"}},"optional":null}}"#,
        Digest::of(image)
    );
    let kind = "application/vnd.dev.cosign.simplesigning.v1+json";
    client(registry).upload(Body::new(Cursor::new(payload.clone().into_bytes()))).unwrap();
    let layer = Descriptor::of(kind, payload.as_bytes());
    let config = Descriptor::of(media_type::CONFIG, b"{}");
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let tag = attachment_tags(&Digest::of(image))[0].clone();
    plant(registry, &tag, manifest.to_string().as_bytes());
    tag
}

#[test]
fn signatures_whose_image_does_not_exist_are_removed_and_those_of_untagged_images_stay() {
    for deletes in [Deletes::All, Deletes::Images(405)] {
        let registry = registry(deletes, 2);
        let own = format!("{}/data:v1", registry.host());
        let [gone, untagged, foreign] =
            ["gone", "untagged", "foreign"].map(|name| manifest(&format!(r#""name":"{name}""#)));
        // A tag that was given to another image: the registry still has the first.
        plant(&registry, "d-2026-01-02", &untagged);
        plant(&registry, "d-2026-01-02", &manifest(r#""day":"2""#));
        let orphan = plant_signature(&registry, &gone, &own);
        let of_untagged = plant_signature(&registry, &untagged, &own);
        let elsewhere = plant_signature(&registry, &foreign, "other.example/images:v1");
        let of_kept = plant_signature(&registry, &manifest(r#""day":"2""#), &own);
        let dry_run = run(&registry, &Options { effect: Effect::DryRun, ..keep_last(2) }).unwrap();
        let pruned = run(&registry, &keep_last(2)).unwrap();
        assert_eq!(fates(&pruned), fates(&dry_run));
        let fate = |tag: &str| {
            let fates = fates(&pruned);
            fates.iter().find(|fate| fate.contains(&format!(" {tag}:"))).unwrap().clone()
        };
        assert_eq!(
            fate(&orphan),
            format!("remove {orphan}: attached to {}, which does not exist", Digest::of(&gone))
        );
        assert!(fate(&elsewhere).ends_with("signed for other.example/images"), "{}", fate(&elsewhere));
        let left = tags(&registry);
        assert!(!left.contains(&orphan), "{left:?}");
        for tag in [&of_untagged, &elsewhere, &of_kept] {
            assert!(left.contains(tag), "{tag} in {left:?}");
        }
        // Signatures that came with images from that repository have its name: then the other one is from there too.
        let day = manifest(r#""day":"1""#);
        plant_signature(&registry, &day, "other.example/images:v1");
        run(&registry, &keep_last(2)).unwrap();
        assert!(!tags(&registry).contains(&elsewhere));
        assert!(tags(&registry).contains(&of_untagged));
    }
}

#[test]
fn a_repository_that_has_only_signatures_keeps_them() {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.deletes = Deletes::All);
    let own = format!("{}/data:v1", registry.host());
    let tag = plant_signature(&registry, &manifest(r#""in":"another repository""#), &own);
    run(&registry, &keep_last(1)).unwrap();
    assert_eq!(tags(&registry), [tag]);
}

#[test]
fn an_image_that_stays_after_all_keeps_its_signature() {
    for deletes in [Deletes::All, Deletes::Images(405)] {
        let registry = registry(deletes, 2);
        let own = format!("{}/data:v1", registry.host());
        let first = manifest(r#""day":"1""#);
        let signature = plant_signature(&registry, &first, &own);
        // The first image gets another tag when it is about to lose its own.
        let promote = || plant(&registry, "golden", &first);
        run_with(&registry, &promote, usize::MAX).unwrap();
        assert!(tags(&registry).contains(&"golden".to_owned()));
        assert!(tags(&registry).contains(&signature), "{:?}", tags(&registry));
    }
    // The registry refuses, before it removes anything.
    let registry = registry(Deletes::All, 2);
    let signature = plant_signature(&registry, &manifest(r#""day":"1""#), "any.example/data");
    run_with(&registry, &|| (), 0).unwrap_err();
    assert!(tags(&registry).contains(&signature) && tags(&registry).contains(&"d-2026-01-01".to_owned()));
}

#[test]
fn an_image_that_comes_after_its_signature_keeps_it() {
    let registry = registry(Deletes::All, 3);
    let own = format!("{}/data:v1", registry.host());
    let late = manifest(r#""day":"late""#);
    let signature = plant_signature(&registry, &late, &own);
    run_with(&registry, &|| plant(&registry, "late", &late), usize::MAX).unwrap();
    assert!(tags(&registry).contains(&signature));
}

/// A registry in which something happens just before tags are removed.
struct Interfered<'a> {
    removal: registry::Registry,
    before: &'a (dyn Fn() + Sync),
    /// The largest number of tags that are removed before the connection breaks.
    limit: usize,
}

impl BulkRemoval for Interfered<'_> {
    fn remove_tags(&self, tags: &[(String, Digest)]) -> Result<TagsRemoved> {
        (self.before)();
        let removed = self.removal.remove_tags(&tags[..tags.len().min(self.limit)])?;
        if tags.len() > self.limit { Err(Error::failed("the connection broke")) } else { Ok(removed) }
    }

    fn remove_image(&self, digest: &Digest) -> Result<RemovalOutcome> {
        self.removal.remove_image(digest)
    }

    fn digest_of(&self, tag: &str) -> Result<Option<Digest>> {
        self.removal.digest_of(tag)
    }

    fn has_image(&self, digest: &Digest) -> Result<bool> {
        self.removal.has_image(digest)
    }

    fn collect_garbage(&self, before: SystemTime) -> Result<Garbage> {
        self.removal.collect_garbage(before)
    }

    fn preview(&self, tags: &[(String, Digest)], before: SystemTime) -> Result<TagsRemoved> {
        self.removal.preview(tags, before)
    }

    fn deletes_with_last_tag(&self) -> bool {
        self.removal.deletes_with_last_tag()
    }

    fn no_deletion(&self) -> Error {
        self.removal.no_deletion()
    }
}

fn run_with(registry: &Registry, before: &(dyn Fn() + Sync), limit: usize) -> Result<Pruned> {
    let removal = Interfered { removal: client(registry), before, limit };
    prune(&client(registry), &removal, &keep_last(1))
}

#[test]
fn a_tag_that_moves_meanwhile_is_kept() {
    for deletes in [Deletes::All, Deletes::Images(405)] {
        let registry = registry(deletes, 3);
        let new = manifest(r#""day":"new""#);
        let old = manifest(r#""day":"1""#);
        let before = || {
            plant(&registry, "d-2026-01-02", &new);
            // Somebody goes back to the first image.
            plant(&registry, "release", &old);
        };
        let pruned = run_with(&registry, &before, usize::MAX).unwrap();
        assert_eq!(fates(&pruned)[1], "keep d-2026-01-02: changed meanwhile");
        let digest_of = |tag: &str| client(&registry).digest_of(tag).unwrap();
        assert_eq!(digest_of("d-2026-01-02"), Some(Digest::of(&new)));
        assert_eq!(digest_of("release"), Some(Digest::of(&old)));
    }
}

/// A registry in which something happens after the first removal of an image.
struct InterferedLater<'a> {
    removal: registry::Registry,
    after: &'a (dyn Fn() + Sync),
    is_done: std::sync::atomic::AtomicBool,
}

impl BulkRemoval for InterferedLater<'_> {
    fn remove_tags(&self, tags: &[(String, Digest)]) -> Result<TagsRemoved> {
        self.removal.remove_tags(tags)
    }

    fn remove_image(&self, digest: &Digest) -> Result<RemovalOutcome> {
        let outcome = self.removal.remove_image(digest);
        if !self.is_done.swap(true, std::sync::atomic::Ordering::SeqCst) {
            (self.after)();
        }
        outcome
    }

    fn digest_of(&self, tag: &str) -> Result<Option<Digest>> {
        self.removal.digest_of(tag)
    }

    fn has_image(&self, digest: &Digest) -> Result<bool> {
        self.removal.has_image(digest)
    }

    fn collect_garbage(&self, before: SystemTime) -> Result<Garbage> {
        self.removal.collect_garbage(before)
    }

    fn preview(&self, tags: &[(String, Digest)], before: SystemTime) -> Result<TagsRemoved> {
        self.removal.preview(tags, before)
    }

    fn deletes_with_last_tag(&self) -> bool {
        false
    }

    fn no_deletion(&self) -> Error {
        self.removal.no_deletion()
    }
}

#[test]
fn an_image_that_gets_a_tag_while_others_are_removed_by_their_digests_stays() {
    let registry = registry(Deletes::Images(405), 6);
    let image = |day: u32| manifest(&format!(r#""day":"{day}""#));
    // A tag of another name goes back to an image, and another image gets a new tag.
    let after = || {
        plant(&registry, "release", &image(2));
        plant(&registry, "golden", &image(3));
    };
    let removal = InterferedLater { removal: client(&registry), after: &after, is_done: false.into() };
    let pruned = prune(&client(&registry), &removal, &keep_last(1)).unwrap();
    let expected = ["d-2026-01-02", "d-2026-01-03", "d-2026-01-06", "golden", "release"];
    assert_eq!(tags(&registry), expected, "{:?}", fates(&pruned));
    assert!(fates(&pruned)[1].ends_with("and this one is also release"), "{:?}", fates(&pruned));
}

#[test]
fn a_run_that_breaks_off_is_completed_by_the_next_and_two_runs_do_no_harm() {
    let registry = registry(Deletes::All, 4);
    assert!(run_with(&registry, &|| (), 1).is_err());
    assert_eq!(tags(&registry).len(), 4, "one of the three is gone");
    // Another run does everything between the decision and the removal of this one.
    let other = || drop(run(&registry, &keep_last(1)).unwrap());
    let pruned = run_with(&registry, &other, usize::MAX).unwrap();
    assert!(
        fates(&pruned).contains(&"remove d-2026-01-02: was gone already".to_owned()),
        "{:?}",
        fates(&pruned)
    );
    assert_eq!(tags(&registry), ["d-2026-01-04", "release"]);
}

#[test]
fn an_image_has_the_time_of_its_annotation_and_without_one_it_is_kept() {
    let registry = Registry::start();
    for (tag, created) in
        [("a", "2026-01-02T00:00:00Z"), ("b", "2026-01-01T00:00:00Z"), ("c", "1970-01-01T00:00:00Z")]
    {
        plant(&registry, tag, &manifest(&format!(r#""org.opencontainers.image.created":"{created}""#)));
    }
    plant(&registry, "also-a", &manifest(r#""org.opencontainers.image.created":"2026-01-02T00:00:00Z""#));
    let pruned = run(&registry, &Options { template: None, ..keep_last(1) }).unwrap();
    let expected =
        ["keep a: last", "keep also-a: last", "remove b: no rule keeps it", "keep c: its image has no time"];
    assert_eq!(fates(&pruned), expected);
}

#[test]
fn of_images_of_one_day_the_one_that_was_made_later_is_the_newest() {
    let registry = Registry::start();
    let image =
        |hour: &str| manifest(&format!(r#""org.opencontainers.image.created":"2026-01-02T{hour}:00:00Z""#));
    for (tag, hour) in [("2026-01-02-bbbb", "09"), ("2026-01-02-aaaa", "17"), ("2026-01-02-cccc", "12")] {
        plant(&registry, tag, &image(hour));
    }
    plant(&registry, "2026-01-01-ffff", &manifest(""));
    let template = Some("{date}-{digest:.4}".parse().unwrap());
    let options = Options { template, effect: Effect::DryRun, ..keep_last(1) };
    let kept = |options: &Options| {
        let pruned = run(&registry, options).unwrap();
        pruned
            .tags
            .into_iter()
            .filter(|tag| tag.fate == volio::prune::Fate::Keep)
            .map(|tag| tag.tag)
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&options), ["2026-01-02-aaaa"]);
    // The image that was just packed is the newest, whatever it says of itself.
    let packed = Options { just_packed: Some(Digest::of(&image("09"))), ..options };
    assert_eq!(kept(&packed), ["2026-01-02-bbbb"]);
}

#[test]
fn a_date_of_a_clock_that_was_not_set_is_not_a_time_and_what_is_not_a_tag_is_left_alone() {
    let registry = registry(Deletes::All, 2);
    let created = r#""org.opencontainers.image.created":"2026-01-03T00:00:00Z""#;
    plant(&registry, "d-1970-01-01", &manifest(r#""clock":"not set""#));
    plant(&registry, "d-0000-01-01", &manifest(r#""year":"0""#));
    plant(&registry, "d-1970-01-02", &manifest(created));
    plant(&registry, "d-9999-12-31", &manifest(r#""year":"9999""#));
    for tag in [
        "../../other/manifests/latest",
        "d-2026-01-01/../x",
        "d-2026-01-01?x",
        "",
        "d-2026-01-01\u{1b}[2J",
        "..",
    ] {
        plant(&registry, tag, &manifest(&format!(r#""hostile":"{}""#, tag.len())));
    }
    for deletes in [Deletes::Images(405), Deletes::All] {
        registry.behave(|behaviour| behaviour.deletes = deletes);
        let pruned = run(&registry, &Options { template: None, ..keep_last(2) })
            .unwrap_or_else(|error| panic!("{error}"));
        let pruned = pruned.removed().count() + run(&registry, &keep_last(2)).unwrap().removed().count();
        assert!(pruned > 0 || deletes == Deletes::All);
    }
    let left = tags(&registry);
    for tag in
        ["d-1970-01-01", "d-0000-01-01", "d-1970-01-02", "d-9999-12-31", "..", "../../other/manifests/latest"]
    {
        assert!(left.iter().any(|other| other == tag), "{tag:?} in {left:?}");
    }
    let paths = [Method::GET, Method::HEAD, Method::DELETE].map(|method| registry.paths(method)).concat();
    assert!(
        paths.iter().all(|path| path == "/v2/" || path.starts_with("/v2/data/") && !path.contains("..")),
        "{paths:?}"
    );
}
