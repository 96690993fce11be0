//! The digest of an image of changes depends on the base, the tree and the options, and on nothing else.

use super::chain::{Chain, Plan};
use super::random::with_seeds;
use super::tree::{Kind, RandomTree};
use crate::engines::program::finish;
use crate::engines::survey::Survey;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

fn copy(from: &Path, to: &Path) {
    let copied =
        Command::new("cp").args(["-a", "--no-target-directory", "--"]).args([from, to]).output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}

/// Gives files other inodes, in the reverse order of their names, and directories another order of their entries.
fn reorder(root: &Path) {
    let tree = RandomTree::over(root, 0, 0);
    let before = tree.entries();
    for entry in before.iter().rev().filter(|entry| entry.kind != Kind::Directory && entry.names == 1) {
        let (at, other) = (tree.at(&entry.path), tree.at(&entry.path).with_file_name("of another inode"));
        copy(&at, &other);
        fs::rename(other, at).unwrap();
    }
    for directory in before.iter().rev().filter(|entry| entry.kind == Kind::Directory) {
        tree.set_time(&directory.path, directory.mtime);
    }
}

/// Packs a directory over the first image of the chain, with a prefix such as `taskset`.
fn digest_of(chain: &Chain, prefix: &[&str], tree: &Path, name: &str) -> String {
    let mut words = prefix.to_vec();
    let (base, image) = (chain.place.path("layout"), chain.place.path(name));
    let (base, image) = (format!("oci:{}:0", base.display()), format!("oci:{}:v", image.display()));
    let tree = tree.to_str().unwrap();
    words.extend([env!("CARGO_BIN_EXE_volio"), "pack", "--allow-shrink", "--layer-size", "1M"]);
    words.extend(["--base", &base, &image, tree]);
    finish(Command::new(words[0]).args(&words[1..]).env_remove("SOURCE_DATE_EPOCH")).digest()
}

#[test]
fn cores_inodes_directories_and_file_systems_do_not_change_the_digest() {
    with_seeds(2, |seed| {
        let plan = Plan { options: &["--layer-size", "1M"], ..Plan::default() };
        let mut chain = Chain::start(10_000 + seed, plan);
        chain.tree.step(10);
        let tree = chain.tree.root().to_owned();
        let expected = digest_of(&chain, &[], &tree, "usual");
        assert_eq!(digest_of(&chain, &["taskset", "-c", "0"], &tree, "one-core"), expected, "with one core");

        let copied = chain.place.path("a copy");
        copy(&tree, &copied);
        reorder(&copied);
        Survey::of(&tree).assert_same(&Survey::of(&copied));
        assert_eq!(digest_of(&chain, &[], &copied, "copied"), expected, "with other inodes");

        let Ok(memory) = TempDir::new_in("/dev/shm") else { return };
        let in_memory = memory.path().join("tree");
        copy(&tree, &in_memory);
        if Survey::of(&tree) == Survey::of(&in_memory) {
            assert_eq!(digest_of(&chain, &[], &in_memory, "in-memory"), expected, "on a tmpfs");
        } else {
            writeln!(std::io::stderr(), "SKIPPED: a tmpfs does not have all attributes here").unwrap();
        }
    });
}

#[test]
#[ignore = "needs root to mount an ext4: run tests/run"]
fn an_ext4_that_lists_its_entries_in_another_order_does_not_change_the_digest() {
    /// Makes a file system without hashed directories, copies `$1` into it, and runs the rest of the arguments.
    const MOUNT: &str = r#"
truncate -s 200M "$0/ext4"; mkfs.ext4 -q -O ^dir_index -b 1024 -I 256 "$0/ext4"
mkdir "$0/mounted"; mount -o loop "$0/ext4" "$0/mounted"
cp -a "$1" "$0/mounted/tree"; shift; "$@"; umount "$0/mounted"
"#;
    with_seeds(2, |seed| {
        let plan = Plan { options: &["--layer-size", "1M"], ..Plan::default() };
        let mut chain = Chain::start(20_000 + seed, plan);
        chain.tree.step(10);
        let expected = digest_of(&chain, &[], chain.tree.root(), "usual");
        let place = chain.place.path("");
        let place = place.to_str().unwrap().trim_end_matches('/');
        let tree = chain.tree.root().to_str().unwrap();
        let prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", MOUNT, place, tree];
        let mounted = format!("{place}/mounted/tree");
        assert_eq!(digest_of(&chain, &prefix, Path::new(&mounted), "on-ext4"), expected);
    });
}
