//! The stages that data goes through, one by one: `cargo bench --bench stages [FILTER]`.
// In a benchmark an unwrap is an assertion.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use flate2::{Compression as Level, read::GzEncoder};
use std::io::{self, Read};
use std::{fs, thread};
use tempfile::TempDir;
use volio::layer::{Compression, Item, LayerReader, LayerWriter, decompress};
use volio::oci::{Digest, PairedSha256};
use volio::stream::Workers;
use volio::tree::{
    Entry, EntryKind, ExtractOptions, Extractor, Metadata, SourceSpec, TreePath, Walk, WalkOptions,
};

fn main() {
    divan::main();
}

/// The number of small files in a tree.
const FILES: usize = 1000;
/// The size of each, in bytes.
const SMALL: usize = 4 << 10;
/// The size of one frame, in bytes.
const FRAME: usize = 4 << 20;

/// The compressibility of the bytes.
const KINDS: [&str; 2] = ["text", "noise"];

/// Bytes that compress like text, or not at all.
fn bytes(kind: &str, length: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        match kind {
            "noise" => bytes.extend_from_slice(&next().to_le_bytes()),
            _ => bytes.extend_from_slice(format!("{} ", next() % 5000).as_bytes()),
        }
    }
    bytes.truncate(length);
    bytes
}

fn file(number: usize, size: usize) -> Entry {
    let path = TreePath::parse(format!("directory-{}/file-{number}", number / 100)).unwrap();
    let metadata = Metadata { mode: 0o644, ..Metadata::default() };
    Entry { path, kind: EntryKind::File { size: size as u64 }, metadata }
}

/// The plain archive of small files.
fn archive() -> Vec<u8> {
    let content = bytes("text", SMALL);
    let mut layer = LayerWriter::new(Vec::new());
    for number in 0..FILES {
        layer.append(&file(number, SMALL), &content[..], |_| {}).unwrap();
    }
    layer.finish().unwrap().0
}

/// A tree of small files, in memory where that is possible.
fn tree() -> TempDir {
    let tree = memory();
    for number in 0..FILES {
        let path = tree.path().join(format!("directory-{}/file-{number}", number / 100));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes("text", SMALL)).unwrap();
    }
    tree
}

/// A layer of one file.
fn layer(compression: Compression, size: usize) -> Vec<u8> {
    let bytes = bytes("text", size);
    let (mut layer, mut blob) = compression.layer(&Workers::start(1).unwrap(), 1).unwrap();
    let mut written = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            layer.append(&file(0, size), &bytes[..], |_| {}).unwrap();
            layer.finish().unwrap()
        });
        blob.read_to_end(&mut written).unwrap();
    });
    written
}

fn memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[divan::bench]
fn hash(bencher: Bencher) {
    let bytes = bytes("noise", FRAME);
    bencher.counter(BytesCount::new(FRAME)).bench(|| Digest::of(black_box(&bytes)));
}

/// Two digests of the same bytes at once, such as those of the archive and of a chunk.
#[divan::bench]
fn hash_pair(bencher: Bencher) {
    let bytes = bytes("noise", FRAME);
    bencher.counter(BytesCount::new(FRAME)).bench(|| {
        let (mut one, mut other) = (PairedSha256::default(), PairedSha256::default());
        let bytes = black_box(&bytes[..]);
        PairedSha256::update_two(&mut one, bytes, &mut other, bytes);
        (one.finish(), other.finish())
    });
}

/// Three digests at once, such as those of the archive, of a chunk and of the blob.
#[divan::bench]
fn hash_three(bencher: Bencher) {
    let bytes = bytes("noise", FRAME);
    bencher.counter(BytesCount::new(FRAME)).bench(|| {
        let mut digests: [PairedSha256; 3] = Default::default();
        let bytes = black_box(&bytes[..]);
        PairedSha256::update_three(digests.each_mut().map(|digest| (digest, bytes)));
        digests.map(PairedSha256::finish)
    });
}

#[divan::bench]
fn encode_headers(bencher: Bencher) {
    let entries: Vec<_> = (0..FILES).map(|number| file(number, 0)).collect();
    bencher.counter(ItemsCount::new(FILES)).bench(|| {
        let mut layer = LayerWriter::new(io::sink());
        entries.iter().for_each(|entry| layer.append(entry, io::empty(), |_| {}).unwrap());
        layer.finish().unwrap()
    });
}

#[divan::bench]
fn write_plain(bencher: Bencher) {
    let bytes = bytes("noise", FRAME);
    bencher.counter(BytesCount::new(FRAME)).bench(|| {
        let mut layer = LayerWriter::new(io::sink());
        layer.append(&file(0, FRAME), black_box(&bytes[..]), |_| {}).unwrap();
        layer.finish().unwrap()
    });
}

#[divan::bench(args = KINDS)]
fn write_indexed(bencher: Bencher, kind: &str) {
    const SIZE: usize = 16 * FRAME;
    let bytes = bytes(kind, SIZE);
    let workers = Compression::default().workers().unwrap();
    bencher.counter(BytesCount::new(SIZE)).bench(|| {
        let (mut layer, mut blob) = Compression::default().layer(&workers, workers.count()).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                layer.append(&file(0, SIZE), &bytes[..], |_| {}).unwrap();
                layer.finish().unwrap()
            });
            io::copy(&mut blob, &mut io::sink()).unwrap()
        })
    });
}

#[divan::bench(args = KINDS)]
fn compress_frame(bencher: Bencher, kind: &str) {
    let bytes = bytes(kind, FRAME);
    bencher.counter(BytesCount::new(FRAME)).bench(|| zstd::bulk::compress(black_box(&bytes), 3).unwrap());
}

#[divan::bench(args = KINDS)]
fn decompress_frames(bencher: Bencher, kind: &str) {
    let frame = zstd::bulk::compress(&bytes(kind, FRAME), 3).unwrap();
    let layer = frame.repeat(16);
    bencher.counter(BytesCount::new(16 * FRAME)).bench(|| {
        let mut plain = decompress(black_box(&layer[..])).unwrap();
        while plain.block().unwrap().is_some() {}
    });
}

/// A layer as volio writes it, and what anybody else makes of the same archive.
#[divan::bench(args = ["members", "stream"])]
fn decompress_gzip(bencher: Bencher, kind: &str) {
    const SIZE: usize = 16 * FRAME;
    let layer = match kind {
        "members" => layer(Compression::Gzip { level: 6 }, SIZE),
        _ => {
            let bytes = bytes("text", SIZE);
            let mut layer = Vec::new();
            GzEncoder::new(&bytes[..], Level::default()).read_to_end(&mut layer).unwrap();
            layer
        }
    };
    bencher.counter(BytesCount::new(SIZE)).bench(|| {
        let mut plain = decompress(black_box(&layer[..])).unwrap();
        while plain.block().unwrap().is_some() {}
    });
}

#[divan::bench]
fn decompress_stream(bencher: Bencher) {
    let layer =
        zstd::stream::encode_all(io::repeat(7).take(1).chain(&bytes("text", 16 * FRAME)[..]), 3).unwrap();
    bencher
        .counter(BytesCount::new(16 * FRAME))
        .bench(|| io::copy(&mut decompress(black_box(&layer[..])).unwrap(), &mut io::sink()).unwrap());
}

#[divan::bench]
fn read_archive(bencher: Bencher) {
    let archive = archive();
    bencher.counter(ItemsCount::new(FILES)).bench(|| {
        let mut layer = LayerReader::new(black_box(&archive[..]));
        while layer.next_item().unwrap().is_some() {}
    });
}

#[divan::bench]
fn extract(bencher: Bencher) {
    let archive = archive();
    bencher.counter(ItemsCount::new(FILES)).with_inputs(memory).bench_refs(|target| {
        let options = ExtractOptions { sync: false, ..ExtractOptions::default() };
        let mut extractor = Extractor::new(target.path(), options).unwrap();
        let mut layer = LayerReader::new(&archive[..]);
        extractor.begin_layer();
        while let Some(Item::Entry(entry)) = layer.next_item().unwrap() {
            extractor.put(&entry, &mut layer.content()).unwrap();
        }
        extractor.finish().unwrap()
    });
}

#[divan::bench]
fn walk(bencher: Bencher) {
    let tree = tree();
    let sources = [SourceSpec::new(tree.path())];
    bencher
        .counter(ItemsCount::new(FILES))
        .bench(|| Walk::new(&sources, &WalkOptions::default()).unwrap().map(Result::unwrap).count());
}

/// The cost of handing a block to another thread and back.
#[divan::bench]
fn pipe(bencher: Bencher) {
    let workers = Workers::start(2).unwrap();
    bencher.counter(ItemsCount::new(FILES)).bench(|| {
        let (mut writer, mut reader) = volio::stream::pipe(&workers, 2, Ok::<usize, io::Error>);
        thread::scope(|scope| {
            scope.spawn(move || {
                (0..FILES).for_each(|number| writer.send(number).unwrap());
                writer.finish().unwrap();
            });
            while reader.receive().unwrap().is_some() {}
        });
    });
}
