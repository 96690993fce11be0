//! The contract of all transports. A transport is tested with an implementation of [`TestTransport`] and one line:
//!
//! ```ignore
//! mod fulfils_the_contract { crate::contract::suite!(super::Fresh::new()); }
//! ```

use std::io::{self, Read};
use std::thread;
use volio::error::Kind;
use volio::layer::Compression;
use volio::oci::{
    Algorithm, Descriptor, Document, Hasher, ImageConfig, Manifest, Platform, RootFs, media_type,
};
use volio::stream::{Body, Unverified, Workers, Written};
use volio::transport::{Destination, Removal, Source, fetch};
use volio::tree::{self, Entry, Metadata, TreePath};
use volio::{Error, Result};

/// An empty transport that stores images by tags.
pub trait TestTransport {
    /// Opens it for reading, bound to a tag.
    fn source(&self, tag: &str) -> Result<Box<dyn Source>>;

    /// Opens it for writing, bound to a tag. It is created if it does not exist.
    fn destination(&self, tag: &str) -> Result<Box<dyn Destination>>;

    /// Opens it for a removal, if it can remove images.
    fn removal(&self, _tag: &str) -> Result<Box<dyn Removal>> {
        Err(Error::usage("it cannot remove images"))
    }

    /// Makes uploaded blobs readable. An archive needs an image with a name for that. All other transports must not need
    /// it, because an interrupted push is continued with the blobs that were uploaded.
    fn settle(&self, _destination: &dyn Destination) {}
}

/// The tests. The expression creates an empty [`TestTransport`] for each of them.
macro_rules! suite {
    ($transport:expr) => {
        $crate::contract::suite! { $transport =>
            a_blob_comes_back_as_it_went_in
            a_blob_of_known_digest_comes_back_as_it_went_in
            an_empty_blob_is_a_blob
            a_blob_may_have_a_sha_512_digest
            a_blob_of_many_blocks_comes_back_as_it_went_in
            a_blob_exists_after_its_upload_and_not_before
            the_same_blob_may_be_uploaded_twice
            blobs_are_uploaded_concurrently
            a_body_that_does_not_match_is_rejected_and_not_stored
            a_body_whose_producer_dies_is_not_stored
            an_image_comes_back_byte_for_byte
            an_image_is_not_visible_before_its_commit
            a_commit_replaces_what_the_name_meant
            a_name_that_was_moved_meanwhile_is_not_replaced
            a_blob_that_was_stored_exists
            an_attached_document_is_found_by_its_tag
            a_document_with_a_subject_is_listed_as_its_referrer
            documents_exist_after_they_were_put
            missing_images_and_blobs_are_not_found
            a_range_of_a_blob_has_the_right_bytes
            ranges_are_read_concurrently
            a_range_that_does_not_match_is_rejected
            a_range_outside_of_the_blob_is_an_error
        }
    };
    ($transport:expr => $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::contract::$case(&$transport);
            }
        )*
    };
}
pub(crate) use suite;

const BLOB: &str = "application/octet-stream";

/// Bytes without repetitions, which cannot be compressed.
fn bytes(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// A body with a digest that is not known before its end.
fn made(bytes: &[u8]) -> Body {
    Body::new(io::Cursor::new(bytes.to_vec()))
}

/// A body that has to match a descriptor.
fn claimed(bytes: &[u8], descriptor: &Descriptor) -> Body {
    Unverified::new(io::Cursor::new(bytes.to_vec())).verify(descriptor)
}

fn read(source: &dyn Source, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let mut body = source.open(descriptor)?.verify(descriptor);
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes).map_err(|error| Error::io("cannot read", error))?;
    body.finish()?;
    Ok(bytes)
}

fn comes_back(transport: &dyn TestTransport, bytes: &[u8]) {
    let descriptor = Descriptor::of(BLOB, bytes);
    let destination = transport.destination("t").unwrap();
    let written = destination.upload(made(bytes)).unwrap();
    assert_eq!(written, Written { digest: descriptor.digest.clone(), size: descriptor.size });
    transport.settle(&*destination);
    assert!(read(&*transport.source("t").unwrap(), &descriptor).unwrap() == bytes);
}

/// Uploads a config that contains `word`, and makes a manifest of it. The manifest has spaces, which would be lost if it
/// was parsed and written again.
fn image(destination: &dyn Destination, word: &str) -> Document {
    let platform = "linux/amd64".parse::<Platform>().unwrap();
    let rootfs = RootFs::new(Vec::new());
    let config =
        ImageConfig { created: Some(word.to_owned()), platform, config: None, rootfs, history: Vec::new() };
    let config = Document::write(media_type::CONFIG, &config);
    destination.upload(made(config.bytes())).unwrap();
    let manifest = Manifest::new(config.descriptor().clone(), Vec::new(), Default::default());
    let pretty = serde_json::to_vec_pretty(&manifest).unwrap();
    Document::new(media_type::MANIFEST, pretty)
}

pub fn publish(destination: &dyn Destination, word: &str) -> Document {
    let document = image(destination, word);
    destination.put_manifest(&document).unwrap();
    destination.commit(&document).unwrap();
    document
}

pub fn a_blob_comes_back_as_it_went_in(transport: &dyn TestTransport) {
    comes_back(transport, b"data");
}

pub fn a_blob_of_known_digest_comes_back_as_it_went_in(transport: &dyn TestTransport) {
    let descriptor = Descriptor::of(BLOB, b"data");
    let destination = transport.destination("t").unwrap();
    let written = destination.upload(claimed(b"data", &descriptor)).unwrap();
    assert_eq!(written, Written { digest: descriptor.digest.clone(), size: 4 });
    transport.settle(&*destination);
    assert_eq!(read(&*transport.source("t").unwrap(), &descriptor).unwrap(), b"data");
}

pub fn an_empty_blob_is_a_blob(transport: &dyn TestTransport) {
    comes_back(transport, b"");
    let descriptor = Descriptor::of(BLOB, b"");
    transport.destination("t").unwrap().upload(claimed(b"", &descriptor)).unwrap();
    assert!(transport.destination("t").unwrap().contains(&descriptor).unwrap());
}

pub fn a_blob_may_have_a_sha_512_digest(transport: &dyn TestTransport) {
    for size in [4, 2_000_000] {
        let bytes = bytes(size, 1);
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(&bytes);
        let descriptor = Descriptor::new(BLOB, hasher.finish(), size as u64);
        let destination = transport.destination("t").unwrap();
        let again = bytes.clone();
        let body = Unverified::new(io::Cursor::new(bytes.clone()))
            .reopenable(move |offset| Ok(Box::new(io::Cursor::new(again[offset as usize..].to_vec()))));
        let written = destination.upload(body.verify(&descriptor)).unwrap();
        assert_eq!(written.digest, descriptor.digest);
        assert!(destination.contains(&descriptor).unwrap());
        transport.settle(&*destination);
        assert!(read(&*transport.source("t").unwrap(), &descriptor).unwrap() == bytes);
    }
}

pub fn a_blob_of_many_blocks_comes_back_as_it_went_in(transport: &dyn TestTransport) {
    // One more and one less than any size of a buffer.
    for size in [(1 << 18) - 1, 1 << 18, (1 << 18) + 1, 5_000_011] {
        comes_back(transport, &bytes(size, 1));
        let bytes = bytes(size, 2);
        let descriptor = Descriptor::of(BLOB, &bytes);
        let destination = transport.destination("t").unwrap();
        destination.upload(claimed(&bytes, &descriptor)).unwrap();
        transport.settle(&*destination);
        assert!(read(&*transport.source("t").unwrap(), &descriptor).unwrap() == bytes);
    }
}

pub fn a_blob_exists_after_its_upload_and_not_before(transport: &dyn TestTransport) {
    let destination = transport.destination("t").unwrap();
    let descriptor = Descriptor::of(BLOB, b"data");
    assert!(!destination.contains(&descriptor).unwrap());
    destination.upload(made(b"data")).unwrap();
    assert!(destination.contains(&descriptor).unwrap());
    assert!(!destination.contains(&Descriptor::of(BLOB, b"other")).unwrap());
}

pub fn the_same_blob_may_be_uploaded_twice(transport: &dyn TestTransport) {
    comes_back(transport, b"data");
    comes_back(transport, b"data");
    a_blob_of_known_digest_comes_back_as_it_went_in(transport);
}

pub fn blobs_are_uploaded_concurrently(transport: &dyn TestTransport) {
    let destination = transport.destination("t").unwrap();
    let blobs: Vec<_> = (0..4).map(|seed| bytes(1_000_000, seed)).collect();
    thread::scope(|scope| {
        for blob in &blobs {
            // The second blob is the same for all threads.
            scope.spawn(|| {
                destination.upload(made(blob)).unwrap();
                destination.upload(claimed(&blobs[0], &Descriptor::of(BLOB, &blobs[0]))).unwrap();
            });
        }
    });
    transport.settle(&*destination);
    let source = transport.source("t").unwrap();
    thread::scope(|scope| {
        for blob in &blobs {
            scope.spawn(|| assert!(read(&*source, &Descriptor::of(BLOB, blob)).unwrap() == *blob));
        }
    });
}

pub fn a_body_that_does_not_match_is_rejected_and_not_stored(transport: &dyn TestTransport) {
    let destination = transport.destination("t").unwrap();
    for size in [4, 1_000_000] {
        let promised = bytes(size, 1);
        let descriptor = Descriptor::of(BLOB, &promised);
        let mut flipped = promised.clone();
        flipped[size / 2] ^= 1;
        let longer = [&promised[..], b"x"].concat();
        for lie in [&flipped[..], &longer, &promised[1..], b""] {
            let error = destination.upload(claimed(lie, &descriptor)).unwrap_err();
            assert_eq!(error.kind(), Kind::Integrity, "{error}");
            assert!(!destination.contains(&descriptor).unwrap());
            assert!(!destination.contains(&Descriptor::of(BLOB, lie)).unwrap());
        }
    }
    let empty = Descriptor::of(BLOB, b"");
    assert_eq!(destination.upload(claimed(b"x", &empty)).unwrap_err().kind(), Kind::Integrity);
    assert!(!destination.contains(&empty).unwrap());
}

pub fn a_body_whose_producer_dies_is_not_stored(transport: &dyn TestTransport) {
    let destination = transport.destination("t").unwrap();
    // Blocks of the largest have left the pipe when its writer dies.
    for size in [0, 1, 3_000_000] {
        let (partial, promised) = (bytes(size, 1), bytes(size + 1, 1));
        let promised_size = promised.len() as u64;
        let dying = || {
            let (mut layer, blob) = Compression::None.layer(&Workers::start(1).unwrap(), 1).unwrap();
            let partial = partial.clone();
            // After a panic or a read error, the writer is dropped in the same way.
            thread::spawn(move || {
                let path = TreePath::parse("partial").unwrap();
                let kind = tree::EntryKind::File { size: promised_size };
                let entry = Entry { path, kind, metadata: Metadata::default() };
                let error = layer.append(&entry, partial.as_slice(), |_| {}).unwrap_err();
                assert!(error.to_string().contains("shorter"), "{error}");
            });
            blob
        };
        let descriptor = Descriptor::of(BLOB, &promised);
        for body in [Body::new(dying()), Unverified::new(dying()).verify(&descriptor)] {
            let error = destination.upload(body).unwrap_err();
            assert!(error.is_broken_pipe(), "{error}");
        }
        assert!(!destination.contains(&descriptor).unwrap());
    }
}

pub fn an_image_comes_back_byte_for_byte(transport: &dyn TestTransport) {
    let document = publish(&*transport.destination("t").unwrap(), "first");
    let source = transport.source("t").unwrap();
    assert_eq!(source.resolve().unwrap(), document);
    let config = Manifest::parse(&document).unwrap().config;
    assert_eq!(
        fetch(&*source, &config).unwrap().parse::<ImageConfig>().unwrap().created.as_deref(),
        Some("first")
    );
}

pub fn an_image_is_not_visible_before_its_commit(transport: &dyn TestTransport) {
    let destination = transport.destination("t").unwrap();
    let document = image(&*destination, "first");
    destination.put_manifest(&document).unwrap();
    let error = transport.source("t").and_then(|source| source.resolve()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

pub fn a_commit_replaces_what_the_name_meant(transport: &dyn TestTransport) {
    let resolve = |tag| transport.source(tag).unwrap().resolve().unwrap();
    let first = publish(&*transport.destination("t").unwrap(), "first");
    let other = publish(&*transport.destination("other").unwrap(), "other");
    assert_eq!(resolve("t"), first);
    let second = publish(&*transport.destination("t").unwrap(), "second");
    assert_ne!(first, second);
    assert_eq!(resolve("t"), second);
    assert_eq!(resolve("other"), other);
}

// Reported of other programs: the last of two writers of a tag wins silently.
pub fn a_name_that_was_moved_meanwhile_is_not_replaced(transport: &dyn TestTransport) {
    let commit = |word: &str, expected: Option<&Document>| {
        let destination = transport.destination("t").unwrap();
        let document = image(&*destination, word);
        destination.put_manifest(&document).unwrap();
        let expected = expected.map(|document| document.descriptor().digest.clone());
        destination.commit_unless_moved(&document, expected.as_ref()).map(|()| document)
    };
    let resolve = || transport.source("t").unwrap().resolve().unwrap();
    let first = commit("first", None).unwrap();
    assert_eq!(resolve(), first);
    let second = commit("second", Some(&first)).unwrap();
    assert_eq!(resolve(), second);
    for expected in [None, Some(&first)] {
        let error = commit("third", expected).unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.to_string().contains(&second.descriptor().digest.to_string()), "{error}");
    }
    assert_eq!(resolve(), second);
}

pub fn a_blob_that_was_stored_exists(transport: &dyn TestTransport) {
    let destination = transport.destination("t").unwrap();
    let descriptor = Descriptor::of(BLOB, b"data");
    assert!(!destination.exists(&descriptor).unwrap());
    destination.upload(made(b"data")).unwrap();
    assert!(destination.exists(&descriptor).unwrap());
}

pub fn an_attached_document_is_found_by_its_tag(transport: &dyn TestTransport) {
    let attach = |destination: &dyn Destination, tag: &str, word: &str| {
        let attachment = image(destination, word);
        destination.put_manifest(&attachment).unwrap();
        destination.attach(tag, &attachment).unwrap();
        attachment
    };
    let destination = transport.destination("t").unwrap();
    let document = publish(&*destination, "first");
    let subject = &document.descriptor().digest;
    let [signature, sbom] = ["sig", "sbom"].map(|ending| format!("sha256-{}.{ending}", subject.hex()));
    assert_eq!(destination.tagged(&signature).unwrap(), None);

    let first = attach(&*destination, &signature, "signature");
    assert_eq!(destination.tagged(&signature).unwrap().as_ref(), Some(&first));
    transport.settle(&*destination);
    for _ in 0..2 {
        assert_eq!(transport.source("t").unwrap().tagged(&signature).unwrap().as_ref(), Some(&first));
        assert_eq!(destination.tagged(&signature).unwrap().as_ref(), Some(&first));
    }

    // Another writer replaces it, and attaches something else.
    let destination = transport.destination("t").unwrap();
    assert_eq!(destination.tagged(&signature).unwrap(), Some(first));
    let second = attach(&*destination, &signature, "another signature");
    let other = attach(&*destination, &sbom, "list");
    destination.publish_attachments().unwrap();
    let source = transport.source("whatever").unwrap();
    for (tag, expected) in [(&signature, second), (&sbom, other)] {
        assert_eq!(source.tagged(tag).unwrap().as_ref(), Some(&expected));
        assert_eq!(destination.tagged(tag).unwrap(), Some(expected));
    }
    assert_eq!(source.tagged(&signature.replace(".sig", ".att")).unwrap(), None);
}

pub fn a_document_with_a_subject_is_listed_as_its_referrer(transport: &dyn TestTransport) {
    let destination = transport.destination("t").unwrap();
    let document = publish(&*destination, "first");
    let about = |subject: &Document, word: &str| {
        let mut manifest: serde_json::Value = image(&*destination, word).parse().unwrap();
        manifest["subject"] = serde_json::to_value(subject.descriptor()).unwrap();
        manifest["artifactType"] = word.into();
        let referrer = Document::new(media_type::MANIFEST, manifest.to_string().into_bytes());
        destination.put_manifest(&referrer).unwrap();
        referrer
    };
    let [one, two] = ["one", "two"].map(|word| about(&document, word));
    about(&one, "deep");
    destination.put_manifest(&two).unwrap();
    transport.settle(&*destination);
    let source = transport.source("t").unwrap();
    let listed = |subject: &Document| {
        let referrers = source.referrers(&subject.descriptor().digest).unwrap();
        let mut types: Vec<_> = referrers.iter().map(|entry| entry.extra.get("artifactType")).collect();
        types.sort_by_key(|kind| kind.as_ref().map(ToString::to_string));
        types
    };
    assert_eq!(listed(&document), [Some("one".into()), Some("two".into())]);
    assert_eq!(listed(&one), [Some("deep".into())]);
    assert_eq!(listed(&two), []);
    assert_eq!(fetch(&*source, one.descriptor()).unwrap(), one);
}

pub fn documents_exist_after_they_were_put(transport: &dyn TestTransport) {
    let destination = transport.destination("t").unwrap();
    let document = image(&*destination, "first");
    assert!(!destination.contains(document.descriptor()).unwrap());
    destination.put_manifest(&document).unwrap();
    assert!(destination.contains(document.descriptor()).unwrap());
    // A second time is allowed, as with blobs.
    destination.put_manifest(&document).unwrap();
    transport.settle(&*destination);
    let source = transport.source("t").unwrap();
    assert_eq!(fetch(&*source, document.descriptor()).unwrap(), document);
}

pub fn missing_images_and_blobs_are_not_found(transport: &dyn TestTransport) {
    // The transport exists, with another image.
    publish(&*transport.destination("t").unwrap(), "first");
    let error = transport.source("absent").and_then(|source| source.resolve()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let source = transport.source("t").unwrap();
    for media_type in [BLOB, media_type::MANIFEST] {
        let error = source.open(&Descriptor::of(media_type, b"absent")).err().unwrap();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
    }
}

/// Uploads a blob, and opens the transport for reading.
fn with_blob(transport: &dyn TestTransport, bytes: &[u8]) -> (Box<dyn Source>, Descriptor) {
    let destination = transport.destination("t").unwrap();
    destination.upload(made(bytes)).unwrap();
    transport.settle(&*destination);
    (transport.source("t").unwrap(), Descriptor::of(BLOB, bytes))
}

pub fn a_range_of_a_blob_has_the_right_bytes(transport: &dyn TestTransport) {
    let bytes = bytes(1_000_003, 1);
    let (source, blob) = with_blob(transport, &bytes);
    for range in [0..1, 0..512, 511..513, 500_000..700_001, 1_000_002..1_000_003, 0..1_000_003] {
        let (start, end) = (range.start as usize, range.end as usize);
        let open = || source.open_range(&blob, range.clone()).unwrap().unwrap();
        let mut read = Vec::new();
        let mut body = open().verify(&Descriptor::of(BLOB, &bytes[start..end]));
        body.read_to_end(&mut read).unwrap();
        assert!(read == bytes[start..end] && body.finish().is_ok());
        // The same in two steps. There is nothing after the range.
        let (mut part, half) = (open(), (end - start) / 2);
        assert!(part.take_unverified(half).unwrap() == bytes[start..start + half]);
        assert!(part.take_unverified(end - start - half).unwrap() == bytes[start + half..end]);
        assert_eq!(part.take_unverified(1).unwrap_err().kind(), Kind::Integrity);
    }
}

pub fn ranges_are_read_concurrently(transport: &dyn TestTransport) {
    let bytes = bytes(1_000_000, 1);
    let (source, blob) = with_blob(transport, &bytes);
    thread::scope(|scope| {
        for part in 0..10 {
            let (source, blob, bytes) = (&source, &blob, &bytes);
            scope.spawn(move || {
                let start = part * 100_000;
                let mut part =
                    source.open_range(blob, start as u64..start as u64 + 100_000).unwrap().unwrap();
                for piece in bytes[start..start + 100_000].chunks(30_000) {
                    assert!(part.take_unverified(piece.len()).unwrap() == piece);
                }
            });
        }
    });
}

pub fn a_range_that_does_not_match_is_rejected(transport: &dyn TestTransport) {
    let (source, blob) = with_blob(transport, b"some data");
    for promised in [&b"date"[..], b"dat", b"data2", b""] {
        let part = source.open_range(&blob, 5..9).unwrap().unwrap();
        let error = part.verify(&Descriptor::of(BLOB, promised)).drain().unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity, "{error}");
    }
    // The blob has less than its descriptor says.
    let longer = Descriptor { size: 20, ..blob };
    let part = source.open_range(&longer, 5..15).and_then(|part| part.unwrap().take_unverified(10));
    assert_eq!(part.unwrap_err().kind(), Kind::Integrity);
}

#[allow(clippy::reversed_empty_ranges)]
pub fn a_range_outside_of_the_blob_is_an_error(transport: &dyn TestTransport) {
    let (source, blob) = with_blob(transport, b"some data");
    for range in [0..0, 9..9, 5..4, 0..10, 9..10, u64::MAX - 1..u64::MAX, 0..u64::MAX] {
        let error = source.open_range(&blob, range).err().unwrap();
        assert_eq!(error.kind(), Kind::Integrity, "{error}");
    }
    let error = source.open_range(&Descriptor::of(BLOB, b"absent"), 0..1).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

/// For transports with tags.
pub fn tags_are_sorted_by_their_bytes(transport: &dyn TestTransport) {
    for tag in ["b", "a", "Z", "a.1", "a"] {
        publish(&*transport.destination(tag).unwrap(), tag);
    }
    assert_eq!(transport.source("whatever").unwrap().tags().unwrap(), ["Z", "a", "a.1", "b"]);
}

/// For transports that can remove images: other tags of the same image are kept.
pub fn a_removed_tag_is_not_found(transport: &dyn TestTransport) {
    let document = publish(&*transport.destination("a").unwrap(), "same");
    publish(&*transport.destination("b").unwrap(), "same");
    let removed = transport.removal("a").unwrap().remove(false).unwrap();
    assert_eq!((removed.digest, removed.tags), (document.descriptor().digest.clone(), vec!["a".to_owned()]));
    assert_eq!(transport.source("a").unwrap().resolve().unwrap_err().kind(), Kind::NotFound);
    assert_eq!(transport.removal("a").unwrap().remove(false).unwrap_err().kind(), Kind::NotFound);
    let source = transport.source("b").unwrap();
    assert_eq!(source.resolve().unwrap(), document);
    fetch(&*source, &Manifest::parse(&document).unwrap().config).unwrap();
}
