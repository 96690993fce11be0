//! Tests of reading a layer by ranges: what is fetched, and what is verified.

use super::{ChunkReader, Description, FetchPlan, Image, ReadOptions, TocStore};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::layer::{Budget, Chunk, Compression, Item, Layer, Limits, TocEntry, VerifiedToc};
use crate::oci::{Descriptor, Digest, Document};
use crate::progress::Silent;
use crate::stream::{Unverified, Workers, Written};
use crate::testing::noise;
use crate::transport::Source;
use crate::tree::{Content, Entry, EntryKind, Metadata, TreePath};
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::ops::Range;
use std::sync::Mutex;
use std::thread;

/// A source of an image with one layer. It records the ranges that are requested of that.
struct LayerSource {
    root: Document,
    documents: HashMap<Digest, Document>,
    layer: Descriptor,
    bytes: Vec<u8>,
    requested: Mutex<Vec<Range<u64>>>,
    serves_ranges: bool,
}

impl Source for LayerSource {
    fn resolve(&self) -> Result<Document> {
        Ok(self.root.clone())
    }

    fn open(&self, blob: &Descriptor) -> Result<Unverified> {
        let bytes = self.documents.get(&blob.digest).map_or(&self.bytes[..], Document::bytes);
        Ok(Unverified::new(Cursor::new(bytes.to_vec())))
    }

    fn open_range(&self, _: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        self.requested.lock().unwrap().push(range.clone());
        let part = self.bytes[range.start as usize..range.end as usize].to_vec();
        Ok(self.serves_ranges.then(|| Unverified::new(Cursor::new(part))))
    }
}

/// The chunks of one entry.
type Chunks = Vec<Chunk>;

fn reader(chunks: &Chunks) -> impl FnMut() -> Result<Option<Chunk>> + use<> {
    let mut chunks = chunks.clone().into_iter();
    move || Ok(chunks.next())
}

fn plan(chunks: &Chunks) -> FetchPlan {
    let mut plan = FetchPlan::within(&Limits::default());
    chunks.iter().for_each(|chunk| plan.add(0, chunk).unwrap());
    plan
}

impl LayerSource {
    fn image(&self, connections: usize) -> Image<'_> {
        let options = ReadOptions { connections, ..ReadOptions::default() };
        Image::open(self, &options, &Silent).unwrap()
    }

    fn toc(&self, limits: Limits) -> Result<Option<VerifiedToc>> {
        TocStore::new(None, limits).fetch(self, &self.layer)
    }

    fn entries(&self) -> Vec<Chunks> {
        let toc = self.toc(Limits::default()).unwrap().unwrap();
        let mut entries = toc.entries(Budget::default()).unwrap();
        let mut all = Vec::new();
        while entries.next_entry().unwrap().is_some() {
            all.push(std::iter::from_fn(|| entries.next_chunk().unwrap()).collect());
        }
        all
    }

    /// Reads the content of some files. Returns it, and how many bytes were fetched by how many ranges.
    fn read(&self, wanted: &[&Chunks], connections: usize) -> Result<(Vec<Vec<u8>>, u64, usize)> {
        self.requested.lock().unwrap().clear();
        let plan = plan(&wanted.iter().flat_map(|chunks| (*chunks).clone()).collect());
        let read = self.image(connections).fetch_frames(&plan, |frames| {
            let content = |chunks: &&Chunks| {
                let mut content = Vec::new();
                let mut reader = ChunkReader::new(frames, 0, reader(chunks));
                reader.read_to_end(&mut content).map_err(|error| Error::io("", error))?;
                Ok(content)
            };
            wanted.iter().map(content).collect::<Result<Vec<_>>>()
        })?;
        let requested = self.requested.lock().unwrap();
        let bytes = requested.iter().map(|range| range.end - range.start).sum();
        assert_eq!(bytes, plan.bytes());
        Ok((read, bytes, requested.len()))
    }
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

fn source() -> LayerSource {
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
    let layer = Layer::new(Compression::default(), &contents, written, toc.get());
    let built = Description::default().build(std::slice::from_ref(&layer)).unwrap();
    let documents = built.configs.into_iter().chain(built.manifests);
    LayerSource {
        root: built.root,
        documents: documents.map(|document| (document.descriptor().digest.clone(), document)).collect(),
        layer: layer.descriptor,
        bytes,
        requested: Mutex::default(),
        serves_ranges: true,
    }
}

#[test]
fn files_are_read_by_their_frames_alone_and_in_any_order() {
    let (source, tree) = (source(), tree());
    let entries = source.entries();
    assert_eq!(entries.len(), tree.len());
    for connections in [1, 4] {
        for order in [vec![0, 1], vec![6, 5, 4, 3, 2, 1, 0], (0..7).collect(), vec![2], vec![3, 0, 3, 0]] {
            let wanted: Vec<_> = order.iter().map(|at| &entries[*at]).collect();
            let (read, ..) = source.read(&wanted, connections).unwrap();
            for (read, at) in read.iter().zip(&order) {
                assert!(*read == tree[*at].1, "{}", tree[*at].0);
            }
        }
    }
}

#[test]
fn small_files_in_one_frame_are_fetched_once_and_neighbours_together() {
    let source = source();
    let entries = source.entries();
    let frame = &entries[0][0].frame;
    let (_, bytes, ranges) = source.read(&[&entries[0], &entries[1]], 3).unwrap();
    assert_eq!((bytes, ranges), (frame.end - frame.start, 1));
    let (_, _, ranges) = source.read(&[&entries[2]], 3).unwrap();
    let size: u64 = entries[2].iter().map(|chunk| chunk.frame.end - chunk.frame.start).sum();
    assert!((3..=5).contains(&ranges), "{ranges} for {size} bytes in {} frames", entries[2].len());
    let (_, bytes, ranges) = source.read(&[&entries[5]], 3).unwrap();
    assert_eq!((bytes, ranges), (0, 0), "an empty file");
}

#[test]
fn zeros_are_not_fetched_and_can_be_skipped() {
    let source = source();
    let sparse = &source.entries()[4];
    let (_, bytes, _) = source.read(&[sparse], 1).unwrap();
    assert!((700_000..1_100_000).contains(&bytes), "{bytes}");
    source
        .image(1)
        .fetch_frames(&plan(sparse), |frames| {
            let mut reader = ChunkReader::new(frames, 0, reader(sparse));
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
fn a_damaged_byte_is_never_read_and_reading_on_fails_again() {
    let mut source = source();
    let entries = source.entries();
    let at = entries[2][3].frame.start as usize + 1000;
    source.bytes[at] ^= 1;
    let before: u64 = entries[2][..3].iter().map(|chunk| chunk.size).sum();
    let read = source.image(2).fetch_frames(&plan(&entries[2]), |frames| {
        let mut reader = ChunkReader::new(frames, 0, reader(&entries[2]));
        let mut content = Vec::new();
        let first = Error::io("", reader.read_to_end(&mut content).unwrap_err());
        assert_eq!(first.kind(), ErrorKind::Integrity, "{first}");
        assert!(content == tree()[2].1[..before as usize]);
        assert_eq!(reader.skip_hole(), 0);
        assert!(reader.read(&mut [0; 10]).is_err());
        Ok(())
    });
    read.unwrap();
    assert!(source.read(&[&entries[0], &entries[3]], 2).is_ok(), "other files are not affected");
}

#[test]
fn false_zeros_are_an_error_and_cannot_be_skipped() {
    let source = source();
    let mut chunks = source.entries().swap_remove(4);
    let zeros = chunks.iter_mut().find(|chunk| chunk.zeros).unwrap();
    *zeros = Chunk { size: zeros.size - 1, ..zeros.clone() };
    let empty = FetchPlan::within(&Limits::default());
    let read = source.image(1).fetch_frames(&empty, |frames| {
        let mut reader = ChunkReader::new(frames, 0, reader(&chunks));
        assert_eq!(reader.skip_hole(), 0);
        reader.read(&mut [0; 10]).map_err(|error| Error::io("", error))
    });
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn a_source_that_stops_serving_ranges_is_an_error_and_one_without_ranges_has_no_table_of_contents() {
    let mut source = source();
    let entries = source.entries();
    source.serves_ranges = false;
    let error = source.read(&[&entries[0]], 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
    assert!(source.toc(Limits::default()).unwrap().is_none());
}

#[test]
fn a_damaged_or_too_large_table_of_contents_is_an_integrity_error() {
    let mut source = source();
    let few = Limits { max_entries: 1, max_names: 1, ..Limits::default() };
    assert_eq!(source.toc(few).unwrap_err().kind(), ErrorKind::Integrity);
    let at = source.bytes.len() - 100;
    source.bytes[at] ^= 1;
    assert_eq!(source.toc(Limits::default()).unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn tables_of_contents_are_read_in_the_order_of_the_archive_and_fetched_once() {
    let source = source();
    let image = source.image(2);
    let mut paths = Vec::new();
    for _ in 0..2 {
        paths.clear();
        image
            .each_toc(|number, _, toc| {
                let mut entries = toc.unwrap().entries(Budget::default())?;
                while let Some(TocEntry { item: Item::Entry(entry), .. }) = entries.next_entry()? {
                    paths.push(format!("{number}{}", entry.path));
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(paths[..3], ["0/a", "0/b", "0/c-large"]);
    }
    assert_eq!(source.requested.lock().unwrap().len(), 1);
}

#[test]
fn a_plan_with_more_ranges_than_entries_are_allowed_is_an_integrity_error() {
    let digest = Digest::of(b"");
    let chunk = |number: u64| {
        let start = number << 20;
        Chunk { frame: start..start + 9, inner: 0, offset: 0, size: 1, digest: digest.clone(), zeros: false }
    };
    let mut plan = FetchPlan::within(&Limits { max_entries: 3, ..Limits::default() });
    (1..=3).for_each(|number| plan.add(0, &chunk(number)).unwrap());
    plan.add(0, &chunk(3)).unwrap();
    let error = plan.add(0, &chunk(4)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    assert!(error.hint().is_some_and(|hint| hint.contains("--max-entries")), "{error}");
}
