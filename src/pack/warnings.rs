//! Warnings about a tree that is being packed.

use crate::layer::{Budget, Limits};
use crate::progress::Progress;
use crate::tree::{Entry, FileContent, Summary, WalkedEntry};

/// The size of all holes up to which there is no warning, in bytes. Hashing them takes about a minute.
const HOLES_WITHOUT_WARNING: u64 = 64 << 30;

/// The bytes of holes that are archived, hashed and compressed in a second. SHA-256 on one core is the limit.
const RATE: u64 = 1 << 30;

/// Warns about large holes. They are not read, but their zeros must be hashed, because an archive does not depend on whether
/// its files have holes.
pub struct HoleWarnings<'a> {
    bytes: u64,
    /// The size above which the next warning is given.
    threshold: u64,
    progress: &'a dyn Progress,
}

impl<'a> HoleWarnings<'a> {
    pub fn new(progress: &'a dyn Progress) -> Self {
        Self { bytes: 0, threshold: HOLES_WITHOUT_WARNING, progress }
    }

    /// Counts the holes of a file.
    pub fn count(&mut self, found: &WalkedEntry) {
        self.bytes = self.bytes.saturating_add(found.file.as_ref().map_or(0, FileContent::holes));
        if self.bytes > self.threshold {
            self.progress.warn(&format!(
                "there are {} GiB of holes up to {}: they are not read, but hashing them takes about {} minutes",
                self.bytes >> 30,
                found.entry.path,
                (self.bytes / RATE / 60).max(1),
            ));
            self.threshold = self.bytes.saturating_mul(2);
        }
    }
}

/// Warns about a tree that exceeds the default [`Limits`] of unpack.
pub struct LimitWarnings<'a> {
    /// `None` after a warning.
    budget: Option<Budget>,
    progress: &'a dyn Progress,
}

impl<'a> LimitWarnings<'a> {
    pub fn new(progress: &'a dyn Progress) -> Self {
        Self { budget: Some(Budget::new(Limits::default())), progress }
    }

    /// Counts an entry.
    pub fn count(&mut self, entry: &Entry) {
        let Some(budget) = &mut self.budget else { return };
        if let Err(error) = budget.count_path(&entry.path) {
            let hint = error.hint().unwrap_or_default();
            self.progress.warn(&format!("unpack will refuse this image by default: {error} ({hint})"));
            self.budget = None;
        }
    }
}

/// Warns about entries that were left out.
pub fn warn_left_out(summary: &Summary, progress: &dyn Progress) {
    for left_out in &summary.left_out {
        progress.warn(&format!("{} is not in the image: {}", left_out.path, left_out.reason));
    }
    let unnamed = (summary.unreadable + summary.changed).saturating_sub(summary.left_out.len() as u64);
    if unnamed > 0 {
        progress.warn(&format!("{unnamed} more are not in the image for such reasons"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Silent, Task, TaskInfo};
    use crate::tree::{
        EntryKind, FileChange, LeftOut, LeftOutReason, Metadata, SourceSpec, TreePath, Walk, WalkOptions,
    };
    use std::fs::File;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Warnings(Mutex<Vec<String>>);

    impl Progress for Warnings {
        fn begin(&self, _: &TaskInfo) -> Box<dyn Task> {
            Box::new(Silent)
        }

        fn warn(&self, message: &str) {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }

    #[test]
    fn large_holes_cause_a_warning_with_the_time_and_twice_as_large_ones_another() {
        let tree = tempfile::tempdir().unwrap();
        for (name, gib) in [("a", 60u64), ("b", 60), ("c", 60), ("d", 60), ("e", 60)] {
            File::create(tree.path().join(name)).unwrap().set_len(gib << 30).unwrap();
        }
        let warnings = Warnings::default();
        let mut holes = HoleWarnings::new(&warnings);
        for found in Walk::new(&[SourceSpec::new(tree.path())], &WalkOptions::default()).unwrap() {
            holes.count(&found.unwrap());
        }
        let about = |gib: u64, path: &str, minutes: u64| {
            format!(
                "there are {gib} GiB of holes up to {path}: they are not read, but hashing them takes about {minutes} \
                 minutes"
            )
        };
        assert_eq!(*warnings.0.lock().unwrap(), [about(120, "/b", 2), about(300, "/e", 5)]);
    }

    #[test]
    fn entries_that_are_left_out_are_named_and_the_rest_is_counted() {
        let left = |path: &str, reason| LeftOut { path: TreePath::parse(path).unwrap(), reason };
        let left_out = vec![
            left("a", LeftOutReason::Unreadable(13)),
            left("b", LeftOutReason::Changed(FileChange::Vanished)),
        ];
        let warnings = Warnings::default();
        super::warn_left_out(
            &Summary { unreadable: 3, changed: 1, left_out, ..Summary::default() },
            &warnings,
        );
        assert_eq!(
            *warnings.0.lock().unwrap(),
            [
                "/a is not in the image: it may not be read",
                "/b is not in the image: it vanished while it was read",
                "2 more are not in the image for such reasons",
            ]
        );
    }

    #[test]
    fn a_tree_that_unpack_refuses_by_default_causes_one_warning() {
        let warnings = Warnings::default();
        let mut refused = LimitWarnings::new(&warnings);
        let count = |refused: &mut LimitWarnings<'_>, depth: usize| {
            let path = TreePath::parse("d/".repeat(depth).as_bytes()).unwrap();
            refused.count(&Entry {
                path,
                kind: EntryKind::Directory,
                metadata: Metadata::implied_directory(),
            });
        };
        count(&mut refused, 256);
        assert!(warnings.0.lock().unwrap().is_empty());
        count(&mut refused, 257);
        count(&mut refused, 258);
        let warnings = warnings.0.lock().unwrap();
        assert!(matches!(warnings.as_slice(), [one] if one.contains("--max-depth")), "{warnings:?}");
    }
}
