//! Trees into images and back, by the library, in memory and in layouts.

mod archives;
mod artifact;
mod changing;
mod damage;
mod data_io;
mod diff;
mod digests;
mod fidelity;
mod incremental;
pub mod layers;
mod live;
mod names;
mod owners;
mod part;
pub mod partial;
mod parts;
mod proved;
mod round_trip;
mod sparse;
mod subpath;
mod tar_output;
mod targets;
mod verify;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use volio::pack::{self, Packed};
use volio::progress::Silent;
use volio::transport::memory::Memory;
use volio::transport::{Destination, Source};
use volio::tree::SourceSpec;
use volio::unpack::{self, Unpacked};

/// Packs one directory with these options.
fn pack_with(to: &dyn Destination, tree: &Path, options: &pack::Options) -> volio::Result<Packed> {
    pack::pack(to, &[SourceSpec::new(tree)], options, &Silent)
}

fn pack(to: &dyn Destination, tree: &Path) -> Packed {
    pack_with(to, tree, &pack::Options::default()).unwrap()
}

fn unpack(from: &dyn Source, target: &Path) -> volio::Result<Unpacked> {
    unpack::unpack(from, target, &unpack::Options::default(), &Silent)
}

fn memory() -> Memory {
    Memory::default().named("image:1")
}

/// A small tree with one of everything that an ordinary user can make, and with fixed times.
fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("dir/empty")).unwrap();
    fs::write(root.join("file"), "content\n").unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("dir/large"), vec![b'x'; 300_000]).unwrap();
    fs::hard_link(root.join("file"), root.join("dir/again")).unwrap();
    symlink("../file", root.join("dir/link")).unwrap();
    symlink("/nowhere/at all", root.join("dangling")).unwrap();
    fs::write(root.join("dir/name with\nnewline"), "n").unwrap();
    fs::write(root.join("dir").join("l".repeat(200)), "long").unwrap();
    for (path, mode) in
        [("file", 0o640), ("dir/large", 0o4755), ("empty", 0o400), ("dir/empty", 0o1777), ("dir", 0o750)]
    {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    set_times(root);
}

/// Gives every path below a time that depends on its name only.
fn set_times(root: &Path) {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let mut paths: Vec<_> = crate::snapshot::snapshot(root).into_keys().collect();
    // The deepest first: what is made in a directory changes its time.
    paths.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    for path in paths {
        let time = Timespec { tv_sec: 1_600_000_000 + path.as_os_str().len() as i64, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        utimensat(CWD, root.join(path), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}
