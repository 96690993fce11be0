//! A tree that changes while it is walked and read.

use super::*;
use crate::tree::activity::{Care, now};
use crate::tree::file::{READ_AT_ONCE, ReadFailure, read_at_once};
use crate::tree::race::Stamp;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, fstat, utimensat};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Stdio;
use std::thread;

/// The size of a file that is not read at once.
const LARGE: usize = READ_AT_ONCE as usize + 1;

fn with_policy(on_change: OnChange) -> WalkOptions {
    WalkOptions { on_change, ..WalkOptions::default() }
}

fn append(path: &Path) {
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
}

/// Writes to a file and restores its mtime, as `cp -p` and `rsync -t` do, so that only the ctime changes.
fn overwrite_secretly(path: &Path) {
    let before = fs::metadata(path).unwrap();
    let mut content = fs::read(path).unwrap();
    content[0] ^= 1;
    // The clock of a file system ticks in milliseconds.
    while fs::metadata(path).unwrap().ctime_nsec() == before.ctime_nsec() {
        fs::write(path, &content).unwrap();
    }
    let time = Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
    assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), before.modified().unwrap());
}

/// Returns the change that is detected when `change` is applied to a file of this size after it was opened.
fn detected(size: usize, change: impl Fn(&Path)) -> FileChange {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, vec![b'x'; size]).unwrap();
    if size as u64 <= READ_AT_ONCE {
        let open = File::open(&file).unwrap();
        let stat = fstat(&open).unwrap();
        change(&file);
        match read_at_once(open.as_fd(), &stat, Care::Once) {
            Err(ReadFailure::Changed(change)) => change,
            _ => panic!("no change was detected"),
        }
    } else {
        let mut walk = Walk::new(&[SourceSpec::new(dir.path())], &WalkOptions::default()).unwrap();
        let found = walk.nth(1).unwrap().unwrap();
        change(&file);
        let error = found.file.unwrap().read_to_end(&mut Vec::new()).unwrap_err();
        let error = crate::Error::io("cannot read", error);
        assert!(error.to_string().starts_with(&format!("{} changed", file.display())), "{error}");
        let changed = Changed::cause_of(&error).unwrap();
        assert_eq!(changed.path, path("file"));
        changed.change
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_detected_whatever_its_size() {
    for size in [1000, LARGE] {
        let (from, to) = (size as u64, size as u64 + 4);
        assert_eq!(detected(size, append), FileChange::Grew { from, to });
        assert_eq!(detected(size, overwrite_secretly), FileChange::Touched);
        let cut = |path: &Path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(7).unwrap();
        assert_eq!(detected(size, cut), FileChange::Shrank { from, to: 7 });
        assert_eq!(
            detected(size, |path| fs::remove_file(path).unwrap()),
            FileChange::Touched,
            "by its ctime"
        );
    }
}

#[test]
fn a_file_that_is_read_in_pieces_fails_at_the_last_one_when_it_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, vec![b'x'; LARGE]).unwrap();
    let mut walk = Walk::new(&[SourceSpec::new(dir.path())], &WalkOptions::default()).unwrap();
    let mut content = walk.nth(1).unwrap().unwrap().file.unwrap();
    let mut buffer = vec![0; LARGE - 1];
    content.read_exact(&mut buffer).unwrap();
    append(&file);
    assert!(content.read(&mut [0; 1]).is_err(), "the change cannot be missed");
}

#[test]
fn entries_of_the_skip_list_are_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    fs::hard_link(dir.path().join("a"), dir.path().join("d")).unwrap();
    let mut skip_list = SkipList::default();
    for (name, change) in [("a", FileChange::Touched), ("c", FileChange::Vanished)] {
        skip_list.add(&path(name), LeftOutReason::Changed(change));
    }
    let walk = |source| walk_skipping(&[source], &with_policy(OnChange::Skip), &skip_list).unwrap();
    let (seen, summary) = walk(SourceSpec::new(dir.path()));
    assert_eq!(names(&seen), ["/b", "/d"]);
    assert_eq!(seen[2].1, b"a", "the other name of a file that is left out has its content");
    assert_eq!(summary.changed, 2);
    let reasons: Vec<_> = summary.left_out.iter().map(|left| (left.path.to_string(), left.reason)).collect();
    let of = |path: &str, change| (path.to_owned(), LeftOutReason::Changed(change));
    assert_eq!(reasons, [of("/a", FileChange::Touched), of("/c", FileChange::Vanished)]);
    let file = SourceSpec::new(dir.path().join("a")).at(path("a"));
    assert_eq!(walk(file).1.changed, 1, "also if it is a source by itself");
}

#[test]
fn an_entry_that_vanishes_is_left_out_if_changes_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "d/e", "z"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let mut walk = Walk::new(&[SourceSpec::new(dir.path())], &with_policy(OnChange::Skip)).unwrap();
    assert!(walk.next().unwrap().is_ok());
    fs::remove_dir(dir.path().join("a")).unwrap();
    assert_eq!(walk.next().unwrap().unwrap().entry.path, path("d"));
    fs::remove_dir_all(dir.path().join("d")).unwrap();
    let rest: Vec<_> = walk.by_ref().map(|found| found.unwrap().entry.path).collect();
    assert_eq!(rest, [path("z")]);
    let summary = walk.summary();
    let left: Vec<_> = summary.left_out.iter().map(|left| left.path.to_string()).collect();
    assert_eq!((summary.changed, left), (2, vec!["/a".to_owned(), "/d/e".to_owned()]));
}

#[test]
fn a_failure_is_added_to_the_skip_list_as_the_policy_says() {
    let error = |name: &str| Changed { path: path(name), change: FileChange::Touched }.into_error("/x");
    let mut skip_list = SkipList::default();
    assert!(!skip_list.record_failure(&error("a"), &with_policy(OnChange::Fail), 0));
    let retry = with_policy(OnChange::Retry);
    let answers = [0, 1, 2, 3].map(|attempts| skip_list.record_failure(&error("a"), &retry, attempts));
    assert_eq!(answers, [true, true, true, false]);
    assert_eq!(skip_list.paths().count(), 0);
    let skip = with_policy(OnChange::Skip);
    assert!(
        skip_list.record_failure(&error("a"), &skip, 0) && skip_list.record_failure(&error("b"), &skip, 100)
    );
    assert!(!skip_list.record_failure(&error("a"), &skip, 1), "an entry that is left out cannot change");
    assert_eq!(skip_list.paths().count(), 2);
    assert!(!skip_list.record_failure(&crate::Error::failed("no space"), &skip, 0));
}

#[test]
fn files_of_unknown_size_are_read_to_their_end() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["/proc/sys/kernel/ostype", "/proc/cpuinfo", "/sys/kernel/uevent_seqnum"] {
        let Ok(expected) = fs::read(file) else {
            skipped(&format!("{file}, because it cannot be read here"));
            continue;
        };
        let stated = fs::metadata(file).unwrap().len();
        let (seen, _) = walk_with(&[SourceSpec::new(file)], &WalkOptions::default()).unwrap();
        let size = seen.iter().find_map(|(entry, _)| match entry.kind {
            EntryKind::File { size } => Some(size),
            _ => None,
        });
        let content = &seen.last().unwrap().1;
        assert_eq!(size, Some(content.len() as u64), "{file}");
        assert!(!content.is_empty() && stated != content.len() as u64, "{file}");
        if !file.ends_with("cpuinfo") && !file.ends_with("seqnum") {
            assert_eq!(*content, expected);
        }
    }
    let file = dir.path().join("empty");
    fs::write(&file, "").unwrap();
    assert_eq!(walk(dir.path())[1].0.kind, EntryKind::File { size: 0 });
}

#[test]
fn a_stamp_is_the_same_only_if_the_file_was_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let stamp = || Stamp::new(&rustix::fs::stat(&file).unwrap());
    let before = stamp();
    fs::read(&file).unwrap();
    assert_eq!(before.change(&stamp()), None, "reading is not a change");
    overwrite_secretly(&file);
    assert_eq!(before.change(&stamp()), Some(FileChange::Touched));
}

#[test]
fn a_survey_finds_every_file_that_changes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c", "d"] {
        fs::write(dir.path().join(name), vec![b'x'; LARGE]).unwrap();
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for name in ["a", "c"] {
            let (file, done) = (dir.path().join(name), &done);
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    append(&file);
                }
            });
        }
        let mut skip_list = SkipList::default();
        // Until both writers have begun.
        while skip_list.paths().count() < 2 {
            skip_list.survey(&[SourceSpec::new(dir.path())], &with_policy(OnChange::Skip)).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(skip_list.paths().collect::<Vec<_>>(), [&path("a"), &path("c")]);
    });
}

/// Returns the content of the only file of a directory; `None` if the walk detected a change.
fn content_in(directory: &Path) -> Option<Vec<u8>> {
    let mut walk = Walk::new(&[SourceSpec::new(directory)], &WalkOptions::default()).unwrap();
    let mut content = Vec::new();
    let mut file = walk.nth(1)?.ok()?.file?;
    file.read_to_end(&mut content).ok()?;
    Some(content)
}

/// Returns the same content with each run of equal bytes reduced to one byte.
fn runs_in(directory: &Path) -> Option<Vec<u8>> {
    let mut content = content_in(directory)?;
    content.dedup();
    Some(content)
}

#[test]
fn a_running_write_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let old = vec![b'a'; 32 << 20];
    fs::write(&path, &old).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let stamp = || fs::metadata(&path).unwrap();
    let stamp = || (stamp().mtime(), stamp().mtime_nsec());
    for byte in b'b'..b'g' {
        let new = vec![byte; old.len()];
        let before = stamp();
        let runs = thread::scope(|scope| {
            scope.spawn(|| file.write_at(&new, 0).unwrap());
            // Its stamps change when it begins, and not again.
            while stamp() == before {}
            runs_in(dir.path())
        });
        assert!(runs.as_ref().is_none_or(|runs| runs.len() == 1), "{runs:?}");
    }
}

#[test]
fn a_file_that_is_written_through_a_mapping_is_read_as_it_was_at_one_moment() {
    // It writes from the beginning to the end, again and again, so that newer bytes come before older ones.
    let script = "import mmap, sys\n\
        f = open(sys.argv[1], 'r+b')\n\
        m = mmap.mmap(f.fileno(), 0)\n\
        m[:] = bytes(len(m))\n\
        print('ready', flush=True)\n\
        while True:\n  for n in range(256):\n    for at in range(0, len(m), 1 << 15):\n      \
        m[at:at + (1 << 15)] = bytes([n]) * (1 << 15)\n";
    for size in [READ_AT_ONCE as usize, 4 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![0; size]).unwrap();
        let python = Command::new("python3").args(["-c", script]).arg(&path).stdout(Stdio::piped()).spawn();
        let Ok(mut writer) = python else { return skipped("shared mappings, because there is no python3") };
        BufReader::new(writer.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let read: Vec<_> = (0..10).filter_map(|_| content_in(dir.path())).collect();
        writer.kill().unwrap();
        writer.wait().unwrap();
        for content in read {
            // The C library copies the parts of one block in any order, so the block that is being written may be mixed.
            let (whole, mixed): (Vec<_>, Vec<_>) =
                content.chunks(1 << 15).partition(|block| block.iter().all(|byte| *byte == block[0]));
            let mut runs: Vec<u8> = whole.iter().map(|block| block[0]).collect();
            runs.dedup();
            let is_of_one_moment = match runs[..] {
                [_] => true,
                [new, old] => new == old.wrapping_add(1),
                _ => false,
            };
            assert!(is_of_one_moment && mixed.len() <= 1, "{size}: {runs:?}, {} mixed blocks", mixed.len());
        }
    }
}

/// Walks over a tree to which `change` is applied after `b` was read and before `c` is listed.
fn changed_meanwhile(options: &WalkOptions, change: impl Fn(&Path)) -> (crate::Result<()>, Summary) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c/below"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    for name in ["a/1", "b/2", "c/3", "c/below/4"] {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let mut walk = Walk::new(&[SourceSpec::new(dir.path())], options).unwrap();
    let begun = now();
    assert_eq!(walk.nth(4).unwrap().unwrap().entry.path, path("b/2"));
    // A file that is created within the clock tick in which the walk began could be older than the walk.
    let is_after = |time: std::time::SystemTime| {
        let since = time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        (since.as_secs() as i64, since.subsec_nanos()) > (begun.seconds, begun.nanoseconds)
    };
    while !is_after(tempfile::tempfile().unwrap().metadata().unwrap().modified().unwrap()) {}
    change(dir.path());
    walk.by_ref().for_each(|found| drop(found.unwrap()));
    let mut summary = walk.summary();
    (walk.into_listed().check(options.on_change, &mut summary), summary)
}

#[test]
fn an_entry_that_is_moved_past_the_walk_is_detected() {
    let rename = |from: &'static str, to: &'static str| {
        move |root: &Path| fs::rename(root.join(from), root.join(to)).unwrap()
    };
    for (from, to) in [("c/3", "a/3"), ("c/3", "b/3"), ("c/below", "a/below"), ("c/3", "0"), ("c/3", "a/1")] {
        let error = changed_meanwhile(&WalkOptions::default(), rename(from, to)).0.unwrap_err();
        assert!(
            error.to_string().ends_with(&format!("/{to} changed while it was read: it was moved")),
            "{error}"
        );
        assert_eq!(Changed::cause_of(&error).unwrap().path, path(to));
    }
    let (outcome, summary) = changed_meanwhile(&with_policy(OnChange::Skip), rename("c/3", "a/3"));
    outcome.unwrap();
    assert_eq!((summary.changed, summary.left_out[0].path.clone()), (1, path("a/3")));
    let excluding = WalkOptions { exclude: vec!["a/3".into()], ..WalkOptions::default() };
    changed_meanwhile(&excluding, rename("c/3", "a/3")).0.unwrap();
}

#[test]
fn an_entry_that_is_created_or_removed_after_its_directory_was_read_is_not_a_change() {
    let unchanged = |change: fn(&Path)| changed_meanwhile(&WalkOptions::default(), change).0.unwrap();
    unchanged(|_| {});
    unchanged(|root| fs::write(root.join("a/new"), "new").unwrap());
    unchanged(|root| fs::remove_dir_all(root.join("a")).unwrap());
    unchanged(|root| fs::rename(root.join("a/1"), root.join("c/1")).unwrap());
    unchanged(|root| {
        fs::write(root.join("a/1.new"), "new").unwrap();
        fs::rename(root.join("a/1.new"), root.join("a/1")).unwrap();
    });
}

#[test]
fn a_file_is_read_when_its_next_change_would_get_another_stamp() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    fs::write(&path, "text").unwrap();
    let stamp = fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(names(&walk(root.path())), ["/file"]);
    // The walk has read it by now, and the longest tick is one hundredth of a second.
    assert!(stamp.elapsed().unwrap() > std::time::Duration::from_millis(10));
}
