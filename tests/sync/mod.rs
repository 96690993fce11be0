//! `unpack --sync`: what it changes, what it must not touch, and what it fetches. Comments name the failures that other
//! programs were reported to have.

mod content;
mod interrupted;
mod mounts;
mod races;
mod records;
mod rights;
mod targets;

use crate::images::partial::Counting;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::fs;
use std::path::Path;
use volio::pack::{self, Packed};
use volio::progress::Silent;
use volio::transport::Source;
use volio::transport::memory::Memory;
use volio::tree::{ExtractOptions, SourceSpec};
use volio::unpack::{
    CompareBy, ForeignTarget, Options, PathFilter, Run, SyncOptions, Synced, Unpacked, WriteMode, unpack,
};
use volio::{Result, TreePath};

/// A tree that is packed, and a target that is synced.
struct Fixture {
    place: tempfile::TempDir,
    image: Memory,
}

impl Fixture {
    /// A tree of these files, packed and unpacked.
    fn new(files: &[(&str, &[u8])]) -> Self {
        let parent = Path::new("/var/tmp");
        let place = if parent.is_dir() { tempfile::tempdir_in(parent) } else { tempfile::tempdir() };
        let fixture = Self { place: place.unwrap(), image: Memory::default().named("image:1") };
        fs::create_dir(fixture.tree()).unwrap();
        for (path, content) in files {
            fixture.write(path, content);
        }
        fixture.pack();
        fixture.unpack();
        fixture
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join(name)
    }

    fn tree(&self) -> std::path::PathBuf {
        self.at("tree")
    }

    fn target(&self) -> std::path::PathBuf {
        self.at("target")
    }

    /// Writes a file of the tree, with an old mtime that depends on its content.
    fn write(&self, path: &str, content: &[u8]) {
        let at = self.tree().join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&at, content).unwrap();
        let sum = content.iter().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
        set_mtime(&at, 1_500_000_000 + i64::from(sum % 10_000_000));
    }

    fn pack(&self) -> Packed {
        pack::pack(&self.image, &[SourceSpec::new(self.tree())], &pack::Options::default(), &Silent).unwrap()
    }

    /// Unpacks in full.
    fn unpack(&self) {
        unpack(&self.image, &self.target(), &quick(WriteMode::InPlace), &Silent).unwrap();
    }

    fn sync(&self) -> Synced {
        synced(&self.image, &self.target(), SyncOptions::default()).unwrap()
    }

    /// Packs the tree, syncs, and compares. Returns what was done.
    #[track_caller]
    fn update(&self) -> Synced {
        self.pack();
        let done = self.sync();
        crate::snapshot::assert_same(&self.tree(), &self.target());
        done
    }
}

fn set_mtime(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn quick(write: WriteMode) -> Options {
    let tree = ExtractOptions { sync: false, ..ExtractOptions::default() };
    Options { tree, write, ..Options::default() }
}

fn run(from: &dyn Source, target: &Path, how: SyncOptions, filter: PathFilter) -> Result<Unpacked> {
    unpack(from, target, &Options { filter, ..quick(WriteMode::Sync(how)) }, &Silent)
}

fn synced(from: &dyn Source, target: &Path, how: SyncOptions) -> Result<Synced> {
    run(from, target, how, PathFilter::All).map(|unpacked| unpacked.sync.unwrap())
}

const FORCE: SyncOptions =
    SyncOptions { foreign: ForeignTarget::Overwrite, compare: CompareBy::Metadata, run: Run::Apply };
const DRY: SyncOptions =
    SyncOptions { foreign: ForeignTarget::Refuse, compare: CompareBy::Metadata, run: Run::Dry };
const CHECKSUM: SyncOptions =
    SyncOptions { foreign: ForeignTarget::Refuse, compare: CompareBy::Content, run: Run::Apply };

/// Bytes that cannot be compressed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    crate::incremental::random::Random::new(seed).bytes(length)
}

/// Returns the result, and how many bytes of layers were fetched, whole and in part.
fn counted(fixture: &Fixture, how: SyncOptions) -> (Synced, (u64, u64)) {
    let counting = Counting::new(&fixture.image);
    let done = synced(&counting, &fixture.target(), how).unwrap();
    (done, counting.taken())
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text).unwrap()
}
