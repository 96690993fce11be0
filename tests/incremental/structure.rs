//! Changes of names, kinds and hard links.

use super::tree::{Found, Kind, RandomTree};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

pub fn rename(tree: &mut RandomTree) -> Option<PathBuf> {
    let entry = tree.any(|_| true)?;
    let to = tree.new_path_in(entry.path.parent()?);
    fs::rename(tree.at(&entry.path), tree.at(&to)).unwrap();
    Some(to)
}

pub fn move_elsewhere(tree: &mut RandomTree) -> Option<PathBuf> {
    let entry = tree.any(|_| true)?;
    let directory = tree.any_directory();
    if directory.starts_with(&entry.path) || entry.path.parent() == Some(&directory) {
        return None;
    }
    let to = tree.new_path_in(&directory);
    fs::rename(tree.at(&entry.path), tree.at(&to)).unwrap();
    Some(to)
}

pub fn exchange(tree: &mut RandomTree) -> Option<PathBuf> {
    let (left, right) = (tree.any(|_| true)?, tree.any(|_| true)?);
    if left.path.starts_with(&right.path) || right.path.starts_with(&left.path) {
        return None;
    }
    let (one, other) = (tree.at(&left.path), tree.at(&right.path));
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).ok()?;
    Some(left.path)
}

pub fn rename_over(tree: &mut RandomTree) -> Option<PathBuf> {
    let (from, to) =
        (tree.any(|entry| entry.kind == Kind::File)?, tree.any(|entry| entry.kind == Kind::File)?);
    if from.inode == to.inode {
        return None;
    }
    fs::rename(tree.at(&from.path), tree.at(&to.path)).unwrap();
    Some(to.path)
}

pub fn delete_file(tree: &mut RandomTree) -> Option<PathBuf> {
    let entry = tree.any(|entry| entry.kind != Kind::Directory)?;
    fs::remove_file(tree.at(&entry.path)).unwrap();
    Some(entry.path)
}

pub fn delete_directory(tree: &mut RandomTree) -> Option<PathBuf> {
    let entry = tree.any(|entry| entry.kind == Kind::Directory)?;
    fs::remove_dir_all(tree.at(&entry.path)).unwrap();
    Some(entry.path)
}

pub fn empty_directory(tree: &mut RandomTree) -> Option<PathBuf> {
    let all = tree.entries();
    let has_entries = |directory: &Found| {
        directory.kind == Kind::Directory
            && all.iter().any(|entry| entry.path.parent() == Some(&directory.path))
    };
    let directory = tree.any(has_entries)?;
    for entry in all.iter().filter(|entry| entry.path.parent() == Some(&directory.path)) {
        remove(tree, entry);
    }
    Some(directory.path)
}

fn remove(tree: &RandomTree, entry: &Found) {
    let at = tree.at(&entry.path);
    if entry.kind == Kind::Directory { fs::remove_dir_all(at) } else { fs::remove_file(at) }.unwrap();
}

pub fn add_file(tree: &mut RandomTree) -> Option<PathBuf> {
    Some(tree.add(Kind::File))
}

pub fn add_entry(tree: &mut RandomTree) -> Option<PathBuf> {
    let kind = tree.any_kind();
    Some(tree.add(kind))
}

pub fn add_subtree(tree: &mut RandomTree) -> Option<PathBuf> {
    let top = tree.add(Kind::Directory);
    let mut below = top.clone();
    for _ in 0..tree.random.below(4) {
        let kind = tree.any_kind();
        let path = tree.new_path_in(&below);
        tree.create(&path, kind);
        if kind == Kind::Directory {
            below = path;
        }
    }
    Some(top)
}

pub fn retype(tree: &mut RandomTree) -> Option<PathBuf> {
    let entry = tree.any(|_| true)?;
    let kind = *tree.random.pick(&Kind::ALL);
    if kind == entry.kind {
        return None;
    }
    remove(tree, &entry);
    tree.create(&entry.path, kind);
    if kind == Kind::Directory && tree.random.one_in(2) {
        let below = tree.new_path_in(&entry.path);
        tree.create(&below, Kind::File);
    }
    Some(entry.path)
}

pub fn replace_directory_by_link(tree: &mut RandomTree) -> Option<PathBuf> {
    let directory = tree.any(|entry| entry.kind == Kind::Directory)?;
    let to = tree.new_path_in(directory.path.parent()?);
    fs::rename(tree.at(&directory.path), tree.at(&to)).unwrap();
    symlink(to.file_name()?, tree.at(&directory.path)).unwrap();
    Some(directory.path)
}

pub fn replace_link_by_directory(tree: &mut RandomTree) -> Option<PathBuf> {
    let link = tree.any(|entry| entry.kind == Kind::Symlink)?;
    fs::remove_file(tree.at(&link.path)).unwrap();
    tree.create(&link.path, Kind::Directory);
    let below = tree.new_path_in(&link.path);
    tree.create(&below, Kind::File);
    Some(link.path)
}

/// Copies a file with all attributes but the time.
pub fn copy(tree: &mut RandomTree) -> Option<PathBuf> {
    let file = tree.any(|entry| entry.kind == Kind::File)?;
    let to = tree.new_path();
    copy_with_attributes(&tree.at(&file.path), &tree.at(&to));
    let time = tree.time();
    tree.set_time(&to, time);
    Some(to)
}

fn copy_with_attributes(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg("--").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

pub fn link(tree: &mut RandomTree) -> Option<PathBuf> {
    tree.add_link()
}

/// Replaces a name of several by a file that is equal in everything but the inode.
pub fn split(tree: &mut RandomTree) -> Option<PathBuf> {
    let name = tree.any(|entry| entry.names > 1 && entry.kind != Kind::Directory)?;
    let copy = tree.new_path_in(name.path.parent()?);
    copy_with_attributes(&tree.at(&name.path), &tree.at(&copy));
    fs::rename(tree.at(&copy), tree.at(&name.path)).unwrap();
    Some(name.path)
}

/// Replaces a file by a name of another one.
pub fn join(tree: &mut RandomTree) -> Option<PathBuf> {
    let (first, second) =
        (tree.any(|entry| entry.kind != Kind::Directory)?, tree.any(|entry| entry.kind != Kind::Directory)?);
    if first.inode == second.inode {
        return None;
    }
    fs::remove_file(tree.at(&second.path)).unwrap();
    fs::hard_link(tree.at(&first.path), tree.at(&second.path)).unwrap();
    Some(second.path)
}

pub fn delete_first_name(tree: &mut RandomTree) -> Option<PathBuf> {
    let all = tree.entries();
    let is_first = |entry: &Found| {
        let first = all.iter().find(|other| other.inode == entry.inode);
        entry.names > 1
            && entry.kind != Kind::Directory
            && first.is_some_and(|first| first.path == entry.path)
    };
    let first = tree.any(is_first)?;
    fs::remove_file(tree.at(&first.path)).unwrap();
    Some(first.path)
}
