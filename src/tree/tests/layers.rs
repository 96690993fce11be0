//! Extraction of several layers, with whiteouts.

use super::*;

enum LayerChange {
    Put(Seen),
    Whiteout(&'static str),
    Opaque(&'static str),
}
use LayerChange::{Opaque, Put, Whiteout};

/// Extracts layers into a target that need not be empty.
fn layered(target: &Path, layers: &[&[LayerChange]]) -> crate::Result<Vec<String>> {
    let mut extractor = layered_extractor(target)?;
    for layer in layers {
        extractor.begin_layer();
        for change in *layer {
            match change {
                Put(seen) => put(&mut extractor, seen)?,
                Whiteout(name) => extractor.whiteout(&path(name))?,
                Opaque(name) => extractor.opaque(&path(name))?,
            }
        }
    }
    extractor.finish()?;
    Ok(names(&walk(target)))
}

fn fresh(layers: &[&[LayerChange]]) -> Vec<String> {
    layered(tempfile::tempdir().unwrap().path(), layers).unwrap()
}

#[test]
fn a_whiteout_removes_entries_of_earlier_layers() {
    let below: &[LayerChange] = &[Put(file("a/b/c", "")), Put(file("a/b/d", "")), Put(file("ab", ""))];
    assert_eq!(fresh(&[below, &[Whiteout("a/b/c")]]), ["/a", "/a/b", "/a/b/d", "/ab"]);
    assert_eq!(fresh(&[below, &[Whiteout("a")]]), ["/ab"]);
    assert_eq!(fresh(&[below, &[Whiteout("nothing/here")]]), ["/a", "/a/b", "/a/b/c", "/a/b/d", "/ab"]);
    assert_eq!(fresh(&[below, &[Opaque("a")]]), ["/a", "/ab"]);
    assert_eq!(fresh(&[below, &[Opaque("")]]), Vec::<String>::new());
}

#[test]
fn a_whiteout_keeps_entries_of_its_own_layer_in_any_order() {
    let below: &[LayerChange] = &[Put(file("a/old", "")), Put(file("a/both", "1"))];
    for layer in [
        &[Put(directory("a")), Put(file("a/both", "2")), Put(file("a/new", "")), Whiteout("a")],
        &[Whiteout("a"), Put(directory("a")), Put(file("a/both", "2")), Put(file("a/new", ""))],
        &[Put(directory("a")), Opaque("a"), Put(file("a/both", "2")), Put(file("a/new", ""))],
    ] {
        assert_eq!(fresh(&[below, layer]), ["/a", "/a/both", "/a/new"]);
    }
}

#[test]
fn whiteouts_do_not_remove_files_that_were_in_the_target() {
    let target = tempfile::tempdir().unwrap();
    extract(&[file("a/mine", "data"), file("mine", "data")], target.path()).unwrap();
    let layers: [&[LayerChange]; 2] = [
        &[Put(file("a/theirs", "")), Put(file("b", ""))],
        &[Whiteout("a"), Whiteout("mine"), Whiteout("b"), Opaque(""), Opaque("a")],
    ];
    assert_eq!(layered(target.path(), &layers).unwrap(), ["/a", "/a/mine", "/mine"]);
}

#[test]
fn the_kind_of_an_entry_can_change_between_layers() {
    let below: &[LayerChange] = &[Put(file("a/b/c", "")), Put(file("f", "")), Put(symlink("l", "a"))];
    let above: &[LayerChange] =
        &[Put(file("a", "")), Put(directory("f")), Put(directory("l")), Put(file("l/x", ""))];
    assert_eq!(fresh(&[below, above]), ["/a", "/f", "/l", "/l/x"]);
    let again: &[LayerChange] =
        &[Put(directory("a")), Put(file("a/x", "")), Put(file("f", "")), Put(file("l", ""))];
    assert_eq!(fresh(&[below, above, again]), ["/a", "/a/x", "/f", "/l"]);
    assert_eq!(fresh(&[below, &[Put(hardlink("a", "f"))]]), ["/a", "/f", "/l"]);
}

#[test]
fn a_directory_has_the_attributes_of_the_last_layer() {
    let target = tempfile::tempdir().unwrap();
    let (mut last, _) = directory("a");
    last.metadata.mode = 0o700;
    let layers: [&[LayerChange]; 3] = [
        &[Put(file("a/b", ""))],
        &[Put(directory("a"))],
        &[Put((last.clone(), vec![])), Put(file("a/c", ""))],
    ];
    layered(target.path(), &layers).unwrap();
    assert_eq!(walk(target.path())[1].0, last);
}

#[test]
fn a_file_that_a_later_layer_replaces_keeps_its_other_names() {
    let target = tempfile::tempdir().unwrap();
    let layers: [&[LayerChange]; 2] =
        [&[Put(file("a", "old")), Put(hardlink("b", "a"))], &[Put(file("a", "new"))]];
    layered(target.path(), &layers).unwrap();
    assert_eq!(fs::read_to_string(target.path().join("a")).unwrap(), "new");
    assert_eq!(fs::read_to_string(target.path().join("b")).unwrap(), "old");
}

#[test]
fn a_directory_with_contents_that_was_in_the_target_is_not_replaced_by_a_file() {
    let target = tempfile::tempdir().unwrap();
    extract(&[file("a/mine", "data")], target.path()).unwrap();
    for layers in [1, 2] {
        let target_directory = Target::open_or_create(target.path()).unwrap();
        let mut extractor = Extractor::over(target_directory, quick(), layers).unwrap();
        let error = put(&mut extractor, &file("a", "")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(target.path().join("a/mine").exists());
    }
}

#[test]
fn within_a_layer_the_later_of_two_entries_wins() {
    let target = tempfile::tempdir().unwrap();
    extract(&[file("a", "1"), file("a", "2"), directory("b"), file("b", ""), directory("b")], target.path())
        .unwrap();
    assert_eq!(fs::read_to_string(target.path().join("a")).unwrap(), "2");
    assert!(target.path().join("b").is_dir());
}

#[test]
fn a_target_is_empty_only_without_foreign_entries() {
    let target = tempfile::tempdir().unwrap();
    let is_empty = || Target::open_or_create(target.path()).unwrap().foreign_entry().unwrap().is_none();
    assert!(is_empty());
    fs::create_dir(target.path().join("lost+found")).unwrap();
    assert_eq!(is_empty(), is_root(), "a lost+found does not count if it belongs to root");
    fs::write(target.path().join("mine"), "").unwrap();
    assert!(!is_empty());
    let not_a_directory = Extractor::new(&target.path().join("mine"), quick()).err().unwrap();
    assert_eq!(not_a_directory.kind(), ErrorKind::Refused);
}
