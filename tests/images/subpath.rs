//! A part of an image, unpacked by ranges: what comes of it is what comes of it when all is read.

use super::memory;
use super::partial::{Counting, any_line, both, file, frame, handmade, of, path};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use volio::Result;
use volio::error::Kind as ErrorKind;
use volio::progress::Silent;
use volio::transport::Source;
use volio::unpack::{self, PathFilter};

/// Unpacks a part of an image into an empty directory.
fn taken(source: &dyn Source, part: &str) -> Result<BTreeMap<PathBuf, crate::snapshot::Seen>> {
    let target = tempfile::tempdir().unwrap();
    let options = unpack::Options { filter: PathFilter::Subpath(path(part)), ..unpack::Options::default() };
    unpack::unpack(source, target.path(), &options, &Silent)?;
    let again = unpack::unpack(source, target.path(), &options, &Silent)?;
    let seen: BTreeMap<_, _> = crate::snapshot::snapshot(target.path()).into_iter().collect();
    // A target without content is filled again.
    assert!(again.outcome == unpack::Outcome::Present || seen.len() == 1);
    Ok(seen)
}

/// Returns the entries below a path, by paths from there.
fn cut(tree: BTreeMap<PathBuf, crate::snapshot::Seen>, part: &str) -> Option<BTreeMap<PathBuf, Vec<u8>>> {
    let kind = tree.get(Path::new(part))?.kind;
    let below = tree.into_iter().filter_map(|(path, seen)| match kind {
        "directory" => Some((path.strip_prefix(part).ok()?.to_owned(), seen.content)),
        _ => (path == Path::new(part)).then(|| (path.file_name().unwrap().into(), seen.content)),
    });
    Some(below.filter(|(path, _)| path != Path::new("")).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn a_part_of_an_image_is_what_the_whole_image_has_there(
        layers in prop::collection::vec(prop::collection::vec(any_line(), 0..7), 1..4),
        part in prop::sample::select(vec!["a", "b", "a/b", "b/c"]),
    ) {
        let (image, ranged) = both(&layers);
        let target = tempfile::tempdir().unwrap();
        if unpack::unpack(&image, target.path(), &unpack::Options::default(), &Silent).is_ok() {
            let expected = cut(crate::snapshot::snapshot(target.path()).into_iter().collect(), part);
            for image in [&image, &ranged] {
                let found = taken(image, part).map(|tree| cut(tree, "").unwrap());
                match (&expected, found) {
                    (Some(expected), Ok(found)) => prop_assert_eq!(expected, &found),
                    (None, Err(error)) => prop_assert_eq!(error.kind(), ErrorKind::NotFound),
                    (expected, found) => prop_assert!(false, "{expected:?} {found:?}"),
                }
            }
        }
    }

    #[test]
    fn a_part_of_an_image_is_unpacked_alike_from_ranges_and_whole(
        layers in prop::collection::vec(prop::collection::vec(any_line(), 0..7), 1..4),
        part in prop::sample::select(vec!["a", "b", "a/b", "b/c", "a/b/c"]),
    ) {
        let (whole, ranged) = both(&layers);
        let counting = Counting::new(&ranged);
        match (taken(&whole, part), taken(&counting, part)) {
            (Ok(expected), Ok(found)) => {
                prop_assert!(expected.keys().eq(found.keys()), "{:?} {:?}", expected.keys(), found.keys());
                for (path, seen) in expected {
                    let found = &found[&path];
                    // The journal is not part of the image.
                    prop_assert_eq!((seen.kind, seen.content), (found.kind, found.content.clone()));
                }
            }
            (Err(expected), Err(found)) => prop_assert_eq!(expected.kind(), found.kind()),
            (expected, found) => prop_assert!(false, "{:?} {:?}", expected.map(drop), found.map(drop)),
        }
        prop_assert_eq!(counting.taken().0, 0);
    }
}

#[test]
fn a_small_part_of_a_large_image_is_all_that_is_fetched_of_it() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("wanted/below")).unwrap();
    fs::write(directory.path().join("large"), crate::registry::noise(20 << 20)).unwrap();
    fs::write(directory.path().join("wanted/small"), "small").unwrap();
    fs::hard_link(directory.path().join("wanted/small"), directory.path().join("again")).unwrap();
    let mut sparse = vec![0; 9 << 20];
    sparse[5 << 20] = 1;
    fs::write(directory.path().join("wanted/below/sparse"), &sparse).unwrap();
    let image = memory();
    super::pack(&image, directory.path());
    let counting = Counting::new(&image);
    let seen = taken(&counting, "wanted").unwrap();
    assert_eq!(seen[Path::new("small")].content, b"small", "its first name is elsewhere");
    assert!(seen[Path::new("below/sparse")].content == sparse);
    let (whole, parts) = counting.taken();
    assert!(whole == 0 && parts < 200_000, "{whole} {parts}");
}

#[test]
fn a_part_that_was_changed_is_an_integrity_error_and_its_target_remembers_that_it_is_incomplete() {
    let (one, two) = (frame(b"one"), frame(b"two"));
    let entries = [file("d/a", b"one", 0..one.len()), file("d/b", b"twO", one.len()..one.len() + two.len())];
    let image = of(|image| handmade(image, &[one, two], &entries));
    let target = tempfile::tempdir().unwrap();
    let options = unpack::Options { filter: PathFilter::Subpath(path("d")), ..unpack::Options::default() };
    for _ in 0..2 {
        let error = unpack::unpack(&image, target.path(), &options, &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
        assert!(!target.path().join("b").exists() || fs::read(target.path().join("b")).unwrap().is_empty());
    }
}
