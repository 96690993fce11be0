//! Files with several names: a delta has all names of a file or none.

use super::*;

/// Packs a tree with two names of one file and a file apart, changes it, and returns the non-directories of the delta.
fn delta_after(change: impl FnOnce(&Series)) -> Vec<String> {
    let series = Series::new();
    series.write("d/1", "one", OLD);
    fs::hard_link(series.at("d/1"), series.at("other/2")).unwrap();
    series.write("other/3", "three", OLD);
    series.settle();
    series.pack();
    change(&series);
    for directory in ["d", "other", ""] {
        set_time(&series.at(directory), OLD, 5);
    }
    let packed = series.pack();
    series.assert_shows_tree();
    if packed.incremental.unwrap().form == ImageForm::Unchanged {
        return Vec::new();
    }
    series.last_layer().into_iter().filter(|item| !item.ends_with('/')).collect()
}

#[test]
fn an_unchanged_group_is_not_packed() {
    assert!(delta_after(|_| {}).is_empty());
    assert_eq!(delta_after(|series| series.write("d/a", "changed", NEWEST + 9)), ["d/a"]);
}

#[test]
fn a_changed_content_takes_all_names() {
    assert_eq!(delta_after(|series| series.write("other/2", "changed", NEWEST + 9)), ["d/1", "other/2"]);
}

#[test]
fn a_group_that_grows_is_packed_whole() {
    let grow = |series: &Series| fs::hard_link(series.at("d/1"), series.at("other/z")).unwrap();
    assert_eq!(delta_after(grow), ["d/1", "other/2", "other/z"]);
    let earlier = |series: &Series| fs::hard_link(series.at("d/1"), series.at("a-first")).unwrap();
    assert_eq!(delta_after(earlier), ["a-first", "d/1", "other/2"]);
}

#[test]
fn a_file_that_joins_a_group_takes_all_names() {
    let join = |series: &Series| {
        fs::remove_file(series.at("other/3")).unwrap();
        fs::hard_link(series.at("d/1"), series.at("other/3")).unwrap();
    };
    assert_eq!(delta_after(join), ["d/1", "other/2", "other/3"]);
}

#[test]
fn a_group_that_splits_is_packed_as_far_as_it_must() {
    let split = |series: &Series| {
        fs::remove_file(series.at("other/2")).unwrap();
        series.write("other/2", "one", OLD);
        set_time(&series.at("other/2"), OLD, 5);
    };
    assert_eq!(delta_after(split), ["other/2"]);
}

#[test]
fn a_group_that_loses_its_first_path_keeps_its_content() {
    assert_eq!(delta_after(|series| fs::remove_file(series.at("d/1")).unwrap()), ["-d/1", "other/2"]);
    assert_eq!(delta_after(|series| fs::remove_file(series.at("other/2")).unwrap()), ["-other/2"]);
}
