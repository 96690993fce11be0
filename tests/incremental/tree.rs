//! Random trees with every kind of entry that Linux has and an image can hold, on disk.
//!
//! The times of all entries come from a clock that advances with the steps of the tree, so that a seed repeats them.

use super::random::Random;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, lsetxattr, makedev,
    mknodat, utimensat,
};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Seconds and nanoseconds since 1970.
pub type Moment = (i64, i64);

/// The time of the first step. All trees are older than the run of the test.
const START: i64 = 1_600_000_000;
/// A time that is in the future whenever the tests run: in 2100.
const FUTURE: i64 = 4_102_444_800;
/// The seconds between two steps.
const STEP: i64 = 1000;

/// Names that collide, that sort differently with a slash behind them, and that are unusual.
const NAMES: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"a-",
    b"a.b",
    b"a0",
    b"A",
    b"file",
    b"directory",
    b" ",
    b"new\nline",
    b"tab\tand \\ back",
    b"\xff\xfe",
    b"-rf",
    b"*",
    "\u{e9}".as_bytes(),
    "e\u{301}".as_bytes(),
    b"\x1b[31m",
    b"...",
    b".wh",
    b".hidden",
    b"=",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Device,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::File, Kind::Directory, Kind::Symlink, Kind::Fifo, Kind::Device];
}

/// An entry on disk.
#[derive(Clone, Debug)]
pub struct Found {
    /// The path below the root, which itself has the empty one.
    pub path: PathBuf,
    pub kind: Kind,
    pub mtime: Moment,
    pub size: u64,
    pub inode: u64,
    pub names: u64,
}

impl Found {
    /// Returns a regular file with content.
    pub fn has_content(&self) -> bool {
        self.kind == Kind::File && self.size > 0
    }
}

/// A tree on disk that changes at random.
pub struct RandomTree {
    root: PathBuf,
    pub random: Random,
    /// The number of steps that were taken.
    step: i64,
    /// The newest time of any entry in any step before the current one, without those in the future.
    pub newest: Moment,
    /// How many files of several megabytes may still be made.
    large_files: usize,
    /// What the current step has done.
    pub log: Vec<String>,
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.unwrap().as_secs()).unwrap()
}

fn kind_of(metadata: &fs::Metadata) -> Kind {
    match FileType::from_raw_mode(metadata.mode()) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice | FileType::BlockDevice => Kind::Device,
        other => panic!("a {other:?} in the tree"),
    }
}

impl RandomTree {
    /// Makes a tree of about this number of entries in a directory that does not exist, with at most this number of files of
    /// several megabytes now and later.
    pub fn make(root: &Path, seed: u64, entries: usize, large_files: usize) -> Self {
        fs::create_dir(root).unwrap();
        let random = Random::new(seed);
        let mut tree =
            Self { root: root.to_owned(), random, step: 0, newest: (0, 0), large_files, log: Vec::new() };
        for _ in 0..entries {
            let kind = tree.any_kind();
            tree.add(kind);
        }
        // A group of hard links, and a directory without entries.
        tree.add_link();
        tree.add(Kind::Directory);
        tree.settle(&[]);
        tree
    }

    /// Takes a tree that exists, such as one that was unpacked. Its next step is at the time of this number of steps.
    pub fn over(root: &Path, seed: u64, step: i64) -> Self {
        let random = Random::new(seed);
        Self { root: root.to_owned(), random, step, newest: (0, 0), large_files: 0, log: Vec::new() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn at(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    /// Returns all entries in the order of their paths. The root is the first.
    pub fn entries(&self) -> Vec<Found> {
        let (mut found, mut open) = (Vec::new(), vec![PathBuf::new()]);
        while let Some(path) = open.pop() {
            let metadata = fs::symlink_metadata(self.at(&path)).unwrap();
            let kind = kind_of(&metadata);
            if kind == Kind::Directory {
                open.extend(
                    fs::read_dir(self.at(&path)).unwrap().map(|entry| path.join(entry.unwrap().file_name())),
                );
            }
            let mtime = (metadata.mtime(), metadata.mtime_nsec());
            let (size, inode, names) = (metadata.len(), metadata.ino(), metadata.nlink());
            found.push(Found { path, kind, mtime, size, inode, names });
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// Returns a random entry that the condition allows, but not the root.
    pub fn any(&mut self, condition: impl Fn(&Found) -> bool) -> Option<Found> {
        let mut entries = self.entries();
        entries.retain(|entry| !entry.path.as_os_str().is_empty() && condition(entry));
        if entries.is_empty() { None } else { Some(self.random.pick(&entries).clone()) }
    }

    pub fn any_kind(&mut self) -> Kind {
        *self.random.pick(&[
            Kind::File,
            Kind::File,
            Kind::File,
            Kind::File,
            Kind::Directory,
            Kind::Directory,
            Kind::Symlink,
            Kind::Fifo,
            Kind::Device,
        ])
    }

    /// Returns a random directory, perhaps the root.
    pub fn any_directory(&mut self) -> PathBuf {
        let mut entries = self.entries();
        entries.retain(|entry| entry.kind == Kind::Directory && entry.path.components().count() < 7);
        self.random.pick(&entries).path.clone()
    }

    /// Returns a path in this directory that does not exist.
    pub fn new_path_in(&mut self, directory: &Path) -> PathBuf {
        loop {
            let mut name = self.random.pick(NAMES).to_vec();
            if self.random.one_in(12) {
                name = vec![b'l'; 200 + self.random.below(56)];
            } else if self.random.one_in(3) {
                name.extend(self.random.below(10).to_string().bytes());
            }
            let path = directory.join(OsStr::from_bytes(&name));
            if fs::symlink_metadata(self.at(&path)).is_err() {
                return path;
            }
        }
    }

    pub fn new_path(&mut self) -> PathBuf {
        let directory = self.any_directory();
        self.new_path_in(&directory)
    }

    /// Adds an entry at a random place.
    pub fn add(&mut self, kind: Kind) -> PathBuf {
        let path = self.new_path();
        self.create(&path, kind);
        path
    }

    /// Creates an entry with random attributes. Without root's rights, a device is a fifo.
    pub fn create(&mut self, path: &Path, kind: Kind) {
        let at = self.at(path);
        match kind {
            Kind::File => self.write_new_content(path),
            Kind::Directory => fs::create_dir(&at).unwrap(),
            Kind::Symlink => symlink(self.link_target(), &at).unwrap(),
            Kind::Device if is_root() => {
                let kind = *self.random.pick(&[FileType::CharacterDevice, FileType::BlockDevice]);
                let device = makedev(self.random.below(4000) as u32, self.random.below(1 << 20) as u32);
                mknodat(CWD, &at, kind, Mode::from(0o600), device).unwrap();
            }
            Kind::Fifo | Kind::Device => {
                mknodat(CWD, &at, FileType::Fifo, Mode::from(0o600), 0).unwrap();
            }
        }
        self.set_owner(path);
        if kind != Kind::Symlink {
            self.set_mode(path);
        }
        if self.random.one_in(4) {
            self.set_attribute(path);
        }
        let time = if self.random.one_in(3) { self.unusual_time() } else { self.time() };
        self.set_time(path, time);
    }

    /// Returns the target of a symbolic link: dangling, absolute, to an entry, or out of the tree.
    pub fn link_target(&mut self) -> PathBuf {
        let entry = self.any(|_| true).map_or_else(PathBuf::new, |entry| entry.path);
        let text = match self.random.below(5) {
            0 => PathBuf::from("/nowhere/at all"),
            1 => Path::new("/").join(entry),
            2 => PathBuf::from("../".repeat(9) + "etc/passwd"),
            3 => PathBuf::from(OsStr::from_bytes(&vec![b't'; 1 + self.random.below(300)])),
            _ => entry,
        };
        if text.as_os_str().is_empty() { PathBuf::from(".") } else { text }
    }

    /// Writes a file with another random content: empty, small, of several chunks, or with holes.
    pub fn write_new_content(&mut self, path: &Path) {
        let at = self.at(path);
        let length = match self.random.below(12) {
            0 => 0,
            1..=5 => 1 + self.random.below(100),
            6..=8 => 100 + self.random.below(20_000),
            9 => return self.write_with_holes(path),
            _ if self.large_files > 0 => {
                self.large_files -= 1;
                (3 << 19) + self.random.below(3 << 19)
            }
            _ => 20_000 + self.random.below(100_000),
        };
        let content = if self.random.one_in(3) {
            b"all work and no play ".iter().copied().cycle().take(length).collect()
        } else {
            self.random.bytes(length)
        };
        fs::write(at, content).unwrap();
    }

    fn write_with_holes(&mut self, path: &Path) {
        let mut file = fs::File::create(self.at(path)).unwrap();
        let length = 300_000 + self.random.below(2 << 20);
        file.set_len(length as u64).unwrap();
        for _ in 0..self.random.below(3) {
            let data = 1 + self.random.below(8000);
            file.seek(SeekFrom::Start(self.random.below(length - data) as u64)).unwrap();
            file.write_all(&self.random.bytes(data)).unwrap();
        }
    }

    /// Adds a name to a random entry that can have several.
    pub fn add_link(&mut self) -> Option<PathBuf> {
        let first = self.any(|entry| entry.kind != Kind::Directory)?;
        let path = self.new_path();
        fs::hard_link(self.at(&first.path), self.at(&path)).unwrap();
        Some(path)
    }

    pub fn set_owner(&mut self, path: &Path) {
        if !is_root() || self.random.one_in(2) {
            return;
        }
        let ids = [0, 1000, 65534, 3_000_000];
        let (uid, gid) = (Uid::from_raw(*self.random.pick(&ids)), Gid::from_raw(*self.random.pick(&ids)));
        chownat(CWD, self.at(path), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    pub fn set_mode(&mut self, path: &Path) {
        let at = self.at(path);
        let modes: &[u32] = match (fs::symlink_metadata(&at).unwrap().is_dir(), is_root()) {
            (true, true) => &[0o755, 0o700, 0o1777, 0o2775, 0o3770, 0o555, 0o000],
            (true, false) => &[0o755, 0o700, 0o1777, 0o775],
            (false, true) => &[0o644, 0o600, 0o755, 0o4755, 0o2711, 0o400, 0o000, 0o1644],
            (false, false) => &[0o644, 0o600, 0o755, 0o664],
        };
        fs::set_permissions(at, Permissions::from_mode(*self.random.pick(modes))).unwrap();
    }

    /// Sets an extended attribute that the entry can have. File systems without it leave the entry as it is.
    pub fn set_attribute(&mut self, path: &Path) -> bool {
        let at = self.at(path);
        let kind = kind_of(&fs::symlink_metadata(&at).unwrap());
        let length = self.random.below(200);
        let bytes = self.random.bytes(length);
        let (name, value) = match (self.random.below(6), kind) {
            (0, Kind::File | Kind::Directory) => ("system.posix_acl_access", self.acl()),
            (1, Kind::Directory) => ("system.posix_acl_default", self.acl()),
            (2, Kind::File) if is_root() => {
                ("security.capability", [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec())
            }
            (3, Kind::File | Kind::Directory) => ("user.b", bytes),
            (_, Kind::File | Kind::Directory) => ("user.a", bytes),
            _ if is_root() => ("trusted.volio-test", bytes),
            _ => return false,
        };
        lsetxattr(&at, name, &value, XattrFlags::empty()).is_ok()
    }

    /// Returns an ACL in the form of the kernel: version 2, then tag, permissions and id.
    fn acl(&mut self) -> Vec<u8> {
        let entry = |tag: u16, permissions: u16, id: u32| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let user = 1000 + self.random.below(4) as u32;
        [
            2u32.to_le_bytes().to_vec(),
            entry(1, 7, u32::MAX),
            entry(2, self.random.below(8) as u16, user),
            entry(4, 5, u32::MAX),
            entry(16, 7, u32::MAX),
            entry(32, 0, u32::MAX),
        ]
        .concat()
    }

    /// Returns a moment of this step. Few files share it.
    pub fn time(&mut self) -> Moment {
        (START + STEP * self.step + self.random.below(2) as i64, self.random.below(1_000_000_000) as i64)
    }

    /// Returns a moment that is not of this step: whole seconds, before 1970, or in the future.
    pub fn unusual_time(&mut self) -> Moment {
        let seconds = self.random.below(300_000_000) as i64;
        let nanoseconds = self.random.below(1_000_000_000) as i64;
        match self.random.below(6) {
            0 => (START - STEP - seconds, 0),
            1 => (-seconds, nanoseconds),
            2 => (FUTURE + seconds, nanoseconds),
            _ => (START - STEP - seconds, nanoseconds),
        }
    }

    pub fn set_time(&self, path: &Path, (tv_sec, tv_nsec): Moment) {
        let time = Timespec { tv_sec, tv_nsec };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    /// Ends a step: what was modified gets a time of the step, and some directories the time that they had before it.
    pub fn settle(&mut self, before: &[Found]) {
        let entries = self.entries();
        let modified = now() - 3600;
        for entry in entries.iter().rev().filter(|entry| (modified..FUTURE).contains(&entry.mtime.0)) {
            let old = before.iter().find(|old| old.path == entry.path && old.kind == entry.kind);
            let time = match old {
                Some(old) if entry.kind == Kind::Directory && self.random.one_in(3) => old.mtime,
                _ => self.time(),
            };
            self.set_time(&entry.path, time);
        }
        let times = self.entries().into_iter().map(|entry| entry.mtime);
        self.newest = times.filter(|time| time.0 < FUTURE).fold(self.newest, Moment::max);
        self.step += 1;
    }

    /// Returns whether a change may leave the time of this file as it is, because programs must expect changes in the same
    /// tick of the clock.
    pub fn may_change_unseen(&self, entry: &Found) -> bool {
        let same = |other: &Found| other.inode != entry.inode && other.mtime == entry.mtime;
        // What was modified in this step has the time of the test until the end of the step.
        let recent = entry.mtime <= self.newest && (entry.mtime.0 + 2, entry.mtime.1) > self.newest;
        let recent = recent || entry.mtime.0 >= FUTURE;
        recent && !self.entries().iter().any(same)
    }
}
