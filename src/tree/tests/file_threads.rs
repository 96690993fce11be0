//! Extraction with several threads that write small files.

use super::*;
use crate::tree::FileThreads;
use std::os::unix::fs::MetadataExt;

fn with_threads(count: usize) -> ExtractOptions {
    ExtractOptions { file_threads: FileThreads::Exactly(count), ..quick() }
}

fn extract_with(seen: &[Seen], target: &Path, options: ExtractOptions) -> crate::Result<Extracted> {
    let mut extractor = Extractor::new(target, options)?;
    extractor.begin_state(serde_json::json!(1))?;
    seen.iter().try_for_each(|seen| put(&mut extractor, seen))?;
    extractor.finish()
}

/// Files of different sizes and modes, with everything whose order matters between them.
fn many() -> Vec<Seen> {
    let mut seen = vec![directory("")];
    for number in 0..40 {
        let name = format!("d{number}");
        seen.push(directory(&name));
        for (inner, size) in [(0, 0), (1, 10), (2, 5_000), (3, 200_000), (4, 300_000)] {
            let mut file = file(format!("{name}/f{inner}"), &"x".repeat(size + number));
            file.0.metadata.mode = [0o644, 0o400, 0o4755, 0o600, 0o640][inner];
            file.0.metadata.mtime.nanoseconds = (number * 10 + inner) as u32;
            if inner == 1 {
                file.0.metadata.xattrs.insert(b"user.key".to_vec(), name.clone().into_bytes());
            }
            seen.push(file);
        }
        seen.push(hardlink(format!("{name}/link"), &format!("{name}/f1")));
        seen.push(symlink(format!("{name}/symlink"), "f1"));
        // In place of a file that may not be written yet.
        seen.push(file(format!("{name}/f2"), "the second one"));
        seen.push(symlink(format!("{name}/f0"), "f1"));
    }
    // Nothing waits for these before the end.
    seen.push(directory("last"));
    seen.extend((0..60).map(|number| slow_file(format!("last/{number}"))));
    seen
}

/// A file that one thread does not write as fast as another creates it.
fn slow_file(name: String) -> Seen {
    let mut file = file(name, &"x".repeat(100_000));
    let names = (0..20).map(|key| format!("user.key{key}").into_bytes());
    file.0.metadata.xattrs = names.map(|name| (name, vec![b'x'; 50])).collect();
    file
}

#[test]
fn several_threads_extract_the_same_as_one() {
    let one = tempfile::tempdir().unwrap();
    let expected = extract_with(&many(), one.path(), with_threads(0)).unwrap();
    let entries = walk(one.path());
    assert!(entries.len() > 300);
    for count in [1, 2, 8] {
        let target = tempfile::tempdir().unwrap();
        assert_eq!(extract_with(&many(), target.path(), with_threads(count)).unwrap(), expected);
        assert!(walk(target.path()) == entries, "with {count} threads");
        let links = fs::metadata(target.path().join("d3/link")).unwrap().nlink();
        assert_eq!(links, 2);
        assert!(!target.path().join(".volio.made").exists());
    }
}

#[test]
fn whiteouts_remove_files_of_lower_layers_that_other_threads_write() {
    let target = tempfile::tempdir().unwrap();
    let target_of_layers = Target::open_or_create(target.path()).unwrap();
    let mut extractor = Extractor::over(target_of_layers, with_threads(4), 2).unwrap();
    extractor.begin_layer();
    for number in 0..200 {
        put(&mut extractor, &file(format!("d/{number}"), "content")).unwrap();
    }
    extractor.begin_layer();
    extractor.whiteout(&path("d")).unwrap();
    put(&mut extractor, &file("d/7", "new")).unwrap();
    extractor.finish().unwrap();
    assert_eq!(names(&walk(target.path())), ["/d", "/d/7"]);
    assert_eq!(fs::read(target.path().join("d/7")).unwrap(), b"new");
}

#[test]
fn a_short_content_is_an_error_and_leaves_no_thread() {
    let target = tempfile::tempdir().unwrap();
    let mut extractor = Extractor::new(target.path(), with_threads(4)).unwrap();
    let mut short = file("short", "content");
    short.0.kind = EntryKind::File { size: 100 };
    put(&mut extractor, &file("a", "content")).unwrap();
    let error = put(&mut extractor, &short).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    extractor.abandon();
    assert!(Target::open(target.path()).unwrap().is_some(), "the lock is released");
}

#[test]
fn what_a_dropped_run_has_not_finished_is_removed_and_other_files_stay() {
    let target = tempfile::tempdir().unwrap();
    let mut extractor = Extractor::new(target.path(), with_threads(1)).unwrap();
    extractor.begin_state(serde_json::json!(1)).unwrap();
    for number in 0..100 {
        put(&mut extractor, &slow_file(format!("d/{number}"))).unwrap();
    }
    drop(extractor);
    fs::write(target.path().join("d/precious"), "data").unwrap();
    fs::remove_file(target.path().join("d/99")).unwrap();
    fs::write(target.path().join("d/99"), "data").unwrap();
    Target::open(target.path()).unwrap().unwrap().remove_interrupted().unwrap();
    assert_eq!(names(&walk(target.path())), ["/d", "/d/99", "/d/precious"]);
}

/// Returns the names of the files in a directory that are open in this process and have no name any more.
fn open_without_name(directory: &Path) -> Vec<PathBuf> {
    let open =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    open.filter(|path| path.starts_with(directory) && path.to_string_lossy().ends_with(" (deleted)"))
        .collect()
}

#[test]
fn a_file_is_closed_before_its_name_is_removed() {
    let target = tempfile::tempdir().unwrap();
    let opened = Target::open_or_create(target.path()).unwrap();
    let mut extractor = Extractor::over(opened, with_threads(1), 2).unwrap();
    for number in 0..50 {
        extractor.begin_layer();
        let put_files = |extractor: &mut Extractor| {
            for name in 0..30 {
                put(extractor, &file(format!("d{number}/{name}"), &"x".repeat(100_000))).unwrap();
            }
        };
        put_files(&mut extractor);
        // Each replaces a file of the same name.
        put_files(&mut extractor);
        assert_eq!(open_without_name(target.path()), [""; 0].map(PathBuf::from));
        extractor.begin_layer();
        extractor.whiteout(&path(format!("d{number}"))).unwrap();
        assert_eq!(open_without_name(target.path()), [""; 0].map(PathBuf::from));
    }
    extractor.finish().unwrap();
    assert_eq!(names(&walk(target.path())), [""; 0]);
}

#[test]
fn files_that_were_handed_over_are_complete_after_an_extraction_that_failed() {
    let target = tempfile::tempdir().unwrap();
    fs::create_dir(target.path().join("d")).unwrap();
    fs::write(target.path().join("d/7"), "before").unwrap();
    let mut extractor = Extractor::new(target.path(), with_threads(1)).unwrap();
    for number in 0..100 {
        put(&mut extractor, &slow_file(format!("d/{number}"))).unwrap();
    }
    extractor.abandon();
    for number in 0..100 {
        let metadata = fs::metadata(target.path().join(format!("d/{number}"))).unwrap();
        assert_eq!((metadata.len(), metadata.mtime()), (100_000, 1_000_000_000), "{number}");
    }
}
