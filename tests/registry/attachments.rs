//! Attachments of images, copied with them: signatures in all forms, of the index and of each platform.

use super::Registry;
use axum::http::Method;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Mutex;
use volio::copy::{self, Copied, TagCopied, copy, copy_tags};
use volio::error::Kind;
use volio::oci::{Descriptor, Document, Index, Manifest, attachment_tags, media_type, referrers_tag};
use volio::progress::{Progress, Silent, Task, TaskInfo};
use volio::stream::Body;
use volio::tags;
use volio::transport::{Access, Destination, Location, Source, fetch};

const NOTATION: &str = "application/vnd.cncf.notary.signature";
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Stores a manifest with one layer for each word. The type of its config is `kind`.
pub(super) fn put(
    to: &dyn Destination,
    kind: &str,
    layer: &str,
    words: &[&str],
    subject: Option<&Document>,
) -> Document {
    let blob = |media_type: &str, text: &str| {
        to.upload(Body::new(Cursor::new(text.to_owned()))).unwrap();
        Descriptor::of(media_type, text.as_bytes())
    };
    let config = blob(kind, &format!(r#"{{"of":"{}"}}"#, words.join(" ")));
    let layers: Vec<_> = words.iter().map(|word| blob(layer, word)).collect();
    let mut json = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": layers,
    });
    if let Some(subject) = subject {
        json["subject"] = serde_json::to_value(subject.descriptor()).unwrap();
        json["annotations"] = serde_json::json!({"io.cncf.notary.x509chain.thumbprint#S256": "[]"});
    }
    let document = Document::new(media_type::MANIFEST, json.to_string().into_bytes());
    to.put_manifest(&document).unwrap();
    document
}

pub(super) fn signature(to: &dyn Destination, subject: &Document, suffix: &str, words: &[&str]) -> Document {
    let document = put(to, media_type::CONFIG, SIMPLE_SIGNING, words, None);
    to.attach(&format!("{}{suffix}", referrers_tag(&subject.descriptor().digest)), &document).unwrap();
    document
}

/// Stores an index of two platforms.
pub(super) fn image(to: &dyn Destination, word: &str) -> [Document; 3] {
    let platforms = ["amd64", "arm64"];
    let manifests = platforms.map(|platform| {
        put(to, media_type::CONFIG, "application/octet-stream", &[&format!("{word} for {platform}")], None)
    });
    let entries = manifests.iter().map(|manifest| manifest.descriptor().clone()).collect();
    let index = Document::write(media_type::INDEX, &Index::new(entries, BTreeMap::default()));
    to.put_manifest(&index).unwrap();
    to.commit(&index).unwrap();
    let [amd64, arm64] = manifests;
    [index, amd64, arm64]
}

/// Signs an index and its platforms in all forms: as cosign 2, cosign 3 and notation do. There are also an SBOM with a
/// signature, and an index under the tag of a signature.
pub(super) fn sign(to: &dyn Destination, image: &[Document; 3]) -> Vec<Document> {
    let mut made = Vec::new();
    let of = image[0].descriptor().digest.short();
    for (number, subject) in image.iter().enumerate() {
        made.push(signature(to, subject, ".sig", &[&format!("signature {number} of {of}")]));
        made.push(put(to, BUNDLE, BUNDLE, &[&format!("bundle {number} of {of}")], Some(subject)));
    }
    let notation =
        put(to, NOTATION, "application/jose+json", &[&format!("notation of {of}")], Some(&image[1]));
    let sbom = signature(to, &image[2], ".sbom", &[&format!("sbom of {of}")]);
    let its_signature = signature(to, &sbom, ".sig", &[&format!("signature of the sbom of {of}")]);
    let counter =
        put(to, NOTATION, "application/cose", &[&format!("counter signature of {of}")], Some(&its_signature));
    let attested = put(to, media_type::CONFIG, SIMPLE_SIGNING, &[&format!("attestation of {of}")], None);
    let index = Index::new(vec![attested.descriptor().clone()], BTreeMap::default());
    let index = Document::write(media_type::INDEX, &index);
    to.put_manifest(&index).unwrap();
    to.attach(&attachment_tags(&image[0].descriptor().digest)[1], &index).unwrap();
    made.extend([notation, sbom, its_signature, counter, index]);
    made
}

pub(super) fn registry(lists_referrers: bool) -> Registry {
    let registry = Registry::start();
    registry.behave(|behaviour| behaviour.lists_referrers = lists_referrers);
    registry
}

fn with_referrers() -> copy::Options {
    copy::Options { referrers: true, ..copy::Options::default() }
}

fn copied(from: &dyn Source, to: &dyn Destination) -> Copied {
    copy(from, to, &with_referrers(), &Silent).unwrap()
}

/// Checks that everything that was made is there, found by its subject or its tag.
fn assert_signed(place: &dyn Source, image: &[Document; 3], made: &[Document], what: &str) {
    for document in made {
        assert_eq!(&fetch(place, document.descriptor()).unwrap(), document, "{what}");
    }
    let referrers = |subject: &Document| place.referrers(&subject.descriptor().digest).unwrap();
    for (number, subject) in image.iter().enumerate() {
        let tag = &attachment_tags(&subject.descriptor().digest)[0];
        assert_eq!(place.tagged(tag).unwrap().as_ref(), Some(&made[2 * number]), "{what}");
        let expected = &made[2 * number + 1].descriptor().digest;
        assert!(referrers(subject).iter().any(|entry| entry.digest == *expected), "{what} {number}");
    }
    let [notation, sbom, its_signature, counter, index] = &made[6..] else { panic!("{}", made.len()) };
    let kinds = |subject: &Document| -> Vec<_> {
        let found = referrers(subject);
        found.iter().filter_map(|entry| place.open(entry).is_ok().then_some(entry.digest.clone())).collect()
    };
    assert!(kinds(&image[1]).contains(&notation.descriptor().digest), "{what}");
    assert!(kinds(its_signature).contains(&counter.descriptor().digest), "{what}");
    let tagged = |subject: &Document, which: usize| {
        place.tagged(&attachment_tags(&subject.descriptor().digest)[which]).unwrap()
    };
    assert_eq!(tagged(&image[2], 2).as_ref(), Some(sbom), "{what}");
    assert_eq!(tagged(sbom, 0).as_ref(), Some(its_signature), "{what}");
    assert_eq!(tagged(&image[0], 1).as_ref(), Some(index), "{what}");
}

#[test]
fn all_forms_of_signatures_reach_another_registry_through_a_layout_and_an_archive() {
    let directory = tempfile::tempdir().unwrap();
    for (from_lists, to_lists) in [(true, true), (true, false), (false, true), (false, false)] {
        let from = registry(from_lists);
        let client = from.client("data", "v1");
        let image = image(&client, "data");
        let made = sign(&client, &image);
        for scheme in ["oci", "oci-archive"] {
            let what = format!("{from_lists} {to_lists} {scheme}");
            let path = directory.path().join(what.replace(' ', "-"));
            let stick: Location = format!("{scheme}:{}:v1", path.display()).parse().unwrap();
            let access = Access::default();
            let done = copied(&client, &*stick.destination(&access).unwrap());
            assert_eq!(done.referrers, made.len() as u64, "{what}");
            let stick = stick.source(&access).unwrap();
            assert_signed(&*stick, &image, &made, &what);
            let to = registry(to_lists);
            let there = to.client("data", "v1");
            assert_eq!(copied(&*stick, &there).referrers, made.len() as u64, "{what}");
            assert_signed(&there, &image, &made, &what);
            let tag = referrers_tag(&image[0].descriptor().digest);
            assert_eq!(Source::tagged(&there, &tag).unwrap().is_some(), !to_lists, "{what}");
        }
    }
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn begin(&self, info: &TaskInfo) -> Box<dyn Task> {
        Silent.begin(info)
    }

    fn warn(&self, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

#[test]
fn attachments_are_not_images_for_all_tags_and_travel_once() {
    let (from, to, bare) = (registry(false), registry(true), registry(true));
    let [one, two] = ["one", "two"].map(|tag| {
        let client = from.client("data", tag);
        let image = image(&client, tag);
        let made = sign(&client, &image);
        (image, made)
    });
    // Another tag of the first, and a signature of an image that has no tag.
    from.client("data", "latest").commit(&one.0[0]).unwrap();
    let absent = Document::new(media_type::MANIFEST, b"absent".to_vec());
    signature(&from.client("data", "one"), &absent, ".sig", &["signature of nothing"]);
    let all = from.client("data", "one").tags().unwrap();
    let listed = tags::list(&from.client("data", "one")).unwrap();
    assert_eq!(listed.images, ["latest", "one", "two"]);
    assert_eq!(listed.images.len() + listed.attachments.len(), all.len());

    let copied = |to: &Registry, options: &copy::Options, warnings: &Warnings| -> Vec<TagCopied> {
        let open = |tag: &str| -> volio::Result<(Box<dyn Source>, Box<dyn Destination>)> {
            Ok((Box::new(from.client("data", tag)), Box::new(to.client("data", tag))))
        };
        copy_tags(&all, open, options, warnings).unwrap()
    };
    let warnings = Warnings::default();
    let done = copied(&to, &with_referrers(), &warnings);
    assert_eq!(done.iter().map(|tag| tag.tag.as_str()).collect::<Vec<_>>(), ["latest", "one", "two"]);
    let counts: Vec<u64> = done.iter().map(|tag| tag.outcome.as_ref().unwrap().referrers).collect();
    assert_eq!(
        counts,
        [one.1.len() as u64, 0, two.1.len() as u64],
        "the second tag of an image has nothing new"
    );
    for (image, made) in [&one, &two] {
        assert_signed(&to.client("data", "one"), image, made, "all tags");
    }
    let tag = &attachment_tags(&one.0[0].descriptor().digest)[0];
    let puts = to.paths(Method::PUT).iter().filter(|path| path.ends_with(tag)).count();
    assert_eq!(puts, 1, "an attachment is written once");
    let absent = &attachment_tags(&absent.descriptor().digest)[0];
    let warned = warnings.0.lock().unwrap().clone();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains(&format!("such as {absent} (1 in all)")), "{warned:?}");

    let warnings = Warnings::default();
    copied(&bare, &copy::Options::default(), &warnings);
    assert_eq!(bare.client("data", "one").tags().unwrap(), ["latest", "one", "two"]);
    let warned = warnings.0.lock().unwrap().clone();
    assert!(warned.len() == 1 && warned[0].contains("without --referrers"), "{warned:?}");
}

#[test]
fn a_tag_that_only_resembles_that_of_an_attachment_is_the_tag_of_an_image() {
    let from = registry(true);
    let client = from.client("data", "v1");
    let [index, ..] = image(&client, "data");
    let tag = &attachment_tags(&index.descriptor().digest)[0];
    let images = [tag.replace("sha256", "SHA256"), tag.replacen("-", "-0", 1), tag.to_uppercase()];
    for image in [&images[0], &images[1], &images[2], &tag[..70].to_owned()] {
        client.attach(image, &index).unwrap();
    }
    let listed = tags::list(&client).unwrap();
    assert_eq!((listed.images.len(), listed.attachments), (5, Vec::new()));
}

// The site at the other end may sign too: its signatures are in the same manifest.
#[test]
fn signatures_that_the_destination_added_are_not_replaced() {
    let (from, to) = (registry(true), registry(true));
    let (source, there) = (from.client("data", "v1"), to.client("data", "v1"));
    let image = image(&source, "data");
    signature(&source, &image[0], ".sig", &["first"]);
    signature(&source, &image[0], ".sbom", &["old"]);
    copied(&source, &there);
    let tagged = |suffix: &str| {
        let tag = format!("{}{suffix}", referrers_tag(&image[0].descriptor().digest));
        Source::tagged(&there, &tag).unwrap().unwrap()
    };
    // The source has more by now: the destination gets it.
    let more = signature(&source, &image[0], ".sig", &["first", "second"]);
    let sbom = signature(&source, &image[0], ".sbom", &["new"]);
    copied(&source, &there);
    assert_eq!((tagged(".sig"), tagged(".sbom")), (more, sbom));

    let own = signature(&there, &image[0], ".sig", &["first", "second", "inside"]);
    let warnings = Warnings::default();
    copy(&source, &there, &with_referrers(), &warnings).unwrap();
    assert_eq!(tagged(".sig"), own, "nothing is missing there");
    signature(&source, &image[0], ".sig", &["first", "third"]);
    copy(&source, &there, &with_referrers(), &warnings).unwrap();
    let words: Vec<Vec<u8>> = Manifest::parse(&tagged(".sig"))
        .unwrap()
        .layers
        .iter()
        .map(|layer| fetch(&there, layer).unwrap().bytes().to_vec())
        .collect();
    assert_eq!(words, [&b"first"[..], b"second", b"inside", b"third"]);
    assert_eq!(*warnings.0.lock().unwrap(), Vec::<String>::new());
    // More than are read, or another form: what is there stays.
    let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let before = tagged(".sig");
    signature(&source, &image[0], ".sig", &many);
    copy(&source, &there, &with_referrers(), &warnings).unwrap();
    let other = put(&source, NOTATION, SIMPLE_SIGNING, &["other"], None);
    source.attach(&attachment_tags(&image[0].descriptor().digest)[0], &other).unwrap();
    copy(&source, &there, &with_referrers(), &warnings).unwrap();
    assert_eq!(tagged(".sig"), before);
    let warned = warnings.0.lock().unwrap().clone();
    assert!(
        warned.len() == 2 && warned[0].contains("more than 100") && warned[1].contains("another form"),
        "{warned:?}"
    );
}

#[test]
fn attachments_are_listed_with_the_images_that_they_belong_to() {
    for lists_referrers in [true, false] {
        let registry = registry(lists_referrers);
        let client = registry.client("data", "v1");
        let image = image(&client, "data");
        let made = sign(&client, &image);
        client.attach("latest", &image[0]).unwrap();
        let absent = Document::new(media_type::MANIFEST, b"absent".to_vec());
        signature(&client, &absent, ".sig", &["signature of nothing"]);
        let listed = tags::list(&client).unwrap();
        let attachments = tags::attachments(&listed, &client).unwrap();
        assert_eq!(attachments.len(), listed.attachments.len());
        for attachment in attachments {
            let subject = attachment.subject.unwrap();
            let expected: &[&str] =
                if subject == absent.descriptor().digest { &[] } else { &["latest", "v1"] };
            assert_eq!(attachment.images, expected, "{}", attachment.tag);
            let known = image.iter().chain(&made).any(|document| document.descriptor().digest == subject);
            assert!(known || expected.is_empty(), "{}", attachment.tag);
        }
    }
}

#[test]
fn attachments_that_never_end_are_not_followed() {
    let (from, to) = (registry(true), registry(true));
    let client = from.client("data", "v1");
    let [index, ..] = image(&client, "data");
    let mut subject = index;
    for number in 0..10 {
        subject = signature(&client, &subject, ".sig", &[&format!("signature {number}")]);
    }
    let error = copy(&client, &to.client("data", "v1"), &with_referrers(), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    assert!(to.client("data", "v1").resolve().is_err());
}

#[test]
fn the_tag_of_a_signature_of_a_sha512_digest_is_refused_with_the_reason() {
    let registry = registry(true);
    let client = registry.client("data", "v1");
    let [index, ..] = image(&client, "data");
    let error = client.attach(&format!("sha512-{}.sig", "0".repeat(128)), &index).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage, "{error}");
    assert!(error.hint().unwrap().contains("SHA-512"), "{error}");
}
