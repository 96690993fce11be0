//! Comparison of directories with every attribute, except those that an engine does not restore.
//!
//! [`crate::snapshot`] records the directory. Some engines lose nanoseconds, owners or some xattrs. A test names what it
//! ignores, and everything else must be equal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::snapshot::{Seen, snapshot};

/// The entries of a directory by their paths. The directory itself has the empty path.
#[derive(Clone, PartialEq)]
pub struct Survey(BTreeMap<PathBuf, Seen>);

impl Survey {
    /// Records the directory.
    pub fn of(root: &Path) -> Survey {
        let mut seen = snapshot(root);
        for found in seen.values_mut().filter(|found| found.kind == "file") {
            // With a digest, a failure does not print the content.
            let sha256: String =
                Sha256::digest(&found.content).iter().map(|byte| format!("{byte:02x}")).collect();
            found.content = format!("{} bytes, sha256 {sha256}", found.content.len()).into_bytes();
        }
        Survey(seen)
    }

    /// Truncates mtimes to seconds, for engines that write no fractions.
    pub fn whole_seconds(mut self) -> Survey {
        self.0.values_mut().for_each(|found| found.mtime.1 = 0);
        self
    }

    /// Replaces mtimes before 1970 by 1970, which the engines of containers do.
    pub fn not_before_1970(mut self) -> Survey {
        let old = self.0.values_mut().filter(|found| found.mtime.0 < 0);
        old.for_each(|found| found.mtime = (0, 0));
        self
    }

    /// Removes the directory itself. Some engines do not store its attributes.
    pub fn below_the_root(mut self) -> Survey {
        self.0.remove(Path::new(""));
        self
    }

    /// Removes owners and xattrs, for engines that cannot set them.
    pub fn without_owners_and_xattrs(mut self) -> Survey {
        for found in self.0.values_mut() {
            found.owner = (0, 0);
            found.xattrs.clear();
        }
        self
    }

    /// Removes the xattrs with this prefix, such as `user.`.
    pub fn without_xattrs(mut self, prefix: &str) -> Survey {
        self.0
            .values_mut()
            .for_each(|found| found.xattrs.retain(|name, _| !name.starts_with(prefix.as_bytes())));
        self
    }

    /// Removes the entries whose paths the condition names.
    pub fn without(mut self, condition: impl Fn(&Path) -> bool) -> Survey {
        self.0.retain(|path, _| !condition(path));
        self
    }

    /// Returns whether there is an entry with this path.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(Path::new(path))
    }

    /// Fails if the other one is not equal, with a line for each difference.
    #[track_caller]
    pub fn assert_same(&self, other: &Survey) {
        let mut differences = String::new();
        for (path, expected) in &self.0 {
            match other.0.get(path) {
                None => writeln!(differences, "{path:?} is missing"),
                Some(actual) if actual != expected => {
                    writeln!(
                        differences,
                        "{path:?}\n  expected {}\n  actual   {}",
                        show(expected),
                        show(actual)
                    )
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

fn show(seen: &Seen) -> String {
    let Seen { kind, mode, owner: (user, group), mtime, rdev, content, xattrs, same_as } = seen;
    let text = String::from_utf8_lossy(content);
    let mut line = format!("{kind} {mode:o} {user}:{group} {}.{:09} {text:?}", mtime.0, mtime.1);
    write!(line, " rdev {rdev} inode of {same_as:?}").expect("a string");
    for (name, value) in xattrs {
        write!(line, " {}={}", name.escape_ascii(), value.escape_ascii()).expect("a string");
    }
    line
}

/// Every kind of change must be noticed, or the comparisons would prove nothing.
#[test]
fn a_survey_notices_every_kind_of_change() {
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
            lsetxattr(root.join("file"), "user.test", b"other", XattrFlags::empty()).expect("setxattr");
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
