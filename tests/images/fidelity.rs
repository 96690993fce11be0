//! A tree with everything that a file system can hold is restored exactly. The judge is not volio but `lstat`,
//! `listxattr`, and GNU find where paths are too long for both.

use super::{memory, pack, unpack};
use crate::snapshot::assert_same;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, linkat,
    lsetxattr, makedev, mkdirat, mknodat, openat, symlinkat, utimensat,
};
use rustix::process::geteuid;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use volio::error::Kind;
use volio::layer::Limits;
use volio::progress::Silent;
use volio::unpack::Options;

/// Says that something was not tested.
fn skipped(what: &str) {
    // Not by `eprintln!`, which the test harness keeps to itself.
    std::io::stderr().write_all(format!("SKIPPED: {what}\n").as_bytes()).unwrap();
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// Packs and unpacks, and compares; also what would be packed again.
fn assert_comes_back(tree: &Path, parent: &Path) {
    let (image, target) = (memory(), tempfile::tempdir_in(parent).unwrap());
    let packed = pack(&image, tree);
    unpack(&image, target.path()).unwrap();
    assert_same(tree, target.path());
    assert_eq!(pack(&memory(), target.path()).digest, packed.digest);
    let copy = parent.join("copy");
    assert!(Command::new("cp").arg("-a").args([tree, &copy]).status().unwrap().success());
    assert_eq!(pack(&memory(), &copy).digest, packed.digest, "a copy is the same tree");
}

/// Makes entries that an ordinary user can make.
fn make_ordinary(root: &Path) {
    let long = "n".repeat(255);
    for name in
        [b"line\nbreak".as_slice(), b"\xff\xfe not text", b" ", b"-rf", b"\x1b[31m", b"...", long.as_bytes()]
    {
        fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
        fs::create_dir(root.join("dir").join(OsStr::from_bytes(name))).unwrap();
    }
    symlink("x".repeat(4095), root.join("long-link")).unwrap();
    symlink("/", root.join("absolute")).unwrap();
    symlink(OsStr::from_bytes(b"not text \xff"), root.join("foreign-link")).unwrap();
    fs::hard_link(root.join("long-link"), root.join("dir/long-link-again")).unwrap();
    fs::hard_link(root.join("line\nbreak"), root.join("dir/again")).unwrap();
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    fs::hard_link(root.join("fifo"), root.join("fifo-again")).unwrap();
    for (name, mode) in [("setuid", 0o4711), ("setgid", 0o2711), ("sticky", 0o1777), ("unreadable", 0o000)] {
        fs::write(root.join(name), name).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (n, seconds) in [-1, -(1 << 31), 0, (1 << 31) + 1, 1 << 33].into_iter().enumerate() {
        let path = root.join(format!("time{n}"));
        fs::write(&path, "").unwrap();
        set_mtime(&path, seconds, 999_999_999 - n as i64);
    }
    fs::write(root.join("xattrs"), "x").unwrap();
    set_xattr(&root.join("xattrs"), "user.binary", b"\x00\n=\xff");
    set_xattr(&root.join("xattrs"), "user.empty", b"");
    set_xattr(&root.join("dir"), "user.of directories", &[7; 3000]);
}

#[test]
fn what_root_can_make_comes_back() {
    if !geteuid().is_root() {
        return skipped("owners, devices and capabilities, because that takes root");
    }
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    fs::create_dir_all(root.join("dir")).unwrap();
    make_ordinary(&root);
    for (name, kind, device) in [
        ("block", FileType::BlockDevice, makedev(259, 1_000_000)),
        ("char", FileType::CharacterDevice, makedev(4095, 1_048_575)),
        ("zero", FileType::CharacterDevice, makedev(0, 0)),
    ] {
        mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    }
    for (name, uid, gid) in
        [("owned", u32::MAX - 1, 1 << 21), ("dir", 0, u32::MAX - 1), ("foreign-link", 5, 6)]
    {
        if name == "owned" {
            fs::write(root.join(name), "").unwrap();
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(CWD, root.join(name), uid, gid, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    set_xattr(&root.join("setgid"), "security.capability", capability);
    for name in ["setgid", "long-link", "fifo", "char", "dir"] {
        set_xattr(&root.join(name), "trusted.volio test", b"\x00\xff");
    }
    // user::rw-, user:1000:r--, group::r--, group:4294967294:rwx, mask::rwx, other::---
    let entry = |tag: u16, perm: u16, id: u32| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let acl = [
        2u32.to_le_bytes().to_vec(),
        entry(1, 6, u32::MAX),
        entry(2, 4, 1000),
        entry(4, 4, u32::MAX),
        entry(8, 7, u32::MAX - 1),
        entry(16, 7, u32::MAX),
        entry(32, 0, u32::MAX),
    ]
    .concat();
    set_xattr(&root.join("xattrs"), "system.posix_acl_access", &acl);
    set_xattr(&root.join("dir"), "system.posix_acl_default", &acl);
    set_mtime(&root.join("dir"), 5, 6);
    set_mtime(&root, -7, 8);
    assert_comes_back(&root, place.path());
}

#[test]
fn what_an_ordinary_user_can_make_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("tree");
    fs::create_dir_all(root.join("dir")).unwrap();
    make_ordinary(&root);
    if !geteuid().is_root() {
        fs::remove_file(root.join("unreadable")).unwrap();
    }
    set_mtime(&root, 7, 8);
    assert_comes_back(&root, place.path());
}

#[test]
fn times_beyond_2446_come_back_where_a_file_system_has_them() {
    let Ok(place) = tempfile::tempdir_in("/dev/shm") else {
        return skipped("times beyond 2446: no /dev/shm");
    };
    let root = place.path().join("tree");
    fs::create_dir(&root).unwrap();
    for (n, seconds) in [1i64 << 35, 253_402_300_800, 1 << 40, -(1 << 40)].into_iter().enumerate() {
        let path = root.join(n.to_string());
        fs::write(&path, "").unwrap();
        set_mtime(&path, seconds, 1 + n as i64);
    }
    assert_comes_back(&root, place.path());
}

/// Returns the entries that GNU find sees, which descends step by step and has no limit.
fn found(root: &Path) -> String {
    let output = Command::new("find")
        .args([".", "-printf", "%P %y %m %T@ %s %l\\n"])
        .current_dir(root)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<_> = output.stdout.split(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    String::from_utf8_lossy(&lines.join(&b'\n')).into_owned()
}

#[test]
fn paths_longer_than_any_call_takes_come_back() {
    let place = tempfile::tempdir().unwrap();
    let (root, target) = (place.path().join("tree"), place.path().join("target"));
    fs::create_dir(&root).unwrap();
    let name = "d".repeat(250);
    let mut here = openat(CWD, &root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for level in 0..40 {
        mkdirat(&here, &name, Mode::from_raw_mode(0o700 | level)).unwrap();
        here = openat(&here, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        let file =
            openat(&here, "file", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644)).unwrap();
        fs::File::from(file).write_all(format!("{level}").as_bytes()).unwrap();
    }
    symlinkat("file", &here, "link").unwrap();
    linkat(&here, "file", &here, "again", AtFlags::empty()).unwrap();
    set_mtime(&root, 7, 8);
    let image = memory();
    pack(&image, &root);
    assert_eq!(unpack(&image, &target).unwrap_err().kind(), Kind::Integrity, "by default they are refused");
    let limits = Limits { max_path: 64 << 10, ..Limits::default() };
    let options = Options { limits, ..Options::default() };
    volio::unpack::unpack(&image, &target, &options, &Silent).unwrap();
    let seen = found(&root);
    assert!(seen.lines().any(|line| line.len() > 10_000), "the paths are long");
    assert_eq!(seen, found(&target));
    // The standard library needs a descriptor for each level to remove them.
    Command::new("rm").arg("-rf").args([&root, &target]).status().unwrap();
}
