//! A directory with every kind of entry and attribute that a file system has and an archive could lose.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat, utimensat,
};
use tempfile::TempDir;

/// The mtime of all entries, in seconds.
pub const SECONDS: i64 = 1_577_934_245;
/// The nanoseconds of the mtime. They are not a multiple of a unit that an archive could round to.
pub const NANOSECONDS: i64 = 123_456_789;

/// A temporary directory, deleted with the value.
pub struct Directory(TempDir);

impl Directory {
    /// An empty directory.
    pub fn empty() -> Directory {
        Directory(tempfile::tempdir().expect("a temporary directory"))
    }

    /// A directory with the entries of [`fill`].
    pub fn filled() -> Directory {
        let directory = Directory::empty();
        fill(directory.path());
        directory
    }

    /// A directory with the entries of [`fill_portable`].
    pub fn filled_portable() -> Directory {
        let directory = Directory::empty();
        fill_portable(directory.path());
        directory
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The path as an argument of a program.
    pub fn text(&self) -> &str {
        self.path().to_str().expect("a temporary directory in UTF-8")
    }

    /// The path of an entry, as an argument of a program.
    pub fn join(&self, name: &str) -> String {
        format!("{}/{name}", self.text())
    }
}

/// Makes an image in a layout. Its upper layer has files, a hard link and a whiteout below symbolic links of the lower one, as
/// images of distributions have that merged `/lib` into `/usr/lib`. Returns `DIRECTORY:TAG`.
pub fn image_with_merged_usr(work: &Directory) -> String {
    use crate::images::layers::{layer, publish};
    use volio::transport::{layout::Layout, memory::Memory};
    let lower = [
        "usr/",
        "usr/lib/",
        "usr/lib/a=1",
        "usr/lib/gone=1",
        "lib->usr/lib",
        "lib64->/usr/lib",
        "srv/",
        "srv/up->../..",
    ];
    let upper = ["lib/x.so=2", "lib64/y.so=3", "srv/up/top=4", "lib/.wh.gone"];
    let image = Memory::default();
    publish(&image, &[&lower[..], &upper].map(|lines| layer(&image, lines)));
    let layout = Layout::create(&work.path().join("layout"), Some("tag")).expect("a layout");
    // umoci 0.4 needs a manifest without an index.
    let platforms = vec!["linux/amd64".parse().expect("a platform")];
    let options = volio::copy::Options { platforms, ..volio::copy::Options::default() };
    volio::copy::copy(&image, &layout, &options, &volio::progress::Silent).expect("a copy");
    work.join("layout:tag")
}

/// Fills the directory. As root, it also creates owners, a device, a file capability, and unreadable modes.
pub fn fill(root: &Path) {
    fill_portable(root);
    let at = |path: &str| root.join(path);
    for name in [&b"not-utf8-\xff\xfe"[..], b"new\nline"] {
        fs::write(root.join(OsStr::from_bytes(name)), name).expect("a file with an odd name");
    }
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from(0o640), 0).expect("mkfifo");
    lsetxattr(at("file"), "user.test", b"\x00binary\n=\xff", XattrFlags::empty())
        .expect("user xattr on a file");
    lsetxattr(at("empty"), "user.test", b"on a directory", XattrFlags::empty()).expect("user xattr");
    if rustix::process::geteuid().is_root() {
        mknodat(CWD, at("device"), FileType::CharacterDevice, Mode::from(0o666), makedev(1, 3))
            .expect("mknod");
        for (path, user, group) in [("file", 1000, 1001), ("empty", 65534, 0), ("links/relative", 7, 8)] {
            lchown(at(path), Some(user), Some(group)).expect("chown");
        }
        // Larger than the octal field of an old tar header.
        lchown(at("directory/big"), Some(4_000_000), Some(5_000_000)).expect("chown");
        // CAP_NET_BIND_SERVICE, effective. A later chown would remove it.
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        lsetxattr(at("setuid"), "security.capability", &capability, XattrFlags::empty()).expect("capability");
        chmod(&at("directory/read-only"), 0o500);
        fs::write(at("no-permissions"), "secret").expect("write");
        chmod(&at("no-permissions"), 0);
    }
    settle(root);
}

/// Fills the directory with entries that any user can unpack on any file system: no unusual names, owners, devices, fifos or xattrs.
pub fn fill_portable(root: &Path) {
    let at = |path: &str| root.join(path);
    for directory in ["directory/read-only", "empty", "links/other", "sticky", "set-group"] {
        fs::create_dir_all(at(directory)).expect("mkdir");
    }
    for (path, content) in [
        ("file", "a small file\n"),
        ("directory/empty", ""),
        ("directory/read-only/inside", "inside\n"),
        ("setuid", "#!/bin/true\n"),
        ("links/first", "three names\n"),
        (" spaces and -- 'quotes' \"\\ ", "odd\n"),
        ("-rf", "a name like an option\n"),
        ("ünïcödé ☃", "more than ASCII\n"),
    ] {
        fs::write(at(path), content).expect("write");
    }
    fs::write(at("directory/big"), noise(3 << 19)).expect("write");
    fs::write(at(&"n".repeat(255)), "the longest name\n").expect("write");
    let deep = at("directory").join(format!("{0}/{0}/{0}", "d".repeat(120)));
    fs::create_dir_all(&deep).expect("mkdir");
    fs::write(deep.join("leaf"), "a path longer than a tar header's fields\n").expect("write");
    let sparse = fs::File::create(at("sparse")).expect("create");
    sparse.set_len(1 << 20).expect("truncate");

    fs::hard_link(at("links/first"), at("links/second")).expect("link");
    fs::hard_link(at("links/first"), at("links/other/third")).expect("link");
    for (target, link) in
        [("../file", "links/relative"), ("/nowhere/at all", "links/absolute"), (".", "links/itself")]
    {
        symlink(target, at(link)).expect("symlink");
    }
    for (path, mode) in
        [("file", 0o640), ("setuid", 0o4755), ("sticky", 0o1777), ("set-group", 0o2775), ("", 0o750)]
    {
        chmod(&at(path), mode);
    }
    settle(root);
}

/// Sets the mtime of every entry, of directories after their contents.
pub fn settle(root: &Path) {
    if fs::symlink_metadata(root).expect("lstat").is_dir() {
        for entry in fs::read_dir(root).expect("readdir") {
            settle(&entry.expect("an entry").path());
        }
    }
    set_mtime(root, SECONDS, NANOSECONDS);
}

/// Sets the mtime of an entry. Links are not followed.
pub fn set_mtime(path: &Path, tv_sec: i64, tv_nsec: i64) {
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("utimensat");
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// Bytes that cannot be compressed. They are the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(length)
    .collect()
}
