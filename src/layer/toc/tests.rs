//! A table of contents is read as it was written, and it verifies the content of its layer and no other.

use super::{Chunk, PlainFrame, Toc, TocChecker, TocEntry, TocReader, VerifiedToc};
use crate::error::Kind as ErrorKind;
use crate::layer::{Budget, Compression, Item, Layer, LayerReader, LayerWriter, Limits, decompress};
use crate::oci::{Descriptor, Digest};
use crate::stream::{Unverified, Workers, Written};
use crate::testing::noise;
use crate::tree::{Entry, EntryKind, Metadata, Time, TreePath};
use proptest::prelude::*;
use std::io::Read;
use std::thread;

type Tree = Vec<(Entry, Vec<u8>)>;

fn entry(path: impl AsRef<[u8]>, kind: EntryKind) -> Entry {
    let mtime = Time { seconds: 1_600_000_000, nanoseconds: 123_456_789 };
    let metadata = Metadata { mode: 0o4755, uid: 3_000_000_000, gid: 7, mtime, ..Metadata::default() };
    Entry { path: TreePath::parse(path).unwrap(), kind, metadata }
}

fn file(path: impl AsRef<[u8]>, content: Vec<u8>) -> (Entry, Vec<u8>) {
    (entry(path, EntryKind::File { size: content.len() as u64 }), content)
}

/// Returns an indexed layer: its descriptor and its bytes.
fn indexed(entries: &[(Entry, Vec<u8>)], workers: usize) -> (Descriptor, Vec<u8>) {
    let compression = Compression::default();
    let (mut layer, mut blob) = compression.layer(&Workers::start(workers).unwrap(), workers).unwrap();
    let (toc, mut bytes) = (blob.pending_toc(), Vec::new());
    let contents = thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for (entry, content) in entries {
                layer.append(entry, content.as_slice(), |_| {}).unwrap();
            }
            layer.finish().unwrap().1
        });
        blob.read_to_end(&mut bytes).unwrap();
        writer.join().unwrap()
    });
    let written = Written { digest: Digest::of(&bytes), size: bytes.len() as u64 };
    (Layer::new(compression, &contents, written, toc.get()).descriptor, bytes)
}

/// An entry of a table of contents with all its chunks.
#[derive(Debug)]
struct ReadEntry {
    item: Item,
    digest: Option<Digest>,
    chunks: Vec<Chunk>,
}

fn toc_of(layer: &Descriptor, bytes: &[u8]) -> crate::Result<Vec<ReadEntry>> {
    let toc = Toc::of(layer)?.unwrap();
    read(&toc, part(bytes, &toc.range()))
}

fn read(toc: &Toc, bytes: &[u8]) -> crate::Result<Vec<ReadEntry>> {
    let mut reader = TocReader::new(toc, bytes)?;
    let mut entries = Vec::new();
    while let Some(TocEntry { item, digest }) = reader.next_entry()? {
        let mut chunks = Vec::new();
        while let Some(chunk) = reader.next_chunk()? {
            chunks.push(chunk);
        }
        assert_eq!(reader.next_chunk()?, None, "and none again");
        entries.push(ReadEntry { item, digest, chunks });
    }
    Ok(entries)
}

/// Returns the verified content of a chunk, from the bytes of its frame.
fn extract(chunk: &Chunk, frame: &[u8]) -> crate::Result<Vec<u8>> {
    if chunk.zeros {
        return chunk.verify_zeros().map(|()| vec![0; chunk.size as usize]);
    }
    PlainFrame::new(chunk.frame.clone(), frame)?.chunk(chunk).map(<[u8]>::to_vec)
}

fn part<'a>(bytes: &'a [u8], range: &std::ops::Range<u64>) -> &'a [u8] {
    &bytes[range.start as usize..range.end as usize]
}

/// Returns a tree with every kind of content: none, small, just a frame, more than a frame, zeros within and at both ends.
fn tree() -> Tree {
    let sparse =
        [vec![0; 5 << 20], noise(3, 700_000), vec![0; 300_000], noise(4, 10), vec![0; 9 << 20]].concat();
    let mut entries =
        vec![(entry("", EntryKind::Directory), vec![]), (entry("a", EntryKind::Directory), vec![])];
    entries.extend((0..300).map(|n| file(format!("a/{n:03}"), noise(n, n as usize * 100))));
    entries.extend([
        file("b-large", noise(1, 9 << 20)),
        file("c-just-a-group", noise(2, (4 << 20) - 512)),
        file("d-just-more", noise(5, (4 << 20) - 511)),
        file("e-sparse", sparse),
        file(b"f-\xff\xfe", b"no text".to_vec()),
        (entry("g-link", EntryKind::Symlink { target: b"\xffnowhere".to_vec() }), vec![]),
        (entry("h-hard", EntryKind::Hardlink { target: TreePath::parse("b-large").unwrap() }), vec![]),
        (entry("i-null", EntryKind::CharDevice { major: 1, minor: 3 }), vec![]),
        file("j-empty", vec![]),
    ]);
    entries
}

#[test]
fn each_file_can_be_extracted_by_the_table_of_contents_alone() {
    let tree = tree();
    let (layer, bytes) = indexed(&tree, 3);
    let toc = toc_of(&layer, &bytes).unwrap();
    assert_eq!(toc.len(), tree.len());
    for (read_entry, (entry, content)) in toc.iter().zip(&tree) {
        assert_eq!(read_entry.item, Item::Entry(entry.clone()));
        let mut taken = Vec::new();
        for chunk in &read_entry.chunks {
            taken.extend(extract(chunk, part(&bytes, &chunk.frame)).unwrap());
        }
        assert!(taken == *content, "{}", entry.path);
        // Several chunks verify a file without a digest of the whole.
        assert_eq!(read_entry.digest.is_some(), read_entry.chunks.len() == 1);
        assert!(read_entry.digest.as_ref().is_none_or(|digest| *digest == Digest::of(content)));
    }
}

#[test]
fn zeros_are_listed_as_zeros_and_need_no_frame() {
    let (layer, bytes) = indexed(&tree(), 1);
    let toc = toc_of(&layer, &bytes).unwrap();
    let sparse = toc.iter().find(|read_entry| read_entry.chunks.iter().any(|chunk| chunk.zeros)).unwrap();
    let zeros: Vec<_> =
        sparse.chunks.iter().filter(|chunk| chunk.zeros).map(|chunk| (chunk.offset, chunk.size)).collect();
    // The run in the middle begins at a multiple of 64 KiB, and the rest of the last run is too short for a frame.
    assert_eq!(zeros[..2], [(0, 4 << 20), (4 << 20, 1 << 20)]);
    assert_eq!(zeros[2..].iter().map(|(_, size)| size / (4 << 20)).sum::<u64>(), 2);
    let zero = sparse.chunks.iter().find(|chunk| chunk.zeros).unwrap();
    assert_eq!(extract(zero, b"").unwrap(), vec![0; 4 << 20]);
}

#[test]
fn other_readers_see_the_plain_archive() {
    let tree = tree();
    let (_, bytes) = indexed(&tree, 2);
    let mut plain = LayerWriter::new(Vec::new());
    for (entry, content) in &tree {
        plain.append(entry, content.as_slice(), |_| {}).unwrap();
    }
    let (plain, _) = plain.finish().unwrap();
    let mut read = Vec::new();
    decompress(bytes.as_slice()).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == plain);
}

#[test]
fn each_frame_declares_its_size_and_none_exceeds_four_mebibytes() {
    let (layer, bytes) = indexed(&tree(), 2);
    let end = Toc::of(&layer).unwrap().unwrap().frames_end() as usize;
    let (mut at, mut sizes) = (0, Vec::new());
    while at < end {
        let size = zstd::zstd_safe::get_frame_content_size(&bytes[at..]).unwrap().unwrap();
        sizes.push(size);
        at += zstd::zstd_safe::find_frame_compressed_size(&bytes[at..]).unwrap();
    }
    assert_eq!(at, end);
    assert!(sizes.iter().all(|size| (1..=4 << 20).contains(size)), "{sizes:?}");
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_workers() {
    let tree = tree();
    let one = indexed(&tree, 1);
    for workers in [2, 7, 16] {
        assert!(indexed(&tree, workers) == one, "{workers}");
    }
}

#[test]
fn the_footer_agrees_with_the_annotations() {
    let (layer, bytes) = indexed(&tree(), 2);
    let toc = Toc::of(&layer).unwrap().unwrap();
    let footer: Vec<u64> = bytes[bytes.len() - 40..bytes.len() - 8]
        .chunks(8)
        .map(|number| u64::from_le_bytes(number.try_into().unwrap()))
        .collect();
    assert_eq!(footer, [toc.offset, toc.size, toc.plain_size, 1]);
    assert_eq!(bytes[bytes.len() - 8..], *b"GnUlInUx");
    let toc_bytes = part(&bytes, &toc.range());
    assert_eq!(toc.descriptor().digest, Digest::of(toc_bytes));
    let plain = zstd::decode_all(toc_bytes).unwrap();
    let stargz = &layer.annotations["containerd.io/snapshot/stargz/toc.digest"];
    assert_eq!((stargz, plain.len() as u64), (&Digest::of(&plain).to_string(), toc.plain_size));
}

#[test]
fn impossible_annotations_are_an_integrity_error() {
    let (layer, _) = indexed(&[file("a", b"1".to_vec())], 1);
    let with = |key: &str, value: &str| {
        let mut layer = layer.clone();
        layer.annotations.insert(key.to_owned(), value.to_owned());
        Toc::of(&layer)
    };
    let too_far = format!("{}:10:20", layer.size);
    for position in
        ["", "1", "8:1", "8:0:1", "8:1:1:1", "7:1:1", "x:1:1", "-8:1:1", "18446744073709551615:9:1", &too_far]
    {
        let error = with("io.volio.toc.position", position).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{position}");
    }
    assert_eq!(with("io.volio.toc.digest", "sha256:1").unwrap_err().kind(), ErrorKind::Integrity);
    let plain = Descriptor::new("x", layer.digest.clone(), layer.size);
    assert_eq!(Toc::of(&plain).unwrap(), None);
}

/// Reads a table of contents with this text.
fn read_text(text: &str) -> crate::Result<Vec<ReadEntry>> {
    let bytes = zstd::encode_all(text.as_bytes(), 1).unwrap();
    let toc = Toc {
        offset: 1000,
        size: bytes.len() as u64,
        plain_size: text.len() as u64,
        digest: Digest::of(&bytes),
        plain_digest: None,
    };
    read(&toc, &bytes)
}

#[test]
fn a_table_of_contents_of_another_program_is_read() {
    let digest = Digest::of(b"x");
    let entries = read_text(&format!(
        "{{\n\t\"version\": 1,\n\t\"entries\": [ {{\"name\":\"a/\",\"type\":\"dir\",\"mode\":493}} ,\n {{\"name\":\"a/b\",\
         \"type\":\"reg\",\"size\":1,\"new\":[{{}}],\"digest\":\"{digest}\",\"offset\":3,\"endOffset\":9,\"chunkDigest\":\
         \"{digest}\"}}\n]\n}}\n"
    ));
    let Item::Entry(b) = &entries.unwrap()[1].item else { panic!() };
    assert_eq!((b.path.to_string(), b.metadata.mtime), ("/a/b".to_owned(), Time::default()));
}

#[test]
fn an_invalid_table_of_contents_is_an_integrity_error() {
    let digest = Digest::of(b"x").to_string();
    let file = |size: u64, more: &str| {
        format!(
            r#"{{"name":"a","type":"reg","size":{size},"digest":"{digest}","chunkDigest":"{digest}"{more}}}"#
        )
    };
    let chunk = |more: &str| format!(r#"{{"name":"a","type":"chunk","chunkDigest":"{digest}"{more}}}"#);
    let here = r#","offset":3,"endOffset":9"#;
    let good = file(1, here);
    let next = file(1, r#","offset":9,"endOffset":19"#);
    let in_same = file(1, &format!(r#"{here},"innerOffset":1"#));
    for more in [&next, &in_same] {
        assert!(read_text(&format!(r#"{{"entries":[{good},{more}],"version":1}}"#)).is_ok());
    }
    let two = file(9, &format!(r#"{here},"chunkSize":4"#));
    let bad = [
        file(1, r#","offset":3,"endOffset":3"#),
        file(1, r#","offset":3,"endOffset":993"#),
        file(1, r#","offset":9,"endOffset":3"#),
        file(1, &format!(r#"{here},"innerOffset":99999999"#)),
        file(1, &format!(r#"{here},"innerOffset":18446744073709551615"#)),
        file(1 << 40, here),
        file(9, &format!(r#"{here},"chunkSize":4"#)),
        format!("{two},{}", chunk(&format!(r#"{here},"chunkOffset":5,"chunkSize":4"#))),
        format!("{two},{}", chunk(&format!(r#"{here},"chunkOffset":4,"chunkSize":6"#))),
        format!("{good},{}", chunk(here)),
        format!("{good},{good}"),
        format!("{next},{good}"),
        format!("{in_same},{good}"),
        format!("{good},{}", file(1, r#","offset":8,"endOffset":19"#)),
        format!("{good},{}", file(1, r#","offset":3,"endOffset":19,"innerOffset":1"#)),
        r#"{"name":"../a","type":"dir"}"#.to_owned(),
        r#"{"name":"a","type":"strange"}"#.to_owned(),
        r#"{"name":"a","type":"dir","uid":4294967295}"#.to_owned(),
        r#"{"name":"a","type":"dir","modtime":"yesterday"}"#.to_owned(),
        r#"{"name":"a","nameRaw":"?","type":"dir"}"#.to_owned(),
        r#"{"name":"a","type":"hardlink","linkName":"../b"}"#.to_owned(),
        r#"{"name":".wh.","type":"reg"}"#.to_owned(),
        format!(r#"{{"name":"{}","type":"dir"}}"#, "x".repeat(3 << 20)),
        r#"{"name":"a","type":"reg","size":1}"#.to_owned(),
        "[]".to_owned(),
        "1".to_owned(),
    ];
    for entries in bad {
        let error = read_text(&format!(r#"{{"entries":[{entries}],"version":1}}"#)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{}", entries.get(..200).unwrap_or(&entries));
    }
    for text in [
        "",
        "{}",
        "[]",
        "{",
        r#"{"entries":[],"version":2}"#,
        r#"{"entries":[{"name":"a","type":"dir"}]}"#,
        "]]]",
        &"{".repeat(9999),
    ] {
        assert_eq!(read_text(text).unwrap_err().kind(), ErrorKind::Integrity, "{text:.50}");
    }
    assert!(read_text(r#"{"entries":[],"version":1}"#).unwrap().is_empty());
}

/// Returns the table of contents of a file with `count` chunks, each in a separate frame.
fn many_chunks(count: u64) -> Vec<u8> {
    let mut text = br#"{"entries":["#.to_vec();
    for number in 0..count {
        let (kind, digest) =
            (if number == 0 { "reg" } else { "chunk" }, Digest::of(&noise(number, 8)).to_string());
        let (begin, size) = (8 + number * 9, if number == 0 { count } else { 0 });
        let comma = if number == 0 { "" } else { "," };
        text.extend_from_slice(
            format!(
                r#"{comma}{{"name":"a","type":"{kind}","size":{size},"chunkDigest":"{digest}","chunkOffset":{number},"chunkSize":1,"offset":{begin},"endOffset":{}}}"#,
                begin + 9
            )
            .as_bytes(),
        );
    }
    [&text[..], br#"],"version":1}"#].concat()
}

#[test]
fn a_file_of_many_chunks_is_returned_before_its_chunks_are_read() {
    let text = many_chunks(50_000);
    let bytes = zstd::encode_all(&text[..], 1).unwrap();
    let (size, plain_size) = (bytes.len() as u64, text.len() as u64);
    let toc = Toc { offset: 1 << 20, size, plain_size, digest: Digest::of(&bytes), plain_digest: None };
    let mut left = &bytes[..];
    let mut reader = TocReader::new(&toc, &mut left).unwrap();
    assert!(reader.next_entry().unwrap().is_some());
    assert_eq!(reader.next_chunk().unwrap().map(|chunk| chunk.size), Some(1));
    drop(reader);
    assert!(left.len() > bytes.len() / 2, "{} of {} are left", left.len(), bytes.len());
    // A caller that does not read the chunks comes to the end, too.
    let mut reader = TocReader::new(&toc, &bytes[..]).unwrap();
    assert!(reader.next_entry().unwrap().is_some() && reader.next_entry().unwrap().is_none());
}

#[test]
fn an_impossible_chunk_is_an_error_on_every_call() {
    let text = String::from_utf8(many_chunks(9)).unwrap();
    let less = text.replacen(r#""size":9"#, r#""size":10"#, 1);
    let elsewhere = text.replacen(r#""chunkOffset":5"#, r#""chunkOffset":6"#, 1);
    for text in [less, elsewhere] {
        let bytes = zstd::encode_all(text.as_bytes(), 1).unwrap();
        let (size, plain_size) = (bytes.len() as u64, text.len() as u64);
        let toc = Toc { offset: 1000, size, plain_size, digest: Digest::of(&bytes), plain_digest: None };
        let mut asked = TocReader::new(&toc, &bytes[..]).unwrap();
        asked.next_entry().unwrap();
        while matches!(asked.next_chunk(), Ok(Some(_))) {}
        let mut skipped = TocReader::new(&toc, &bytes[..]).unwrap();
        skipped.next_entry().unwrap();
        for _ in 0..3 {
            assert_eq!(asked.next_chunk().unwrap_err().kind(), ErrorKind::Integrity);
            assert_eq!(skipped.next_entry().unwrap_err().kind(), ErrorKind::Integrity);
        }
    }
}

#[test]
fn a_chunk_with_other_content_is_an_integrity_error() {
    let (layer, bytes) = indexed(&tree(), 2);
    let toc = toc_of(&layer, &bytes).unwrap();
    let chunks: Vec<_> =
        toc.iter().flat_map(|read_entry| &read_entry.chunks).filter(|chunk| !chunk.zeros).collect();
    let extract = |chunk: &Chunk, bytes: &[u8]| extract(chunk, bytes).unwrap_err().kind();
    let (one, other) = (chunks[0], chunks[chunks.len() - 2]);
    let frame = part(&bytes, &other.frame);
    assert_eq!(extract(one, frame), ErrorKind::Integrity);
    for wrong in [&frame[..20], b"", &[frame, frame].concat(), &[frame, b"x"].concat()] {
        assert_eq!(extract(other, wrong), ErrorKind::Integrity);
    }
    let lie = Chunk { zeros: true, ..one.clone() };
    assert_eq!(extract(&lie, b""), ErrorKind::Integrity);
    let shifted = Chunk { inner: other.inner + 1, ..other.clone() };
    assert_eq!(extract(&shifted, frame), ErrorKind::Integrity);
    let elsewhere = Chunk { frame: other.frame.start + 1..other.frame.end + 1, ..other.clone() };
    let frame = PlainFrame::new(other.frame.clone(), frame).unwrap();
    assert!(frame.chunk(&elsewhere).is_err() && frame.chunk(other).is_ok());
}

#[test]
fn a_table_of_contents_in_a_file_is_verified_and_can_be_read_several_times() {
    let (layer, bytes) = indexed(&tree()[..50], 1);
    let toc = Toc::of(&layer).unwrap().unwrap();
    let limits = Limits::default();
    let hold = |bytes: Vec<u8>| {
        let bytes = Unverified::new(std::io::Cursor::new(bytes));
        VerifiedToc::verify_into(tempfile::tempfile().unwrap().into(), 7, toc.clone(), bytes, &limits)
    };
    let mut good = part(&bytes, &toc.range()).to_vec();
    let held = hold(good.clone()).unwrap();
    for _ in 0..2 {
        let mut one = held.entries(Budget::default()).unwrap();
        let mut other = TocReader::new(&toc, &good[..]).unwrap();
        while let Some(entry) = other.next_entry().unwrap() {
            assert_eq!(one.next_entry().unwrap(), Some(entry));
        }
        assert_eq!(one.next_entry().unwrap(), None);
    }
    good[7] ^= 1;
    assert_eq!(hold(good).unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn the_declared_size_of_a_chunk_takes_no_memory() {
    let digest = Digest::of(b"");
    for size in [0, (16 << 20) + 1, 1 << 50, u64::MAX] {
        let chunk = Chunk { frame: 8..17, inner: 0, offset: 0, size, digest: digest.clone(), zeros: true };
        assert_eq!(extract(&chunk, b"").unwrap_err().kind(), ErrorKind::Integrity);
        let chunk = Chunk { zeros: false, ..chunk };
        assert_eq!(extract(&chunk, &[0; 9]).unwrap_err().kind(), ErrorKind::Integrity);
    }
    // A frame that declares a huge size.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0];
    assert_eq!(PlainFrame::new(0..16, &frame).err().unwrap().kind(), ErrorKind::Integrity);
}

/// Compares the archive of one tree with the table of contents of another one.
fn check(listed: &[(Entry, Vec<u8>)], archived: &[(Entry, Vec<u8>)]) -> crate::Result<()> {
    let (layer, bytes) = indexed(listed, 2);
    let toc = Toc::of(&layer)?.unwrap();
    let mut checker = TocChecker::new(TocReader::new(&toc, part(&bytes, &toc.range()))?);
    let mut archive = LayerWriter::new(Vec::new());
    for (entry, content) in archived {
        archive.append(entry, content.as_slice(), |_| {})?;
    }
    let (archive, _) = archive.finish()?;
    let mut archive = LayerReader::new(archive.as_slice());
    while let Some(item) = archive.next_item()? {
        checker.item(&item)?;
        std::io::copy(&mut checker.content(archive.content()), &mut std::io::sink())
            .map_err(|error| crate::Error::io("cannot read", error))?;
    }
    checker.finish()
}

#[test]
fn every_difference_between_an_archive_and_a_table_of_contents_is_detected() {
    let tree = tree();
    check(&tree, &tree).unwrap();
    let large = tree.iter().position(|(_, content)| content.len() == 9 << 20).unwrap();
    let mut others = Vec::new();
    let mut other = |change: &dyn Fn(&mut Tree)| {
        let mut changed = tree.clone();
        change(&mut changed);
        others.push(changed);
    };
    other(&|tree| tree[5].1[7] ^= 1);
    other(&|tree| tree[large].1[(9 << 20) - 1] ^= 1);
    other(&|tree| tree[large].1[0] ^= 1);
    other(&|tree| tree[9].0.metadata.mtime.nanoseconds += 1);
    other(&|tree| tree[9].0.metadata.mode ^= 1);
    other(&|tree| _ = tree[9].0.metadata.xattrs.insert(b"user.x".to_vec(), Vec::new()));
    other(&|tree| _ = tree.remove(9));
    other(&|tree| _ = tree.pop());
    other(&|tree| tree.push(file("more", vec![])));
    other(&|tree| tree.swap(8, 9));
    other(&|tree| tree[5] = file("a/003", vec![1; 299]));
    for (number, other) in others.iter().enumerate() {
        for (listed, archived) in [(&tree, other), (other, &tree)] {
            let error = check(listed, archived).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Integrity, "{number}: {error}");
            assert!(error.to_string().contains("table of contents"), "{number}: {error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_table_of_contents_causes_no_panic(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (layer, bytes) = indexed(&tree()[..20], 1);
        let toc = Toc::of(&layer).unwrap().unwrap();
        let mut text = zstd::decode_all(part(&bytes, &toc.range())).unwrap();
        let at = at.index(text.len());
        text[at] = byte;
        let _ = read_text(&String::from_utf8_lossy(&text));
        text.truncate(cut.index(text.len()));
        prop_assert!(read_text(&String::from_utf8_lossy(&text)).is_err());
    }
}
