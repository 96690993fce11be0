//! Signatures from a hostile registry.

use super::{Place, host, key, public, signer};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use std::io::Cursor;
use std::sync::atomic::{AtomicU32, Ordering};
use volio::error::Kind;
use volio::oci::{Descriptor, Digest, Document, attachment_tags, media_type};
use volio::stream::{Body, Unverified};
use volio::transport::{Destination, Source};
use volio::trust::{Bundle, Payload};
use volio::{SignaturePolicy, SignedPart, SignedSource};

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

fn upload(to: &dyn Destination, media_type: &str, bytes: &[u8]) -> Descriptor {
    to.upload(Body::new(Cursor::new(bytes.to_vec()))).unwrap();
    Descriptor::of(media_type, bytes)
}

/// Stores simple signatures of an image: payloads with what stands in the annotation.
fn plant_simple(place: &Place, subject: &Digest, signatures: &[(Vec<u8>, String)]) {
    let to = place.destination();
    let config = upload(&*to, media_type::CONFIG, b"{}");
    let layers: Vec<_> = signatures
        .iter()
        .map(|(payload, signature)| {
            let mut layer = upload(&*to, SIMPLE, payload);
            layer.annotations.insert(SIGNATURE.to_owned(), signature.clone());
            layer
        })
        .collect();
    let json = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": layers,
    });
    let manifest = Document::new(media_type::MANIFEST, json.to_string().into_bytes());
    to.put_manifest(&manifest).unwrap();
    to.attach(&attachment_tags(subject)[0], &manifest).unwrap();
}

/// Stores a bundle with these bytes that says that it is about the image.
fn plant_bundle(place: &Place, subject: &Descriptor, bytes: &[u8]) {
    let to = place.destination();
    let config = upload(&*to, "application/vnd.oci.empty.v1+json", b"{}");
    let layer = upload(&*to, BUNDLE, bytes);
    let json = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "artifactType": BUNDLE, "config": config,
        "layers": [layer], "subject": subject,
    });
    to.put_manifest(&Document::new(media_type::MANIFEST, json.to_string().into_bytes())).unwrap();
}

/// A payload for this digest, and its signature by the trusted key.
fn signed_payload(digest: &Digest) -> (Vec<u8>, String) {
    let place = Place::layout();
    // The signer of the library is the only one that signs: a stranger's payload is taken from another image.
    let payload = Payload { reference: "registry.example/data:v1".to_owned(), digest: digest.clone() };
    let subject = Descriptor::new(media_type::MANIFEST, digest.clone(), 2);
    signer("signer").sign([&subject], &*place.destination()).unwrap();
    let tag = attachment_tags(digest)[0].clone();
    let document = place.source().tagged(&tag).unwrap().unwrap();
    let manifest = volio::oci::Manifest::parse(&document).unwrap();
    (payload.to_bytes(), manifest.layers[0].annotations[SIGNATURE].clone())
}

fn refusal(place: &Place) -> String {
    let error = place.trusting(&["signer"], host()).resolve().unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    error.to_string()
}

#[test]
fn signatures_that_openssl_would_refuse_are_refused() {
    let place = Place::layout();
    let digest = place.pack("content", None).digest;
    let (payload, signature) = signed_payload(&digest);
    let der = BASE64_STANDARD.decode(&signature).unwrap();
    let encoded = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    let changed =
        |from: &str, to: &str| String::from_utf8(payload.clone()).unwrap().replace(from, to).into_bytes();
    let bad: Vec<(Vec<u8>, String)> = vec![
        (payload.clone(), String::new()),
        (payload.clone(), "not base64!".to_owned()),
        (payload.clone(), encoded(&[])),
        (payload.clone(), encoded(&[0x30; 10_000])),
        (payload.clone(), encoded(&der[..der.len() - 1])),
        (payload.clone(), encoded(&[der.as_slice(), &[0]].concat())),
        (changed("v1", "v2"), signature.clone()),
        (changed("}", "} "), signature.clone()),
        (b"not JSON".to_vec(), signature.clone()),
        (Vec::new(), signature.clone()),
        (vec![b'['; 200_000], signature.clone()),
        signed_payload(&Digest::of(b"another image")),
    ];
    for one in &bad {
        plant_simple(&place, &digest, std::slice::from_ref(one));
        refusal(&place);
    }
    plant_simple(&place, &digest, &bad);
    let message = refusal(&place);
    assert!(message.contains("and 7 more"), "{message}");
    // A valid one among them counts.
    plant_simple(&place, &digest, &[bad.as_slice(), &[(payload, signature)]].concat());
    place.trusting(&["signer"], host()).resolve().unwrap();
}

#[test]
fn bundles_of_other_images_and_broken_ones_are_refused() {
    let place = Place::layout();
    place.pack("content", None);
    let root = place.source().resolve().unwrap().descriptor().clone();
    let of_another = Bundle::sign(&key("signer"), &Digest::of(b"another image"));
    let valid = String::from_utf8(Bundle::sign(&key("signer"), &root.digest)).unwrap();
    let by_another_key = Bundle::sign(&key("other"), &root.digest);
    for bytes in [
        of_another,
        by_another_key,
        valid.replace("sig\":\"", "sig\":\"AAAA").into_bytes(),
        valid.replace("\"payload\":\"", "\"payload\":\"AAAA").into_bytes(),
        valid.as_bytes()[..valid.len() / 2].to_vec(),
        b"{}".to_vec(),
    ] {
        plant_bundle(&place, &root, &bytes);
        refusal(&place);
    }
    plant_bundle(&place, &root, valid.as_bytes());
    place.trusting(&["signer"], host()).resolve().unwrap();
}

#[test]
fn a_bundle_counts_only_for_the_image_that_its_manifest_and_its_statement_name() {
    let place = Place::registry();
    place.pack("content", None);
    let root = place.source().resolve().unwrap().descriptor().clone();
    let stranger = Descriptor::of(media_type::MANIFEST, b"another image");
    // It is about this image and listed for another one.
    plant_bundle(&place, &stranger, &Bundle::sign(&key("signer"), &root.digest));
    assert!(refusal(&place).contains("neither a .sig tag nor a bundle"));
}

#[test]
fn an_index_under_the_tag_of_signatures_is_not_a_signature() {
    let place = Place::layout();
    let digest = place.pack("content", None).digest;
    let index = place.source().resolve().unwrap();
    place.destination().attach(&attachment_tags(&digest)[0], &index).unwrap();
    assert!(refusal(&place).contains("signatures are listed in a manifest"));
    let error = volio::sign::sign(
        &*place.source(),
        &*place.destination(),
        &signer("signer"),
        &volio::progress::Silent,
    )
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
}

#[test]
fn thousands_of_signatures_are_not_read() {
    let place = Place::layout();
    let digest = place.pack("content", None).digest;
    let (payload, signature) = signed_payload(&digest);
    let garbage = vec![(b"{}".to_vec(), BASE64_STANDARD.encode([0x30; 70])); 5000];
    plant_simple(&place, &digest, &[garbage.as_slice(), &[(payload, signature)]].concat());
    assert!(refusal(&place).contains("95 more"));
    // Another one after them would not be read either.
    let signed = volio::sign::sign(
        &*place.source(),
        &*place.destination(),
        &signer("signer"),
        &volio::progress::Silent,
    );
    assert_eq!(signed.unwrap_err().kind(), Kind::Refused);
}

#[test]
fn an_error_about_hostile_signatures_is_short() {
    let place = Place::layout();
    place.pack("content", None);
    let root = place.source().resolve().unwrap().descriptor().clone();
    let valid = String::from_utf8(Bundle::sign(&key("signer"), &root.digest)).unwrap();
    for number in 0..20 {
        let long = format!("{number}{}", "\\u0001".repeat(30_000));
        plant_bundle(&place, &root, valid.replace(BUNDLE, &long).as_bytes());
    }
    let message = refusal(&place);
    assert!(message.contains("and 15 more") && message.len() < 5000, "{}", message.len());
}

/// A source whose name means another document at each second request.
struct Alternating {
    source: Box<dyn Source>,
    other: Document,
    requests: AtomicU32,
}

impl Source for Alternating {
    fn resolve(&self) -> volio::Result<Document> {
        match self.requests.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => self.source.resolve(),
            _ => Ok(self.other.clone()),
        }
    }

    fn open(&self, descriptor: &Descriptor) -> volio::Result<Unverified> {
        self.source.open(descriptor)
    }

    fn tagged(&self, tag: &str) -> volio::Result<Option<Document>> {
        self.source.tagged(tag)
    }
}

#[test]
fn a_name_that_means_another_image_at_the_second_request_is_verified_again() {
    let place = Place::layout();
    place.pack("unsigned", None);
    let other = place.source().resolve().unwrap();
    place.pack("content", Some(signer("signer")));
    let source = Alternating { source: place.source(), other, requests: AtomicU32::new(0) };
    let policy = SignaturePolicy::from_keys(vec![public("signer")]);
    let source = SignedSource::new(Box::new(source), &place.location, &policy, SignedPart::Whole).unwrap();
    source.resolve().unwrap();
    assert_eq!(source.resolve().unwrap_err().kind(), Kind::Integrity);
}
