//! Several signers of one image, and images with very many signatures.

use super::{Place, host, public, signer};
use std::sync::atomic::{AtomicBool, Ordering};
use volio::error::Kind;
use volio::oci::{Descriptor, Digest, Document, Manifest, attachment_tags};
use volio::progress::Silent;
use volio::sign::sign;
use volio::stream::{Body, Written};
use volio::transport::{Destination, Source};
use volio::{Result, SignedPart};

/// A destination where another program signs the image after the first look at its signatures.
struct Interrupted<'a> {
    place: &'a Place,
    destination: Box<dyn Destination>,
    was_interrupted: AtomicBool,
}

impl<'a> Interrupted<'a> {
    fn new(place: &'a Place) -> Self {
        Self { place, destination: place.destination(), was_interrupted: AtomicBool::new(false) }
    }
}

impl Destination for Interrupted<'_> {
    fn contains(&self, descriptor: &Descriptor) -> Result<bool> {
        self.destination.contains(descriptor)
    }

    fn upload(&self, body: Body) -> Result<Written> {
        self.destination.upload(body)
    }

    fn put_manifest(&self, document: &Document) -> Result<()> {
        self.destination.put_manifest(document)
    }

    fn commit(&self, root: &Document) -> Result<()> {
        self.destination.commit(root)
    }

    fn address(&self, digest: &Digest) -> String {
        self.destination.address(digest)
    }

    fn tagged(&self, tag: &str) -> Result<Option<Document>> {
        let found = self.destination.tagged(tag);
        if !self.was_interrupted.swap(true, Ordering::Relaxed) {
            self.place.sign("other");
        }
        found
    }

    fn attach(&self, tag: &str, document: &Document) -> Result<()> {
        self.destination.attach(tag, document)
    }

    fn attach_unless_moved(&self, tag: &str, document: &Document, expected: Option<&Digest>) -> Result<bool> {
        self.destination.attach_unless_moved(tag, document, expected)
    }

    fn publish_attachments(&self) -> Result<()> {
        self.destination.publish_attachments()
    }
}

/// Returns the number of simple signatures of the image.
fn simple_signatures(place: &Place) -> usize {
    let root = place.source().resolve().unwrap();
    let [tag, ..] = attachment_tags(&root.descriptor().digest);
    let document = place.source().tagged(&tag).unwrap().unwrap();
    Manifest::parse(&document).unwrap().layers.len()
}

#[test]
fn of_two_signers_at_once_in_a_layout_both_signatures_stay() {
    let place = Place::layout();
    place.pack("content", None);
    sign(&*place.source(), &Interrupted::new(&place), &signer("signer"), &Silent).unwrap();
    assert_eq!(simple_signatures(&place), 2);
    for name in ["signer", "other"] {
        place.trusting(&[name], SignedPart::Whole).resolve().unwrap();
    }
}

#[test]
fn of_two_signers_at_once_in_an_archive_the_second_one_fails() {
    let place = Place::archive();
    place.pack("content", None);
    let error = sign(&*place.source(), &Interrupted::new(&place), &signer("signer"), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    place.trusting(&["other"], SignedPart::Whole).resolve().unwrap();
    place.sign("signer");
    assert_eq!(simple_signatures(&place), 2);
    place.trusting(&["other"], SignedPart::Whole).resolve().unwrap();
}

/// A source whose documents cannot be read, because of the network.
struct Unreachable(Box<dyn Source>);

impl Source for Unreachable {
    fn resolve(&self) -> Result<Document> {
        self.0.resolve()
    }

    fn open(&self, _descriptor: &Descriptor) -> Result<volio::stream::Unverified> {
        Err(volio::Error::failed("the network is down"))
    }
}

#[test]
fn a_network_that_fails_is_not_a_missing_signature() {
    let place = Place::layout();
    place.pack("content", None);
    let policy = volio::SignaturePolicy::from_keys(vec![public("signer")]);
    let source = Box::new(Unreachable(place.source()));
    let source = volio::SignedSource::new(source, &place.location, &policy, host()).unwrap();
    let error = source.resolve().unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    assert!(error.to_string().contains("the network is down"), "{error}");
}
