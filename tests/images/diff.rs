//! What differs between images and directories.

use super::{make_tree, memory, pack, unpack};
use std::fs;
use std::path::Path;
use volio::diff::{Attribute, Options, Side, diff};
use volio::progress::Silent;

fn lines(left: Side<'_>, right: Side<'_>, options: &Options) -> Vec<String> {
    let compared = diff(left, right, options, &Silent).unwrap();
    compared.differences().map(|difference| difference.to_string()).collect()
}

#[test]
fn an_image_is_the_same_as_what_it_was_made_of_and_what_comes_of_it() {
    let (tree, target, image) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), memory());
    make_tree(tree.path());
    pack(&image, tree.path());
    unpack(&image, target.path()).unwrap();
    let options = Options::default();
    for directory in [tree.path(), target.path()] {
        assert_eq!(lines(Side::Image(&image), Side::Directory(directory), &options), Vec::<String>::new());
    }
    assert_eq!(lines(Side::Image(&image), Side::Image(&image), &options), Vec::<String>::new());
    assert_eq!(diff(Side::Image(&image), Side::Image(&image), &options, &Silent).unwrap().entries(), 11);
}

#[test]
fn two_images_are_compared_as_their_trees_are() {
    let (tree, first, second) = (tempfile::tempdir().unwrap(), memory(), memory());
    make_tree(tree.path());
    pack(&first, tree.path());
    fs::write(tree.path().join("file"), "CONTENT\n").unwrap();
    fs::remove_file(tree.path().join("dangling")).unwrap();
    fs::rename(tree.path().join("empty"), tree.path().join("renamed")).unwrap();
    pack(&second, tree.path());
    let options = Options { ignore: [Attribute::Mtime].into(), ..Options::default() };
    let between = lines(Side::Image(&first), Side::Image(&second), &options);
    assert_eq!(between.len(), 4, "{between:?}");
    assert_eq!(&between[0], "- /dangling");
    assert!(between[1].starts_with("~ /dir/again content sha256:"), "the first name: {between:?}");
    assert_eq!(&between[2..], ["- /empty", "+ /renamed"]);
    assert_eq!(lines(Side::Image(&first), Side::Directory(tree.path()), &options), between);
}

#[test]
fn a_directory_that_is_not_there_is_not_an_empty_one() {
    let image = memory();
    pack(&image, tempfile::tempdir().unwrap().path());
    let missing = Side::Directory(Path::new("/nowhere at all"));
    let error = diff(Side::Image(&image), missing, &Options::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), volio::error::Kind::NotFound);
}
