//! Signatures, and the keys that make and verify them.

use std::io::Cursor;
use volio::oci::{Descriptor, Digest, Document, Index, media_type};
use volio::stream::Unverified;
use volio::transport::{Location, Source};
use volio::trust::{Bundle, Payload, PublicKey, SignaturePolicy, SigningKey, ensure_signed};

const KEY: &str = include_str!("../../fixtures/keys/signer.pub");

/// Parses payloads, bundles and keys, and looks for a signature in the manifest, the list of referrers and the blobs that a
/// registry answers with. No signature of the image is in the seeds, so that none may be found.
pub fn signatures(bytes: &[u8]) {
    if let Ok(payload) = Payload::parse(bytes) {
        assert_eq!(Payload::parse(&payload.to_bytes()).unwrap(), payload);
    }
    let key = PublicKey::from_pem(KEY).unwrap();
    if let Ok(bundle) = Bundle::parse(bytes) {
        let subjects = bundle.subjects();
        // The seeds have one signature of the key, which is about one digest.
        assert!(!bundle.is_signed_by(&key) || subjects.is_ok_and(|found| found == [Digest::of(b"")]));
    }
    if let Ok(text) = str::from_utf8(bytes) {
        keys(text);
    }
    let answers = Answers(bytes);
    let image: Location = "registry.example/data:v1".parse().unwrap();
    let policy = SignaturePolicy::from_keys(vec![key]);
    let requirements = policy.requirements_for(&image).unwrap();
    let error = ensure_signed(&answers, &Digest::of(b"fuzzing"), &image, requirements).unwrap_err();
    assert!(error.to_string().len() < 20_000, "an error is for a person");
}

fn keys(text: &str) {
    let digest = Digest::of(b"fuzzing");
    match SigningKey::from_pem(text) {
        Ok(key) => {
            let bundle = Bundle::parse(&Bundle::sign(&key, &digest)).unwrap();
            assert!(bundle.is_signed_by(key.public()));
            assert_eq!(bundle.subjects().unwrap(), [digest]);
        }
        // Each line of a key is secret.
        Err(error) => {
            let shown = format!("{error} {error:?} {:?}", error.hint());
            let mut lines = text.lines().filter(|line| line.len() > 30 && !line.starts_with("-----"));
            assert!(lines.all(|line| !shown.contains(line)));
        }
    }
    if let Ok(key) = PublicKey::from_pem(text) {
        assert_eq!(key.hint().len(), 44);
    }
}

/// A registry that gives the same answer to all questions.
struct Answers<'a>(&'a [u8]);

impl Source for Answers<'_> {
    fn resolve(&self) -> volio::Result<Document> {
        Ok(Document::new(media_type::MANIFEST, self.0.to_vec()))
    }

    fn open(&self, _descriptor: &Descriptor) -> volio::Result<Unverified> {
        Ok(Unverified::new(Cursor::new(self.0.to_vec())))
    }

    fn tagged(&self, _tag: &str) -> volio::Result<Option<Document>> {
        self.resolve().map(Some)
    }

    fn referrers(&self, _subject: &Digest) -> volio::Result<Vec<Descriptor>> {
        let index = Document::new(media_type::INDEX, self.0.to_vec());
        let own = Descriptor::of(media_type::MANIFEST, self.0);
        Ok(Index::parse(&index).map_or_else(|_| vec![own], |index| index.manifests))
    }
}
