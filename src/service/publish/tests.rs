//! Publishing, step by step.

use super::*;
use crate::error::Kind;
use crate::progress::Silent;
use crate::transport::memory::Memory;
use crate::tree::{ExtractOptions, SourceSpec};
use crate::{Compression, pack};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

/// The size of a file with its own frames.
const LARGE: usize = 6 << 20;

/// A tree whose versions are published in a directory.
struct Fixture {
    place: tempfile::TempDir,
    image: Memory,
}

impl Fixture {
    fn new() -> Self {
        let fixture =
            Self { place: tempfile::tempdir_in("/var/tmp").unwrap(), image: Memory::default().named("i:1") };
        fs::create_dir_all(fixture.at("tree/d")).unwrap();
        fs::write(fixture.at("tree/d/large"), crate::testing::noise(1, LARGE)).unwrap();
        fixture
    }

    fn at(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Packs a version of the tree, and returns its root.
    fn version(&self, content: &str) -> Document {
        fs::write(self.at("tree/version"), content).unwrap();
        let options = pack::Options { compression: Compression::default(), ..pack::Options::default() };
        pack::pack(&self.image, &[SourceSpec::new(self.at("tree"))], &options, &Silent).unwrap();
        self.image.resolve().unwrap()
    }

    fn open_with(&self, publication: Publication, uid: Option<u32>) -> Result<Publisher> {
        let tree = ExtractOptions { sync: false, uid, ..ExtractOptions::default() };
        let options = Options { tree, ..Options::default() };
        Publisher::open(&self.at("target"), publication, options, CancelToken::default())
    }

    fn open(&self, keep_previous: usize) -> Publisher {
        self.open_with(link("current", keep_previous), None).unwrap()
    }

    /// Publishes a version, with all steps.
    fn publish(&self, publisher: &Publisher, root: &Document) -> Unpacked {
        let unpacked = publisher.fetch(&self.image, root, &Silent).unwrap();
        publisher.publish(&root.descriptor().digest).unwrap();
        assert!(publisher.tidy().unwrap().is_empty());
        unpacked
    }

    fn current(&self) -> String {
        fs::read_to_string(self.at("target/current/version")).unwrap()
    }

    /// Returns the names in the target, and those in the private directory, sorted.
    fn names(&self) -> Vec<String> {
        let names = |path: PathBuf, prefix: &str| {
            let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
            entries.map(|name| format!("{prefix}{}", name.to_string_lossy())).collect::<Vec<_>>()
        };
        let mut names =
            [names(self.at("target"), ""), names(self.at("target/.volio.watch"), "own/")].concat();
        names.sort();
        names
    }
}

fn link(name: &str, keep_previous: usize) -> Publication {
    Publication::Link(LinkOptions { name: name.into(), keep_previous })
}

fn digest(root: &Document) -> &Digest {
    &root.descriptor().digest
}

#[test]
fn the_link_names_the_digest_and_old_versions_are_removed_later() {
    let fixture = Fixture::new();
    let publisher = fixture.open(1);
    let versions: Vec<Document> = ["1", "2", "3"].map(|content| fixture.version(content)).to_vec();
    for (number, root) in versions.iter().enumerate() {
        assert!(!publisher.is_published(root).unwrap());
        fixture.publish(&publisher, root);
        assert!(publisher.is_published(root).unwrap());
        assert_eq!(fixture.current(), (number + 1).to_string());
        let target = fs::read_link(fixture.at("target/current")).unwrap();
        assert_eq!(target.to_str().unwrap(), version_name(digest(root)));
        assert!(target.to_str().unwrap().starts_with("sha256-"));
    }
    let mut expected = vec![".volio.watch", "current", "own/note.json"];
    let kept = [&versions[1], &versions[2]].map(|root| version_name(digest(root)));
    expected.extend(kept.iter().map(String::as_str));
    expected.sort();
    assert_eq!(fixture.names(), expected);
    // Back to the second, which then is the newest; none is kept besides it.
    drop(publisher);
    let publisher = fixture.open(0);
    fixture.publish(&publisher, &versions[1]);
    assert_eq!((fixture.current().as_str(), fixture.names().len()), ("2", 4));
}

#[test]
fn a_version_takes_what_did_not_change_from_the_one_before() {
    let fixture = Fixture::new();
    let publisher = fixture.open(1);
    let (one, two) = (fixture.version("1"), fixture.version("2"));
    fixture.publish(&publisher, &one);
    let synced = fixture.publish(&publisher, &two).sync.unwrap();
    assert!(synced.reused >= LARGE as u64 && synced.fetched < 1 << 20, "{synced:?}");
    // They share no inode: a program that writes into one must not change the other.
    let inode = |root| fs::metadata(publisher.tree(digest(root)).join("d/large")).unwrap().ino();
    assert_ne!(inode(&one), inode(&two));

    // What another program has changed in the old version is not taken.
    let large = publisher.tree(digest(&two)).join("d/large");
    let mtime = fs::metadata(&large).unwrap().modified().unwrap();
    let mut content = fs::read(&large).unwrap();
    content[1 << 20] ^= 1;
    fs::write(&large, &content).unwrap();
    fs::File::options().write(true).open(&large).unwrap().set_modified(mtime).unwrap();
    let three = fixture.version("3");
    fixture.publish(&publisher, &three);
    let now = fs::read(fixture.at("target/current/d/large")).unwrap();
    assert!(now == crate::testing::noise(1, LARGE));
}

#[test]
fn a_large_file_that_changed_a_little_is_taken_in_part() {
    let fixture = Fixture::new();
    let publisher = fixture.open(1);
    fixture.publish(&publisher, &fixture.version("1"));
    let mut content = crate::testing::noise(1, 12 << 20);
    fs::write(fixture.at("tree/d/large"), &content).unwrap();
    fixture.publish(&publisher, &fixture.version("2"));
    content.extend_from_slice(b"more");
    fs::write(fixture.at("tree/d/large"), &content).unwrap();
    let synced = fixture.publish(&publisher, &fixture.version("3")).sync.unwrap();
    assert!(synced.reused > 4 << 20 && synced.fetched < 8 << 20, "{synced:?}");
    assert!(fs::read(fixture.at("target/current/d/large")).unwrap() == content);
}

/// git-sync#919
#[test]
fn a_name_that_is_occupied_is_refused_at_the_start() {
    let fixture = Fixture::new();
    let target = fixture.at("target");
    fs::create_dir(&target).unwrap();
    fs::create_dir(target.join("directory")).unwrap();
    fs::write(target.join("file"), "data").unwrap();
    symlink("elsewhere", target.join("link")).unwrap();
    for name in ["directory", "file", "link"] {
        let error = fixture.open_with(link(name, 1), None).err().unwrap();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.to_string().contains(name) && error.hint().is_some_and(|hint| hint.contains("--link")));
    }
    for name in ["", ".", "..", "a/b", ".volio.watch", &version_name(&Digest::of(b"1"))] {
        let error = fixture.open_with(link(name, 1), None).err().unwrap();
        assert_eq!(error.kind(), Kind::Usage, "{name}");
    }
    // It became occupied later.
    let publisher = fixture.open(1);
    let root = fixture.version("1");
    publisher.fetch(&fixture.image, &root, &Silent).unwrap();
    fs::write(target.join("current"), "data").unwrap();
    assert_eq!(publisher.publish(digest(&root)).unwrap_err().kind(), Kind::Refused);
    assert_eq!(fs::read_to_string(target.join("current")).unwrap(), "data");
}

/// git-sync#414 and git-sync#411
#[test]
fn what_a_killed_run_has_left_is_continued_or_removed() {
    let fixture = Fixture::new();
    let publisher = fixture.open(1);
    let (one, two) = (fixture.version("1"), fixture.version("2"));
    fixture.publish(&publisher, &one);
    drop(publisher);
    let own = fixture.at("target/.volio.watch");
    let leave = || {
        fs::create_dir_all(own.join("next/d")).unwrap();
        fs::write(own.join("next/d/large"), "half").unwrap();
        fs::create_dir_all(own.join("old-sha256-x/d")).unwrap();
        symlink("nothing", own.join("link")).unwrap();
        fs::write(own.join(".note-0123"), "{").unwrap();
    };
    leave();
    let publisher = fixture.open(1);
    fixture.publish(&publisher, &two);
    assert_eq!((fixture.current().as_str(), fixture.names().len()), ("2", 5), "{:?}", fixture.names());
    // The next start has nothing to publish.
    leave();
    drop(publisher);
    let publisher = fixture.open(1);
    assert!(publisher.tidy().unwrap().is_empty());
    publisher.write_note(&publisher.note()).unwrap();
    assert_eq!(fixture.names().len(), 5, "{:?}", fixture.names());

    // It was killed before the link was changed: nothing is fetched again.
    let three = fixture.version("3");
    publisher.fetch(&fixture.image, &three, &Silent).unwrap();
    drop(publisher);
    let publisher = fixture.open(1);
    assert_eq!(fixture.current(), "2");
    let synced = fixture.publish(&publisher, &three).sync.unwrap();
    assert!(synced.written == 0 && fixture.current() == "3", "{synced:?}");
}

#[test]
fn a_version_that_is_rejected_goes_unless_it_was_published_before() {
    let fixture = Fixture::new();
    let publisher = fixture.open(1);
    let (one, two) = (fixture.version("1"), fixture.version("2"));
    fixture.publish(&publisher, &one);
    publisher.fetch(&fixture.image, &two, &Silent).unwrap();
    for root in [&one, &two] {
        publisher.discard(digest(root)).unwrap();
    }
    let exists = |root| publisher.tree(digest(root)).exists();
    assert!(exists(&one) && !exists(&two) && fixture.current() == "1");
}

#[test]
fn the_second_run_in_a_directory_is_refused_and_the_first_goes_on() {
    let fixture = Fixture::new();
    let publisher = fixture.open(1);
    let cancel = CancelToken::default();
    cancel.cancel();
    let second =
        |cancel| Publisher::open(&fixture.at("target"), link("other", 1), Options::default(), cancel);
    assert!(second(cancel).is_err(), "a wait for it ends with a signal");
    let error = second(CancelToken::default()).err().unwrap();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().starts_with("another volio follows a tag in "), "{error}");
    fixture.publish(&publisher, &fixture.version("1"));
    drop(publisher);
    assert!(second(CancelToken::default()).is_ok());
}

#[test]
fn a_version_with_other_options_is_exchanged() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let fixture = Fixture::new();
    let root = fixture.version("1");
    let publisher = fixture.open(1);
    fixture.publish(&publisher, &root);
    drop(publisher);
    let publisher = fixture.open_with(link("current", 1), Some(1234)).unwrap();
    assert!(!publisher.is_published(&root).unwrap());
    fixture.publish(&publisher, &root);
    assert!(publisher.is_published(&root).unwrap());
    assert_eq!(fs::metadata(fixture.at("target/current/version")).unwrap().uid(), 1234);
    assert_eq!(fixture.names().len(), 4, "{:?}", fixture.names());
    // A directory of the user with the name of a version is not touched.
    let two = fixture.version("2");
    let foreign = publisher.tree(digest(&two));
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("precious"), "data").unwrap();
    let error = publisher.fetch(&fixture.image, &two, &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    publisher.tidy().unwrap();
    assert_eq!(fs::read(foreign.join("precious")).unwrap(), b"data");
}

#[test]
fn the_private_directory_is_no_part_of_the_tree() {
    let fixture = Fixture::new();
    let publisher = fixture.open_with(Publication::InPlace, None).unwrap();
    let note = Note { rejected: None, announced: None, versions: vec![Digest::of(b"1")] };
    publisher.write_note(&note).unwrap();
    for content in ["1", "2"] {
        let root = fixture.version(content);
        assert!(!publisher.is_published(&root).unwrap());
        fixture.publish(&publisher, &root);
        assert!(publisher.is_published(&root).unwrap());
        assert_eq!(publisher.note(), note);
        assert_eq!(fs::read_to_string(fixture.at("target/version")).unwrap(), content);
        // A pack of the directory gives the same image, and an image cannot bring such a directory.
        let packed = Memory::default();
        pack::pack(&packed, &[SourceSpec::new(fixture.at("target"))], &pack::Options::default(), &Silent)
            .unwrap();
        assert_eq!(packed.resolve().unwrap().descriptor().digest, root.descriptor().digest);
    }
    fs::create_dir_all(fixture.at("outer/x/.volio.watch")).unwrap();
    fs::write(fixture.at("outer/x/.volio.watch/note.json"), "{}").unwrap();
    let outer = [SourceSpec::new(fixture.at("outer"))];
    assert_eq!(pack::pack(&fixture.image, &outer, &pack::Options::default(), &Silent).unwrap().entries, 4);
    let image = fixture.image.resolve().unwrap();
    let options = Options { filter: crate::unpack::PathFilter::Strip(1), ..publisher.options.clone() };
    unpack_resolved(&fixture.image, &image, &fixture.at("other"), &options, &Silent).unwrap();
    assert!(!fixture.at("other/.volio.watch").exists());
}

/// git-sync#827
#[test]
fn a_directory_that_was_replaced_is_opened_again() {
    let fixture = Fixture::new();
    let mut publisher = fixture.open(1);
    let root = fixture.version("1");
    fixture.publish(&publisher, &root);
    publisher.refresh().unwrap();
    fs::rename(fixture.at("target"), fixture.at("gone")).unwrap();
    publisher.refresh().unwrap();
    assert!(!publisher.is_published(&root).unwrap());
    fixture.publish(&publisher, &root);
    assert_eq!(fixture.current(), "1");
}

#[test]
fn a_private_directory_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let fixture = Fixture::new();
    let own = fixture.at("target/.volio.watch");
    fs::create_dir_all(&own).unwrap();
    std::os::unix::fs::chown(&own, Some(1234), None).unwrap();
    let error = fixture.open_with(Publication::InPlace, None).err().unwrap();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    fs::remove_dir(&own).unwrap();
    symlink(fixture.at("tree"), &own).unwrap();
    let error = fixture.open_with(Publication::InPlace, None).err().unwrap();
    assert_eq!(error.kind(), Kind::Refused, "{error}");
    assert_eq!(OsStr::new("tree"), fixture.at("tree").file_name().unwrap());
}
