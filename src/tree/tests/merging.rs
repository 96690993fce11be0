//! Walks over several sources.

use super::*;

/// Extracts some files into a new directory.
fn source(seen: &[Seen]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    extract(seen, dir.path()).unwrap();
    dir
}

fn at(dir: &tempfile::TempDir, below: &str, place: &str) -> SourceSpec {
    SourceSpec::new(dir.path().join(below)).at(path(place))
}

fn merged(sources: &[SourceSpec]) -> crate::Result<Vec<Seen>> {
    walk_with(sources, &WalkOptions::default()).map(|(seen, _)| seen)
}

#[test]
fn sources_are_merged_in_the_order_of_the_tree() {
    let one = source(&[file("m", "1"), file("z/1", "")]);
    let two = source(&[file("b", "2"), file("conf", "c")]);
    let seen = merged(&[
        at(&two, "conf", "etc/app.conf"),
        SourceSpec::new(one.path()),
        at(&two, "", "a/deep"),
        SourceSpec::new(two.path().join("conf")),
    ]);
    let expected =
        ["/a", "/a/deep", "/a/deep/b", "/a/deep/conf", "/conf", "/etc", "/etc/app.conf", "/m", "/z", "/z/1"];
    let seen = seen.unwrap();
    assert_eq!(names(&seen), expected);
    assert!(seen.windows(2).all(|pair| pair[0].0.path < pair[1].0.path));
}

#[test]
fn ancestors_are_implied_only_where_no_source_has_them() {
    let (mut var, _) = directory("var");
    var.metadata.mode = 0o711;
    let one = source(&[(var.clone(), vec![])]);
    let two = source(&[file("data", "")]);
    let seen = merged(&[SourceSpec::new(one.path()), at(&two, "", "var/lib/db")]).unwrap();
    assert_eq!(names(&seen), ["/var", "/var/lib", "/var/lib/db", "/var/lib/db/data"]);
    assert_eq!(seen[1].0, var);
    assert_eq!(seen[2].0.metadata, Metadata::implied_directory());
    let alone = merged(&[at(&two, "", "var/lib/db")]).unwrap();
    assert_eq!(alone[0].0.metadata, Metadata::implied_directory(), "the root, too");
}

#[test]
fn two_sources_with_the_same_path_are_an_error_that_names_both() {
    let one = source(&[file("etc/a", ""), file("file", "")]);
    let two = source(&[file("a", "")]);
    let fails = |sources: &[SourceSpec]| {
        let error = merged(sources).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let message = error.to_string();
        for dir in [&one, &two] {
            assert!(message.contains(dir.path().to_str().unwrap()), "{message}");
        }
    };
    fails(&[at(&one, "", "x"), at(&two, "", "x")]);
    fails(&[SourceSpec::new(one.path()), at(&two, "", "etc")]);
    fails(&[SourceSpec::new(one.path()), at(&two, "a", "file")]);
    fails(&[SourceSpec::new(one.path()), at(&two, "", "file/below")]);
    fails(&[at(&two, "a", "file/below"), SourceSpec::new(one.path())]);
}

#[test]
fn hard_links_lead_to_files_of_the_same_source() {
    let dir = source(&[file("a", "data"), hardlink("b", "a")]);
    let seen = merged(&[at(&dir, "", "x"), at(&dir, "", "y")]).unwrap();
    let kinds: Vec<_> = seen.into_iter().map(|(entry, _)| (entry.path.to_string(), entry.kind)).collect();
    assert_eq!(kinds[2], ("/x/a".to_owned(), EntryKind::File { size: 4 }));
    assert_eq!(kinds[3], ("/x/b".to_owned(), EntryKind::Hardlink { target: path("x/a") }));
    assert_eq!(kinds[5], ("/y/a".to_owned(), EntryKind::File { size: 4 }));
    assert_eq!(kinds[6], ("/y/b".to_owned(), EntryKind::Hardlink { target: path("y/a") }));
}

#[test]
fn a_single_file_is_a_source_and_no_rule_leaves_it_out() {
    let dir = source(&[file("a", "data")]);
    let options = WalkOptions { exclude: vec!["a".into()], ..WalkOptions::default() };
    let (seen, _) = walk_with(&[SourceSpec::new(dir.path().join("a"))], &options).unwrap();
    assert_eq!(seen[0].0.metadata, Metadata::implied_directory());
    assert_eq!(seen[1], file("a", "data"));
}

#[test]
fn a_source_that_is_a_link_is_followed() {
    let dir = source(&[file("v1/a", "data"), symlink("current", "v1"), symlink("file", "v1/a")]);
    let seen = merged(&[SourceSpec::new(dir.path().join("current")), at(&dir, "file", "b")]).unwrap();
    assert_eq!(names(&seen), ["/a", "/b"]);
    assert_eq!(seen[2].1, b"data");
}
