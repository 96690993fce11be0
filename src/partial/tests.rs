//! What is fetched of a layer, and what is believed of it.

use super::{ChunkReader, Listings, Plan, Reading};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::layer::{Budget, Chunk, Compression, Item, Layer, Limits, TocEntry, VerifiedToc};
use crate::oci::{Descriptor, Digest, Document};
use crate::progress::Silent;
use crate::stream::{Unverified, Workers, Written};
use crate::transport::Source;
use crate::tree::{Content, Entry, EntryKind, Metadata, TreePath};
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::Mutex;
use std::thread;

/// The table of contents of a layer.
fn listing(source: &dyn Source, layer: &Descriptor, limits: &Limits) -> Result<Option<VerifiedToc>> {
    Listings::new(None, limits).fetch(source, layer)
}

/// A layer at a place that remembers what was asked for.
struct Place {
    layer: Descriptor,
    bytes: Vec<u8>,
    asked: Mutex<Vec<Range<u64>>>,
    gives_parts: bool,
}

impl Source for Place {
    fn resolve(&self) -> Result<Document> {
        Err(Error::not_found("no image"))
    }

    fn open(&self, _: &Descriptor) -> Result<Unverified> {
        Ok(Unverified::new(Cursor::new(self.bytes.clone())))
    }

    fn open_range(&self, _: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        self.asked.lock().unwrap().push(range.clone());
        let part = self.bytes[range.start as usize..range.end as usize].to_vec();
        Ok(self.gives_parts.then(|| Unverified::new(Cursor::new(part))))
    }
}

/// The chunks of an entry in a table of contents.
struct Told {
    chunks: Vec<Chunk>,
}

impl Told {
    fn tell(&self) -> impl FnMut() -> Result<Option<Chunk>> + use<> {
        let mut chunks = self.chunks.clone().into_iter();
        move || Ok(chunks.next())
    }
}

fn add(plan: &mut Plan, entry: &Told) {
    entry.chunks.iter().for_each(|chunk| plan.add(0, chunk).unwrap());
}

impl Place {
    fn reading<'a>(&'a self, limits: &'a Limits, connections: usize) -> Reading<'a> {
        let layers = std::slice::from_ref(&self.layer);
        Reading { source: self, layers, limits, spool: None, connections, progress: &Silent }
    }

    fn entries(&self) -> Vec<Told> {
        let listing = listing(self, &self.layer, &Limits::default()).unwrap().unwrap();
        let mut entries = listing.entries(Budget::default()).unwrap();
        let mut told = Vec::new();
        while entries.next_entry().unwrap().is_some() {
            told.push(Told { chunks: std::iter::from_fn(|| entries.next_chunk().unwrap()).collect() });
        }
        told
    }

    /// The content of some files, and how many bytes were fetched by how many ranges.
    fn read(&self, wanted: &[&Told], connections: usize) -> Result<(Vec<Vec<u8>>, u64, usize)> {
        self.asked.lock().unwrap().clear();
        let limits = Limits::default();
        let mut plan = Plan::within(&Limits::default());
        wanted.iter().for_each(|entry| add(&mut plan, entry));
        let read = self.reading(&limits, connections).frames(&plan, |frames| {
            let content = |entry: &&Told| {
                let mut content = Vec::new();
                let mut reader = ChunkReader::new(frames, 0, entry.tell());
                reader.read_to_end(&mut content).map_err(|error| Error::io("", error))?;
                Ok(content)
            };
            wanted.iter().map(content).collect::<Result<Vec<_>>>()
        })?;
        let asked = self.asked.lock().unwrap();
        let bytes = asked.iter().map(|range| range.end - range.start).sum();
        assert_eq!(bytes, plan.bytes());
        Ok((read, bytes, asked.len()))
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn tree() -> Vec<(&'static str, Vec<u8>)> {
    let sparse = [vec![0; 9 << 20], noise(3, 700_000), vec![0; 300_000], noise(4, 10)].concat();
    vec![
        ("a", noise(1, 1000)),
        ("b", noise(2, 2000)),
        ("c-large", noise(5, 11 << 20)),
        ("d", noise(6, 3000)),
        ("e-sparse", sparse),
        ("f", vec![]),
        ("g", noise(7, 10)),
    ]
}

fn place() -> Place {
    let (mut layer, mut blob) = Compression::default().layer(&Workers::start(2).unwrap(), 2).unwrap();
    let (toc, mut bytes) = (blob.pending_toc(), Vec::new());
    let contents = thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for (path, content) in tree() {
                let kind = EntryKind::File { size: content.len() as u64 };
                let path = TreePath::parse(path).unwrap();
                let entry = Entry { path, kind, metadata: Metadata::default() };
                layer.append(&entry, content.as_slice(), |_| {}).unwrap();
            }
            layer.finish().unwrap().1
        });
        blob.read_to_end(&mut bytes).unwrap();
        writer.join().unwrap()
    });
    let written = Written { digest: Digest::of(&bytes), size: bytes.len() as u64 };
    let layer = Layer::new(Compression::default(), &contents, written, toc.get()).descriptor;
    Place { layer, bytes, asked: Mutex::default(), gives_parts: true }
}

#[test]
fn files_are_read_by_their_frames_alone_and_in_any_order() {
    let (place, tree) = (place(), tree());
    let entries = place.entries();
    assert_eq!(entries.len(), tree.len());
    for connections in [1, 4] {
        for order in [vec![0, 1], vec![6, 5, 4, 3, 2, 1, 0], (0..7).collect(), vec![2], vec![3, 0, 3, 0]] {
            let wanted: Vec<_> = order.iter().map(|at| &entries[*at]).collect();
            let (read, ..) = place.read(&wanted, connections).unwrap();
            for (read, at) in read.iter().zip(&order) {
                assert!(*read == tree[*at].1, "{}", tree[*at].0);
            }
        }
    }
}

#[test]
fn small_files_in_one_frame_are_fetched_once_and_neighbours_together() {
    let place = place();
    let entries = place.entries();
    let frame = &entries[0].chunks[0].frame;
    let (_, bytes, ranges) = place.read(&[&entries[0], &entries[1]], 3).unwrap();
    assert_eq!((bytes, ranges), (frame.end - frame.start, 1));
    let (_, _, ranges) = place.read(&[&entries[2]], 3).unwrap();
    let size: u64 = entries[2].chunks.iter().map(|chunk| chunk.frame.end - chunk.frame.start).sum();
    assert!((3..=5).contains(&ranges), "{ranges} for {size} bytes in {} frames", entries[2].chunks.len());
    let (_, bytes, ranges) = place.read(&[&entries[5]], 3).unwrap();
    assert_eq!((bytes, ranges), (0, 0), "an empty file");
}

#[test]
fn zeros_are_not_fetched_and_can_be_passed_over() {
    let place = place();
    let entries = place.entries();
    let sparse = &entries[4];
    let (_, bytes, _) = place.read(&[sparse], 1).unwrap();
    assert!((700_000..1_100_000).contains(&bytes), "{bytes}");
    let mut plan = Plan::within(&Limits::default());
    add(&mut plan, sparse);
    let limits = Limits::default();
    place
        .reading(&limits, 1)
        .frames(&plan, |frames| {
            let mut reader = ChunkReader::new(frames, 0, sparse.tell());
            let holes: u64 = std::iter::from_fn(|| Some(reader.skip_hole()).filter(|hole| *hole > 0)).sum();
            assert!((8 << 20..=9 << 20).contains(&holes), "{holes}");
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
            assert!(tree()[4].1[holes as usize..] == rest);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_byte_that_is_another_is_never_read_and_asked_again_it_fails_again() {
    let mut place = place();
    let entries = place.entries();
    let at = entries[2].chunks[3].frame.start as usize + 1000;
    place.bytes[at] ^= 1;
    let before: u64 = entries[2].chunks[..3].iter().map(|chunk| chunk.size).sum();
    let (mut plan, limits) = (Plan::within(&Limits::default()), Limits::default());
    add(&mut plan, &entries[2]);
    let read = place.reading(&limits, 2).frames(&plan, |frames| {
        let mut reader = ChunkReader::new(frames, 0, entries[2].tell());
        let mut content = Vec::new();
        let first = Error::io("", reader.read_to_end(&mut content).unwrap_err());
        assert_eq!(first.kind(), ErrorKind::Integrity, "{first}");
        assert!(content == tree()[2].1[..before as usize]);
        assert_eq!(reader.skip_hole(), 0);
        assert!(reader.read(&mut [0; 10]).is_err());
        Ok(())
    });
    read.unwrap();
    assert!(place.read(&[&entries[0], &entries[3]], 2).is_ok(), "what was not hit is still believed");
}

#[test]
fn zeros_that_are_none_are_an_error_that_nobody_passes_over() {
    let place = place();
    let mut lie = place.entries().swap_remove(4);
    let zeros = lie.chunks.iter_mut().find(|chunk| chunk.zeros).unwrap();
    *zeros = Chunk { size: zeros.size - 1, ..zeros.clone() };
    let (plan, limits) = (Plan::within(&Limits::default()), Limits::default());
    let read = place.reading(&limits, 1).frames(&plan, |frames| {
        let mut reader = ChunkReader::new(frames, 0, lie.tell());
        assert_eq!(reader.skip_hole(), 0);
        reader.read(&mut [0; 10]).map_err(|error| Error::io("", error))
    });
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn a_place_that_stops_giving_parts_is_an_error_and_one_that_gives_none_has_no_listing() {
    let mut place = place();
    let entries = place.entries();
    place.gives_parts = false;
    let error = place.read(&[&entries[0]], 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
    assert!(listing(&place, &place.layer, &Limits::default()).unwrap().is_none());
}

#[test]
fn a_table_of_contents_that_is_another_one_or_too_large_is_an_integrity_error() {
    let mut place = place();
    let few = Limits { max_entries: 1, max_names: 1, ..Limits::default() };
    assert_eq!(listing(&place, &place.layer, &few).unwrap_err().kind(), ErrorKind::Integrity);
    let at = place.bytes.len() - 100;
    place.bytes[at] ^= 1;
    assert_eq!(listing(&place, &place.layer, &Limits::default()).unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn all_entries_are_told_in_the_order_of_the_archive() {
    let place = place();
    let limits = Limits::default();
    let mut paths = Vec::new();
    place
        .reading(&limits, 2)
        .each_listing(|number, _, listing| {
            let listing = listing.unwrap();
            let mut entries = listing.entries(Budget::default())?;
            while let Some(TocEntry { item: Item::Entry(entry), .. }) = entries.next_entry()? {
                paths.push(format!("{number}{}", entry.path));
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(paths[..3], ["0/a", "0/b", "0/c-large"]);
}

#[test]
fn a_plan_that_is_scattered_over_more_places_than_entries_are_allowed_is_an_integrity_error() {
    let digest = crate::oci::Digest::of(b"");
    let chunk = |number: u64| {
        let start = number << 20;
        Chunk { frame: start..start + 9, inner: 0, offset: 0, size: 1, digest: digest.clone(), zeros: false }
    };
    let mut plan = Plan::within(&Limits { max_entries: 3, ..Limits::default() });
    (1..=3).for_each(|number| plan.add(0, &chunk(number)).unwrap());
    plan.add(0, &chunk(3)).unwrap();
    let error = plan.add(0, &chunk(4)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert!(error.hint().is_some_and(|hint| hint.contains("--max-entries")), "{error}");
}
