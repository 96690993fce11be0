//! Random changes of every kind to a [`RandomTree`].
//!
//! A change is a function that looks for an entry to which it applies. It returns the path, or `None` where there is no such
//! entry.

use super::structure as s;
use super::tree::{Found, Kind, RandomTree, is_root};
use rustix::fs::{AtFlags, CWD, FallocateFlags, Gid, Mode, Uid, chownat, fallocate, lremovexattr, mknodat};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

/// A kind of change, with its name.
pub type Change = (&'static str, fn(&mut RandomTree) -> Option<PathBuf>);

/// All kinds of changes that size, time and metadata show, or that happened within two seconds of the newest time.
pub const CHANGES: &[Change] = &[
    ("the whole content", rewrite),
    ("a block of the content", edit_block),
    ("bytes at the end", append),
    ("bytes at the start", insert),
    ("a shorter file", truncate),
    ("the content, in the same second", rewrite_in_the_same_second),
    ("the content, in the same tick of the clock", rewrite_in_the_same_tick),
    ("a hole more", punch),
    ("the time", touch),
    ("the mode", chmod),
    ("the owner", chown),
    ("an attribute", attribute),
    ("an attribute less", attribute_less),
    ("the target of a link", retarget),
    ("the number of a device", renumber),
    ("the metadata of the root", root_metadata),
    ("a new name in the same directory", s::rename),
    ("another directory", s::move_elsewhere),
    ("two names exchanged", s::exchange),
    ("one renamed over another", s::rename_over),
    ("a file less", s::delete_file),
    ("a directory less", s::delete_directory),
    ("a directory emptied", s::empty_directory),
    ("a file more", s::add_file),
    ("another entry more", s::add_entry),
    ("a directory more with entries", s::add_subtree),
    ("another kind of entry", s::retype),
    ("a directory replaced by a link to it", s::replace_directory_by_link),
    ("a link replaced by a directory", s::replace_link_by_directory),
    ("a copy more", s::copy),
    ("a name more for an inode", s::link),
    ("a hard link that becomes a copy", s::split),
    ("a file that becomes a hard link", s::join),
    ("the first name of an inode less", s::delete_first_name),
];

/// A change that neither the size nor the time shows, long after the file was packed.
pub const HIDDEN: Change = ("the content, with the old time", rewrite_with_the_old_time);

impl RandomTree {
    /// Applies a change, if the tree has an entry for it.
    pub fn apply(&mut self, (name, change): Change) -> bool {
        let Some(path) = change(self) else { return false };
        self.log.push(format!("{name}: {path:?}"));
        true
    }

    /// Applies this number of random changes as one step.
    pub fn step(&mut self, changes: usize) {
        self.step_of(CHANGES, changes);
    }

    /// Applies random changes of these kinds as one step.
    pub fn step_of(&mut self, kinds: &[Change], changes: usize) {
        let before = self.entries();
        self.log.clear();
        for _ in 0..changes {
            let change = *self.random.pick(kinds);
            self.apply(change);
        }
        self.settle(&before);
    }
}

fn any_file_with_content(tree: &mut RandomTree) -> Option<Found> {
    tree.any(Found::has_content)
}

fn rewrite(tree: &mut RandomTree) -> Option<PathBuf> {
    let file = tree.any(|entry| entry.kind == Kind::File)?;
    tree.write_new_content(&file.path);
    Some(file.path)
}

/// Changes some bytes of the file so that each of them is another one.
fn change_bytes(tree: &mut RandomTree, file: &Found) {
    let length = (1 + tree.random.below(4096)).min(file.size as usize);
    let at = tree.random.below(file.size as usize - length + 1) as u64;
    let flip = 1 + tree.random.below(255) as u8;
    let mut open = fs::File::options().read(true).write(true).open(tree.at(&file.path)).unwrap();
    let mut bytes = vec![0; length];
    open.seek(SeekFrom::Start(at)).unwrap();
    open.read_exact(&mut bytes).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= flip);
    open.seek(SeekFrom::Start(at)).unwrap();
    open.write_all(&bytes).unwrap();
}

fn edit_block(tree: &mut RandomTree) -> Option<PathBuf> {
    let file = any_file_with_content(tree)?;
    change_bytes(tree, &file);
    Some(file.path)
}

fn append(tree: &mut RandomTree) -> Option<PathBuf> {
    let file = tree.any(|entry| entry.kind == Kind::File)?;
    let length = 1 + tree.random.below(5000);
    let more = tree.random.bytes(length);
    fs::File::options().append(true).open(tree.at(&file.path)).unwrap().write_all(&more).unwrap();
    Some(file.path)
}

fn insert(tree: &mut RandomTree) -> Option<PathBuf> {
    let file = any_file_with_content(tree)?;
    let content = fs::read(tree.at(&file.path)).unwrap();
    let length = 1 + tree.random.below(300);
    let more = tree.random.bytes(length);
    fs::write(tree.at(&file.path), [more, content].concat()).unwrap();
    Some(file.path)
}

fn truncate(tree: &mut RandomTree) -> Option<PathBuf> {
    let file = any_file_with_content(tree)?;
    let length = tree.random.below(file.size as usize) as u64;
    fs::File::options().write(true).open(tree.at(&file.path)).unwrap().set_len(length).unwrap();
    Some(file.path)
}

fn rewrite_in_the_same_second(tree: &mut RandomTree) -> Option<PathBuf> {
    let file = any_file_with_content(tree)?;
    change_bytes(tree, &file);
    tree.set_time(&file.path, (file.mtime.0, (file.mtime.1 + 1) % 1_000_000_000));
    Some(file.path)
}

fn rewrite_in_the_same_tick(tree: &mut RandomTree) -> Option<PathBuf> {
    let candidates: Vec<Found> = tree.entries().into_iter().filter(Found::has_content).collect();
    let candidates: Vec<_> = candidates.iter().filter(|entry| tree.may_change_unseen(entry)).collect();
    if candidates.is_empty() {
        return None;
    }
    let file = (*tree.random.pick(&candidates)).clone();
    change_bytes(tree, &file);
    tree.set_time(&file.path, file.mtime);
    Some(file.path)
}

fn rewrite_with_the_old_time(tree: &mut RandomTree) -> Option<PathBuf> {
    let file = any_file_with_content(tree)?;
    change_bytes(tree, &file);
    tree.set_time(&file.path, file.mtime);
    Some(file.path)
}

fn punch(tree: &mut RandomTree) -> Option<PathBuf> {
    let file = tree.any(|entry| entry.kind == Kind::File && entry.size > 200_000)?;
    let open = fs::File::options().write(true).open(tree.at(&file.path)).unwrap();
    let at = (tree.random.below(file.size as usize / 2) / 4096 * 4096) as u64;
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocate(&open, how, at, 100_000).ok()?;
    drop(open);
    let time = tree.time();
    tree.set_time(&file.path, time);
    Some(file.path)
}

fn touch(tree: &mut RandomTree) -> Option<PathBuf> {
    let entry = tree.any(|_| true)?;
    let time = if tree.random.one_in(2) { tree.unusual_time() } else { tree.time() };
    tree.set_time(&entry.path, time);
    Some(entry.path)
}

fn chmod(tree: &mut RandomTree) -> Option<PathBuf> {
    let entry = tree.any(|entry| entry.kind != Kind::Symlink)?;
    let at = tree.at(&entry.path);
    let mode = fs::symlink_metadata(&at).unwrap().permissions().mode() ^ (1 << tree.random.below(3));
    fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
    Some(entry.path)
}

fn chown(tree: &mut RandomTree) -> Option<PathBuf> {
    let entry = tree.any(|_| is_root())?;
    let (uid, gid) = (4000 + tree.random.below(3) as u32, 4000 + tree.random.below(3) as u32);
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    chownat(CWD, tree.at(&entry.path), uid, gid, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    Some(entry.path)
}

fn attribute(tree: &mut RandomTree) -> Option<PathBuf> {
    let entry = tree.any(|entry| matches!(entry.kind, Kind::File | Kind::Directory) || is_root())?;
    tree.set_attribute(&entry.path).then_some(entry.path)
}

fn attribute_less(tree: &mut RandomTree) -> Option<PathBuf> {
    let names = ["user.a", "user.b", "trusted.volio-test", "system.posix_acl_access", "security.capability"];
    let mut entries = tree.entries();
    let has = |tree: &RandomTree, entry: &Found| {
        let at = tree.at(&entry.path);
        let mut value = [0; 512];
        names.iter().copied().find(|name| rustix::fs::lgetxattr(&at, *name, &mut value[..]).is_ok())
    };
    entries.retain(|entry| has(tree, entry).is_some());
    if entries.is_empty() {
        return None;
    }
    let entry = tree.random.pick(&entries).clone();
    let name = has(tree, &entry)?;
    lremovexattr(tree.at(&entry.path), name).unwrap();
    Some(entry.path)
}

fn retarget(tree: &mut RandomTree) -> Option<PathBuf> {
    let link = tree.any(|entry| entry.kind == Kind::Symlink && entry.names == 1)?;
    let at = tree.at(&link.path);
    let old = fs::read_link(&at).unwrap();
    fs::remove_file(&at).unwrap();
    // Half of them have a target of the same length, and the time of the old link.
    if tree.random.one_in(2) {
        let mut target = old.as_os_str().as_bytes().to_vec();
        let last = target.last_mut()?;
        *last = if *last == b'x' { b'y' } else { b'x' };
        symlink(OsStr::from_bytes(&target), &at).unwrap();
        tree.set_time(&link.path, link.mtime);
    } else {
        let target = tree.link_target();
        symlink(target.join("more"), &at).unwrap();
    }
    Some(link.path)
}

fn renumber(tree: &mut RandomTree) -> Option<PathBuf> {
    let device = tree.any(|entry| entry.kind == Kind::Device && entry.names == 1)?;
    let at = tree.at(&device.path);
    let old = fs::symlink_metadata(&at).unwrap();
    fs::remove_file(&at).unwrap();
    let kind = if old.file_type().is_block_device() {
        rustix::fs::FileType::BlockDevice
    } else {
        rustix::fs::FileType::CharacterDevice
    };
    mknodat(CWD, &at, kind, Mode::from(0o600), old.rdev() ^ 1).unwrap();
    tree.set_time(&device.path, device.mtime);
    Some(device.path)
}

fn root_metadata(tree: &mut RandomTree) -> Option<PathBuf> {
    let root = PathBuf::new();
    match tree.random.below(3) {
        0 => tree.set_mode(&root),
        1 => drop(tree.set_attribute(&root)),
        _ => {
            let time = tree.unusual_time();
            tree.set_time(&root, time);
        }
    }
    Some(root)
}
