//! Signatures: made, found, verified and required, in all places of images.

mod bases;
mod hostile;
mod writers;

use crate::registry::Registry;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tempfile::TempDir;
use volio::error::Kind;
use volio::pack::{self, Packed, pack};
use volio::progress::Silent;
use volio::sign::{SignedImage, sign};
use volio::transport::{Access, Destination, Location, Source};
use volio::{
    Error, Platform, PublicKey, SignaturePolicy, SignedPart, SignedSource, Signer, SigningKey, SourceSpec,
    cat, copy, diff, list, unpack, verify,
};

pub fn key(name: &str) -> SigningKey {
    SigningKey::read(&file(name, "pem")).unwrap()
}

pub fn public(name: &str) -> PublicKey {
    PublicKey::read(&file(name, "pub")).unwrap()
}

fn file(name: &str, ending: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fixtures/keys/{name}.{ending}"))
}

/// Writes the file of a tree. Its time is always the same, so that the digest depends on the content only.
fn write(tree: &Path, content: &str) {
    fs::write(tree.join("file"), content).unwrap();
    for path in [&tree.join("file"), tree] {
        fs::File::open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
}

/// A place with an image.
pub struct Place {
    directory: TempDir,
    pub location: Location,
    _registry: Option<Registry>,
}

impl Place {
    pub fn registry() -> Self {
        let registry = Registry::start();
        let location = registry.location("data", "v1");
        Self { directory: tempfile::tempdir().unwrap(), location, _registry: Some(registry) }
    }

    pub fn layout() -> Self {
        Self::local("oci:", "layout:v1")
    }

    fn archive() -> Self {
        Self::local("oci-archive:", "archive.tar:v1")
    }

    fn local(scheme: &str, name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let location = format!("{scheme}{}/{name}", directory.path().display()).parse().unwrap();
        Self { directory, location, _registry: None }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    pub fn source(&self) -> Box<dyn Source> {
        self.location.source(&Access::default()).unwrap()
    }

    pub fn destination(&self) -> Box<dyn Destination> {
        self.location.attachment_destination(&Access::default()).unwrap()
    }

    /// Packs a small tree with this content.
    pub fn pack(&self, content: &str, signer: Option<Signer>) -> Packed {
        let tree = self.path("tree");
        fs::create_dir_all(&tree).unwrap();
        write(&tree, content);
        let options = pack::Options { signer: signer.map(Arc::new), ..pack::Options::default() };
        let to = self.location.destination(&Access::default()).unwrap();
        pack(&*to, &[SourceSpec::new(&tree)], &options, &Silent).unwrap()
    }

    pub fn sign(&self, name: &str) -> SignedImage {
        sign(&*self.source(), &*self.destination(), &signer(name), &Silent).unwrap()
    }

    pub fn trusting(&self, keys: &[&str], part: SignedPart) -> SignedSource<'_> {
        let policy = SignaturePolicy::from_keys(keys.iter().map(|name| public(name)).collect());
        SignedSource::new(self.source(), &self.location, &policy, part).unwrap()
    }
}

pub fn signer(name: &str) -> Signer {
    Signer::new(key(name), vec!["registry.example/data:v1".to_owned()]).unwrap()
}

fn host() -> SignedPart {
    SignedPart::Platform(None)
}

#[test]
fn what_is_signed_is_accepted_in_every_place_and_nothing_else_is() {
    for place in [Place::registry(), Place::layout(), Place::archive()] {
        let packed = place.pack("content", None);
        let unsigned = place.trusting(&["signer"], SignedPart::Whole).resolve().unwrap_err();
        assert_eq!(unsigned.kind(), Kind::Integrity, "{}", place.location);
        assert!(unsigned.to_string().contains("is not signed"), "{unsigned}");

        let signed = place.sign("signer");
        assert_eq!(signed.digest, packed.digest);
        assert_eq!((signed.signatures.documents, signed.signatures.added), (3, 6));
        let root = place.trusting(&["signer"], SignedPart::Whole).resolve().unwrap();
        assert_eq!(root.descriptor().digest, packed.digest);
        place.trusting(&["other", "signer"], host()).resolve().unwrap();

        let other = place.trusting(&["other"], host()).resolve().unwrap_err();
        assert_eq!(other.kind(), Kind::Integrity);
        let message = other.to_string();
        assert!(
            message.contains("made by another key") && message.contains(public("signer").hint()),
            "{message}"
        );
        assert!(message.contains(".sig tag"), "{message}");
    }
}

#[test]
fn a_second_key_replaces_nothing_and_the_same_key_adds_nothing() {
    for place in [Place::registry(), Place::layout(), Place::archive()] {
        place.pack("content", None);
        place.sign("signer");
        let again = place.sign("signer").signatures;
        assert_eq!((again.added, again.present), (0, 6), "{}", place.location);
        assert_eq!(place.sign("other").signatures.added, 6);
        for name in ["signer", "other"] {
            place.trusting(&[name], SignedPart::Whole).resolve().unwrap();
        }
        let again = place.sign("signer").signatures;
        assert_eq!((again.added, again.present), (0, 6));
    }
}

#[test]
fn a_second_name_is_added_to_the_simple_signatures() {
    let place = Place::registry();
    place.pack("content", None);
    place.sign("signer");
    let names = ["registry.example/data:v1", "registry.example/data:latest"].map(str::to_owned);
    let signer = Signer::new(key("signer"), names.to_vec()).unwrap();
    let signed = sign(&*place.source(), &*place.destination(), &signer, &Silent).unwrap().signatures;
    assert_eq!((signed.added, signed.present), (3, 6));
}

#[test]
fn an_image_is_signed_before_it_gets_its_name() {
    for place in [Place::registry(), Place::layout(), Place::archive()] {
        let packed = place.pack("content", Some(signer("signer")));
        assert_eq!(packed.signed.unwrap().added, 6);
        place.trusting(&["signer"], SignedPart::Whole).resolve().unwrap();
    }
    // Nothing has the name if the signatures cannot be stored.
    let place = Place::layout();
    place.pack("one", None);
    let before = place.source().resolve().unwrap();
    let digest = place.pack("two", None).digest;
    let index = fs::read(place.path("layout/index.json")).unwrap();
    let text = String::from_utf8(index).unwrap();
    // The tag of the signatures is taken by an image.
    let tag = format!("sha256-{}.sig", digest.hex());
    let root = before.descriptor();
    let entry = serde_json::json!({
        "mediaType": root.media_type, "digest": root.digest, "size": root.size,
        "annotations": {"org.opencontainers.image.ref.name": tag},
    });
    let mut index: serde_json::Value = serde_json::from_str(&text).unwrap();
    index["manifests"].as_array_mut().unwrap().push(entry);
    fs::write(place.path("layout/index.json"), index.to_string()).unwrap();
    place.pack("three", None);
    let tree = place.path("tree");
    write(&tree, "two");
    let options = pack::Options { signer: Some(Arc::new(signer("signer"))), ..pack::Options::default() };
    let to = place.location.destination(&Access::default()).unwrap();
    let error = pack(&*to, &[SourceSpec::new(&tree)], &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert_ne!(place.source().resolve().unwrap().descriptor().digest, digest);
}

#[test]
fn a_changed_image_under_the_same_name_is_refused_before_a_byte_reaches_the_target() {
    let place = Place::registry();
    place.pack("content", Some(signer("signer")));
    place.pack("changed by somebody", None);
    let target = place.path("target");
    let refused: Vec<Error> = vec![
        unpack::unpack(&place.trusting(&["signer"], host()), &target, &unpack::Options::default(), &Silent)
            .unwrap_err(),
        list::list(&place.trusting(&["signer"], host()), &volio::ReadOptions::default(), &Silent)
            .unwrap_err(),
        cat::cat(
            &place.trusting(&["signer"], host()),
            &[volio::TreePath::parse("file").unwrap()],
            &volio::ReadOptions::default(),
            &mut Vec::new(),
            &Silent,
        )
        .unwrap_err(),
        verify::verify(&place.trusting(&["signer"], SignedPart::Whole), &verify::Options::default(), &Silent)
            .unwrap_err(),
        copy::copy(
            &place.trusting(&["signer"], SignedPart::Whole),
            &volio::Memory::default(),
            &copy::Options::default(),
            &Silent,
        )
        .unwrap_err(),
        diff::diff(
            diff::Side::Image(&place.trusting(&["signer"], host())),
            diff::Side::Directory(&place.path("tree")),
            &diff::Options::default(),
            &Silent,
        )
        .unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), Kind::Integrity, "{error}");
    }
    assert!(!target.exists());
}

#[test]
fn the_signature_of_a_platform_is_enough_for_that_platform_only() {
    let place = Place::registry();
    place.pack("content", None);
    let root = place.source().resolve().unwrap();
    let index = volio::oci::Index::parse(&root).unwrap();
    let arm: Platform = "linux/arm64".parse().unwrap();
    let manifest = index.manifests.iter().find(|entry| entry.platform.as_ref() == Some(&arm)).unwrap();
    signer("signer").sign([manifest], &*place.destination()).unwrap();

    let of = |platform: &str| SignedPart::Platform(Some(platform.parse().unwrap()));
    let chosen = place.trusting(&["signer"], of("linux/arm64")).resolve().unwrap();
    assert_eq!(chosen.descriptor().digest, manifest.digest);
    for part in [of("linux/amd64"), SignedPart::Whole] {
        let error = place.trusting(&["signer"], part).resolve().unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity);
    }
    let target = place.path("target");
    let options = unpack::Options { platform: Some(arm), ..unpack::Options::default() };
    unpack::unpack(&place.trusting(&["signer"], of("linux/arm64")), &target, &options, &Silent).unwrap();
    assert_eq!(fs::read(target.join("file")).unwrap(), b"content");
}

#[test]
fn signatures_travel_with_a_copy_of_referrers() {
    let (from, layout, to) = (Place::registry(), Place::layout(), Place::registry());
    from.pack("content", Some(signer("signer")));
    let options = copy::Options { referrers: true, ..copy::Options::default() };
    let write = |place: &Place| place.location.destination(&Access::default()).unwrap();
    copy::copy(&*from.source(), &*write(&layout), &options, &Silent).unwrap();
    copy::copy(&*layout.source(), &*write(&to), &options, &Silent).unwrap();
    for place in [&layout, &to] {
        place.trusting(&["signer"], SignedPart::Whole).resolve().unwrap();
        place
            .trusting(&["signer"], SignedPart::Platform(Some("linux/arm64".parse().unwrap())))
            .resolve()
            .unwrap();
    }
}

/// Returns the simple signatures of an image.
fn simple_signatures(place: &Place, digest: &volio::Digest) -> Vec<volio::oci::Descriptor> {
    let tag = &volio::oci::attachment_tags(digest)[0];
    let document = place.source().tagged(tag).unwrap().unwrap();
    volio::oci::Manifest::parse(&document).unwrap().layers
}

#[test]
fn a_copy_adds_signatures_to_those_that_the_destination_has() {
    for to in [Place::registry(), Place::layout(), Place::archive()] {
        let from = Place::registry();
        let digest = from.pack("content", Some(signer("signer"))).digest;
        to.pack("content", Some(signer("other")));
        let own = simple_signatures(&to, &digest);
        let options = copy::Options { referrers: true, ..copy::Options::default() };
        let write = |place: &Place| place.location.destination(&Access::default()).unwrap();
        copy::copy(&*from.source(), &*write(&to), &options, &Silent).unwrap();
        let both = simple_signatures(&to, &digest);
        assert_eq!(both, [own, simple_signatures(&from, &digest)].concat(), "{}", to.location);
        for name in ["signer", "other"] {
            to.trusting(&[name], SignedPart::Whole).resolve().unwrap();
        }
        // Every payload is there, and nothing is added again.
        assert!(
            verify::verify(&*to.source(), &verify::Options::default(), &Silent).unwrap().damage.is_empty()
        );
        for payload in &both {
            volio::transport::fetch(&*to.source(), payload).unwrap();
        }
        copy::copy(&*from.source(), &*write(&to), &options, &Silent).unwrap();
        assert_eq!(simple_signatures(&to, &digest), both);
        // Back again: the source gets what the other site has signed.
        copy::copy(&*to.source(), &*write(&from), &options, &Silent).unwrap();
        assert_eq!(simple_signatures(&from, &digest).len(), 2);
    }
}
