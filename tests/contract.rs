//! What every place does, whatever it is. A transport joins in with a [`Place`] and one line:
//!
//! ```ignore
//! mod keeps_the_contract { crate::contract::suite!(super::Fresh::new()); }
//! ```

use std::io::{self, Read};
use std::thread;
use volio::error::Kind;
use volio::layer::Compression;
use volio::oci::{Algorithm, Config, Descriptor, Document, Hasher, Manifest, Platform, RootFs, media_type};
use volio::stream::{Body, Unverified, Workers, Written};
use volio::transport::{Destination, Source, fetch};
use volio::tree::{self, Entry, Metadata, TreePath};
use volio::{Error, Result};

/// A place that is empty in the beginning and holds images by tags.
pub trait Place {
    /// The place for reading, bound to a tag.
    fn source(&self, tag: &str) -> Result<Box<dyn Source>>;

    /// The place for writing, bound to a tag. It is made when it is not there.
    fn destination(&self, tag: &str) -> Result<Box<dyn Destination>>;

    /// Lets others read what was uploaded. An archive takes its place only when an image in it gets a name; all
    /// other places need nothing done, and must not need it: a push that was interrupted goes on where it was.
    fn settle(&self, _destination: &dyn Destination) {}
}

/// The tests of all places; the expression makes a new, empty [`Place`] for each of them.
macro_rules! suite {
    ($place:expr) => {
        $crate::contract::suite! { $place =>
            a_blob_comes_back_as_it_went_in
            a_blob_of_known_digest_comes_back_as_it_went_in
            an_empty_blob_is_a_blob
            a_blob_may_have_a_digest_of_another_kind
            a_blob_of_many_blocks_comes_back_as_it_went_in
            a_blob_is_there_after_its_upload_and_not_before
            the_same_blob_may_be_uploaded_twice
            blobs_are_uploaded_side_by_side
            a_body_that_lies_is_refused_and_leaves_nothing
            a_body_whose_producer_dies_publishes_nothing
            an_image_comes_back_byte_for_byte
            an_image_is_not_seen_before_it_is_committed
            a_commit_replaces_what_the_name_meant
            documents_are_there_after_they_were_put
            what_is_absent_is_not_found
            a_part_of_a_blob_is_that_part
            parts_are_read_side_by_side
            a_part_that_lies_is_refused
            what_a_blob_has_not_is_no_part_of_it
        }
    };
    ($place:expr => $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::contract::$case(&$place);
            }
        )*
    };
}
pub(crate) use suite;

const BLOB: &str = "application/octet-stream";

/// Bytes that no compression and no repetition makes simple.
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

/// A body of our own making, whose digest is not known beforehand.
fn made(bytes: &[u8]) -> Body {
    Body::new(io::Cursor::new(bytes.to_vec()))
}

/// A body from elsewhere that should be what the descriptor says.
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

fn comes_back(place: &dyn Place, bytes: &[u8]) {
    let descriptor = Descriptor::of(BLOB, bytes);
    let destination = place.destination("t").unwrap();
    let written = destination.upload(made(bytes)).unwrap();
    assert_eq!(written, Written { digest: descriptor.digest.clone(), size: descriptor.size });
    place.settle(&*destination);
    assert!(read(&*place.source("t").unwrap(), &descriptor).unwrap() == bytes);
}

/// Uploads a configuration that says `word`, and makes a manifest of it. The spaces are for the digest to lose
/// if somebody writes the document anew.
fn image(destination: &dyn Destination, word: &str) -> Document {
    let platform = "linux/amd64".parse::<Platform>().unwrap();
    let rootfs = RootFs::new(Vec::new());
    let config =
        Config { created: Some(word.to_owned()), platform, config: None, rootfs, history: Vec::new() };
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

pub fn a_blob_comes_back_as_it_went_in(place: &dyn Place) {
    comes_back(place, b"data");
}

pub fn a_blob_of_known_digest_comes_back_as_it_went_in(place: &dyn Place) {
    let descriptor = Descriptor::of(BLOB, b"data");
    let destination = place.destination("t").unwrap();
    let written = destination.upload(claimed(b"data", &descriptor)).unwrap();
    assert_eq!(written, Written { digest: descriptor.digest.clone(), size: 4 });
    place.settle(&*destination);
    assert_eq!(read(&*place.source("t").unwrap(), &descriptor).unwrap(), b"data");
}

pub fn an_empty_blob_is_a_blob(place: &dyn Place) {
    comes_back(place, b"");
    let descriptor = Descriptor::of(BLOB, b"");
    place.destination("t").unwrap().upload(claimed(b"", &descriptor)).unwrap();
    assert!(place.destination("t").unwrap().contains(&descriptor).unwrap());
}

pub fn a_blob_may_have_a_digest_of_another_kind(place: &dyn Place) {
    for size in [4, 2_000_000] {
        let bytes = bytes(size, 1);
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(&bytes);
        let descriptor = Descriptor::new(BLOB, hasher.finish(), size as u64);
        let destination = place.destination("t").unwrap();
        let again = bytes.clone();
        let body = Unverified::new(io::Cursor::new(bytes.clone()))
            .reopenable(move |offset| Ok(Box::new(io::Cursor::new(again[offset as usize..].to_vec()))));
        let written = destination.upload(body.verify(&descriptor)).unwrap();
        assert_eq!(written.digest, descriptor.digest);
        assert!(destination.contains(&descriptor).unwrap());
        place.settle(&*destination);
        assert!(read(&*place.source("t").unwrap(), &descriptor).unwrap() == bytes);
    }
}

pub fn a_blob_of_many_blocks_comes_back_as_it_went_in(place: &dyn Place) {
    // One more and one less than any size of a buffer.
    for size in [(1 << 18) - 1, 1 << 18, (1 << 18) + 1, 5_000_011] {
        comes_back(place, &bytes(size, 1));
        let bytes = bytes(size, 2);
        let descriptor = Descriptor::of(BLOB, &bytes);
        let destination = place.destination("t").unwrap();
        destination.upload(claimed(&bytes, &descriptor)).unwrap();
        place.settle(&*destination);
        assert!(read(&*place.source("t").unwrap(), &descriptor).unwrap() == bytes);
    }
}

pub fn a_blob_is_there_after_its_upload_and_not_before(place: &dyn Place) {
    let destination = place.destination("t").unwrap();
    let descriptor = Descriptor::of(BLOB, b"data");
    assert!(!destination.contains(&descriptor).unwrap());
    destination.upload(made(b"data")).unwrap();
    assert!(destination.contains(&descriptor).unwrap());
    assert!(!destination.contains(&Descriptor::of(BLOB, b"other")).unwrap());
}

pub fn the_same_blob_may_be_uploaded_twice(place: &dyn Place) {
    comes_back(place, b"data");
    comes_back(place, b"data");
    a_blob_of_known_digest_comes_back_as_it_went_in(place);
}

pub fn blobs_are_uploaded_side_by_side(place: &dyn Place) {
    let destination = place.destination("t").unwrap();
    let blobs: Vec<_> = (0..4).map(|seed| bytes(1_000_000, seed)).collect();
    thread::scope(|scope| {
        for blob in &blobs {
            // The last one of each thread is the same for all of them.
            scope.spawn(|| {
                destination.upload(made(blob)).unwrap();
                destination.upload(claimed(&blobs[0], &Descriptor::of(BLOB, &blobs[0]))).unwrap();
            });
        }
    });
    place.settle(&*destination);
    let source = place.source("t").unwrap();
    thread::scope(|scope| {
        for blob in &blobs {
            scope.spawn(|| assert!(read(&*source, &Descriptor::of(BLOB, blob)).unwrap() == *blob));
        }
    });
}

pub fn a_body_that_lies_is_refused_and_leaves_nothing(place: &dyn Place) {
    let destination = place.destination("t").unwrap();
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

pub fn a_body_whose_producer_dies_publishes_nothing(place: &dyn Place) {
    let destination = place.destination("t").unwrap();
    // Of the largest, whole blocks have left the pipe before its writer dies.
    for size in [0, 1, 3_000_000] {
        let (partial, promised) = (bytes(size, 1), bytes(size + 1, 1));
        let promised_size = promised.len() as u64;
        let dying = || {
            let (mut layer, blob) = Compression::None.layer(&Workers::start(1).unwrap(), 1).unwrap();
            let partial = partial.clone();
            // Dropping the writer without finishing is what a panic or an unreadable file amounts to.
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

pub fn an_image_comes_back_byte_for_byte(place: &dyn Place) {
    let document = publish(&*place.destination("t").unwrap(), "first");
    let source = place.source("t").unwrap();
    assert_eq!(source.resolve().unwrap(), document);
    let config = Manifest::parse(&document).unwrap().config;
    assert_eq!(
        fetch(&*source, &config).unwrap().parse::<Config>().unwrap().created.as_deref(),
        Some("first")
    );
}

pub fn an_image_is_not_seen_before_it_is_committed(place: &dyn Place) {
    let destination = place.destination("t").unwrap();
    let document = image(&*destination, "first");
    destination.put_manifest(&document).unwrap();
    let error = place.source("t").and_then(|source| source.resolve()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

pub fn a_commit_replaces_what_the_name_meant(place: &dyn Place) {
    let resolve = |tag| place.source(tag).unwrap().resolve().unwrap();
    let first = publish(&*place.destination("t").unwrap(), "first");
    let other = publish(&*place.destination("other").unwrap(), "other");
    assert_eq!(resolve("t"), first);
    let second = publish(&*place.destination("t").unwrap(), "second");
    assert_ne!(first, second);
    assert_eq!(resolve("t"), second);
    assert_eq!(resolve("other"), other);
}

pub fn documents_are_there_after_they_were_put(place: &dyn Place) {
    let destination = place.destination("t").unwrap();
    let document = image(&*destination, "first");
    assert!(!destination.contains(document.descriptor()).unwrap());
    destination.put_manifest(&document).unwrap();
    assert!(destination.contains(document.descriptor()).unwrap());
    // Once more is fine, as with blobs.
    destination.put_manifest(&document).unwrap();
    place.settle(&*destination);
    let source = place.source("t").unwrap();
    assert_eq!(fetch(&*source, document.descriptor()).unwrap(), document);
}

pub fn what_is_absent_is_not_found(place: &dyn Place) {
    // The place is there, and somebody else's image is in it.
    publish(&*place.destination("t").unwrap(), "first");
    let error = place.source("absent").and_then(|source| source.resolve()).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    let source = place.source("t").unwrap();
    for media_type in [BLOB, media_type::MANIFEST] {
        let error = source.open(&Descriptor::of(media_type, b"absent")).err().unwrap();
        assert_eq!(error.kind(), Kind::NotFound, "{error}");
    }
}

/// A blob, and the place for reading it.
fn with_blob(place: &dyn Place, bytes: &[u8]) -> (Box<dyn Source>, Descriptor) {
    let destination = place.destination("t").unwrap();
    destination.upload(made(bytes)).unwrap();
    place.settle(&*destination);
    (place.source("t").unwrap(), Descriptor::of(BLOB, bytes))
}

pub fn a_part_of_a_blob_is_that_part(place: &dyn Place) {
    let bytes = bytes(1_000_003, 1);
    let (source, blob) = with_blob(place, &bytes);
    for range in [0..1, 0..512, 511..513, 500_000..700_001, 1_000_002..1_000_003, 0..1_000_003] {
        let (start, end) = (range.start as usize, range.end as usize);
        let open = || source.open_range(&blob, range.clone()).unwrap().unwrap();
        let mut read = Vec::new();
        let mut body = open().verify(&Descriptor::of(BLOB, &bytes[start..end]));
        body.read_to_end(&mut read).unwrap();
        assert!(read == bytes[start..end] && body.finish().is_ok());
        // The same piece by piece; behind the part there is nothing.
        let (mut part, half) = (open(), (end - start) / 2);
        assert!(part.take_unproved(half).unwrap() == bytes[start..start + half]);
        assert!(part.take_unproved(end - start - half).unwrap() == bytes[start + half..end]);
        assert_eq!(part.take_unproved(1).unwrap_err().kind(), Kind::Integrity);
    }
}

pub fn parts_are_read_side_by_side(place: &dyn Place) {
    let bytes = bytes(1_000_000, 1);
    let (source, blob) = with_blob(place, &bytes);
    thread::scope(|scope| {
        for part in 0..10 {
            let (source, blob, bytes) = (&source, &blob, &bytes);
            scope.spawn(move || {
                let start = part * 100_000;
                let mut part =
                    source.open_range(blob, start as u64..start as u64 + 100_000).unwrap().unwrap();
                for piece in bytes[start..start + 100_000].chunks(30_000) {
                    assert!(part.take_unproved(piece.len()).unwrap() == piece);
                }
            });
        }
    });
}

pub fn a_part_that_lies_is_refused(place: &dyn Place) {
    let (source, blob) = with_blob(place, b"some data");
    for promised in [&b"date"[..], b"dat", b"data2", b""] {
        let part = source.open_range(&blob, 5..9).unwrap().unwrap();
        let error = part.verify(&Descriptor::of(BLOB, promised)).drain().unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity, "{error}");
    }
    // The blob has less than its descriptor says.
    let longer = Descriptor { size: 20, ..blob };
    let part = source.open_range(&longer, 5..15).and_then(|part| part.unwrap().take_unproved(10));
    assert_eq!(part.unwrap_err().kind(), Kind::Integrity);
}

#[allow(clippy::reversed_empty_ranges)]
pub fn what_a_blob_has_not_is_no_part_of_it(place: &dyn Place) {
    let (source, blob) = with_blob(place, b"some data");
    for range in [0..0, 9..9, 5..4, 0..10, 9..10, u64::MAX - 1..u64::MAX, 0..u64::MAX] {
        let error = source.open_range(&blob, range).err().unwrap();
        assert_eq!(error.kind(), Kind::Integrity, "{error}");
    }
    let error = source.open_range(&Descriptor::of(BLOB, b"absent"), 0..1).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
}

/// For places that have tags.
pub fn tags_are_listed_in_the_order_of_their_bytes(place: &dyn Place) {
    for tag in ["b", "a", "Z", "a.1", "a"] {
        publish(&*place.destination(tag).unwrap(), tag);
    }
    assert_eq!(place.source("whatever").unwrap().tags().unwrap(), ["Z", "a", "a.1", "b"]);
}

/// For places that have tags: only the tag goes, whatever else means the same image.
pub fn a_tag_that_was_removed_means_nothing(place: &dyn Place) {
    let document = publish(&*place.destination("a").unwrap(), "same");
    publish(&*place.destination("b").unwrap(), "same");
    let removed = place.destination("a").unwrap().remove(false).unwrap();
    assert_eq!((removed.digest, removed.tags), (document.descriptor().digest.clone(), vec!["a".to_owned()]));
    assert_eq!(place.source("a").unwrap().resolve().unwrap_err().kind(), Kind::NotFound);
    assert_eq!(place.destination("a").unwrap().remove(false).unwrap_err().kind(), Kind::NotFound);
    let source = place.source("b").unwrap();
    assert_eq!(source.resolve().unwrap(), document);
    fetch(&*source, &Manifest::parse(&document).unwrap().config).unwrap();
}
