//! What a directory holds, by lstat, readlink, xattrs and content hashes only.
//!
//! This is the judge of the round trips, so it shares no code with volio: a mistake in how volio walks a tree must not
//! hide itself by being made twice.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};
use sha2::{Digest, Sha256};

/// Everything below a directory, the directory itself as the empty path.
#[derive(Clone, PartialEq)]
pub struct Survey(BTreeMap<PathBuf, Found>);

#[derive(Clone, PartialEq, Debug)]
struct Found {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    xattrs: BTreeMap<String, Vec<u8>>,
    /// The first path, in order, of this very inode: equal paths mean equal hard links.
    inode_of: PathBuf,
}

#[derive(Clone, PartialEq, Debug)]
enum Kind {
    Directory,
    File { size: u64, sha256: String },
    Symlink(PathBuf),
    Fifo,
    Device { block: bool, number: u64 },
    Socket,
}

/// Xattrs that belong to the host or are volio's own mark on a target.
const NOT_DATA: [&str; 2] = ["security.selinux", "user.volio.image"];

impl Survey {
    /// Records the directory.
    pub fn of(root: &Path) -> Survey {
        let mut found = BTreeMap::new();
        let mut inodes = HashMap::new();
        let mut pending = vec![PathBuf::new()];
        let mut paths = Vec::new();
        while let Some(path) = pending.pop() {
            let directory = root.join(&path);
            if fs::symlink_metadata(&directory)
                .unwrap_or_else(|error| panic!("{directory:?}: {error}"))
                .is_dir()
            {
                for entry in fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"))
                {
                    pending.push(path.join(entry.expect("a directory entry").file_name()));
                }
            }
            paths.push(path);
        }
        paths.sort();
        for path in paths {
            let full = root.join(&path);
            let metadata = fs::symlink_metadata(&full).expect("lstat");
            let inode = (metadata.dev(), metadata.ino());
            let inode_of = inodes.entry(inode).or_insert_with(|| path.clone()).clone();
            let seen = Found {
                kind: kind(&full, &metadata),
                mode: metadata.mode() & 0o7777,
                owner: (metadata.uid(), metadata.gid()),
                mtime: (metadata.mtime(), metadata.mtime_nsec()),
                xattrs: xattrs(&full),
                inode_of,
            };
            found.insert(path, seen);
        }
        Survey(found)
    }

    /// The same with mtimes cut to seconds, for engines whose archives know no more.
    pub fn whole_seconds(mut self) -> Survey {
        self.0.values_mut().for_each(|found| found.mtime.1 = 0);
        self
    }

    /// The same without the attributes of the directory itself, which not every engine stores.
    pub fn below_the_root(mut self) -> Survey {
        self.0.remove(Path::new(""));
        self
    }

    /// The same without owners and xattrs, for engines that may not set them.
    pub fn without_owners_and_xattrs(mut self) -> Survey {
        for found in self.0.values_mut() {
            found.owner = (0, 0);
            found.xattrs.clear();
        }
        self
    }

    /// The same without the xattrs of one kind, as `user.`.
    pub fn without_xattrs(mut self, prefix: &str) -> Survey {
        self.0.values_mut().for_each(|found| found.xattrs.retain(|name, _| !name.starts_with(prefix)));
        self
    }

    /// Whether something is at this path.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(Path::new(path))
    }

    /// Fails with one line per difference when the other one is not the same.
    #[track_caller]
    pub fn assert_same(&self, other: &Survey) {
        let mut differences = String::new();
        for (path, expected) in &self.0 {
            match other.0.get(path) {
                None => writeln!(differences, "{path:?} is missing"),
                Some(actual) if actual != expected => {
                    writeln!(differences, "{path:?}\n  expected {expected:?}\n  actual   {actual:?}")
                }
                Some(_) => Ok(()),
            }
            .expect("a string");
        }
        for path in other.0.keys().filter(|path| !self.0.contains_key(*path)) {
            writeln!(differences, "{path:?} is there and should not be").expect("a string");
        }
        assert!(differences.is_empty(), "the trees differ:\n{differences}");
    }
}

fn kind(path: &Path, metadata: &Metadata) -> Kind {
    let file_type = metadata.file_type();
    if file_type.is_dir() {
        Kind::Directory
    } else if file_type.is_symlink() {
        Kind::Symlink(fs::read_link(path).expect("readlink"))
    } else if file_type.is_fifo() {
        Kind::Fifo
    } else if file_type.is_socket() {
        Kind::Socket
    } else if file_type.is_char_device() || file_type.is_block_device() {
        Kind::Device { block: file_type.is_block_device(), number: metadata.rdev() }
    } else {
        let content = fs::read(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let sha256 = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        Kind::File { size: metadata.size(), sha256 }
    }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut buffer = vec![0; 65536];
    let length =
        llistxattr(path, &mut buffer[..]).unwrap_or_else(|error| panic!("xattrs of {path:?}: {error}"));
    let names = buffer[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| (String::from_utf8_lossy(name).into_owned(), name))
        .filter(|(text, _)| !NOT_DATA.contains(&text.as_str()))
        .map(|(text, name)| {
            let mut value = vec![0; 65536];
            let length = lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).expect("lgetxattr");
            value.truncate(length);
            (text, value)
        })
        .collect()
}

/// A judge that sees nothing would acquit everyone: each single change must be seen.
#[test]
fn a_survey_sees_every_kind_of_change() {
    use super::fixture::{self, Directory, set_mtime};
    use rustix::fs::{XattrFlags, lsetxattr};
    use std::os::unix::fs::{PermissionsExt, symlink};

    type Change = fn(&Path);
    let changes: [(&str, Change); 10] = [
        ("nothing", |_| ()),
        ("content", |root| change(&root.join("file"), |content| content[0] ^= 1)),
        ("size", |root| change(&root.join("file"), |content| content.push(0))),
        ("mode", |root| {
            fs::set_permissions(root.join("file"), fs::Permissions::from_mode(0o601)).expect("chmod");
        }),
        ("nanoseconds", |root| set_mtime(&root.join("file"), fixture::SECONDS, 1)),
        ("xattr", |root| {
            lsetxattr(root.join("file"), "user.volio.test", b"other", XattrFlags::empty()).expect("setxattr");
        }),
        ("link target", |root| {
            let link = root.join("links/relative");
            fs::remove_file(&link).expect("rm");
            symlink("../FILE", &link).expect("symlink");
            set_mtime(&link, fixture::SECONDS, fixture::NANOSECONDS);
        }),
        ("broken hard link", |root| {
            let copy = root.join("copy");
            fs::copy(root.join("links/second"), &copy).expect("cp");
            fs::rename(copy, root.join("links/second")).expect("mv");
            set_mtime(&root.join("links/second"), fixture::SECONDS, fixture::NANOSECONDS);
        }),
        ("kind", |root| {
            fs::remove_file(root.join("fifo")).expect("rm");
            fs::write(root.join("fifo"), "").expect("write");
            set_mtime(&root.join("fifo"), fixture::SECONDS, fixture::NANOSECONDS);
        }),
        ("missing directory", |root| fs::remove_dir(root.join("empty")).expect("rmdir")),
    ];
    for (name, apply) in changes {
        let directory = Directory::filled();
        let before = Survey::of(directory.path());
        apply(directory.path());
        for parent in ["links", ""] {
            set_mtime(&directory.path().join(parent), fixture::SECONDS, fixture::NANOSECONDS);
        }
        assert_eq!(before == Survey::of(directory.path()), name == "nothing", "{name}");
    }

    fn change(path: &Path, apply: fn(&mut Vec<u8>)) {
        let mut content = fs::read(path).expect("read");
        apply(&mut content);
        fs::write(path, content).expect("write");
        set_mtime(path, fixture::SECONDS, fixture::NANOSECONDS);
    }
}
