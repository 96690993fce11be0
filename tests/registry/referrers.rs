//! Referrers of an image: listed by the registry, or by clients under a tag.

use super::Registry;
use axum::http::Method;
use std::io::Cursor;
use volio::copy::{self, Copied, copy};
use volio::error::Kind;
use volio::oci::{Descriptor, Document, Index, attachment_tags, media_type, referrers_tag};
use volio::progress::Silent;
use volio::stream::Body;
use volio::transport::layout::Layout;
use volio::transport::{Access, Destination, Source};

/// Stores an artifact that refers to a manifest.
fn sign(to: &dyn Destination, subject: &Document, word: &str) -> Document {
    let blob = Descriptor::of("application/octet-stream", word.as_bytes());
    to.upload(Body::new(Cursor::new(word.to_owned()))).unwrap();
    let json = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "artifactType": "test/signature",
        "config": blob, "layers": [blob], "subject": subject.descriptor(), "annotations": {"word": word},
    });
    let document = Document::new(media_type::MANIFEST, json.to_string().into_bytes());
    to.put_manifest(&document).unwrap();
    document
}

/// Stores an image, two signatures of it, and a signature of one of them.
fn fill(to: &dyn Destination) -> [Document; 4] {
    let config = Descriptor::of(media_type::CONFIG, b"{}");
    to.upload(Body::new(&b"{}"[..])).unwrap();
    let json = serde_json::json!({"schemaVersion": 2, "config": config, "layers": []});
    let image = Document::new(media_type::MANIFEST, json.to_string().into_bytes());
    to.put_manifest(&image).unwrap();
    let [one, two] = ["one", "two"].map(|word| sign(to, &image, word));
    let deep = sign(to, &two, "deep");
    to.commit(&image).unwrap();
    [image, one, two, deep]
}

fn listed(place: &dyn Source, subject: &Document) -> Vec<String> {
    let mut words: Vec<_> = place
        .referrers(&subject.descriptor().digest)
        .unwrap()
        .iter()
        .map(|entry| {
            Document::new("", place_bytes(place, entry)).as_referrer().unwrap().1.annotations["word"].clone()
        })
        .collect();
    words.sort();
    words
}

fn place_bytes(place: &dyn Source, entry: &Descriptor) -> Vec<u8> {
    volio::transport::fetch(place, entry).unwrap().bytes().to_vec()
}

fn copied(from: &dyn Source, to: &dyn Destination) -> Copied {
    copy(from, to, &copy::Options { referrers: true, ..copy::Options::default() }, &Silent).unwrap()
}

fn registry(lists_referrers: bool) -> Registry {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.lists_referrers = lists_referrers);
    registry
}

#[test]
fn referrers_are_copied_between_registries_of_both_kinds_and_layouts() {
    let directory = tempfile::tempdir().unwrap();
    for (from_lists, to_lists) in [(true, true), (true, false), (false, true), (false, false)] {
        let (from, to) = (registry(from_lists), registry(to_lists));
        let [image, _, two, _] = fill(&from.client("data", "v1"));
        let layout = directory.path().join(format!("{from_lists}-{to_lists}"));
        let stick = Layout::create(&layout, Some("v1")).unwrap();
        assert_eq!(copied(&from.client("data", "v1"), &stick).referrers, 3);
        let stick = Layout::open(&layout, None, None).unwrap();
        assert_eq!(stick.resolve().unwrap(), image, "still the only image in the layout");
        assert_eq!(copied(&stick, &to.client("data", "v1")).referrers, 3);
        for place in [&to.client("data", "v1") as &dyn Source, &stick] {
            assert_eq!(listed(place, &image), ["one", "two"], "{from_lists} {to_lists}");
            assert_eq!(listed(place, &two), ["deep"]);
        }
    }
}

#[test]
fn a_registry_that_lists_referrers_gets_no_tags_for_them() {
    let lists = registry(true);
    fill(&lists.client("data", "v1"));
    assert_eq!(lists.client("data", "v1").tags().unwrap(), ["v1"]);
    let does_not = registry(false);
    let [image, _, two, _] = fill(&does_not.client("data", "v1"));
    let mut tags = [&image, &two].map(|document| referrers_tag(&document.descriptor().digest)).to_vec();
    tags.push("v1".to_owned());
    tags.sort();
    assert_eq!(does_not.client("data", "v1").tags().unwrap(), tags);
}

#[test]
fn an_index_under_a_tag_names_each_referrer_once_with_its_type_and_annotations() {
    let registry = registry(false);
    let client = registry.client("data", "v1");
    let [image, one, ..] = fill(&client);
    client.put_manifest(&one).unwrap();
    let index = registry.client("data", &referrers_tag(&image.descriptor().digest)).resolve().unwrap();
    let index = Index::parse(&index).unwrap();
    assert_eq!(index.manifests.len(), 2);
    assert_eq!(index.manifests[0].annotations["word"], "one");
    assert_eq!(index.manifests[0].extra.get("artifactType"), Some("test/signature".into()));
}

#[test]
fn referrers_are_not_copied_without_the_option() {
    let (from, to) = (registry(true), registry(true));
    let [image, ..] = fill(&from.client("data", "v1"));
    let before = from.requests().len();
    let done = copy(&from.client("data", "v1"), &to.client("data", "v1"), &copy::Options::default(), &Silent)
        .unwrap();
    assert_eq!(done.referrers, 0);
    assert!(listed(&to.client("data", "v1"), &image).is_empty());
    assert!(from.requests()[before..].iter().all(|request| !request.path.contains("/referrers/")));
}

#[test]
fn a_listed_referrer_that_is_missing_or_has_another_subject_is_left_out() {
    let (from, to) = (registry(false), registry(true));
    let client = from.client("data", "v1");
    let [image, _, two, _] = fill(&client);
    // The list also names a deleted manifest and a signature of a signature.
    let gone = Descriptor::of(media_type::MANIFEST, b"gone");
    let deep = client.referrers(&two.descriptor().digest).unwrap();
    let index = Index::new([vec![gone], deep].concat(), Default::default());
    let index = Document::write(media_type::INDEX, &index);
    from.plant("data", &referrers_tag(&image.descriptor().digest), media_type::INDEX, index.bytes().to_vec());
    assert_eq!(copied(&client, &to.client("data", "v1")).referrers, 0);
}

#[test]
fn referrers_that_cannot_be_listed_fail_the_copy() {
    let (from, to) = (registry(true), registry(true));
    fill(&from.client("data", "v1"));
    from.behave(|behaviour| {
        behaviour.refusals.push(super::Refusal {
            method: Method::GET,
            path: "/referrers/",
            status: 403,
            body: String::new(),
            ..super::Refusal::default()
        });
    });
    let options = copy::Options { referrers: true, ..copy::Options::default() };
    let error = copy(&from.client("data", "v1"), &to.client("data", "v1"), &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(to.client("data", "v1").resolve().is_err(), "an image without what was asked for gets no name");
}

/// Attaches a manifest to another as cosign does, under a tag made of the digest.
fn attach(to: &Registry, subject: &Document, ending: &str) -> Document {
    let tag = format!("{}.{ending}", referrers_tag(&subject.descriptor().digest));
    let client = to.client("data", &tag);
    let layer = Descriptor::of("application/vnd.dev.cosign.simplesigning.v1+json", tag.as_bytes());
    client.upload(Body::new(Cursor::new(tag))).unwrap();
    let config = Descriptor::of(media_type::CONFIG, b"{}");
    let json = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": [layer],
    });
    let document = Document::new(media_type::MANIFEST, json.to_string().into_bytes());
    client.put_manifest(&document).unwrap();
    client.commit(&document).unwrap();
    document
}

#[test]
fn attachments_of_cosign_are_copied_with_the_image_and_counted() {
    let (from, to) = (registry(true), registry(true));
    let [image, ..] = fill(&from.client("data", "v1"));
    let signature = attach(&from, &image, "sig");
    attach(&from, &image, "att");
    attach(&from, &image, "sbom");
    attach(&from, &signature, "sig");
    let mut tags = from.client("data", "v1").tags().unwrap();
    assert_eq!(tags.len(), 5);

    let directory = tempfile::tempdir().unwrap();
    let [layout, archive] = ["oci:", "oci-archive:"].map(|scheme| -> volio::transport::Location {
        format!("{scheme}{}/{}:v1", directory.path().display(), scheme.len()).parse().unwrap()
    });
    let access = Access::default();
    for place in [&layout, &archive] {
        let done = copied(&from.client("data", "v1"), &*place.destination(&access).unwrap());
        assert_eq!(done.referrers, 3 + 4, "{place}");
        let stick = place.source(&access).unwrap();
        assert_eq!(stick.tags().unwrap(), tags);
        for tag in attachment_tags(&image.descriptor().digest) {
            assert!(stick.tagged(&tag).unwrap().is_some(), "{place} {tag}");
        }
    }
    let nameless: volio::transport::Location = layout.to_string().trim_end_matches(":v1").parse().unwrap();
    let stick = nameless.source(&access).unwrap();
    assert_eq!(stick.resolve().unwrap(), image, "still the only image in the layout");
    assert_eq!(copied(&*stick, &to.client("data", "v1")).referrers, 7);
    let mut there = to.client("data", "v1").tags().unwrap();
    there.sort();
    tags.sort();
    assert_eq!(there, tags);
    assert_eq!(
        to.client("data", &tags[0]).resolve().unwrap(),
        from.client("data", &tags[0]).resolve().unwrap()
    );
}

#[test]
fn a_missing_foreign_layer_is_reported_with_its_url() {
    let directory = tempfile::tempdir().unwrap();
    let from = Layout::create(&directory.path().join("from"), Some("v1")).unwrap();
    let config = Descriptor::of(media_type::CONFIG, b"{}");
    from.upload(Body::new(&b"{}"[..])).unwrap();
    let url = "https://example.com/layer.tar.gz";
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let mut layer = serde_json::to_value(Descriptor::of(foreign, b"foreign")).unwrap();
    layer["urls"] = serde_json::json!([url]);
    let json = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": [layer],
    });
    let image = Document::new(media_type::MANIFEST, json.to_string().into_bytes());
    from.put_manifest(&image).unwrap();
    from.commit(&image).unwrap();

    let to = Layout::create(&directory.path().join("to"), Some("v1")).unwrap();
    let done = copied(&from, &to);
    assert_eq!((done.blobs_copied, done.blobs_foreign, done.blobs_omitted), (1, 1, 0));
    let layer: Descriptor = serde_json::from_value(layer).unwrap();
    let registry = registry(true);
    for place in [&from as &dyn Source, &registry.client("data", "v1")] {
        let error = place.open(&layer).err().unwrap();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.hint().unwrap().contains(url), "{error:?}");
    }
}
