//! What the user should know about a tree that is packed although the work goes on.

use crate::layer::{Budget, Limits};
use crate::progress::Progress;
use crate::tree::{Entry, FileContent, Summary, WalkedEntry};

/// Holes up to this many bytes are packed without a word: they take about as long as a minute's coffee.
const QUIET: u64 = 64 << 30;

/// Bytes of holes that are archived, hashed and compressed in a second: what SHA-256 does on one core.
const RATE: u64 = 1 << 30;

/// Warns of holes: nothing of them is read, and yet all their zeros must be hashed, because an archive is the same
/// whether its files have holes or not.
pub struct Holes<'a> {
    bytes: u64,
    /// The next warning comes above this.
    quiet: u64,
    progress: &'a dyn Progress,
}

impl<'a> Holes<'a> {
    pub fn new(progress: &'a dyn Progress) -> Self {
        Self { bytes: 0, quiet: QUIET, progress }
    }

    /// Counts what a file adds.
    pub fn count(&mut self, found: &WalkedEntry) {
        self.bytes = self.bytes.saturating_add(found.file.as_ref().map_or(0, FileContent::holes));
        if self.bytes > self.quiet {
            self.progress.warn(&format!(
                "there are {} GiB of holes up to {}: they are not read, but hashing them takes about {} minutes",
                self.bytes >> 30,
                found.entry.path,
                (self.bytes / RATE / 60).max(1),
            ));
            self.quiet = self.bytes.saturating_mul(2);
        }
    }
}

/// Warns of a tree that an unpack refuses unless it is told otherwise: it is within no [`Limits`] that are meant to be
/// beyond what anybody has.
pub struct Refused<'a> {
    /// None when there was a warning.
    budget: Option<Budget>,
    progress: &'a dyn Progress,
}

impl<'a> Refused<'a> {
    pub fn new(progress: &'a dyn Progress) -> Self {
        Self { budget: Some(Budget::new(Limits::default())), progress }
    }

    /// Counts one more entry.
    pub fn count(&mut self, entry: &Entry) {
        let Some(budget) = &mut self.budget else { return };
        if let Err(error) = budget.pass(&entry.path) {
            let hint = error.hint().unwrap_or_default();
            self.progress.warn(&format!("unpack will refuse this image by default: {error} ({hint})"));
            self.budget = None;
        }
    }
}

/// Names what is not in the image.
pub fn left_out(summary: &Summary, progress: &dyn Progress) {
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
    use crate::progress::{Silent, Task};
    use crate::tree::{
        EntryKind, FileChange, LeftOut, LeftOutReason, Metadata, SourceSpec, TreePath, Walk, WalkOptions,
    };
    use std::fs::File;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Told(Mutex<Vec<String>>);

    impl Progress for Told {
        fn begin(&self, _: &str, _: Option<u64>) -> Box<dyn Task> {
            Box::new(Silent)
        }

        fn warn(&self, message: &str) {
            self.0.lock().unwrap().push(message.to_owned());
        }
    }

    #[test]
    fn many_holes_are_a_warning_with_the_time_that_they_take_and_twice_as_many_are_another() {
        let tree = tempfile::tempdir().unwrap();
        for (name, gib) in [("a", 60u64), ("b", 60), ("c", 60), ("d", 60), ("e", 60)] {
            File::create(tree.path().join(name)).unwrap().set_len(gib << 30).unwrap();
        }
        let told = Told::default();
        let mut holes = Holes::new(&told);
        for found in Walk::new(&[SourceSpec::new(tree.path())], &WalkOptions::default()).unwrap() {
            holes.count(&found.unwrap());
        }
        let about = |gib: u64, path: &str, minutes: u64| {
            format!(
                "there are {gib} GiB of holes up to {path}: they are not read, but hashing them takes about {minutes} \
                 minutes"
            )
        };
        assert_eq!(*told.0.lock().unwrap(), [about(120, "/b", 2), about(300, "/e", 5)]);
    }

    #[test]
    fn what_is_left_out_is_named_and_the_rest_is_counted() {
        let left = |path: &str, reason| LeftOut { path: TreePath::parse(path).unwrap(), reason };
        let left_out = vec![
            left("a", LeftOutReason::Unreadable(13)),
            left("b", LeftOutReason::Changed(FileChange::Vanished)),
        ];
        let told = Told::default();
        super::left_out(&Summary { unreadable: 3, changed: 1, left_out, ..Summary::default() }, &told);
        assert_eq!(
            *told.0.lock().unwrap(),
            [
                "/a is not in the image: it may not be read",
                "/b is not in the image: it vanished while it was read",
                "2 more are not in the image for such reasons",
            ]
        );
    }

    #[test]
    fn what_an_unpack_refuses_by_default_is_told_once() {
        let told = Told::default();
        let mut refused = Refused::new(&told);
        let count = |refused: &mut Refused<'_>, depth: usize| {
            let path = TreePath::parse("d/".repeat(depth).as_bytes()).unwrap();
            refused.count(&Entry {
                path,
                kind: EntryKind::Directory,
                metadata: Metadata::implied_directory(),
            });
        };
        count(&mut refused, 256);
        assert!(told.0.lock().unwrap().is_empty());
        count(&mut refused, 257);
        count(&mut refused, 258);
        let told = told.0.lock().unwrap();
        assert!(matches!(told.as_slice(), [one] if one.contains("--max-depth")), "{told:?}");
    }
}
