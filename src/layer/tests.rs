//! The writer and the reader of archives are tested with each other, and with an independent reader.

use super::{
    Compression, Item, Layer, LayerReader, LayerWriter, Toc, TocChecker, TocReader, Whiteout, decompress,
};
use crate::error::Kind as ErrorKind;
use crate::oci::Digest;
use crate::stream::{Workers, Written};
use crate::tree::{Entry, EntryKind, Metadata, Time, TreePath};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::thread;

fn path(path: impl AsRef<[u8]>) -> TreePath {
    TreePath::parse(path).unwrap()
}

fn entry(name: &str, kind: EntryKind) -> Entry {
    let metadata = Metadata {
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: Time { seconds: 3, nanoseconds: 0 },
        xattrs: BTreeMap::new(),
    };
    Entry { path: path(name), kind, metadata }
}

fn write(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut layer = LayerWriter::new(Vec::new());
    for (entry, content) in entries {
        layer.append(entry, content.as_slice(), |_| {}).unwrap();
    }
    let (archive, contents) = layer.finish().unwrap();
    assert_eq!(contents.diff_id, Digest::of(&archive));
    assert_eq!(contents.size, archive.len() as u64);
    assert_eq!(contents.entries, entries.len() as u64);
    archive
}

fn read(archive: &[u8]) -> crate::Result<Vec<(Item, Vec<u8>)>> {
    let mut layer = LayerReader::new(archive);
    let mut items = Vec::new();
    while let Some(item) = layer.next_item()? {
        let mut content = Vec::new();
        layer.content().read_to_end(&mut content).map_err(|error| crate::Error::io("cannot read", error))?;
        items.push((item, content));
    }
    layer.drain()?;
    Ok(items)
}

#[test]
fn whiteouts_are_in_the_archive_of_each_format_and_in_the_table_of_contents() {
    let removed = ["d/a", "d/.hidden", &format!("d/{}", "n".repeat(255))].map(path);
    let directory = Item::Entry(entry("d", EntryKind::Directory));
    let whiteouts = removed.iter().map(|path| Item::Whiteout(Whiteout::Entry(path.clone())));
    let last = Item::Entry(entry("d/z", EntryKind::Fifo));
    let expected: Vec<Item> = [directory].into_iter().chain(whiteouts).chain([last]).collect();
    for compression in [Compression::default(), Compression::Gzip { level: 6 }, Compression::None] {
        let (mut layer, mut blob) = compression.layer(&Workers::start(2).unwrap(), 2).unwrap();
        let (toc, mut bytes) = (blob.pending_toc(), Vec::new());
        let contents = thread::scope(|scope| {
            let writer = scope.spawn(|| {
                layer.append(&entry("d", EntryKind::Directory), io::empty(), |_| {}).unwrap();
                removed.iter().for_each(|path| layer.append_whiteout(path).unwrap());
                layer.append(&entry("d/z", EntryKind::Fifo), io::empty(), |_| {}).unwrap();
                layer.finish().unwrap().1
            });
            blob.read_to_end(&mut bytes).unwrap();
            writer.join().unwrap()
        });
        assert_eq!(contents.entries, 2, "whiteouts are not entries");
        let written = Written { digest: Digest::of(&bytes), size: bytes.len() as u64 };
        let layer = Layer::new(compression, &contents, written, toc.get()).descriptor;
        let mut checker = Toc::of(&layer).unwrap().map(|toc| {
            let range = toc.range();
            TocChecker::new(TocReader::new(&toc, &bytes[range.start as usize..range.end as usize]).unwrap())
        });
        assert_eq!(checker.is_some(), compression == Compression::default());
        let mut archive = LayerReader::new(decompress(&bytes[..]).unwrap());
        for item in &expected {
            assert_eq!(archive.next_item().unwrap().as_ref(), Some(item), "{compression}");
            checker.iter_mut().for_each(|toc| toc.item(item).unwrap());
        }
        assert_eq!(archive.next_item().unwrap(), None);
        checker.map_or(Ok(()), TocChecker::finish).unwrap();
    }
}

#[test]
fn the_archive_of_a_directory_for_tar_has_no_whiteouts() {
    let mut archive = LayerWriter::new(Vec::new()).gnu();
    assert!(archive.append_whiteout(&path("a")).is_err(), "it would be an ordinary file there");
}

#[test]
fn more_attributes_than_readers_accept_are_refused_when_they_are_written() {
    let mut found = entry("file", EntryKind::File { size: 0 });
    let mut append = |number: usize| {
        found.metadata.xattrs.insert(format!("user.{number}").into_bytes(), vec![b'x'; 60_000]);
        LayerWriter::new(Vec::new()).append(&found, std::io::empty(), |_| {}).map(|()| {
            assert!(read(&write(&[(found.clone(), Vec::new())])).is_ok(), "{number}");
        })
    };
    let first_refused = (0..30).position(|number| append(number).is_err());
    assert_eq!(first_refused, Some(17), "1 MiB");
}

#[test]
fn an_impossible_size_is_an_error_and_not_a_panic() {
    let pax = format!("29 size={}\n", u64::MAX);
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XHeader);
    header.set_size(pax.len() as u64);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.extend_from_slice(pax.as_bytes());
    archive.resize(2 * 512, 0);
    archive.extend(hostile("file", tar::EntryType::Regular, "", 0));
    let mut layer = LayerReader::new(archive.as_slice());
    assert!(layer.next_item().unwrap().is_some());
    assert_eq!(layer.next_item().unwrap_err().kind(), ErrorKind::Integrity);
}

fn any_time() -> impl Strategy<Value = Time> {
    (prop_oneof![Just(0i64), -9_999_999_999i64..99_999_999_999], 0..1_000_000_000u32)
        .prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds })
}

fn any_path() -> impl Strategy<Value = TreePath> {
    let name = prop::collection::vec(1..=255u8, 1..90);
    prop::collection::vec(name, 1..5).prop_filter_map("a name that an image can hold", |names| {
        let path = TreePath::parse(names.join(&b'/'))?;
        (!path.is_root() && path.names().all(|name| !name.starts_with(b".wh."))).then_some(path)
    })
}

fn any_kind() -> impl Strategy<Value = (EntryKind, Vec<u8>)> {
    let number = (0..1u32 << 12, 0..1u32 << 20);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2000)
            .prop_map(|content| (EntryKind::File { size: content.len() as u64 }, content)),
        Just((EntryKind::Directory, Vec::new())),
        Just((EntryKind::Fifo, Vec::new())),
        prop::collection::vec(1..=255u8, 1..400)
            .prop_map(|target| (EntryKind::Symlink { target }, Vec::new())),
        any_path().prop_map(|target| (EntryKind::Hardlink { target }, Vec::new())),
        number.clone().prop_map(|(major, minor)| (EntryKind::CharDevice { major, minor }, Vec::new())),
        number.prop_map(|(major, minor)| (EntryKind::BlockDevice { major, minor }, Vec::new())),
    ]
}

prop_compose! {
    fn any_entry()(
        path in any_path(),
        (kind, content) in any_kind(),
        mode in 0..0o10000u32,
        uid in 0..u32::MAX,
        gid in 0..u32::MAX,
        mtime in any_time(),
        xattrs in prop::collection::btree_map(
            "[a-z]{1,9}\\.[^=\0]{1,40}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..200),
            0..3,
        ),
    ) -> (Entry, Vec<u8>) {
        (Entry { path, kind, metadata: Metadata { mode, uid, gid, mtime, xattrs } }, content)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn entries_are_read_as_they_were_written(entries in prop::collection::vec(any_entry(), 0..8)) {
        let expected: Vec<_> =
            entries.iter().map(|(entry, content)| (Item::Entry(entry.clone()), content.clone())).collect();
        prop_assert_eq!(read(&write(&entries)).unwrap(), expected);
    }

    #[test]
    fn an_independent_reader_reads_the_same(mut entries in prop::collection::vec(any_entry(), 0..8)) {
        entries.retain(|(entry, _)| is_for_tar(entry));
        let archive = write(&entries);
        let mut independent = tar::Archive::new(archive.as_slice());
        for ((expected, content), read) in entries.iter().zip(independent.entries().unwrap()) {
            let mut read = read.unwrap();
            let read_path = read.path_bytes().into_owned();
            prop_assert_eq!(read_path.strip_suffix(b"/").unwrap_or(&read_path), expected.path.as_bytes());
            prop_assert_eq!(read.header().mode().unwrap() & 0o7777, expected.metadata.mode);
            let mut read_content = Vec::new();
            read.read_to_end(&mut read_content).unwrap();
            prop_assert_eq!(&read_content, content);
        }
    }

    #[test]
    fn a_damaged_archive_causes_no_panic(
        entries in prop::collection::vec(any_entry(), 1..4),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut archive = write(&entries);
        let at = at.index(archive.len());
        archive[at] ^= flip;
        let _ = read(&archive);
        archive.truncate(cut.index(archive.len()));
        let _ = read(&archive);
    }
}

/// Returns whether the crate tar can read the entry: it splits PAX records at every newline.
fn is_for_tar(entry: &Entry) -> bool {
    let target = match &entry.kind {
        EntryKind::Symlink { target } => target,
        EntryKind::Hardlink { target } => target.as_bytes(),
        _ => b"",
    };
    let values = entry.metadata.xattrs.iter().flat_map(|(name, value)| [name.as_slice(), value.as_slice()]);
    !values.chain([entry.path.as_bytes(), target]).any(|bytes| bytes.contains(&b'\n'))
}

#[test]
fn the_name_of_a_whiteout_cannot_be_packed() {
    for name in ["a/.wh.b", ".wh..wh..opq", ".wh.dir/x"] {
        let error =
            LayerWriter::new(Vec::new()).append(&entry(name, EntryKind::Fifo), &b""[..], |_| {}).unwrap_err();
        assert!(error.to_string().contains(&format!("/{name}")), "{error}");
    }
}

#[test]
fn a_file_that_became_shorter_is_named_in_the_error() {
    let file = entry("data/ibd", EntryKind::File { size: 10 });
    let error = LayerWriter::new(Vec::new()).append(&file, &b"short"[..], |_| {}).unwrap_err();
    assert!(error.to_string().contains("/data/ibd became shorter"), "{error}");
}

#[test]
fn a_file_that_grew_is_packed_with_its_first_size() {
    let items =
        read(&write(&[(entry("log", EntryKind::File { size: 3 }), b"one and more".to_vec())])).unwrap();
    assert_eq!(items[0].1, b"one");
}

#[test]
fn content_that_is_not_read_is_skipped() {
    let archive = write(&[
        (entry("a", EntryKind::File { size: 700 }), vec![7; 700]),
        (entry("b", EntryKind::File { size: 1 }), vec![8]),
    ]);
    let mut layer = LayerReader::new(archive.as_slice());
    let mut names = Vec::new();
    while let Some(Item::Entry(entry)) = layer.next_item().unwrap() {
        names.push(entry.path.to_string());
        let _ = layer.content().read(&mut [0; 100]).unwrap();
    }
    assert_eq!(names, ["/a", "/b"]);
}

#[test]
fn a_truncated_archive_is_an_integrity_error() {
    let archive = write(&[(entry("a", EntryKind::File { size: 700 }), vec![7; 700])]);
    for length in [1, 511, 513, 1000, 1211, 1300] {
        let error = read(&archive[..length]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{length}: {error}");
    }
    // Without its closing blocks it is still an archive: old Docker versions wrote such layers.
    assert_eq!(read(&archive[..1536]).unwrap().len(), 1);
}

/// Returns an archive of one entry, written without checks.
fn hostile(name: &str, kind: tar::EntryType, link: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    let ustar = header.as_ustar_mut().unwrap();
    ustar.name[..name.len()].copy_from_slice(name.as_bytes());
    ustar.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    archive.write_all(&[0; 1024]).unwrap();
    archive
}

#[test]
fn entries_that_would_leave_the_tree_are_integrity_errors() {
    use tar::EntryType::{Char, Fifo, Link, Regular, Symlink};
    for (name, kind, link) in [
        ("../a", Regular, ""),
        ("a/../../b", Regular, ""),
        ("a", Link, "../../etc/passwd"),
        ("./", Symlink, "/etc"),
        ("a/.wh...", Regular, ""),
        (".wh.", Regular, ""),
        ("a", tar::EntryType::new(b'Z'), ""),
    ] {
        let error = read(&hostile(name, kind, link, 0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{name}: {error}");
    }
    for (name, kind, link) in
        [("a", Symlink, "/etc/passwd"), ("/abs", Regular, ""), ("d", Char, ""), ("f", Fifo, "")]
    {
        assert_eq!(read(&hostile(name, kind, link, 0)).unwrap().len(), 1, "{name}");
    }
    let sized = read(&hostile("a", Symlink, "b", 512)).unwrap();
    assert_eq!(sized.len(), 1, "a link has no content, whatever its header says");
}

#[test]
fn the_gnu_dialect_is_read() {
    let mut archive = tar::Builder::new(Vec::new());
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(90));
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o600);
    header.set_uid(1 << 31);
    archive.append_data(&mut header, &long, &b"abc"[..]).unwrap();
    let items = read(&archive.into_inner().unwrap()).unwrap();
    let (Item::Entry(entry), content) = &items[0] else { panic!("{items:?}") };
    assert_eq!(
        (entry.path.as_bytes(), entry.metadata.uid, content.as_slice()),
        (long.as_bytes(), 1 << 31, &b"abc"[..])
    );
}

/// Returns a tree with an entry of each kind and with each field at its limits, which shows a change of bytes.
fn golden_tree() -> Vec<(Entry, Vec<u8>)> {
    let time = |seconds, nanoseconds| Time { seconds, nanoseconds };
    let with = |path: &str, kind, mode, owner, mtime, xattrs: &[(&str, &[u8])]| {
        let xattrs = xattrs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect();
        Entry {
            path: self::path(path),
            kind,
            metadata: Metadata { mode, uid: owner, gid: owner, mtime, xattrs },
        }
    };
    let long = format!("dir/{}", "n".repeat(120));
    let target = b"/t".repeat(100);
    vec![
        (with("", EntryKind::Directory, 0o755, 0, time(0, 0), &[]), vec![]),
        (
            with("dir", EntryKind::Directory, 0o1777, 999, time(1_600_000_000, 0), &[("user.a", b"b\n\0")]),
            vec![],
        ),
        (
            with(&long, EntryKind::File { size: 3 }, 0o4755, 3_000_000_000, time(-2, 500_000_000), &[]),
            b"abc".to_vec(),
        ),
        (with("fifo", EntryKind::Fifo, 0o600, 1, time(9_999_999_999, 1), &[]), vec![]),
        (with("file", EntryKind::File { size: 513 }, 0, 2_097_151, time(1, 100), &[]), vec![b'x'; 513]),
        (
            with("hard", EntryKind::Hardlink { target: self::path("file") }, 0, 2_097_152, time(1, 100), &[]),
            vec![],
        ),
        (with("link", EntryKind::Symlink { target }, 0o777, 0, time(8_589_934_591, 0), &[]), vec![]),
        (with("null", EntryKind::CharDevice { major: 1, minor: 3 }, 0o666, 0, time(0, 0), &[]), vec![]),
        (with("sda", EntryKind::BlockDevice { major: 8, minor: 0 }, 0o660, 0, time(0, 0), &[]), vec![]),
    ]
}

/// A change of this digest is a decision. It belongs into CHANGELOG.md, and the archive must be checked with another tar.
#[test]
fn the_golden_tree_has_the_golden_archive() {
    assert_eq!(
        Digest::of(&write(&golden_tree())).to_string(),
        "sha256:39198bbac2dd4c2960d04fd5cf0136d62dfa097532ccac2c5e441b773f259954"
    );
}
