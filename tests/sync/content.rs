//! What is fetched, what is reused, and what is noticed.

use super::{CHECKSUM, Fixture, counted, noise, quick, set_mtime, synced};
use crate::snapshot::assert_same;
use std::fs::{self, Permissions};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use volio::oci::{Descriptor, Document};
use volio::progress::Silent;
use volio::stream::Unverified;
use volio::transport::Source;
use volio::unpack::{SyncOptions, WriteMode, unpack};
use volio::{Result, pack};

// Reported of other programs: a small edit causes most of a large file to be fetched.
#[test]
fn blocks_that_changed_in_a_large_file_cost_their_chunks() {
    let mut content = noise(1, 24 << 20);
    let fixture = Fixture::new(&[("disk", &content)]);
    content[20 << 20..][..4096].fill(7);
    fixture.write("disk", &content);
    let done = fixture.update();
    let size = content.len() as u64;
    assert!(done.fetched < size / 5 && done.reused > size * 3 / 4, "{done:?}");
    // Bytes that are inserted at the beginning move all others.
    content.splice(0..0, *b"moved");
    fixture.write("disk", &content);
    let done = fixture.update();
    assert!(done.fetched < size / 5 && done.reused > size * 3 / 4, "{done:?}");
}

// Reported of other programs: new mtimes without new contents cause everything to be sent again. Renamed files are
// found by their content.
#[test]
fn renamed_and_copied_files_are_not_fetched() {
    let large = noise(2, 9 << 20);
    let fixture = Fixture::new(&[
        ("log", b"newest"),
        ("log.1", b"second"),
        ("log.2", b"oldest"),
        ("dir/large", &large),
        ("swap/a", b"content a"),
        ("swap/b", b"content b"),
        ("other", b"stays here"),
    ]);
    let tree = fixture.tree();
    fs::rename(tree.join("log.2"), tree.join("log.3")).unwrap();
    fs::rename(tree.join("log.1"), tree.join("log.2")).unwrap();
    fs::rename(tree.join("log"), tree.join("log.1")).unwrap();
    fs::rename(tree.join("dir"), tree.join("moved")).unwrap();
    fs::copy(tree.join("other"), tree.join("copy")).unwrap();
    set_mtime(&tree.join("copy"), 1_500_000_000);
    fixture.pack();
    let (done, (whole, parts)) = counted(&fixture, SyncOptions::default());
    assert_same(&tree, &fixture.target());
    assert_eq!((whole, parts), (0, done.fetched), "{done:?}");
    assert!(done.fetched < 10_000 && done.reused > 9 << 20, "{done:?}");
}

#[test]
fn files_that_exchange_their_contents_are_right_afterwards() {
    let fixture = Fixture::new(&[("a", b"content a"), ("b", b"content b"), ("c", b"content c")]);
    for (name, content) in [("a", b"content b"), ("b", b"content c"), ("c", b"content a")] {
        fixture.write(name, content);
    }
    fixture.update();
}

// Reported of other programs: chmod and chown of a whole tree cause everything to be sent again; a change of
// extended attributes alone is missed.
#[test]
fn other_attributes_are_set_in_place_without_fetching_anything() {
    let fixture = Fixture::new(&[("a", b"one"), ("dir/b", b"two"), ("dir/c", b"three")]);
    let inode = |name: &str| fs::metadata(fixture.target().join(name)).unwrap().ino();
    let before = ["a", "dir/b"].map(inode);
    for name in ["a", "dir", "dir/b"] {
        fs::set_permissions(fixture.tree().join(name), Permissions::from_mode(0o700)).unwrap();
    }
    set_mtime(&fixture.tree().join("dir/c"), 1_000_000_000);
    fixture.pack();
    let (done, (whole, _)) = counted(&fixture, SyncOptions::default());
    assert_same(&fixture.tree(), &fixture.target());
    assert_eq!((whole, done.written, done.reused), (0, 0, 0), "{done:?}");
    assert_eq!(done.attributes, 4, "three files and a directory: {done:?}");
    assert_eq!(["a", "dir/b"].map(inode), before);
    // The same in the target: it is undone.
    for name in ["a", "dir"] {
        fs::set_permissions(fixture.target().join(name), Permissions::from_mode(0o711)).unwrap();
    }
    set_mtime(&fixture.target().join("dir/b"), 5);
    let done = fixture.update();
    assert_eq!((done.written, done.attributes), (0, 3), "{done:?}");
}

// Reported of other programs: a change is missed if size and mtime are restored; a second change within the same
// tick of the clock is missed; clock skew and mtimes in the future.
#[test]
fn a_change_that_keeps_size_and_mtime_is_noticed() {
    let fixture = Fixture::new(&[("file", b"before"), ("other", b"other")]);
    let at = fixture.target().join("file");
    let mtime = fs::metadata(&at).unwrap().mtime();
    fs::write(&at, "AFTER!").unwrap();
    set_mtime(&at, mtime);
    let done = fixture.update();
    assert_eq!(done.written, 1, "its inode has changed since: {done:?}");
    // A time in the future says nothing.
    set_mtime(&fixture.tree().join("file"), 4_000_000_000);
    fixture.update();
    fs::write(&at, "future").unwrap();
    set_mtime(&at, 4_000_000_000);
    fixture.update();
}

#[test]
fn an_image_with_other_content_and_the_old_times_is_noticed_with_checksum() {
    let fixture = Fixture::new(&[("file", b"before"), ("newer", b"much newer")]);
    set_mtime(&fixture.tree().join("file"), 1_000_000_000);
    fixture.update();
    fs::write(fixture.tree().join("file"), "AFTER!").unwrap();
    set_mtime(&fixture.tree().join("file"), 1_000_000_000);
    fixture.pack();
    fixture.sync();
    // That it is not noticed by now is the documented limit, unless the whole run took less than a tick of the clock.
    synced(&fixture.image, &fixture.target(), CHECKSUM).unwrap();
    assert_same(&fixture.tree(), &fixture.target());
}

// Reported of other programs: a running program is harmed by a change in place.
#[test]
fn an_open_file_and_a_name_outside_of_the_target_keep_the_old_content() {
    use std::io::Read;
    let fixture = Fixture::new(&[("file", b"old content"), ("mode", b"same content")]);
    for name in ["file", "mode"] {
        fs::hard_link(fixture.target().join(name), fixture.at(name)).unwrap();
    }
    let mut open = fs::File::open(fixture.target().join("file")).unwrap();
    let mode = fs::metadata(fixture.at("mode")).unwrap().mode();
    fixture.write("file", b"new content, and longer");
    fs::set_permissions(fixture.tree().join("mode"), Permissions::from_mode(0o600)).unwrap();
    fixture.update();
    let mut seen = String::new();
    open.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "old content");
    assert_eq!(fs::read(fixture.at("file")).unwrap(), b"old content");
    assert_eq!(fs::metadata(fixture.at("mode")).unwrap().mode(), mode);
}

// Reported of other programs: a hard link leads into a lower layer.
#[test]
fn groups_of_hard_links_are_joined_split_and_lose_their_first_name() {
    let fixture = Fixture::new(&[("a", b"one"), ("c", b"two"), ("e", b"three")]);
    let tree = fixture.tree();
    let link = |from: &str, to: &str| fs::hard_link(tree.join(from), tree.join(to)).unwrap();
    link("a", "b");
    link("a", "dir-less");
    link("e", "f");
    fixture.update();
    // The first name goes, one name gets a file of its own, and two files become one.
    fs::remove_file(tree.join("a")).unwrap();
    fs::remove_file(tree.join("f")).unwrap();
    fixture.write("f", b"three");
    fs::remove_file(tree.join("c")).unwrap();
    link("b", "c");
    fixture.update();
    assert_eq!(fixture.update().written, 0);
}

/// A place that does something when the first range of a layer is read after the table of contents.
struct Meddling<'a> {
    image: &'a dyn Source,
    ranges: std::sync::atomic::AtomicUsize,
    meddle: &'a (dyn Fn() + Sync),
}

impl Source for Meddling<'_> {
    fn resolve(&self) -> Result<Document> {
        self.image.resolve()
    }

    fn open(&self, blob: &Descriptor) -> Result<Unverified> {
        self.image.open(blob)
    }

    fn open_range(&self, blob: &Descriptor, range: Range<u64>) -> Result<Option<Unverified>> {
        if self.ranges.fetch_add(1, Ordering::SeqCst) == 1 {
            (self.meddle)();
        }
        self.image.open_range(blob, range)
    }
}

// Reported of other programs: the old file is overwritten while it is still needed; a damaged local chunk is used
// again.
#[test]
fn content_that_changes_while_it_is_reused_is_fetched() {
    let mut content = noise(3, 32 << 20);
    let fixture = Fixture::new(&[("disk", &content)]);
    content[30 << 20..][..10].fill(1);
    fixture.write("disk", &content);
    fixture.pack();
    let at = fixture.target().join("disk");
    let meddle = || {
        use std::os::unix::fs::FileExt;
        fs::OpenOptions::new().write(true).open(&at).unwrap().write_all_at(b"meddled", 5 << 20).unwrap();
    };
    let place = Meddling { image: &fixture.image, ranges: 0.into(), meddle: &meddle };
    let done = synced(&place, &fixture.target(), SyncOptions::default()).unwrap();
    assert_same(&fixture.tree(), &fixture.target());
    assert!(done.fetched > 31 << 20, "{done:?}");
}

// Reported of other programs: a symbolic link that is planted meanwhile leads outside.
#[test]
fn a_link_that_is_planted_is_replaced_and_never_followed() {
    let fixture = Fixture::new(&[("dir/file", b"content"), ("other", b"x")]);
    let outside = fixture.at("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "theirs").unwrap();
    fs::write(outside.join("extra"), "theirs").unwrap();
    fs::remove_dir_all(fixture.target().join("dir")).unwrap();
    symlink(&outside, fixture.target().join("dir")).unwrap();
    fs::remove_file(fixture.target().join("other")).unwrap();
    symlink(outside.join("file"), fixture.target().join("other")).unwrap();
    fixture.update();
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"theirs");
    assert!(outside.join("extra").exists());
    // While it runs, after it was compared.
    fixture.write("dir/file", b"another content");
    fixture.write("large", &noise(4, 1 << 20));
    fixture.pack();
    let planted = AtomicBool::new(false);
    let meddle = || {
        let dir = fixture.target().join("dir");
        fs::rename(&dir, fixture.at("away")).unwrap();
        symlink(&outside, &dir).unwrap();
        planted.store(true, Ordering::SeqCst);
    };
    let place = Meddling { image: &fixture.image, ranges: 0.into(), meddle: &meddle };
    let refused = synced(&place, &fixture.target(), SyncOptions::default()).is_err();
    assert!(refused || !planted.load(Ordering::SeqCst), "a refusal is an error");
    assert_eq!(fs::read(outside.join("file")).unwrap(), b"theirs");
    fixture.update();
}

/// A place that gives only whole blobs.
struct Whole<'a>(&'a dyn Source);

impl Source for Whole<'_> {
    fn resolve(&self) -> Result<Document> {
        self.0.resolve()
    }

    fn open(&self, blob: &Descriptor) -> Result<Unverified> {
        self.0.open(blob)
    }
}

// Reported of other programs: a registry without ranges sends the whole blob; a part costs more than the whole.
#[test]
fn a_sync_never_costs_more_than_a_full_unpack() {
    let files: Vec<(String, Vec<u8>)> = (0..400).map(|n| (format!("{n}"), noise(n, 9000))).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (&**name, &**content)).collect();
    let fixture = Fixture::new(&files);
    for n in (0..400).step_by(2) {
        fixture.write(&n.to_string(), &noise(n + 1000, 9000));
    }
    let size: u64 = fixture.pack().layers.iter().map(|layer| layer.size).sum();
    let (done, (whole, parts)) = counted(&fixture, SyncOptions::default());
    assert!(whole + parts <= size + size / 10, "{whole} and {parts} of {size}: {done:?}");
    assert_same(&fixture.tree(), &fixture.target());
    // Without ranges all is fetched once.
    fixture.write("0", b"changed again");
    let size: u64 = fixture.pack().layers.iter().map(|layer| layer.size).sum();
    let done = synced(&Whole(&fixture.image), &fixture.target(), SyncOptions::default()).unwrap();
    assert_eq!((done.fetched, done.written), (size, 1));
    assert_same(&fixture.tree(), &fixture.target());
}

// Reported of other programs: the same content is fetched twice.
#[test]
fn content_that_several_new_files_have_is_fetched_once() {
    let fixture = Fixture::new(&[("file", &noise(5, 9 << 20))]);
    let content = noise(6, 5 << 20);
    for name in ["one", "two", "three"] {
        fixture.write(name, &content);
    }
    let done = fixture.update();
    assert!((5 << 20..6 << 20).contains(&done.fetched), "{done:?}");
}

#[test]
fn layers_without_a_table_of_contents_are_fetched_once_and_only_changes_are_written() {
    let fixture = Fixture::new(&[("a", b"one"), ("b", b"two"), ("dir/c", b"three")]);
    fixture.write("b", b"two, changed");
    let options = pack::Options { compression: "gzip".parse().unwrap(), ..pack::Options::default() };
    let sources = [volio::SourceSpec::new(fixture.tree())];
    let packed = pack::pack(&fixture.image, &sources, &options, &Silent).unwrap();
    let (done, (whole, parts)) = counted(&fixture, SyncOptions::default());
    assert_eq!((whole, parts, done.written), (packed.layers[0].size, 0, 1), "{done:?}");
    assert_same(&fixture.tree(), &fixture.target());
}

#[test]
fn a_target_that_is_identical_costs_its_tables_of_contents() {
    let fixture = Fixture::new(&[("a", b"one"), ("b", &noise(7, 2 << 20))]);
    let before = fs::metadata(fixture.target()).unwrap().ctime_nsec();
    let (done, (whole, parts)) = counted(&fixture, SyncOptions::default());
    assert_eq!((whole, parts, done.unchanged), (0, done.fetched, 3), "{done:?}");
    assert!(parts < 2000);
    assert_eq!(fs::metadata(fixture.target()).unwrap().ctime_nsec(), before, "nothing is written");
}

#[test]
fn a_record_of_an_older_version_costs_a_reading_and_nothing_more() {
    let fixture = Fixture::new(&[("a", b"one")]);
    let record = rustix::fs::getxattr(fixture.target(), "user.volio.image", &mut [0u8; 4096][..]);
    let Ok(length) = record else { return };
    let mut text = vec![0; length];
    rustix::fs::getxattr(fixture.target(), "user.volio.image", &mut text[..]).unwrap();
    let mut record: serde_json::Value = serde_json::from_slice(&text).unwrap();
    for key in ["settled", "newest", "exact"] {
        record.as_object_mut().unwrap().remove(key).unwrap();
    }
    let text = serde_json::to_vec(&record).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(fixture.target(), "user.volio.image", &text, flags).unwrap();
    assert_eq!(fixture.update().written, 0);
    unpack(&fixture.image, &fixture.target(), &quick(WriteMode::InPlace), &Silent).unwrap();
}
